"""Small files that claim to be huge; run as a program it reads one of them with little memory:

python -m tests.integration.strangers.bombs <name> <directory>
"""

import gc
import io
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from distilabel_dagster.base import yaml_data
from distilabel_dagster.cache import claims, layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.pipeline_cache import read_pipeline_file
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.errors import DistilabelDagsterError
from distilabel_dagster.pipeline import Pipeline
from tests.fuzz.originals import as_data, build

SIGNATURE: Final = "a" * 40
HONEST: Final = "an honest part"
FREE_BYTES: Final = 64 * 1024**2
MOST_VALUES: Final = 100_000
ROOM_BYTES: Final = 1024**3
"""What a reader may have beside what it had before, while a part may take `FREE_BYTES`; all three are less than in earnest."""
_KIB: Final = 1024


def _pipeline_text(**changes: Any) -> str:
    data = as_data(build("memory://nowhere"))
    data["pipeline"].update(changes)
    return json.dumps(data)


def _with_template(template: str) -> str:
    data = as_data(build("memory://nowhere"))
    (ask,) = [each["step"] for each in data["pipeline"]["steps"] if each["name"] == "ask"]
    ask["template"] = "{{ passage }}" + template
    return json.dumps(data)


def _levels(first: str, following: str, count: int) -> str:
    return "\n".join(
        [
            "a0: &a0 " + first,
            *(f"a{n}: &a{n} " + following.replace("*", f"*a{n - 1}") for n in range(1, count)),
        ]
    )


TEXTS: Final[dict[str, Callable[[], str]]] = {
    "aliases that double": lambda: _levels("[x, x]", "[*, *, *, *, *, *, *, *]", 40),
    "merged keys that double": lambda: _levels("{k: v}", "{<<: [*, *, *, *]}", 40),
    "an alias of itself": lambda: "pipeline: &p {steps: [*p]}",
    "a million levels": lambda: "[" * 1_000_000,
    "a million levels, one below the other": lambda: "- " * 1_000_000,
    "a number to the base of sixty": lambda: "a: 1" + ":30" * 500_000,
    "a number of a million digits": lambda: "a: " + "9" * 1_000_000,
    "a whole file of values": lambda: "[" + "0," * (MOST_VALUES + 1) + "]",
    "more text than is read": lambda: "a: '" + "x" * (70 * _KIB * _KIB) + "'",
    "as many steps as fit": lambda: _pipeline_text(
        steps=[
            {"name": f"s{n}", "step": as_data(build("memory://nowhere"))["pipeline"]["steps"][0]["step"]}
            for n in range(1)
        ]
        * 20_000
    ),
    "a template of parentheses": lambda: _with_template("{{ " + "(" * 100_000),
    "a template of blocks": lambda: _with_template("{% for x in passage %}" * 50 + "{% endfor %}" * 50),
}
TEMPLATES: Final[dict[str, Callable[[], str]]] = {
    "a template that repeats": lambda: _with_template("{{ 'a' * 10**11 }}"),
    "a template that pads": lambda: _with_template("{{ 'a'|center(10**11) }}"),
    "a template that counts": lambda: _with_template("{% if 9**9**9 %}{% endif %}"),
}
JSON_TEXTS: Final[dict[str, Callable[[], str]]] = {
    "a million levels of JSON": lambda: '{"a":' * 1_000_000,
    "a JSON of brackets": lambda: "[" + "[]," * 20_000_000 + "[]]",
    "a JSON number of a million digits": lambda: '{"a": ' + "9" * 1_000_000 + "}",
}


def _parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **{"compression": "zstd", **options})
    return sink.getvalue()


def _repeated(rows: int, size_bytes: int) -> pa.Array:
    indices = pa.array([0] * rows, pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(["x" * size_bytes]))


def _claiming(rows: int) -> bytes:
    """A file of three rows whose footer claims others, in each place where it counts them."""
    content = _parquet(pa.table({"n": [1, 2, 3]}), store_schema=False)
    three, claimed = b"\x16\x06", b"\x16" + _varint(rows * 2)
    length = int.from_bytes(content[-8:-4], "little")
    start = len(content) - 8 - length
    footer = content[start:-8].replace(three, claimed)
    return content[:start] + footer + len(footer).to_bytes(4, "little") + content[-4:]


def _varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


PARTS: Final[dict[str, Callable[[], bytes]]] = {
    "10^12 rows claimed": lambda: _claiming(10**12),
    "2^62 rows claimed": lambda: _claiming(2**62),
    "a text that stands for many rows": lambda: _parquet(
        pa.table({"a": _repeated(100_000, 900_000)}), store_schema=False
    ),
    "the same in lists": lambda: _parquet(
        pa.table(
            {"a": pa.ListArray.from_arrays(pa.array([0, 100_000], pa.int32()), _repeated(100_000, 900_000))}
        ),
        store_schema=False,
    ),
    "the same, kept as a dictionary": lambda: _parquet(pa.table({"a": _repeated(100_000, 900_000)})),
    "pages that are unpacked": lambda: _parquet(
        pa.table({"a": ["\0" * (20 * _KIB * _KIB)] * 4}), use_dictionary=False
    ),
    "a hundred million rows of nothing": lambda: _parquet(pa.table({"a": pa.nulls(100_000_000)})),
    "prefixes of the text before": lambda: _parquet(
        pa.table({"a": ["x" * 900_000] * 100}),
        use_dictionary=False,
        column_encoding={"a": "DELTA_BYTE_ARRAY"},
    ),
}


def _write_part(directory: Path, content: bytes) -> None:
    for each in ("data/leaf", layout.step_dir("work", SIGNATURE)):
        (directory / each).mkdir(parents=True)
        (directory / each / layout.part_name(1)).write_bytes(content)


def read(name: str, directory: Path) -> list[str]:
    """Read a file that's there already, in each way in which the package does, and tell what came of it."""
    ways: list[Callable[[], object]] = [
        lambda: create_distiset(directory / "data"),
        lambda: _read_store(directory),
    ]
    if name in TEXTS or name in TEMPLATES:
        ways = [
            lambda: Pipeline.from_yaml(directory / SIGNATURE / layout.PIPELINE_FILE),
            lambda: read_pipeline_file(CacheFileSystem(directory), SIGNATURE),
        ]
    elif name in JSON_TEXTS:
        ways = [lambda: Pipeline.from_json(directory / SIGNATURE / layout.PIPELINE_FILE)]
    told = []
    for way in ways:
        try:
            way()
            told.append("read")
        except DistilabelDagsterError as error:
            told.append(f"{type(error).__name__}: {str(error)[:300]}")
    return told


def _read_store(directory: Path) -> None:
    """Look at a store, which leaves out what can't be read and says so in the log."""
    store = StepStore(CacheFileSystem(directory), "work", SIGNATURE)
    store.open()
    assert not store.records


def write(name: str, directory: Path) -> None:
    """Write the file called so."""
    if name in PARTS or name == HONEST:
        _write_part(directory, _parquet(pa.table({"n": [1]})) if name == HONEST else PARTS[name]())
        return
    (directory / SIGNATURE).mkdir(parents=True)
    text = {**TEXTS, **TEMPLATES, **JSON_TEXTS}[name]()
    (directory / SIGNATURE / layout.PIPELINE_FILE).write_text(text)


def read_all(directory: Path, names: list[str]) -> dict[str, Any]:
    """Read the files in `<directory>/<number>` with limited memory; of each, what came of it and seconds of CPU."""
    build("memory://nowhere")
    create_distiset(directory / "honest" / "data")
    claims.FREE_BYTES = FREE_BYTES
    yaml_data.MOST_VALUES = MOST_VALUES
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM_BYTES, taken + ROOM_BYTES))
    found = {}
    for number, name in enumerate(names):
        began = time.process_time()
        told = read(name, directory / str(number))
        found[name] = {"told": told, "cpu_s": time.process_time() - began}
        gc.collect()
    return found


if __name__ == "__main__":
    print(json.dumps(read_all(Path(sys.argv[1]), sys.argv[2:])))
