"""The places where a cache or a ledger can be; every test here has to pass on each."""

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from tests.contract.postgresql import PostgreSQLServer, find_programs

_BUCKET = "pipelines"


@dataclass(frozen=True)
class Place:
    """A directory that isn't there yet, in some store."""

    kind: str
    url: str
    storage_options: dict[str, Any] = field(default_factory=dict)

    def open(self) -> CacheFileSystem:
        return CacheFileSystem(self.url, self.storage_options)

    def files(self) -> list[str]:
        """All files, as the store's own driver lists them."""
        fs = self.open()
        fs._fs.invalidate_cache()
        return sorted(path[len(fs.root) + 1 :] for path in fs._fs.find(fs.root))


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_options(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How to reach the S3 server; credentials that only it accepts."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    return {"endpoint_url": s3_endpoint}


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "local":
        yield Place("local", str(tmp_path / "cache"))
    elif request.param == "memory":
        made = Place("memory", f"memory://{uuid.uuid4().hex}/cache")
        yield made
        made.open().remove_all()
    else:
        options = request.getfixturevalue("s3_options")
        made = Place("s3", f"s3://{_BUCKET}/{uuid.uuid4().hex}/cache", options)
        s3 = made.open()._fs
        if not s3.exists(_BUCKET):
            s3.mkdir(_BUCKET)
        yield made


@pytest.fixture
def fs(place: Place) -> CacheFileSystem:
    return place.open()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQLServer]:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL isn't installed here; on Debian and Ubuntu: apt-get install postgresql")
    server = PostgreSQLServer(programs)
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database for a ledger, without any table yet."""
    if request.param == "sqlite":
        yield str(tmp_path / "ledger.sqlite")
    else:
        server: PostgreSQLServer = request.getfixturevalue("postgresql")
        url = server.create_database()
        yield url
        server.drop_database(url)
