"""Packages that a pipeline says it needs."""

import importlib.metadata

from packaging.requirements import InvalidRequirement, Requirement

from distilabel_dagster.errors import PipelineDefinitionError


def check_requirements(pipeline: str, requirements: list[str]) -> None:
    """Check that the packages are installed, in versions that fit.

    Raises:
        PipelineDefinitionError: what is missing or doesn't fit, and how to install it.
    """
    missing = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise PipelineDefinitionError(
                f"Pipeline `{pipeline}`: the requirement {text!r} can't be read: {error}."
            ) from error
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{text} (not installed)")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{text} (found {version})")
    if missing:
        names = " ".join(f"'{text.partition(' (')[0]}'" for text in missing)
        raise PipelineDefinitionError(
            f"Pipeline `{pipeline}` needs {', '.join(missing)}. Install with `pip install {names}`."
        )
