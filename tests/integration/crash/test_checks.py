"""The suite's own eyes: what a run leaves passes, and each kind of harm is seen."""

import http.client
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.integration.crash.cache_image import CacheImage, compute_checksums
from tests.integration.crash.calls import CallBook, LedgerImage
from tests.integration.crash.checks import check_committed, check_finished
from tests.integration.crash.findings import compare_rows
from tests.integration.crash.model import model_of
from tests.integration.crash.pipelines import build
from tests.integration.crash.stores import LocalPlace
from tests.llm_server import LLMServer

Files = dict[str, bytes]
PIPELINE = "two_leaves"


@pytest.fixture(scope="module", params=["two_leaves", "diamond", "routed", "emptying", "global_middle"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Files]:
    path = tmp_path_factory.mktemp("cache")
    build(request.param, str(path)).run()
    return request.param, LocalPlace(path).read_files()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    path = tmp_path_factory.mktemp("cache")
    build(PIPELINE, str(path)).run()
    return LocalPlace(path).read_files()


def look(files: Files, pipeline: str = PIPELINE) -> list[str]:
    model = model_of(pipeline)
    found = check_committed(CacheImage(files), model, "now")
    return [str(each) for each in found + check_finished(CacheImage(files), model, is_damaged=False)]


def test_what_an_undisturbed_run_leaves_passes(finished: tuple[str, Files]) -> None:
    pipeline, files = finished
    assert look(files, pipeline) == []


def find_all(files: Files, beginning: str, end: str) -> list[str]:
    """The paths that begin and end so; `<p>` stands for the pipeline's directory."""
    signature = next(path.split("/")[0] for path in files if path.endswith("/pipeline.yaml"))
    beginning = beginning.replace("<p>", signature)
    return sorted(path for path in files if path.startswith(beginning) and path.endswith(end))


def find(files: Files, beginning: str, end: str) -> str:
    """The first of them."""
    return find_all(files, beginning, end)[0]


def edit_footer(content: bytes, edit: Callable[[Any], None], *, rows: slice = slice(None)) -> bytes:
    """Write a part anew, with some of its rows and another footer, and right checksums."""
    with pq.ParquetFile(io.BytesIO(content)) as parquet:
        table, footer = parquet.read(), json.loads(parquet.metadata.metadata[b"distilabel_dagster"])
    edit(footer)
    footer["checksums"] = "0" * 16
    table = table.take(list(range(table.num_rows))[rows]).replace_schema_metadata(None)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, use_compliant_nested_type=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"distilabel_dagster": json.dumps(footer)})
    written, told = sink.getvalue(), "0" * 16
    for _ in range(2):  # the second checksum is over the first as well
        right = compute_checksums(written, told)
        written, told = written.replace(told.encode(), right.encode(), 1), right
    return written


def turn_rows_round(files: Files) -> None:
    path = find(files, "steps_data/b_", ".parquet")
    files[path] = edit_footer(files[path], lambda _: None, rows=slice(None, None, -1))


def change_source(files: Files) -> None:
    def edit(footer: Any) -> None:
        footer["batches"][1]["created_from"]["a"][0][0] += 1

    path = find(files, "steps_data/b_", ".parquet")
    files[path] = edit_footer(files[path], edit)


def change_revision(files: Files) -> None:
    def edit(footer: Any) -> None:
        footer["batches"][0]["revision"] += 1

    path = find(files, "steps_data/a_", ".parquet")
    files[path] = edit_footer(files[path], edit)


def drop_last_batch(files: Files) -> None:
    def edit(footer: Any) -> None:
        del footer["batches"][-1]

    path = find_all(files, "steps_data/load_", ".parquet")[-1]
    last = 200 % 7
    files[path] = edit_footer(files[path], edit, rows=slice(0, -last))


def flip_a_bit(files: Files) -> None:
    path = find(files, "steps_data/load_", ".parquet")
    content = bytearray(files[path])
    content[100] ^= 1
    files[path] = bytes(content)


def leave_a_temporary_file(files: Files) -> None:
    files[find(files, "steps_data/b_", ".parquet").replace("00001", ".00001") + ".1-1.tmp"] = b""


def forget_to_show(files: Files) -> None:
    for path in find_all(files, "<p>/data/c/", ".parquet"):
        del files[path]


def show_another_step(files: Files) -> None:
    files[find(files, "<p>/data/b/", ".parquet")] = files[find(files, "steps_data/c_", ".parquet")]


def lose_a_part(files: Files) -> None:
    del files[find_all(files, "steps_data/b_", ".parquet")[-1]]


def set_aside(files: Files) -> None:
    files[find(files, "steps_data/b_", ".parquet") + ".set-aside"] = b""


def lie_in_the_marker(files: Files) -> None:
    path = find(files, "steps_data/b_", "complete.json")
    files[path] = files[path].replace(b'"rows": 200', b'"rows": 201')


def lose_the_marker(files: Files) -> None:
    del files[find(files, "steps_data/b_", "complete.json")]


def lie_in_the_snapshot(files: Files) -> None:
    path = find(files, "<p>/batch_manager_steps/b", ".json")
    told = json.loads(files[path])
    files[path] = json.dumps({**told, "seq_no": told["seq_no"] + 1}).encode()


def tear_the_snapshot(files: Files) -> None:
    path = find(files, "<p>/batch_manager", ".json")
    files[path] = files[path][:-20]


HARMS = {
    turn_rows_round: "row 0 is",
    change_source: "isn't what the step makes of the rows that it names",
    change_revision: "in revision",
    drop_last_batch: "lost",
    flip_a_bit: "isn't what its checksums were made of",
    leave_a_temporary_file: "is left",
    forget_to_show: "has 0 parts of",
    show_another_step: "footer of another step",
    lose_a_part: "lost",
    set_aside: "though nothing was harmed",
    lie_in_the_marker: "the marker of step b says",
    lose_the_marker: "has no marker",
    lie_in_the_snapshot: "batch_manager_steps/b.json says",
    tear_the_snapshot: "is no JSON",
}


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_harm_is_seen(harm: Callable[[Files], None], files: Files) -> None:
    harmed = dict(files)
    harm(harmed)
    assert any(HARMS[harm] in told for told in look(harmed)), look(harmed)


def test_rows_that_are_lost_doubled_and_misplaced_are_told_apart() -> None:
    rows = [{"key": str(number), "value": number} for number in range(3)]
    assert compare_rows("x", rows, rows) == []
    assert [each.kind for each in compare_rows("x", rows[1:], rows)] == ["lost"]
    assert [each.kind for each in compare_rows("x", [*rows, rows[0]], rows)] == ["doubled"]
    assert [each.kind for each in compare_rows("x", rows[::-1], rows)] == ["wrong"]


def ask(server: LLMServer, text: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        body = json.dumps({"messages": [{"role": "user", "content": text}]})
        connection.request("POST", "/v1/chat/completions", body)
        connection.getresponse().read()
    finally:
        connection.close()


def test_calls_that_are_paid_twice_are_counted(tmp_path: Path) -> None:
    model = model_of("asking")
    first, second, third = [text for text, count in model.asked.items() if count == 1][:3]
    with LLMServer(tmp_path, answer="upper") as server:
        book = CallBook(server, model)
        ask(server, first)
        ask(server, second)
        kept = Counter(call.answer_id for call in server.calls())
        assert list(book.close_run(LedgerImage(kept, 2), "run 0", may_lose=0)) == []
        ask(server, first)
        ask(server, third)
        found = list(book.close_run(LedgerImage(kept, 2), "run 1", may_lose=0))
    assert [(each.kind, each.count) for each in found] == [("paid_twice", 1), ("paid_twice", 2)]
    assert "asked again what was kept" in found[0].what
    assert "2 answers weren't kept, 0 may be on the wire" in found[1].what
