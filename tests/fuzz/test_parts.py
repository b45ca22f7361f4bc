"""Parts from strangers: rows, or an error of this package; no type made that runs code, and every column what it says."""

import contextlib
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilabel_dagster.batch import Batch, BatchRecord, Source
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.footer import CHECKSUMS_BEGIN, FOOTER_KEY
from distilabel_dagster.cache.parquet_reading import read_parquet
from distilabel_dagster.cache.step_store import StepStore
from distilabel_dagster.cache.tables import table_rows
from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.errors import DistilabelDagsterError
from tests.fuzz.mutations import changed, damaged
from tests.fuzz.watch import watched

SIGNATURE = "a" * 40
ROWS = [
    {"text": "a long text " * 3, "n": 1, "tags": ["x", "y"], "more": {"a": 1.5, "b": [b"\x00"]}},
    {"text": None, "n": 2, "tags": [], "more": {"a": None, "b": None}},
    {"text": "ü", "n": 3, "tags": None, "more": None},
]
SHORT = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(SHORT, max_examples=5_000)


class MadeByFile(pa.ExtensionType):
    """A type that some library has registered, and that runs what the file says when it's made."""

    made = 0

    def __init__(self) -> None:
        super().__init__(pa.string(), "tests.made_by_file")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"import os"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "MadeByFile":
        cls.made += 1
        return cls()


def write_store(directory: Path) -> bytes:
    store = StepStore(CacheFileSystem(directory), "work", SIGNATURE)
    first, second = pa.Table.from_pylist(ROWS), pa.table({"n": [4.5], "new": ["z"]})
    records = [
        BatchRecord(0, 3, created_from={"load": [Source(0, 5, 3)]}, errors={1: "no"}, requests=b"12345678"),
        BatchRecord(1, 1, created_from={"load": [Source(0, 5, 2)]}, batch_routed_to=("a",), last_batch=True),
    ]
    store.append([Batch(records[0], first), Batch(records[1], second)])
    return (directory / store.part_file(1)).read_bytes()


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have all imported that an undamaged file needs."""
    directory = tmp_path_factory.mktemp("undamaged")
    (directory / "data" / "leaf").mkdir(parents=True)
    (directory / "data" / "leaf" / "00001.parquet").write_bytes(foreign_file())
    assert create_distiset(directory / "data")["leaf"]["train"].num_rows == len(ROWS)


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A part of ours: two batches, of which one has a schema of its own."""
    return write_store(tmp_path_factory.mktemp("store"))


def footer_of(part: bytes) -> Any:
    return json.loads(pq.read_metadata(pa.BufferReader(part)).metadata[FOOTER_KEY])


def with_checksums(content: bytes) -> bytes:
    """A part with checksums that are right again, as a stranger can make them."""
    length = int.from_bytes(content[-8:-4], "little")
    start, at = len(content) - 8 - length, content.rfind(CHECKSUMS_BEGIN)
    if start < 0 or at < start:
        return content
    own = at + len(CHECKSUMS_BEGIN) + 8
    made = bytearray(content)
    made[own - 8 : own + 8] = b"%08x" % zlib.crc32(made[:start]) + b"0" * 8
    made[own : own + 8] = b"%08x" % zlib.crc32(made[start:])
    return bytes(made)


def with_footer(part: bytes, footer: Mapping[str, Any]) -> bytes:
    """The rows of a part, with another footer."""
    sink = io.BytesIO()
    table = pq.read_table(pa.BufferReader(part))
    written = {**footer, "checksums": "0" * 16} if "checksums" in footer else dict(footer)
    with pq.ParquetWriter(sink, table.schema.remove_metadata(), compression="zstd") as writer:
        writer.write_table(table.replace_schema_metadata(None))
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(written, separators=(",", ":")).encode()})
    return with_checksums(sink.getvalue())


def read_store(directory: Path, content: bytes) -> None:
    """Read a part in all ways in which the package does."""
    path = directory / layout.step_dir("work", SIGNATURE) / layout.part_name(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    for each in path.parent.iterdir():
        each.unlink()
    path.write_bytes(content)
    with watched(directory):
        try:
            store = StepStore(CacheFileSystem(directory), "work", SIGNATURE)
            store.open()
            for record in store.records:
                assert len(table_rows(store.read(record.seq_no))) == record.size
            store.read_all()
            store.read_head(2)
        except DistilabelDagsterError:
            pass
    assert MadeByFile.made == 0


def read_foreign(directory: Path, content: bytes) -> None:
    path = directory / "data" / "leaf" / "00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with watched(directory), contextlib.suppress(DistilabelDagsterError):
        create_distiset(directory / "data")["leaf"]["train"].to_list()
    assert MadeByFile.made == 0


@SHORT
@given(data=st.data())
def test_footer_changed(tmp_path: Path, part: bytes, data: st.DataObject) -> None:
    read_store(tmp_path, with_footer(part, data.draw(changed(footer_of(part)))))


@SHORT
@given(data=st.data())
def test_part_damaged(tmp_path: Path, part: bytes, data: st.DataObject) -> None:
    read_store(tmp_path, with_checksums(data.draw(damaged(part))))


@SHORT
@given(data=st.data())
def test_foreign_file_damaged(tmp_path: Path, data: st.DataObject) -> None:
    read_foreign(tmp_path, data.draw(damaged(foreign_file())))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@LONG
@given(data=st.data())
def test_parts_changed_often(tmp_path: Path, part: bytes, data: st.DataObject) -> None:
    read_store(tmp_path, with_footer(part, data.draw(changed(footer_of(part)))))
    read_store(tmp_path, with_checksums(data.draw(damaged(part))))
    read_foreign(tmp_path, data.draw(damaged(foreign_file())))


def foreign_file(metadata: Mapping[bytes, bytes] | None = None, **options: Any) -> bytes:
    """A Parquet file that this package didn't write."""
    sink = io.BytesIO()
    described = {
        "text": {"_type": "Value", "dtype": "string"},
        "n": {"_type": "ClassLabel", "names": ["a", "b", "c", "d"]},
    }
    table = pa.Table.from_pylist(ROWS).replace_schema_metadata(
        metadata or {b"huggingface": json.dumps({"info": {"features": described}}).encode()}
    )
    pq.write_table(table, sink, **{"compression": "zstd", **options})
    return sink.getvalue()


DESCRIBED = {
    "info": {
        "features": {"text": {"_type": "Value", "dtype": "string"}, "n": {"_type": "Image", "decode": True}}
    }
}


@SHORT
@given(description=changed(DESCRIBED))
def test_description_for_datasets_changed(tmp_path: Path, description: Any) -> None:
    read_foreign(tmp_path, foreign_file({b"huggingface": json.dumps(description).encode()}))


@pytest.fixture
def registered() -> Any:
    """A library has registered a type."""
    pa.register_extension_type(MadeByFile())
    MadeByFile.made = 0
    yield
    pa.unregister_extension_type("tests.made_by_file")
    MadeByFile.made = 0


@pytest.mark.parametrize("place", ["column", "in a list", "in a map", "a batch's own schema"])
def test_a_type_that_a_library_registered_is_not_made(
    tmp_path: Path, part: bytes, registered: None, place: str
) -> None:
    kinds = {
        "column": MadeByFile(),
        "in a list": pa.list_(MadeByFile()),
        "in a map": pa.map_(pa.string(), MadeByFile()),
    }
    schema = pa.schema([("text", kinds.get(place, MadeByFile()))])
    footer = footer_of(part)
    if place == "a batch's own schema":
        content = with_footer(part, {**footer, "schemas": [schema.serialize().to_pybytes().hex()] * 2})
    else:
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, schema) as writer:
            writer.add_key_value_metadata(
                {FOOTER_KEY: json.dumps({**footer, "checksums": "0" * 16}).encode()}
            )
        content = with_checksums(sink.getvalue())
    MadeByFile.made = 0
    read_store(tmp_path, content)
    read_foreign(tmp_path, content)
    if place != "a batch's own schema":
        with pytest.raises(ValueError, match=r"the extension type `tests\.made_by_file`"):
            read_parquet(content)


@settings(max_examples=50)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "a": st.text(st.characters(codec="utf-8")) | st.none(),
                "b": st.lists(st.integers(-5, 5)),
                "c": st.binary(),
            }
        ),
        min_size=1,
    ),
    copies=st.integers(1, 50),
    options=st.fixed_dictionaries(
        {
            "compression": st.sampled_from(["zstd", "snappy", "gzip", "brotli", "none"]),
            "use_dictionary": st.booleans(),
            "data_page_version": st.sampled_from(["1.0", "2.0"]),
            "row_group_size": st.integers(1, 40),
            "data_page_size": st.sampled_from([16, 1024]),
        }
    ),
)
def test_what_parquet_holds_is_read_as_arrow_reads_it(
    rows: list[dict[str, Any]], copies: int, options: Any
) -> None:
    """Every form that writers choose between; large texts that stand once for many rows are another test's."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows * copies), sink, **options)
    assert read_parquet(sink.getvalue()).equals(pq.read_table(pa.BufferReader(sink.getvalue())))
