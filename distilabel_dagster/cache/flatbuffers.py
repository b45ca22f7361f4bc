"""Tables of FlatBuffers, in which Arrow says what's in a message; read without trusting an offset."""

import struct
from typing import Final

MESSAGE_KIND, MESSAGE_HEADER, MESSAGE_BODY_LENGTH = 1, 2, 3
"""Slots of Arrow's message: what its header is, the header, and bytes of the body behind it."""
_CONTINUES: Final = b"\xff\xff\xff\xff"


class FlatBufferError(ValueError):
    """An offset leads out of the buffer."""


class FlatTable:
    """A table of FlatBuffers at a place in a buffer."""

    def __init__(self, buffer: bytes, place: int) -> None:
        self._buffer = buffer
        self._place = place
        self._fields = place - _read("<i", buffer, place)
        self._size = _read("<H", buffer, self._fields)

    def _field(self, slot: int) -> int | None:
        offset = 4 + 2 * slot
        if offset + 2 > self._size:
            return None
        relative = _read("<H", self._buffer, self._fields + offset)
        return self._place + relative if relative else None

    def number(self, slot: int, form: str) -> int:
        """Give a number, 0 where it's left out; `form` as `struct` has it."""
        place = self._field(slot)
        return 0 if place is None else _read(form, self._buffer, place)

    def table(self, slot: int) -> "FlatTable | None":
        """Give the table in a slot, if there's one."""
        place = self._field(slot)
        return None if place is None else FlatTable(self._buffer, place + _read("<I", self._buffer, place))

    def tables(self, slot: int) -> list["FlatTable"]:
        """Give the tables of a vector in a slot; none where it's left out."""
        place = self._field(slot)
        if place is None:
            return []
        start = place + _read("<I", self._buffer, place)
        count = _read("<I", self._buffer, start)
        if 4 * count > len(self._buffer) - start:
            raise FlatBufferError
        places = (start + 4 + 4 * index for index in range(count))
        return [FlatTable(self._buffer, each + _read("<I", self._buffer, each)) for each in places]

    def text(self, slot: int) -> bytes:
        """Give the text in a slot, empty where it's left out."""
        place = self._field(slot)
        if place is None:
            return b""
        start = place + _read("<I", self._buffer, place)
        return self._buffer[start + 4 : start + 4 + _read("<I", self._buffer, start)]


def _read(form: str, buffer: bytes, place: int) -> int:
    if place < 0:
        raise FlatBufferError
    try:
        value: int = struct.unpack_from(form, buffer, place)[0]
    except struct.error:
        raise FlatBufferError from None
    return value


def read_message(message: bytes) -> FlatTable:
    """Give the root of a message of Arrow's, with its length and the mark of newer versions before it.

    Raises:
        FlatBufferError: it's none.
    """
    body = message[8:] if message[:4] == _CONTINUES else message[4:]
    return FlatTable(body, _read("<I", body, 0))
