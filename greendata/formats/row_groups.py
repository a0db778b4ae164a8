"""Merge many Parquet files into one: append their row groups one after another, and write one footer for all.

A Parquet file consists of row groups and a footer with their offsets, in Thrift's compact protocol
(parquet.apache.org/docs/file-format). So the row groups of one file can be copied unchanged after those of another, if
the offsets in the footer are shifted. Nothing is decoded. Memory holds the footer only.
"""

from __future__ import annotations

from greendata.formats.guards.thrift import I64, LIST, RAW, STRUCT, Fields, Reader, Writer

__all__ = ("MAGIC", "RowGroups")

MAGIC = b"PAR1"

# The fields of the footer, as parquet.thrift numbers them.
_NUM_ROWS, _ROW_GROUPS = 3, 4
_COLUMNS, _GROUP_ROWS, _GROUP_OFFSET, _ORDINAL = 1, 3, 5, 7
_COLUMN_META = 3
_COLUMN_OFFSETS = (2, 4, 6)  # the offsets of the chunk, of its offset index and of its column index
_META_OFFSETS = (9, 10, 11, 14)  # of the first data page, index page, dictionary, bloom filter


class RowGroups:
    """The row groups of several Parquet files that are merged into one.

    Example:
        >>> RowGroups().count
        0
    """

    def __init__(self) -> None:
        self.count = 0
        self.rows = 0
        self._footer: Fields | None = None  # of the first file: it has the schema
        self._groups: list[bytes] = []

    def add(self, file: bytes | memoryview, position: int) -> memoryview:
        """Add the row groups of *file*, and return the bytes to write at the offset *position* of the merged file."""
        view = memoryview(file)
        length = int.from_bytes(view[-8:-4], "little")
        footer = Reader(bytes(view[-8 - length : -8])).struct()
        for group in footer.pop(_ROW_GROUPS, (LIST, (STRUCT, [])))[1][1]:
            self._take(group, position - len(MAGIC))
        if self._footer is None:
            self._footer = footer
        return view[len(MAGIC) : -8 - length]

    def footer(self) -> bytes:
        """Return the last bytes of the merged file: the footer, its length and the magic number."""
        assert self._footer is not None
        groups = {_NUM_ROWS: (I64, self.rows), _ROW_GROUPS: (LIST, (RAW, self._groups))}
        text = bytes(Writer().struct({**self._footer, **groups}))
        return text + len(text).to_bytes(4, "little") + MAGIC

    def _take(self, group: Fields, shift: int) -> None:
        _move(group, (_GROUP_OFFSET,), shift)
        for column in group[_COLUMNS][1][1]:
            _move(column, _COLUMN_OFFSETS, shift)
            if _COLUMN_META in column:
                _move(column[_COLUMN_META][1], _META_OFFSETS, shift)
        group.pop(_ORDINAL, None)  # optional, and only 16 bits wide: a long stream has more groups
        self._groups.append(bytes(Writer().struct(group)))
        self.rows += group[_GROUP_ROWS][1]
        self.count += 1


def _move(fields: Fields, numbers: tuple[int, ...], shift: int) -> None:
    for number in numbers:
        if number in fields and fields[number][1] > 0:  # 0: it is absent
            fields[number] = fields[number][0], fields[number][1] + shift
