"""Text looked at in windows: where its lines end, what is in it, and at which record a reader fails.

A body may be one line of 64 MiB, or a quote that nothing closes. One call on all of it holds the GIL for as long as the
hub needs it for a hundred turns; so none here is for more than a chunk. Call on a worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import NamedTuple

from greendata.hub.pacing import give_way

__all__ = (
    "Content",
    "Failure",
    "SCAN_BYTES",
    "count",
    "first_byte",
    "first_failure",
    "has_large_record",
    "line_end",
    "unclosed_quote_line",
)

SCAN_BYTES = 1 << 18  # looked at in one call: some 50 microseconds
LARGE_BYTES = 1 << 20  # a record of more than that is not read by itself

_SHUT = re.compile(rb'(?:[^"\n]*+"[^"]*+")*+[^"\n]*+\n')  # the rest of a record, from outside quotes on
_OPEN = re.compile(rb'[^"]*+"' + _SHUT.pattern)  # likewise, from inside

Content = bytes | mmap
Check = Callable[[bytes, int], Exception | None]


class Failure(NamedTuple):
    """The record at which a reader fails.

    Attributes:
        line: on which it begins, counted from 1.
        record: its bytes; none of one that is large.
        error: what the reader raises for it; None for one that is large: it was not read, but all others are well.
    """

    line: int
    record: bytes
    error: Exception | None


def first_byte(content: Content, begin: int = 0, *, skip: bytes | None = None) -> int:
    r"""Where the first byte from *begin* on is that is no white space, or none of *skip*; the end if there is none.

    Example:
        >>> first_byte(b" \n{}")
        2
    """
    for start, end in _scan_ranges(begin, len(content)):
        if rest := content[start:end].lstrip(skip):
            return end - len(rest)
    return len(content)


def line_end(content: Content, begin: int) -> int:
    r"""Where the line that *begin* is in ends: behind its line break, or at the end of *content*.

    Example:
        >>> line_end(b"a\nb", 0), line_end(b"a\nb", 2)
        (2, 3)
    """
    for start, end in _scan_ranges(begin, len(content)):
        if found := content.find(b"\n", start, end) + 1:
            return found
    return len(content)


def count(content: Content, byte: bytes, begin: int = 0, end: int | None = None) -> int:
    r"""How often *byte* is in *content*, or between two places of it.

    Example:
        >>> count(b"a\nb\n", b"\n"), count(b"a\nb\n", b"\n", 2)
        (2, 1)
    """
    windows = _scan_ranges(begin, len(content) if end is None else end)
    return sum(content[start:stop].count(byte) for start, stop in windows)


def first_failure(content: bytes, check: Check, *, quoted: bool) -> Failure | None:
    r"""The first record that *check* has an error for; None if there is none when they are looked at in pieces.

    Where all other records are well, it is the first of the large ones.

    Args:
        check: tells the error for some records in a row, and is told the offset at which they begin.
        quoted: a line break within double quotes belongs to its record.

    Example:
        >>> first_failure(b"1\n2\nx\n", lambda some, _: ValueError() if b"x" in some else None, quoted=False).line
        3
    """
    line, large = 1, None
    for begin, end in _split_large(content, quoted=quoted):
        if end - begin > LARGE_BYTES:
            large = large or Failure(line, b"", None)
        elif check(piece := content[begin:end], begin) is not None:
            return _locate(piece, begin, line, check=check, quoted=quoted)
        line += count(content, b"\n", begin, end)
    return large


def has_large_record(content: bytes) -> bool:
    """Is there a record of CSV that is too large to be read by itself?

    Example:
        >>> has_large_record(b"a,b" * LARGE_BYTES)
        True
    """
    return any(end - begin > LARGE_BYTES for begin, end in _record_ranges(content, quoted=True))


def unclosed_quote_line(content: bytes) -> int | None:
    r"""On which line the record of CSV begins whose quotes are not closed; None where all are.

    Example:
        >>> unclosed_quote_line(b'a\n"b"\n"c'), unclosed_quote_line(b"a")
        (3, None)
    """
    if count(content, b'"') % 2 == 0:
        return None
    *_, (begin, _) = _record_ranges(content, quoted=True)
    return 1 + count(content, b"\n", 0, _last_record_start(content, begin, quoted=True))


def _records(content: bytes, *, quoted: bool) -> list[bytes]:
    """The records of a short text, with their line breaks."""
    found: list[bytes] = []
    lines: list[bytes] = []  # of the record that is open
    is_open = False
    for line in _lines(content):
        lines.append(line)
        is_open ^= quoted and line.count(b'"') % 2 == 1
        if not is_open:
            found.append(b"".join(lines))
            lines.clear()
    return [*found, b"".join(lines)] if lines else found


def _scan_ranges(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Windows from *begin* to *end*, with a rest between them."""
    for start in range(begin, end, SCAN_BYTES):
        if start > begin:
            give_way()
        yield start, min(start + SCAN_BYTES, end)


def _lines(content: bytes) -> list[bytes]:
    *lines, last = content.split(b"\n")
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _locate(piece: bytes, begin: int, line: int, *, check: Check, quoted: bool) -> Failure:
    """The shortest beginning of *piece* that fails ends with the record in question."""
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
    return Failure(line + sum(part.count(b"\n") for part in parts[:good]), parts[good], error)


def _split_large(content: bytes, *, quoted: bool) -> Iterator[tuple[int, int]]:
    """Where records begin and end: some of a chunk's size together, or a large one by itself."""
    for begin, end in _record_ranges(content, quoted=quoted):
        opens = _last_record_start(content, begin, quoted=quoted) if end - begin > LARGE_BYTES else begin
        if opens > begin:
            yield begin, opens
        yield opens, end


def _record_ranges(content: bytes, *, quoted: bool) -> Iterator[tuple[int, int]]:
    """The records that begin in a chunk, and where the last of them ends; then those of the next."""
    begin = end = 0
    while end < len(content):
        begin, end = end, line_end(content, end + SCAN_BYTES)
        if quoted and count(content, b'"', begin, end) % 2:
            end = _quoted_record_end(content, end)
        yield begin, end


def _last_record_start(content: bytes, begin: int, *, quoted: bool) -> int:
    """Where the last of the records begins that begin in the chunk at *begin*, which is where a record begins."""
    chunk = content[begin : begin + SCAN_BYTES]
    last = _records(chunk, quoted=quoted)[-1]
    is_whole = last.endswith(b"\n") and not (quoted and last.count(b'"') % 2)
    return begin + len(chunk) - (0 if is_whole else len(last))


def _quoted_record_end(content: bytes, begin: int) -> int:
    """Where the record ends that is within quotes at *begin*."""
    is_open = True
    for start, end in _scan_ranges(begin, len(content)):
        if found := (_OPEN if is_open else _SHUT).match(content, start, end):
            return found.end()
        is_open ^= content.count(b'"', start, end) % 2 == 1
    return len(content)
