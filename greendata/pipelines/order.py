"""Elements in the order of their source, with bounded memory.

Where elements are numbered, a `Window` holds the numbering back until `reorder` has passed on enough of them. What
is under way always arrives: the window is enforced where elements set out and never where they arrive, so the one
that everybody waits for finds its way free.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from greendata.pipelines.channel import Window
from greendata.pipelines.element import Item, Mark, path_of

__all__ = ("merge", "reorder", "unmarked")


def reorder(items: Iterable[Item], window: Window) -> Iterator[Item]:
    """The *items* by their numbers, which have no gaps; at most the window's size of them are kept meanwhile."""
    early: dict[int, Item] = {}
    expected = 0
    for arrived in items:
        if arrived[0] != expected:
            early[arrived[0]] = arrived
            continue
        item: Item | None = arrived
        while item is not None:
            window.advance()  # before it is taken: `merge` holds one of each source and waits for the next of another
            yield item
            expected += 1
            item = early.pop(expected, None)


def unmarked(items: Iterable[Item]) -> Iterator[Item]:
    """The *items* that have a value; raises the error of one that failed, in its turn."""
    for item in items:
        if not isinstance(item[1], Mark):
            yield item
        elif item[1].error is not None:
            raise item[1].error


def merge(sources: Iterable[Iterable[Item]]) -> Iterator[Item]:
    """The items of *sources*, each in order, by their index; of equal ones that of the first source comes first.

    Sources that share a stage do not get ahead of each other, so none waits for what another holds back.
    """
    return heapq.merge(*sources, key=lambda item: path_of(item[0]))
