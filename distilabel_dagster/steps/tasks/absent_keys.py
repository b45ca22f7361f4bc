"""Keys that are None in nested values of a row, as a table leaves them: it gives each struct the keys of all."""

from collections.abc import Mapping
from typing import Any


def drop_absent(value: Any) -> Any:
    """Leave out keys that are None, at any depth; arrays become lists.

    Examples:
        >>> drop_absent({"role": "user", "content": [{"type": "text", "text": "hey", "image_url": None}], "name": None})
        {'role': 'user', 'content': [{'type': 'text', 'text': 'hey'}]}
    """
    if isinstance(value, Mapping):
        return {key: drop_absent(item) for key, item in value.items() if item is not None}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [drop_absent(item) for item in value]
    return value
