"""Put elements in the order of their source, with bounded memory.

    source ──► numbering, waits in `Window.admit` ──► workers ──► `reorder`, calls `Window.advance` ──► in order

The `Window` holds the numbering back until `reorder` has passed on enough elements. The limit applies only where
elements enter, never where they arrive. So the element that `reorder` waits for can always arrive, and there is no
deadlock.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from greendata.pipelines.channel import Window
from greendata.pipelines.element import Item, Placeholder, path_of

__all__ = ("merge", "reorder", "without_placeholders")


def reorder(items: Iterable[Item], window: Window) -> Iterator[Item]:
    """Yield *items* sorted by number. The numbers have no gaps; at most the window's size of items is kept."""
    early: dict[int, Item] = {}
    expected = 0
    for arrived in items:
        if arrived[0] != expected:
            early[arrived[0]] = arrived
            continue
        item: Item | None = arrived
        while item is not None:
            window.advance()  # before the yield: `merge` keeps an item of each source while it waits
            yield item
            expected += 1
            item = early.pop(expected, None)


def without_placeholders(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the *items* that have a value; raise the error of an item that failed, in its turn."""
    for item in items:
        if not isinstance(item[1], Placeholder):
            yield item
        elif item[1].error is not None:
            raise item[1].error


def merge(sources: Iterable[Iterable[Item]]) -> Iterator[Item]:
    """Return the items of *sources*, each of them in order, sorted by index. Equal indices keep the order of *sources*.

    Sources that share a stage advance together, so none of them waits for an item that another one holds back.
    """
    return heapq.merge(*sources, key=lambda item: path_of(item[0]))
