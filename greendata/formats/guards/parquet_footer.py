"""Check the numbers in the footer of an untrusted Parquet file before Polars relies on them.

A footer is a struct in Thrift's compact protocol (parquet.apache.org/docs/file-format). The footer of a large file has
some hundred thousand fields. It is skimmed without building objects: a million new objects would make the garbage
collector stop all threads. Call on a worker.
"""

from __future__ import annotations

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import Content
from greendata.formats.guards.parquet_pages import Chunk, check_pages
from greendata.formats.guards.thrift import I32, I64, LIST, STRUCT, Skimmer
from greendata.formats.row_groups import MAGIC
from greendata.hub.pacing import release_gil

__all__ = ("CELLS", "DEPTH", "FOOTER_BYTES", "check_parquet")

CELLS = 1 << 28  # values that a file may declare: a million equal values can be encoded in a few bytes
DEPTH = 64  # of nested columns
FOOTER_BYTES = 1 << 23  # at most: a footer is skimmed in Python, at one second for 3 MiB
ENCRYPTED = b"PARE"  # the last bytes of a file whose footer is encrypted
PAUSE_EVERY = 20  # columns of a row group to skim before the GIL is released: half a millisecond

# The fields, as parquet.thrift numbers them.
_SCHEMA, _ROW_GROUPS = 2, 4  # of the footer
_WIDTH, _CHILDREN = 2, 5  # of an element of the schema, which is a tree in depth-first order
_COLUMNS, _ROWS = 1, 3  # of a row group
_META = 3  # of a column of a row group
_KIND, _COUNT, _PACKED, _DATA, _DICTIONARY = 1, 5, 7, 9, 11  # of the metadata of a column
_FIXED = 7  # the type of values of a fixed length


def check_parquet(content: Content) -> None:
    """Raise Malformed unless *content* ends with a valid footer whose numbers are below the limits.

    Example:
        >>> check_parquet(b"PAR1")
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid parquet: it is cut short, or not a Parquet file
    """
    if content[-4:] == ENCRYPTED:
        raise Malformed("parquet", "it is encrypted, and no key is available")
    length = int.from_bytes(content[-8:-4], "little")
    if len(content) < 12 or content[:4] != MAGIC or content[-4:] != MAGIC or length > len(content) - 12:
        raise Malformed("parquet", "it is cut short, or not a Parquet file")
    if length > FOOTER_BYTES:
        raise Malformed("parquet", f"its footer has {length} bytes; the limit is {FOOTER_BYTES}")
    try:
        cells, depth, chunks = _declared(Skimmer(content[-8 - length : -8]))
    except (IndexError, RecursionError) as error:
        raise Malformed("parquet", "its footer cannot be read") from error
    if cells > CELLS or depth > DEPTH:
        raise Malformed("parquet", f"it claims {cells} values, nested {depth} deep: above the limit")
    check_pages(content, chunks)


def _declared(footer: Skimmer) -> tuple[int, int, list[Chunk]]:
    """Return the number of values, the depth of the columns, and the place of the pages of each column."""
    cells = width = 0
    children: list[int] = []
    chunks: list[Chunk] = []
    for number, kind in footer.fields():
        if number == _SCHEMA and kind == LIST:
            for _ in range(footer.size()):
                element = _numbers(footer, _WIDTH, _CHILDREN)
                children.append(element[_CHILDREN])
                width = max(width, element[_WIDTH])
        elif number == _ROW_GROUPS and kind == LIST:
            cells = sum(_cells(footer, chunks) for _ in range(footer.size()))
        else:
            footer.skip(kind)
    return cells, _depth(children), [chunk if chunk.width == 0 else chunk._replace(width=width) for chunk in chunks]


def _numbers(footer: Skimmer, *wanted: int) -> dict[int, int]:
    """Return the numbers in the *wanted* fields of a struct; 0 for a field that is absent."""
    found = dict.fromkeys(wanted, 0)
    for number, kind in footer.fields():
        if number in found and kind in (I32, I64):
            found[number] = footer.integer()
        else:
            footer.skip(kind)
    return found


def _cells(footer: Skimmer, chunks: list[Chunk]) -> int:
    """Return the number of values that a row group declares, and append its columns to *chunks*."""
    columns = rows = 0
    for number, kind in footer.fields():
        if number == _ROWS and kind == I64:
            rows = footer.integer()
        elif number == _COLUMNS and kind == LIST:
            columns = footer.size()
            for column in range(columns):
                chunks.append(_chunk(footer))
                if column % PAUSE_EVERY == 0:
                    release_gil()
        else:
            footer.skip(kind)
    return abs(rows) * columns


def _chunk(footer: Skimmer) -> Chunk:
    """Return the place of the pages of a column. Its width is 1 if the schema holds the width of its values, else 0."""
    chunk = Chunk(0, 0, 0, 0)
    for number, kind in footer.fields():
        if number == _META and kind == STRUCT:
            meta = _numbers(footer, _KIND, _COUNT, _PACKED, _DATA, _DICTIONARY)
            if min(meta.values()) < 0:
                raise Malformed("parquet", f"a column claims {meta[_COUNT]} values")
            begin = meta[_DICTIONARY] or meta[_DATA]
            chunk = Chunk(begin, meta[_PACKED], int(meta[_KIND] == _FIXED), meta[_COUNT])
        else:
            footer.skip(kind)
    return chunk


def _depth(children: list[int]) -> int:
    """Return the depth of a tree, given the number of children of each node in depth-first order."""
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
