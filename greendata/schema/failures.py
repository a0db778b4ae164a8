"""The failures of a frame against its model: a frame with one row per failure, and how it shows values and names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from reprlib import Repr
from uuid import uuid4

import polars as pl
from pydantic import ValidationError

from greendata.hub.pacing import release_gil

__all__ = (
    "BEYOND_LISTED",
    "FAILURES",
    "Failure",
    "Failures",
    "HIDDEN",
    "ITEMISED",
    "LISTED",
    "ROW_KEY",
    "TEXT",
    "UNLISTED",
    "concatenated",
    "failures_in",
    "failures_of",
    "shown_name",
    "shown_value",
    "text_of",
)

FAILURES = pl.Schema(
    {"row": pl.UInt32(), "column": pl.String(), "value": pl.String(), "rule": pl.String(), "message": pl.String()}
)
ROW_KEY = f"row {uuid4()}"  # no column of a user can have this name
CONCAT_FRAMES = 64  # frames per concatenation, which then takes less than a millisecond
TEXT = 200  # characters kept of a value
INTEGER_BITS = 1 << 10  # of an integer that is shown with its digits: 308 of them
NAME = 1000  # characters kept of a column name: in untrusted input one name may be as long as the body
ITEMISED = 1000  # failures listed per row
LISTED = 10_000  # failures listed per frame; listing them takes 50 ms
UNLISTED = "unlisted"  # the rule of a row whose failures are not listed
BEYOND_LISTED = f"the row is invalid; only the first {LISTED} failures are listed"
HIDDEN = "**********"  # instead of a value that no message may show, as pydantic shows its secrets
Failure = tuple[int | None, str | None, str | None, str, str]


class Failures(list[Failure]):
    """A list of failures. Up to a limit each failure is listed; after that, one entry per invalid row.

    Args:
        limit: the number of failures after which single failures are no longer listed.

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

    def add(self, error: ValidationError, number: int, *place: str, hidden: Collection[str] = frozenset()) -> None:
        """Add the failures in *error* for row *number*, or for the value at *place* in that row.

        Args:
            hidden: see `failures_in`.
        """
        if len(self) < self._limit:
            self += failures_in(error, number, *place, hidden=hidden)
        elif not self or self[-1][0] != number:
            self.append((number, None, None, UNLISTED, BEYOND_LISTED))


def failures_of(failures: Sequence[Failure]) -> pl.DataFrame:
    """Return *failures* as a frame."""
    return pl.DataFrame(failures, schema=FAILURES, orient="row")


def concatenated(pieces: list[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate *pieces*, at least one, into one frame, and empty the list. Call on a worker.

    Concatenating and freeing thousands of frames at once holds the GIL for many milliseconds, so this function
    handles a few at a time and yields in between.
    """
    parts = []
    while pieces:
        parts.append(pl.concat(pieces[:CONCAT_FRAMES], rechunk=True))
        del pieces[:CONCAT_FRAMES]
        release_gil()
    return pl.concat(parts)


def shown_name(column: str) -> str:
    """Return *column* as failures show it: unchanged, or shortened if very long, since each failure repeats it."""
    return column if len(column) <= NAME else column[: NAME - 3] + "..."


def text_of(value: object) -> str:
    """Return the text of *value*; of a very long integer only its size, because Python refuses to print it.

    Example:
        >>> text_of(12), text_of(-(10**5000))
        ('12', 'an integer of 16610 bits')
    """
    if isinstance(value, int) and (bits := value.bit_length()) > INTEGER_BITS:
        return f"an integer of {bits} bits"
    return str(value)


def shown_value(value: object) -> str | None:
    """Return *value* as failures show it: a short text. A string is not quoted."""
    if value is None:
        return None
    if isinstance(value, list | dict | set | tuple):
        text = f"{type(value).__name__} of {len(value)}" if len(value) > TEXT else _brief(value)
    else:
        text = text_of(value)
    return text if len(text) <= TEXT else text[: TEXT - 3] + "..."


class _Brief(Repr):
    """A repr for containers, which may be as large as a body: a few elements of each, a few levels deep."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 25
        self.maxstring = self.maxlong = self.maxother = TEXT // 4

    def repr_int(self, value: int, level: int) -> str:
        return text_of(value) if value.bit_length() > INTEGER_BITS else super().repr_int(value, level)


_brief = _Brief().repr


def failures_in(
    error: ValidationError, number: int, *place: str, hidden: Collection[str] = frozenset()
) -> Iterator[Failure]:
    """Yield the failures in *error* for row *number*, or for the value at *place* in that row.

    Args:
        hidden: the names of the columns and fields whose values no message may show. If there are any, no message shows
            a row as a whole.

    If there are more than `ITEMISED`, yield a single failure with their number: pydantic takes 5 us for each error and
    cannot list them in parts.
    """
    count = error.error_count()
    if count > ITEMISED:
        yield (
            number,
            shown_name(".".join(place)) if place else None,
            None,
            "too_many_failures",
            f"{count} failures are in this row",
        )
        return
    for found in error.errors(include_url=False, include_context=False):
        parts = (*place, *map(str, found["loc"]))
        column = shown_name(".".join(parts)) if parts else None
        if found["type"] in {"missing", "extra_forbidden"}:
            value = None
        elif hidden and (not parts or parts[0] in hidden):
            value = HIDDEN
        else:
            value = shown_value(found["input"])
        yield number, column, value, found["type"], found["msg"]
