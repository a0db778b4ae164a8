"""Skim, read and write Thrift's compact protocol.

Parquet uses it for its footer and for the headers of its pages (parquet.apache.org/docs/file-format). Untrusted files
are skimmed, without building objects. A large file has some hundred thousand fields, and a million new objects would
make the garbage collector stop all threads. `Reader` and `Writer` are for files that greendata wrote.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from greendata.formats.guards.chunk_scan import Content

__all__ = ("Fields", "I16", "I32", "I64", "LIST", "RAW", "Reader", "STRUCT", "Skimmer", "Writer")

Fields = dict[int, tuple[int, Any]]  # the fields of a struct, by number: type and value

_TRUE, _FALSE, _BYTE, I16, I32, I64, _DOUBLE, _BINARY, LIST, _SET, _MAP, STRUCT = range(1, 13)
RAW = -1  # a type for `Writer`: the bytes of a struct that is already encoded
_BITS = 63  # the bits of a number, without those of its last byte
_LONG = 15  # in the head of a list: the size follows the head


class Skimmer:
    """A reader of a struct, field by field, that keeps no values.

    The methods raise IndexError if the text ends too early or a number has more than 64 bits, and RecursionError if the
    struct nests too deep.

    Args:
        text: the bytes that contain the struct.
        at: the offset of the struct.

    Example:
        >>> [kind for number, kind in Skimmer(bytes((0x11, 0))).fields()]
        [1]
    """

    def __init__(self, text: Content, at: int = 0) -> None:
        self._text = text
        self._at = at

    @property
    def at(self) -> int:
        """The offset of the next byte."""
        return self._at

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield the number and the type of each field of a struct. Read or skip each value before the next field."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 0x0F

    def numbers(self, defaults: Mapping[int, int]) -> dict[int, int]:
        """Read a struct, and return the numbers in some of its fields: those in *defaults* if a field is absent."""
        found = dict(defaults)
        for number, kind in self.fields():
            if number in found and kind in (I16, I32, I64):
                found[number] = self.integer()
            else:
                self.skip(kind)
        return found

    def size(self) -> int:
        """Read the head of a list of structs, and return the number of structs that follow."""
        kind, size = self._list_head()
        if kind != STRUCT:
            raise IndexError
        return size

    def integer(self) -> int:
        """Read an integer."""
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def skip(self, kind: int) -> None:
        """Skip a value."""
        if kind == STRUCT:
            text = self._text
            while head := text[self._at]:
                self._at += 1
                if not head >> 4:
                    self._varint()
                self.skip(head & 0x0F)
            self._at += 1
        elif kind in (I16, I32, I64):
            self._varint()
        elif kind == _BINARY:
            size = self._varint()  # before the next line: it advances _at
            self._at += size
        elif kind in (LIST, _SET):
            head = self._byte()
            self._skip_many(head >> 4 if head >> 4 < _LONG else self._varint(), (head & 0x0F,))
        elif kind == _MAP:
            size = self._varint()
            kinds = self._byte() if size else 0
            self._skip_many(size, (kinds >> 4, kinds & 0x0F))
        elif kind in (_BYTE, _DOUBLE):
            self._at += 1 if kind == _BYTE else 8
        elif kind not in (_TRUE, _FALSE):
            raise IndexError

    def _skip_many(self, size: int, kinds: tuple[int, ...]) -> None:
        """Skip the elements of a container, in which a boolean is a byte."""
        for _ in range(size):
            for kind in kinds:
                self.skip(_BYTE if kind in (_TRUE, _FALSE) else kind)
            if self._at >= len(self._text):
                raise IndexError

    def _list_head(self) -> tuple[int, int]:
        """Return the type and the number of the elements of a list."""
        head = self._byte()
        return head & 0x0F, head >> 4 if head >> 4 < _LONG else self._varint()

    def _byte(self) -> int:
        self._at += 1
        return self._text[self._at - 1]

    def _varint(self) -> int:
        text, at = self._text, self._at
        number = shift = 0
        while (byte := text[at]) & 0x80:
            number |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if shift > _BITS:  # without a limit, a million bytes could encode one huge number
                raise IndexError
        self._at = at + 1
        return number | byte << shift


class Reader(Skimmer):
    """A reader that returns a struct with all its values, in the form that `Writer` takes.

    Example:
        >>> Reader(bytes((0x15, 6, 0))).struct()
        {1: (5, 3)}
    """

    def struct(self) -> Fields:
        """Return the type and value of each field, by number. A list or map is a pair: element type, and elements."""
        return {
            number: (kind, kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind))
            for number, kind in self.fields()
        }

    def _value(self, kind: int) -> Any:
        readers: dict[int, Callable[[], Any]] = {
            _TRUE: self._byte,  # in a list a boolean is a byte
            _FALSE: self._byte,
            _BYTE: self._byte,
            I16: self.integer,
            I32: self.integer,
            I64: self.integer,
            _DOUBLE: lambda: self._bytes(8),
            _BINARY: lambda: self._bytes(self._varint()),
            LIST: self._list,
            _SET: self._list,
            _MAP: self._map,
            STRUCT: self.struct,
        }
        return readers[kind]()

    def _list(self) -> tuple[int, list[Any]]:
        kind, size = self._list_head()
        return kind, [self._value(kind) for _ in range(size)]

    def _map(self) -> tuple[int, list[Any]]:
        size = self._varint()
        kinds = self._byte() if size else 0
        return kinds, [(self._value(kinds >> 4), self._value(kinds & 0x0F)) for _ in range(size)]

    def _bytes(self, count: int) -> bytes:
        self._at += count
        return bytes(self._text[self._at - count : self._at])


class Writer:
    """An encoder of structs.

    Example:
        >>> list(Writer().struct({1: (I32, 3)}))
        [21, 6, 0]
    """

    def struct(self, fields: Fields) -> bytearray:
        """Return the bytes of a struct with *fields*, in the form of `Reader.struct`. A field may also be `RAW`."""
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
        if kind in (I16, I32, I64):
            return self._integer(value)
        if kind in (_TRUE, _FALSE, _BYTE):
            return struct.pack("B", value)
        if kind in (_DOUBLE, RAW):
            return bytes(value)
        if kind == _BINARY:
            return self._varint(len(value)) + bytes(value)
        if kind == STRUCT:
            return self.struct(value)
        return self._map(*value) if kind == _MAP else self._list(*value)

    def _list(self, kind: int, values: list[Any]) -> bytes:
        size = len(values)
        written = STRUCT if kind == RAW else kind
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
