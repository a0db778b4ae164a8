"""What travels through a pipeline: a pair of an index and a value, and the marks that stand for no value.

The index of an element is the number that its source gave it, an `int`; behind ``flat_map`` it is a path, one
number more for each level. Between a place where elements are numbered and the `ordered` stage that waits for
them, the numbers have no gaps: whatever is dropped leaves a `Mark` in its place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ("Element", "Item", "Mark", "Place", "path_of")

Item = tuple[Any, Any]  # the index (an int, a Place or a path) and the value or Mark; bare, because it is made often


class Element(NamedTuple):
    """A value and where it comes from.

    Attributes:
        index: the number of its source's element, then its number among what each ``flat_map`` made of that.
        value: the value.

    Example:
        >>> Element((0,), "a").value
        'a'
    """

    index: tuple[int, ...]  # type: ignore[assignment]  # a tuple has a method of that name
    value: Any


class Place(int):
    """A number without gaps that also knows the index that people are told.

    Example:
        >>> place = Place(7, (3, 1))
        >>> place == 7, path_of(place)
        (True, (3, 1))
    """

    path: tuple[int, ...]

    def __new__(cls, number: int, path: tuple[int, ...]) -> Place:
        """The *number*, which people are told is *path*."""
        place = super().__new__(cls, number)
        place.path = path
        return place


class Mark:
    """In place of a value: the element was dropped, or it failed and the error is raised when its turn comes."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def __repr__(self) -> str:
        return "<Mark: dropped>" if self.error is None else f"<Mark: {self.error!r}>"


def path_of(index: Any) -> tuple[int, ...]:
    """The index as people are told it.

    Example:
        >>> path_of(3), path_of((3, 1))
        ((3,), (3, 1))
    """
    if isinstance(index, Place):
        return index.path
    return index if isinstance(index, tuple) else (index,)
