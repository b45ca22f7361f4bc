"""Values in Thrift's compact form, in which Parquet writes what it says of itself; read without trusting a length."""

from typing import Any, Final

_MOST_VALUES: Final = 2_000_000
_DEEPEST: Final = 32
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS: Final = (4, 5, 6)
_LONGEST_INTEGER: Final = 10

Struct = dict[int, Any]
"""A struct: number of the field -> value; an integer, bytes, a list, a struct, or None for what Parquet has no use for."""


class ThriftReader:
    """Reads structs from `content`, which is never copied whole.

    Attributes:
        position: where the next value begins.

    Args:
        content: what is read.
        position: where to begin.
    """

    def __init__(self, content: bytes | memoryview, position: int = 0) -> None:
        self._content = content
        self._end = len(content)
        self._left = _MOST_VALUES
        self.position = position

    def read_struct(self, depth: int = 0) -> Struct:
        """Read a struct, and go behind it.

        Raises:
            ValueError: it's cut off, nested too deeply, has a field twice, or holds too many values.
        """
        if depth > _DEEPEST:
            raise ValueError("what it says of itself is nested too deeply")
        found: Struct = {}
        number = 0
        while True:
            header = self._byte()
            kind = header & 0x0F
            if kind == _STOP:
                return found
            number = number + (header >> 4) if header >> 4 else self._signed()
            if number in found:
                raise ValueError("what it says of itself says one thing twice")
            found[number] = (kind == _TRUE) if kind in (_TRUE, _FALSE) else self._value(kind, depth)

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("what it says of itself is too long")
        if kind in _INTEGERS:
            return self._signed()
        if kind == _BINARY:
            return self._take(self._unsigned())
        if kind == _STRUCT:
            return self.read_struct(depth + 1)
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind in (_BYTE, _TRUE, _FALSE):
            return self._byte()
        if kind == _DOUBLE:
            self._take(8)
            return None
        raise ValueError("what it says of itself is damaged")

    def _list(self, depth: int) -> list[Any]:
        header = self._byte()
        size, kind = header >> 4, header & 0x0F
        if size == 15:
            size = self._unsigned()
        if depth > _DEEPEST or size > self._end - self.position:
            raise ValueError("what it says of itself is damaged")
        return [self._value(kind, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        if self.position >= self._end:
            raise ValueError("what it says of itself is cut off")
        self.position += 1
        return self._content[self.position - 1]

    def _unsigned(self) -> int:
        value = 0
        for index in range(_LONGEST_INTEGER):
            byte = self._byte()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value
        raise ValueError("what it says of itself holds a number without end")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _take(self, size: int) -> bytes:
        if size > self._end - self.position:
            raise ValueError("what it says of itself is cut off")
        self.position += size
        return bytes(self._content[self.position - size : self.position])
