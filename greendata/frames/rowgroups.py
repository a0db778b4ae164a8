"""One Parquet file out of many: row groups appended as they come, and one footer for all of them.

A Parquet file is its row groups and, at the end, a footer that says where they are, in Thrift's compact protocol
(parquet.apache.org/docs/file-format). So a file's row groups can be copied behind those of another as they are,
if the offsets in the footer move along. Nothing is decoded, and memory holds one file's footers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

__all__ = ("MAGIC", "RowGroups")

MAGIC = b"PAR1"

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_RAW = -1  # bytes of a struct that was written before

# The fields of the footer, as parquet.thrift numbers them.
_NUM_ROWS, _ROW_GROUPS = 3, 4
_COLUMNS, _GROUP_ROWS, _GROUP_OFFSET, _ORDINAL = 1, 3, 5, 7
_COLUMN_META = 3
_COLUMN_OFFSETS = (2, 4, 6)  # of the chunk, of its offset index and column index
_META_OFFSETS = (9, 10, 11, 14)  # of the first data page, the index page, the dictionary and the bloom filter

Fields = dict[int, tuple[int, Any]]  # by number: type and value


class RowGroups:
    """The row groups of several Parquet files on their way into one.

    Example:
        >>> RowGroups().count
        0
    """

    def __init__(self) -> None:
        self.count = 0
        self.rows = 0
        self._footer: Fields | None = None  # of the first file; it has the schema
        self._groups: list[bytes] = []

    def add(self, file: bytes | memoryview, position: int) -> memoryview:
        """Take in the row groups of *file*; returns the bytes to be written at *position* of the common file."""
        view = memoryview(file)
        length = int.from_bytes(view[-8:-4], "little")
        footer = _Reader(bytes(view[-8 - length : -8])).struct()
        for group in footer.pop(_ROW_GROUPS, (_LIST, (_STRUCT, [])))[1][1]:
            self._take(group, position - len(MAGIC))
        if self._footer is None:
            self._footer = footer
        return view[len(MAGIC) : -8 - length]

    def footer(self) -> bytes:
        """The end of the common file."""
        assert self._footer is not None
        groups = {_NUM_ROWS: (_I64, self.rows), _ROW_GROUPS: (_LIST, (_RAW, self._groups))}
        text = bytes(_Writer().struct({**self._footer, **groups}))
        return text + len(text).to_bytes(4, "little") + MAGIC

    def _take(self, group: Fields, shift: int) -> None:
        _move(group, (_GROUP_OFFSET,), shift)
        for column in group[_COLUMNS][1][1]:
            _move(column, _COLUMN_OFFSETS, shift)
            if _COLUMN_META in column:
                _move(column[_COLUMN_META][1], _META_OFFSETS, shift)
        group.pop(_ORDINAL, None)  # optional, and 16 bits wide: a long stream has more groups than that
        self._groups.append(bytes(_Writer().struct(group)))
        self.rows += group[_GROUP_ROWS][1]
        self.count += 1


def _move(fields: Fields, numbers: tuple[int, ...], shift: int) -> None:
    for number in numbers:
        if number in fields and fields[number][1] > 0:  # 0: there is none
            fields[number] = fields[number][0], fields[number][1] + shift


class _Reader:
    """Reads Thrift's compact protocol."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def struct(self) -> Fields:
        fields: Fields = {}
        number = 0
        while head := self._byte():
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = (kind, kind == _TRUE) if kind in (_TRUE, _FALSE) else (kind, self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:
        readers: dict[int, Callable[[], Any]] = {
            _TRUE: self._byte,  # in a list a boolean is a byte
            _FALSE: self._byte,
            _BYTE: self._byte,
            _I16: self._integer,
            _I32: self._integer,
            _I64: self._integer,
            _DOUBLE: lambda: self._bytes(8),
            _BINARY: lambda: self._bytes(self._varint()),
            _LIST: self._list,
            _SET: self._list,
            _MAP: self._map,
            _STRUCT: self.struct,
        }
        return readers[kind]()

    def _list(self) -> tuple[int, list[Any]]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._varint()
        return head & 0x0F, [self._value(head & 0x0F) for _ in range(size)]

    def _map(self) -> tuple[int, list[Any]]:
        size = self._varint()
        kinds = self._byte() if size else 0
        return kinds, [(self._value(kinds >> 4), self._value(kinds & 0x0F)) for _ in range(size)]

    def _byte(self) -> int:
        self._at += 1
        return self._text[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        self._at += count
        return self._text[self._at - count : self._at]

    def _varint(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 0x80:
            number |= (byte & 0x7F) << shift
            shift += 7
        return number | byte << shift

    def _integer(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)


class _Writer:
    """Writes Thrift's compact protocol."""

    def struct(self, fields: Fields) -> bytearray:
        out = bytearray()
        last = 0
        for number, (kind, value) in sorted(fields.items()):
            step = number - last
            written = (_TRUE if value else _FALSE) if kind in (_TRUE, _FALSE) else kind
            out += bytes((step << 4 | written,)) if step <= 15 else bytes((written,)) + self._integer(number)
            if kind not in (_TRUE, _FALSE):
                out += self._value(kind, value)
            last = number
        out.append(0)
        return out

    def _value(self, kind: int, value: Any) -> bytes | bytearray:
        if kind in (_I16, _I32, _I64):
            return self._integer(value)
        if kind in (_TRUE, _FALSE, _BYTE):
            return struct.pack("B", value)
        if kind in (_DOUBLE, _RAW):
            return bytes(value)
        if kind == _BINARY:
            return self._varint(len(value)) + bytes(value)
        if kind == _STRUCT:
            return self.struct(value)
        return self._map(*value) if kind == _MAP else self._list(*value)

    def _list(self, kind: int, values: list[Any]) -> bytes:
        size = len(values)
        written = _STRUCT if kind == _RAW else kind
        head = bytes((size << 4 | written,)) if size < 15 else bytes((0xF0 | written,)) + self._varint(size)
        return head + b"".join(self._value(kind, value) for value in values)

    def _map(self, kinds: int, pairs: list[Any]) -> bytes:
        if not pairs:
            return b"\0"
        written = b"".join(bytes(self._value(kinds >> 4, k)) + self._value(kinds & 0x0F, v) for k, v in pairs)
        return self._varint(len(pairs)) + bytes((kinds,)) + written

    def _varint(self, number: int) -> bytes:
        out = bytearray()
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
        return bytes(out)

    def _integer(self, number: int) -> bytes:
        return self._varint(number << 1 if number >= 0 else (-number << 1) - 1)
