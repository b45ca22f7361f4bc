"""Secrets come from the environment or from options, and stay out of all that's written; a cache can be moved."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.object_stores import definitions, pipelines
from tests.integration.object_stores.conftest import (
    EXPECTED,
    KEY,
    PATIENCE_S,
    ROOT,
    SECRET,
    Store,
    count_parts,
    rows_of,
)
from tests.integration.object_stores.store_proxy import StoreProxy


def check_absent(content: bytes, where: str) -> None:
    for secret in (SECRET, KEY):
        assert secret.encode() not in content, f"{where} tells {secret}"


def test_credentials_are_in_no_object_and_no_ledger(
    store: Store,
    proxy: StoreProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    ledger = tmp_path / "ledger.sqlite"
    options = {"key": KEY, "secret": SECRET, "endpoint_url": proxy.url}
    assert rows_of(store.run(ledger_url=str(ledger), **options)) == EXPECTED
    objects = store.objects()
    assert any(name.endswith("pipeline.yaml") for name in objects)
    for name, content in objects.items():
        check_absent(content, name)
    with closing(sqlite3.connect(ledger)) as connection:
        check_absent("\n".join(connection.iterdump()).encode(), "the ledger")
    check_absent(caplog.text.encode(), "the log")


def test_a_job_of_dagster_keeps_its_cache_in_a_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `pip install 'distilabel-dagster[s3]'`, and all else in the environment."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    for name, value in {
        "DISTILABEL_CACHE_DIR": store.url,
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
    }.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", definitions.__name__, "-j", "stores_job"],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = [path for path in home.rglob("*") if path.is_file()]
    for name, content in {**store.objects(), **{str(path): path.read_bytes() for path in written}}.items():
        check_absent(content, name)
    check_absent(done.stderr.encode(), "what the terminal shows")
    assert {leaf: rows for leaf, rows in store.committed().items() if leaf in EXPECTED} == EXPECTED


def test_a_cache_goes_on_where_it_was_copied_to(store: Store, tmp_path: Path) -> None:
    process = store.start(BATCH_S="0.3")
    store.wait_for(process, lambda: count_parts(store, "left") > 0)
    store.kill(process)
    for name, content in store.objects().items():
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    done = store.committed()
    before = store.computed("mark")
    assert rows_of(pipelines.build(str(tmp_path / "copy")).run()) == EXPECTED
    again = store.computed("mark") - before
    assert not again.keys() & {row["id"] for row in done["mark"]}, "committed rows were computed again"
