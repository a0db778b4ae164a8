"""Conversion between Polars' types and those of databases: which can be written, and how values are read.

No value changes on the way. A value that would be rounded, truncated or replaced by null is an error that names the
column. PostgreSQL's driver crashes or writes wrong values for some types (Int128, UInt64), so only types that are known
to work are accepted.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import BadArgument, ColumnUnreadable, ColumnUnwritable, WriteRefused
from greendata.errors.plural import counted
from greendata.schema.column_names import frame_of
from greendata.schema.durations import UNIT_DIGITS

__all__ = (
    "POSTGRES",
    "SQLITE",
    "ascii_lower",
    "cast_exact",
    "check_date_range",
    "check_name",
    "check_names",
    "check_writable",
    "dtypes_of",
    "encode_frame",
    "fits_float",
    "parameters",
)

SQLITE, POSTGRES = "SQLite", "PostgreSQL"
_NUMBERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64)
_SCALARS = (*_NUMBERS, pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Datetime, pl.Time, pl.Decimal)
_AS_TEXT = (pl.Categorical, pl.Enum, pl.Null)
_IN_LISTS = (*_NUMBERS, pl.Boolean, pl.String)
_FIRST_DAY = {POSTGRES: -2_440_588, SQLITE: -95_026_236}  # days since 1970; PostgreSQL's is 24 November 4714 BC
_LAST_DAY = 95_026_236  # the last day of the year 262142; Polars panics when it prints a later date
_DAY = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_WHOLE: dict[Any, pl.DataType] = {
    pl.Datetime: pl.Datetime("us"),
    pl.Duration: pl.Duration("us"),
    pl.Categorical: pl.Categorical(),
}
_UNSUPPORTED = (pl.Struct, pl.Object, pl.Unknown)  # no column of a database can be read as one of these
_TEMPORAL = (pl.Date, pl.Datetime, pl.Time, pl.Duration)
# The types that text can be read as.
_READ = (
    *_NUMBERS,
    pl.Int128,
    pl.Decimal,
    pl.Date,
    pl.Datetime,
    pl.Time,
    pl.Binary,
    pl.Enum,
    pl.Categorical,
)
_PREFIXES = (":", "@", "$")  # of named parameters in SQLite
_LONGEST_NAME = 63  # bytes; PostgreSQL truncates longer names and only sends a notice

_DATE = r"^([0-9]{4}|[+-][0-9]{4,6})-[0-9]{2}-[0-9]{2}"  # Polars would also read ambiguous dates: 20-01-02
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]+)?$"  # Polars would read second 60 as the next minute
_NANOSECONDS = (1678, 2261)  # the first and last year whose nanoseconds all fit into 64 bits


def check_writable(schema: Mapping[str, Any], kind: str) -> None:
    """Check that each column of *schema* can be written to a database of *kind*.

    Raises:
        BadArgument: the database cannot have a column of that name.
        ColumnUnwritable: the database has no type for some columns.

    Example:
        >>> check_writable({"a": pl.Int64()}, "SQLite")
    """
    for name in schema:
        check_name("frame", "a column", name, kind)
    if kind == SQLITE and len(set(map(ascii_lower, schema))) < len(schema):  # SQLite would write only one of them
        raise BadArgument("frame", list(schema), "of columns whose names differ by more than upper and lower case")
    if missing := {name: dtype for name, dtype in schema.items() if not _is_supported(dtype, kind)}:
        raise ColumnUnwritable(missing, kind)


def check_name(argument: str, what: str, name: str, kind: str) -> None:
    """Check that *name* can be the name of *what* in a database of *kind*.

    Raises:
        BadArgument: it is not text, it contains a NUL, or PostgreSQL would reject or truncate it.
    """
    if not isinstance(name, str) or "\0" in name or (not name and argument != "frame"):
        raise BadArgument(argument, name, f"the name of {what}, without NUL")
    if kind == POSTGRES and not 0 < len(name.encode()) <= _LONGEST_NAME:
        raise BadArgument(argument, name, f"the name of {what}, in PostgreSQL one of 1 to {_LONGEST_NAME} bytes")


def check_names(names: Sequence[str]) -> Sequence[str]:
    """Return *names* of a result's columns, after a check that all differ, as a frame needs.

    Raises:
        ColumnUnreadable: a name appears more than once.
    """
    for name, number in Counter(names).items():
        if number > 1:
            raise ColumnUnreadable(name, f"appears {counted(number, 'time')}", "give each a different name with AS")
    return names


def ascii_lower(name: str) -> str:
    """Return *name* with its ASCII letters in lower case. SQLite compares names that way.

    Example:
        >>> ascii_lower("A\u00c4")
        'aÄ'
    """
    return name.encode().lower().decode()


def _is_supported(dtype: Any, kind: str) -> bool:
    if isinstance(dtype, (*_SCALARS, *_AS_TEXT)):
        return True
    if kind == SQLITE:
        return False
    if isinstance(dtype, pl.List):
        return isinstance(dtype.inner, (*_IN_LISTS, *_AS_TEXT))
    return isinstance(dtype, pl.Duration)


def encode_frame(frame: pl.DataFrame, kind: str, table: str) -> pl.DataFrame:
    """Return *frame*, which passed `check_writable`, in the types that the database accepts. Call on a worker.

    Raises:
        WriteRefused: a value does not fit.

    Example:
        >>> encode_frame(pl.DataFrame({"a": ["x"]}, schema={"a": pl.Enum(["x"])}), "SQLite", "t").dtypes
        [String]
    """
    result = []
    for series in frame:
        try:
            result.append(_encode_series(series.alias(""), kind).alias(series.name))
        except ColumnUnreadable as error:
            raise WriteRefused(table, series.name, error.reason) from error
    return frame_of(result)


def _encode_series(series: pl.Series, kind: str) -> pl.Series:
    dtype = series.dtype
    if isinstance(dtype, _AS_TEXT):
        return series.cast(pl.String)
    if isinstance(dtype, pl.UInt64):
        return cast_exact(series, pl.Int64())  # the largest integer type of both databases
    check_date_range(series, kind)
    if kind == SQLITE:
        return _sqlite_form(series)
    if isinstance(dtype, pl.List) and isinstance(dtype.inner, _AS_TEXT):
        return series.cast(pl.List(pl.String))
    if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.UInt64):
        return cast_exact(series, pl.List(pl.Int64))
    if isinstance(dtype, pl.Datetime):
        return cast_exact(series, pl.Datetime("us", dtype.time_zone))
    if isinstance(dtype, pl.Duration):
        return cast_exact(series, pl.Duration("us"))
    if isinstance(dtype, pl.Time) and (series.to_physical() % 1000 != 0).any():
        raise ColumnUnreadable(series.name, "holds fractions of a microsecond, which PostgreSQL does not have")
    return series


def _sqlite_form(series: pl.Series) -> pl.Series:
    match series.dtype:
        case pl.Decimal():
            return series.cast(pl.String)  # exact; SQLite's own numbers are binary floats
        case pl.Date():
            return series.dt.to_string("%Y-%m-%d")
        case pl.Datetime() as dtype:
            zoned = dtype.time_zone is not None
            naive = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zoned else series
            return _sqlite_moment(naive)
        case pl.Time():
            whole = (series.to_physical() % 1000 == 0).all()
            return series.dt.to_string("%H:%M:%S%.6f" if whole else "%H:%M:%S%.9f")
        case pl.Float32() | pl.Float64():
            if series.is_nan().any():
                raise ColumnUnreadable(series.name, "holds NaN, which SQLite makes null")
    return series


def _sqlite_moment(naive: pl.Series) -> pl.Series:
    """Return *naive* as text in the format of SQLite's functions, `sqlite3` and CURRENT_TIMESTAMP.

    SQLite compares these values as text, so they need one format. As in Python's ``isoformat(" ")``, a fraction of a
    second is written if it is not 0, with 6 digits; with 9 if it has nanoseconds.
    """
    text = naive.dt.to_string(f"%Y-%m-%d %H:%M:%S%.{9 if naive.dtype == pl.Datetime('ns') else 6}f")
    return text.str.replace(r"(\.\d{6})000$", "$1").str.replace(r"\.0+$", "")


def dtypes_of(overrides: object) -> dict[str, pl.DataType]:
    """Return *overrides* with complete types: a Datetime or a Duration without a unit gets microseconds.

    Raises:
        BadArgument: it is not a mapping of names to types.

    Example:
        >>> dtypes_of({"a": pl.Datetime, "b": int})
        {'a': Datetime(time_unit='us', time_zone=None), 'b': Int64}
    """
    expected = "None or a mapping of column names to complete types of Polars: pl.Decimal(12, 2), not pl.Decimal"
    if not isinstance(overrides, Mapping) or not all(isinstance(name, str) for name in overrides):
        raise BadArgument("schema_overrides", overrides, expected)
    try:
        dtypes = dict(pl.Schema({name: _WHOLE.get(dtype, dtype) for name, dtype in overrides.items()}))
    except TypeError as error:
        raise BadArgument("schema_overrides", overrides, expected) from error
    if unsupported := {name: dtype for name, dtype in dtypes.items() if isinstance(dtype, _UNSUPPORTED)}:
        raise BadArgument("schema_overrides", unsupported, "of types that a column of a database can have")
    return dtypes


def parameters(params: Sequence[Any] | Mapping[str, Any], kind: str) -> pl.DataFrame:
    """Return *params* as a frame with one row, for binding.

    Raises:
        BadArgument: the parameters are named and the database has only numbered ones, a name appears twice, or a value
            would change.
        ColumnUnwritable: a value has a type that cannot be bound.

    Example:
        >>> parameters([1, "x"], "PostgreSQL").row(0)
        (1, 'x')
    """
    if not isinstance(params, Mapping):
        values: Iterable[tuple[str, Any]] = ((str(number), value) for number, value in enumerate(params))
    elif kind == SQLITE:
        values = [(_parameter_name(name), value) for name, value in params.items()]
        if len(dict(values)) < len(params):
            raise BadArgument("params", sorted(params), "of different names; :a, @a and $a are the same")
    else:
        raise BadArgument("params", sorted(map(str, params)), "a sequence: PostgreSQL's parameters are $1, $2, ...")
    row = frame_of([_parameter(name, value, kind) for name, value in values])
    check_writable(row.schema, kind)
    try:
        return encode_frame(row, kind, "the statement")
    except WriteRefused as error:
        raise BadArgument("params", error.column, f"of values that {kind} can hold: one {error.reason}") from error


def _parameter_name(name: object) -> str:
    if not isinstance(name, str) or not name.removeprefix(name[:1] if name.startswith(_PREFIXES) else ""):
        raise BadArgument("params", name, "a mapping whose keys are names")
    return name[1:] if name.startswith(_PREFIXES) else name


def _parameter(name: str, value: Any, kind: str) -> pl.Series:
    if kind == POSTGRES:  # the statement converts the text back
        value = _as_text(value)
        if isinstance(value, list | tuple):
            items = [_as_text(item) for item in value]
            value = pl.Series(items, dtype=pl.String) if all(item is None for item in items) else items
    if any(isinstance(item, dt.time) and item.tzinfo for item in (value if isinstance(value, list) else [value])):
        raise ColumnUnwritable({name: "time with a zone"}, kind)  # Polars would drop the zone
    try:
        return pl.Series(name, [value])
    except UnicodeEncodeError as error:
        raise BadArgument("params", name, "of values that are Unicode: one holds a lone surrogate") from error
    except (TypeError, ValueError, OverflowError, RuntimeError, PolarsError, PanicException) as error:
        # Polars panics for Decimal("NaN"), and raises a RuntimeError for Decimal("1e40").
        raise ColumnUnwritable({name: type(value).__name__}, kind) from error


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, uuid.UUID) else value


def check_date_range(values: pl.Series, kind: str) -> None:
    """Check that dates, datetimes and lists of them are in the range of both the database of *kind* and Polars.

    PostgreSQL's driver adds the years from 1970 to 2000 to infinity as well, so that it overflows to some other date.

    Raises:
        ColumnUnreadable: a value is out of range.
    """
    column, values = values.name, values.alias("")
    if isinstance(values.dtype, pl.List) and isinstance(values.dtype.inner, pl.Date | pl.Datetime):
        values = values.explode()
    if not isinstance(values.dtype, pl.Date | pl.Datetime):
        return
    size = _DAY[values.dtype.time_unit] if isinstance(values.dtype, pl.Datetime) else 1
    first, last = values.to_physical().min(), values.to_physical().max()
    if first is not None and not _FIRST_DAY[kind] * size <= first <= last < (_LAST_DAY + 1) * size:  # type: ignore[operator]
        raise ColumnUnreadable(column, "holds infinity, or a time outside the range that can be stored and shown")


def cast_exact(series: pl.Series, dtype: Any) -> pl.Series:
    """Cast *series* to *dtype* without changing a value. Call on a worker.

    Numbers are not cast to times, since their epoch and unit are unknown. Times with a zone are not cast to times
    without one, or the reverse.

    Raises:
        ColumnUnreadable: a value would change, or cannot be cast to *dtype*.

    Example:
        >>> cast_exact(pl.Series("a", ["2024-02-29"]), pl.Date()).item()
        datetime.date(2024, 2, 29)
    """
    if series.dtype == dtype:
        return series
    if series.null_count() == len(series):
        return pl.Series(series.name, [None] * len(series), dtype=dtype)
    name, series = series.name, series.alias("")  # methods of Series interpret a name as a pattern
    try:
        if not _can_become(series.dtype, dtype):
            raise ColumnUnreadable(name, f"is {series.dtype}, and cannot be {dtype}")
        if isinstance(series.dtype, pl.String) and dtype in (pl.Date, pl.Time, pl.Datetime, pl.Decimal):
            result = _parse_text(series, dtype)
            same = result.null_count() == series.null_count()
        else:
            result = series.cast(dtype, strict=False)
            same = _is_unchanged(series, result)
    except (PolarsError, PanicException) as error:
        raise ColumnUnreadable(name, f"is {series.dtype}, and cannot be {dtype}") from error
    if not same:
        raise ColumnUnreadable(name, f"holds values that cannot become {dtype} unchanged")
    return result.alias(name)


def _can_become(old: Any, new: Any) -> bool:
    """Return True if a value of type *old* can have an equal value of type *new*."""
    if isinstance(old, pl.List) and isinstance(new, pl.List | pl.Array):
        return old.inner == new.inner or _can_become(old.inner, new.inner)
    if isinstance(new, pl.List | pl.Array):
        return False  # Polars would make a list of each value
    if isinstance(old, pl.String):
        return isinstance(new, _READ)
    if isinstance(old, pl.Datetime) or isinstance(new, pl.Datetime):
        zones = (getattr(old, "time_zone", None), getattr(new, "time_zone", None))
        return isinstance(old, pl.Date | pl.Datetime) and (zones[0] is None) == (zones[1] is None)
    return isinstance(old, _TEMPORAL) == isinstance(new, _TEMPORAL)


def _is_unchanged(series: pl.Series, result: pl.Series) -> bool:
    if result.null_count() != series.null_count():
        return False
    if result.dtype.is_float() and isinstance(series.dtype, pl.String | pl.Decimal):
        return bool(_has_same_digits(series.cast(pl.String), result).all())
    if isinstance(series.dtype, pl.String):  # text is parsed, as a number or a category
        return True
    return bool(result.cast(series.dtype, strict=False).eq_missing(series).all())


def _has_same_digits(text: pl.Series, floats: pl.Series) -> pl.Series:
    """Return True where *floats* print with the same digits as *text*: always if it has up to 15 digits, or 6."""
    is_named = ~floats.is_finite() & text.str.contains("(?i)inf|nan")
    return is_named | (floats.is_finite() & (_digits(text) == _digits(floats.cast(pl.String))))


def _digits(numbers: pl.Series) -> pl.Series:
    """Return the significant digits of *numbers*."""
    significand = numbers.str.replace("(?i)e.*$", "").str.replace_all(r"[^0-9]", "")
    return significand.str.strip_chars("0")


def fits_float(numbers: pl.Series) -> pl.Series:
    """Return True where a decimal number has at most 15 digits, so that a binary float preserves all of them.

    Example:
        >>> fits_float(pl.Series(["1234567890.123456"]).cast(pl.Decimal(20, 6))).item()
        False
    """
    return _digits(numbers.cast(pl.String)).str.len_bytes() <= 15


def _parse_text(text: pl.Series, dtype: Any) -> pl.Series:
    """Parse *text* as *dtype*, with null where that fails."""
    if dtype == pl.Date:
        return _null_unless_match(text, f"{_DATE}$").str.to_date("%Y-%m-%d", strict=False)
    if dtype == pl.Time:
        return _null_if_finer(_null_unless_match(text, f"^{_CLOCK}"), 9).str.to_time("%H:%M:%S%.f", strict=False)
    if dtype == pl.Decimal:
        scale = getattr(dtype, "scale", None) or 0
        return _null_unless_match(text, rf"^[+-]?[0-9]+(\.[0-9]{{0,{scale}}}0*)?$").cast(dtype, strict=False)
    unit: Any = getattr(dtype, "time_unit", None) or "us"
    zone = getattr(dtype, "time_zone", None)
    form = "%Y-%m-%dT%H:%M:%S%.f"
    text = _null_if_finer(_null_unless_match(text, f"{_DATE}[T ]{_CLOCK}"), UNIT_DIGITS[unit])
    text = text.str.replace(" ", "T", literal=True)
    found = text.str.to_datetime(form, time_unit="us", strict=False)
    if unit == "ns":  # nanoseconds that do not fit into 64 bits would overflow to another time
        text = _null_unless(text, found.dt.year().is_between(*_NANOSECONDS))
    if unit != "us":
        found = text.str.to_datetime(form, time_unit=unit, strict=False)
    return found.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else found  # written in UTC


def _null_unless_match(text: pl.Series, pattern: str) -> pl.Series:
    """Return *text*, with null where *pattern* does not match."""
    return _null_unless(text, text.str.contains(pattern))


def _null_if_finer(text: pl.Series, digits: int) -> pl.Series:
    """Return *text*, with null where its fraction of a second has more than *digits* significant digits."""
    return _null_unless(text, ~text.str.contains(rf"\.[0-9]{{{digits}}}0*[1-9]"))


def _null_unless(text: pl.Series, is_right: pl.Series) -> pl.Series:
    return text.set(~is_right.fill_null(value=False), None)
