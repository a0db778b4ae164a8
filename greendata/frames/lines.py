"""Where in a text a reader fails: Polars does not tell the line, so pieces of the text are read until one fails.

All of it is native work on slices of a mebibyte, about as much again as the reading that failed. Call on a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from greendata.hub.pacing import give_way

__all__ = ("Failure", "count", "first_failure", "records")

PIECE_BYTES = 1 << 20

Check = Callable[[bytes, int], Exception | None]


class Failure(NamedTuple):
    """The record at which a reader fails.

    Attributes:
        line: on which it begins, counted from 1.
        record: its bytes.
        error: what the reader raises for it.
    """

    line: int
    record: bytes
    error: Exception


def count(content: bytes, byte: bytes) -> int:
    r"""How often *byte* is in *content*, counted piece by piece, for the GIL's sake.

    Example:
        >>> count(b"a\nb\n", b"\n")
        2
    """
    found = 0
    for begin in range(0, len(content), PIECE_BYTES):
        found += content.count(byte, begin, begin + PIECE_BYTES)
        give_way()
    return found


def first_failure(content: bytes, check: Check, *, quoted: bool) -> Failure | None:
    r"""The first record that *check* has an error for; None if there is none when they are looked at in pieces.

    Args:
        check: tells the error for some records in a row, and is told the offset at which they begin.
        quoted: a line break within double quotes belongs to its record.

    Example:
        >>> first_failure(b"1\n2\nx\n", lambda some, _: ValueError() if b"x" in some else None, quoted=False).line
        3
    """
    line = 1
    for begin, end in _pieces(content, quoted=quoted):
        piece = content[begin:end]
        if check(piece, begin) is not None:
            return _within(piece, begin, line, check=check, quoted=quoted)
        line += piece.count(b"\n")
        give_way()
    return None


def records(content: bytes, *, quoted: bool) -> list[bytes]:
    r"""The records of a short text, with their line breaks.

    Example:
        >>> records(b'a\n"b\nc"\n', quoted=True)
        [b'a\n', b'"b\nc"\n']
    """
    found: list[bytes] = []
    is_open = False
    for line in _lines(content):
        if is_open:
            found[-1] += line
        else:
            found.append(line)
        is_open ^= quoted and line.count(b'"') % 2 == 1
    return found


def _lines(content: bytes) -> list[bytes]:
    *lines, last = content.split(b"\n")
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _within(piece: bytes, begin: int, line: int, *, check: Check, quoted: bool) -> Failure:
    """The shortest beginning of *piece* that fails ends with the record in question."""
    parts = records(piece, quoted=quoted)
    good, bad = 0, len(parts)
    error = check(piece, begin)
    while bad - good > 1:
        middle = (good + bad) // 2
        found = check(b"".join(parts[:middle]), begin)
        if found is None:
            good = middle
        else:
            bad, error = middle, found
    assert error is not None
    return Failure(line + sum(part.count(b"\n") for part in parts[:good]), parts[good], error)


def _pieces(content: bytes, *, quoted: bool) -> Iterator[tuple[int, int]]:
    return pairwise(_borders(content, quoted=quoted))


def _borders(content: bytes, *, quoted: bool) -> Iterator[int]:
    yield 0
    border = counted = quotes = 0
    while border < len(content):
        border = content.find(b"\n", border + PIECE_BYTES) + 1 or len(content)
        if quoted:
            quotes += content.count(b'"', counted, border)
            counted = border
            if quotes % 2 and border < len(content):
                continue
        yield border
