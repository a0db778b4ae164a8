"""Verdicts: what pydantic says of rows, one by one, in slices that leave the hub its time.

The slow way, for what a query alone cannot judge: whole rows, or columns of them. Whatever comes out of it, the
verdict, the value and the message, is pydantic's own; only that a column cannot hold a valid value is ours (rule
``column_form``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from reprlib import Repr
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import polars as pl
from pydantic import BaseModel, ValidationError

from greendata.frames.forms import Column, Unfit, unpackers_of
from greendata.hub.pacing import give_way, sliced

__all__ = (
    "FAILURES",
    "Failure",
    "Good",
    "JUDGE",
    "Judge",
    "ROW_KEY",
    "RowJudge",
    "Verdicts",
    "failures_in",
    "failures_of",
    "joined",
    "judged",
    "some_of",
    "text_of",
)

FAILURES = pl.Schema(
    {"row": pl.UInt32(), "column": pl.String(), "value": pl.String(), "rule": pl.String(), "message": pl.String()}
)
NONE = pl.DataFrame(schema=FAILURES)
ROW_KEY = f"row {uuid4()}"  # nobody can give a column of theirs the same name
JUDGE = f"judge {uuid4()}"
TOGETHER = 64  # frames that are concatenated at once: less than a millisecond
TEXT = 200  # characters of a value in the failures
ITEMISED = 1000  # failures of one row

T = TypeVar("T", pl.DataFrame, pl.Series)
Failure = tuple[int | None, str | None, str | None, str, str]
Good = tuple[int, list[Any]]  # the number of a row, and its valid values, one a column


@dataclass(frozen=True, slots=True)
class Judge(ABC):
    """What asks pydantic about rows of a frame.

    Attributes:
        frame: the rows as pydantic is to see them.
        columns: those whose values are taken from a valid row.
    """

    frame: pl.DataFrame
    columns: Sequence[Column]

    @abstractmethod
    def rows(self, numbers: pl.Series) -> Iterator[Any]:
        """The rows of these *numbers*, which ascend, as `valid` takes them."""

    @abstractmethod
    def valid(self, number: int, row: Any, failures: list[Failure]) -> list[Any] | None:
        """The valid values of *row*, one a column; or None, and what is wrong with it goes to *failures*."""

    def piece(self, rows: Sequence[Good], failures: list[Failure]) -> pl.DataFrame:
        """Valid *rows* in their columns' form, with their numbers; what does not fit it goes to *failures*."""
        try:
            return self._packed(rows)
        except Unfit:
            return self._packed([row for row in rows if self._fits(row, failures)])

    def _packed(self, rows: Sequence[Good]) -> pl.DataFrame:
        by_column = zip(*(values for _, values in rows), strict=True) if rows else ([] for _ in self.columns)
        series = {
            column.name: pl.Series([*map(column.form.pack, values)], dtype=column.form.dtype)
            for column, values in zip(self.columns, by_column, strict=True)
        }
        return pl.DataFrame(series | {ROW_KEY: pl.Series([number for number, _ in rows], dtype=pl.UInt32)})

    def _fits(self, row: Good, failures: list[Failure]) -> bool:
        number, values = row
        before = len(failures)
        for column, value in zip(self.columns, values, strict=True):
            try:
                column.form.pack(value)
            except Unfit as reason:
                failures.append((number, column.name, text_of(value), "column_form", str(reason)))
        return len(failures) == before


@dataclass(frozen=True, slots=True)
class RowJudge(Judge):
    """pydantic's verdict on whole rows.

    Attributes:
        check: a row's instance of the model, from what stands for the row; or a ValidationError.
    """

    check: Callable[[Any], BaseModel]

    def rows(self, numbers: pl.Series) -> Iterator[Mapping[str, Any]]:
        """See `Judge.rows`."""
        return _dicts(some_of(self.frame, numbers), unpackers_of(self.columns, self.frame.schema))

    def valid(self, number: int, row: Mapping[str, Any], failures: list[Failure]) -> list[Any] | None:
        """See `Judge.valid`."""
        try:
            model = self.check(row)
        except ValidationError as error:
            failures += failures_in(error, number)
            return None
        return [getattr(model, column.field) for column in self.columns]


class Verdicts(NamedTuple):
    """What judges have found, in pieces to be `joined` on a worker.

    Attributes:
        good: for each judge the rows that it found valid, in its columns' form, with their numbers.
        failures: those of all other rows.
    """

    good: list[list[pl.DataFrame]]
    failures: list[pl.DataFrame]


def judged(judges: Sequence[Judge], asked: pl.DataFrame) -> Verdicts:
    """The verdicts on the rows *asked*, each by its judge.

    Row by row in their order, so that validators are called as pydantic calls them over a list. Call from the
    greenlet that waits for it: the hub turns between slices, and validators run here.

    Args:
        asked: the numbers of the rows (`ROW_KEY`), ascending, and of their judges (`JUDGE`).
    """
    verdicts = Verdicts([[] for _ in judges], [])
    for pieces, failing in sliced(lambda start, length: _slice(judges, asked.slice(start, length)), asked.height):
        for good, some in zip(verdicts.good, pieces, strict=True):
            good.extend(piece for piece in some if piece.height)  # to free many empty ones at once takes long
        verdicts.failures.extend(failing)
    some_each = [found or [judge.piece([], [])] for judge, found in zip(judges, verdicts.good, strict=True)]
    return Verdicts(some_each, verdicts.failures or [NONE])


def _slice(judges: Sequence[Judge], asked: pl.DataFrame) -> Verdicts:
    """The verdicts on a slice, in one piece or none."""
    numbers, by = asked[ROW_KEY], asked[JUDGE]
    rows = [judge.rows(numbers.filter(by == index)) for index, judge in enumerate(judges)]
    good: list[list[Good]] = [[] for _ in judges]
    failures: list[Failure] = []
    for number, index in zip(numbers.to_list(), by.to_list(), strict=True):
        values = judges[index].valid(number, next(rows[index]), failures)
        if values is not None:
            good[index].append((number, values))
    pieces = [[judge.piece(some, failures)] if some else [] for judge, some in zip(judges, good, strict=True)]
    return Verdicts(pieces, [failures_of(failures)] if failures else [])


def some_of(values: T, numbers: pl.Series) -> T:
    """Those of a frame or a series with these *numbers*, which ascend."""
    if not numbers.len() or numbers[-1] - numbers[0] == numbers.len() - 1:
        return values.slice(numbers[0] if numbers.len() else 0, numbers.len())  # without a copy
    return values[numbers]


def failures_of(failures: Sequence[Failure]) -> pl.DataFrame:
    """*failures* as a frame."""
    return pl.DataFrame(failures, schema=FAILURES, orient="row")


def joined(pieces: list[pl.DataFrame]) -> pl.DataFrame:
    """*pieces*, at least one, as one frame; the list is emptied. Call on a worker.

    To concatenate and to free thousands of frames holds the GIL for many milliseconds: it goes by a few at a time.
    """
    parts = []
    while pieces:
        parts.append(pl.concat(pieces[:TOGETHER], rechunk=True))
        del pieces[:TOGETHER]
        give_way()
    return pl.concat(parts)


def text_of(value: object) -> str | None:
    """*value* as it stands among the failures: short, and a string as it is."""
    if value is None:
        return None
    if isinstance(value, list | dict | set | tuple):
        text = f"{type(value).__name__} of {len(value)}" if len(value) > TEXT else _brief(value)
    else:
        text = str(value)
    return text if len(text) <= TEXT else text[: TEXT - 3] + "..."


class _Brief(Repr):
    """The text of containers, which may be all of a body: some of what is in them, some levels deep."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 25
        self.maxstring = self.maxlong = self.maxother = TEXT // 4


_brief = _Brief().repr


def failures_in(error: ValidationError, number: int, *place: str) -> Iterator[Failure]:
    """What *error* says of row *number*, or of what is at a *place* in it.

    Of a row with more than `ITEMISED` failures their number is told: to tell each takes 5 us, and nothing divides it.
    """
    count = error.error_count()
    if count > ITEMISED:
        yield number, ".".join(place) if place else None, None, "too_many_failures", f"{count} failures are in this row"
        return
    for found in error.errors(include_url=False, include_context=False):
        parts = (*place, *map(str, found["loc"]))
        column = ".".join(parts) if parts else None
        value = None if found["type"] in {"missing", "extra_forbidden"} else text_of(found["input"])
        yield number, column, value, found["type"], found["msg"]


def _dicts(piece: pl.DataFrame, unpackers: Sequence[tuple[str, Callable[[Any], Any]]]) -> Iterator[Mapping[str, Any]]:
    rows: list[dict[str, Any]] = piece.to_dicts() if piece.width else [{} for _ in range(piece.height)]
    for row in rows:
        for name, unpack in unpackers:
            row[name] = unpack(row[name])
        yield row
