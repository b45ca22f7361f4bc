"""No file makes its reader take memory or time without end, whatever it claims."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilabel_dagster.cache import claims
from distilabel_dagster.cache.claims import find_large_columns, read_parquet_footer
from distilabel_dagster.cache.parquet_reading import read_parquet
from distilabel_dagster.cache.part_file import encode_part
from tests.integration.strangers.bombs import JSON_TEXTS, PARTS, TEMPLATES, TEXTS, write

_ROOT = Path(__file__).parents[3]


GROUPS = {"texts": [*TEXTS, *JSON_TEXTS], "templates": [*TEMPLATES], "parts": [*PARTS]}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does")
@pytest.mark.parametrize("group", GROUPS)
def test_what_claims_to_be_huge_takes_little(group: str, tmp_path: Path) -> None:
    names = GROUPS[group]
    for number, name in enumerate(names):
        write(name, tmp_path / str(number))
    write("an honest part", tmp_path / "honest")
    command = (sys.executable, "-m", "tests.integration.strangers.bombs", str(tmp_path), *names)
    done = subprocess.run(
        command,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    found = json.loads(done.stdout)
    assert list(found) == names
    assert not [name for name in names if "MemoryError" in str(found[name])]
    if group == "templates":  # nothing of them is computed before a run
        assert all(found[name]["told"][0] == "read" for name in names), found
        return
    refusals = [each for name in names for each in found[name]["told"] if each != "read"]
    assert len(refusals) >= len(names)
    assert all(
        found[name]["told"][0].startswith(("PipelineFileError", "DamagedFileError")) for name in names
    ), found
    assert all(each.startswith(("PipelineFileError", "DamagedFileError")) for each in refusals)
    for told in ("nested too deeply", "more than 100,000 values", "GiB of memory"):
        assert any(told in each for each in refusals) == (told in EXPECTED[group])


EXPECTED = {"texts": ("nested too deeply", "more than 100,000 values"), "parts": ("GiB of memory",)}


def test_an_honest_part_is_read_however_well_it_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that grows more than a stranger's may is written so that it grows less."""
    monkeypatch.setattr(claims, "FREE_BYTES", 100_000)
    monkeypatch.setattr("distilabel_dagster.cache.parquet_reading.FREE_BYTES", 100_000)
    table = pa.table({"text": ["the same " * 100] * 5_000, "n": [1] * 5_000})
    content, _ = encode_part(table, b'{"checksums":"0000000000000000"}')
    assert len(content) > table.nbytes // 10
    assert read_parquet(content).replace_schema_metadata(None).equals(table)


def test_columns_that_may_be_large_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts and short ones in one dictionary: by its longest it would be too large, and by what it holds it isn't."""
    monkeypatch.setattr(claims, "FREE_BYTES", 600_000)
    texts = ["long " * 2_000, *(f"short {n % 7}" for n in range(4_000))]
    table = pa.table(
        {
            "a": texts,
            "b": [{"c": [text]} for text in texts],
            "m": pa.array([[(text, "v")] for text in texts], pa.map_(pa.string(), pa.string())),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_compliant_nested_type=False)
    content = sink.getvalue().to_pybytes()
    monkeypatch.setattr(claims, "FREE_BYTES", 4_000_000)
    assert find_large_columns(content, read_parquet_footer(content)) == [
        "a",
        "b.c.list.item",
        "m.key_value.key",
    ]
    assert read_parquet(content).equals(table)
    assert read_parquet(content, without=["b"]).column_names == ["a", "m"]
