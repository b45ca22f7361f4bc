"""Packages that a pipeline says it needs."""

import importlib.metadata

from distilabel_dagster.errors import PipelineDefinitionError


def check_requirements(pipeline: str, requirements: list[str]) -> None:
    """Check that the packages are installed, in versions that fit.

    Raises:
        PipelineDefinitionError: what is missing or doesn't fit, and how to install it.
    """
    if not requirements:
        return
    from packaging.requirements import InvalidRequirement, Requirement  # few pipelines say what they need

    missing: list[tuple[str, str]] = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise PipelineDefinitionError(
                f"Pipeline `{pipeline}`: the requirement {text!r} can't be read: {error}."
            ) from error
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append((text, "not installed"))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append((text, f"found {version}"))
    if missing:
        told = ", ".join(f"`{text}` ({problem})" for text, problem in missing)
        names = " ".join(f"'{text}'" for text, _ in missing)
        raise PipelineDefinitionError(
            f"Pipeline `{pipeline}` needs {told}. Install with `pip install {names}`."
        )
