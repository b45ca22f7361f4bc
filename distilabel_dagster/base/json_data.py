"""JSON as data, read within bounds, whoever wrote it."""

import json
import re
from typing import Any, Final

from distilabel_dagster.base.yaml_data import DEEPEST

MOST_BYTES: Final = 64 * 1024 * 1024
"""The longest text that is read where nothing else is said."""
_MOST_BRACKETS: Final = 4_000_000
# Each list or mapping takes some 64 bytes of memory at least, for two in the text.
_LONE_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def load_json(text: str | bytes, *, most_bytes: int = MOST_BYTES, allows_surrogates: bool = False) -> Any:
    """Read JSON: a key stands once in an object, numbers are finite, text is Unicode's, and nesting ends at `DEEPEST`.

    Memory is bounded by the length of the text: about 20 times that where it's made of small lists alone.

    Args:
        text: what stands in the file.
        most_bytes: the longest that is read, in characters or bytes.
        allows_surrogates: take halves of characters, which Python's text may have and Unicode's hasn't.

    Raises:
        ValueError: it's no such JSON; the message says why, and holds nothing of the values.
    """
    if len(text) > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes")
    try:
        if isinstance(text, bytes | bytearray):
            text = text.decode("utf-8-sig")
        if text.count("[") + text.count("{") > _MOST_BRACKETS:
            raise ValueError(f"it has more than {_MOST_BRACKETS:,} lists and objects")
        data = json.loads(text, object_pairs_hook=_read_object, parse_constant=_refuse_constant)
        _check_depth(data)
        if not allows_surrogates and _LONE_SURROGATE.search(text):
            json.dumps(data, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} (line {error.lineno}, column {error.colno})") from None
    except UnicodeError:
        raise ValueError("it holds characters that aren't Unicode's") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    return data


_TOO_DEEP: Final = f"it's nested too deeply, in more than {DEEPEST} levels"


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in one object twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON's")


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(DEEPEST):
        level = [
            item
            for value in level
            if isinstance(value, list | dict)
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, list | dict)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
