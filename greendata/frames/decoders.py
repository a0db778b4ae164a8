"""Bytes to frames: a body read with a bound on its size, parsed in the pool, and checked."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from io import BytesIO
from typing import IO, TYPE_CHECKING

import polars as pl

from greendata.errors import BadArgument, BodyTooLarge
from greendata.frames import readers
from greendata.frames.formats import Format, format_of
from greendata.hub import pool

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ("MAX_BYTES", "decode")

MAX_BYTES = 1 << 26  # 64 MiB: some 600 000 rows of NDJSON; a body that is larger than that is asked for by name
READ_BYTES = 1 << 18  # in one call of read: a copy of that size holds the GIL for some 50 microseconds


def decode(
    source: bytes | bytearray | memoryview | IO[bytes],
    format: Format,
    *,
    schema: pl.Schema | None = None,
    model: type[BaseModel] | None = None,
    max_bytes: int = MAX_BYTES,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> pl.DataFrame:
    """The frame that *source* holds. The calling greenlet reads and waits; the pool parses.

    JSON may be an array of objects (rows) or an object of arrays (columns).

    Args:
        source: the bytes, or a binary file, read in the calling greenlet to its end and left open.
        schema: the columns, by name and in this order. Columns that *source* lacks are null, others are left out;
            in Arrow and Parquet it has to be the schema that is found. Without it types are inferred.
        model: a pydantic model that the rows must satisfy; without *schema* it gives that too.
        max_bytes: read at most, plus one.
        timeout: the deadline of the parsing in seconds.
        key: for fairness, see `greendata.hub.pool.Pool.submit`.
        label: what its job is called.

    Raises:
        BadChoice, BadArgument, BadTimeout: the arguments cannot be used.
        BodyTooLarge: there is more than *max_bytes*; what was read is dropped.
        Malformed: the bytes are not *format*, or do not have the columns or types of *schema*.
        FrameInvalid: rows that *model* refuses.

    Example:
        >>> decode(b'{"a": 1}', "ndjson").rows()
        [(1,)]
    """
    read = readers.reader_of(format_of(format))
    content = _content(source, max_bytes)
    label = label or f"decode {format}"
    return pool.submit(read, content, schema, timeout=timeout, key=key, label=label).get()


def _content(source: bytes | bytearray | memoryview | IO[bytes], max_bytes: int) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        size = memoryview(source).nbytes
        if size > max_bytes:
            raise BodyTooLarge(max_bytes)
        return bytes(source)
    read: Callable[[int], bytes] | None = getattr(source, "read", None)
    if read is None:
        raise BadArgument("source", source, "bytes or a binary file")
    content = BytesIO()
    while piece := read(min(READ_BYTES, max_bytes + 1 - content.tell())):
        content.write(piece)
        if content.tell() > max_bytes:
            raise BodyTooLarge(max_bytes)
    return content.getvalue()
