"""Check how many members a JSON object has before a parser reads it.

For each member that repeats a name, the parser of Polars searches all members of the object: a million members of one
name take minutes. Call on a worker. The bytes are scanned in chunks, so that no call holds the GIL for long.
"""

from __future__ import annotations

from functools import reduce

import polars as pl

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import SCAN_BYTES, Content, count
from greendata.formats.guards.json_depth import DEPTH
from greendata.hub.pacing import release_gil

__all__ = ("MEMBERS", "reject_many_members")

MEMBERS = 1 << 16  # of an object: Polars takes 0.1 s for so many of one name, and the time grows with the square

_MANY = 1 << 8  # commas that are replaced by one _SIGN
_SIGN = "m"
_BUT_STRUCTURE = bytes(range(256)).translate(None, b'[]{},"')
_FLAT = rf"[\[{{][,{_SIGN}]*[\]}}]"
_PAIR = reduce(lambda inner, _: rf"\[(?:[,{_SIGN}]|{inner})*\]|{inner}", range(3), _FLAT)  # arrays may nest
_ITEMS = rf"\[[,{_SIGN}]+"
_LARGE = rf"\{{(?:,*{_SIGN}){{{MEMBERS // _MANY}}}"


def reject_many_members(content: Content, format: str) -> None:
    """Raise Malformed if an object in *content* has more than `MEMBERS` members.

    Invalid JSON is not detected here: the parser reports it.

    Example:
        >>> reject_many_members(b'[{"a": 1, "a": 2}]', "json")
    """
    if count(content, b":") <= MEMBERS:
        return
    begin, is_open, left = 0, False, ""  # is_open: within a string; left: the structure that is not closed yet
    while begin < len(content):
        chunk = content[begin : begin + SCAN_BYTES]
        if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 and begin + len(chunk) < len(content):
            chunk = chunk[:-1]  # the backslash escapes the next character
        begin += len(chunk)
        parts = chunk.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _BUT_STRUCTURE).split(b'"')
        left = _open(left + b"".join(parts[is_open::2]).replace(b"{}", b"").decode())
        if pl.Series([left]).str.contains(_LARGE).item():
            raise Malformed(format, f"an object in it has more than {MEMBERS} members")
        is_open ^= len(parts) % 2 == 0
        release_gil()


def _open(structure: str) -> str:
    """Return the part of *structure* that is not closed, or that is closed and has too many members."""
    found, length = pl.Series([structure]), len(structure) + 1
    for _ in range(DEPTH):
        found = found.str.replace_all("," * _MANY, _SIGN, literal=True)
        if found.str.len_bytes().item() == length or found.str.contains(_LARGE).item():
            break
        length = found.str.len_bytes().item()
        found = found.str.replace_all(_PAIR, "")
    open_ones: str = found.str.replace_all(_ITEMS, "[").item()
    return open_ones.lstrip(f",{_SIGN}]}}")
