"""Every path name of the cache, relative to its root; nothing else spells one.

The tree is described in ARCHITECTURE.md. All functions are pure.
"""

import re
from typing import Final

from distilabel_dagster.base.signature import is_signature

PIPELINE_FILE: Final = "pipeline.yaml"
LOG_FILE: Final = "pipeline.log"
BATCH_MANAGER_FILE: Final = "batch_manager.json"
BATCH_MANAGER_STEPS_DIR: Final = "batch_manager_steps"
DATA_DIR: Final = "data"
STEPS_DATA_DIR: Final = "steps_data"
COMPLETE_FILE: Final = "complete.json"
LEDGER_FILE: Final = "ledger.sqlite"
LEDGER_FILES: Final = (LEDGER_FILE, *(f"{LEDGER_FILE}{suffix}" for suffix in ("-wal", "-shm", "-journal")))
"""The ledger, and what SQLite keeps beside it."""
SET_ASIDE_SUFFIX: Final = ".set-aside"
DAMAGED_SUFFIX: Final = ".damaged"
"""Of a mark beside a part whose footer is whole and whose rows couldn't be read."""

_PART = re.compile(r"([0-9]{5,15})\.parquet")


def part_name(number: int) -> str:
    """File name of a step's part; parts are numbered from 1."""
    return f"{number:05d}.parquet"


def part_number(name: str) -> int | None:
    """The number in a part's file name, or None for any other file.

    A number has one name, or a stranger's `000001.parquet` would be a second part 1.
    """
    match = _PART.fullmatch(name)
    number = int(match.group(1)) if match else None
    return number if number is not None and name == part_name(number) else None


def step_dir(step: str, signature: str) -> str:
    """Directory of a step's outputs, shared by all pipelines in which the step has that signature."""
    return f"{STEPS_DATA_DIR}/{step}_{signature}"


def pipeline_file(signature: str) -> str:
    """The frozen pipeline."""
    return f"{signature}/{PIPELINE_FILE}"


def log_file(signature: str) -> str:
    """The log of all runs of the pipeline."""
    return f"{signature}/{LOG_FILE}"


def batch_manager_file(signature: str) -> str:
    """The snapshot of how far each step is."""
    return f"{signature}/{BATCH_MANAGER_FILE}"


def batch_manager_step_name(step: str) -> str:
    """A step's snapshot, relative to the pipeline's directory."""
    return f"{BATCH_MANAGER_STEPS_DIR}/{step}.json"


def batch_manager_step_file(signature: str, step: str) -> str:
    """A step's snapshot."""
    return f"{signature}/{batch_manager_step_name(step)}"


def data_dir(signature: str) -> str:
    """What `create_distiset` reads: a directory per leaf step."""
    return f"{signature}/{DATA_DIR}"


def leaf_dir(signature: str, step: str) -> str:
    """Parts of a leaf step, hard links or copies of those in its `step_dir`."""
    return f"{signature}/{DATA_DIR}/{step}"


def is_pipeline_dir(name: str) -> bool:
    """Tell whether an entry of the cache's root is a pipeline's directory."""
    return is_signature(name)
