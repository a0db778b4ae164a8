"""What the footer of a Parquet file claims, told before Polars believes it: a stranger may have written the file.

A footer is a struct in Thrift's compact protocol (parquet.apache.org/docs/file-format). That of a large file has some
hundred thousand fields, so it is skimmed, and nothing is made of it: objects by the million would have the garbage
collector stop all threads. Call on a worker.
"""

from __future__ import annotations

from collections.abc import Iterator

from greendata.errors import Malformed
from greendata.frames.lines import Content
from greendata.frames.rowgroups import MAGIC
from greendata.hub.pacing import give_way

__all__ = ("CELLS", "DEPTH", "FOOTER_BYTES", "check_file")

CELLS = 1 << 28  # values that a file may claim: encodings make a few bytes of a million equal ones
DEPTH = 64  # of nested columns
FOOTER_BYTES = 1 << 23  # at most: skimming it is work in Python, a second for 3 MiB
ENCRYPTED = b"PARE"  # at the end, where the footer is encrypted
TURN = 20  # columns of a row group that are skimmed between two rests: half a millisecond

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_LONG = 15  # a size that stands behind its head

# The fields, as parquet.thrift numbers them.
_SCHEMA, _ROW_GROUPS = 2, 4  # of the footer
_CHILDREN = 5  # of an element of the schema, which is a tree written down in depth-first order
_COLUMNS, _ROWS = 1, 3  # of a row group


def check_file(content: Content) -> None:
    """Raise Malformed unless *content* ends with a footer whose claims can be borne.

    Example:
        >>> check_file(b"PAR1")
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid parquet: it is cut short, or none
    """
    if content[-4:] == ENCRYPTED:
        raise Malformed("parquet", "it is encrypted, and there is no key for it here")
    length = int.from_bytes(content[-8:-4], "little")
    if len(content) < 12 or content[:4] != MAGIC or content[-4:] != MAGIC or length > len(content) - 12:
        raise Malformed("parquet", "it is cut short, or none")
    if length > FOOTER_BYTES:
        raise Malformed("parquet", f"its footer has {length} bytes, and {FOOTER_BYTES} may it have")
    try:
        cells, depth = _claims(_Skimmer(content[-8 - length : -8]))
    except (IndexError, RecursionError) as error:
        raise Malformed("parquet", "its footer cannot be read") from error
    if cells > CELLS or depth > DEPTH:
        raise Malformed("parquet", f"it claims {cells} values, nested {depth} deep, more than can be borne")


def _claims(footer: _Skimmer) -> tuple[int, int]:
    """The values and the depth of the columns."""
    cells = 0
    children: list[int] = []
    for number, kind in footer.fields():
        if number == _SCHEMA and kind == _LIST:
            children = [_number(footer, _CHILDREN) for _ in range(footer.size())]
        elif number == _ROW_GROUPS and kind == _LIST:
            cells = sum(_cells(footer) for _ in range(footer.size()))
        else:
            footer.skip(kind)
    return cells, _depth(children)


def _number(footer: _Skimmer, wanted: int) -> int:
    """The number in one field of a struct; 0 where it has no such field."""
    found = 0
    for number, kind in footer.fields():
        if number == wanted and kind in (_I16, _I32, _I64):
            found = footer.integer()
        else:
            footer.skip(kind)
    return found


def _cells(footer: _Skimmer) -> int:
    """The values that a row group claims."""
    columns = rows = 0
    for number, kind in footer.fields():
        if number == _ROWS and kind == _I64:
            rows = footer.integer()
        elif number == _COLUMNS and kind == _LIST:
            columns = footer.size()
            for column in range(columns):
                footer.skip(_STRUCT)
                if column % TURN == 0:
                    give_way()
        else:
            footer.skip(kind)
    return abs(rows) * columns


def _depth(children: list[int]) -> int:
    """How deep a tree is, from the numbers of children in depth-first order."""
    deepest = 0
    left: list[int] = []
    for count in children:
        while left and not left[-1]:
            left.pop()
        if left:
            left[-1] -= 1
        left.append(count)
        deepest = max(deepest, len(left))
    return deepest


class _Skimmer:
    """Reads Thrift's compact protocol, and keeps nothing of it."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; whoever asks for the next has read or skipped the value."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 0x0F

    def size(self) -> int:
        """How many structs a list has; they follow."""
        head = self._byte()
        if head & 0x0F != _STRUCT:
            raise IndexError
        return head >> 4 if head >> 4 < _LONG else self._varint()

    def integer(self) -> int:
        """A number."""
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def skip(self, kind: int) -> None:
        """Pass by a value."""
        if kind == _STRUCT:
            text = self._text
            while head := text[self._at]:
                self._at += 1
                if not head >> 4:
                    self._varint()
                self.skip(head & 0x0F)
            self._at += 1
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind == _BINARY:
            size = self._varint()  # which moves on
            self._at += size
        elif kind in (_LIST, _SET):
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
        self._at = at + 1
        return number | byte << shift
