"""The rows of a frame as instances of a model, and Python rows as a frame: pydantic's own doing, in slices on the hub.

Each value is seen by pydantic as the frame has it, not as a validation before has left it; so the instances are those
of ``TypeAdapter(list[Model]).validate_python(df.to_dicts())``, whatever the validators of the model do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import polars as pl
from pydantic import BaseModel, TypeAdapter, ValidationError

from greendata.errors import FrameInvalid
from greendata.hub.pacing import paced, sliced
from greendata.pool import pool
from greendata.query.objects import to_models
from greendata.schema.codecs import Column, EncodeError, series_of
from greendata.schema.failures import Failure, Failures, failures_of, joined, name_of, text_of
from greendata.schema.fields import columns_of
from greendata.validation.verbs import Trust, validate

__all__ = ("PlanRows", "frame_of_rows", "models_of")

M = TypeVar("M", bound=BaseModel)


_FRAME_ROWS = 2_000  # rows of Python values that become a frame at once: some two milliseconds for a wide row


@dataclass(frozen=True, slots=True)
class PlanRows(Generic[M]):
    """What validates the rows of a plan. Call it from a greenlet: the hub turns between slices.

    Attributes:
        plan: the rows.
        model: what they are to be.
        trust: see `greendata.validation.verbs.validate`.
    """

    plan: pl.LazyFrame
    model: type[M]
    trust: Trust

    def frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The columns of the model for *rows* of the plan.

        Raises:
            FrameInvalid: rows that do not fit.

        Example:
            >>> class User(BaseModel):
            ...     age: int
            >>> rows = pl.DataFrame({"age": ["7"]})
            >>> PlanRows(rows.lazy(), User, "off").frame(rows).rows()
            [(7,)]
        """
        return validate(rows, self.model, trust=self.trust)

    def models(self, rows: pl.DataFrame) -> list[M]:
        """The instances of the model for *rows* of the plan: `models_of` them.

        Example:
            >>> class User(BaseModel):
            ...     age: int
            >>> rows = pl.DataFrame({"age": ["7"]})
            >>> PlanRows(rows.lazy(), User, "off").models(rows)
            [User(age=7)]
        """
        return models_of(rows, self.model)


def models_of(df: pl.DataFrame, model: type[M]) -> list[M]:
    """The rows of *df* as instances of *model*, each of them valid.

    Raises:
        FrameInvalid: rows that do not fit.

    Example:
        >>> class User(BaseModel):
        ...     name: str
        >>> models_of(pl.DataFrame({"name": ["Ann"]}), User)
        [User(name='Ann')]
    """
    columns_of(model)
    try:
        return to_models(df, model)
    except ValidationError:
        validate(df, model)  # tells of all failures, and of the columns they are in
        raise


def frame_of_rows(rows: Iterable[object], model: type[BaseModel]) -> pl.DataFrame:
    """A frame of dicts and of instances of *model*, validated one by one.

    Raises:
        FrameInvalid: rows that do not fit, or values that no column can hold.

    Example:
        >>> class User(BaseModel):
        ...     name: str
        >>> frame_of_rows([{"name": "Ann"}, User(name="Bob")], User)["name"].to_list()
        ['Ann', 'Bob']
    """
    columns = [column for column in columns_of(model) if column.sources]
    failures = Failures()
    take = partial(_packed, TypeAdapter(model).validate_python, columns, failures)
    packed = paced(take, enumerate(rows))
    if failures:
        raise pool.call(_invalid, model, len(packed), _pieces(failures))
    parts = range(0, max(1, len(packed)), _FRAME_ROWS)
    return pl.concat(paced(lambda at: _frame_of(packed[at : at + _FRAME_ROWS], columns), parts))


def _frame_of(rows: list[tuple[Any, ...]], columns: list[Column]) -> pl.DataFrame:
    """Packed *rows* as a frame. Polars' own way from rows makes a map null."""
    by_column = zip(*rows, strict=True) if rows else ([] for _ in columns)
    return pl.DataFrame(
        {
            column.name: series_of([*values], column.codec.dtype)
            for column, values in zip(columns, by_column, strict=True)
        }
    )


def _pieces(failures: list[Failure]) -> list[pl.DataFrame]:
    """*failures* as frames. The list is emptied, from its end: to free all of it at once is long work as well."""

    def last(_: int, length: int) -> pl.DataFrame:
        piece = failures_of(failures[-length:])
        del failures[-length:]
        return piece

    return [*sliced(last, len(failures))][::-1]


def _invalid(model: type[BaseModel], rows: int, pieces: list[pl.DataFrame]) -> FrameInvalid:
    return FrameInvalid.with_text(model.__name__, rows, joined(pieces))


def _packed(
    check: Callable[[Any], Any],
    columns: list[Column],
    failures: Failures,
    numbered: tuple[int, object],
) -> tuple[Any, ...]:
    """The values of a row, as their columns hold them; what is wrong with them goes to *failures*."""
    number, row = numbered
    try:
        instance = check(row)
    except ValidationError as error:
        failures.add(error, number)
        return ()
    packed: list[Any] = []
    for column in columns:
        value = getattr(instance, column.field)
        try:
            packed.append(column.codec.encode(value))
        except EncodeError as unfit:
            failures.append((number, name_of(column.name), text_of(value), "column_form", str(unfit)))
    return tuple(packed)
