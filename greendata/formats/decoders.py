"""Decode bytes into frames: read a body up to a size limit, parse it in the pool, and validate it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from io import BytesIO
from typing import IO, Any

import polars as pl

from greendata.errors import BadArgument, BodyTooLarge, FrameInvalid, Malformed
from greendata.formats.csv_options import CsvOptions, NullValues
from greendata.formats.csv_text import prepare, record_lines
from greendata.formats.format import Format, format_of
from greendata.formats.guards.size_guard import reject_repeated
from greendata.formats.isolation import Read, isolated_by, read_here, reading
from greendata.formats.json.partition import InvalidJson, partition_rows
from greendata.formats.json.rows import line_of, lines_of_rows, rows_of
from greendata.formats.json.stored import has_mark, stored_frame
from greendata.formats.readers import read
from greendata.hub.checks import checked_count
from greendata.hub.pacing import breathing
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.pool.operation import operation
from greendata.schema.failures import failures_of
from greendata.schema.fields import columns_of
from greendata.schema.similar_names import hints_for
from greendata.validation.partitioner import Partitioned, Partitioner
from greendata.validation.verbs import complete_validation, own_validate, validate

__all__ = ("MAX_BYTES", "content_of", "decode")

MAX_BYTES = 1 << 26  # 64 MiB: some 700 000 rows of NDJSON; a caller that expects more sets max_bytes
READ_BYTES = 1 << 18  # in one call of read: a copy of this size holds the GIL for some 50 microseconds

Submit = Callable[[Callable[[], Any]], Result[Any]]
Parse = Callable[[Callable[[Read], Any]], Any]
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
    separator: str = ",",
    encoding: str = "utf8",
    has_header: bool = True,
    null_values: NullValues | None = None,
    comment_prefix: str | None = None,
    skip_rows: int = 0,
    rename_duplicates: bool = False,
    isolate: bool | None = None,
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
            schema, each row of JSON is validated from its text, as by ``model_validate_json``, which a validation of
            the frame afterwards cannot do: there an absent key is null, and a value has the type of its column. A row
            with more elements than pydantic is given (see there) fails. JSON that is, byte for byte, what `encode`
            writes of a frame of *model* is read as that frame, whose columns may store dicts and unions in other forms.
        max_bytes: the maximum size in bytes. At most one byte more is read.
        timeout: the deadline of the parsing in seconds.
        key: the fairness key, see `greendata.pool.pool.Pool.submit`.
        label: the label of the job.
        separator: CSV: the ASCII character between two fields.
        encoding: CSV: "utf8", "utf8-lossy" (bytes that are not UTF-8 become U+FFFD), or a text encoding of Python.
        has_header: CSV: whether the first record has the names of the columns. If not, they are those of *schema*,
            which must have as many, or of the fields of *model*, in their order, or those that Polars gives.
        null_values: CSV: the string, or strings, that stand for null besides an empty field, or a dict of one string
            for each column.
        comment_prefix: CSV: lines that begin with it are ignored.
        skip_rows: CSV: how many records before the header are ignored. Empty lines and comments there do not count.
        rename_duplicates: CSV: rename columns of one name as Polars does (``a``, ``a_duplicated_0``). Otherwise they
            are an error.
        isolate: parse in a child process, so that input which crashes, hangs or fills the parser is an error of this
            call alone: see `greendata.formats.isolation`. None uses the setting ``GREENDATA_ISOLATE``. A model
            validates here in any case; the rows of JSON with a model are separated in the child.

    Raises:
        BadChoice, BadArgument, BadTimeout: an argument is invalid, or an option of CSV is given for another format.
        BodyTooLarge: *source* has more than *max_bytes*. What was read is discarded.
        Malformed: the bytes are not *format*, or do not have the columns and dtypes of *schema*, or would expand into
            a frame far beyond their size, or crash the parser of a child.
        TooCostly: parsing them takes a child more memory or time than it has. It is a Malformed.
        WorkerDied: a child ended for another reason.
        FrameInvalid: some rows do not satisfy *model*. In its failures, ``row`` counts the rows of the frame from 0:
            the header, comments and skipped records are not rows, nor are empty lines in NDJSON, but in CSV an empty
            line is a row of nulls. Beside it is ``line``: the line of *source* on which the row begins, counted from
            1, with all lines before it; null in Arrow, Parquet and JSON columns. A column that CSV, Arrow or Parquet
            lacks, or should not have, is one failure, whose ``row`` and ``line`` are null; then no rows are checked.

    Example:
        >>> decode(b'{"a": [1, 2]}', "json").rows()
        [(1,), (2,)]
    """
    known = format_of(format)
    csv = CsvOptions(
        separator=separator,
        encoding=encoding,
        has_header=has_header,
        null_values=null_values,
        comment_prefix=comment_prefix,
        skip_rows=skip_rows,
        rename_duplicates=rename_duplicates,
    )
    if known != "csv" and (changed := csv.changed):
        raise BadArgument(changed[0], getattr(csv, changed[0]), f"left out: {known} does not have it, only csv")
    content = content_of(source, checked_count("max_bytes", max_bytes, least=0))
    label = label or f"decode {known}"
    submit = partial(pool.submit, timeout=timeout, key=key, label=label)
    parse = partial(reading, isolated_by(isolate), submit=submit, label=label, timeout=timeout)
    by_text = known in ("json", "ndjson") and schema is None
    with operation(label):
        try:
            if by_text and model is not None and own_validate(model) is None:
                return _decode_rows(parse, submit, content, known, model)
            return _decode_frame(parse, content, known, schema, model, csv)
        except FrameInvalid as error:
            invalid = error.with_traceback(None)  # which has this frame
        raise pool.call(_with_lines, invalid, partial(_lines, content, known, csv))


def _decode_frame(
    parse: Parse, content: bytes, format: Format, schema: pl.Schema | None, model: type | None, csv: CsvOptions
) -> pl.DataFrame:
    """Return the frame in *content*, validated if there is a model."""
    columns = columns_of(model) if model is not None and own_validate(model) is None else ()
    options = {
        "csv": csv,
        "names": [column.sources[0] for column in columns if column.sources],
        "as_text": model is not None,  # pydantic converts text to numbers, but not numbers to text
        "in_base64": [name for column in columns if column.codec.dtype == pl.Binary for name in column.sources],
    }

    def read_frame(read_in: Read) -> pl.DataFrame:
        df = read_in(read, content, format, format, schema, **options)
        if model is not None:
            reject_repeated(df, len(content), format=format)
        return df

    df: pl.DataFrame = parse(read_frame)
    if model is None:
        return df
    if columns and (failures := Partitioner(model, columns, None).failures_of_all(df.schema)):
        raise FrameInvalid(model.__name__, df.height, failures_of(failures), hints_for(columns, df.columns))
    return validate(df, model)


def _decode_rows(parse: Parse, submit: Submit, content: bytes, format: Format, model: type) -> pl.DataFrame:
    """Return the frame of the JSON rows in *content*, after validating the text of each row with *model*."""
    stored = partial(stored_frame, content, format, model)
    if has_mark(content) and (df := parse(lambda read_in: stored(read_in=read_in))) is not None:
        return validate(df, model)
    try:
        rows, found = complete_validation(parse(lambda read_in: _partitioned(read_in, content, format, model)))
    except InvalidJson as invalid:
        raise pool.call(_malformed, content, format, invalid) from invalid
    if not found.failures.height:
        return found.good
    if (df := parse(lambda read_in: stored(read_in=read_in))) is not None:
        return validate(df, model)
    raise FrameInvalid(model.__name__, rows, found.failures)


def _partitioned(read_in: Read, content: bytes, format: Format, model: type) -> Partitioned:
    """Return the rows of JSON, partitioned. In isolation, they are separated in a child. Call on a worker."""
    texts = None if read_in is read_here else read_in(_row_texts, content, format, format).to_series()
    return partition_rows(content, format, model, texts)


def _row_texts(content: bytes, format: Format) -> pl.DataFrame:
    return rows_of(content, format).to_frame()


def _with_lines(invalid: FrameInvalid, lines_of: Callable[[], pl.Series | None]) -> FrameInvalid:
    """Return *invalid* with the lines of the rows beside their numbers. Call on a worker."""
    lines = lines_of()
    if lines is None or lines.len() != invalid.rows:  # no rows on lines, or not only those of this frame
        lines = pl.Series([None], dtype=pl.UInt32).new_from_index(0, invalid.rows)
    line = lines.cast(pl.UInt32).gather(invalid.failures["row"]).alias("line")
    return FrameInvalid.with_text(invalid.model, invalid.rows, invalid.failures.insert_column(1, line), invalid.hints)


def _lines(content: bytes, format: Format, csv: CsvOptions) -> pl.Series | None:
    """Return the line on which each row begins, or None if *content* does not have rows on lines."""
    if format == "csv":
        return record_lines(prepare(content, csv, None), csv)
    return lines_of_rows(content, format) if format in ("json", "ndjson") else None


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
    for piece in breathing(_pieces(source, max_bytes + 1)):
        content.write(piece)
        if content.tell() > max_bytes:
            raise BodyTooLarge(max_bytes)
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
