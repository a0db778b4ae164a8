"""Scan text in chunks: find line ends, count bytes, and find the record at which a reader fails.

A body may be a single line of 64 MiB, or have a quote that is never closed. One C call on all of it would hold the GIL
for as long as the hub needs for a hundred iterations of its loop. So no call here looks at more than `SCAN_BYTES`, and
the GIL is released between two chunks. Call all functions on a worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import NamedTuple

from greendata.hub.pacing import release_gil

__all__ = (
    "Content",
    "FailedRecord",
    "SCAN_BYTES",
    "count",
    "first_byte",
    "first_failure",
    "has_large_record",
    "line_end",
    "quoted_record_end",
    "unclosed_quote_line",
)

SCAN_BYTES = 1 << 18  # bytes in one chunk: a scan of them takes some 50 microseconds
LARGE_BYTES = 1 << 20  # bytes; a larger record is not passed to a check on its own

_SHUT = re.compile(rb'(?:[^"\n]*+"[^"]*+")*+[^"\n]*+\n')  # the rest of a record, beginning outside quotes
_OPEN = re.compile(rb'[^"]*+"' + _SHUT.pattern)  # the rest of a record, beginning inside quotes

Content = bytes | mmap
Check = Callable[[bytes, int], Exception | None]


class FailedRecord(NamedTuple):
    """The record at which a reader fails.

    Attributes:
        line: the line on which the record begins, counted from 1.
        record: the bytes of the record; empty if it is large.
        error: the exception that the reader raised for it. None if the record is large: it was not read, and all other
            records are valid.
    """

    line: int
    record: bytes
    error: Exception | None


def first_byte(content: Content, begin: int = 0, *, skip: bytes | None = None) -> int:
    r"""Return the offset of the first byte at or after *begin* that is not white space.

    With *skip*, return the offset of the first byte that is not in *skip*. If there is no such byte, return the length
    of *content*.

    Example:
        >>> first_byte(b" \n{}")
        2
    """
    for start, end in _scan_ranges(begin, len(content)):
        if rest := content[start:end].lstrip(skip):
            return end - len(rest)
    return len(content)


def line_end(content: Content, begin: int) -> int:
    r"""Return the offset of the end of the line that contains *begin*.

    That is the offset after the line break, or the length of *content* if no line break follows.

    Example:
        >>> line_end(b"a\nb", 0), line_end(b"a\nb", 2)
        (2, 3)
    """
    for start, end in _scan_ranges(begin, len(content)):
        if found := content.find(b"\n", start, end) + 1:
            return found
    return len(content)


def quoted_record_end(content: bytes, begin: int) -> int:
    r"""Return the offset of the end of the CSV record that is within quotes at *begin*, or the length of *content*.

    Example:
        >>> quoted_record_end(b'a,"b\nc",d\ne', 5)
        10
    """
    is_open = True
    for start, end in _scan_ranges(begin, len(content)):
        if found := (_OPEN if is_open else _SHUT).match(content, start, end):
            return found.end()
        is_open ^= content.count(b'"', start, end) % 2 == 1
    return len(content)


def count(content: Content, byte: bytes, begin: int = 0, end: int | None = None) -> int:
    r"""Count the occurrences of *byte* in *content*, or between the offsets *begin* and *end*.

    Example:
        >>> count(b"a\nb\n", b"\n"), count(b"a\nb\n", b"\n", 2)
        (2, 1)
    """
    ranges = _scan_ranges(begin, len(content) if end is None else end)
    return sum(content[start:stop].count(byte) for start, stop in ranges)


def first_failure(content: bytes, check: Check, *, quoted: bool) -> FailedRecord | None:
    r"""Return the first record for which *check* returns an error, or None if no group of records has one.

    Records larger than `LARGE_BYTES` are not checked. If all other records are valid, return the first large one.

    Args:
        check: a function that takes some consecutive records and the offset at which they begin. It returns the
            exception that a reader raises for them, or None.
        quoted: True if a line break within double quotes belongs to its record, as in CSV.

    Example:
        >>> first_failure(b"1\n2\nx\n", lambda some, _: ValueError() if b"x" in some else None, quoted=False).line
        3
    """
    line, large = 1, None
    for begin, end in _split_large(content, quoted=quoted):
        if end - begin > LARGE_BYTES:
            large = large or FailedRecord(line, b"", None)
        elif check(piece := content[begin:end], begin) is not None:
            return _locate(piece, begin, line, check=check, quoted=quoted)
        line += count(content, b"\n", begin, end)
    return large


def has_large_record(content: bytes) -> bool:
    """Return True if a CSV record in *content* is larger than `LARGE_BYTES`.

    Example:
        >>> has_large_record(b"a,b" * LARGE_BYTES)
        True
    """
    return any(end - begin > LARGE_BYTES for begin, end in _record_ranges(content, quoted=True))


def unclosed_quote_line(content: bytes) -> int | None:
    r"""Return the line on which the CSV record with an unclosed quote begins, or None if all quotes are closed.

    Example:
        >>> unclosed_quote_line(b'a\n"b"\n"c'), unclosed_quote_line(b"a")
        (3, None)
    """
    if count(content, b'"') % 2 == 0:
        return None
    *_, (begin, _) = _record_ranges(content, quoted=True)
    return 1 + count(content, b"\n", 0, _last_record_start(content, begin, quoted=True))


def _records(content: bytes, *, quoted: bool) -> list[bytes]:
    """Return the records of a short text, with their line breaks."""
    found: list[bytes] = []
    lines: list[bytes] = []  # the lines of the current record
    is_open = False
    for line in _lines(content):
        lines.append(line)
        is_open ^= quoted and line.count(b'"') % 2 == 1
        if not is_open:
            found.append(b"".join(lines))
            lines.clear()
    return [*found, b"".join(lines)] if lines else found


def _scan_ranges(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of the chunks from *begin* to *end*, and release the GIL between them."""
    for start in range(begin, end, SCAN_BYTES):
        if start > begin:
            release_gil()
        yield start, min(start + SCAN_BYTES, end)


def _lines(content: bytes) -> list[bytes]:
    *lines, last = content.split(b"\n")
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _locate(piece: bytes, begin: int, line: int, *, check: Check, quoted: bool) -> FailedRecord:
    """Return the failure in *piece*, by bisection: its shortest prefix that fails ends with the record in question."""
    parts = _records(piece, quoted=quoted)
    good, bad = 0, len(parts)
    error = check(piece, begin)
    while bad - good > 1:
        middle = (good + bad) // 2
        found = check(b"".join(parts[:middle]), begin)
        if found is None:
            good = middle
        else:
            bad, error = middle, found
    return FailedRecord(line + sum(part.count(b"\n") for part in parts[:good]), parts[good], error)


def _split_large(content: bytes, *, quoted: bool) -> Iterator[tuple[int, int]]:
    """Yield the ranges of groups of records: about `SCAN_BYTES` together, or a single large record."""
    for begin, end in _record_ranges(content, quoted=quoted):
        opens = _last_record_start(content, begin, quoted=quoted) if end - begin > LARGE_BYTES else begin
        if opens > begin:
            yield begin, opens
        yield opens, end


def _record_ranges(content: bytes, *, quoted: bool) -> Iterator[tuple[int, int]]:
    """Yield the ranges of the records that begin in each chunk; a range ends where its last record ends."""
    begin = end = 0
    while end < len(content):
        begin, end = end, line_end(content, end + SCAN_BYTES)
        if quoted and count(content, b'"', begin, end) % 2:
            end = quoted_record_end(content, end)
        yield begin, end


def _last_record_start(content: bytes, begin: int, *, quoted: bool) -> int:
    """Return the offset of the last record that begins in the chunk at *begin*. A record must begin at *begin*."""
    chunk = content[begin : begin + SCAN_BYTES]
    last = _records(chunk, quoted=quoted)[-1]
    is_whole = last.endswith(b"\n") and not (quoted and last.count(b'"') % 2)
    return begin + len(chunk) - (0 if is_whole else len(last))
