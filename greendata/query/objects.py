"""Rows as Python objects: dicts, pydantic models, lists of values.

Making objects holds the GIL in whatever thread it is done. So it is done in the calling greenlet, in slices of
about a millisecond (`greendata.hub.pacing`), and the hub polls between them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, get_args

import polars as pl
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from greendata.errors import DuplicateColumn, FrameInvalid, NoColumnForm, NotAFrame, NotAModel
from greendata.hub.pacing import gathered
from greendata.pool import pool
from greendata.schema.codecs import Column, decoders_of
from greendata.schema.column_names import referred
from greendata.schema.fields import columns_of
from greendata.schema.limits import is_readable, unreadable

__all__ = ("rows_for", "to_columns", "to_dicts", "to_models")

_OWN_TYPES = frozenset(get_args(ErrorType))  # of pydantic; all others come from validators of the user

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Rows = Callable[[int, int], list[dict[str, Any]]]


def to_dicts(df: pl.DataFrame) -> list[dict[str, Any]]:
    """``df.to_dicts()``, in slices: the calling greenlet waits, the hub goes on.

    Raises:
        NotAFrame: *df* is no DataFrame.
        FrameInvalid: a value that Python has not, such as a date of the year 10 000.

    Example:
        >>> to_dicts(pl.DataFrame({"a": [1, 2]}))
        [{'a': 1}, {'a': 2}]
    """
    return gathered(partial(_dicts, _readable(df, "dict")), df.height)


def to_models(df: pl.DataFrame, model: type[M]) -> list[M]:
    """The rows as *model*: what ``TypeAdapter(list[model]).validate_python(df.to_dicts())`` gives, in slices.

    A dict and a tuple may be in their column's form, as in a frame that was validated.

    Raises:
        NotAFrame: *df* is no DataFrame.
        FrameInvalid: a value that Python cannot hold to the last digit, such as a date of the year 10 000.
        pydantic.ValidationError: rows that pydantic refuses, those of the first slice that has any; each location
            begins with the row's index in *df*.

    Example:
        >>> class Point(BaseModel):
        ...     x: int
        >>> to_models(pl.DataFrame({"x": [1, 2]}), Point)
        [Point(x=1), Point(x=2)]
    """
    validate = TypeAdapter(list[model]).validate_python  # type: ignore[valid-type]
    rows, height = rows_for(_frame(df), model), df.height
    return gathered(partial(_models, rows, validate), height)


def to_columns(df: pl.DataFrame) -> dict[str, list[Any]]:
    """``df.to_dict(as_series=False)``, in slices.

    Raises:
        NotAFrame: *df* is no DataFrame.
        FrameInvalid: a value that Python has not, such as a date of the year 10 000.

    Example:
        >>> to_columns(pl.DataFrame({"a": [1, 2], "b": ["x", None]}))
        {'a': [1, 2], 'b': ['x', None]}
    """
    return {
        series.name: gathered(partial(_values, series), len(series)) for series in _readable(df, "list").iter_columns()
    }


def rows_for(df: pl.DataFrame, model: type[BaseModel]) -> Rows:
    """What makes the rows of *df* from one on, so many, as *model* takes them.

    Raises:
        FrameInvalid: a value that Python cannot hold to the last digit.

    Example:
        >>> class Point(BaseModel):
        ...     xy: tuple[int, str]
        >>> rows_for(pl.DataFrame({"xy": [{"field_0": 1, "field_1": "a"}]}), Point)(0, 1)
        [{'xy': (1, 'a')}]
    """
    columns: tuple[Column, ...] = ()
    with suppress(NoColumnForm, DuplicateColumn, NotAModel):  # no frame is in its columns' form then
        columns = columns_of(model)
    failures = _unreadable(df)
    if failures.height and columns and model.model_config.get("extra", "ignore") == "ignore":
        spare = [name for name in df.columns if all(name not in column.sources for column in columns)]
        df, failures = df.drop(referred(spare, spare)), failures.filter(~pl.col("column").is_in(spare))
    if failures.height:
        raise pool.call(FrameInvalid.with_text, model.__name__, df.height, failures)
    unpackers = decoders_of(columns, df.schema)
    return partial(_unpacked, df, unpackers) if unpackers else partial(_dicts, df)


def _unpacked(
    df: pl.DataFrame, unpackers: list[tuple[str, Callable[[Any], Any]]], start: int, length: int
) -> list[dict[str, Any]]:
    return [row | {name: unpack(row[name]) for name, unpack in unpackers} for row in _dicts(df, start, length)]


def _dicts(df: pl.DataFrame, start: int, length: int) -> list[dict[str, Any]]:
    return df.slice(start, length).to_dicts()


def _values(series: pl.Series, start: int, length: int) -> list[Any]:
    return series.slice(start, length).to_list()


def _models(rows: Rows, validate: Callable[[Any], list[M]], start: int, length: int) -> list[M]:
    try:
        return validate(rows(start, length))
    except ValidationError as error:
        raise _shifted(error, start) from error


def _shifted(error: ValidationError, start: int) -> ValidationError:
    """The same failures, with row indices that count from the head of the frame."""
    details = [_detail(line, start) for line in error.errors(include_url=False)]
    return ValidationError.from_exception_data(error.title, details)


def _detail(line: Any, start: int) -> InitErrorDetails:
    row, *rest = line["loc"]
    detail = InitErrorDetails(type=line["type"], loc=(row + start, *rest), input=line["input"])
    if "ctx" in line:
        detail["ctx"] = line["ctx"]
    if line["type"] not in _OWN_TYPES:
        detail["type"] = PydanticCustomError(line["type"], line["msg"], line.get("ctx"))
    return detail


def _frame(df: object) -> pl.DataFrame:
    if not isinstance(df, pl.DataFrame):
        raise NotAFrame(df, "DataFrame")
    return df


def _readable(df: object, kind: str) -> pl.DataFrame:
    """*df*, if Python has what is in it; at what it has not, Polars panics."""
    frame = _frame(df)
    failures = _unreadable(frame, exactly=False)
    if failures.height:
        raise pool.call(FrameInvalid.with_text, kind, frame.height, failures)
    return frame


def _unreadable(df: pl.DataFrame, *, exactly: bool = True) -> pl.DataFrame:
    if any(is_readable(pl.element(), dtype, exactly=exactly) is not None for dtype in df.dtypes):
        return pool.call(partial(unreadable, exactly=exactly), df)
    return pl.DataFrame()  # of most frames it takes no query to know
