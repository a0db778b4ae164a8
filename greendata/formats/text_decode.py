"""Convert text values to the dtypes of a schema. No value is rounded, truncated or replaced by null.

This is the reverse of `greendata.formats.text_encode`. For each dtype there are two dtypes to read it as: `native_form`
for readers that raise an error for numbers that do not fit, and `text_form` for readers that would change such numbers
and so must return numbers as text. Call on a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import Malformed
from greendata.formats.error_texts import format_value
from greendata.formats.format import Format
from greendata.schema.column_names import frame_of
from greendata.schema.dtypes import plain_of, rebuilt
from greendata.schema.durations import UNIT_DIGITS, duration_ticks

if TYPE_CHECKING:
    from greendata.internals.polars import TimeUnit

__all__ = ("cast", "cast_to", "native_form", "text_form")

_NARROW: dict[type[pl.DataType], pl.DataType] = {
    pl.Int8: pl.Int32(),
    pl.Int16: pl.Int32(),
    pl.UInt8: pl.UInt32(),
    pl.UInt16: pl.UInt32(),
    pl.Float16: pl.Float64(),
    pl.Float32: pl.Float64(),
}
# The dtypes of numbers that Polars' NDJSON reader reads, with an error for numbers that do not fit.
_READ = (pl.Int32, pl.Int64, pl.Int128, pl.UInt32, pl.UInt64, pl.Float64)
_INFINITY = r"(?i)^[+-]?inf(inity)?$"

ColumnCodec = Callable[[pl.DataType], pl.DataType]


def native_form(dtype: pl.DataType) -> pl.DataType:
    """Return the dtype to read *dtype* as, for a reader that raises an error for numbers that do not fit.

    Example:
        >>> native_form(pl.List(pl.Date()))
        List(String)
    """
    kind = type(dtype)
    if kind in _NARROW:
        return _NARROW[kind]
    if isinstance(dtype, _READ):
        return dtype
    return _form(dtype, native_form)


def text_form(dtype: pl.DataType) -> pl.DataType:
    """Return the dtype to read *dtype* as, for a reader that would round numbers or replace them by null.

    Example:
        >>> text_form(pl.Int8())
        String
    """
    return _form(dtype, text_form)


def _form(dtype: pl.DataType, form: ColumnCodec) -> pl.DataType:
    if plain_of(dtype) is not dtype:
        return form(plain_of(dtype))
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(form(_inner(dtype)))
    if isinstance(dtype, pl.Struct):
        return pl.Struct([pl.Field(field.name, form(_of(field.dtype))) for field in dtype.fields])
    return dtype if isinstance(dtype, pl.Boolean | pl.Null) else pl.String()


def cast_to(df: pl.DataFrame, schema: pl.Schema, format: Format) -> pl.DataFrame:
    """Return the columns of *schema* from *df*, which has them in their native or text form.

    Raises:
        Malformed: a value does not have the type of its column. The error has the row and the column.

    Example:
        >>> cast_to(pl.DataFrame({"a": ["P1DT2S"]}), pl.Schema({"a": pl.Duration("ms")}), "csv").item()
        datetime.timedelta(days=1, seconds=2)
    """
    return frame_of([cast(df[name], dtype, format) for name, dtype in schema.items()])


def cast(series: pl.Series, dtype: pl.DataType, format: Format) -> pl.Series:
    """Cast *series*, which has the native or text form of *dtype*, to *dtype*.

    Raises:
        Malformed: a value does not have this type. The error has the row and the column.

    Example:
        >>> cast(pl.Series(["YQ=="]), pl.Binary(), "csv").item()
        b'a'
    """
    if series.dtype == dtype:
        return series
    frame = series.alias("value").to_frame()
    value = _typed(pl.col("value"), series.dtype, dtype).alias("value")
    try:
        done = frame.select(value).to_series()
    except (PolarsError, PanicException) as error:
        row = _first(frame, value)
        raise Malformed(
            format, f"{format_value(series, row)} is not a valid {dtype}", row=row, column=series.name
        ) from error
    return done.alias(series.name)


def _first(frame: pl.DataFrame, value: pl.Expr) -> int:
    """Return the first row for which the expression *value* fails."""
    begin, end = 0, frame.height
    while end - begin > 1:
        middle = (begin + end) // 2
        try:
            frame.slice(begin, middle - begin).select(value)
        except (PolarsError, PanicException):
            end = middle
        else:
            begin = middle
    return begin


def _typed(value: pl.Expr, got: pl.DataType, dtype: pl.DataType) -> pl.Expr:
    if got == dtype:
        return value
    if isinstance(got, pl.Null):  # the column is absent
        return pl.when(value.is_null()).then(pl.lit(None, dtype))
    if plain_of(dtype) is not dtype:
        return rebuilt(_typed(value, got, plain_of(dtype)), dtype)
    match dtype:
        case pl.List():
            return value.list.eval(_typed(pl.element(), _inner(got), _inner(dtype)))
        case pl.Array():
            return value.list.eval(_typed(pl.element(), _inner(got), _inner(dtype))).list.to_array(dtype.size)
        case pl.Struct():
            return _struct(value, got, dtype)
        case _ if isinstance(got, pl.String):
            return _from_text(value, dtype)
        case _:
            return _narrowed(value, dtype)


def _struct(value: pl.Expr, got: pl.DataType, dtype: pl.Struct) -> pl.Expr:
    assert isinstance(got, pl.Struct)
    numbered = value.struct.rename_fields([str(number) for number in range(len(dtype.fields))])
    fields = [
        _typed(numbered.struct.field(str(number)), _of(had.dtype), _of(field.dtype)).alias(field.name)
        for number, (had, field) in enumerate(zip(got.fields, dtype.fields, strict=True))
    ]
    return pl.when(value.is_not_null()).then(pl.struct(fields))


def _from_text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    match dtype:
        case pl.Decimal():
            return _decimal(value, dtype)
        case pl.Datetime():
            return _datetime(value, dtype)
        case pl.Date():
            return _with_full_year(value).str.to_date("%Y-%m-%d")
        case pl.Time():
            return _as_written(value, "ns").str.to_time("%H:%M:%S%.f")
        case pl.Duration():
            return _duration(value, dtype)
        case pl.Binary():
            return value.str.decode("base64")
        case _ if dtype.is_float():
            number = value.cast(dtype)
            return _fail_where(number, number.is_infinite() & ~value.str.contains(_INFINITY))
        case _:
            return value.cast(dtype)


def _narrowed(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Cast numbers to *dtype*, and fail if a finite number would become infinite."""
    number = value.cast(dtype)
    return _fail_where(number, number.is_infinite() & value.is_finite()) if dtype.is_float() else number


def _fail_where(number: pl.Expr, is_wrong: pl.Expr) -> pl.Expr:
    """Return *number*, or fail if *is_wrong* for any row. Polars' casts to floats never fail."""
    none_wrong = (is_wrong.cast(pl.Int16) * -1).cast(pl.UInt8) == 0
    return pl.when(none_wrong).then(number)


def _invalid_where(value: pl.Expr, is_so: pl.Expr) -> pl.Expr:
    """Append a remark to the text *value* where *is_so*, so that Polars cannot parse it."""
    return pl.when(is_so).then(value + pl.lit(" would be changed")).otherwise(value)


def _decimal(value: pl.Expr, dtype: pl.Decimal) -> pl.Expr:
    """Parse exact decimals only: Polars would round those with too many places, also if an exponent adds them."""
    places = value.str.extract(r"(?:\.(\d*?)0*)?[eE]").str.len_chars().fill_null(0).cast(pl.Int64)
    exponent = value.str.extract(r"[eE]\+?(-?\d{1,9})$").cast(pl.Int64)
    is_longer = value.str.contains(rf"\.\d{{{dtype.scale}}}\d*[1-9]") & exponent.is_null()
    return _invalid_where(value, is_longer | (places - exponent > dtype.scale)).cast(dtype)


def _datetime(value: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    text = _with_full_year(_as_written(value, dtype.time_unit)).str.replace(" ", "T", literal=True)
    unit: TimeUnit = "us" if dtype.time_unit == "ns" else dtype.time_unit
    if dtype.time_zone is None:
        moment = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit=unit)
    else:
        with_offset = text.str.replace("[Zz]$", "+00:00")
        moment = with_offset.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit=unit, time_zone="UTC")
    if unit != dtype.time_unit:  # parse nanoseconds here: Polars overflows before 1677 and after 2262
        rest = text.str.extract(r"\.\d{6}(\d{1,3})").str.pad_end(3, "0").cast(pl.Int128).fill_null(0)
        moment = (moment.to_physical().cast(pl.Int128) * 1000 + rest).cast(pl.Int64)
    return moment.cast(dtype)


def _with_full_year(value: pl.Expr) -> pl.Expr:
    """Return the text of a date, made invalid if its year has fewer than four digits: Polars accepts 24-01-02."""
    return _invalid_where(value, ~value.str.contains(r"^[+-]?\d{4}"))


def _as_written(value: pl.Expr, unit: TimeUnit) -> pl.Expr:
    """Return the text of a time, made invalid where Polars would truncate digits or ignore a leap second."""
    return _invalid_where(value, value.str.contains(rf"\.\d{{{UNIT_DIGITS[unit]}}}\d*[1-9]|\d:\d\d:[6-9]"))


def _duration(value: pl.Expr, dtype: pl.Duration) -> pl.Expr:
    count = duration_ticks(value, dtype.time_unit).cast(pl.String)
    return pl.coalesce(count, value + pl.lit(" is none")).cast(pl.Int64).cast(dtype)


def _inner(dtype: object) -> pl.DataType:
    assert isinstance(dtype, pl.List | pl.Array)
    return _of(dtype.inner)


def _of(dtype: object) -> pl.DataType:
    """Return an inner dtype as an instance: it may have been given as a class."""
    return dtype() if isinstance(dtype, type) else dtype  # type: ignore[return-value]
