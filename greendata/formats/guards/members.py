"""How many members an object of JSON has, told before a parser reads it.

The parser of Polars looks through the members of an object for each that has a name of theirs: a million of one name
take it minutes. Call on a worker: the bytes are looked at in windows, for the GIL's sake.
"""

from __future__ import annotations

from functools import reduce

import polars as pl

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import SCAN_BYTES, Content, count
from greendata.formats.guards.depth import DEPTH
from greendata.hub.pacing import give_way

__all__ = ("MEMBERS", "reject_many_members")

MEMBERS = 1 << 16  # of an object; as many of one name take Polars a tenth of a second, and the square of that for more

_MANY = 1 << 8  # commas that are counted as one sign
_SIGN = "m"
_BUT_STRUCTURE = bytes(range(256)).translate(None, b'[]{},"')
_FLAT = rf"[\[{{][,{_SIGN}]*[\]}}]"
_PAIR = reduce(lambda inner, _: rf"\[(?:[,{_SIGN}]|{inner})*\]|{inner}", range(3), _FLAT)  # arrays have several levels
_ITEMS = rf"\[[,{_SIGN}]+"
_LARGE = rf"\{{(?:,*{_SIGN}){{{MEMBERS // _MANY}}}"


def reject_many_members(content: Content, format: str) -> None:
    """Raise Malformed if an object in *content* has more than `MEMBERS` members. What is no JSON is for the parser.

    Example:
        >>> reject_many_members(b'[{"a": 1, "a": 2}]', "json")
    """
    if count(content, b":") <= MEMBERS:
        return
    begin, is_open, left = 0, False, ""  # within a string; what has begun and not ended
    while begin < len(content):
        chunk = content[begin : begin + SCAN_BYTES]
        if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 and begin + len(chunk) < len(content):
            chunk = chunk[:-1]  # a backslash belongs to what comes next
        begin += len(chunk)
        parts = chunk.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _BUT_STRUCTURE).split(b'"')
        left = _open(left + b"".join(parts[is_open::2]).replace(b"{}", b"").decode())
        if pl.Series([left]).str.contains(_LARGE).item():
            raise Malformed(format, f"an object in it has more than {MEMBERS} members")
        is_open ^= len(parts) % 2 == 0
        give_way()


def _open(structure: str) -> str:
    """What of *structure* has not ended; or has ended, and is large."""
    found, length = pl.Series([structure]), len(structure) + 1
    for _ in range(DEPTH):
        found = found.str.replace_all("," * _MANY, _SIGN, literal=True)
        if found.str.len_bytes().item() == length or found.str.contains(_LARGE).item():
            break
        length = found.str.len_bytes().item()
        found = found.str.replace_all(_PAIR, "")
    open_ones: str = found.str.replace_all(_ITEMS, "[").item()
    return open_ones.lstrip(f",{_SIGN}]}}")
