"""What the pages of a Parquet file claim, told before Polars allocates it: a stranger may have written the file.

A page header says how many values its page has and how many bytes they are unpacked. Polars believes both: a count of
-1 ends the process, and 186 bytes may be 2 GiB. It allocates as many values as the footer says that a column has,
too. So the headers are read, and nothing of what is behind them. Not
bounded here is text whose values repeat each other's beginnings (DELTA_BYTE_ARRAY): its size is in the values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import Content
from greendata.formats.guards.thrift import I32, STRUCT, Skimmer
from greendata.hub.pacing import give_way

__all__ = ("Chunk", "check_pages")

VALUES = 1 << 28  # of all pages
PAGES = 1 << 18  # at most: twice the columns that a footer of the largest size has; a header takes 10 us
UNPACKED_ALWAYS = 1 << 28  # bytes, whatever the size of the file;
UNPACKED_A_BYTE = 1 << 10  # and for each of its own: the best of packers make a thousandth of dull text;
UNPACKED_MOST = 1 << 31  # at most, unless the file itself has
MORE = 16  # times less
TURN = 50  # headers between two rests

# The fields of a page header, as parquet.thrift numbers them.
_UNPACKED, _PACKED = 2, 3
_HEADERS = (5, 7, 8)  # of a data page, a dictionary and a data page of version 2: each begins with
_COUNT = 1


class Chunk(NamedTuple):
    """The pages of a column of a row group, as the footer has it.

    Attributes:
        begin: where the first page is.
        size: the bytes of all of them.
        width: the bytes of one of its values, if they are of one length, else 0.
        values: how many they have.
    """

    begin: int
    size: int
    width: int
    values: int


def check_pages(content: Content, chunks: Iterable[Chunk]) -> None:
    """Raise Malformed if the pages of *chunks* claim more than can be borne.

    Example:
        >>> check_pages(b"PAR1", [Chunk(4, 100, 0, 1)])
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid parquet: a column lies out of the file
    """
    pages = values = unpacked = 0
    bound = max(UNPACKED_MOST, MORE * len(content))
    bound = min(UNPACKED_ALWAYS + UNPACKED_A_BYTE * len(content), bound)
    for chunk in chunks:
        at, end = chunk.begin, chunk.begin + chunk.size
        if not 0 < at <= end <= len(content):
            raise Malformed("parquet", "a column lies out of the file")
        before = values
        while at < end:
            at, count, size = _page(content, at)
            pages, values, unpacked = pages + 1, values + count, unpacked + max(size, count * chunk.width)
            if pages % TURN == 0:
                give_way()
            if pages > PAGES or values > VALUES or unpacked > bound:
                told = f"its pages claim {values} values and {unpacked} bytes, in {pages}: more than can be borne"
                raise Malformed("parquet", told)
        if chunk.values > values - before:
            raise Malformed("parquet", f"a column claims {chunk.values} values, and its pages {values - before}")


def _page(content: Content, at: int) -> tuple[int, int, int]:
    """Where the page at *at* ends, how many values it claims, and how many bytes of them."""
    header = Skimmer(content, at)
    numbers = {_UNPACKED: -1, _PACKED: -1}
    count = 0  # of an index, which has none
    try:
        for number, kind in header.fields():
            if number in numbers and kind == I32:
                numbers[number] = header.integer()
            elif number in _HEADERS and kind == STRUCT:
                count = header.number(_COUNT, missing=-1)
            else:
                header.skip(kind)
    except (IndexError, RecursionError) as error:
        raise Malformed("parquet", "the header of a page cannot be read") from error
    if min(count, *numbers.values()) < 0:
        raise Malformed("parquet", f"a page claims {count} values and {numbers[_UNPACKED]} bytes")
    return header.at + numbers[_PACKED], count, numbers[_UNPACKED]
