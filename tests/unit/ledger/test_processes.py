import dataclasses
import os
from pathlib import Path

import pytest

from distilabel_dagster.ledger import processes
from distilabel_dagster.ledger.processes import current_host, current_process

only_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_this_process_lives() -> None:
    assert current_process().pid == os.getpid()
    assert not current_process().is_surely_dead()


def test_a_process_of_another_host_is_never_surely_dead() -> None:
    assert not dataclasses.replace(current_process(), host="elsewhere", pid=2**22 + 1).is_surely_dead()


def test_a_number_that_no_process_has_is_dead() -> None:
    assert dataclasses.replace(current_process(), pid=2**22 + 1, start="").is_surely_dead()


@only_linux
def test_a_number_given_to_a_later_process_is_dead() -> None:
    assert dataclasses.replace(current_process(), start="1").is_surely_dead()
    assert not dataclasses.replace(current_process(), start="").is_surely_dead()


@only_linux
def test_start_is_that_of_the_process_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    odd = f"{os.getpid()} (a) Z 1 (b) " + " ".join(fields)
    monkeypatch.setattr(Path, "read_text", lambda *args, **kwargs: odd)
    assert processes._read_stat(os.getpid()) == (fields[0], fields[19])


def test_hosts_of_one_name_differ_by_boot_or_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {processes._BOOT_ID: "boot-1", processes._MACHINE_ID: "machine-1"}
    monkeypatch.setattr(processes, "_read_line", lambda path: names[path])
    first = current_host()
    names[processes._BOOT_ID] = "boot-2"
    assert current_host() != first
    names[processes._BOOT_ID] = ""
    assert "machine-1" in current_host()


def test_host_name_is_short() -> None:
    named = dataclasses.replace(current_process(), host="trainer-3 [abc pid:[42]]")
    assert named.host_name == "trainer-3"
