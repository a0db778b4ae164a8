"""Polars' types and those of databases: what can be written and how, and how what comes back is read.

PostgreSQL's driver crashes or writes nonsense for some types (Int128, UInt64), so only those known to be right pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from greendata.errors import BadArgument, ColumnUnwritable
from greendata.frames.databases import POSTGRES, SQLITE

__all__ = ("parameters", "readable", "writable")

_NUMBERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.Float32, pl.Float64)
_SCALARS = (*_NUMBERS, pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Datetime)
_AS_TEXT = (pl.Categorical, pl.Enum, pl.Null)
_POSTGRES_ONLY = (pl.Time, pl.Duration, pl.Decimal)
_IN_LISTS = (*_NUMBERS, pl.Boolean, pl.String)
_PREFIXES = (":", "@", "$")  # of named parameters in SQLite


def writable(schema: Mapping[str, Any], kind: str) -> list[pl.Expr]:
    """How each column of *schema* is written to a database of *kind*.

    Raises:
        ColumnUnwritable: there is no way for some.

    Example:
        >>> [str(how) for how in writable({"a": pl.Int64()}, "SQLite")]
        ['col("a")']
    """
    ways = {name: _way(pl.col(name), dtype, kind) for name, dtype in schema.items()}
    missing = {name: schema[name] for name, way in ways.items() if way is None}
    if missing:
        raise ColumnUnwritable(missing, kind)
    return [way for way in ways.values() if way is not None]


def _way(column: pl.Expr, dtype: Any, kind: str) -> pl.Expr | None:
    if isinstance(dtype, _AS_TEXT):
        return column.cast(pl.String)
    if isinstance(dtype, pl.UInt64):
        return column.cast(pl.Int64)  # the largest there is; what does not fit is an error
    if isinstance(dtype, _SCALARS):
        return column
    if kind == POSTGRES:
        plain = isinstance(dtype, _POSTGRES_ONLY) or (isinstance(dtype, pl.List) and isinstance(dtype.inner, _IN_LISTS))
        return column if plain else None
    if isinstance(dtype, pl.Decimal):
        return column.cast(pl.String)  # exact; SQLite's own numbers are binary floats
    if isinstance(dtype, pl.Time):
        return column.dt.to_string("%H:%M:%S%.6f")
    return None


def parameters(params: Sequence[Any] | Mapping[str, Any], kind: str) -> pl.DataFrame:
    """*params* as the one row that a driver binds.

    Raises:
        BadArgument: named ones, where the driver knows none.
        ColumnUnwritable: a value of a type that cannot be bound.

    Example:
        >>> parameters([1, "x"], "PostgreSQL").row(0)
        (1, 'x')
    """
    if not isinstance(params, Mapping):
        values: Iterable[tuple[str, Any]] = ((str(number), value) for number, value in enumerate(params))
    elif kind == SQLITE:
        values = ((name if name.startswith(_PREFIXES) else f":{name}", value) for name, value in params.items())
    else:
        raise BadArgument("params", params, "a sequence: PostgreSQL's parameters are $1, $2, ...")
    row = pl.DataFrame([pl.Series(name, [value]) for name, value in values])
    return row.select(writable(row.schema, kind))


def readable(frame: pl.DataFrame, overrides: Mapping[str, Any]) -> pl.DataFrame:
    """*frame* in Polars' own types, and those of *overrides*.

    Raises:
        BadArgument: an override of a column that is not there.
    """
    if unknown := sorted(overrides.keys() - frame.schema.keys()):
        raise BadArgument("schema_overrides", unknown, f"of the columns {', '.join(frame.columns)}")
    plain = [_plain(pl.col(name), dtype) for name, dtype in frame.schema.items() if _is_foreign(dtype)]
    frame = frame.with_columns(plain) if plain else frame
    wanted = [_cast(frame[name], dtype) for name, dtype in overrides.items()]
    return frame.with_columns(wanted) if wanted else frame


def _is_foreign(dtype: Any) -> bool:
    return isinstance(dtype, pl.BaseExtension) or (isinstance(dtype, pl.List) and _is_foreign(dtype.inner))


def _plain(column: pl.Expr, dtype: Any) -> pl.Expr:
    """What an Arrow extension type is stored as: the text of a numeric or of JSON, the bytes of what nobody knows."""
    if isinstance(dtype, pl.List):
        return column.list.eval(_plain(pl.element(), dtype.inner))
    return column.ext.storage()


def _cast(column: pl.Series, dtype: Any) -> pl.Series:
    if column.null_count() == len(column):  # SQLite's driver calls a column without values Int64
        return pl.Series(column.name, [None] * len(column), dtype=dtype)
    if column.dtype == pl.String:
        if dtype == pl.Date:
            return column.str.to_date("%Y-%m-%d")
        if dtype == pl.Time:
            return column.str.to_time("%H:%M:%S%.f")
        if dtype == pl.Datetime:
            return _moments(column, dtype)
    return column.cast(dtype)


def _moments(column: pl.Series, dtype: Any) -> pl.Series:
    unit: Any = getattr(dtype, "time_unit", None) or "us"
    zone = getattr(dtype, "time_zone", None)
    naive = column.str.replace(" ", "T", literal=True).str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit=unit)
    return naive.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else naive  # as it was written
