"""Tables that generator steps give are kept just as their rows would be, in any files, from any offset on."""

import contextlib
import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any
from unittest import mock

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from distilabel_dagster.cache.foreign_tables import build_table_as_of_rows, copy_table
from distilabel_dagster.cache.pipeline_cache import PipelineCache
from distilabel_dagster.cache.tables import build_table
from distilabel_dagster.engine.engine import Engine
from distilabel_dagster.engine.row_source import RowSource
from distilabel_dagster.engine.run_state import RunOptions
from distilabel_dagster.errors import CacheError, ColumnTypeError, DistilabelDagsterError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import GeneratorStep, KeepColumns, LoadDataFromFileSystem, LoadDataFromHub
from tests.property.scenarios import CrashingFileSystem, remove_tree

Kept = list[tuple[bytes, str, bool]]
TEXT = st.text(st.characters(codec="utf-8"), max_size=3)
LEAVES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint8(): st.integers(0, 2**8 - 1),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.uint64(): st.sampled_from([0, 2**63 - 1, 2**64 - 1]),
    pa.float16(): st.sampled_from([0.0, -1.5, float("inf")]),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.string_view(): TEXT,
    pa.binary(): st.binary(max_size=3),
    pa.large_binary(): st.binary(max_size=3),
    pa.binary(2): st.binary(min_size=2, max_size=2),
    pa.null(): st.none(),
    pa.date32(): st.dates(),
    pa.time64("us"): st.times(),
    pa.duration("us"): st.timedeltas(dt.timedelta(-9999), dt.timedelta(9999)),
    pa.timestamp("us"): st.datetimes(),
    pa.timestamp("ms"): st.datetimes().map(lambda each: each.replace(microsecond=0)),
    pa.timestamp("ns"): st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2200, 1, 1)),  # noqa: DTZ001 (stored so)
    pa.timestamp("us", "UTC"): st.datetimes(timezones=st.just(dt.timezone.utc)),
    pa.decimal128(9, 2): st.decimals(-1000, 1000, places=2, allow_nan=False),
    pa.dictionary(pa.int8(), pa.string()): TEXT,
    pa.dictionary(pa.int32(), pa.int16()): st.integers(-5, 5),
}
COMMON = [pa.int32(), pa.int64(), pa.float32(), pa.bool_(), pa.string(), pa.large_string()]
NAMES = st.sampled_from(["b", "a", "item", "Z", "é"])


@st.composite
def kinds(draw: st.DrawFn, levels: int = 2) -> pa.DataType:
    """A type: most often a common one, now and then any other or a nested one."""
    choice = draw(st.integers(0, 9))
    if choice < 4 or not levels:
        return draw(st.sampled_from(COMMON))
    if choice < 6:
        return draw(st.sampled_from(list(LEAVES)))
    inner = draw(kinds(levels - 1))
    if choice < 9:
        item = pa.field(draw(st.sampled_from(["item", "element"])), inner)
        shapes = (pa.list_(item), pa.large_list(item), pa.list_(item, 2), pa.map_(pa.string(), inner))
        return draw(st.sampled_from([pa.list_(item), *shapes]))
    others = {name: draw(kinds(levels - 1)) for name in draw(st.lists(NAMES, max_size=3, unique=True))}
    return pa.struct([pa.field(name, kind) for name, kind in others.items()])


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of a type, None among them."""
    if kind in LEAVES:
        return st.none() | LEAVES[kind]
    if kind == pa.uuid():
        return st.none() | st.binary(min_size=16, max_size=16)
    if pa.types.is_map(kind):
        return st.none() | st.lists(st.tuples(TEXT, values_of(kind.item_type)), max_size=2)
    if pa.types.is_struct(kind):
        fields = {field.name: values_of(field.type) for field in kind}
        return st.none() | st.fixed_dictionaries(fields)
    size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    return st.none() | st.lists(values_of(kind.value_type), min_size=size or 0, max_size=size or 3)


@st.composite
def tables(draw: st.DrawFn, least: int = 1, of_parquet: bool = False) -> pa.Table:
    """A table, or a slice of one, in one or two chunks."""
    rows = draw(st.integers(0, 9))
    columns = {}
    for name in draw(st.lists(st.sampled_from("vwxyz"), min_size=least, max_size=4, unique=True)):
        kind = draw((kinds() | st.just(pa.uuid())).filter(can_be_parquet if of_parquet else bool))
        values = draw(st.lists(values_of(kind), min_size=rows, max_size=rows))
        if draw(st.integers(0, 4)) == 0:
            values = [None] * rows
        columns[name] = make_array(values, kind)
    table = pa.table(columns)
    cut = draw(st.integers(0, rows))
    if draw(st.booleans()):
        return table.slice(cut, draw(st.integers(0, rows)))
    return pa.concat_tables([table.slice(cut), table.slice(0, cut)])


def make_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def can_be_parquet(kind: pa.DataType) -> bool:
    try:
        pq.write_table(pa.table({"c": pa.nulls(1, kind)}), pa.BufferOutputStream())
    except (pa.ArrowException, ValueError):
        return False
    return True


def describe(table: pa.Table) -> tuple[bytes, str]:
    """All that is kept of a table: its schema to the last name, and its values, NaN among them."""
    return table.schema.serialize().to_pybytes(), repr(table.to_pylist())


def attempt(make: Callable[[], pa.Table]) -> tuple[bytes, str] | type[BaseException]:
    """What's made, or which error of ours it's refused with."""
    try:
        made = make()
    except DistilabelDagsterError as error:
        return type(error)
    except (pa.ArrowException, ValueError, OverflowError):
        return ValueError
    made.validate(full=True)
    return describe(made)


@given(tables(least=0))
@settings(max_examples=400)
def test_tables_become_what_their_rows_become(table: pa.Table) -> None:
    by_rows = attempt(lambda: build_table(table.to_pylist(), "load"))
    assert attempt(lambda: build_table_as_of_rows(table, "load")) == by_rows
    assert describe(copy_table(table)) == describe(table)


# --- loaders --------------------------------------------------------------------------------------


class RowsOfFiles(LoadDataFromFileSystem):
    """Has a `process` of its own, so that its rows are taken."""

    def process(self, offset: int = 0) -> Any:
        yield from super().process(offset=offset)


class InMemory(LoadDataFromHub):
    """The dataset is in memory: only the network is left out."""

    made: Any = None

    def _load_dataset(self) -> Any:
        return self.made


class RowsInMemory(InMemory):
    """Has a `process` of its own, so that its rows are taken."""

    def process(self, offset: int = 0) -> Any:
        yield from super().process(offset=offset)


def pull_all(step: GeneratorStep, offset: int) -> Kept | type[BaseException]:
    """What's kept of each batch, or the class of the error that ends it behind those."""
    step.load()
    source, kept = RowSource(step, offset), []
    try:
        while (made := source.pull()) is not None:
            kept.append((*describe(made[0].table), made[1]))
            if made[1]:
                break
    except DistilabelDagsterError as error:
        kept.append((b"", type(error).__name__, True))
    return kept


FIELDS = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 12),
        "num_examples": st.none() | st.integers(1, 20),
        "output_mappings": st.sampled_from([{}, {}, {"x": "renamed"}, {"x": "y"}, {"x": "y", "y": "x"}]),
    }
)


def write_files(parts: list[pa.Table], row_group_size: int) -> str:
    memory = fsspec.filesystem("memory")
    if memory.exists("/tables"):
        memory.rm("/tables", recursive=True)
    for number, part in enumerate(parts):
        sink = pa.BufferOutputStream()
        try:
            pq.write_table(part, sink, row_group_size=row_group_size)
        except pa.ArrowNotImplementedError:
            reject()  # some dictionaries can be written only as long as they're empty
        memory.pipe(f"/tables/{number}.parquet", bytes(sink.getvalue()))
    return "memory://tables"


@settings(max_examples=200)
@given(
    st.lists(tables(of_parquet=True), min_size=1, max_size=3), st.integers(1, 9), FIELDS, st.integers(0, 30)
)
def test_files_as_tables_are_kept_as_their_rows(
    parts: list[pa.Table], row_group_size: int, fields: dict[str, Any], offset: int
) -> None:
    given_by = {"name": "load", "data_files": write_files(parts, row_group_size), **fields}
    assert pull_all(LoadDataFromFileSystem(**given_by), offset) == pull_all(RowsOfFiles(**given_by), offset)


@settings(max_examples=60)
@given(tables(of_parquet=True), FIELDS, st.integers(0, 12), st.booleans())
def test_datasets_as_tables_are_kept_as_their_rows(
    table: pa.Table, fields: dict[str, Any], offset: int, streaming: bool
) -> None:
    try:
        made: Any = datasets.Dataset(table)
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError):
        return  # types that no dataset has
    if streaming and table.num_rows:
        made = made.to_iterable_dataset()
    given_by = {"name": "load", "repo_id": "owner/name", "made": made, **fields}
    assert pull_all(InMemory(**given_by), offset) == pull_all(RowsInMemory(**given_by), offset)


# --- runs -----------------------------------------------------------------------------------------


def run(root: str, files: str, batch_size: int, *, by_rows: bool, crash_at_write: int | None = None) -> str:
    """Run once on a cache in memory; give where it is then: a crash leaves another one, as it was at that write."""
    with Pipeline("loads", cache_dir=f"memory://{root}") as pipeline:
        load = LoadDataFromFileSystem(name="load", data_files=files, batch_size=batch_size)
        load >> KeepColumns(name="keep", columns=["x", "y"], input_batch_size=3)
    cache = pipeline.open_cache()
    fs = CrashingFileSystem(cache.fs.url, crash_at_write, f"{root}x")
    cache = PipelineCache(fs, cache.signature, cache.step_signatures, cache.leaf_steps)
    engine = Engine(
        pipeline.dag,
        cache,
        pipeline.get_load_stages(),
        RunOptions(max_pending_bytes=1),
        acquire=lambda _: None,
    )
    tables = mock.patch.object(LoadDataFromFileSystem, "process_tables", return_value=None)
    with tables if by_rows else contextlib.nullcontext(), contextlib.suppress(CacheError):
        try:
            list(engine.run())
        except ColumnTypeError:
            reject()  # what is kept before depends on when it's committed
    return f"{root}x" if fs.has_crashed else root


def read(root: str, files: str) -> dict[str, Any]:
    """What is kept of the batches of each step; the type of a column without values depends on the batches around it."""
    with Pipeline("loads", cache_dir=f"memory://{root}") as pipeline:
        load = LoadDataFromFileSystem(name="load", data_files=files)
        load >> KeepColumns(name="keep", columns=["x", "y"])
    found: dict[str, Any] = {}
    for name, store in pipeline.open_cache().stores.items():
        store.open()
        tables = [store.read(record.seq_no) for record in store.records]
        kept = [(len(table), table.column_names, repr(table.to_pylist())) for table in tables]
        found[name] = kept, store.is_complete, store.schema
    return found


@settings(max_examples=30)
@given(
    st.lists(tables(of_parquet=True), min_size=1, max_size=3),
    st.integers(1, 7),
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=1, max_size=3),
    st.booleans(),
)
def test_what_began_as_rows_goes_on_as_tables(
    parts: list[pa.Table], batch_size: int, crashes: list[tuple[bool, int]], ends_by_rows: bool
) -> None:
    files = write_files(parts, 4)
    names = [f"loads{uuid.uuid4().hex}"] * 2
    try:
        names[0] = run(names[0], files, batch_size, by_rows=True)
        expected = read(names[0], files)
        remove_tree(names[0])
        for by_rows, moment in crashes:
            before = names[1]
            names[1] = run(before, files, batch_size, by_rows=by_rows, crash_at_write=moment)
            if before != names[1]:
                remove_tree(before)
        names[1] = run(names[1], files, batch_size, by_rows=ends_by_rows)
        assert read(names[1], files) == expected
    finally:
        for name in names:
            remove_tree(name)
