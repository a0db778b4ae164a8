"""Dtypes that Polars 2.1 has and 2.0 has not: maps, which are lists of pairs, and extensions of other dtypes."""

from __future__ import annotations

from typing import Any

import polars as pl

from greendata.schema.codecs import Dtype

__all__ = ("map_type", "plain", "plain_of", "rebuilt")

map_type: Any = getattr(pl, "Map", ())  # isinstance takes it; with Polars 2.0 nothing is one
_EXTENSION: Any = getattr(pl, "BaseExtension", ())


def plain_of(dtype: Dtype) -> pl.DataType:
    """The dtype of `plain` values; *dtype* itself if it is no new one. What is in it stays as it is.

    Example:
        >>> plain_of(pl.Int8())
        Int8
    """
    given: Any = dtype
    if isinstance(given, map_type):
        return pl.List(pl.Struct({"key": given.key, "value": given.value}))
    if isinstance(given, _EXTENSION):
        return plain_of(given.ext_storage())
    known: pl.DataType = given
    return known


def plain(value: pl.Expr, dtype: Dtype) -> pl.Expr:
    """Values of *dtype* as those of `plain_of` it.

    Example:
        >>> pl.DataFrame({"a": [1]}).select(plain(pl.col("a"), pl.Int64())).item()
        1
    """
    given: Any = dtype
    if isinstance(given, map_type):
        return value.cast(plain_of(given))
    return plain(value.ext.storage(), given.ext_storage()) if isinstance(given, _EXTENSION) else value


def rebuilt(value: pl.Expr, dtype: Dtype) -> pl.Expr:
    """The reverse of `plain`. A key that a map has twice is an error: Polars would keep one of the two.

    Example:
        >>> pl.DataFrame({"a": [1]}).select(rebuilt(pl.col("a"), pl.Int64())).item()
        1
    """
    given: Any = dtype
    if isinstance(given, map_type):
        keys = value.list.eval(pl.element().struct.field("key"))
        has_twins = keys.list.n_unique() < keys.list.len()
        none_has = (has_twins.cast(pl.Int16) * -1).cast(pl.UInt8) == 0  # or the cast fails
        return pl.when(none_has).then(value.cast(given))
    return rebuilt(value, given.ext_storage()).ext.to(given) if isinstance(given, _EXTENSION) else value
