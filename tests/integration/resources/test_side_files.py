"""Files that tell of a run and aren't needed by it: it goes on without them."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.resources.conftest import Disk
from tests.integration.resources.test_errors_of_the_system import EXPECTED, Moments, build, meeting, rows_of


class AboutOneFile(Moments):
    """An error whenever a file of that name is written."""

    def __init__(self, name: str) -> None:
        super().__init__("ENOSPC", 0)
        self._name = name

    def __call__(self, point: str, about: str) -> None:
        if self._name in about:
            super().__call__(point, about)


def test_a_snapshot_that_cannot_be_written_is_written_by_the_next_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = build(tmp_path)
    with caplog.at_level(logging.WARNING), meeting(AboutOneFile("batch_manager")) as moments:
        assert rows_of(pipeline.run()) == EXPECTED
    assert moments.met is not None
    told = [record.getMessage() for record in caplog.records if "batch_manager" in record.getMessage()]
    assert len(told) == 1, "once is enough"
    assert "No space left on device" in told[0]
    assert not list(tmp_path.rglob("batch_manager.json"))
    build(tmp_path).run()
    assert list(tmp_path.rglob("batch_manager.json"))


def find_log(cache_dir: Path) -> Path:
    log = cache_dir / build(cache_dir).signature / "pipeline.log"
    log.parent.mkdir(parents=True)
    return log


def test_a_directory_in_the_place_of_the_log_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    find_log(tmp_path).mkdir()
    with caplog.at_level(logging.WARNING):
        assert rows_of(build(tmp_path).run()) == EXPECTED
    assert "The log can't be written" in caplog.text


def test_a_log_on_a_full_disk_is_left_out(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make_disk: Callable[[str], Disk],
    bind: Callable[[str, Path], None],
) -> None:
    full = make_disk("size=16k").path / "full"
    with pytest.raises(OSError, match="No space left"):
        full.write_bytes(bytes(2**20))
    log = find_log(tmp_path / "cache")
    log.touch()
    bind(str(full), log)
    with caplog.at_level(logging.WARNING):
        assert rows_of(build(tmp_path / "cache").run()) == EXPECTED
    assert "No space left on device" in caplog.text
