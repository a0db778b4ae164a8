"""Rows as Python objects: dicts, pydantic models, lists of values.

Making objects holds the GIL in whatever thread it is done. So it is done in the calling greenlet, in slices of
about a millisecond (`greendata.hub.pacing`), and the hub polls between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar, get_args

import polars as pl
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from greendata.errors import NotAFrame
from greendata.hub.pacing import gathered, sliced

__all__ = ("iter_dicts", "iter_models", "to_columns", "to_dicts", "to_models")

_OWN_TYPES = frozenset(get_args(ErrorType))  # of pydantic; all others come from validators of the user

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


def to_dicts(df: pl.DataFrame) -> list[dict[str, Any]]:
    """``df.to_dicts()``, in slices: the calling greenlet waits, the hub goes on.

    Raises:
        NotAFrame: *df* is no DataFrame.

    Example:
        >>> to_dicts(pl.DataFrame({"a": [1, 2]}))
        [{'a': 1}, {'a': 2}]
    """
    return gathered(partial(_dicts, _frame(df)), df.height)


def to_models(df: pl.DataFrame, model: type[M]) -> list[M]:
    """The rows as *model*: what ``TypeAdapter(list[model]).validate_python(df.to_dicts())`` gives, in slices.

    Raises:
        NotAFrame: *df* is no DataFrame.
        pydantic.ValidationError: rows that pydantic refuses, those of the first slice that has any; each location
            begins with the row's index in *df*.

    Example:
        >>> class Point(BaseModel):
        ...     x: int
        >>> to_models(pl.DataFrame({"x": [1, 2]}), Point)
        [Point(x=1), Point(x=2)]
    """
    validate = TypeAdapter(list[model]).validate_python  # type: ignore[valid-type]
    return gathered(partial(_models, _frame(df), validate), df.height)


def to_columns(df: pl.DataFrame) -> dict[str, list[Any]]:
    """``df.to_dict(as_series=False)``, in slices.

    Raises:
        NotAFrame: *df* is no DataFrame.

    Example:
        >>> to_columns(pl.DataFrame({"a": [1, 2], "b": ["x", None]}))
        {'a': [1, 2], 'b': ['x', None]}
    """
    return {series.name: gathered(partial(_values, series), len(series)) for series in _frame(df).iter_columns()}


def iter_dicts(df: pl.DataFrame) -> Iterator[list[dict[str, Any]]]:
    """The rows as dicts, slice by slice as they are made.

    Example:
        >>> next(iter_dicts(pl.DataFrame({"a": [1, 2]})))
        [{'a': 1}, {'a': 2}]
    """
    return sliced(partial(_dicts, _frame(df)), df.height)


def iter_models(df: pl.DataFrame, model: type[M]) -> Iterator[list[M]]:
    """The rows as instances of *model*, slice by slice; raises what `to_models` does.

    Example:
        >>> class Point(BaseModel):
        ...     x: int
        >>> next(iter_models(pl.DataFrame({"x": [1]}), Point))
        [Point(x=1)]
    """
    validate = TypeAdapter(list[model]).validate_python  # type: ignore[valid-type]
    return sliced(partial(_models, _frame(df), validate), df.height)


def _dicts(df: pl.DataFrame, start: int, length: int) -> list[dict[str, Any]]:
    return df.slice(start, length).to_dicts()


def _values(series: pl.Series, start: int, length: int) -> list[Any]:
    return series.slice(start, length).to_list()


def _models(df: pl.DataFrame, validate: Callable[[Any], list[M]], start: int, length: int) -> list[M]:
    try:
        return validate(df.slice(start, length).to_dicts())
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
