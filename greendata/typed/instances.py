"""Convert the rows of a frame to instances of a model, and Python rows to a frame, with pydantic, in slices on the hub.

pydantic sees each value as it is in the frame, without an earlier validation. So the instances equal those of
``TypeAdapter(list[Model]).validate_python(df.to_dicts())``, whatever the validators of the model do.
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
from greendata.pool.operation import INTERNAL
from greendata.query.objects import to_models
from greendata.schema.codecs import Column, EncodeError, series_of
from greendata.schema.failures import HIDDEN, Failure, Failures, concatenated, failures_of, shown_name, shown_value
from greendata.schema.fields import columns_of, hidden_places
from greendata.validation.verbs import Trust, validate

__all__ = ("PlanRows", "frame_of_rows", "models_of")

M = TypeVar("M", bound=BaseModel)


NO_COLUMN = "a key without a field has no column: add a field for it"
_FRAME_ROWS = 2_000  # rows of Python values that become a frame at once: about two milliseconds with wide rows


@dataclass(frozen=True, slots=True)
class PlanRows(Generic[M]):
    """Validate the rows of a plan. Call the methods from a greenlet: the hub runs between slices.

    Attributes:
        plan: the lazy frame of the rows.
        model: the model of the rows.
        trust: see `greendata.validation.verbs.validate`.
    """

    plan: pl.LazyFrame
    model: type[M]
    trust: Trust

    def frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Validate *rows* of the plan and return them with the columns of the model.

        Raises:
            FrameInvalid: rows are invalid.

        Example:
            >>> class User(BaseModel):
            ...     age: int
            >>> rows = pl.DataFrame({"age": ["7"]})
            >>> PlanRows(rows.lazy(), User, "off").frame(rows).rows()
            [(7,)]
        """
        with INTERNAL.parts():  # the query whose rows they are is counted
            return validate(rows, self.model, trust=self.trust)

    def models(self, rows: pl.DataFrame) -> list[M]:
        """Return *rows* of the plan as instances of the model, see `models_of`.

        Example:
            >>> class User(BaseModel):
            ...     age: int
            >>> rows = pl.DataFrame({"age": ["7"]})
            >>> PlanRows(rows.lazy(), User, "off").models(rows)
            [User(age=7)]
        """
        return models_of(rows, self.model)


def models_of(df: pl.DataFrame, model: type[M]) -> list[M]:
    """Return the rows of *df* as valid instances of *model*.

    Raises:
        FrameInvalid: rows are invalid.

    Example:
        >>> class User(BaseModel):
        ...     name: str
        >>> models_of(pl.DataFrame({"name": ["Ann"]}), User)
        [User(name='Ann')]
    """
    columns_of(model)
    try:
        return to_models(df, model)
    except ValidationError as error:
        invalid = error
    validate(df, model)  # raises an error with all failures, and without pydantic's, which may show secrets
    raise invalid


def frame_of_rows(rows: Iterable[object], model: type[BaseModel]) -> pl.DataFrame:
    """Validate dicts and instances of *model* one by one and return them as a frame.

    Raises:
        FrameInvalid: rows are invalid, or a value does not fit into its column.

    Example:
        >>> class User(BaseModel):
        ...     name: str
        >>> frame_of_rows([{"name": "Ann"}, User(name="Bob")], User)["name"].to_list()
        ['Ann', 'Bob']
    """
    columns = [column for column in columns_of(model) if column.sources]
    failures = Failures()
    allows_extra = model.model_config.get("extra") == "allow"
    take = partial(_encode, TypeAdapter(model).validate_python, columns, failures, allows_extra)
    encoded = paced(take, enumerate(rows))
    if failures:
        raise pool.call(_invalid, model, len(encoded), _pieces(failures))
    parts = range(0, max(1, len(encoded)), _FRAME_ROWS)
    return pl.concat(paced(lambda at: _frame_of(encoded[at : at + _FRAME_ROWS], columns), parts))


def _frame_of(rows: list[tuple[Any, ...]], columns: list[Column]) -> pl.DataFrame:
    """Return encoded *rows* as a frame. Polars' own constructor from rows turns maps into null."""
    by_column = zip(*rows, strict=True) if rows else ([] for _ in columns)
    return pl.DataFrame(
        {
            column.name: series_of([*values], column.codec.dtype)
            for column, values in zip(columns, by_column, strict=True)
        }
    )


def _pieces(failures: list[Failure]) -> list[pl.DataFrame]:
    """Convert *failures* to frames, and empty the list from its end: freeing it at once would take long."""

    def last(_: int, length: int) -> pl.DataFrame:
        piece = failures_of(failures[-length:])
        del failures[-length:]
        return piece

    return [*sliced(last, len(failures))][::-1]


def _invalid(model: type[BaseModel], rows: int, pieces: list[pl.DataFrame]) -> FrameInvalid:
    return FrameInvalid.with_text(model.__name__, rows, concatenated(pieces))


def _encode(
    check: Callable[[Any], Any],
    columns: list[Column],
    failures: Failures,
    allows_extra: bool,  # noqa: FBT001 - all arguments but the last are bound
    numbered: tuple[int, object],
) -> tuple[Any, ...]:
    """Return the values of a row as their columns store them. Errors are added to *failures*."""
    number, row = numbered
    try:
        instance = check(row)
    except ValidationError as error:
        failures.add(error, number, hidden=hidden_places(columns))
        return ()
    encoded: list[Any] = []
    for column in columns:
        value = getattr(instance, column.field)
        try:
            encoded.append(column.codec.encode(value))
        except EncodeError as unfit:
            shown = HIDDEN if column.is_hidden else shown_value(value)
            failures.append((number, shown_name(column.name), shown, "column_form", str(unfit)))
    if allows_extra and (extra := getattr(instance, "model_extra", None)):
        failures += [(number, shown_name(name), None, "column_form", NO_COLUMN) for name in extra]
    return tuple(encoded)
