"""LoadDataFromHub against a server that answers as the Hugging Face Hub does, on this machine.

The client reads its endpoint and its cache directory when it's imported, so it runs in a process of its own.
"""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

COMMIT = "3f" * 20
ROWS = [{"n": 1, "s": "x"}, {"n": 2, "s": "y"}, {"n": 3, "s": None}]
FILES = {
    "train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "test.jsonl": b'{"n": 9, "s": "t"}\n',
    "README.md": b"---\nlicense: mit\n---\n",
}


def describe(name: str) -> dict[str, Any]:
    content = FILES[name]
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


class Hub(http.server.BaseHTTPRequestHandler):
    """One dataset, `owner/tiny`, at one commit."""

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, code: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        api, files = "/api/datasets/owner/tiny", f"/datasets/owner/tiny/resolve/{COMMIT}/"
        if path.startswith(files):
            self.answer_file(path.removeprefix(files))
        elif path.startswith(f"{api}/tree/{COMMIT}"):
            listed = [describe(name) for name in FILES] if path.endswith(COMMIT) else []
            self.answer(200, json.dumps(listed).encode(), Content_Type="application/json")
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in FILES]
            told = {
                "id": "owner/tiny",
                "sha": COMMIT,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
            told |= {"private": False, "gated": False, "disabled": False}
            self.answer(200, json.dumps(told).encode(), Content_Type="application/json")
        else:
            code = "RevisionNotFound" if path.startswith(f"{api}/revision") else "RepoNotFound"
            self.answer(404, X_Error_Code=code)

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer_file(self, name: str) -> None:
        if name not in FILES:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return
        content, told = FILES[name], {"ETag": f'"{describe(name)["oid"]}"', "X_Repo_Commit": COMMIT}
        asked = self.headers.get("Range")
        if asked is None:
            self.answer(200, content, **told)
            return
        start, _, end = asked.removeprefix("bytes=").partition("-")
        part = content[int(start) : int(end or len(content)) + 1]
        told["Content_Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
        self.answer(206, part, **told)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        listed = [describe(name) for name in body["paths"] if name in FILES]
        self.answer(200, json.dumps(listed).encode(), Content_Type="application/json")


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


PROBE = """
import json, sys
from distilabel_dagster.errors import DistilabelDagsterError
from distilabel_dagster.steps import LoadDataFromHub

def tell(fields, offset):
    step = LoadDataFromHub(name="load", batch_size=2, **fields)
    told = {}
    try:
        told["fingerprint"] = step.data_fingerprint()
        told["outputs"] = step.outputs
        step.load()
        told["batches"] = list(step.process(offset=offset))
    except DistilabelDagsterError as error:
        told["error"] = [type(error).__name__, str(error)]
    return told

print(json.dumps([tell(*asked) for asked in json.loads(sys.argv[1])]))
"""


def probe(
    endpoint: str, home: Path, *asked: tuple[dict[str, Any], int], **environment: str
) -> list[dict[str, Any]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(asked)],
        env={**kept, **settings, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_rows_columns_and_commit_come_from_the_hub(hub: str, tmp_path: Path) -> None:
    tiny = {"repo_id": "owner/tiny"}
    told = probe(
        hub,
        tmp_path,
        (tiny, 0),
        (tiny, 1),
        ({**tiny, "streaming": True}, 1),
        ({**tiny, "streaming": True, "num_examples": 2}, 0),
        ({**tiny, "split": "test", "revision": COMMIT}, 0),
        ({**tiny, "split": "train[1:]"}, 0),
    )
    assert [each.get("error") for each in told] == [None] * len(told)
    assert {each["fingerprint"] for each in told} == {COMMIT}
    assert {tuple(each["outputs"]) for each in told} == {("n", "s")}
    assert [each["batches"] for each in told] == [
        [[ROWS[:2], False], [ROWS[2:], True]],
        [[ROWS[1:], True]],
        [[ROWS[1:], True]],
        [[ROWS[:2], True]],
        [[[{"n": 9, "s": "t"}], True]],
        [[ROWS[1:], True]],
    ]

    offline = probe("http://127.0.0.1:9", tmp_path, (tiny, 2), HF_HUB_OFFLINE="1")
    assert offline == [{"fingerprint": COMMIT, "outputs": ["n", "s"], "batches": [[ROWS[2:], True]]}]


def test_what_the_hub_does_not_have_is_named(hub: str, tmp_path: Path) -> None:
    told = probe(
        hub,
        tmp_path,
        ({"repo_id": "owner/none"}, 0),
        ({"repo_id": "owner/tiny", "revision": "v9"}, 0),
        ({"repo_id": "owner/tiny", "split": "dev"}, 0),
        ({"repo_id": "no name at all"}, 0),
    )
    errors = [each["error"] for each in told]
    assert {name for name, _ in errors} == {"PipelineDefinitionError"}
    for (_, message), named in zip(
        errors, ["owner/none", "`v9`", "`train`, `test`", "no name at all"], strict=True
    ):
        assert message.startswith("Step `load` can't find out")
        assert named in message


def test_without_network_the_error_is_ours(tmp_path: Path) -> None:
    tiny = {"repo_id": "owner/tiny", "revision": "main"}
    (told,) = probe("http://127.0.0.1:9", tmp_path, (tiny, 0))
    assert told["error"][0] == "PipelineDefinitionError"
    assert "`owner/tiny` at `main`" in told["error"][1]

    (told,) = probe("http://127.0.0.1:9", tmp_path, (tiny, 0), HF_HUB_OFFLINE="1")
    assert told["fingerprint"] == "main"
    assert told["error"][0] == "PipelineDefinitionError"
