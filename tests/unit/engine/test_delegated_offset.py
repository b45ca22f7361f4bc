"""A generator that only hands its offset on is started as the `process` that it hands it to is."""

from typing import Any

import pytest

from distilabel_dagster.engine.row_source import RowSource, honours_offset
from distilabel_dagster.steps import GeneratorStep, step

ROWS = [{"n": n} for n in range(4)]


class Forgets(GeneratorStep):
    def process(self, offset: int = 0) -> Any:
        for row in ROWS:
            yield [row], row is ROWS[-1]


class Honours(GeneratorStep):
    def process(self, offset: int = 0) -> Any:
        for row in ROWS[offset:]:
            yield [row], row is ROWS[-1]


class Between:
    """Has no `process`."""


class Positional:
    def process(self, offset: int = 0) -> Any:
        yield from super().process(offset)


class Keyword:
    def process(self, offset: int = 0) -> Any:
        yield from super().process(offset=offset)


class Starred:
    def process(self, *args: Any, **kwargs: Any) -> Any:
        return super().process(*args, **kwargs)


class Renamed:
    def process(self, start: int = 0) -> Any:
        return super().process(start)


class Skips:
    """Skips rows itself."""

    def process(self, offset: int = 0) -> Any:
        for at, (rows, last) in enumerate(super().process(0)):
            if at >= offset:
                yield rows, last


@step(outputs=["n"], step_type="generator")
def forgets(offset: int = 0) -> Any:
    for row in ROWS:
        yield [row], row is ROWS[-1]


@step(outputs=["n"], step_type="generator")
def honours(offset: int = 0) -> Any:
    for row in ROWS[offset:]:
        yield [row], row is ROWS[-1]


def make(*bases: type) -> Any:
    return type("Made", bases, {"__module__": __name__})(name="made")


def resume(source: Any, offset: int) -> list[Any]:
    rows = RowSource(source, offset)
    found = []
    while (pulled := rows.pull()) is not None:
        found += pulled[0].table.to_pylist()
        if pulled[1]:
            break
    return found


@pytest.mark.parametrize("mixin", [Positional, Keyword, Starred])
@pytest.mark.parametrize(
    ("base", "expected"), [(Forgets, False), (Honours, True), (forgets, False), (honours, True)]
)
def test_the_base_decides(mixin: type, base: Any, expected: bool) -> None:
    made = make(mixin, Between, base)
    assert honours_offset(made) is expected
    assert resume(made, 2) == ROWS[2:]


def test_it_may_be_handed_on_several_times() -> None:
    assert not honours_offset(make(Positional, Keyword, Renamed, Forgets))
    assert honours_offset(make(Positional, Keyword, Honours))
    assert resume(make(Positional, Keyword, Forgets), 3) == ROWS[3:]


def test_one_that_reads_it_itself_decides() -> None:
    made = make(Skips, Forgets)
    assert honours_offset(made)
    assert resume(made, 1) == ROWS[1:]
    assert honours_offset(make(Positional, Skips, Forgets))


def test_a_step_made_of_a_function_may_be_covered() -> None:
    class Covers(honours):
        def process(self, offset: int = 0) -> Any:
            yield ROWS, True

    assert not honours_offset(Covers(name="covers"))
