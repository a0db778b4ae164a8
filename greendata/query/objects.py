"""Convert rows to Python objects: dicts, pydantic models, lists of values.

Creating objects holds the GIL in any thread. So it is done in the calling greenlet, in slices of about a millisecond
(`greendata.hub.pacing`), and the hub polls between them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, get_args

import polars as pl
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from greendata.errors import DuplicateColumn, FrameInvalid, NoColumnForm, NotAFrame, NotAModel
from greendata.hub.pacing import breathing, gathered
from greendata.pool import pool
from greendata.query.chunked_text import SLICE_BYTES
from greendata.schema.codecs import Column, decoders_of
from greendata.schema.column_names import referred
from greendata.schema.fields import columns_of
from greendata.schema.limits import is_readable, unreadable

__all__ = ("is_small", "rows_for", "to_columns", "to_dicts", "to_models")

_PYDANTIC_TYPES = frozenset(get_args(ErrorType))  # pydantic's error types; all others come from validators of the user

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Rows = Callable[[int, int], list[dict[str, Any]]]


def to_dicts(df: pl.DataFrame) -> list[dict[str, Any]]:
    """Return ``df.to_dicts()``, computed in slices: the calling greenlet waits, and the hub continues.

    Raises:
        NotAFrame: *df* is not a DataFrame.
        FrameInvalid: Python cannot represent a value, for example a date in the year 10 000.

    Example:
        >>> to_dicts(pl.DataFrame({"a": [1, 2]}))
        [{'a': 1}, {'a': 2}]
    """
    frame = _readable(df, "dict")
    return gathered(partial(_dicts, frame), frame.height, is_small=partial(is_small, frame))


def to_models(df: pl.DataFrame, model: type[M]) -> list[M]:
    """Return ``TypeAdapter(list[model]).validate_python(df.to_dicts())``, computed in slices.

    Dicts and tuples may be encoded as in the columns of a validated frame.

    Args:
        df: the frame.
        model: the class of the models.

    Raises:
        NotAFrame: *df* is not a DataFrame.
        FrameInvalid: Python cannot represent a value exactly, for example a date in the year 10 000.
        pydantic.ValidationError: pydantic rejects rows. Only the first slice with such rows is reported; each location
            begins with the row's index in *df*.

    Example:
        >>> class Point(BaseModel):
        ...     x: int
        >>> to_models(pl.DataFrame({"x": [1, 2]}), Point)
        [Point(x=1), Point(x=2)]
    """
    rows, height = rows_for(_frame(df), model), df.height
    hides = ConfigDict(hide_input_in_errors=True) if any(column.is_hidden for column in _columns(model)) else None
    validate = TypeAdapter(list[model], config=hides).validate_python  # type: ignore[valid-type]
    read = partial(_models, rows, validate, hides=hides is not None)
    return gathered(read, height, is_small=partial(is_small, df))


def to_columns(df: pl.DataFrame) -> dict[str, list[Any]]:
    """Return ``df.to_dict(as_series=False)``, computed in slices.

    Raises:
        NotAFrame: *df* is not a DataFrame.
        FrameInvalid: Python cannot represent a value, for example a date in the year 10 000.

    Example:
        >>> to_columns(pl.DataFrame({"a": [1, 2], "b": ["x", None]}))
        {'a': [1, 2], 'b': ['x', None]}
    """
    return {
        series.name: gathered(partial(_values, series), len(series), is_small=partial(is_small, series))
        for series in breathing(_readable(df, "list").iter_columns())
    }


def is_small(values: pl.DataFrame | pl.Series, start: int, length: int) -> bool:
    """Return True if these rows are few enough bytes to become Python objects in one slice, see `sliced`.

    Example:
        >>> is_small(pl.Series(["x", "y"]), 0, 2)
        True
    """
    return values.slice(start, length).estimated_size() <= SLICE_BYTES


def rows_for(df: pl.DataFrame, model: type[BaseModel]) -> Rows:
    """Return a function of a start and a length that returns these rows of *df*, decoded for *model*.

    Raises:
        FrameInvalid: Python cannot represent a value exactly.

    Example:
        >>> class Point(BaseModel):
        ...     xy: tuple[int, str]
        >>> rows_for(pl.DataFrame({"xy": [{"field_0": 1, "field_1": "a"}]}), Point)(0, 1)
        [{'xy': (1, 'a')}]
    """
    columns = _columns(model)
    failures = _unreadable(df)
    if failures.height and columns and model.model_config.get("extra", "ignore") == "ignore":
        spare = [name for name in df.columns if all(name not in column.sources for column in columns)]
        df, failures = df.drop(referred(spare, spare)), failures.filter(~pl.col("column").is_in(spare))
    if failures.height:
        raise pool.call(FrameInvalid.with_text, model.__name__, df.height, failures)
    decoders = decoders_of(columns, df.schema)
    return partial(_decoded, df, decoders) if decoders else partial(_dicts, df)


def _columns(model: type[BaseModel]) -> tuple[Column, ...]:
    """Return the columns of *model*. Without columns there is nothing to decode."""
    with suppress(NoColumnForm, DuplicateColumn, NotAModel):
        return columns_of(model)
    return ()


def _decoded(
    df: pl.DataFrame, decoders: list[tuple[str, Callable[[Any], Any]]], start: int, length: int
) -> list[dict[str, Any]]:
    return [row | {name: decode(row[name]) for name, decode in decoders} for row in _dicts(df, start, length)]


def _dicts(df: pl.DataFrame, start: int, length: int) -> list[dict[str, Any]]:
    return df.slice(start, length).to_dicts()


def _values(series: pl.Series, start: int, length: int) -> list[Any]:
    return series.slice(start, length).to_list()


def _models(rows: Rows, validate: Callable[[Any], list[M]], start: int, length: int, *, hides: bool) -> list[M]:
    try:
        return validate(rows(start, length))
    except ValidationError as error:
        raise _shifted(error, start, hides=hides) from error


def _shifted(error: ValidationError, start: int, *, hides: bool) -> ValidationError:
    """Return *error* with row indices that count from the start of the frame. If *hides*, its text shows no input."""
    details = [_detail(line, start) for line in error.errors(include_url=False)]
    return ValidationError.from_exception_data(error.title, details, hide_input=hides)


def _detail(line: Any, start: int) -> InitErrorDetails:
    row, *rest = line["loc"]
    detail = InitErrorDetails(type=line["type"], loc=(row + start, *rest), input=line["input"])
    if "ctx" in line:
        detail["ctx"] = line["ctx"]
    if line["type"] not in _PYDANTIC_TYPES:
        detail["type"] = PydanticCustomError(line["type"], line["msg"], line.get("ctx"))
    return detail


def _frame(df: object) -> pl.DataFrame:
    if not isinstance(df, pl.DataFrame):
        raise NotAFrame(df, "DataFrame")
    return df


def _readable(df: object, kind: str) -> pl.DataFrame:
    """Return *df*, or raise if Python cannot represent a value, at which Polars would panic."""
    frame = _frame(df)
    failures = _unreadable(frame, exactly=False)
    if failures.height:
        raise pool.call(FrameInvalid.with_text, kind, frame.height, failures)
    return frame


def _unreadable(df: pl.DataFrame, *, exactly: bool = True) -> pl.DataFrame:
    if any(is_readable(pl.element(), dtype, exactly=exactly) is not None for dtype in {*df.dtypes}):
        return pool.call(partial(unreadable, exactly=exactly), df)
    return pl.DataFrame()  # most frames need no query to find out
