"""What a stranger may make of a file: values exchanged in its structure, and bytes in its text."""

import copy
from typing import Any

from hypothesis import strategies as st

POISON = "poisoned_by_a_stranger"
"""A module that's there to be imported, and mustn't be."""

NAMES = [
    *(
        "..",
        "../x",
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "\\\\host\\share",
        "%2e%2e%2fx",
        "a/b",
        "./a",
        "",
    ),
    *(
        "a\0b",
        "a\nb",
        "\u202ex",
        "a\u200bb",
        "ａ",
        "e\u0301",
        "CON",
        "nul",
        "x::y",
        "simplecache::http://127.0.0.1:9/x",
    ),
    *("file:///etc/passwd", "a" * 5000, "distiset", "self", "pipeline", "type_info", "__class__", "name"),
]
MODULES = [
    *(
        POISON,
        f"{POISON}.inner",
        "os",
        "subprocess",
        "builtins",
        "importlib",
        "antigravity",
        "turtledemo",
        "sys",
    ),
    *(
        "distilabel_dagster",
        "distilabel_dagster.engine.replicas",
        "distilabel_dagster.cli.main",
        "distilabel_dagster.",
    ),
    *(
        "distilabel_dagster.steps",
        "distilabel_dagster.models",
        "distilabel_dagster.steps.step",
        ".",
        "",
        "..os",
    ),
    "distilabel_dagster.steps./tmp/x",
]
CLASSES = [
    *(
        "Popen",
        "system",
        "eval",
        "pickle.loads",
        "Step",
        "KeepColumns",
        "OfflineExtractiveLLM",
        "Evil",
        "StepResources",
    ),
    *(
        "KeepColumns.__init__",
        "KeepColumns.__class__",
        "__loader__.load_module",
        "Path.home",
        "sample_n_steps",
    ),
]

type_infos = st.fixed_dictionaries(
    {"module": st.sampled_from(MODULES), "name": st.sampled_from(CLASSES)},
    optional={
        "kwargs": st.dictionaries(st.sampled_from(["n", "command", "args"]), st.sampled_from([0, 1, "true"]))
    },
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**40, 1e308, -0.0, 10**12])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(NAMES)
)
templates = st.sampled_from(
    ["{{ 9**9**9 }}", "{{ 'a' * 10**11 }}", "{{ ''.__class__ }}", "{% for i in x %}" * 30, "{{ (" * 300]
)


def _nest(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": [value]}
    return value


values = st.recursive(
    scalars
    | templates
    | type_infos.map(lambda info: {"type_info": info})
    | st.sampled_from([20, 45, 60]).map(_nest),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(data, dict):
        for key, value in data.items():
            found += _places(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            found += _places(value, (*path, index))
    return found


@st.composite
def changed(draw: st.DrawFn, original: Any) -> Any:
    """Plain data with one to three places of it changed: another value, gone, doubled, or called otherwise."""
    data = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(data)[1:]
        if not places:
            break
        *above, last = draw(st.sampled_from(places))
        owner = data
        for each in above:
            owner = owner[each]
        kind = draw(st.sampled_from(["value", "value", "value", "type_info", "gone", "doubled", "key"]))
        if kind == "gone":
            del owner[last]
        elif kind == "doubled" and isinstance(owner, list):
            owner.insert(last, copy.deepcopy(owner[last]))
        elif kind == "key" and isinstance(owner, dict):
            owner[draw(st.sampled_from(NAMES) | st.integers(0, 3))] = owner.pop(last)
        elif kind == "type_info":
            owner[last] = draw(type_infos)
        else:
            owner[last] = draw(values)
    return data


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """Bytes with one to four changes: exchanged, cut out, put in, doubled, or cut off."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        length = draw(st.integers(1, 16))
        kind = draw(st.sampled_from(["exchange", "exchange", "cut", "insert", "double", "end"]))
        if kind == "exchange":
            content[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "insert":
            content[at:at] = draw(
                st.binary(max_size=8) | st.sampled_from([b"\xff" * 8, b"[" * 200, b"&a ", b"*a ", b"!!int "])
            )
        elif kind == "double":
            content[at:at] = content[at : at + 64 * length]
        else:
            del content[at:]
    return bytes(content)
