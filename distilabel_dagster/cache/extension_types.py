"""Which extension types a schema of Arrow's names, found out before Arrow makes them.

To make one, Arrow hands bytes of the file to the class that some library has registered under the name; there are
libraries that unpickle them. So names are read from the schema's own bytes first, and only known ones pass.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Final

from distilabel_dagster.cache.flatbuffers import MESSAGE_HEADER, FlatBufferError, read_message

_NAME_KEY: Final = b"ARROW:extension:name"
_SCHEMA_KEY: Final = b"ARROW:schema"
_HARMLESS: Final = frozenset(
    {
        *(b"arrow.bool8", b"arrow.fixed_shape_tensor", b"arrow.json", b"arrow.opaque", b"arrow.uuid"),
        *(b"datasets.features.features.Array%dDExtensionType" % rank for rank in (2, 3, 4, 5)),
        *(b"pandas.interval", b"pandas.period"),
    }
)
"""Types that are made of JSON, or of nothing but their name."""
_MOST_FIELDS: Final = 100_000
_DEEPEST: Final = 128


def check_key_values(pairs: list[tuple[bytes, bytes]]) -> None:
    """Refuse the schema in a Parquet file's metadata, if there's one, when it names an unknown extension type.

    Args:
        pairs: all keys and values of the file's metadata.

    Raises:
        ValueError: it does, or is no schema.
    """
    for key, value in pairs:
        if key == _SCHEMA_KEY:
            try:
                message = base64.b64decode(value, validate=True)
            except binascii.Error:
                raise ValueError("the schema in its footer is damaged") from None
            check_schema_message(message)


def check_schema_message(message: bytes) -> None:
    """Refuse a schema in Arrow's own form when it names an unknown extension type.

    Args:
        message: what `pa.Schema.serialize` gives, or the beginning of an Arrow stream.

    Raises:
        ValueError: it does, or is no schema; nothing of it was made.
    """
    if _NAME_KEY not in message:
        return
    try:
        names = list(_iter_names(message))
    except FlatBufferError:
        raise ValueError("its schema is damaged") from None
    odd = next((name for name in names if name not in _HARMLESS), None)
    if odd is not None:
        raise ValueError(
            f"a column has the extension type `{odd[:100].decode(errors='replace')}`, which isn't among those that are "
            "read: making one may run code of the library that has registered it"
        )


_FIELDS, _CHILDREN, _METADATA, _KEY, _VALUE = 1, 5, 6, 0, 1


def _iter_names(message: bytes) -> Iterator[bytes]:
    schema = read_message(message).table(MESSAGE_HEADER)
    level = [] if schema is None else schema.tables(_FIELDS)
    seen = 0
    for _ in range(_DEEPEST):
        for field in level:
            for pair in field.tables(_METADATA):
                if pair.text(_KEY) == _NAME_KEY:
                    yield pair.text(_VALUE)
        seen += len(level)
        if seen > _MOST_FIELDS:
            raise ValueError("its schema has too many fields")
        level = [child for field in level for child in field.tables(_CHILDREN)]
        if not level:
            return
    raise ValueError("its schema is nested too deeply")
