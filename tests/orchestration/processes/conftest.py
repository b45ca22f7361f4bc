"""Projects whose processes don't outlive their test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.orchestration.project import Project


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    made: list[Project] = []

    def make(pipeline: str, options: str = "") -> Project:
        made.append(Project.create(tmp_path / "project", pipeline, options))
        return made[-1]

    yield make
    for project in made:
        project.kill_all()
