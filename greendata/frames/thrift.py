"""Thrift's compact protocol, skimmed: what a stranger wrote in it is passed by, and no objects are made of it.

Parquet has its footer and the headers of its pages in it (parquet.apache.org/docs/file-format). A large file has some
hundred thousand fields: objects by the million would have the garbage collector stop all threads.
"""

from __future__ import annotations

from collections.abc import Iterator

from greendata.frames.lines import Content

__all__ = ("I16", "I32", "I64", "LIST", "STRUCT", "Skimmer")

_TRUE, _FALSE, _BYTE, I16, I32, I64, _DOUBLE, _BINARY, LIST, _SET, _MAP, STRUCT = range(1, 13)
_BITS = 63  # of a number, before its last byte
_LONG = 15  # a size that stands behind its head


class Skimmer:
    """Reads a struct, field by field, and keeps nothing of it.

    Where the text ends too early, or a number has more than 64 bits, its methods raise IndexError; RecursionError where
    it nests too deep.

    Args:
        text: what the struct is in.
        at: where it begins.

    Example:
        >>> [kind for number, kind in Skimmer(bytes((0x11, 0))).fields()]
        [1]
    """

    def __init__(self, text: Content, at: int = 0) -> None:
        self._text = text
        self._at = at

    @property
    def at(self) -> int:
        """Where the next byte is."""
        return self._at

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct. The caller reads or skips a value before the next."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 0x0F

    def number(self, wanted: int, *, missing: int = 0) -> int:
        """The number in one field of a struct; *missing* where it has no such field."""
        found = missing
        for number, kind in self.fields():
            if number == wanted and kind in (I16, I32, I64):
                found = self.integer()
            else:
                self.skip(kind)
        return found

    def size(self) -> int:
        """How many structs a list has; they follow."""
        head = self._byte()
        if head & 0x0F != STRUCT:
            raise IndexError
        return head >> 4 if head >> 4 < _LONG else self._varint()

    def integer(self) -> int:
        """A number."""
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def skip(self, kind: int) -> None:
        """Pass by a value."""
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
            size = self._varint()  # which moves on
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
        """Pass by the elements of a container, in which a boolean is a byte."""
        for _ in range(size):
            for kind in kinds:
                self.skip(_BYTE if kind in (_TRUE, _FALSE) else kind)
            if self._at >= len(self._text):
                raise IndexError

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
            if shift > _BITS:  # a million such bytes would be a number of a million digits
                raise IndexError
        self._at = at + 1
        return number | byte << shift
