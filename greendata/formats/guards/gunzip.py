"""Decompress gzip (RFC 1952) from untrusted sources: in small steps, up to a limit, to its end or not at all.

A few kilobytes may stand for gigabytes. So no step returns more than `STEP_BYTES`, and the caller counts. zlib releases
the GIL during a step.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

from greendata.errors import BodyTooLarge, Malformed
from greendata.hub.pacing import GilReleaser

__all__ = ("GZIP", "MEMBERS", "gunzip", "inflate")

GZIP = b"\x1f\x8b"  # the first bytes of a member
INPUT_BYTES = 1 << 14  # for one step: zlib copies what a step leaves of its input
MEMBERS = 1 << 16  # in a file, at most: even a member without content takes some microseconds of Python
STEP_BYTES = 1 << 17  # that a step returns, at most

_WBITS = 16 + zlib.MAX_WBITS  # zlib expects the header of gzip, and checks its checksum and length


def inflate(pieces: Iterable[bytes], *, max_members: int = 1) -> Iterator[bytes]:
    """Yield the decompressed bytes of *pieces*, at most `STEP_BYTES` at a time.

    Args:
        pieces: the compressed bytes.
        max_members: how many gzip streams may follow each other, as in a file to which gzip has appended. A message has
            one: some clients and servers drop the others.

    Raises:
        Malformed: it is not gzip, it is cut short, or something follows its end. What came before has been yielded.

    Example:
        >>> import gzip
        >>> b"".join(inflate([gzip.compress(b"text")]))
        b'text'
    """
    member: Any = zlib.decompressobj(_WBITS)
    members = 1
    for piece in pieces:
        for begin in range(0, len(piece), INPUT_BYTES):
            rest = piece[begin : begin + INPUT_BYTES]
            while rest:
                if member.eof:
                    _check_next(rest, members, max_members)
                    member = zlib.decompressobj(_WBITS)
                    members += 1
                yield _step(member, rest)
                rest = member.unused_data if member.eof else member.unconsumed_tail
    while not member.eof and (kept := _step(member, b"")):  # a full step may leave output behind
        yield kept
    if not member.eof:
        raise Malformed("gzip", "it is cut short")


def gunzip(content: bytes, max_bytes: int, *, max_members: int = 1) -> bytes:
    """Return the decompressed *content*, see `inflate`. Call on a worker.

    Raises:
        BodyTooLarge: it has more than *max_bytes*. The rest was not decompressed.
        Malformed: see `inflate`.

    Example:
        >>> gunzip(zlib.compress(bytes(1 << 20), wbits=31), 1 << 10)
        Traceback (most recent call last):
        greendata.errors.formats.BodyTooLarge: the input is larger than the limit of 1024 bytes; ...
    """
    unpacked = BytesIO()
    gil = GilReleaser()
    for piece in inflate([content], max_members=max_members):
        unpacked.write(piece)
        if unpacked.tell() > max_bytes:
            raise BodyTooLarge(max_bytes)
        gil.release_if_due()
    return unpacked.getvalue()


def _step(member: Any, data: bytes) -> bytes:
    try:
        piece: bytes = member.decompress(data, STEP_BYTES)
    except zlib.error as error:
        raise Malformed("gzip", str(error).rpartition(": ")[2]) from error
    return piece


def _check_next(rest: bytes, members: int, max_members: int) -> None:
    """Raise Malformed unless another member may follow, and *rest* begins with it."""
    if not GZIP.startswith(rest[: len(GZIP)]):
        raise Malformed("gzip", "something else follows its end")
    if members >= max_members:
        most = "more than one gzip stream; compress it as one" if max_members == 1 else f"over {max_members} streams"
        raise Malformed("gzip", f"it has {most}")
