"""Make frames of Python objects and of Arrow data.

Rows and columns of Python values are validated when the frame is made, by pydantic and in slices on the hub, since a
frame may not be able to hold an invalid value. Arrow data is not validated, and is converted in the pool.
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
from greendata.typed.plan import message_without_plan

__all__ = ("frame_of_arrow", "frame_of_columns", "rows_of_columns")


def frame_of_arrow(data: object) -> pl.DataFrame:
    """Return a frame of an object that has an Arrow C stream or array. pyarrow is not needed.

    Raises:
        NotArrow: it has neither.
        PlanRefused: Polars cannot read it, since it has an unknown type or the stream breaks off; or it contains text
            that is not UTF-8.

    Example:
        >>> frame_of_arrow(pl.DataFrame({"a": [1, 2]})).height
        2
    """
    if not hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__"):
        raise NotArrow(data)
    try:
        return pool.call(_from_arrow, data)
    except PolarsError as error:
        raise PlanRefused("from_arrow", message_without_plan(error), {}) from error


def frame_of_columns(columns: Mapping[str, Any]) -> pl.DataFrame | None:
    """Return a frame of columns that are Series, NumPy or Arrow arrays, or None if some are Python sequences.

    Raises:
        ColumnsUnequal: the columns have different lengths.
        BadArgument: a column has no length.
        PlanRefused: an Arrow array contains text that is not UTF-8.
    """
    _check_lengths(columns)
    if any(isinstance(values, list | tuple) for values in columns.values()):
        return None
    try:
        return pool.call(_from_arrow, dict(columns))
    except PolarsError as error:
        raise PlanRefused("from_columns", message_without_plan(error), {}) from error


def rows_of_columns(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the values as rows, built in slices on the hub. All columns must have the same length."""
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
        if (text := _with_text_as(dtype, pl.String())) != _with_text_as(dtype, pl.Binary()):
            # Polars does not check that Arrow's text is UTF-8, and other bytes crash the process later.
            df.select(column(name).cast(text).cast(_with_text_as(dtype, pl.Binary())).cast(text))
    return df


def _with_text_as(dtype: Any, text: pl.DataType) -> pl.DataType:
    """Return *dtype* with all its text types replaced by *text*."""
    match dtype:
        case pl.List():
            return pl.List(_with_text_as(dtype.inner, text))
        case pl.Array():
            return pl.Array(_with_text_as(dtype.inner, text), dtype.size)
        case pl.Struct():
            return pl.Struct([pl.Field(part.name, _with_text_as(part.dtype, text)) for part in dtype.fields])
        case pl.String() | pl.Categorical() | pl.Enum():
            return text
    known: pl.DataType = dtype
    return known
