"""What every test starts from: no network, none of the machine's settings, a home of its own."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

_FOREIGN_SETTINGS = ("AWS_", "DAGSTER_", "DISTILABEL_", "HF_", "OPENAI_", "XDG_")
_home = pytest.StashKey[tempfile.TemporaryDirectory[str]]()

# How fast an example runs is a benchmark's business, and a red test must be red again on the next run.
# To look further than the fixed examples: pytest --hypothesis-profile=explore
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("fixed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what is found now into tests/golden, then review the diff",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Settle the process before anything is imported: some libraries read the environment just once."""
    for name in [name for name in os.environ if name.startswith(_FOREIGN_SETTINGS)]:
        del os.environ[name]
    config.stash[_home] = tempfile.TemporaryDirectory(prefix="distilabel-dagster-tests-")
    os.environ.update(
        HOME=config.stash[_home].name,
        AWS_EC2_METADATA_DISABLED="true",
        DAGSTER_DISABLE_TELEMETRY="true",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_OFFLINE="1",
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_home].cleanup()


@pytest.fixture(autouse=True)
def isolated_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a cache directory of its own, not yet made, and no instance and no model from outside."""
    for name in [name for name in os.environ if name.startswith("OPENAI_") or name == "DAGSTER_HOME"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISTILABEL_CACHE_DIR", str(tmp_path / "distilabel_cache"))


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether a golden test is to write what it finds instead of comparing it."""
    return bool(request.config.getoption("--update-golden"))
