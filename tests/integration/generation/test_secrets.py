"""No secret in any file that a run leaves, nor in what it shows: searched for byte by byte."""

import base64
import gzip
import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from distilabel_dagster.errors import CacheError
from tests.integration.generation.pipelines import build_one
from tests.integration.generation.secret_places import PREFIX, ROWS, build
from tests.llm_server import LLMServer

_ROOT = Path(__file__).parents[3]
PLACES = (
    "ARGUMENT",
    "ENVIRONMENT",
    "EXTRA_BODY",
    "NESTED",
    "HEADER",
    "OTHER_HEADER",
    "TASK_FIELD",
    "TASK_PARAMETER",
    "SECRET_TYPE",
    "STORAGE",
    "SOURCE",
    "RUN_CONFIG",
    "COMMAND_LINE",
)
_MODULE = "tests.integration.generation.secret_places"
_DEFINITIONS = f"""\
import os

from distilabel_dagster import build_definitions
from {_MODULE} import build

defs = build_definitions(build(os.environ["CACHE"], os.environ["URL"]))
"""


# --- the search -----------------------------------------------------------------------------------


def iter_contents(path: Path) -> Iterator[bytes]:
    """What a file holds: its bytes, and what they say in the formats that hide it."""
    content = path.read_bytes()
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    if content[:4] == b"PAR1":
        with pq.ParquetFile(path) as file:
            yield repr((file.metadata.metadata, file.schema_arrow)).encode()
            yield repr(file.read().to_pylist()).encode()
    if content[:15] == b"SQLite format 3":
        # A long value may be torn over several pages.
        with closing(sqlite3.connect(path)) as connection:
            yield "\n".join(connection.iterdump()).encode()


def find_secrets(root: Path, hidden: dict[str, str], shown: str = "") -> set[tuple[str, str]]:
    """Place of the secret, and where it was found."""
    forms = {
        (place, form)
        for place, value in hidden.items()
        for form in (
            value.encode(),
            base64.b64encode(value.encode()).rstrip(b"="),
            value.encode().hex().encode(),
        )
    }
    found = {(place, "what was shown") for place, form in forms if form in shown.encode()}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            for content in iter_contents(path):
                found |= {(place, str(path.relative_to(root))) for place, form in forms if form in content}
    return found


def test_search_finds_what_is_there(tmp_path: Path) -> None:
    hidden = {"X": "sk-0123456789abcdef"}
    (tmp_path / "plain.log").write_text("… sk-0123456789abcdef …")
    (tmp_path / "packed").write_bytes(gzip.compress(b"key: sk-0123456789abcdef"))
    table = pa.table({"a": [{"b": ["no", "the sk-0123456789abcdef"]}]})
    pq.write_table(table, tmp_path / "column.parquet", compression="zstd")
    noted = pa.table({"a": [1]}).replace_schema_metadata({"k": "sk-0123456789abcdef"})
    pq.write_table(noted, tmp_path / "footer.parquet")
    with closing(sqlite3.connect(tmp_path / "some.db")) as connection:
        connection.execute("CREATE TABLE t (a TEXT)")
        connection.execute("INSERT INTO t VALUES (?)", ("x" * 4070 + "sk-0123456789abcdef" + "x" * 9000,))
        connection.commit()
    (tmp_path / "basic").write_bytes(base64.b64encode(b"sk-0123456789abcdef"))
    (tmp_path / "clean").write_text("sk-0123456789abcde")
    found = find_secrets(tmp_path, hidden, "it's sk-0123456789abcdef")
    places = {"plain.log", "packed", "column.parquet", "footer.parquet", "some.db", "basic", "what was shown"}
    assert found == {("X", place) for place in places}


# --- the runs -------------------------------------------------------------------------------------


class Workplace:
    """A user's project: keys in the environment, a cache, an instance, and what runs have shown."""

    def __init__(self, path: Path, server: LLMServer) -> None:
        self.path = path
        self.server = server
        self.hidden = {place: f"sk-{place.lower()}-{secrets.token_hex(12)}" for place in PLACES}
        self.shown = ""
        self.cache = str(path / "cache")
        (path / "home").mkdir()
        (path / "definitions.py").write_text(_DEFINITIONS)
        settings = (_ROOT / "dagster.yaml").read_text()
        # Dagster's own capture of output is what one has who doesn't turn it off.
        capture = settings.index("compute_logs:"), settings.index("# A run whose process died")
        settings = settings[: capture[0]] + settings[capture[1] :]
        (path / "home" / "dagster.yaml").write_text(
            settings.replace("base_dir: .dagster", f"base_dir: {path}/home")
        )
        self.env = {
            **os.environ,
            **{PREFIX + place: value for place, value in self.hidden.items()},
            "OPENAI_API_KEY": self.hidden["ENVIRONMENT"],
            "DAGSTER_HOME": str(path / "home"),
            "PYTHONPATH": os.pathsep.join((str(_ROOT), str(path))),
            "CACHE": self.cache,
            "URL": server.url,
        }

    def run(self, *command: str) -> int:
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        self.shown += done.stdout
        return done.returncode

    def run_python(self) -> int:
        return self.run(sys.executable, "-m", _MODULE, self.cache, self.server.url)

    def run_command_line(self, *arguments: str) -> int:
        if not (self.path / "pipeline.yaml").exists():
            code = f"from {_MODULE} import build; build({self.cache!r}, {self.server.url!r}).save('pipeline.yaml')"
            assert self.run(sys.executable, "-c", code) == 0, self.shown
        program = str(Path(sys.executable).with_name("distilabel-dagster"))
        options = ("--config", "pipeline.yaml", "--trusted-module", _MODULE, "--cache-dir", self.cache)
        return self.run(program, "pipeline", "run", *options, *arguments)

    def run_job(self, *arguments: str) -> int:
        command = ("-m", "dagster", "job", "execute", "-m", "definitions", "-j", "secrets_job")
        return self.run(sys.executable, *command, *arguments)

    def find_secrets(self) -> set[tuple[str, str]]:
        return find_secrets(self.path, self.hidden, self.shown)


@pytest.fixture
def workplace(tmp_path: Path, server: LLMServer) -> Workplace:
    path = tmp_path / "workplace"
    path.mkdir()
    return Workplace(path, server)


def run_in(workplace: Workplace, way: str) -> int:
    return {
        "Pipeline.run": workplace.run_python,
        "command line": lambda: workplace.run_command_line(
            "--param", f"ask.llm.api_key={workplace.hidden['COMMAND_LINE']}"
        ),
        "dagster job execute": workplace.run_job,
    }[way]()


WAYS = ["Pipeline.run", "command line", "dagster job execute"]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_keys_even_where_the_endpoint_says_them(
    way: str, workplace: Workplace, server: LLMServer
) -> None:
    server.reset(
        answer="upper",
        echoes_key=True,
        marked={"text 3": "bad_request", "text 4": "truncated"},
        logged_headers=["x-api-key", "x-tenant"],
    )
    assert run_in(workplace, way) == 0, workplace.shown
    # What no request held would be found nowhere in any case.
    calls = [call for call in server.calls() if call.request["model"] == "tiny"]
    argument = "COMMAND_LINE" if way == "command line" else "ARGUMENT"
    assert {call.key for call in calls} == {workplace.hidden[argument]}
    assert {call.key for call in server.calls()} - {calls[0].key} == {workplace.hidden["ENVIRONMENT"]}
    if way != "command line":  # pipeline.yaml, which that reads, has none
        assert {call.request["provider_api_key"] for call in calls} == {workplace.hidden["EXTRA_BODY"]}
        assert {call.request["options"][0]["access_token"] for call in calls} == {workplace.hidden["NESTED"]}
        sent = {"x-api-key": workplace.hidden["HEADER"], "x-tenant": workplace.hidden["OTHER_HEADER"]}
        assert all(call.headers == sent for call in calls)
    assert sum(call.is_answered for call in server.calls()) == 2 * (ROWS - 2)
    assert list(Path(workplace.cache).rglob("*.parquet"))
    assert list(Path(workplace.cache).rglob("pipeline.yaml"))

    assert workplace.find_secrets() == set()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["unauthorized", "server_error"])
def test_nothing_is_left_of_keys_where_the_run_fails(
    way: str, kind: str, workplace: Workplace, server: LLMServer
) -> None:
    server.reset(broken_after=0, broken_kind=kind, echoes_key=True)
    run_in(workplace, way)
    assert server.count() > 0
    assert {call.failure for call in server.calls()} == {kind}
    if kind == "unauthorized":
        assert "401" in workplace.shown, workplace.shown

    assert workplace.find_secrets() == set()


@pytest.mark.parametrize("form", ["by name of the variable", "as it is"])
def test_nothing_is_left_of_a_key_in_run_config(form: str, workplace: Workplace, tmp_path: Path) -> None:
    """A secret has no field in run config; who puts one there is told, and it isn't kept."""
    value: Any = (
        {"env": f"{PREFIX}RUN_CONFIG"} if form.startswith("by name") else workplace.hidden["RUN_CONFIG"]
    )
    config = tmp_path / "run.yaml"  # outside of what is searched: it's the user's
    config.write_text(yaml.safe_dump({"ops": {"secrets": {"config": {"ask": {"llm": {"api_key": value}}}}}}))
    code = workplace.run_job("-c", str(config))
    assert code != 0
    assert "api_key" in workplace.shown
    assert workplace.server.count() == 0
    assert workplace.find_secrets() == set()


def test_nothing_is_left_of_a_key_in_the_ledgers_url(workplace: Workplace) -> None:
    password = workplace.hidden["STORAGE"]
    pipeline = build_one(
        workplace.cache,
        workplace.server.url,
        ledger_url=f"postgresql+psycopg://user:{password}@127.0.0.1:9/ledger?connect_timeout=2",
    )
    with pytest.raises(CacheError) as raised:
        pipeline.run()
    error: BaseException | None = raised.value
    while error is not None:
        assert password not in repr(error) + str(error)
        error = error.__cause__
    pipeline.save(workplace.path / "pipeline.yaml")
    assert workplace.find_secrets() == set()


def test_keys_enter_no_signature(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    signatures = set()
    for attempt in ("one", "two"):
        for place in PLACES:
            monkeypatch.setenv(PREFIX + place, f"{workplace.hidden[place]}-{attempt}")
        monkeypatch.setenv("OPENAI_API_KEY", f"key-{attempt}")
        signatures.add(build(workplace.cache, workplace.server.url).signature)
    assert len(signatures) == 1


def test_another_key_pays_nothing(workplace: Workplace, server: LLMServer) -> None:
    """A key says who pays, not what is answered."""
    server.reset(answer="upper")
    assert workplace.run_python() == 0, workplace.shown
    paid = server.count()
    for place in ("ARGUMENT", "EXTRA_BODY", "NESTED"):
        workplace.env[PREFIX + place] = f"sk-new-{secrets.token_hex(12)}"
    workplace.env["OPENAI_API_KEY"] = f"sk-new-{secrets.token_hex(12)}"
    steps = Path(workplace.cache) / "steps_data"
    steps.rename(steps.with_name("steps_data_before"))  # so that only the ledger knows the answers
    assert workplace.run_python() == 0, workplace.shown
    assert server.count() == paid
