"""Convert the columns of a frame to the text forms of their values in JSON and CSV.

- Datetimes are ISO 8601, to the last digit of their unit and with the offset of their zone. Before 1972, when some
  offsets had odd seconds, they are in UTC.
- Durations are ISO 8601 (``P1DT2.5S``).
- Binary is base64 (RFC 4648).
- Decimals are exact: strings in JSON.
- NaN and the infinities are null in JSON, which does not have them, as in JavaScript, Polars and pydantic.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from greendata.errors import NotWritable
from greendata.formats.format import Format
from greendata.schema.codecs import Dtype
from greendata.schema.column_names import frame_of
from greendata.schema.dtypes import plain, plain_of

__all__ = ("check_writable", "encode_text", "escape_formula_cells", "unwritable")

LEAST = -(2**63)

_FORMULA = r"\A[=+\-@\t\r\n\x00\uFF1D\uFF0B\uFF0D\uFF20]"  # owasp.org/www-community/attacks/CSV_Injection
_LEAST_SPANS = {  # the text of LEAST ticks, by unit
    "ms": "-P106751991167DT7H12M55.808S",
    "us": "-P106751991DT4H54.775808S",
    "ns": "-P106751DT23H47M16.854775808S",
}
_WHOLE_MINUTES = 1972  # since this year no offset of a zone has seconds (Liberia was the last)


def unwritable(schema: pl.Schema, format: Format) -> dict[str, pl.DataType]:
    """Return the columns of *schema* that *format* has no form for.

    No format has a form for objects, CSV has none for nested types, and Parquet has none for structs without fields.

    Example:
        >>> unwritable(pl.Schema({"a": pl.List(pl.Int64), "b": pl.Int64}), "csv")
        {'a': List(Int64)}
    """
    return {name: dtype for name, dtype in schema.items() if _is_unwritable(dtype, format)}


def check_writable(schema: pl.Schema, format: Format) -> None:
    """Raise NotWritable if *format* has no form for some column of *schema*.

    Example:
        >>> check_writable(pl.Schema({"a": pl.List(pl.Int64)}), "json")
    """
    if columns := unwritable(schema, format):
        raise NotWritable(format, columns)


def encode_text(df: pl.DataFrame, *, besides: tuple[type[pl.DataType], ...] = ()) -> pl.DataFrame:
    """Return *df* with datetimes, durations and binary values as strings, also within lists and structs.

    Call on a worker.

    Args:
        besides: the dtypes of columns to leave unchanged.

    Example:
        >>> encode_text(pl.DataFrame({"a": [b"abc"]})).item()
        'YWJj'
    """
    if not any(_is_changed(dtype) for dtype in df.dtypes):
        return df
    by_number = df.clone()  # pl.col may read a name as a pattern
    by_number.columns = [str(number) for number in range(df.width)]
    texts = by_number.select(
        pl.col(name) if isinstance(dtype, besides) else _text(pl.col(name), dtype).alias(name)
        for name, dtype in by_number.schema.items()
    )
    texts.columns = df.columns
    return texts


def escape_formula_cells(df: pl.DataFrame) -> pl.DataFrame:
    """Return *df* with ``'`` before each text that a spreadsheet would run as a formula. Call on a worker.

    Example:
        >>> escape_formula_cells(pl.DataFrame({"a": ["=1+1", "1+1"]}))["a"].to_list()
        ["'=1+1", '1+1']
    """
    texts = [
        series.alias("text").cast(pl.String).str.replace(_FORMULA, "'$0").alias(series.name)
        if isinstance(series.dtype, pl.String | pl.Categorical | pl.Enum)
        else series
        for series in df.iter_columns()
    ]
    return frame_of(texts)


def _text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if not _is_changed(dtype):
        return value
    value, dtype = plain(value, dtype), plain_of(dtype)
    match dtype:
        case pl.Datetime():
            return _datetime_text(value, dtype)
        case pl.Duration():
            text = value.dt.to_string("iso")  # wrong for LEAST: its negation does not fit into 64 bits
            return pl.when(value.to_physical() == LEAST).then(pl.lit(_LEAST_SPANS[dtype.time_unit])).otherwise(text)
        case pl.List(inner=pl.DataType() as inner):
            return value.list.eval(_text(pl.element(), inner))
        case pl.Array(inner=pl.DataType() as inner):
            return value.arr.to_list().list.eval(_text(pl.element(), inner))
        case pl.Struct():
            return _struct_text(value, dtype)
        case pl.Binary():
            return value.bin.encode("base64")
        case _:
            return value


def _datetime_text(value: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    local = value.dt.to_string("iso:strict")
    if dtype.time_zone is None:
        return local
    in_utc = value.dt.convert_time_zone("UTC").dt.to_string("iso:strict")
    border = pl.lit(datetime(_WHOLE_MINUTES, 1, 1)).dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
    return pl.when(value >= border).then(local).otherwise(in_utc)


def _struct_text(value: pl.Expr, dtype: pl.Struct) -> pl.Expr:
    numbered = value.struct.rename_fields([str(number) for number in range(len(dtype.fields))])
    fields = [
        _text(numbered.struct.field(str(number)), field.dtype).alias(field.name)  # type: ignore[arg-type]
        for number, field in enumerate(dtype.fields)
    ]
    return pl.when(value.is_not_null()).then(pl.struct(fields))


def _is_changed(dtype: Dtype) -> bool:
    if plain_of(dtype) is not dtype:
        return True
    if isinstance(dtype, pl.List | pl.Array):
        return _is_changed(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return any(_is_changed(field.dtype) for field in dtype.fields)
    return isinstance(dtype, pl.Datetime | pl.Duration | pl.Binary)


def _is_unwritable(dtype: Dtype, format: Format) -> bool:
    dtype = plain_of(dtype)
    if format == "csv" and dtype.is_nested():
        return True
    if isinstance(dtype, pl.List | pl.Array):
        return _is_unwritable(dtype.inner, format)
    if isinstance(dtype, pl.Struct):
        is_empty = format == "parquet" and not dtype.fields
        return is_empty or any(_is_unwritable(field.dtype, format) for field in dtype.fields)
    return isinstance(dtype, pl.Object)
