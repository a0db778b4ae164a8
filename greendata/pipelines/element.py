"""The elements of a pipeline: pairs of an index and a value, and placeholders for values that were dropped.

The index of an element is the number that its source gave it, an `int`. After a ``flat_map`` it is a path, a tuple
with one more number for each level. Between the point where elements are numbered and the `ordered` stage that waits
for them, the numbers have no gaps: a `Placeholder` takes the place of each element that was dropped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ("Element", "Item", "Placeholder", "SequenceNumber", "path_of")

# An index (an int, a SequenceNumber or a path) and a value or Placeholder. A plain tuple, because it is made often.
Item = tuple[Any, Any]


class Element(NamedTuple):
    """A value and its index.

    Attributes:
        index: the number of the source's element, then for each ``flat_map`` the number among the items made of it.
        value: the value.

    Example:
        >>> Element((0,), "a").value
        'a'
    """

    index: tuple[int, ...]  # type: ignore[assignment]  # a tuple has a method of that name
    value: Any


class SequenceNumber(int):
    """A number in a sequence without gaps, together with the index that is shown to users.

    Example:
        >>> place = SequenceNumber(7, (3, 1))
        >>> place == 7, path_of(place)
        (True, (3, 1))
    """

    path: tuple[int, ...]

    def __new__(cls, number: int, path: tuple[int, ...]) -> SequenceNumber:
        """Make the *number*, shown to users as *path*."""
        place = super().__new__(cls, number)
        place.path = path
        return place


class Placeholder:
    """Stands for an element that was dropped, or that failed with an error to be raised in its turn."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def __repr__(self) -> str:
        return "<Placeholder: dropped>" if self.error is None else f"<Placeholder: {self.error!r}>"


def path_of(index: Any) -> tuple[int, ...]:
    """Return the *index* as it is shown to users.

    Example:
        >>> path_of(3), path_of((3, 1))
        ((3,), (3, 1))
    """
    if isinstance(index, SequenceNumber):
        return index.path
    return index if isinstance(index, tuple) else (index,)
