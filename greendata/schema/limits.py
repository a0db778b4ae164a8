"""Limits: values that a column can hold but Python cannot, and values that are too large for pydantic.

Examples are dates outside the years 1 to 9999, and very long lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import reduce
from operator import add, and_

import polars as pl

from greendata.schema.codecs import Dtype
from greendata.schema.column_names import column, field
from greendata.schema.dtypes import plain, plain_of
from greendata.schema.failures import FAILURES, ROW_KEY, shown_name

__all__ = ("ELEMENTS", "NANOSECONDS", "failures_where", "is_readable", "obstacles", "unreadable")

EPOCH = datetime(1970, 1, 1)  # of local time
FIRST, LAST = datetime.min, datetime.max  # the range of Python's datetime
ELEMENTS = 1 << 16  # of one value: pydantic validates it without a pause, at a microsecond per element

BEYOND = "Python has no date, time or timedelta for the value"
NANOSECONDS = 1000  # in a microsecond
LARGE = f"only pydantic can validate the value, and it has more than {ELEMENTS} elements"


def obstacles(name: str, dtype: Dtype) -> Iterator[tuple[str, pl.Expr]]:
    """Yield reasons why pydantic cannot validate values of column *name*, and where each applies (null for nulls).

    Example:
        >>> [reason[:11] for reason, _ in obstacles("a", pl.List(pl.Date()))]
        ['Python has ', 'only pydant']
    """
    readable = is_readable(column(name), dtype)
    if readable is not None:
        yield BEYOND, ~readable
    count = _elements(column(name), dtype)
    if count is not None:
        yield LARGE, count > ELEMENTS


def unreadable(df: pl.DataFrame, *, exactly: bool = True) -> pl.DataFrame:
    """Return the failures of values that Python cannot hold. Call on a worker.

    Polars panics when it converts such values, or drops digits.

    Args:
        exactly: also report values of which Polars would drop digits.

    Example:
        >>> unreadable(pl.DataFrame({"a": [10**7, 0]}, schema={"a": pl.Int32}).cast(pl.Date))["value"].to_list()
        ['10000000']
    """
    failing = [pl.DataFrame(schema=FAILURES)]
    for name, dtype in df.schema.items():
        readable = is_readable(column(name), dtype, exactly=exactly)
        if readable is not None and not df.select(readable.all()).item():
            failing.append(failures_where(df, ~readable, name, BEYOND))
    return pl.concat(failing).sort("row", maintain_order=True)


def failures_where(df: pl.DataFrame, condition: pl.Expr, name: str, message: str) -> pl.DataFrame:
    """Return a failure for each row where *condition* holds for column *name*.

    Polars cannot format such values as text, so the failure shows the underlying integer.
    """
    given, dtype = plain(column(name), df.schema[name]), plain_of(df.schema[name])
    value = pl.lit(None, pl.String) if dtype.is_nested() else given.to_physical().cast(pl.String)
    rows = df.lazy().with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias(ROW_KEY)).filter(condition)
    failures = rows.select(
        pl.col(ROW_KEY).alias("row"),
        pl.lit(shown_name(name)).alias("column"),
        value.alias("value"),
        pl.lit("column_form").alias("rule"),
        pl.lit(message).alias("message"),
    )
    return failures.collect(engine=pl.InMemoryEngine())


def is_readable(expr: pl.Expr, dtype: Dtype, *, exactly: bool = True) -> pl.Expr | None:
    """Return an expression that is true where Python can hold a value of *dtype*, and null for nulls.

    Return None if Python can hold all values of *dtype*.

    Args:
        exactly: require every digit; otherwise Python may truncate nanoseconds to microseconds.

    Example:
        >>> is_readable(pl.col("a"), pl.Int64()) is None
        True
    """
    expr, dtype = plain(expr, dtype), plain_of(dtype)
    match dtype:
        case pl.Date():
            return expr.is_between(pl.lit(FIRST.date()), pl.lit(LAST.date()))
        case pl.Datetime(time_unit="us" | "ms" as unit):
            tick = timedelta(microseconds=1) if unit == "us" else timedelta(milliseconds=1)
            first, last, day = (FIRST - EPOCH) // tick, (LAST - EPOCH) // tick, timedelta(days=1) // tick
            ticks = expr.to_physical()
            if dtype.time_zone is not None:  # Python stores the local time
                # Polars panics when it converts values far outside.
                near = ticks.clip(first - 2 * day, last + 2 * day).cast(dtype)
                ticks = near.dt.replace_time_zone(None).to_physical()
            return ticks.is_between(first, last)
        case pl.Datetime() | pl.Time() | pl.Duration(time_unit="ns"):
            return expr.to_physical() % NANOSECONDS == 0 if exactly else None
        case pl.Duration(time_unit="ms"):
            longest = timedelta.max // timedelta(milliseconds=1)
            return expr.cast(pl.Int64).is_between(-longest, longest)
        case pl.List() | pl.Array():
            values = expr if isinstance(dtype, pl.List) else expr.arr.to_list()
            inner = is_readable(pl.element(), dtype.inner, exactly=exactly)
            return None if inner is None else values.list.eval(inner.fill_null(value=True)).list.all()
        case pl.Struct():
            checks = [check for check in _readable_fields(expr, dtype, exactly=exactly) if check is not None]
            return reduce(and_, checks) if checks else None
    return None


def _readable_fields(expr: pl.Expr, dtype: pl.Struct, *, exactly: bool) -> Iterator[pl.Expr | None]:
    for part in dtype.fields:
        readable = is_readable(field(expr, dtype, part.name), part.dtype, exactly=exactly)
        yield None if readable is None else readable.fill_null(value=True)


def _elements(expr: pl.Expr, dtype: Dtype) -> pl.Expr | None:
    """Return the number of elements of values of *dtype*, including nested ones, or None if it has no elements."""
    expr, dtype = plain(expr, dtype), plain_of(dtype)
    match dtype:
        case pl.List() | pl.Array():
            values = expr if isinstance(dtype, pl.List) else expr.arr.to_list()
            inner = _elements(pl.element(), dtype.inner)
            count = values.list.len().cast(pl.UInt64)
            return (count if inner is None else count + values.list.eval(inner).list.sum()).fill_null(0)
        case pl.Struct():
            fields = [_elements(field(expr, dtype, part.name), part.dtype) for part in dtype.fields]
            counts = [count for count in fields if count is not None]
            return reduce(add, counts) if counts else None
    return None
