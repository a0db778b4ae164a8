"""How deep JSON nests, told before a parser reads it: what a stranger sent may be nothing but brackets.

Polars 2.0 overflows its stack at some thousands of levels and takes the process along. Later versions refuse that,
and take a time that grows with the depth of each value, for lines with its cube, to infer a schema: 64 levels are 200
times the work of as many bytes that are flat. So where a schema is inferred, what nests is weighed, and a body of which
that is more than its bytes is refused. Call on a worker: some C calls for each chunk, none of which holds the GIL for
a millisecond.
"""

from __future__ import annotations

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import SCAN_BYTES, Content, line_end
from greendata.hub.pacing import give_way

__all__ = ("DEPTH", "reject_deep_document", "reject_deep_lines")

DEPTH = 64  # levels that are always taken, as in Arrow's own readers; thrice as many never are
FLAT = 4  # brackets that open in a line which is not worth weighing

EFFORT_ALWAYS = 1 << 20  # weight that is always taken: some 50 ms
EFFORT_A_BYTE = 2  # weight of a byte of the body

_ALL = bytes(range(256))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_BUT_OPENERS = _ALL.translate(None, b"[{\n")
_BUT_STRUCTURE = _ALL.translate(None, b'[]{}"')


class _Effort:
    """What it takes to infer the types of what nests: of each array and object the square of its levels, or these."""

    def __init__(self, size: int, format: str, power: int) -> None:
        self._left = EFFORT_ALWAYS + EFFORT_A_BYTE * size
        self._format = format
        self._power = power

    def spend(self, level: int, values: int) -> None:
        """Count *values* of so many levels; raise Malformed if it is too much."""
        self._left -= values * level**self._power
        if self._left < 0:
            reason = f"so much of it nests {level} levels deep that it takes too long to infer types; give a schema"
            raise Malformed(self._format, reason)


def reject_deep_lines(content: Content, *, inferred: bool = False) -> None:
    r"""Raise Malformed, which names the line, if a line of NDJSON nests too deep.

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
        whole = chunk.rfind(b"\n") + 1  # lines
        if whole:
            openers = chunk[:whole].translate(None, _BUT_OPENERS).split(b"\n")
            most = max(map(len, openers))
            if most > DEPTH:
                _refuse_one_of(chunk[:whole].split(b"\n"), line)
            if most > FLAT and effort is not None:
                _refuse(chunk, 0, whole, line, effort)
            begin, line = begin + whole, line + len(openers) - 1
        else:
            end = line_end(content, begin)
            _refuse(content, begin, end, line, effort)
            begin, line = end, line + 1
        give_way()


def reject_deep_document(content: bytes, *, inferred: bool = False) -> None:
    """Raise Malformed if a JSON document nests too deep.

    Args:
        inferred: True if a schema is to be inferred.

    Example:
        >>> reject_deep_document(b'[{"a": "[[["}]')
    """
    _refuse(content, 0, len(content), None, _Effort(len(content), "json", 1) if inferred else None)


def _refuse_one_of(lines: list[bytes], first: int) -> None:
    for number, line in enumerate(lines, first):
        if len(line) > DEPTH:
            _refuse(line, 0, len(line), number, None)


def _refuse(content: Content, begin: int, end: int, line: int | None, effort: _Effort | None) -> None:
    """Raise Malformed if the document from *begin* to *end* nests too deep; *line* is where it stands."""
    is_open, left = False, b""  # within a string; the brackets that no bracket has closed yet
    while begin < end:
        chunk = _unbroken(content[begin : min(begin + SCAN_BYTES, end)], is_last=begin + SCAN_BYTES >= end)
        begin += len(chunk)
        unescaped = chunk.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = unescaped.translate(None, _BUT_STRUCTURE).split(b'"')
        left = _strip((left + b"".join(parts[is_open::2])).translate(_ONE_KIND), line, effort)
        is_open ^= len(parts) % 2 == 0
        give_way()


def _unbroken(chunk: bytes, *, is_last: bool) -> bytes:
    """Without a backslash at its end that belongs to what comes next."""
    backslashes = len(chunk) - len(chunk.rstrip(b"\\"))
    return chunk if is_last or backslashes % 2 == 0 else chunk[:-1]


def _strip(brackets: bytes, line: int | None, effort: _Effort | None) -> bytes:
    """What is left of *brackets*, which are of one kind, without the pairs: a level at a time, the innermost first."""
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
