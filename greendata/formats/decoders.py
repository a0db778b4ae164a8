"""Bytes to frames: a body read with a bound on its size, parsed in the pool, and checked."""

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
from greendata.schema.fields import columns_of
from greendata.validation.verbs import complete_validation, own_validate, validate

__all__ = ("MAX_BYTES", "content_of", "decode")

MAX_BYTES = 1 << 26  # 64 MiB: some 700 000 rows of NDJSON; who expects more than that asks for it by name
READ_BYTES = 1 << 18  # in one call of read: a copy of that size holds the GIL for some 50 microseconds

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
    """The frame that *source* holds. The calling greenlet reads and waits; the pool parses.

    JSON is an array of objects (rows) or an object of arrays (columns). Text has values in the forms of
    `greendata.formats.text_encode`. A column of strings takes the JSON numbers and booleans in it as their text.

    Args:
        source: the bytes, or a binary file, which is read in the calling greenlet to its end and left open.
        schema: the columns, by name and in this order; other columns are left out. In JSON and NDJSON a column may
            be absent, its values are null then. Arrow and Parquet must have these very dtypes. Without a schema
            the types are inferred from all rows.
        model: a pydantic model that the rows must satisfy: see `greendata.validation.verbs.validate`. Without a
            schema it judges each row of JSON by the row's own text, as ``model_validate_json`` does; a row with more
            elements than it is asked about (see there) fails.
        max_bytes: read at most, plus one.
        timeout: the deadline of the parsing in seconds.
        key: for fairness, see `greendata.pool.pool.Pool.submit`.
        label: what its job is called.

    Raises:
        BadChoice, BadArgument, BadTimeout: the arguments cannot be used.
        BodyTooLarge: there is more than *max_bytes*; what was read is dropped.
        Malformed: the bytes are not *format*, or do not have the columns and types of *schema*; or the frame in
            them would be out of all proportion to their number.
        FrameInvalid: rows that *model* refuses.

    Example:
        >>> decode(b'{"a": [1, 2]}', "json").rows()
        [(1,), (2,)]
    """
    known = format_of(format)
    content = content_of(source, max_bytes)
    label = label or f"decode {known}"
    if known in ("json", "ndjson") and schema is None and model is not None and own_validate(model) is None:
        return _decode_rows(partial(pool.submit, timeout=timeout, key=key, label=label), content, known, model)
    as_text = model is not None  # pydantic takes numbers from text, but no text from the numbers of a CSV file
    in_base64 = _binary(model) if as_text and known == "csv" else ()
    work = partial(read, content, known, schema, as_text=as_text, in_base64=in_base64)
    del content
    df = pool.submit(work, timeout=timeout, key=key, label=label).get()
    return df if model is None else validate(df, model)


def _binary(model: type | None) -> tuple[str, ...]:
    """The columns that are binary for *model*, unless it brings a validation of its own."""
    if model is None or own_validate(model) is not None:
        return ()
    return tuple(name for column in columns_of(model) if column.codec.dtype == pl.Binary for name in column.sources)


def _decode_rows(submit: Callable[..., Any], content: bytes, format: Format, model: type) -> pl.DataFrame:
    """The rows of JSON in *content*, each of which *model* has judged by its own text."""
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
    """The frame in *content* if that is what `encode` writes of a frame of *model*: a dict is pairs there. Or None."""
    columns = [column for column in columns_of(model) if column.sources]
    writer = writer_of(format, escape_formulas=False)
    try:
        df = read(content, format, pl.Schema({column.name: column.codec.dtype for column in columns}))
    except Malformed:
        return None
    return df if b"".join([*writer.add(df), writer.end()]) == content else None


def _malformed(content: bytes, format: Format, invalid: InvalidJson) -> Malformed:
    """The error for a row that is no JSON, with the line in the whole that pydantic tells within the row."""
    reason, _, place = invalid.reason.removeprefix("Invalid JSON: ").rpartition(" at line ")
    line = line_of(content, format, invalid.row)
    if line is None or not reason:
        return Malformed(format, reason or invalid.reason, row=invalid.row)
    return Malformed(format, reason, line=line + int(place.partition(" ")[0]) - 1)


def content_of(source: Source, max_bytes: int) -> bytes:
    """All of *source*, gathered in pieces with a breath between them.

    Raises:
        BadArgument: *source* is neither bytes nor a binary file.
        BodyTooLarge: there is more than *max_bytes*; what was read is dropped.

    Example:
        >>> content_of(BytesIO(b"[]"), 2)
        b'[]'
    """
    if isinstance(source, bytes):
        if len(source) > max_bytes:
            raise BodyTooLarge(max_bytes)
        return source
    content = BytesIO()
    breath = perf_counter() + BUDGET
    for piece in _pieces(source, max_bytes + 1):
        content.write(piece)
        if content.tell() > max_bytes:
            raise BodyTooLarge(max_bytes)
        if perf_counter() >= breath:
            breathe()
            breath = perf_counter() + BUDGET
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
