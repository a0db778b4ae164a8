"""Verdicts: what pydantic says of rows, one by one, in slices that leave the hub its time.

The slow way, for the rows that a query alone cannot judge. Whatever comes out of it, the verdict, the value and
the message, is pydantic's own; only that a column cannot hold a valid value is ours (rule ``column_form``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import BaseModel, ValidationError

from greendata.frames.forms import Column, Unfit, unpackers_of
from greendata.hub.pacing import give_way, sliced

__all__ = ("FAILURES", "Failure", "Judge", "ROW_KEY", "failures_of", "joined", "text_of")

FAILURES = pl.Schema(
    {"row": pl.UInt32(), "column": pl.String(), "value": pl.String(), "rule": pl.String(), "message": pl.String()}
)
NONE = pl.DataFrame(schema=FAILURES)
ROW_KEY = "\0row"  # no column of a user's is called so
TOGETHER = 64  # frames that are concatenated at once: less than a millisecond
TEXT = 200  # characters of a value in the failures

Failure = tuple[int | None, str | None, str | None, str, str]


@dataclass(frozen=True, slots=True)
class Judge:
    """pydantic's verdict on rows of a frame.

    Attributes:
        model: the model; a row is what ``model.model_validate(row, strict=strict)`` says it is.
        columns: its columns.
        strict: pydantic's strict mode; None leaves it to the model.
    """

    model: type[BaseModel]
    columns: Sequence[Column]
    strict: bool | None

    def __call__(self, rows: pl.Series, frame: pl.DataFrame) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
        """The valid ones of *rows* in their columns' form, with their numbers, and the failures of the others.

        Both in pieces, at least one, to be `joined` on a worker. Call from the greenlet that waits for it: the hub
        turns between slices, and validators run here.

        Args:
            rows: the numbers of rows of *frame*.
        """
        is_whole = rows.len() == frame.height
        unpackers = unpackers_of(self.columns, frame.schema)

        def judged(start: int, length: int) -> tuple[pl.DataFrame, pl.DataFrame]:
            numbers = rows.slice(start, length)
            piece = frame.slice(start, length) if is_whole else frame[numbers]
            return self._slice(numbers.to_list(), _dicts(piece, unpackers))

        good: list[pl.DataFrame] = []
        failures: list[pl.DataFrame] = []
        for fitting, failing in sliced(judged, rows.len()):  # no empty ones, as to free them all at once takes long
            good += [fitting] if fitting.height else []
            failures += [failing] if failing.height else []
        return good or [judged(0, 0)[0]], failures or [NONE]

    def _slice(self, numbers: list[int], rows: Iterator[Mapping[str, Any]]) -> tuple[pl.DataFrame, pl.DataFrame]:
        validate = self.model.__pydantic_validator__.validate_python
        good: list[int] = []
        packed: list[list[Any]] = []
        failures: list[Failure] = []
        for number, row in zip(numbers, rows, strict=True):
            try:
                value = validate(row, strict=self.strict)
            except ValidationError as error:
                failures += _failures(number, error)
                continue
            found = self._pack(number, value, failures)
            if found is not None:
                good.append(number)
                packed.append(found)
        return self._packed(good, packed), failures_of(failures) if failures else NONE

    def _pack(self, number: int, value: BaseModel, failures: list[Failure]) -> list[Any] | None:
        packed = []
        unfit = len(failures)
        for column in self.columns:
            item = getattr(value, column.field)
            try:
                packed.append(column.form.pack(item))
            except Unfit as reason:
                failures.append((number, column.name, text_of(item), "column_form", str(reason)))
        return packed if len(failures) == unfit else None

    def _packed(self, numbers: list[int], rows: list[list[Any]]) -> pl.DataFrame:
        values = zip(*rows, strict=True) if rows else ([] for _ in self.columns)
        series = {
            column.name: pl.Series(list(items), dtype=column.form.dtype)
            for column, items in zip(self.columns, values, strict=True)
        }
        return pl.DataFrame(series | {ROW_KEY: pl.Series(numbers, dtype=pl.UInt32)})


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
    if isinstance(value, list | dict | set | tuple) and len(value) > TEXT:
        return f"{type(value).__name__} of {len(value)}"
    text = str(value)
    return text if len(text) <= TEXT else text[: TEXT - 3] + "..."


def _failures(number: int, error: ValidationError) -> Iterator[Failure]:
    for found in error.errors(include_url=False, include_context=False):
        column = ".".join(map(str, found["loc"])) or None
        value = None if found["type"] in {"missing", "extra_forbidden"} else text_of(found["input"])
        yield number, column, value, found["type"], found["msg"]


def _dicts(piece: pl.DataFrame, unpackers: Sequence[tuple[str, Callable[[Any], Any]]]) -> Iterator[Mapping[str, Any]]:
    rows: list[dict[str, Any]] = piece.to_dicts() if piece.width else [{} for _ in range(piece.height)]
    for row in rows:
        for name, unpack in unpackers:
            row[name] = unpack(row[name])
        yield row
