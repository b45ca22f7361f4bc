"""Where a history's cache is: a directory, or a bucket of an S3 server on loopback; seen without the product's code."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

ROOT: Final = Path(__file__).parents[3]
_BUCKET: Final = "crash"
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up"}
_LONG_S: Final = 3600
_REGION: Final = "us-east-1"


class CachePlace(Protocol):
    """A cache directory, and its files as they are at a moment.

    Attributes:
        url: what `cache_dir=` takes.
        environment: what a process needs to get at it.
    """

    url: str
    environment: dict[str, str]

    def read_files(self) -> dict[str, bytes]:
        """Path below the directory -> content."""
        ...

    def write_file(self, path: str, content: bytes) -> None:
        """Put something in a file's place, as damage does."""
        ...

    def age_temporary_files(self) -> None:
        """Make what interrupted writes have left so old that nobody may be at it any more."""
        ...


class LocalPlace:
    """A directory of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = str(path)
        self.environment: dict[str, str] = {}

    def read_files(self) -> dict[str, bytes]:
        paths = (Path(root) / name for root, _, names in os.walk(self._path) for name in names)
        return {path.relative_to(self._path).as_posix(): path.read_bytes() for path in sorted(paths)}

    def write_file(self, path: str, content: bytes) -> None:
        (self._path / path).write_bytes(content)

    def age_temporary_files(self) -> None:
        long_ago = time.time() - _LONG_S
        for path in self._path.rglob(".*"):
            os.utime(path, (long_ago, long_ago))


class S3Place:
    """A prefix in the bucket of a server; read with boto3."""

    def __init__(self, endpoint: str, name: str) -> None:
        import boto3

        self.url = f"s3://{_BUCKET}/{name}/cache"
        self.environment = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._prefix = f"{name}/cache/"
        self._s3: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=_REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def read_files(self) -> dict[str, bytes]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=_BUCKET, Prefix=self._prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {
            key.removeprefix(self._prefix): self._s3.get_object(Bucket=_BUCKET, Key=key)["Body"].read()
            for key in sorted(keys)
        }

    def write_file(self, path: str, content: bytes) -> None:
        self._s3.put_object(Bucket=_BUCKET, Key=self._prefix + path, Body=content)

    def age_temporary_files(self) -> None:
        pass  # there are none: an object is whole or absent


@dataclass
class S3Server:
    """Moto's server in a process of its own, with the bucket; ends with this process in any case."""

    process: "subprocess.Popen[str]"
    endpoint: str

    @classmethod
    def start(cls) -> "S3Server":
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.crash.s3_server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        assert endpoint, "the S3 server didn't start: its message is above"
        return cls(process, endpoint)

    def stop(self) -> None:
        self.process.communicate("")


def make_bucket(endpoint: str) -> None:
    """Make the bucket that all histories share."""
    S3Place(endpoint, "")._s3.create_bucket(Bucket=_BUCKET)
