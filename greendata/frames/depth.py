"""How deep JSON nests, told before a parser reads it: what a stranger sent may be nothing but brackets.

Polars 2.0 overflows its stack at some thousands of levels and takes the process along. Later versions refuse that,
and take a time that grows with the cube of the depth to infer a schema from a body of a kilobyte (1.3 s of native
work for 400 levels). Call on a worker: some C calls for each window, none of which holds the GIL for a millisecond.
"""

from __future__ import annotations

from greendata.errors import Malformed
from greendata.frames.lines import WINDOW_BYTES, Content, line_end
from greendata.hub.pacing import give_way

__all__ = ("DEPTH", "refuse_deep_document", "refuse_deep_lines")

DEPTH = 64  # levels that are always taken, as in Arrow's own readers; thrice as many never are

_ALL = bytes(range(256))
_BUT_OPENERS = _ALL.translate(None, b"[{\n")
_BUT_STRUCTURE = _ALL.translate(None, b'[]{}"')


def refuse_deep_lines(content: Content) -> None:
    r"""Raise Malformed, which names the line, if a line of NDJSON nests too deep.

    Example:
        >>> refuse_deep_lines(b'{"a":1}\n{"a":' + b"[" * 200 + b"]" * 200 + b"}")
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid ndjson, line 2: it nests more than 64 levels deep
    """
    begin, line = 0, 1
    while begin < len(content):
        window = content[begin : begin + WINDOW_BYTES]
        whole = window.rfind(b"\n") + 1  # lines
        if whole:
            openers = window[:whole].translate(None, _BUT_OPENERS).split(b"\n")
            if max(map(len, openers)) > DEPTH:
                _refuse_one_of(window[:whole].split(b"\n"), line)
            begin, line = begin + whole, line + len(openers) - 1
        else:
            end = line_end(content, begin)
            _refuse(content, begin, end, line)
            begin, line = end, line + 1
        give_way()


def refuse_deep_document(content: bytes) -> None:
    """Raise Malformed if a JSON document nests too deep.

    Example:
        >>> refuse_deep_document(b'[{"a": "[[["}]')
    """
    _refuse(content, 0, len(content), None)


def _refuse_one_of(lines: list[bytes], first: int) -> None:
    for number, line in enumerate(lines, first):
        if len(line) > DEPTH:
            _refuse(line, 0, len(line), number)


def _refuse(content: Content, begin: int, end: int, line: int | None) -> None:
    """Raise Malformed if the document from *begin* to *end* nests too deep; *line* is where it stands."""
    is_open, left = False, b""  # within a string; the brackets that no bracket has closed yet
    while begin < end:
        window = _unbroken(content[begin : min(begin + WINDOW_BYTES, end)], is_last=begin + WINDOW_BYTES >= end)
        begin += len(window)
        unescaped = window.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = unescaped.translate(None, _BUT_STRUCTURE).split(b'"')
        left = _strip(left + b"".join(parts[is_open::2]), line)
        is_open ^= len(parts) % 2 == 0
        give_way()


def _unbroken(window: bytes, *, is_last: bool) -> bytes:
    """Without a backslash at its end that belongs to what comes next."""
    backslashes = len(window) - len(window.rstrip(b"\\"))
    return window if is_last or backslashes % 2 == 0 else window[:-1]


def _strip(brackets: bytes, line: int | None) -> bytes:
    """What is left of *brackets* without the pairs: a level or two at a time, the innermost first."""
    for _ in range(DEPTH):
        stripped = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(stripped) == len(brackets):
            break
        brackets = stripped
    if brackets.count(b"[") + brackets.count(b"{") > DEPTH:
        raise Malformed("json" if line is None else "ndjson", f"it nests more than {DEPTH} levels deep", line=line)
    return brackets
