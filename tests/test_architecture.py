"""The rules that hold for every file: layers, sizes, names, what an import costs, what a file may contain."""

import ast
import importlib
import inspect
import json
import pickle
import re
import subprocess
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from distilabel_dagster import errors

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "distilabel_dagster"
PUBLIC_NAMES = ROOT / "tests" / "golden" / "public_names.json"
HEAVY_MODULES = {
    "dagster",
    "datasets",
    "datasketch",
    "distilabel",
    "huggingface_hub",
    "openai",
    "pandas",
    "polars",
    "ray",
    "s3fs",
    "torch",
}
NAMES_THAT_SAY_NOTHING = {"common", "core", "helper", "helpers", "misc", "util", "utils"}
NOT_OURS = {".dagster", ".git", ".venv", "__pycache__", "build", "dist"}


def iter_project_files() -> Iterator[Path]:
    """Every file that belongs to the project: what git knows or would add, or all of it outside of git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        paths: Iterable[Path] = (ROOT / name for name in listed.stdout.split("\0") if name)
    else:
        paths = (path for path in ROOT.rglob("*") if not NOT_OURS.intersection(path.relative_to(ROOT).parts))
    yield from sorted(path for path in paths if path.is_file())


def python_files(*parts: str) -> list[Path]:
    within = {*parts}
    return [
        path
        for path in iter_project_files()
        if path.suffix == ".py" and (not within or path.relative_to(ROOT).parts[0] in within)
    ]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_import_contracts_hold() -> None:
    """In a process of its own, since the linter turns the loggers of the one that it runs in off."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout, done.stdout


def test_files_are_short() -> None:
    lines = {
        relative(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files("distilabel_dagster", "examples", "benchmarks")
    }
    assert {name: count for name, count in lines.items() if count > 400} == {}
    assert len((ROOT / "definitions.py").read_text(encoding="utf-8").splitlines()) <= 40


def test_module_names_say_what_is_inside() -> None:
    named = {relative(path): {*path.relative_to(ROOT).with_suffix("").parts} for path in python_files()}
    assert [name for name, parts in named.items() if parts & NAMES_THAT_SAY_NOTHING] == []


def test_annotations_are_never_postponed() -> None:
    postponed = [
        relative(path)
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    assert postponed == []


def test_every_exception_to_a_check_has_its_reason() -> None:
    marker = re.compile(
        r"#\s*(type: ignore|noqa)(?P<codes>\[[\w, -]+\]|: ?[A-Z]+\d+(?:, ?[A-Z]+\d+)*)?(?P<rest>.*)"
    )
    silent = [
        f"{relative(path)}:{number}"
        for path in python_files("distilabel_dagster", "examples", "definitions.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (found := marker.search(line)) and (not found["codes"] or len(found["rest"].strip(" #-:()")) < 10)
    ]
    assert silent == []


def reads_environment(node: ast.AST) -> bool:
    names = {"environ", "environb", "getenv", "getenvb", "putenv"}
    if isinstance(node, ast.Attribute):
        return node.attr in names and isinstance(node.value, ast.Name) and node.value.id == "os"
    return (
        isinstance(node, ast.ImportFrom) and node.module == "os" and any(a.name in names for a in node.names)
    )


def test_environment_is_read_in_one_module() -> None:
    readers = {
        relative(path)
        for path in python_files("distilabel_dagster")
        if any(reads_environment(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert readers == {"distilabel_dagster/base/environment.py"}


# --- public names ---------------------------------------------------------------------------------


def declares_all(path: Path) -> bool:
    return any(
        isinstance(target, ast.Name) and target.id == "__all__"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    )


def import_declaring_modules() -> dict[str, types.ModuleType]:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in python_files("distilabel_dagster")
        if declares_all(path)
    ]
    return {name: importlib.import_module(name) for name in sorted(names)}


def test_public_names_are_pinned(update_golden: bool) -> None:
    found = {name: list(module.__all__) for name, module in import_declaring_modules().items()}
    if update_golden:
        PUBLIC_NAMES.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    pinned = json.loads(PUBLIC_NAMES.read_text(encoding="utf-8"))
    assert found == pinned, (
        "a public name came or went; if that is meant: pytest --update-golden, and CHANGELOG.md"
    )
    assert "distilabel_dagster" in found


def test_public_names_exist_once() -> None:
    for name, module in import_declaring_modules().items():
        assert [public for public in module.__all__ if not hasattr(module, public)] == [], name
        assert len(set(module.__all__)) == len(module.__all__), name


def test_public_names_are_sorted() -> None:
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--no-cache",
            "--select",
            "RUF022",
            str(PACKAGE),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


# --- what an import costs -------------------------------------------------------------------------

IMPORT_PROBE = """
import json, sys, time
before = time.process_time()
import distilabel_dagster
print(json.dumps({"cpu_s": time.process_time() - before, "modules": sorted(sys.modules)}))
"""


def probe_import() -> dict[str, Any]:
    probed = subprocess.run(
        [sys.executable, "-c", IMPORT_PROBE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return dict(json.loads(probed.stdout))


def test_importing_the_package_is_cheap() -> None:
    probes = [probe_import() for _ in range(3)]
    assert HEAVY_MODULES.intersection(probes[0]["modules"]) == set()
    assert min(probe["cpu_s"] for probe in probes) < 0.5


# --- errors ---------------------------------------------------------------------------------------

ERROR_CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__
]


def example_value(annotation: Any) -> Any:
    """A value of the annotated type, enough to build an error with."""
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, types.UnionType):
        return example_value(arguments[0])
    if origin in (dict, Mapping):
        return {example_value(arguments[0]): example_value(arguments[1])}
    if origin in (list, tuple, set, frozenset, Iterable, Sequence):
        return (tuple if origin in (Iterable, Sequence) else origin)([example_value(arguments[0])])
    simple = {str: "name", int: 3, float: 0.5, bool: True, Path: Path("a/b"), type(None): None, Any: "value"}
    if isinstance(origin, type) and issubclass(origin, BaseException):
        return ValueError("cause")
    return simple[origin]


def build_error(error_class: type[Exception]) -> Exception:
    parameters = inspect.signature(error_class).parameters.values()
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    values = {p.name: example_value(p.annotation) for p in parameters if p.kind not in variable}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        values["path"] = "a/b"
    return error_class(**values)


@pytest.mark.parametrize("error_class", ERROR_CLASSES, ids=lambda error_class: error_class.__name__)
def test_error_survives_pickling(error_class: type[Exception]) -> None:
    error = build_error(error_class)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_class
    assert str(copy) == str(error) != ""
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("error_class", ERROR_CLASSES, ids=lambda error_class: error_class.__name__)
def test_error_is_drawn_in_the_tree_and_doubles_as_a_builtin(error_class: type[Exception]) -> None:
    assert re.search(rf"\b{error_class.__name__}\b", errors.__doc__ or "")
    assert issubclass(error_class, ERROR_CLASSES[0])
    if error_class is not ERROR_CLASSES[0]:
        builtins = {base for base in error_class.__mro__ if base.__module__ == "builtins"}
        assert builtins - {Exception, BaseException, object}


# --- what a file may contain ----------------------------------------------------------------------


def test_no_file_names_a_package_registry() -> None:
    names = (
        "pypi org",
        "pypi python org",
        "pythonhosted org",
        "npmjs org",
        "npmjs com",
        "anaconda org",
        "crates io",
    )
    registries = [name.replace(" ", ".").encode() for name in names]
    naming = [
        f"{relative(path)}: {registry.decode()}"
        for path in iter_project_files()
        if b"\0" not in (content := path.read_bytes())
        for registry in registries
        if registry in content
    ]
    assert naming == []


def test_constraints_pin_every_requirement_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert [
        str(pin) for pin in pins if pin.url or pin.extras or not re.fullmatch(r"==[\w.]+", str(pin.specifier))
    ] == []

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    wanted += [Requirement(text) for extra in project["optional-dependencies"].values() for text in extra]
    pinned = {canonicalize_name(pin.name) for pin in pins}
    assert {canonicalize_name(need.name) for need in wanted} - pinned == {project["name"]}
    for need in wanted:
        versions = [p.specifier for p in pins if canonicalize_name(p.name) == canonicalize_name(need.name)]
        assert all(need.specifier.contains(str(version).removeprefix("==")) for version in versions), str(
            need
        )
