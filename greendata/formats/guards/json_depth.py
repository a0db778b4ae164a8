"""Check how deep JSON nests before a parser reads it: an untrusted body may consist of brackets only.

Polars 2.0 overflows its stack at some thousands of levels, which ends the process. Later versions raise an error
instead. But the time that they take to infer a schema grows with the depth of each value, and for NDJSON with the cube
of the depth: 64 levels take 200 times as long as flat JSON of the same size. So where a schema is to be inferred, each
nested value is given a weight, and a body is rejected if the sum of the weights is out of proportion to its size.

Call on a worker. Each chunk takes a few C calls, none of which holds the GIL for a millisecond.
"""

from __future__ import annotations

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import SCAN_BYTES, Content, line_end
from greendata.hub.pacing import release_gil

__all__ = ("DEPTH", "reject_deep_document", "reject_deep_lines")

DEPTH = 64  # levels that are always accepted, as in Arrow's own readers; more than three times as many never are
FLAT = 4  # a line with at most so many opening brackets is not weighed

EFFORT_ALWAYS = 1 << 20  # weight that is always accepted: some 50 ms of inferring types
EFFORT_A_BYTE = 2  # additional weight that is accepted for each byte of the body

_ALL = bytes(range(256))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_BUT_OPENERS = _ALL.translate(None, b"[{\n")
_BUT_STRUCTURE = _ALL.translate(None, b'[]{}"')


class _Effort:
    """The work of inferring the types of nested values: the depth of each, to the power of *power*, added up."""

    def __init__(self, size: int, format: str, power: int) -> None:
        self._left = EFFORT_ALWAYS + EFFORT_A_BYTE * size
        self._format = format
        self._power = power

    def spend(self, level: int, values: int) -> None:
        """Add the weight of *values* that are *level* deep. Raise Malformed if the total exceeds the limit."""
        self._left -= values * level**self._power
        if self._left < 0:
            reason = f"so much of it nests {level} levels deep that it takes too long to infer types; give a schema"
            raise Malformed(self._format, reason)


def reject_deep_lines(content: Content, *, inferred: bool = False) -> None:
    r"""Raise Malformed, with the number of the line, if a line of NDJSON nests too deep.

    Args:
        inferred: True if a schema is to be inferred.

    Example:
        >>> reject_deep_lines(b'{"a":1}\n{"a":' + b"[" * 200 + b"]" * 200 + b"}")
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid ndjson, line 2: it nests more than 64 levels deep
    """
    effort = _Effort(len(content), "ndjson", 2) if inferred else None
    begin, line = 0, 1
    while begin < len(content):
        chunk = content[begin : begin + SCAN_BYTES]
        whole = chunk.rfind(b"\n") + 1  # the size of the complete lines in it
        if whole:
            openers = chunk[:whole].translate(None, _BUT_OPENERS).split(b"\n")
            most = max(map(len, openers))
            if most > DEPTH:
                _reject_deepest(chunk[:whole].split(b"\n"), line)
            if most > FLAT and effort is not None:
                _reject(chunk, 0, whole, line, effort)
            begin, line = begin + whole, line + len(openers) - 1
        else:
            end = line_end(content, begin)
            _reject(content, begin, end, line, effort)
            begin, line = end, line + 1
        release_gil()


def reject_deep_document(content: bytes, *, inferred: bool = False) -> None:
    """Raise Malformed if a JSON document nests too deep.

    Args:
        inferred: True if a schema is to be inferred.

    Example:
        >>> reject_deep_document(b'[{"a": "[[["}]')
    """
    _reject(content, 0, len(content), None, _Effort(len(content), "json", 1) if inferred else None)


def _reject_deepest(lines: list[bytes], first: int) -> None:
    for number, line in enumerate(lines, first):
        if len(line) > DEPTH:
            _reject(line, 0, len(line), number, None)


def _reject(content: Content, begin: int, end: int, line: int | None, effort: _Effort | None) -> None:
    """Raise Malformed if the document from *begin* to *end*, which is on *line*, nests too deep."""
    is_open, left = False, b""  # whether it is within a string; the brackets that are not closed yet
    while begin < end:
        chunk = _without_open_escape(content[begin : min(begin + SCAN_BYTES, end)], is_last=begin + SCAN_BYTES >= end)
        begin += len(chunk)
        unescaped = chunk.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = unescaped.translate(None, _BUT_STRUCTURE).split(b'"')
        left = _strip_pairs((left + b"".join(parts[is_open::2])).translate(_ONE_KIND), line, effort)
        is_open ^= len(parts) % 2 == 0
        release_gil()


def _without_open_escape(chunk: bytes, *, is_last: bool) -> bytes:
    """Return *chunk* without a final backslash that escapes the next character."""
    backslashes = len(chunk) - len(chunk.rstrip(b"\\"))
    return chunk if is_last or backslashes % 2 == 0 else chunk[:-1]


def _strip_pairs(brackets: bytes, line: int | None, effort: _Effort | None) -> bytes:
    """Remove the pairs from *brackets*, which are all square, level by level from the innermost; return the rest."""
    for level in range(1, DEPTH + 1):
        stripped = brackets.replace(b"[]", b"")
        if len(stripped) == len(brackets):
            break
        if effort is not None:
            effort.spend(level, (len(brackets) - len(stripped)) // 2)
        brackets = stripped
    if brackets.count(b"[") > DEPTH:
        raise Malformed("json" if line is None else "ndjson", f"it nests more than {DEPTH} levels deep", line=line)
    return brackets
