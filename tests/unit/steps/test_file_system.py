"""LoadDataFromFileSystem: files found, read, and told apart."""

import bz2
import datetime as dt
import gzip
import json
import lzma
import os
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_dagster.base.signature import compute_signature, describe_identity
from distilabel_dagster.errors import PipelineDefinitionError, StepProcessError
from distilabel_dagster.steps import LoadDataFromFileSystem
from distilabel_dagster.steps.generators import readers

ROWS = [{"n": 1, "s": "one"}, {"n": 2, "s": 'zwölf, "x"\nnext'}, {"n": 3, "s": None}]


def read_all(data_files: Any, offset: int = 0, **fields: Any) -> list[dict[str, Any]]:
    step = LoadDataFromFileSystem(name="load", data_files=data_files, **fields)
    step.load()
    return [row for rows, _ in step.process(offset=offset) for row in rows]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    quoted = [
        ['"' + str(v).replace('"', '""') + '"' if v is not None else "" for v in row.values()] for row in rows
    ]
    return write(path, "\r\n".join(",".join(fields) for fields in [list(rows[0]), *quoted]) + "\r\n")


def write_parquet(path: Path, rows: list[dict[str, Any]], row_group_size: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


# --- types of files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("a.jsonl", write_lines),
        ("a.ndjson", write_lines),
        ("a.json", write_lines),
        ("a.json", lambda path, rows: write(path, json.dumps(rows))),
        ("a.json", lambda path, rows: write(path, " \n" + json.dumps(rows, indent=2) + "\n")),
        ("a.csv", write_csv),
        ("a.tsv", lambda path, rows: write(path, write_csv(path, rows).read_text().replace(",", "\t").replace("zwölf\t", "zwölf,"))),
        ("a.parquet", write_parquet),
        ("a.PARQUET", write_parquet),
    ],
)  # fmt: skip
def test_rows_come_back(tmp_path: Path, name: str, writer: Any) -> None:
    path = writer(tmp_path / name, ROWS)
    assert read_all(path) == ROWS
    assert read_all(str(path), offset=1) == ROWS[1:]
    assert read_all([path], num_examples=2) == ROWS[:2]
    assert read_all(path, num_examples=2, offset=1) == ROWS[1:2]
    assert read_all(path, num_examples=2, offset=2) == []
    assert read_all(path, offset=9) == []
    assert LoadDataFromFileSystem(data_files=path).outputs == ["n", "s"]


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, "zstd", asbytes=True)
    return packed


@pytest.mark.parametrize(
    ("extension", "pack"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)],
)
@pytest.mark.parametrize("writer", [write_lines, write_csv])
def test_text_files_may_be_compressed(tmp_path: Path, extension: str, pack: Any, writer: Any) -> None:
    plain = writer(tmp_path / ("a.jsonl" if writer is write_lines else "a.csv"), ROWS)
    packed = tmp_path / f"{plain.name}.{extension}"
    packed.write_bytes(pack(plain.read_bytes()))
    assert read_all(packed) == ROWS

    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises((StepProcessError, PipelineDefinitionError), match=packed.name):
        read_all(packed)


def test_filetype_overrules_the_extension(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.txt", ROWS)
    assert read_all(path, filetype="json") == read_all(path, filetype="jsonl") == ROWS
    with pytest.raises(PipelineDefinitionError, match=r"rows\.txt.* Pass `filetype`"):
        read_all(path)
    with pytest.raises(ValueError, match="filetype"):
        LoadDataFromFileSystem(data_files=path, filetype="xml")


def test_other_stores_are_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/stores/a.jsonl", b'{"n": 1}\n')
    memory.pipe("/stores/b.jsonl.gz", gzip.compress(b'{"n": 2}\n'))
    assert read_all("memory://stores/*.jsonl*") == [{"n": 1}, {"n": 2}]
    assert read_all("memory://stores") == [{"n": 1}, {"n": 2}]
    with pytest.raises(PipelineDefinitionError, match="no file or directory `memory://nowhere"):
        read_all("memory://nowhere.csv")
    with pytest.raises(PipelineDefinitionError, match=r"nonsense://x\.csv.*can't be reached"):
        read_all("nonsense://x.csv")


# --- which files ----------------------------------------------------------------------------------


def test_order_of_files_is_certain(tmp_path: Path) -> None:
    for name in ("10.jsonl", "2.jsonl", "b/1.jsonl", "a.jsonl"):
        write_lines(tmp_path / name, [{"file": name}])
    write(tmp_path / "README.md", "no data")
    write(tmp_path / ".hidden.jsonl", "no data")
    write(tmp_path / ".logs" / "x.jsonl", "no data")

    assert [row["file"] for row in read_all(tmp_path)] == ["10.jsonl", "2.jsonl", "a.jsonl", "b/1.jsonl"]
    assert [row["file"] for row in read_all(f"{tmp_path}/*.jsonl")] == ["10.jsonl", "2.jsonl", "a.jsonl"]
    assert [row["file"] for row in read_all(f"{tmp_path}/**/*.jsonl")][2:] == ["a.jsonl", "b/1.jsonl"]
    listed = [tmp_path / "b" / "1.jsonl", f"{tmp_path}/[2a].jsonl"]
    assert [row["file"] for row in read_all(listed)] == ["b/1.jsonl", "2.jsonl", "a.jsonl"]


def test_names_with_pattern_signs_are_files_first(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "odd[1].jsonl", ROWS)
    assert read_all(path) == ROWS


def test_directories_hold_splits(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test-00000-of-00001.jsonl", "validation/1.jsonl", "training_notes.jsonl"):
        write_lines(tmp_path / name, [{"file": name}])
    assert [row["file"] for row in read_all(tmp_path)] == ["train.jsonl", "training_notes.jsonl"]
    assert [row["file"] for row in read_all(tmp_path, split="test")] == ["test-00000-of-00001.jsonl"]
    assert [row["file"] for row in read_all(tmp_path, split="validation")] == ["validation/1.jsonl"]
    with pytest.raises(
        PipelineDefinitionError, match="no files of the split `dev`; it has `test`, `train`, `valid"
    ):
        read_all(tmp_path, split="dev")
    with pytest.raises(PipelineDefinitionError, match="Leave `split` out"):
        read_all(tmp_path / "train.jsonl", split="test")


def test_what_is_not_there_is_named_before_any_work(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "one.jsonl", ROWS)
    write_csv(tmp_path / "two.csv", ROWS)
    (tmp_path / "empty").mkdir()
    packed = tmp_path / "three.parquet.gz"
    packed.touch()
    for data_files, message in [
        (tmp_path / "none.csv", r"Step `load` .*no file or directory `.*none\.csv`"),
        (f"{tmp_path}/*.txt", r"no file matches"),
        ([], r"list is empty"),
        (tmp_path / "empty", r"has no data files \(`\.csv`"),
        (tmp_path, r"several types: `.*two\.csv` is csv, `.*one\.jsonl` is json"),
        ([one, f"{tmp_path}/one.*"], r"one\.jsonl` is named twice"),
        (packed, "Unpack it first"),
    ]:
        step = LoadDataFromFileSystem(name="load", data_files=data_files)
        for act in (step.load, lambda: step.outputs, step.data_fingerprint):  # noqa: B023 (called at once)
            with pytest.raises(PipelineDefinitionError, match=message):
                act()
    assert LoadDataFromFileSystem(name="load").missing_runtime_parameters() == ["data_files"]
    assert LoadDataFromFileSystem(name="load").outputs == []
    with pytest.raises(PipelineDefinitionError, match="has no `data_files`"):
        LoadDataFromFileSystem(name="load").load()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    path.chmod(0)
    with pytest.raises(PipelineDefinitionError, match=r"a\.jsonl"):
        LoadDataFromFileSystem(name="load", data_files=path).outputs  # noqa: B018 (a property that reads)


# --- identity -------------------------------------------------------------------------------------


def test_changed_files_change_the_signature(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROWS)

    def signature(**fields: Any) -> str:
        step = LoadDataFromFileSystem(name="load", data_files=str(tmp_path / "*.jsonl"), **fields)
        return compute_signature(describe_identity(step))

    first = signature()
    assert signature(batch_size=7, storage_options={"auto_mkdir": True}) == first
    assert signature(num_examples=1) != first
    os.utime(path, (1, 1))
    touched = signature()
    assert touched != first
    write_lines(path, ROWS[:2])
    os.utime(path, (1, 1))
    shorter = signature()
    assert shorter not in (first, touched)
    write_lines(tmp_path / "b.jsonl", ROWS)
    assert signature() != shorter


def test_content_tag_counts_more_than_time() -> None:
    class Store(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
        protocol = "tagged"
        modified = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            return {"name": path, "size": 3, "type": "file", "ETag": "abc", "LastModified": self.modified}

    fsspec.register_implementation("tagged", Store, clobber=True)
    step = LoadDataFromFileSystem(name="load", data_files="tagged://bucket/a.csv")
    before = step.data_fingerprint()
    assert before == [["tagged://bucket/a.csv", 3, "abc"]]
    Store.modified += dt.timedelta(days=1)
    assert step.data_fingerprint() == before


# --- csv ------------------------------------------------------------------------------------------


def test_csv_values_get_the_type_of_their_whole_column(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "int,float,bool,zip,id,late,empty,text,mixed\n"
        "1,1,true,007,123456789012345678901,1,,NA,true\n"
        "-2,2.5,FALSE,10,1,2,,,1\n"
        ",1e3,,10,1,x,,null,\n",
    )
    rows = read_all(path)
    assert [list(row.values()) for row in rows] == [
        [1, 1.0, True, "007", "123456789012345678901", "1", None, "NA", "true"],
        [-2, 2.5, False, "10", "1", "2", None, None, "1"],
        [None, 1000.0, None, "10", "1", "x", None, "null", None],
    ]
    assert [type(row["float"]) for row in rows] == [float] * 3
    assert read_all(path, offset=2) == rows[2:], "a resume gives the same types"
    assert read_all(path, num_examples=2)[0]["late"] == 1, "rows that aren't given don't count"


def test_csv_types_are_those_of_all_files(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "a,b\n1,2\n")
    write(tmp_path / "2.csv", "b,c\nx,3\n")
    assert read_all(tmp_path) == [{"a": 1, "b": "2"}, {"b": "x", "c": 3}]
    step = LoadDataFromFileSystem(data_files=tmp_path)
    assert step.outputs == {"a": False, "b": True, "c": False}


def test_csv_with_mark_blank_lines_and_nameless_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "\ufeff,b\n\n0,x\n\n1,y\n")
    assert read_all(path) == [{"Unnamed: 0": 0, "b": "x"}, {"Unnamed: 0": 1, "b": "y"}]
    assert read_all(write(tmp_path / "none.csv", "")) == []
    assert read_all(write(tmp_path / "header.csv", "a,b\n")) == []


def test_long_csv_fields_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a\n" + "x" * 300_000 + "\n")
    assert len(read_all(path)[0]["a"]) == 300_000


# Python 3.10's csv module can't write a NUL.
CSV_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.fixed_dictionaries({"a": CSV_TEXT, "b": st.integers()}), min_size=1, max_size=5))
def test_csv_keeps_what_python_writes(rows: list[dict[str, Any]]) -> None:
    import csv
    import io

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["a", "b"])
    writer.writeheader()
    writer.writerows({**row, "a": f"t{row['a']}"} for row in rows)
    try:
        content = text.getvalue().encode()
    except UnicodeEncodeError:
        return
    if "\0" in text.getvalue():
        return
    fsspec.filesystem("memory").pipe("/written/a.csv", content)
    found = read_all("memory://written/a.csv")
    assert [row["a"] for row in found] == [f"t{row['a']}" for row in rows]
    assert [int(row["b"]) for row in found] == [row["b"] for row in rows]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n3\n", r"a\.csv: line 3 has 1 fields, expected 2"),
        (b'a,b\n"1\n1",2\n3,4,5\n', r"a\.csv: line 4 has 3 fields, expected 2"),
        (b'a,b\n1,"2\n', r"a\.csv: line 2 isn't csv"),
        (b"a,a\n1,2\n", r"names the column `a` twice"),
        (b"a,b\n1,\xff\n", r"a\.csv: isn't UTF-8"),
    ],
)
def test_damaged_csv_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises((StepProcessError, PipelineDefinitionError), match=message):
        read_all(path)


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "good", "message"),
    [
        (b'{"n": 1}\n\n{"n": 2\n', 1, r"a\.json: line 3 isn't JSON"),
        (b'{"n": 1}\n[1]\n', 1, r"isn't an object|list"),
        (b'{"n": 1}\n5\n', 1, r"line 2 is a int, expected an object"),
        (b'{"n": 1}\n{"n": "\xff"}\n', 1, r"line 2 isn't UTF-8"),
        (b'[{"n": 1}, {"n": 2]', 1, r"item 2 of its array isn't JSON"),
        (b'[{"n": 1}, 5]', 1, r"item 2 of its array isn't an object"),
        (b'[{"n": 1} {"n": 2}]', 1, r"after item 1 a `,` or `\]` is expected"),
        (b'[{"n": 1},', 1, r"ends within its array"),
        (b'[{"n": 1}', 1, r"ends within its array"),
        (b'{\n  "n": 1\n}\n', 0, r"line 1 isn't JSON: .* Expected one object a line, or one array"),
    ],
)
def test_damaged_json_is_named_where_it_is(tmp_path: Path, content: bytes, good: int, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    step = LoadDataFromFileSystem(name="load", data_files=path, batch_size=1)
    rows: list[dict[str, Any]] = []
    with pytest.raises(StepProcessError, match=message) as caught:
        rows.extend(row for batch, _ in step.process() for row in batch)
    assert caught.value.step == "load"
    assert rows == [{"n": 1}][: max(0, good - 1)], "a batch is handed on when the next row is known"
    with pytest.raises(PipelineDefinitionError, match=message):
        step.outputs  # noqa: B018 (a property that reads)


def test_json_with_mark_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n\r\n{"n": 2}')
    assert read_all(path) == [{"n": 1}, {"n": 2}]
    path.write_bytes(b"\xef\xbb\xbf[]")
    assert read_all(path) == []
    path.write_bytes(b"")
    assert read_all(path) == []


def test_json_columns_are_those_of_the_first_rows(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"a": 1}, {"a": 2, "b": 3}])
    assert LoadDataFromFileSystem(data_files=path).outputs == {"a": True, "b": False}
    broken_later = write_lines(tmp_path / "b.jsonl", [{"a": n} for n in range(500)])
    broken_later.write_bytes(broken_later.read_bytes() + b"{")
    assert LoadDataFromFileSystem(data_files=broken_later).outputs == ["a"], "the rest isn't read"
    assert len(read_all(broken_later, num_examples=500)) == 500


@given(
    st.lists(st.dictionaries(st.text(), st.text() | st.lists(st.integers())), max_size=6), st.integers(1, 9)
)
def test_arrays_are_read_in_parts_of_any_size(rows: list[dict[str, Any]], size: int) -> None:
    fsspec.filesystem("memory").pipe("/array/a.json", json.dumps(rows).encode())
    patch = pytest.MonkeyPatch()
    patch.setattr(readers, "_CHUNK_CHARS", size)
    try:
        assert read_all("memory://array/a.json") == rows
    finally:
        patch.undo()


def test_skipped_lines_are_not_parsed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 'not JSON\n{"n": 2}\n')
    assert read_all(path, offset=1) == [{"n": 2}]


# --- parquet --------------------------------------------------------------------------------------


def test_values_of_parquet_survive(tmp_path: Path) -> None:
    rows = [{"b": b"\x00", "d": dt.datetime(2024, 1, 1), "l": [[1], []], "s": {"x": None, "y": 1.5}}]  # noqa: DTZ001 (stored so)
    path = write_parquet(tmp_path / "a.parquet", rows)
    assert read_all(path) == rows
    assert LoadDataFromFileSystem(data_files=path).outputs == ["b", "d", "l", "s"]


@pytest.fixture
def read_groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups of Parquet files that are read, in order."""
    groups: list[int] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: Any, *args: Any, row_groups: list[int], **kwargs: Any) -> Any:
        groups.extend(row_groups)
        return original(self, *args, row_groups=row_groups, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    return groups


def test_skipped_row_groups_are_not_read(tmp_path: Path, read_groups: list[int]) -> None:
    rows = [{"n": n} for n in range(10)]
    path = write_parquet(tmp_path / "a.parquet", rows, row_group_size=3)
    assert read_all(path, offset=7) == rows[7:]
    assert read_groups == [2, 3]


def test_only_parquet_comes_as_tables(tmp_path: Path) -> None:
    step = LoadDataFromFileSystem(data_files=write_parquet(tmp_path / "a.parquet", ROWS), batch_size=2)
    tables = list(step.process_tables(offset=1) or ())
    assert [(type(table), len(table), last) for table, last in tables] == [(pa.Table, 2, True)]
    assert LoadDataFromFileSystem(data_files=write_lines(tmp_path / "a.jsonl", ROWS)).process_tables() is None
    assert LoadDataFromFileSystem(data_files=write_csv(tmp_path / "a.csv", ROWS)).process_tables() is None


def test_parquet_as_tables_is_read_lazily(tmp_path: Path, read_groups: list[int]) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"n": n} for n in range(12)], row_group_size=3)
    tables = LoadDataFromFileSystem(data_files=path, batch_size=2, num_examples=9).process_tables(offset=4)
    assert tables is not None
    first, _ = next(tables)
    assert (first.to_pylist(), read_groups) == ([{"n": 4}, {"n": 5}], [1, 2])
    assert [last for _, last in tables] == [False, True]
    assert read_groups == [1, 2]


def test_text_in_parquet_that_is_none_is_named_with_its_file(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([b"fine", b"\xff"]).view(pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    step = LoadDataFromFileSystem(name="load", data_files=tmp_path / "a.parquet")
    for way in (step.process, step.process_tables):
        with pytest.raises(StepProcessError, match=r"can't go on reading .*a\.parquet: 'utf-8' codec"):
            list(way())


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"no parquet at all")
    step = LoadDataFromFileSystem(name="load", data_files=path)
    with pytest.raises(PipelineDefinitionError, match=r"a\.parquet: .*[Pp]arquet"):
        step.outputs  # noqa: B018 (a property that reads)
    for way in (step.process, step.process_tables):
        with pytest.raises(StepProcessError, match=r"Step `load` can't go on reading .*a\.parquet"):
            list(way())


def test_reading_is_lazy(tmp_path: Path) -> None:
    write_lines(tmp_path / "1.jsonl", [{"n": n} for n in range(5)])
    write(tmp_path / "2.jsonl", "damaged\n")
    step = LoadDataFromFileSystem(name="load", data_files=tmp_path, batch_size=2)
    batches = step.process()
    assert next(batches) == ([{"n": 0}, {"n": 1}], False)
    assert next(batches) == ([{"n": 2}, {"n": 3}], False)
    with pytest.raises(StepProcessError, match=r"2\.jsonl: line 1"):
        next(batches)


def test_runtime_parameters_are_those_of_distilabel() -> None:
    names = LoadDataFromFileSystem(name="load").runtime_parameters_names
    assert {
        name: names[name] for name in ("data_files", "filetype", "split", "num_examples", "storage_options")
    } == {
        "data_files": False,
        "filetype": True,
        "split": True,
        "num_examples": True,
        "storage_options": True,
    }
