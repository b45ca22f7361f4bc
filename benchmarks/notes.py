"""Why a row of the table isn't met: title of the row -> a sentence or two, printed below the table where it says NO."""

_CALLS = (
    "192 answers arrive in the same instant, as no endpoint's do. Each takes about 0.1 ms of Python in the event loop, no "
    "function of it more than a twentieth, and keeps its place in flight until it's on the disk, so that a kill costs no more "
    "than what is on the wire: half of the ledger's time is the wait for the disk. With latencies that vary it's met."
)
_DAGSTER = (
    "Most of it is Dagster's: its import, a new instance with its SQLite files, and events that it commits one by one take "
    "2.3 s of a job of two empty assets. Of ours, pandas (which Arrow imports as soon as it's given Python values), SQLAlchemy, "
    "NumPy and pyarrow are the larger part; `datasets` isn't imported any more."
)

NOTES: dict[str, str] = {
    "4 steps, 10k rows, batch 50": (
        "A third each are the imports of this package, those of `datasets` and pandas, which the Distiset needs, and the 40,000 "
        "rows of the four steps, of which compression and checksums are the largest part."
    ),
    "4 steps, 100k rows, batch 1000": (
        "The thread that commits sets the pace: Parquet and its compression take 29 % of its time, the wait for the disk 26 %, and "
        "that for its turn with the interpreter, which makes rows of Arrow and Arrow of rows meanwhile, 27 %. The yardstick, a "
        "loop that does nothing else, isn't faster."
    ),
    "growth: 10k, 100k, 1M rows, batch 1000": (
        "From 100k to 1M rows it falls. The rows of the smallest run take 0.23 of its 0.37 cpu-s, which vary by a tenth."
    ),
    "3 chained tasks, constant": _CALLS,
    "fan-out to 3 tasks, constant": f"{_CALLS} The ideal is 0.8 s: 3,750 calls a second.",
    "start, 3 steps, 80 rows": _DAGSTER,
    "resume, 3 steps, 80 rows, the last one changed": _DAGSTER,
    "Dagster's share: a job of 20 steps less one of 2": (
        "Mostly Dagster's own: input provenance, the target of the step's check, and about ten events, each of which it commits "
        "to SQLite by a connection of its own."
    ),
    "CPU-heavy step, 2 replicas beside 1": (
        "The yardstick is what two bare processes gain over one on these cores, which other machines share."
    ),
    "ledger: 100k answers found by key": (
        "Nearly all of it is SQLite's own reading of rows from random places in a file of 140 MB."
    ),
}
