"""Check the sizes in the page headers of an untrusted Parquet file before Polars allocates memory for them.

A page header holds the number of values of its page and their size in bytes after decompression. Polars relies on both:
a count of -1 ends the process, and 186 bytes may expand to 2 GiB. Polars also allocates memory for the number of values
that the footer states for a column. So the headers are read here, and nothing of the data after them.

The values of text may share prefixes (DELTA_BYTE_ARRAY). How long they are is in the data, so the longest possible ones
are assumed: each value has all bytes of its page. Few programs write such pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import Content
from greendata.formats.guards.thrift import I32, STRUCT, Skimmer
from greendata.hub.pacing import release_gil

__all__ = ("Chunk", "check_pages", "unpacked_limit")

VALUES = 1 << 28  # of all pages together, at most
PAGES = 1 << 18  # at most: twice the number of columns in the largest footer; reading a header takes 10 us
UNPACKED_ALWAYS = 1 << 28  # bytes after decompression that are always accepted
UNPACKED_A_BYTE = 1 << 10  # more for each byte of the file: repetitive text shrinks to a thousandth at best
UNPACKED_MOST = 1 << 31  # bytes, at most
MORE = 16  # a file larger than UNPACKED_MOST / MORE may expand to MORE times its size
PAUSE_EVERY = 50  # headers to read before the GIL is released

# The fields of a page header, as parquet.thrift numbers them.
_UNPACKED, _PACKED = 2, 3
_HEADERS = {5: 2, 7: 0, 8: 4}  # of a data page, a dictionary page, and a data page of version 2: where the encoding is
_COUNT = 1  # the first field of each of these
_SHARED_PREFIXES = 7  # an encoding

memory_is_limited = False  # True in a child whose memory is limited, which sets it before it reads anything


class Chunk(NamedTuple):
    """The pages of one column of a row group, according to the footer.

    Attributes:
        begin: the offset of the first page.
        size: the size of all pages in bytes.
        bits: the size of a value in memory, in bits, without that of texts themselves.
        values: the number of values in all pages.
    """

    begin: int
    size: int
    bits: int
    values: int


def check_pages(content: Content, chunks: Iterable[Chunk]) -> None:
    """Raise Malformed if the sizes that the pages of *chunks* declare exceed the limits.

    Example:
        >>> check_pages(b"PAR1", [Chunk(4, 100, 0, 1)])
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid parquet: a column lies outside the file
    """
    pages = values = unpacked = 0
    bound = unpacked_limit(len(content))
    for chunk in chunks:
        at, end = chunk.begin, chunk.begin + chunk.size
        if not 0 < at <= end <= len(content):
            raise Malformed("parquet", "a column lies outside the file")
        before = values
        while at < end:
            at, count, size = _page(content, at)
            pages, values, unpacked = pages + 1, values + count, unpacked + max(size, count * chunk.bits // 8)
            if pages % PAUSE_EVERY == 0:
                release_gil()
            if pages > PAGES or values > VALUES or unpacked > bound:
                reason = f"its {pages} pages claim {values} values and {unpacked} bytes: above the limit"
                raise Malformed("parquet", reason)
        if chunk.values > values - before:
            raise Malformed("parquet", f"a column declares {chunk.values} values, and its pages {values - before}")


def unpacked_limit(size: int) -> int:
    """Return the number of bytes to which a file of *size* bytes may expand.

    Example:
        >>> unpacked_limit(0)
        268435456
    """
    return min(UNPACKED_ALWAYS + UNPACKED_A_BYTE * size, max(UNPACKED_MOST, MORE * size))


def _page(content: Content, at: int) -> tuple[int, int, int]:
    """Return the offset of the end of the page at *at*, and the numbers of values and of bytes that it declares."""
    header = Skimmer(content, at)
    numbers = {_UNPACKED: -1, _PACKED: -1}
    count = encoding = 0  # of an index page, which has no values
    try:
        for number, kind in header.fields():
            if number in numbers and kind == I32:
                numbers[number] = header.integer()
            elif number in _HEADERS and kind == STRUCT:
                found = header.numbers({_COUNT: -1, _HEADERS[number]: 0})
                count, encoding = found[_COUNT], found[_HEADERS[number]]
            else:
                header.skip(kind)
    except (IndexError, RecursionError) as error:
        raise Malformed("parquet", "the header of a page cannot be read") from error
    size = numbers[_UNPACKED]
    if min(count, *numbers.values()) < 0:
        raise Malformed("parquet", f"a page declares {count} values and {size} bytes")
    if encoding == _SHARED_PREFIXES and not memory_is_limited:
        if count * size > UNPACKED_ALWAYS:
            reason = f"{count} values in a page share prefixes, and may be {size} bytes each; read it with isolate=True"
            raise Malformed("parquet", reason)
        size *= max(1, count)
    return header.at + numbers[_PACKED], count, size
