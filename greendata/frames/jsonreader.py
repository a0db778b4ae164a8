"""JSON and newline-delimited JSON to frames. All of it is for workers."""

from __future__ import annotations

import json
import re

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import Malformed
from greendata.frames.casts import cast_to, native_form, text_form, told
from greendata.frames.depth import refuse_deep_document, refuse_deep_lines
from greendata.frames.lines import count, first_failure

__all__ = ("read_json", "read_ndjson", "refuse_sparse")

CELLS_A_BYTE = 1  # of a frame; rows that have all their columns need five bytes and more for each
CELLS_ALWAYS = 1 << 20  # whatever the number of bytes: 16 MiB

WINDOW_BYTES = 1 << 18  # looked at in one call, for the GIL's sake

_KEY = r'"(?:[^"\\]|\\.)*"\s*:'
_FAILURES = (PolarsError, PanicException, Malformed)


def refuse_sparse(rows: int, columns: int, size: int, *, format: str) -> None:
    """Raise Malformed if so many cells out of *size* bytes are an attack on memory, such as rows of ``{}``.

    Example:
        >>> refuse_sparse(10, 10, 100, format="csv")
    """
    if rows * columns > CELLS_ALWAYS + CELLS_A_BYTE * size:
        raise Malformed(format, f"{size} bytes for {rows} rows of {columns} columns: almost all of it would be null")


def read_ndjson(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    r"""The frame of a row a line.

    Example:
        >>> read_ndjson(b'{"a":1}\n{"a":2}\n', pl.Schema({"a": pl.Int8})).rows()
        [(1,), (2,)]
    """
    if schema is None and re.search(rb"\S", content) is None:
        return pl.DataFrame()
    refuse_deep_lines(content)
    try:
        if schema is None:
            _refuse_many_keys(content, "ndjson")
            return pl.read_ndjson(content, infer_schema_length=None)
        refuse_sparse(count(content, b"\n") + 1, len(schema), len(content), format="ndjson")
        return _ndjson(content, schema)
    except _FAILURES as error:
        raise _at_its_line(content, schema, error) from error


def read_json(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    """The frame of an array of objects, or of an object of arrays.

    Example:
        >>> read_json(b'{"a": [1, 2]}', None).rows()
        [(1,), (2,)]
    """
    first = re.search(rb"\S", content)
    if first is None:
        raise Malformed("json", "there is nothing")
    refuse_deep_document(content)
    if first[0] == b"[":
        return _json_rows(content, schema)
    if first[0] == b"{":
        return _json_columns(content, schema)
    raise Malformed("json", f"expected an array of objects or an object of arrays, got {content[:20]!r}")


def _ndjson(content: bytes, schema: pl.Schema) -> pl.DataFrame:
    forms = {name: native_form(dtype) for name, dtype in schema.items()}
    return cast_to(pl.read_ndjson(content, schema=forms), schema, "ndjson")


def _at_its_line(content: bytes, schema: pl.Schema | None, error: BaseException) -> Malformed:
    def check(some: bytes, _begin: int) -> Exception | None:
        try:
            if schema is not None:
                _ndjson(some, schema)
            elif re.search(rb"\S", some):
                pl.read_ndjson(some, infer_schema_length=None)
        except _FAILURES as found:
            return found if isinstance(found, Exception) else Malformed("ndjson", told(found))
        return None

    failure = first_failure(content, check, quoted=False)
    if failure is None:
        return Malformed("ndjson", told(error))
    column = _bad_column(failure.record, schema)
    reason = failure.error.reason if isinstance(failure.error, Malformed) else _syntax(failure.record, failure.error)
    return Malformed("ndjson", reason, line=failure.line, column=column)


def _syntax(record: bytes, error: Exception) -> str:
    """Why *record* is no JSON, in better words than those of the parser of Polars; its words if it is JSON."""
    try:
        value = json.loads(record, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as found:
        return str(found)
    return told(error) if isinstance(value, dict) else f"expected an object, got {value!r:.80}"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _bad_column(record: bytes, schema: pl.Schema | None) -> str | None:
    """The column whose value in *record* is not of its type; None if that is not what is wrong."""
    for name, dtype in (schema or {}).items():
        try:
            _ndjson(record, pl.Schema({name: dtype}))
        except _FAILURES as error:
            if isinstance(error, Malformed) or "cannot parse" in str(error) or "unexpected value" in str(error):
                return name
    return None


def _json_rows(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    if schema is None:
        _refuse_many_keys(content, "json")
        return pl.read_json(content, infer_schema_length=None)
    refuse_sparse(count(content, b"{"), len(schema), len(content), format="json")
    forms = {name: text_form(dtype) for name, dtype in schema.items()}
    return cast_to(pl.read_json(content, schema=forms), schema, "json")


def _json_columns(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    forms = schema and {name: pl.List(text_form(dtype)) for name, dtype in schema.items()}
    whole = pl.read_json(content, schema=forms, infer_schema_length=None)
    columns = {series.name: _column(series) for series in whole.iter_columns()}
    lengths = {name: len(values) for name, values in columns.items() if values is not None}
    if len(set(lengths.values())) > 1:
        told_lengths = ", ".join(f"{name} {length}" for name, length in sorted(lengths.items()))
        raise Malformed("json", f"columns of unequal lengths: {told_lengths}")
    height = max(lengths.values(), default=0)
    absent = pl.repeat(None, height, dtype=pl.Null, eager=True)
    df = pl.DataFrame([(absent if values is None else values).alias(name) for name, values in columns.items()])
    return df if schema is None else cast_to(df, schema, "json")


def _column(series: pl.Series) -> pl.Series | None:
    """The values of a column, None if it is absent."""
    if isinstance(series.dtype, pl.Null):
        return None
    if not isinstance(series.dtype, pl.List):
        raise Malformed(
            "json", f"expected an array of objects or an object of arrays, got {series[0]!r:.80}", column=series.name
        )
    values: pl.Series | None = series[0]
    return values


def _refuse_many_keys(content: bytes, format: str) -> None:
    """Raise Malformed if inferring a schema would make a column of every key of a dictionary, say.

    Polars takes the time of rows by columns for it, and then the memory. The keys are looked for, in windows, by what
    they look like, before anything is parsed.
    """
    rows = count(content, b"{")
    keys: set[str] = set()
    for begin in range(0, len(content), WINDOW_BYTES):
        window = pl.Series([content[begin : begin + WINDOW_BYTES].decode(errors="replace")])
        keys.update(window.str.extract_all(_KEY).explode().drop_nulls().unique())
        refuse_sparse(rows, len(keys), len(content), format=format)
