import ast
import importlib
import itertools
import linecache
import logging
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distilabel_dagster.base import code_fingerprint
from distilabel_dagster.base.code_fingerprint import fingerprint_code, reads_name
from distilabel_dagster.dag.routing import sample_n_steps
from distilabel_dagster.steps import KeepColumns, StepInput, step

_numbers = itertools.count()

STEP = '''
import functools
import re

from distilabel_dagster.steps import Step, StepInput, step

PROMPT = "Say hello."
LIMITS = {"low": 1, "high": [2, 3]}
WORD = re.compile(r"[a-z]+")
UNREAD = 1


def helper(text):
    return text.upper() + inner(text)


def inner(text):
    return text


@functools.cache
def remembered(text):
    return text * 2


class Base(Step):
    level: int = 1
    input_batch_size: int = 10

    def prepare(self, text):
        return helper(text)


class Speak(Base):
    """Speaks."""

    @property
    def outputs(self):
        return ["said"]

    def process(self, inputs):
        # it says it all
        yield [{**row, "said": self.prepare(PROMPT) + remembered(str(LIMITS)) + WORD.pattern} for row in inputs]


@step(outputs=["said"])
def speak(inputs: StepInput, loud: bool = False):
    """Speak."""
    yield [{**row, "said": helper(PROMPT)} for row in inputs]
'''


def make_module(source: str) -> ModuleType:
    """A user's module that stands in no file."""
    module = ModuleType(f"users_module_{next(_numbers)}")
    module.__file__ = f"/users/{module.__name__}.py"
    sys.modules[module.__name__] = module
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(keepends=True), module.__file__)
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module


def fingerprint(name: str, *changes: tuple[str, str], source: str = STEP) -> str | None:
    for before, after in changes:
        assert before in source
        source = source.replace(before, after)
    return fingerprint_code(getattr(make_module(source), name))


@pytest.mark.parametrize(
    "change",
    [
        ('"""Speaks."""', '"""Says things."""'),
        ('    """Speaks."""\n\n', ""),
        ("# it says it all", "# nothing else"),
        ("        # it says it all\n", "\n\n\n"),
        ('["said"]', "['said',]"),
        ("return text.upper() + inner(text)", "return (text.upper()\n            + inner(text))"),
        ("UNREAD = 1", "UNREAD = 2"),
        ("input_batch_size: int = 10", "input_batch_size: int = 20"),
        ("class Base(Step):\n", "class Base(Step):\n    pass\n"),
    ],
)
def test_what_changes_nothing_of_the_meaning_changes_nothing(change: tuple[str, str]) -> None:
    assert fingerprint("Speak", change) == fingerprint("Speak")


@pytest.mark.parametrize(
    "change",
    [
        ('"said": self', '"told": self'),
        ("Say hello.", "Say goodbye."),
        ('"low": 1', '"low": 0'),
        ("[2, 3]", "[2, 3, 4]"),
        ("[a-z]+", "[A-Z]+"),
        ("text.upper()", "text.lower()"),
        ("    return text\n\n\n@", "    return text + text\n\n\n@"),
        ("text * 2", "text * 3"),
        ("level: int = 1", "level: int = 2"),
        ("return helper(text)", "return text"),
    ],
    ids=[
        "code",
        "constant",
        "dict",
        "list in dict",
        "pattern",
        "helper",
        "helper's helper",
        "cached helper",
        "field",
        "base class",
    ],
)
def test_what_may_change_the_rows_is_seen(change: tuple[str, str]) -> None:
    assert fingerprint("Speak", change) != fingerprint("Speak")


@pytest.mark.parametrize(
    "change",
    [
        ('@step(outputs=["said"])', '@step(outputs=["said"], step_type="global")'),
        ('@step(outputs=["said"])', '@step(outputs=["said", "more"])'),
        ("loud: bool = False", "loud: bool = True"),
        ("Say hello.", "Say goodbye."),
        ("text.upper()", "text.lower()"),
    ],
)
def test_a_step_made_of_a_function_is_followed_too(change: tuple[str, str]) -> None:
    assert fingerprint("speak", change) != fingerprint("speak")
    assert fingerprint("speak", ('"""Speak."""', '"""Say."""')) == fingerprint("speak")


CLOSURE = """
def make(count, later=None):
    def call(rows):
        return rows * count

    def recursive(n):
        return recursive(n - 1) if n else 0

    class Made:
        def process(self, rows):
            return call(rows) or recursive(1) or unfilled

    made = Made
    if later:
        unfilled = 1
    return made


two, three = make(2), make(3)
"""


def test_variables_of_enclosing_functions_are_seen() -> None:
    module = make_module(CLOSURE)
    assert fingerprint_code(module.two) != fingerprint_code(module.three)
    assert fingerprint_code(module.two) == fingerprint("two", source=CLOSURE)


DECORATED = """
def times(n):
    def decorate(function):
        return function
    return decorate

@times(2)
def call(rows):
    return rows
"""


def test_arguments_of_decorators_are_seen() -> None:
    assert fingerprint("call", ("@times(2)", "@times(3)"), source=DECORATED) != fingerprint(
        "call", source=DECORATED
    )


def test_a_routing_function_s_description_is_for_people() -> None:
    source = (
        "from distilabel_dagster.dag.routing import routing_batch_function\n"
        "@routing_batch_function(description='one')\ndef choose(steps):\n    return steps\nbare = choose.function\n"
    )
    assert fingerprint("bare", ("'one'", "'another'"), source=source) == fingerprint("bare", source=source)


def test_what_this_package_defines_has_no_fingerprint() -> None:
    assert fingerprint_code(KeepColumns) is None
    assert fingerprint_code(sample_n_steps) is None


def test_code_without_source_is_told_apart_and_equal_in_each_process() -> None:
    code = textwrap.dedent(
        """
        from distilabel_dagster.base.code_fingerprint import fingerprint_code
        from distilabel_dagster.steps import Step
        class Made(Step):
            def process(self, inputs):
                yield [{"n": VALUE, "set": 1 in {"a", "b"}}]
        print(fingerprint_code(Made))
        """
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code.replace("VALUE", value)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for value, seed in (("1", "1"), ("1", "2"), ("2", "1"))
    ]
    assert found[0] == found[1] != found[2]


def other_pythons() -> list[str]:
    found = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python")) or sorted(
        Path("/root/.pyenv/versions").glob("3.*/bin/python")
    )
    return [
        str(path)
        for path in found
        if path.parent.parent.name.startswith(("3.10", "3.11", "3.12", "3.13", "3.14"))
    ]


CANONICAL = """
import ast, importlib.util, sys
spec = importlib.util.spec_from_file_location("alone", sys.argv[1])
alone = importlib.util.module_from_spec(spec)
sys.modules["alone"] = alone
spec.loader.exec_module(alone)
print(alone._canonical(ast.parse(sys.stdin.read())))
"""

EVERYTHING = '''
import a.b as c
async def f(x: int, /, y=1, *z, k: str = "s", **q) -> None:
    """Doc."""
    global g
    a[1:2, ::3] = {**x, 1: ...}; b = [*y, 1.5, 2j, b"x", None, True]
    print(f"{x!r:>{y}} and {z[0]:.2f} {{}} {k}" "more")
    async with x as y, z: await x
    for i in range(3): continue
    else: pass
    while x and not y or z: break
    try: raise ValueError(1) from None
    except (A, B) as e: pass
    finally: del x
    return lambda u, v=2: (u if v else [i async for i in x if i])
class D(B, metaclass=M):
    x: int = 1
    y = z = -1 ** 2 // 3 @ 4
    def m(self):
        match x:
            case {"a": [1, *_], **r} if r: yield
            case P(a=1) | None as w: yield from w
        assert (n := 1) < 2 <= 3 is not 4 not in 5, "m"
'''


def test_the_written_tree_is_equal_on_every_python() -> None:
    found = {
        python: subprocess.run(
            [python, "-c", CANONICAL, code_fingerprint.__file__],
            input=EVERYTHING,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for python in [sys.executable, *other_pythons()]
    }
    assert len(set(found.values())) == 1, sorted(found)


def test_whether_a_function_reads_a_name() -> None:
    def reads(offset: int = 0) -> Any:
        return range(offset)

    def forgets(offset: int = 0) -> Any:
        """Read offset."""
        return range(3)

    assert (reads_name(reads, "offset"), reads_name(forgets, "offset")) == (True, False)
    assert reads_name(len, "offset")


def test_where_this_package_is_installed_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable install lies outside site-packages; what a step names of this package isn't the user's code."""
    parts = []
    for is_installed in (True, False):
        monkeypatch.setattr(
            code_fingerprint, "_INSTALLED", frozenset({"distilabel_dagster"} if is_installed else ())
        )
        code_fingerprint._is_users.cache_clear()
        parts.append(list(code_fingerprint._iter_parts(_NAMES_THIS_PACKAGE, set())))
    code_fingerprint._is_users.cache_clear()
    assert parts[0] == parts[1]
    assert len(parts[0]) == 1


@step(outputs=["n"])
def _NAMES_THIS_PACKAGE(inputs: StepInput) -> Any:  # noqa: N802  (found by this name)
    yield [{**row, "n": len(KeepColumns.__name__)} for row in inputs]


def test_libraries_are_not_followed_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, is_users in (("dist-packages", False), ("mine", True)):
        module = ModuleType(f"some_module_{place.replace('-', '_')}")
        module.__file__ = str(tmp_path / place / "some_module.py")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        assert code_fingerprint._is_users(module.__name__) is is_users


def test_a_container_that_fills_while_the_program_runs_changes_nothing() -> None:
    """Else a step that remembers something would have another signature after its first run."""
    before = list(code_fingerprint._iter_parts(_Remembers, set()))
    _seen.add(1)
    _answers["a"] = 1
    after = list(code_fingerprint._iter_parts(_Remembers, set()))
    _seen.clear()
    _answers.clear()
    assert before == after
    assert any(part.startswith("_answers:") for part in before)


_seen: set[int] = set()
_answers: dict[str, int] = {}


@step(outputs=["n"])
def _Remembers(inputs: StepInput) -> Any:  # noqa: N802  (found by this name)
    _seen.update(_answers.values())
    yield inputs


def test_imported_values_and_modules_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step uses of the user's other modules counts, whatever kind of value it is and however it's named."""
    monkeypatch.syspath_prepend(str(tmp_path))
    user = """
import imported_{0}.inner
from imported_{0} import WORD
from distilabel_dagster.steps import Step

class Uses(Step):
    def process(self, inputs):
        yield [{{**row, "n": WORD.sub("", row["t"]) + imported_{0}.inner.shout("a")}} for row in inputs]
"""
    found = []
    for number, (word, mark) in enumerate([("a", "!"), ("b", "!"), ("a", "?"), ("a", "!")]):
        package = tmp_path / f"imported_{number}"
        package.mkdir()
        (package / "__init__.py").write_text(f"import re\nWORD = re.compile({word!r})\n")
        (package / "inner.py").write_text(f"def shout(text):\n    return text + {mark!r}\n")
        (tmp_path / f"user_{number}.py").write_text(user.format(number))
        module = importlib.import_module(f"user_{number}")
        parts = code_fingerprint._iter_parts(module.Uses, set())
        found.append([part.replace(f"imported_{number}", "imported") for part in parts])
    assert found[0] == found[3]
    assert found[0] != found[1]
    assert found[0] != found[2]


def test_what_a_class_adds_to_one_that_step_made_counts() -> None:
    assert fingerprint_code(_First) != fingerprint_code(_Second)


def test_the_name_of_the_module_does_not_count() -> None:
    """It's another when the file is run as a script."""
    assert not any("__name__=" in part for part in code_fingerprint._iter_parts(_Logs, set()))


def test_only_fields_are_no_code() -> None:
    one = code_fingerprint._canonical(ast.parse("def f():\n    replicas: int = 2\n    return replicas"))
    two = code_fingerprint._canonical(ast.parse("def f():\n    replicas: int = 3\n    return replicas"))
    assert one != two


def test_deleting_or_setting_a_name_is_not_reading_it() -> None:
    assert not reads_name(_drops, "offset")
    assert not reads_name(_sets, "offset")


def _drops(offset: int) -> None:
    del offset


def _sets(offset: int) -> None:
    offset = 0  # noqa: F841  (what it is about)


class _First(_Remembers):  # type: ignore[misc, valid-type]  # what `@step` gives is a class
    def process(self, *inputs: StepInput) -> Any:
        yield list(inputs[0])


class _Second(_Remembers):  # type: ignore[misc, valid-type]  # what `@step` gives is a class
    def process(self, *inputs: StepInput) -> Any:
        yield []


@step(outputs=["n"])
def _Logs(inputs: StepInput) -> Any:  # noqa: N802  (found by this name)
    logging.getLogger(__name__).info("called")
    yield inputs
