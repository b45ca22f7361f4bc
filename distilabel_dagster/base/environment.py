"""The environment variables that this package reads, all of them here."""

import os
from pathlib import Path
from typing import Literal

CACHE_DIR_VARIABLE = "DISTILABEL_CACHE_DIR"
DAGSTER_HOME_VARIABLE = "DAGSTER_HOME"
LEDGER_URL_VARIABLE = "DISTILABEL_LEDGER_URL"
_OPENAI_VARIABLES = {"base_url": "OPENAI_BASE_URL", "api_key": "OPENAI_API_KEY", "model": "OPENAI_MODEL"}
_AZURE_VARIABLES = {
    "base_url": "AZURE_OPENAI_ENDPOINT",
    "api_key": "AZURE_OPENAI_API_KEY",
    "ad_token": "AZURE_OPENAI_AD_TOKEN",
    "deployment": "AZURE_OPENAI_DEPLOYMENT",
    # Under this name Azure's own examples, and distilabel, have it.
    "api_version": "OPENAI_API_VERSION",
}


def default_cache_dir() -> str:
    """Where pipelines are cached when `cache_dir=` isn't given: path or fsspec URL, `~` not yet expanded."""
    return os.environ.get(CACHE_DIR_VARIABLE) or str(Path("~") / ".cache" / "distilabel" / "pipelines")


def openai_setting(name: Literal["base_url", "api_key", "model"]) -> str | None:
    """Value of `OPENAI_BASE_URL`, `OPENAI_API_KEY` or `OPENAI_MODEL` for `name` base_url, api_key or model."""
    return os.environ.get(_OPENAI_VARIABLES[name]) or None


def azure_openai_setting(
    name: Literal["base_url", "api_key", "ad_token", "deployment", "api_version"],
) -> str | None:
    """Value of `AZURE_OPENAI_ENDPOINT`, `…_API_KEY`, `…_AD_TOKEN`, `…_DEPLOYMENT`, or `OPENAI_API_VERSION`."""
    return os.environ.get(_AZURE_VARIABLES[name]) or None


def default_ledger_url() -> str | None:
    """The ledger where `ledger_url=` or `--ledger-url` isn't given; None where nothing is said."""
    return os.environ.get(LEDGER_URL_VARIABLE) or None


def dagster_home() -> str | None:
    """Where the user says that Dagster's instance is; None where nothing is said."""
    return os.environ.get(DAGSTER_HOME_VARIABLE) or None
