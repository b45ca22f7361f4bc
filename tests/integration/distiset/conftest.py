"""Caches with parts in them, and a Hub on this machine."""

import base64
import hashlib
import io
import json
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilabel_dagster.cache.filesystem import CacheFileSystem

WritePart = Callable[[CacheFileSystem, str, pa.Table], None]


@pytest.fixture(params=["local", "memory"])
def pipeline_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CacheFileSystem]:
    """A pipeline's directory in the cache, with nothing in it yet."""
    if request.param == "local":
        yield CacheFileSystem(tmp_path / "pipeline")
        return
    fs = CacheFileSystem(f"memory://{uuid.uuid4().hex}/pipeline")
    yield fs
    fs._fs.store.clear()
    fs._fs.pseudo_dirs[:] = [""]


@pytest.fixture
def write_part() -> WritePart:
    def write(fs: CacheFileSystem, path: str, table: pa.Table) -> None:
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        fs.write_bytes(path, buffer.getvalue())

    return write


@dataclass
class FakeHub:
    """As much of the Hub's HTTP interface as a push of datasets needs; tokens are checked, uploads verified."""

    token: str
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Repository -> branch or commit -> path -> content."""
    private: set[str] = field(default_factory=set)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)
    """Message and paths of each commit."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files by SHA-256, as Git LFS has them."""
    endpoint: str = ""

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        return self.repositories[repository][revision]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        routes: Sequence[tuple[str, str, Callable[..., Any]]] = (
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", lambda body: {"errors": [], "warnings": []}),
            ("POST", r"/api/datasets/(?P<repo>[^/]+/[^/]+)/branch/(?P<revision>[^/]+)", self._branch),
            ("POST", r"/api/datasets/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", self._preupload),
            ("POST", r"/api/datasets/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", self._commit),
            ("POST", r"/api/datasets/(?P<repo>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)", self._paths_info),
            ("POST", r"/datasets/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", self._plan_uploads),
            ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", self._upload),
            (
                "GET",
                r"/api/datasets/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)/?(?P<under>.*)",
                self._tree,
            ),
            ("GET", r"/api/datasets/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?", self._info),
            (
                "GET",
                r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
                self._resolve,
            ),
        )
        for verb, pattern, handle in routes:
            found = re.fullmatch(pattern, path)
            if found and verb == ("GET" if method == "HEAD" else method):
                arguments = {name: value for name, value in found.groupdict().items() if value is not None}
                try:
                    answered = handle(body=body, **arguments)
                except KeyError as missing:
                    code = (
                        "RepoNotFound"
                        if missing.args[0] in (arguments.get("repo"), None)
                        else "EntryNotFound"
                    )
                    return 404, {"error": "not found"}, {"X-Error-Code": code}
                return (200, *answered) if isinstance(answered, tuple) else (200, answered, {})
        return 501, {"error": f"{method} {path} is nothing that this Hub knows"}, {}

    def _create(self, body: bytes) -> Any:
        wanted = json.loads(body)
        repository = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        if repository not in self.repositories:
            self.repositories[repository] = {"main": {}}
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.private.add(repository)
        return {"url": f"{self.endpoint}/datasets/{repository}", "id": repository, "name": repository}

    def _branch(self, body: bytes, repo: str, revision: str) -> Any:
        self.repositories[repo].setdefault(revision, dict(self.files(repo)))
        return {}

    def _preupload(self, body: bytes, repo: str, revision: str) -> Any:
        files = json.loads(body)["files"]
        modes = {file["path"]: "lfs" if file["path"].endswith(".parquet") else "regular" for file in files}
        return {
            "files": [
                {"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()
            ]
        }

    def _plan_uploads(self, body: bytes, repo: str) -> Any:
        objects = json.loads(body)["objects"]
        upload = [
            {**each, "actions": {"upload": {"href": f"{self.endpoint}/lfs/{each['oid']}"}}}
            for each in objects
        ]
        return {"transfer": "basic", "objects": upload}

    def _upload(self, body: bytes, oid: str) -> Any:
        assert hashlib.sha256(body).hexdigest() == oid
        self.objects[oid] = body
        return {}

    def _commit(self, body: bytes, repo: str, revision: str) -> Any:
        files = dict(self.repositories[repo][revision])
        header, *operations = [json.loads(line) for line in body.splitlines()]
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        self.commits.append((header["value"]["summary"], [each["value"]["path"] for each in operations]))
        self.repositories[repo][revision] = files
        oid = self._sha(repo, revision)
        return {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{self.endpoint}/datasets/{repo}/commit/{oid}",
        }

    def _sha(self, repo: str, revision: str) -> str:
        files = self.repositories[repo][revision]
        if re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        sha = hashlib.sha1(repr((revision, sorted(files.items()))).encode()).hexdigest()
        self.repositories[repo][sha] = files
        return sha

    def _entry(self, repo: str, revision: str, path: str) -> dict[str, Any]:
        content = self.files(repo, revision)[path]
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _paths_info(self, body: bytes, repo: str, revision: str) -> Any:
        paths = urllib.parse.parse_qs(body.decode()).get("paths") or json.loads(body)["paths"]
        return [self._entry(repo, revision, path) for path in paths if path in self.files(repo, revision)]

    def _tree(self, body: bytes, repo: str, revision: str, under: str = "") -> Any:
        prefix = f"{under}/" if under else ""
        inside = [path for path in self.files(repo, revision) if path.startswith(prefix)]
        if under and not inside:
            raise KeyError(under)
        directories = {
            prefix + path[len(prefix) :].partition("/")[0] for path in inside if "/" in path[len(prefix) :]
        }
        return [
            *(
                {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
                for path in sorted(directories)
            ),
            *(self._entry(repo, revision, path) for path in inside if "/" not in path[len(prefix) :]),
        ]

    def _info(self, body: bytes, repo: str, revision: str = "main") -> Any:
        return {"id": repo, "sha": self._sha(repo, revision), "private": repo in self.private, "siblings": []}

    def _resolve(self, body: bytes, repo: str, revision: str, path: str) -> Any:
        content = self.files(repo, revision)[path]
        return content, {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": self._sha(repo, revision),
        }


def _handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self._read_body()
            url = urllib.parse.urlsplit(self.path)
            signed = url.path.startswith("/lfs/")
            if not signed and self.headers.get("Authorization") != f"Bearer {hub.token}":
                # As bad as a proxy in between can be: it repeats what it was sent.
                refusal = f"Invalid: {self.headers.get('Authorization')}"
                status, answer, headers = 401, {"error": refusal}, {"X-Error-Message": refusal}
            else:
                status, answer, headers = hub.answer(self.command, urllib.parse.unquote(url.path), body)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {
                "Content-Length": str(len(content)),
                "Accept-Ranges": "bytes",
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *args: Any) -> None:
            """Say nothing: the tests look at what was stored."""

    for method in ("GET", "HEAD", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler.respond)
    return Handler


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub that the client libraries talk to over HTTP; their settings are what they'd read from the environment."""
    import datasets.config
    from huggingface_hub import constants

    hub = FakeHub(token="hf_made-up-and-secret")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
