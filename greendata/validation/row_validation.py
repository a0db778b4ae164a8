"""Validated: what pydantic says of rows, one by one, in slices that leave the hub its time.

The slow way, for what a query alone cannot judge: whole rows, or columns of them. Whatever comes out of it, the
verdict, the value and the message, is pydantic's own; only that a column cannot hold a valid value is ours (rule
``column_form``). The failures of a frame are told one by one up to a limit, since to tell one takes as long as to
read hundreds of bytes.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import polars as pl
from pydantic import BaseModel, ValidationError

from greendata.hub.pacing import breathe, sliced
from greendata.schema.codecs import Column, EncodeError, decoders_of, series_of
from greendata.schema.failures import (
    FAILURES,
    LISTED,
    ROW_KEY,
    Failure,
    Failures,
    failures_of,
    name_of,
    text_of,
)

__all__ = (
    "PLACE",
    "Good",
    "VALIDATOR",
    "RowValidator",
    "SURELY_INVALID",
    "Validated",
    "Validator",
    "validate_rows",
    "take_rows",
)

NONE = pl.DataFrame(schema=FAILURES)
VALIDATOR = f"judge {uuid4()}"
PLACE = f"at {uuid4()}"
SURELY_INVALID = f"rejected {uuid4()}"
WAITING = 4096  # valid rows that wait for a frame: some megabytes

T = TypeVar("T", pl.DataFrame, pl.Series)
Good = tuple[int, list[Any]]  # the number of a row, and its valid values, one a column


@dataclass(frozen=True, slots=True)
class Validator(ABC):
    """What asks pydantic about rows of a frame.

    Attributes:
        frame: the rows as pydantic is to see them.
        columns: those whose values are taken from a valid row.
    """

    frame: pl.DataFrame
    columns: Sequence[Column]

    @abstractmethod
    def rows(self, places: pl.Series) -> Iterator[Any]:
        """The rows at these *places* in the frame, which ascend, as `valid` takes them."""

    @abstractmethod
    def valid(self, number: int, row: Any, failures: Failures) -> list[Any] | None:
        """The valid values of *row*, one a column; or None, and what is wrong with it goes to *failures*."""

    def encode_rows(self, rows: Sequence[Good], failures: Failures) -> list[list[Any]]:
        """Return the numbers of valid *rows* and their encoded columns. Add what cannot be encoded to *failures*."""
        try:
            return self._packed(rows)
        except EncodeError:
            found = [[*self._encode_failures(row)] for row in rows]
            failures += [failure for some in found for failure in some]
            return self._packed([row for row, some in zip(rows, found, strict=True) if not some])

    def frame_of(self, packed: Sequence[list[Any]]) -> pl.DataFrame:
        """What `fitting` returns as a frame, with the numbers of its rows."""
        numbers, *columns = packed
        series = {
            column.name: series_of(values, column.codec.dtype)
            for column, values in zip(self.columns, columns, strict=True)
        }
        return pl.DataFrame(series | {ROW_KEY: pl.Series(numbers, dtype=pl.UInt32)})

    def _packed(self, rows: Sequence[Good]) -> list[list[Any]]:
        by_column = zip(*(values for _, values in rows), strict=True) if rows else ([] for _ in self.columns)
        columns = zip(self.columns, by_column, strict=True)
        return [[number for number, _ in rows], *([*map(column.codec.encode, values)] for column, values in columns)]

    def _encode_failures(self, row: Good) -> Iterator[Failure]:
        number, values = row
        for column, value in zip(self.columns, values, strict=True):
            try:
                column.codec.encode(value)
            except EncodeError as reason:
                yield number, name_of(column.name), text_of(value), "column_form", str(reason)


@dataclass(frozen=True, slots=True)
class RowValidator(Validator):
    """pydantic's verdict on whole rows.

    Attributes:
        check: a row's instance of the model, from what stands for the row; or a ValidationError.
    """

    check: Callable[[Any], BaseModel]

    def rows(self, places: pl.Series) -> Iterator[Mapping[str, Any]]:
        """See `Validator.rows`."""
        return _dicts(take_rows(self.frame, places), decoders_of(self.columns, self.frame.schema))

    def valid(self, number: int, row: Mapping[str, Any], failures: Failures) -> list[Any] | None:
        """See `Validator.valid`."""
        try:
            model = self.check(row)
        except ValidationError as error:
            failures.add(error, number)
            return None
        return [getattr(model, column.field) for column in self.columns]


class Validated(NamedTuple):
    """What judges have found, in pieces to be `joined` on a worker.

    Attributes:
        good: for each judge the rows that it found valid, in its columns' codec, with their numbers.
        failures: those of the other rows, the first `LISTED` of them one by one.
        left: the rows that no judge was asked about any more.
    """

    good: list[list[pl.DataFrame]]
    failures: list[pl.DataFrame]
    left: pl.DataFrame


def validate_rows(validators: Sequence[Validator], assigned: pl.DataFrame, *, all_rows: bool) -> Validated:
    """The outcome on the rows *assigned*, each by its judge.

    Row by row in their order, so that validators are called as pydantic calls them over a list. Call from the
    greenlet that waits for it: the hub turns between slices, and validators run here.

    Args:
        assigned: a row number (`ROW_KEY`, ascending), the index of its validator (`VALIDATOR`), its place in the
            validator's frame (`PLACE`), and whether a query has found it invalid (`SURELY_INVALID`).
        all_rows: after `LISTED` failures, judge those that may be valid; otherwise no more of them.
    """
    outcome = Validated([[] for _ in validators], [], assigned.head(0))
    done = _validator(validators, assigned, LISTED, outcome)
    left = assigned.slice(done)
    if all_rows and left.height:
        is_rejected = left[SURELY_INVALID]
        _validator(validators, left.filter(~is_rejected), 0, outcome)
        left = left.filter(is_rejected)
    some_each = [
        found or [validator.frame_of(validator.encode_rows([], Failures()))]
        for validator, found in zip(validators, outcome.good, strict=True)
    ]
    return Validated(some_each, outcome.failures or [NONE], left)


def _validator(validators: Sequence[Validator], assigned: pl.DataFrame, limit: int, outcome: Validated) -> int:
    """Add the outcome on *assigned*, up to a *limit* of failures if it is not 0; return how many were done."""
    told = done = 0
    waiting: list[list[list[Any]]] = [
        validator.encode_rows([], Failures()) for validator in validators
    ]  # for their frames: to begin one takes as long as 20 rows

    def some(start: int, length: int) -> tuple[int, list[pl.DataFrame]]:
        failures = Failures(limit and sys.maxsize)
        _slice(validators, assigned.slice(start, length), waiting, failures)
        return length, [failures_of(failures)] if failures else []

    for length, failing in sliced(some, assigned.height):
        outcome.failures.extend(failing)
        done += length
        told += sum(piece.height for piece in failing)
        is_over = done == assigned.height or 0 < limit <= told
        for validator, rows, good in zip(validators, waiting, outcome.good, strict=True):
            if rows[0] and (is_over or len(rows[0]) >= WAITING):
                good.extend(_framed(validator, rows))
        if is_over:
            break
    return done


def _slice(
    validators: Sequence[Validator], assigned: pl.DataFrame, good: list[list[list[Any]]], failures: Failures
) -> None:
    """Add the valid rows of a slice to those of their judges, and the failures of the others."""
    by = assigned[VALIDATOR].to_list()
    places = dict.fromkeys(set(by), assigned[PLACE])
    if len(places) > 1:
        places = {index: assigned[PLACE].filter(assigned[VALIDATOR] == index) for index in places}
    rows = {index: validators[index].rows(some) for index, some in places.items()}
    found: dict[int, list[Good]] = {index: [] for index in places}
    for number, index in zip(assigned[ROW_KEY].to_list(), by, strict=True):
        values = validators[index].valid(number, next(rows[index]), failures)
        if values is not None:
            found[index].append((number, values))
    for index, some in found.items():
        for column, values in zip(good[index], validators[index].encode_rows(some, failures), strict=True):
            column.extend(values)


def _framed(validator: Validator, packed: list[list[Any]]) -> Iterator[pl.DataFrame]:
    """What `Validator.fitting` has returned as frames. The lists are emptied, from their beginning."""
    breathe()

    def some(_: int, length: int) -> pl.DataFrame:
        frame = validator.frame_of([values[:length] for values in packed])
        for values in packed:
            del values[:length]
        return frame

    yield from sliced(some, len(packed[0]))


def take_rows(values: T, numbers: pl.Series) -> T:
    """Those of a frame or a series with these *numbers*, which ascend."""
    if not numbers.len() or numbers[-1] - numbers[0] == numbers.len() - 1:
        return values.slice(numbers[0] if numbers.len() else 0, numbers.len())  # without a copy
    return values[numbers]


def _dicts(piece: pl.DataFrame, decoders: Sequence[tuple[str, Callable[[Any], Any]]]) -> Iterator[Mapping[str, Any]]:
    rows: list[dict[str, Any]] = piece.to_dicts() if piece.width else [{} for _ in range(piece.height)]
    for row in rows:
        for name, decode in decoders:
            row[name] = decode(row[name])
        yield row
