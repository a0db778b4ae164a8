"""Expressions for columns and fields by exact name: any text is a name, never a pattern.

``pl.col("*")`` selects all columns and ``pl.col("^a.*$")`` all that match. Strings given to `select`, `drop` and
similar methods are expanded in the same way. A name may come from a header or key in untrusted input, so code that
means one column uses the functions here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import polars as pl
import polars.selectors as cs

__all__ = ("column", "field", "frame_of", "referred")


def column(name: str) -> pl.Expr:
    """Return an expression for the column called *name*.

    Example:
        >>> pl.DataFrame({"a": [1], "^a$": [2]}).select(column("^a$")).rows()
        [(2,)]
    """
    return cs.by_name(name).as_expr() if _is_pattern(name) else pl.col(name)


def field(value: pl.Expr, dtype: pl.Struct, name: str) -> pl.Expr:
    """Return an expression for the field called *name* of structs of *dtype*.

    Example:
        >>> df = pl.DataFrame({"s": [{"a": 1, "*": 2}]})
        >>> df.select(field(pl.col("s"), df.schema["s"], "*").alias("b")).rows()
        [(2,)]
    """
    if not _is_pattern(name):
        return value.struct.field(name)
    numbers = [str(number) for number in range(len(dtype.fields))]
    return value.struct.rename_fields(numbers).struct.field(numbers[[*dict(dtype)].index(name)])


def frame_of(columns: Collection[pl.Series]) -> pl.DataFrame:
    """Return a frame of *columns*. Polars would rename a column called "" if they were given as a list.

    Example:
        >>> frame_of([pl.Series("", [1])]).columns
        ['']
    """
    return pl.DataFrame({series.name: series for series in columns})


def referred(what: Any, columns: Collection[str]) -> Any:
    """Return an argument for a Polars operation in which each string that is one of *columns* means that column.

    Example:
        >>> pl.DataFrame({"a": [1], "^a$": [2]}).select(referred(["^a$"], ["a", "^a$"])).columns
        ['^a$']
    """
    if isinstance(what, str):
        return cs.by_name(what) if _is_pattern(what) and what in columns else what
    if isinstance(what, list | tuple):
        return [referred(part, columns) for part in what]
    return what


def _is_pattern(name: str) -> bool:
    return name == "*" or (name.startswith("^") and name.endswith("$"))
