"""A ledger whose disk, or whose process, has no room left: what was stored stays, and one goes on when there's room."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distilabel_dagster.errors import CacheDirectoryError, CacheError, CacheFullError
from distilabel_dagster.ledger.reading import look_up_usage
from distilabel_dagster.ledger.repair import check_ledger, repair_ledger
from distilabel_dagster.ledger.responses import ResponseLedger
from tests.contract.ledger_process import ROOT, STEP, answer, key_of, keys_of, pay

LONG = "long " * 1_000
LIMITED = """
import json, os, resource, sys
from distilabel_dagster.errors import CacheError
from distilabel_dagster.ledger.responses import ResponseLedger
from tests.contract.ledger_process import STEP, keys_of, pay

path, limit = sys.argv[1:]
ledger = ResponseLedger(path)
ledger.open_claims()
ledger.store([pay(1)])
before = resource.getrlimit(getattr(resource, limit))
held = []
if limit == "RLIMIT_NOFILE":
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    ledger.engine.dispose()
    while True:
        try:
            held.append(open(os.devnull))
        except OSError:
            break
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
told = {}
try:
    ledger.store([pay(number, "long " * 1_000) for number in range(2, 200)])
except CacheError as error:
    told = {"class": type(error).__name__, "said": str(error)}
for file in held:
    file.close()
resource.setrlimit(getattr(resource, limit), before)
ledger.store([pay(number, "long " * 1_000) for number in range(2, 200)])
ledger.close()
print(json.dumps(told))
"""


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system in memory, or mount it anew, with options; skips the test where one may not."""
    path = tmp_path / "disk"
    path.mkdir()
    is_mounted = False

    def do(options: str) -> Path:
        nonlocal is_mounted
        command = (
            ["mount", "-o", f"remount,{options}"] if is_mounted else ["mount", "-t", "tmpfs", "-o", options]
        )
        arguments = [str(path)] if is_mounted else ["tmpfs", str(path)]
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("file systems can't be mounted here")
        if subprocess.run([*command, *arguments], capture_output=True, check=False).returncode:
            assert not is_mounted
            pytest.skip("file systems can't be mounted here")
        is_mounted = True
        return path

    yield do
    if is_mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(ledger: ResponseLedger) -> tuple[set[bytes], CacheError]:
    """Store until it's refused; give what was stored."""
    stored: set[bytes] = set()
    for start in range(0, 100_000, 20):
        numbers = range(start, start + 20)
        try:
            ledger.store([pay(number, LONG) for number in numbers])
        except CacheError as error:
            return stored, error
        stored |= set(map(key_of, numbers))
    raise AssertionError("there's no end to this disk")


def test_a_full_disk_is_said_and_gone_on_from(mount: Callable[[str], Path]) -> None:
    path = mount("size=2m") / "cache" / "ledger.sqlite"
    with ResponseLedger(str(path)) as ledger:
        stored, error = fill(ledger)
        assert type(error) is CacheFullError
        assert f"The ledger {path} can't be written: " in str(error)
        assert "Free some space" in str(error)
        assert stored
        every = keys_of(range(100_000))
        assert ledger.find_keys(every) == stored
        with pytest.raises(CacheFullError):
            ledger.store([pay(number, LONG) for number in range(50_000, 50_100)])
        mount("size=64m")
        ledger.store([pay(number, LONG) for number in range(50_000, 50_100)])
        assert len(ledger.begin({STEP: every[:40_000]}).found) == len(stored)
    assert check_ledger(str(path)) == []


def test_a_process_that_ends_on_a_full_disk_leaves_a_whole_ledger(mount: Callable[[str], Path]) -> None:
    path = mount("size=2m") / "cache" / "ledger.sqlite"
    with ResponseLedger(str(path)) as ledger:
        stored, _ = fill(ledger)
    mount("size=64m")
    with ResponseLedger(str(path)) as ledger:
        found = ledger.begin({STEP: sorted(stored)}).found
        assert found == {key: answer(int.from_bytes(key, "big"), LONG) for key in stored}
    assert check_ledger(str(path)) == []


def test_a_disk_without_room_for_a_ledger_is_said(mount: Callable[[str], Path]) -> None:
    directory = mount("size=16k")
    (directory / "ballast").write_bytes(bytes(12_288))
    with pytest.raises(CacheFullError, match="Free some space"):
        ResponseLedger(str(directory / "ledger.sqlite"))
    mount("size=16m")
    with ResponseLedger(str(directory / "ledger.sqlite")) as ledger:
        ledger.store([pay(1)])


def test_a_repair_on_a_full_disk_leaves_all_as_it_was(mount: Callable[[str], Path]) -> None:
    path = mount("size=16m") / "ledger.sqlite"
    with ResponseLedger(str(path)) as ledger:
        ledger.store([pay(number, LONG) for number in range(180)])
    mount("size=1500k")
    content = bytearray(path.read_bytes())
    content[content.index(b"long ")] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheFullError):
        repair_ledger(str(path))
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == content
    mount("size=64m")
    report = repair_ledger(str(path))
    assert report is not None
    assert (report.responses, report.responses_lost) == (179, 1)


def test_a_disk_that_may_only_be_read_is_said(mount: Callable[[str], Path]) -> None:
    path = mount("size=16m") / "cache" / "ledger.sqlite"
    with ResponseLedger(str(path)) as ledger:
        ledger.store([pay(1)])
    mount("ro")
    assert look_up_usage(str(path), [STEP.step_key])[STEP.step_key].calls == 1
    assert check_ledger(str(path)) == []
    with pytest.raises(CacheDirectoryError, match="Read-only file system") as caught:
        ResponseLedger(str(path)).open_claims()
    assert "Check the path and its permissions" in str(caught.value)
    mount("rw")
    with ResponseLedger(str(path)) as ledger:
        assert ledger.begin({STEP: keys_of([1])}).found


def test_a_disk_that_becomes_read_only_meanwhile_is_said(mount: Callable[[str], Path]) -> None:
    path = mount("size=16m") / "cache" / "ledger.sqlite"
    ledger = ResponseLedger(str(path))
    ledger.open_claims()
    ledger.store([pay(1)])
    ledger.engine.dispose()
    mount("ro")
    with pytest.raises(CacheDirectoryError, match="Read-only file system"):
        ledger.store([pay(2)])
    mount("rw")
    ledger.store([pay(2)])
    ledger.close()


@pytest.mark.parametrize(
    ("limit", "expected", "reason", "remedy"),
    [
        ("RLIMIT_NOFILE", "CacheError", "Too many open files", "ulimit -n"),
        ("RLIMIT_FSIZE", "CacheFullError", "File too large", "Free some space"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of resources")
def test_a_limit_of_the_process_is_said_and_gone_on_from(
    tmp_path: Path, limit: str, expected: str, reason: str, remedy: str
) -> None:
    path = tmp_path / "ledger.sqlite"
    command = [sys.executable, "-c", LIMITED, str(path), limit]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["class"] == expected, told
    assert f"The ledger {path} can't be written" in told["said"]
    assert reason in told["said"]
    assert remedy in told["said"]
    with ResponseLedger(str(path)) as ledger:
        assert len(ledger.find_keys(keys_of(range(1, 200)))) == 199


def as_nobody(work: Callable[[], object]) -> str:
    """Do something in a process that isn't root's; give the kind of error that it met, and what it said."""
    if os.geteuid() != 0:
        return tell(work)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65_534)
            os.setuid(65_534)
            os.write(writing, tell(work).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def tell(work: Callable[[], object]) -> str:
    try:
        return f"nothing, but {work()!r}"
    except Exception as error:  # noqa: BLE001  (told to the test)
        return f"{type(error).__name__}: {error}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs permissions of files")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("what", ["file", "WAL", "directory"])
def test_a_file_that_may_not_be_read_is_said(what: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        path = Path(made) / "cache" / "ledger.sqlite"
        with ResponseLedger(str(path)) as ledger:
            ledger.store([pay(1)])
        if what == "WAL":
            path.with_name("ledger.sqlite-wal").write_bytes(bytes(9_999))
        Path(made).chmod(0o755)
        for each in (path, path.parent):
            each.chmod(0o777)
        forbidden = {"file": path, "WAL": path.with_name("ledger.sqlite-wal"), "directory": path.parent}[what]
        forbidden.chmod(0)
        for act in (lambda: ResponseLedger(str(path)), lambda: look_up_usage(str(path), ["generate_1f"])):
            told = as_nobody(act)
            assert told.startswith(f"CacheDirectoryError: The ledger {path} can't be "), told
        told = as_nobody(lambda: check_ledger(str(path)))
        assert told.startswith(f"nothing, but [Problem(location='{path}', what=\"can't be"), told
        assert as_nobody(lambda: repair_ledger(str(path))).startswith("CacheDirectoryError: ")
        forbidden.chmod(0o777)
        with ResponseLedger(str(path)) as ledger:
            assert ledger.find_keys(keys_of([1])) == {key_of(1)}
