"""One Parquet file out of many: row groups appended as they come, and one footer for all of them.

A Parquet file is its row groups and, at the end, a footer that says where they are, in Thrift's compact protocol
(parquet.apache.org/docs/file-format). So a file's row groups can be copied behind those of another as they are,
if the offsets in the footer move along. Nothing is decoded, and memory holds one file's footers.
"""

from __future__ import annotations

from greendata.formats.guards.thrift import I64, LIST, RAW, STRUCT, Fields, Reader, Writer

__all__ = ("MAGIC", "RowGroups")

MAGIC = b"PAR1"

# The fields of the footer, as parquet.thrift numbers them.
_NUM_ROWS, _ROW_GROUPS = 3, 4
_COLUMNS, _GROUP_ROWS, _GROUP_OFFSET, _ORDINAL = 1, 3, 5, 7
_COLUMN_META = 3
_COLUMN_OFFSETS = (2, 4, 6)  # of the chunk, of its offset index and column index
_META_OFFSETS = (9, 10, 11, 14)  # of the first data page, the index page, the dictionary and the bloom filter


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
        footer = Reader(bytes(view[-8 - length : -8])).struct()
        for group in footer.pop(_ROW_GROUPS, (LIST, (STRUCT, [])))[1][1]:
            self._take(group, position - len(MAGIC))
        if self._footer is None:
            self._footer = footer
        return view[len(MAGIC) : -8 - length]

    def footer(self) -> bytes:
        """The end of the common file."""
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
        group.pop(_ORDINAL, None)  # optional, and 16 bits wide: a long stream has more groups than that
        self._groups.append(bytes(Writer().struct(group)))
        self.rows += group[_GROUP_ROWS][1]
        self.count += 1


def _move(fields: Fields, numbers: tuple[int, ...], shift: int) -> None:
    for number in numbers:
        if number in fields and fields[number][1] > 0:  # 0: there is none
            fields[number] = fields[number][0], fields[number][1] + shift
