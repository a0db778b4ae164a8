"""Decode bytes into frames: read a body up to a size limit, parse it in the pool, and validate it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from io import BytesIO
from time import perf_counter
from typing import IO, Any

import polars as pl

from greendata.errors import BadArgument, BodyTooLarge, FrameInvalid, Malformed
from greendata.formats.format import Format, format_of
from greendata.formats.json.partition import InvalidJson, partition_rows
from greendata.formats.json.rows import line_of
from greendata.formats.readers import read
from greendata.formats.writers import writer_of
from greendata.hub.pacing import BUDGET, breathe
from greendata.pool import pool
from greendata.pool.operation import operation
from greendata.schema.fields import columns_of
from greendata.validation.verbs import complete_validation, own_validate, validate

__all__ = ("MAX_BYTES", "content_of", "decode")

MAX_BYTES = 1 << 26  # 64 MiB: some 700 000 rows of NDJSON; a caller that expects more sets max_bytes
READ_BYTES = 1 << 18  # in one call of read: a copy of this size holds the GIL for some 50 microseconds

Source = bytes | bytearray | memoryview | IO[bytes]


def decode(
    source: Source,
    format: Format,
    *,
    schema: pl.Schema | None = None,
    model: type | None = None,
    max_bytes: int = MAX_BYTES,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> pl.DataFrame:
    """Decode *source* into a frame. The calling greenlet reads and waits; the pool parses.

    JSON is an array of objects (rows) or an object of arrays (columns). In text formats, values have the forms of
    `greendata.formats.text_encode`. In a column of strings, JSON numbers and booleans become their text.

    Args:
        source: the bytes, or a binary file. A file is read to its end in the calling greenlet, and is left open.
        format: "json", "ndjson", "csv", "arrow" or "parquet".
        schema: the columns to return, in this order; other columns are dropped. In JSON and NDJSON a column may be
            absent: its values are null. Arrow and Parquet must have exactly these dtypes. Without a schema, the dtypes
            are inferred from all rows.
        model: a pydantic model that the rows must satisfy: see `greendata.validation.verbs.validate`. Without a
            schema, each row of JSON is validated from its text, as by ``model_validate_json``. A row with more
            elements than pydantic is given (see there) fails.
        max_bytes: the maximum size in bytes. At most one byte more is read.
        timeout: the deadline of the parsing in seconds.
        key: the fairness key, see `greendata.pool.pool.Pool.submit`.
        label: the label of the job.

    Raises:
        BadChoice, BadArgument, BadTimeout: an argument is invalid.
        BodyTooLarge: *source* has more than *max_bytes*. What was read is discarded.
        Malformed: the bytes are not *format*, or do not have the columns and dtypes of *schema*, or would expand into
            a frame far beyond their size.
        FrameInvalid: some rows do not satisfy *model*.

    Example:
        >>> decode(b'{"a": [1, 2]}', "json").rows()
        [(1,), (2,)]
    """
    known = format_of(format)
    content = content_of(source, max_bytes)
    label = label or f"decode {known}"
    submit = partial(pool.submit, timeout=timeout, key=key, label=label)
    with operation(label):
        if known in ("json", "ndjson") and schema is None and model is not None and own_validate(model) is None:
            return _decode_rows(submit, content, known, model)
        as_text = model is not None  # pydantic converts text to numbers, but not numbers to text
        in_base64 = _binary(model) if as_text and known == "csv" else ()
        work = partial(read, content, known, schema, as_text=as_text, in_base64=in_base64)
        del content
        df = submit(work).get()
        return df if model is None else validate(df, model)


def _binary(model: type | None) -> tuple[str, ...]:
    """Return the names of the binary columns of *model*; none if it defines its own validation of frames."""
    if model is None or own_validate(model) is not None:
        return ()
    return tuple(name for column in columns_of(model) if column.codec.dtype == pl.Binary for name in column.sources)


def _decode_rows(submit: Callable[..., Any], content: bytes, format: Format, model: type) -> pl.DataFrame:
    """Return the frame of the JSON rows in *content*, after validating the text of each row with *model*."""
    try:
        rows, found = complete_validation(submit(partition_rows, content, format, model).get())
    except InvalidJson as invalid:
        raise pool.call(_malformed, content, format, invalid) from invalid
    if not found.failures.height:
        return found.good
    if any(column.codec.decoder(column.codec.dtype) for column in columns_of(model)):
        df = submit(partial(_encoded, content, format, model)).get()
        if df is not None:
            return validate(df, model)
    raise pool.call(FrameInvalid.with_text, model.__name__, rows, found.failures)


def _encoded(content: bytes, format: Format, model: type) -> pl.DataFrame | None:
    """Return the frame in *content* if `encode` wrote it from a frame of *model*, where dicts are pairs; else None."""
    columns = [column for column in columns_of(model) if column.sources]
    writer = writer_of(format, escape_formulas=False)
    try:
        df = read(content, format, pl.Schema({column.name: column.codec.dtype for column in columns}))
    except Malformed:
        return None
    return df if b"".join([*writer.add(df), writer.end()]) == content else None


def _malformed(content: bytes, format: Format, invalid: InvalidJson) -> Malformed:
    """Return the error for a row that is not JSON. Its line adds pydantic's line within the row to that of the row."""
    reason, _, place = invalid.reason.removeprefix("Invalid JSON: ").rpartition(" at line ")
    line = line_of(content, format, invalid.row)
    if line is None or not reason:
        return Malformed(format, reason or invalid.reason, row=invalid.row)
    return Malformed(format, reason, line=line + int(place.partition(" ")[0]) - 1)


def content_of(source: Source, max_bytes: int) -> bytes:
    """Return all bytes of *source*. It is read in pieces, and the hub runs other greenlets between them.

    Raises:
        BadArgument: *source* is neither bytes nor a binary file.
        BodyTooLarge: *source* has more than *max_bytes*. What was read is discarded.

    Example:
        >>> content_of(BytesIO(b"[]"), 2)
        b'[]'
    """
    if isinstance(source, bytes):
        if len(source) > max_bytes:
            raise BodyTooLarge(max_bytes)
        return source
    content = BytesIO()
    next_pause = perf_counter() + BUDGET
    for piece in _pieces(source, max_bytes + 1):
        content.write(piece)
        if content.tell() > max_bytes:
            raise BodyTooLarge(max_bytes)
        if perf_counter() >= next_pause:
            breathe()
            next_pause = perf_counter() + BUDGET
    return content.getvalue()


def _pieces(source: bytearray | memoryview | IO[bytes], most: int) -> Iterator[bytes | memoryview]:
    if isinstance(source, bytearray | memoryview):
        view = memoryview(source).cast("B")
        yield from (view[begin : begin + READ_BYTES] for begin in range(0, min(len(view), most), READ_BYTES))
        return
    read_some: Callable[[int], object] | None = getattr(source, "read", None)
    if read_some is None:
        raise BadArgument("source", source, "bytes or a binary file")
    while piece := read_some(min(READ_BYTES, most)):
        if not isinstance(piece, bytes):
            raise BadArgument("source", source, "bytes or a binary file")
        yield piece
        most -= len(piece)
