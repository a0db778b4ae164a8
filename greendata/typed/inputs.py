"""Python objects and Arrow data on their way into a frame.

Rows and columns of Python values are validated as they come in, by pydantic itself and in slices on the hub: a frame
cannot hold what is no valid value. Arrow data goes in as it is, off the hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from greendata.errors import BadArgument, ColumnsUnequal, NotArrow, PlanRefused
from greendata.hub.pacing import paced
from greendata.pool import pool
from greendata.schema.column_names import column
from greendata.typed.plan import short_message

__all__ = ("frame_of_arrow", "frame_of_columns", "rows_of_columns")


def frame_of_arrow(data: object) -> pl.DataFrame:
    """A frame of anything that has an Arrow C stream or array; pyarrow is not needed.

    Raises:
        NotArrow: it has none.
        PlanRefused: Polars cannot take it: a type that it does not know, a stream that breaks off; or there is text
            in it that is no Unicode.

    Example:
        >>> frame_of_arrow(pl.DataFrame({"a": [1, 2]})).height
        2
    """
    if not hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__"):
        raise NotArrow(data)
    try:
        return pool.call(_from_arrow, data)
    except PolarsError as error:
        raise PlanRefused("from_arrow", short_message(error), {}) from error


def frame_of_columns(columns: Mapping[str, Any]) -> pl.DataFrame | None:
    """A frame of columns that are Series, NumPy or Arrow arrays; None where some are Python sequences.

    Raises:
        ColumnsUnequal: the columns have not one length.
        BadArgument: one of them has none.
        PlanRefused: there is text in an Arrow array that is no Unicode.
    """
    _check_lengths(columns)
    if any(isinstance(values, list | tuple) for values in columns.values()):
        return None
    try:
        return pool.call(_from_arrow, dict(columns))
    except PolarsError as error:
        raise PlanRefused("from_columns", short_message(error), {}) from error


def rows_of_columns(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The same values as rows, made in slices on the hub; the columns have one length."""
    names = tuple(columns)
    return paced(lambda values: dict(zip(names, values, strict=True)), zip(*columns.values(), strict=True))


def _check_lengths(columns: Mapping[str, Any]) -> None:
    if not isinstance(columns, Mapping):
        raise BadArgument("columns", columns, "a mapping of names to sequences of values")
    for name, values in columns.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise BadArgument(f"column {name!r}", values, "a sequence of values")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ColumnsUnequal(lengths)


def _from_arrow(data: Any) -> pl.DataFrame:
    df = pl.DataFrame(data)
    for name, dtype in df.schema.items():
        if (text := _with(dtype, pl.String())) != _with(dtype, pl.Binary()):
            # Polars takes Arrow's word for it that text is Unicode, and later ends the process where it is not.
            df.select(column(name).cast(text).cast(_with(dtype, pl.Binary())).cast(text))
    return df


def _with(dtype: Any, text: pl.DataType) -> pl.DataType:
    """*dtype* with *text* in the place of all its kinds of text."""
    match dtype:
        case pl.List():
            return pl.List(_with(dtype.inner, text))
        case pl.Array():
            return pl.Array(_with(dtype.inner, text), dtype.size)
        case pl.Struct():
            return pl.Struct([pl.Field(part.name, _with(part.dtype, text)) for part in dtype.fields])
        case pl.String() | pl.Categorical() | pl.Enum():
            return text
    known: pl.DataType = dtype
    return known
