"""The failures of a frame against its model: one row of a frame each, and how a value and a name are shown there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from reprlib import Repr
from uuid import uuid4

import polars as pl
from pydantic import ValidationError

from greendata.hub.pacing import give_way

__all__ = (
    "BEYOND_LISTED",
    "FAILURES",
    "Failure",
    "Failures",
    "ITEMISED",
    "LISTED",
    "ROW_KEY",
    "TEXT",
    "UNLISTED",
    "failures_in",
    "failures_of",
    "joined",
    "name_of",
    "text_of",
)

FAILURES = pl.Schema(
    {"row": pl.UInt32(), "column": pl.String(), "value": pl.String(), "rule": pl.String(), "message": pl.String()}
)
ROW_KEY = f"row {uuid4()}"  # nobody can give a column of theirs the same name
TOGETHER = 64  # frames that are concatenated at once: less than a millisecond
TEXT = 200  # characters of a value in the failures
NAME = 1000  # characters of a column in the failures: a stranger's name may be all of a body
ITEMISED = 1000  # failures of one row
LISTED = 10_000  # failures of a frame; to list them takes 50 ms
UNLISTED = "unlisted"  # the rule of a row whose failures are not told
BEYOND_LISTED = f"the row is invalid; only the first {LISTED} failures are listed"
Failure = tuple[int | None, str | None, str | None, str, str]


class Failures(list[Failure]):
    """What is wrong with rows: each failure up to a limit, and of each row after that but that it fails.

    Args:
        limit: of the failures that are told one by one.

    Example:
        >>> from pydantic import TypeAdapter
        >>> found = Failures(limit=1)
        >>> for row in range(2):
        ...     try:
        ...         TypeAdapter(int).validate_python("x")
        ...     except ValidationError as error:
        ...         found.add(error, row)
        >>> [(row, rule) for row, _, _, rule, _ in found]
        [(0, 'int_parsing'), (1, 'unlisted')]
    """

    def __init__(self, limit: int = LISTED) -> None:
        super().__init__()
        self._limit = limit

    def add(self, error: ValidationError, number: int, *place: str) -> None:
        """Add what *error* says of row *number*, or of what is at a *place* in it."""
        if len(self) < self._limit:
            self += failures_in(error, number, *place)
        elif not self or self[-1][0] != number:
            self.append((number, None, None, UNLISTED, BEYOND_LISTED))


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


def name_of(column: str) -> str:
    """*column* as it stands among the failures, each of which repeats it: all of it, unless it is very long."""
    return column if len(column) <= NAME else column[: NAME - 3] + "..."


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
        yield (
            number,
            name_of(".".join(place)) if place else None,
            None,
            "too_many_failures",
            f"{count} failures are in this row",
        )
        return
    for found in error.errors(include_url=False, include_context=False):
        parts = (*place, *map(str, found["loc"]))
        column = name_of(".".join(parts)) if parts else None
        value = None if found["type"] in {"missing", "extra_forbidden"} else text_of(found["input"])
        yield number, column, value, found["type"], found["msg"]
