"""Dtypes that are new in Polars 2.1: maps, which are lists of pairs, and extensions of other dtypes."""

from __future__ import annotations

from typing import Any

import polars as pl

from greendata.schema.codecs import Dtype

__all__ = ("map_type", "plain", "plain_of", "rebuilt")

map_type: Any = getattr(pl, "Map", ())  # an empty tuple for isinstance, so with Polars 2.0 no dtype is a map
_EXTENSION: Any = getattr(pl, "BaseExtension", ())


def plain_of(dtype: Dtype) -> pl.DataType:
    """Return the dtype of `plain` values: *dtype* itself unless it is a new one. Inner dtypes are left unchanged.

    A class becomes an instance: the inner dtypes of ``pl.List(pl.String)`` and the like may be classes.

    Example:
        >>> plain_of(pl.Int8)
        Int8
    """
    given: Any = dtype() if isinstance(dtype, type) else dtype
    if isinstance(given, map_type):
        return pl.List(pl.Struct({"key": given.key, "value": given.value}))
    if isinstance(given, _EXTENSION):
        return plain_of(given.ext_storage())
    known: pl.DataType = given
    return known


def plain(value: pl.Expr, dtype: Dtype) -> pl.Expr:
    """Return values of *dtype* converted to the dtype that `plain_of` returns.

    Example:
        >>> pl.DataFrame({"a": [1]}).select(plain(pl.col("a"), pl.Int64())).item()
        1
    """
    given: Any = dtype
    if isinstance(given, map_type):
        return value.cast(plain_of(given))
    return plain(value.ext.storage(), given.ext_storage()) if isinstance(given, _EXTENSION) else value


def rebuilt(value: pl.Expr, dtype: Dtype) -> pl.Expr:
    """Reverse `plain`. A duplicate key of a map makes the query fail, because Polars would silently drop one entry.

    Example:
        >>> pl.DataFrame({"a": [1]}).select(rebuilt(pl.col("a"), pl.Int64())).item()
        1
    """
    given: Any = dtype
    if isinstance(given, map_type):
        keys = value.list.eval(pl.element().struct.field("key"))
        has_duplicates = keys.list.n_unique() < keys.list.len()
        is_distinct = (has_duplicates.cast(pl.Int16) * -1).cast(pl.UInt8) == 0  # the cast of -1 makes the query fail
        return pl.when(is_distinct).then(value.cast(given))
    return rebuilt(value, given.ext_storage()).ext.to(given) if isinstance(given, _EXTENSION) else value
