"""A package's public names, imported when they're first used."""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def load_names_lazily(
    package: str, places: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Give `__getattr__` and `__dir__` of a package whose names stand in its modules.

    A pipeline uses a few of the classes that there are, and each takes a millisecond to be made.

    Args:
        package: `__name__` of the package.
        places: module, with a dot before the name of one in the package -> its public names. None is called like a
            module of the package, which would stand in its place.

    Examples:
        >>> __getattr__, __dir__ = load_names_lazily("distilabel_dagster.models", {".llm": ["LLM"]})
        >>> __getattr__("LLM").__name__
        'LLM'
    """
    module_of = {name: module for module, names in places.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module_of[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return get, list_names
