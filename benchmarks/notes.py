"""Why a row of the table isn't met: title of the row -> a sentence or two, printed below the table."""

_DAGSTER = (
    "Dagster alone, a job of two empty assets in process, takes 2.35 s on this machine: 0.55 s its import, 0.75 s a new "
    "instance with its SQLite files, 0.4 s storing events. Of the rest, 0.5 s is `datasets`, 0.6 s pyarrow, NumPy and this "
    "package (py-spy, 200 samples a second). Half of the peer's time is hardly more than Dagster's own."
)

NOTES: dict[str, str] = {
    "4 steps, 10k rows, batch 50": (
        "Of 2.3 cpu-s about a third each are imports of this package, those of `datasets` and pandas, which the Distiset "
        "needs, and the 40,000 rows of the four steps. With all its imports the peer takes 3.6 cpu-s for 1,000 rows here."
    ),
    "growth: 10k, 100k, 1M rows, batch 1000": (
        "The figure is the difference of two processes' CPU, and that of the smallest run is 0.16 s of 1.9. Measured within "
        "one process, by `time.process_time`, it falls: 22.8, 17.4 and 16.6 ms for 1,000 rows of the engine, and 1.8, 2.5 "
        "and 1.8 of the Distiset."
    ),
    "3 chained tasks, constant": (
        "192 answers arrive in the same instant. Each takes 0.25 ms of Python in the event loop (py-spy: no function above "
        "7 %), and keeps its place in flight until it's on the disk, some 10 ms later, so that a kill costs no more than "
        "what is on the wire. With 64 calls in flight in all (one model) it is 1.11, see below; with latencies that vary, "
        "1.03."
    ),
    "fan-out to 3 tasks, constant": "As above, and the ideal is 0.8 s: 3,750 calls a second.",
    "start, 3 steps, 80 rows": _DAGSTER,
    "resume, 3 steps, 80 rows, the last one changed": "As above.",
    "Dagster's share: a job of 20 steps less one of 2": (
        "Mostly Dagster's events, which it commits to SQLite one by one: 0.4 s of a run of three steps (py-spy)."
    ),
    "ledger: 100k answers found by key": (
        "0.7 s is SQLite's own reading of 100,000 rows of 1 KB from random places in a file of 140 MB, 0.1 s its index. In "
        "single runs it's between 1.0 and 1.3 s."
    ),
}
