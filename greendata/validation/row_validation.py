"""Row validation: pydantic validates rows one by one, in slices between which the hub runs other greenlets.

This is the slow path, for what a query alone cannot decide: whole rows, or some of their columns. The result, the
values and the messages are pydantic's, with one exception: greendata reports a valid value that its column cannot hold
(rule ``column_form``). The failures of a frame are listed one by one only up to a limit, since listing one takes as
long as reading hundreds of bytes.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import polars as pl
from pydantic import BaseModel, ValidationError

from greendata.hub.pacing import breathe, sliced, sliced_by_time
from greendata.schema.codecs import Column, EncodeError, LeafCodec, decoders_of, series_of
from greendata.schema.failures import (
    FAILURES,
    HIDDEN,
    LISTED,
    ROW_KEY,
    Failure,
    Failures,
    failures_of,
    shown_name,
    shown_value,
)
from greendata.schema.fields import hidden_places

__all__ = (
    "Good",
    "PLACE",
    "RowValidator",
    "SURELY_INVALID",
    "VALIDATOR",
    "Validated",
    "Validator",
    "take_rows",
    "validate_rows",
)

NONE = pl.DataFrame(schema=FAILURES)
VALIDATOR = f"validator {uuid4()}"
PLACE = f"place {uuid4()}"
SURELY_INVALID = f"surely invalid {uuid4()}"
DICTS = 64  # rows that become dicts at once: a slice may end before it needs more
WAITING = 4096  # valid rows collected before a frame is made of them: some megabytes

T = TypeVar("T", pl.DataFrame, pl.Series)
Good = tuple[int, list[Any]]  # the number of a row, and its valid values, one per column


@dataclass(frozen=True, slots=True)
class Validator(ABC):
    """Validate rows of a frame with pydantic.

    Attributes:
        frame: the rows as pydantic sees them.
        columns: the columns whose values are taken from a valid row.
    """

    frame: pl.DataFrame
    columns: Sequence[Column]

    @abstractmethod
    def rows(self, places: pl.Series) -> Iterator[Any]:
        """Return the rows at these ascending *places* in the frame, as arguments for `valid`."""

    @abstractmethod
    def valid(self, number: int, row: Any, failures: Failures) -> list[Any] | None:
        """Return the valid values of *row* by column; if the row is invalid, add to *failures* and return None."""

    def encode_rows(self, rows: Sequence[Good], failures: Failures) -> list[list[Any]]:
        """Return the numbers of valid *rows* and their encoded columns. Add what cannot be encoded to *failures*."""
        try:
            return self._encoded(rows)
        except EncodeError:
            found = [[*self._encode_failures(row)] for row in rows]
            failures += [failure for of_row in found for failure in of_row]
            return self._encoded([row for row, of_row in zip(rows, found, strict=True) if not of_row])

    def frame_of(self, encoded: Sequence[list[Any]]) -> pl.DataFrame:
        """Return the result of `encode_rows` as a frame with row numbers."""
        numbers, *columns = encoded
        series = {
            column.name: series_of(values, column.codec.dtype)
            for column, values in zip(self.columns, columns, strict=True)
        }
        return pl.DataFrame(series | {ROW_KEY: pl.Series(numbers, dtype=pl.UInt32)})

    def _encoded(self, rows: Sequence[Good]) -> list[list[Any]]:
        by_column = zip(*(values for _, values in rows), strict=True) if rows else ([] for _ in self.columns)
        columns = zip(self.columns, by_column, strict=True)
        return [[number for number, _ in rows], *([*map(column.codec.encode, values)] for column, values in columns)]

    def _encode_failures(self, row: Good) -> Iterator[Failure]:
        number, values = row
        for column, value in zip(self.columns, values, strict=True):
            try:
                column.codec.encode(value)
            except EncodeError as reason:
                shown = HIDDEN if column.is_hidden else shown_value(value)
                yield number, shown_name(column.name), shown, "column_form", str(reason)


@dataclass(frozen=True, slots=True)
class RowValidator(Validator):
    """Validate whole rows with pydantic.

    Attributes:
        check: returns an instance of the model for a row, or raises ValidationError.
        hidden: the names of the columns and fields whose values no failure shows.
    """

    check: Callable[[Any], BaseModel]
    hidden: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", hidden_places(self.columns))

    def rows(self, places: pl.Series) -> Iterator[Mapping[str, Any]]:
        """See `Validator.rows`."""
        return _dicts(take_rows(self.frame, places), decoders_of(self.columns, self.frame.schema))

    def valid(self, number: int, row: Mapping[str, Any], failures: Failures) -> list[Any] | None:
        """See `Validator.valid`."""
        try:
            model = self.check(row)
        except ValidationError as error:
            failures.add(error, number, hidden=self.hidden)
            return None
        return [getattr(model, column.field) for column in self.columns]


class Validated(NamedTuple):
    """The results of validators, in pieces to be `concatenated` on a worker.

    Attributes:
        good: for each validator, its valid rows, encoded and with their numbers.
        failures: the failures of the other rows, of which the first `LISTED` are listed one by one.
        left: the assigned rows that were not validated.
    """

    good: list[list[pl.DataFrame]]
    failures: list[pl.DataFrame]
    left: pl.DataFrame


def validate_rows(validators: Sequence[Validator], assigned: pl.DataFrame, *, all_rows: bool) -> Validated:
    """Validate the *assigned* rows, each with its validator.

    The rows are validated in order, so validators of the model are called as if pydantic validated a list. Call from
    the greenlet that needs the result: the validators of the model run on it, and the hub runs other greenlets between
    slices.

    Args:
        assigned: a row number (`ROW_KEY`, ascending), the index of its validator (`VALIDATOR`), its place in the
            validator's frame (`PLACE`), and whether a query has found it invalid (`SURELY_INVALID`).
        all_rows: after `LISTED` failures, continue with the rows that may be valid. Otherwise stop there.
    """
    outcome = Validated([[] for _ in validators], [], assigned.head(0))
    done = _validate(validators, assigned, LISTED, outcome)
    left = assigned.slice(done)
    if all_rows and left.height:
        is_rejected = left[SURELY_INVALID]
        _validate(validators, left.filter(~is_rejected), 0, outcome)
        left = left.filter(is_rejected)
    good = [
        found or [validator.frame_of(validator.encode_rows([], Failures()))]
        for validator, found in zip(validators, outcome.good, strict=True)
    ]
    return Validated(good, outcome.failures or [NONE], left)


def _validate(validators: Sequence[Validator], assigned: pl.DataFrame, limit: int, outcome: Validated) -> int:
    """Validate *assigned* and add to *outcome*; stop at *limit* failures unless it is 0. Return the rows validated."""
    listed = done = 0
    waiting: list[list[list[Any]]] = [
        validator.encode_rows([], Failures()) for validator in validators
    ]  # collected for larger frames: creating one takes as long as 20 rows

    def validate_slice(start: int, length: int, ends: float) -> tuple[int, tuple[int, list[pl.DataFrame]]]:
        failures = Failures(limit and sys.maxsize)
        length = _slice(validators, assigned.slice(start, length), waiting, failures, ends)
        return length, (length, [failures_of(failures)] if failures else [])

    for length, failing in sliced_by_time(validate_slice, assigned.height):
        outcome.failures.extend(failing)
        done += length
        listed += sum(piece.height for piece in failing)
        is_over = done == assigned.height or 0 < limit <= listed
        for validator, rows, good in zip(validators, waiting, outcome.good, strict=True):
            if rows[0] and (is_over or len(rows[0]) >= WAITING):
                good.extend(_framed(validator, rows))
        if is_over:
            break
    return done


def _slice(
    validators: Sequence[Validator],
    assigned: pl.DataFrame,
    good: list[list[list[Any]]],
    failures: Failures,
    ends: float,
) -> int:
    """Validate rows until the time *ends*, and return their number.

    Add valid rows to the lists of their validator in *good*, and failures to *failures*.
    """
    by = assigned[VALIDATOR].to_list()
    places = dict.fromkeys(set(by), assigned[PLACE])
    if len(places) > 1:
        places = {index: assigned[PLACE].filter(assigned[VALIDATOR] == index) for index in places}
    rows = {index: validators[index].rows(places_of) for index, places_of in places.items()}
    found: dict[int, list[Good]] = {index: [] for index in places}
    at_once = {index: _has_plain_columns(validators[index]) for index in places}
    done = 0
    for number, index in zip(assigned[ROW_KEY].to_list(), by, strict=True):
        values = validators[index].valid(number, next(rows[index]), failures)
        if values is not None and at_once[index]:
            found[index].append((number, values))
        elif values is not None:  # to encode a list may take much longer than its validation
            _encode(validators[index], [(number, values)], good[index], failures)
        done += 1
        if perf_counter() >= ends:
            break
    for index, valid in found.items():
        _encode(validators[index], valid, good[index], failures)
    return done


def _has_plain_columns(validator: Validator) -> bool:
    return all(isinstance(column.codec, LeafCodec) for column in validator.columns)


def _encode(validator: Validator, rows: list[Good], good: list[list[Any]], failures: Failures) -> None:
    for column, values in zip(good, validator.encode_rows(rows, failures), strict=True):
        column.extend(values)


def _framed(validator: Validator, encoded: list[list[Any]]) -> Iterator[pl.DataFrame]:
    """Yield the result of `Validator.encode_rows` as frames. The lists are emptied from the front."""
    breathe()

    def take_frame(_: int, length: int) -> pl.DataFrame:
        frame = validator.frame_of([values[:length] for values in encoded])
        for values in encoded:
            del values[:length]
        return frame

    yield from sliced(take_frame, len(encoded[0]))


def take_rows(values: T, numbers: pl.Series) -> T:
    """Return the rows of a frame or series with these ascending *numbers*."""
    if not numbers.len() or numbers[-1] - numbers[0] == numbers.len() - 1:
        return values.slice(numbers[0] if numbers.len() else 0, numbers.len())  # without a copy
    return values[numbers]


def _dicts(piece: pl.DataFrame, decoders: Sequence[tuple[str, Callable[[Any], Any]]]) -> Iterator[Mapping[str, Any]]:
    for begin in range(0, piece.height, DICTS):
        some = piece.slice(begin, DICTS)
        rows: list[dict[str, Any]] = some.to_dicts() if some.width else [{} for _ in range(some.height)]
        for row in rows:
            for name, decode in decoders:
                row[name] = decode(row[name])
            yield row
