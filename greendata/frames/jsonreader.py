"""JSON and newline-delimited JSON to frames. All of it is for workers."""

from __future__ import annotations

import json

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import Malformed
from greendata.frames.casts import cast_to, native_form, shown, text_form, told
from greendata.frames.claims import refuse_many_keys, refuse_packed, refuse_sparse
from greendata.frames.depth import refuse_deep_document, refuse_deep_lines
from greendata.frames.lines import count, first_byte, first_failure

__all__ = ("read_json", "read_ndjson")

EXAMINED_BYTES = 1 << 16  # of a record, by a parser that holds the GIL: less than a millisecond

_FAILURES = (PolarsError, PanicException, Malformed)


def read_ndjson(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    r"""The frame of a row a line.

    Example:
        >>> read_ndjson(b'{"a":1}\n{"a":2}\n', pl.Schema({"a": pl.Int8})).rows()
        [(1,), (2,)]
    """
    if schema is None and first_byte(content) == len(content):
        return pl.DataFrame()
    refuse_packed(content, "ndjson")
    refuse_deep_lines(content)
    if schema is None:
        refuse_many_keys(content, "ndjson")
    else:
        refuse_sparse(count(content, b"\n") + 1, len(schema), len(content), format="ndjson")
    try:
        return pl.read_ndjson(content, infer_schema_length=None) if schema is None else _ndjson(content, schema)
    except _FAILURES as error:
        raise _at_its_line(content, schema, error) from error


def read_json(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    """The frame of an array of objects, or of an object of arrays.

    Example:
        >>> read_json(b'{"a": [1, 2]}', None).rows()
        [(1,), (2,)]
    """
    begin = first_byte(content)
    if begin == len(content):
        raise Malformed("json", "there is nothing")
    if content[begin : begin + 1] not in b"[{":
        raise Malformed(
            "json", f"expected an array of objects or an object of arrays, got {content[begin : begin + 20]!r}"
        )
    refuse_deep_document(content)
    return (_json_rows if content[begin : begin + 1] == b"[" else _json_columns)(content, schema)


def _ndjson(content: bytes, schema: pl.Schema) -> pl.DataFrame:
    forms = {name: native_form(dtype) for name, dtype in schema.items()}
    return cast_to(pl.read_ndjson(content, schema=forms), schema, "ndjson")


def _at_its_line(content: bytes, schema: pl.Schema | None, error: BaseException) -> Malformed:
    def check(some: bytes, _begin: int) -> Exception | None:
        try:
            if schema is not None:
                _ndjson(some, schema)
            elif some.strip():
                pl.read_ndjson(some, infer_schema_length=None)
        except _FAILURES as found:
            return found if isinstance(found, Exception) else Malformed("ndjson", told(found))
        return None

    failure = first_failure(content, check, quoted=False)
    if failure is None or failure.error is None:
        return Malformed("ndjson", told(error), line=failure and failure.line)
    column = _bad_column(failure.record, schema)
    return Malformed("ndjson", _syntax(failure.record, failure.error), line=failure.line, column=column)


def _syntax(record: bytes, error: Exception) -> str:
    """Why *record* is no JSON, in better words than those of the parser of Polars; its words if it is JSON."""
    if isinstance(error, Malformed) or len(record) > EXAMINED_BYTES:
        return told(error)
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
        refuse_many_keys(content, "json")
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
        reason = f"expected an array of objects or an object of arrays, got {shown(series, 0)}"
        raise Malformed("json", reason, column=series.name)
    values: pl.Series | None = series[0]
    return values
