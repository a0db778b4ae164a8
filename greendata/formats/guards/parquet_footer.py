"""Check the numbers in the footer of an untrusted Parquet file before Polars relies on them.

A footer is a struct in Thrift's compact protocol (parquet.apache.org/docs/file-format). The footer of a large file has
some hundred thousand fields. It is skimmed without building objects: a million new objects would make the garbage
collector stop all threads. Call on a worker.
"""

from __future__ import annotations

from collections.abc import Iterable

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import Content
from greendata.formats.guards.parquet_pages import Chunk, check_pages
from greendata.formats.guards.thrift import I64, LIST, STRUCT, Skimmer
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
_TYPE, _LENGTH, _REPETITION, _CHILDREN = 1, 2, 3, 5  # of an element of the schema, a tree in depth-first order
_COLUMNS, _ROWS = 1, 3  # of a row group
_META = 3  # of a column of a row group
_COUNT, _PACKED, _DATA, _DICTIONARY = 5, 7, 9, 11  # of the metadata of a column
_ELEMENT = dict.fromkeys((_TYPE, _LENGTH, _REPETITION, _CHILDREN), 0)
_COLUMN = dict.fromkeys((_COUNT, _PACKED, _DATA, _DICTIONARY), 0)

_REPEATED = 2  # the repetition of an element that is a list
_OFFSET_BITS = 64  # in memory, for each list that a value is in
_FIXED = 7  # the type of values whose length in bytes is in the schema
_TYPE_BITS = {0: 1, 1: 32, 2: 64, 3: 96, 4: 32, 5: 64, 6: 128}  # of a value of another type in memory; of text, a view


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
        raise Malformed("parquet", f"it declares {cells} values, nested {depth} deep: above the limit")
    check_pages(content, chunks)


def _declared(footer: Skimmer) -> tuple[int, int, list[Chunk]]:
    """Return the number of values, the depth of the columns, and the place of the pages of each column."""
    cells = depth = 0
    bits: list[int] = []
    chunks: list[Chunk] = []
    seen: set[int] = set()
    for number, kind in footer.fields():
        if number in seen or (number == _ROW_GROUPS and _SCHEMA not in seen):  # a later schema could differ
            raise IndexError
        seen.add(number)
        if number == _SCHEMA and kind == LIST:
            depth, bits = _schema(footer.numbers(_ELEMENT) for _ in range(footer.size()))
        elif number == _ROW_GROUPS and kind == LIST:
            cells = sum(_cells(footer, bits, chunks) for _ in range(footer.size()))
        else:
            footer.skip(kind)
    return cells, depth, chunks


def _cells(footer: Skimmer, bits: list[int], chunks: list[Chunk]) -> int:
    """Return the number of values that a row group declares, and append its columns to *chunks*."""
    columns = rows = 0
    for number, kind in footer.fields():
        if number == _ROWS and kind == I64:
            rows = footer.integer()
        elif number == _COLUMNS and kind == LIST:
            columns = footer.size()
            for column in range(columns):
                chunks.append(_chunk(footer, bits[column] if column < len(bits) else max(bits, default=0)))
                if column % PAUSE_EVERY == 0:
                    release_gil()
        else:
            footer.skip(kind)
    return abs(rows) * columns


def _chunk(footer: Skimmer, bits: int) -> Chunk:
    """Return the place of the pages of a column whose values have *bits*."""
    chunk = Chunk(0, 0, 0, 0)
    for number, kind in footer.fields():
        if number == _META and kind == STRUCT:
            meta = footer.numbers(_COLUMN)
            if min(meta.values()) < 0:
                raise Malformed("parquet", f"a column declares {meta[_COUNT]} values")
            chunk = Chunk(meta[_DICTIONARY] or meta[_DATA], meta[_PACKED], bits, meta[_COUNT])
        else:
            footer.skip(kind)
    return chunk


def _schema(elements: Iterable[dict[int, int]]) -> tuple[int, list[int]]:
    """Return the depth of the schema, and how many bits a value of each column takes in memory, in their order."""
    deepest = 0
    left: list[int] = []  # the children that follow, of each node from the root to the current one
    lists: list[int] = []  # how many of the nodes above each of them, and itself, are lists
    bits: list[int] = []
    for element in elements:
        while left and not left[-1]:
            left.pop()
            lists.pop()
        if left:
            left[-1] -= 1
        left.append(element[_CHILDREN])
        lists.append((lists[-1] if lists else 0) + (element[_REPETITION] == _REPEATED))
        deepest = max(deepest, len(left))
        if not element[_CHILDREN]:
            kind = element[_TYPE]
            size = max(0, 8 * element[_LENGTH]) if kind == _FIXED else _TYPE_BITS.get(kind, 0)
            bits.append(size + _OFFSET_BITS * lists[-1] + len(left))  # a bit of each level says whether it is null
    return deepest, bits
