"""Rows of another step, or fewer than there are, are never given for a leaf's."""

import shutil
from pathlib import Path

import pytest

from distilabel_dagster.distiset import create_distiset
from distilabel_dagster.errors import DamagedFileError
from distilabel_dagster.pipeline import Pipeline
from distilabel_dagster.steps import KeepColumns, LoadDataFromDicts
from tests.integration.damage.sites import a_part_for_each_batch


def build(cache: Path, rows: int = 6) -> Pipeline:
    """Two leaves with the same columns, a part for each of their three batches."""
    with Pipeline("shown", cache_dir=cache) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"id": number} for number in range(rows)], batch_size=2)
        load >> [KeepColumns(name=name, columns=["id"], input_batch_size=2) for name in ("left", "right")]
    return pipeline


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The `data` directory of a pipeline that has been run; another pipeline's is in the cache too."""
    pipeline = build(tmp_path / "cache")
    with a_part_for_each_batch():
        pipeline.run()
        build(tmp_path / "cache", rows=8).run()
    return tmp_path / "cache" / pipeline.signature / "data"


def other_data(data: Path) -> Path:
    return data.parents[1] / build(data.parents[1], rows=8).signature / "data"


def replace(target: Path, source: Path) -> None:
    target.unlink()
    shutil.copy(source, target)


def test_all_rows_are_given(data: Path) -> None:
    distiset = create_distiset(data)
    assert {leaf: distiset[leaf]["train"]["id"][:] for leaf in distiset} == {
        "left": list(range(6)),
        "right": list(range(6)),
    }


def test_a_part_of_another_step_is_named(data: Path) -> None:
    replace(data / "left" / "00002.parquet", data / "right" / "00002.parquet")
    with pytest.raises(
        DamagedFileError, match=r"left/00002\.parquet isn't the part.*belongs to step 'right'"
    ):
        create_distiset(data)


def test_a_part_of_another_signature_is_named(data: Path) -> None:
    replace(data / "left" / "00002.parquet", other_data(data) / "left" / "00002.parquet")
    with pytest.raises(DamagedFileError, match=r"left/00002\.parquet isn't the part that belongs there"):
        create_distiset(data)


def test_all_parts_of_another_signature_are_named(data: Path) -> None:
    shutil.rmtree(data / "left")
    shutil.copytree(other_data(data) / "left", data / "left")
    with pytest.raises(DamagedFileError, match=r"left/00001\.parquet isn't the part that belongs there"):
        create_distiset(data)


def test_a_part_in_anothers_place_is_named(data: Path) -> None:
    replace(data / "left" / "00002.parquet", data / "left" / "00001.parquet")
    with pytest.raises(DamagedFileError, match=r"left/00002\.parquet .*batch 1 should come next"):
        create_distiset(data)


def test_the_last_part_is_missed(data: Path) -> None:
    (data / "left" / "00003.parquet").unlink()
    with pytest.raises(DamagedFileError, match=r"data/left lacks the last parts of step `left`"):
        create_distiset(data)
    with pytest.raises(DamagedFileError, match="lacks the last parts"):
        create_distiset(data.parent)


def test_a_strangers_file_among_them_is_named(data: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (data / "left" / "00002.parquet").unlink()
    pq.write_table(pa.table({"id": [7]}), data / "left" / "00002.parquet")
    with pytest.raises(DamagedFileError, match=r"left/00002\.parquet isn't the part that belongs there"):
        create_distiset(data)


def test_a_pipeline_that_has_not_ended_gives_what_there_is(data: Path) -> None:
    cache = data.parents[1]
    (step,) = cache.glob(f"steps_data/left_{build(cache).step_signatures['left']}")
    for path in (data / "left" / "00003.parquet", step / "00003.parquet", step / "complete.json"):
        path.unlink()
    assert create_distiset(data)["left"]["train"]["id"][:] == list(range(4))


def test_a_copy_elsewhere_under_another_name_is_as_good(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "left", tmp_path / "mine" / "renamed")
    (tmp_path / "mine" / "renamed" / "00003.parquet").unlink()
    assert create_distiset(tmp_path / "mine")["renamed"]["train"]["id"][:] == list(range(4))


def test_the_next_run_puts_it_right(data: Path) -> None:
    replace(data / "left" / "00002.parquet", data / "right" / "00002.parquet")
    (data / "right" / "00003.parquet").unlink()
    distiset = build(data.parents[1]).run()
    assert distiset["left"]["train"]["id"][:] == distiset["right"]["train"]["id"][:] == list(range(6))
