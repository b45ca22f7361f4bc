"""YAML as data: written and read by libyaml where PyYAML has it, and read within bounds, whoever wrote it.

What is read may come from a stranger. So values are made from the parser's events one by one: nothing recurses, values
behind an alias count each time that they're used, and there's no tag that names a class.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml

MOST_CHARACTERS: Final = 64 * 1024 * 1024
"""The longest text that is read, in characters or bytes; a pipeline with 60 steps that hold all the rows they may has that."""
MOST_VALUES: Final = 2_000_000
"""Keys, scalars, lists and mappings together; those behind an alias are counted each time."""
DEEPEST: Final = 100
"""Lists and mappings inside one another."""

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
_COLLECTIONS: Final = {"seq": yaml.SequenceStartEvent, "map": yaml.MappingStartEvent}
# Longer numbers take time that grows with the square of their length; Python's own limit is of this order.
_LONGEST_NUMBER: Final = 4_000
_UNREADABLE: Final = (ValueError, OverflowError, LookupError, AttributeError, TypeError)


class _MergeKey:
    """The key `<<`, which takes over the keys of another mapping."""


def dump_yaml(data: Any) -> str:
    """Write plain data, keys in their order."""
    text: str = yaml.dump(data, Dumper=_Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True)
    return text


def load_yaml(text: str | bytes) -> Any:
    """Read plain data: lists, mappings, text, numbers, booleans, None, dates and times; nothing is more than that.

    Memory and time grow with the length of the text alone: it has at most `MOST_VALUES` values, aliases followed,
    `DEEPEST` levels and `MOST_CHARACTERS` characters. A key stands once in a mapping.

    Raises:
        yaml.YAMLError: it's no such YAML; the message says where and why, and holds nothing of the values.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has more than {MOST_CHARACTERS:,} characters")
    loader = None
    try:
        loader = _Loader(text)
        return _read_document(loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise yaml.YAMLError(f"{error.problem or error.context}{where}") from None
    except yaml.reader.ReaderError as error:
        raise yaml.YAMLError(f"{error.reason} at {error.position}") from None
    except UnicodeError:
        raise yaml.YAMLError("it holds characters that aren't Unicode's") from None
    finally:
        if loader is not None:
            loader.dispose()


def _iter_events(loader: Any) -> Iterator[yaml.Event]:
    while loader.check_event():
        yield loader.get_event()


def _read_document(loader: Any) -> Any:
    content: Any = None
    documents = 0
    builder = _Builder(loader)
    for event in _iter_events(loader):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _complain(event, "a second document begins, expected one")
        elif isinstance(event, yaml.DocumentEndEvent):
            content = builder.content
        elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            builder.take(event)
    return content


def _complain(event: Any, problem: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {event.start_mark.line + 1}: {problem}")


class _Level:
    """A list or mapping that is being filled."""

    __slots__ = ("anchor", "before", "is_mapping", "key", "merged", "value", "waits_for_key")

    def __init__(self, value: Any, anchor: str | None, before: int) -> None:
        self.value = value
        self.is_mapping = isinstance(value, dict)
        self.anchor = anchor
        self.before = before
        self.key: Any = None
        self.waits_for_key = True
        self.merged: list[dict[Any, Any]] = []


class _Builder:
    """Makes values of events; `content` is the document's."""

    def __init__(self, loader: Any) -> None:
        self._resolve: Callable[..., str] = loader.resolve
        self._loader = loader
        self._levels: list[_Level] = []
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._count = 0
        self.content: Any = None

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._start(event, event.anchor)
            value = self._scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = value, 1
            self._put(event, value)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close(event)
        else:
            self._put(event, self._follow(event))

    def _start(self, event: Any, anchor: str | None, count: int = 1) -> None:
        self._count += count
        if self._count > MOST_VALUES:
            raise _complain(event, f"it has more than {MOST_VALUES:,} values, those behind aliases included")
        if anchor is not None:
            self._anchors[anchor] = None

    def _open(self, event: Any) -> None:
        self._start(event, event.anchor)
        if len(self._levels) >= DEEPEST:
            raise _complain(event, f"it's nested too deeply, in more than {DEEPEST} levels")
        if event.tag is not None and not isinstance(event, _COLLECTIONS.get(_short(event.tag), ())):
            raise _complain(event, "it has a tag that stands for no plain data")
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._levels.append(_Level(value, event.anchor, self._count))

    def _close(self, event: Any) -> None:
        level = self._levels.pop()
        for merged in level.merged:
            for key, value in merged.items():
                level.value.setdefault(key, value)
        if level.anchor is not None:
            self._anchors[level.anchor] = level.value, self._count - level.before + 1
        self._put(event, level.value)

    def _follow(self, event: Any) -> Any:
        """Give what an alias stands for, and count it once more."""
        known = self._anchors.get(event.anchor)
        if known is None:
            raise _complain(event, "an alias stands for what isn't there, or for what it's in")
        value, count = known
        self._start(event, None, count)
        return value

    def _put(self, event: Any, value: Any) -> None:
        if not self._levels:
            self.content = value
            return
        level = self._levels[-1]
        if not level.is_mapping:
            level.value.append(value)
        elif level.waits_for_key:
            self._put_key(event, level, value)
        else:
            level.waits_for_key = True
            if level.key is _MergeKey:
                level.merged += _read_merged(event, value)
            else:
                level.value[level.key] = value

    def _put_key(self, event: Any, level: _Level, key: Any) -> None:
        if isinstance(key, list | dict):
            raise _complain(event, "a list or a mapping can't be a key")
        if key is _MergeKey and level.merged:
            raise _complain(event, "the key `<<` stands in one mapping twice")
        if key is not _MergeKey and key in level.value:
            raise _complain(event, "a key stands in one mapping twice")
        level.key, level.waits_for_key = key, False

    def _scalar(self, event: Any) -> Any:
        if event.tag is None:
            if not event.implicit[0]:
                return event.value
            tag = self._resolve(yaml.ScalarNode, event.value, event.implicit)
            if tag == _MERGE and self._expects_key():
                return _MergeKey
        else:
            tag = f"{_TAG}{_short(event.tag)}"
        kind = tag.removeprefix(_TAG)
        if kind in ("str", "value", "merge"):
            return event.value
        if kind not in _SCALARS:
            raise _complain(event, "it has a tag that stands for no plain data")
        if len(event.value) > _LONGEST_NUMBER:
            raise _complain(event, f"a number has more than {_LONGEST_NUMBER:,} digits")
        try:
            return _SCALARS[kind](self._loader, yaml.ScalarNode(tag, event.value))
        except _UNREADABLE:
            raise _complain(event, f"what stands there is no {_NAMES.get(kind, kind)}") from None

    def _expects_key(self) -> bool:
        return bool(self._levels) and self._levels[-1].is_mapping and self._levels[-1].waits_for_key


def _short(tag: str) -> str:
    """The name in a tag of YAML's own, `!!int` as `int`; an empty one stands for text, list or mapping as they come."""
    return tag.removeprefix(_TAG) if tag != "!" else "str"


def _read_merged(event: Any, value: Any) -> list[dict[Any, Any]]:
    merged = value if isinstance(value, list) else [value]
    if not all(isinstance(each, dict) for each in merged):
        raise _complain(event, "the key `<<` takes a mapping, or a list of mappings")
    return merged


_Constructor: Final = yaml.constructor.SafeConstructor
_SCALARS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "null": _Constructor.construct_yaml_null,
    "bool": _Constructor.construct_yaml_bool,
    "int": _Constructor.construct_yaml_int,
    "float": _Constructor.construct_yaml_float,
    "timestamp": _Constructor.construct_yaml_timestamp,
}
_NAMES: Final = {
    "null": "null",
    "bool": "boolean",
    "int": "whole number",
    "float": "number",
    "timestamp": "date",
}
