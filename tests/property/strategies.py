"""Random shapes of pipelines and random disturbances."""

from hypothesis import strategies as st

from tests.property.scenarios import Shape

KINDS = st.sampled_from(["mark", "filter", "expand"])
SOURCES = st.sampled_from(["uneven", "even", "forgetful"])


@st.composite
def linear(draw: st.DrawFn) -> Shape:
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    steps = [(name, draw(KINDS), (before,)) for name, before in zip(names, ["load", *names], strict=False)]
    return Shape(draw(SOURCES), draw(st.integers(0, 23)), tuple(steps))


@st.composite
def two_leaves(draw: st.DrawFn) -> Shape:
    steps = (
        ("a", draw(KINDS), ("load",)),
        ("b", draw(KINDS), ("a",)),
        ("c", draw(KINDS), ("a",)),
        ("d", draw(KINDS), ("c",)),
    )
    return Shape(draw(SOURCES), draw(st.integers(0, 23)), steps)


@st.composite
def diamond(draw: st.DrawFn) -> Shape:
    same = draw(KINDS)
    steps = (
        ("a", draw(KINDS), ("load",)),
        ("b", same, ("a",)),
        ("c", same, ("a",)),
        ("j", "together", ("b", "c")),
        ("d", draw(KINDS), ("j",)),
    )
    return Shape(draw(SOURCES), draw(st.integers(0, 23)), steps)


@st.composite
def with_global(draw: st.DrawFn) -> Shape:
    steps = (
        ("a", draw(KINDS), ("load",)),
        ("g", "global", ("a",)),
        ("b", draw(KINDS), ("g",)),
        ("c", draw(KINDS), ("a",)),
    )
    return Shape(draw(SOURCES), draw(st.integers(0, 23)), steps)


@st.composite
def routed(draw: st.DrawFn) -> Shape:
    same = draw(KINDS)
    branches = ("a", "b", "c")[: draw(st.integers(2, 3))]
    router = draw(st.sampled_from(["load", "s"]))
    steps = [("s", draw(KINDS), ("load",))] if router == "s" else []
    steps += [(name, same, (router,)) for name in branches]
    if draw(st.booleans()):
        steps += [("j", "together", branches), ("d", draw(KINDS), ("j",))]
        if draw(st.booleans()):
            steps.append(("e", draw(KINDS), ("a",)))
    return Shape(
        "even",
        draw(st.integers(0, 23)),
        tuple(steps),
        routed=branches,
        route_size=draw(st.sampled_from([1, 4, 6])),
    )


SHAPES = st.one_of(linear(), two_leaves(), diamond(), with_global(), routed())


@st.composite
def shapes_and_sizes(draw: st.DrawFn, runs: int) -> tuple[Shape, list[dict[str, int]]]:
    """A shape, and batch sizes of its steps for each run."""
    shape = draw(SHAPES)
    names = ["load", *(name for name, _, _ in shape.steps)]
    sizes = [{name: draw(st.integers(1, 7)) for name in names} for _ in range(runs)]
    return shape, sizes
