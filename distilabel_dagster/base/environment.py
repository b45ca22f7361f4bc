"""The environment variables that this package reads, all of them here."""

import os
from pathlib import Path

CACHE_DIR_VARIABLE = "DISTILABEL_CACHE_DIR"
DAGSTER_HOME_VARIABLE = "DAGSTER_HOME"
_OPENAI_VARIABLES = {"base_url": "OPENAI_BASE_URL", "api_key": "OPENAI_API_KEY", "model": "OPENAI_MODEL"}


def default_cache_dir() -> str:
    """Where pipelines are cached when `cache_dir=` isn't given: path or fsspec URL, `~` not yet expanded."""
    return os.environ.get(CACHE_DIR_VARIABLE) or str(Path("~") / ".cache" / "distilabel" / "pipelines")


def openai_setting(name: str) -> str | None:
    """Value of `OPENAI_BASE_URL`, `OPENAI_API_KEY` or `OPENAI_MODEL` for `name` base_url, api_key or model."""
    return os.environ.get(_OPENAI_VARIABLES[name]) or None


def dagster_home() -> str | None:
    """Where the user says that Dagster's instance is; None where nothing is said."""
    return os.environ.get(DAGSTER_HOME_VARIABLE) or None
