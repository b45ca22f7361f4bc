"""An S3 server on loopback, and a proxy before it that spoils what it's told to."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import Distiset
from distilabel_dagster.pipeline import Pipeline
from tests.integration.object_stores import pipelines
from tests.integration.object_stores.store_proxy import StoreProxy

ROOT = Path(__file__).parents[3]
PATIENCE_S = 240
BUCKET = "caches"
KEY, SECRET = "AKIAMADEUP0000000000", "made-up-secret-9f3c1a77"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    client.create_bucket(Bucket=BUCKET)
    yield url
    server.stop()


@pytest.fixture(scope="session")
def proxy_process(s3_server: str) -> Iterator[StoreProxy]:
    with StoreProxy(s3_server) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_process: StoreProxy, monkeypatch: pytest.MonkeyPatch) -> StoreProxy:
    """The proxy in fair weather; this process and its children reach the store through it."""
    proxy_process.reset()
    for name, value in {
        "AWS_ENDPOINT_URL": proxy_process.url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    return proxy_process


@dataclass
class Store:
    """A cache in the bucket, and what the steps of its runs were given.

    Attributes:
        url: what `cache_dir=` takes.
        side_dir: where steps tell of their rows.
        server: the server, behind the proxy.
    """

    url: str
    side_dir: Path
    server: str

    def build(self, **options: Any) -> Pipeline:
        return pipelines.build(self.url, **options)

    def run(self, *, use_cache: bool = True, **options: Any) -> Distiset:
        return self.build(**options).run(use_cache=use_cache)

    def files(self) -> CacheFileSystem:
        return CacheFileSystem(self.url)

    def start(self, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", pipelines.__name__],
            cwd=ROOT,
            env={**os.environ, "DISTILABEL_CACHE_DIR": self.url, "SIDE_DIR": str(self.side_dir), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: "subprocess.Popen[str]") -> str:
        """Wait for the end; give what it told."""
        try:
            _, told = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return told

    def wait_for(self, process: "subprocess.Popen[str]", is_reached: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_reached():
            assert process.poll() is None, f"ended before it could be killed: {process.communicate()}"
            assert time.monotonic() < until
            time.sleep(0.05)

    def kill(self, process: "subprocess.Popen[str]") -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def computed(self, step: str) -> Counter[int]:
        """How often a step was given each row, in all runs."""
        file = self.side_dir / f"{step}.txt"
        return Counter(map(int, file.read_text().split())) if file.exists() else Counter()

    def committed(self) -> dict[str, list[dict[str, Any]]]:
        """What is committed of each step; reads all parts, by the product's own code."""
        cache = self.build().open_cache()
        for store in cache.stores.values():
            store.open()
        return {name: store.read_all().to_pylist() for name, store in cache.stores.items()}

    def objects(self) -> dict[str, bytes]:
        """All objects, as the server has them."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.server,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        prefix = self.url.removeprefix(f"s3://{BUCKET}/") + "/"
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        found = {}
        for key in keys:
            with contextlib.suppress(client.exceptions.NoSuchKey):  # a run may remove it meanwhile
                found[key.removeprefix(prefix)] = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found


@pytest.fixture
def store(proxy: StoreProxy, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    side_dir = tmp_path / "side"
    side_dir.mkdir()
    monkeypatch.setenv("SIDE_DIR", str(side_dir))
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}/cache", side_dir, s3_server)


def rows_of(distiset: Distiset) -> dict[str, list[dict[str, Any]]]:
    return {leaf: splits["train"].to_list() for leaf, splits in distiset.items()}


EXPECTED = {leaf: pipelines.expected(leaf) for leaf in ("left", "right")}


def count_parts(store: Store, step: str) -> int:
    return sum(
        name.startswith(f"steps_data/{step}_") and name.endswith(".parquet") for name in store.objects()
    )
