"""A private PostgreSQL server for tests."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg


def find_programs() -> Path | None:
    """Where PostgreSQL's programs are: on the PATH, else the newest that Debian has put beside it."""
    if found := shutil.which("postgres"):
        return Path(found).parent
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    return max(versions, key=lambda path: float(path.parent.name), default=None)


class PostgreSQLServer:
    """A server of its own, with an empty cluster, reached by a socket in its directory."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._options: dict[str, Any] = {}
        self.directory = Path(tempfile.mkdtemp(prefix="distilabel-dagster-postgresql-"))
        if os.geteuid() == 0:  # the server refuses to run as root
            user = next(
                name for name in ("postgres", "nobody") if name in {p.pw_name for p in pwd.getpwall()}
            )
            account = pwd.getpwnam(user)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
            self._options = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        try:
            self._run("initdb", "--username=tests", "--auth=trust", "--encoding=UTF8", "--no-sync")
            self.start()
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", self.directory / "data", "-k", self.directory),
                    *("-c", "listen_addresses=", "-c", "fsync=off"),
                ],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                **self._options,
            )
        end = time.monotonic() + 30
        while True:
            try:
                self._connect().close()
            except psycopg.OperationalError:
                log_text = (self.directory / "log").read_text()
                assert self._process.poll() is None, log_text
                assert time.monotonic() < end, log_text
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # ends the clients' connections too
        self._process.wait(timeout=30)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def create_database(self) -> str:
        """Give the URL of a new database."""
        name = f"ledger_{uuid.uuid4().hex}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://tests@/{name}?host={self.directory}"

    def drop_database(self, url: str) -> None:
        name = url.partition("?")[0].rpartition("/")[2]
        with self._connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _connect(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(host=str(self.directory), user="tests", dbname="postgres", autocommit=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, "-D", self.directory / "data", *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            **self._options,
        )
        assert done.returncode == 0, done.stdout + done.stderr
