"""A budget for the hub: long work in Python goes in slices, and the loop polls between them.

Work that holds the GIL silences the hub from a native thread as well; it belongs on the hub, in slices. Between
slices ``gevent.sleep(0)`` will not do: it puts the greenlet back into the same turn of the loop, and timers and
sockets starve (150 000 rows to models: 99 ms of silence with it, under 2 ms with `breathe`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TypeVar

import gevent
from greenlet import getcurrent

from greendata.hub import native
from greendata.hub.collector import at_rest, make_up
from greendata.internals.gevent import get_hub_if_exists

__all__ = ("BUDGET", "breathe", "gathered", "give_way", "paced", "sliced")

BUDGET = 0.001  # seconds a slice: with 2 ms the p99 of a tick of 1 ms is over 3 ms; the overhead is 2 percent
_A_MOMENT = 1e-6  # seconds: a timer, so that the loop polls; its length is of no account
_AN_INSTANT = 5e-5  # seconds: longer than a thread takes to wake
_FIRST = 64  # items in the first slice: so few that even wide rows keep to the budget
_GROWTH = 2  # times the slice before, at most: one lucky slice tells little about the next

T = TypeVar("T")
R = TypeVar("R")


def breathe() -> None:
    """Let the loop poll once: sockets and timers that are due, and the greenlets they wake, come first.

    In a thread without a hub it is a `give_way`, for the hubs of others; in the hub itself it does nothing.

    Example:
        >>> breathe()
    """
    hub = get_hub_if_exists()
    if hub is None:
        give_way()
    elif getcurrent() is not hub:
        gevent.sleep(_A_MOMENT)


def give_way() -> None:
    """Let other threads have the GIL; for workers, between slices of work in Python.

    Without it the interpreter takes the GIL from a thread after 5 ms, and the hub is silent for as long. To let it go
    and to ask for it again at once is no use: the hub takes some microseconds to wake.

    Example:
        >>> give_way()
    """
    native.sleep(_AN_INSTANT)


def paced(func: Callable[[T], R], items: Iterable[T], *, budget: float = BUDGET) -> list[R]:
    """``[func(item) for item in items]`` in slices of *budget* seconds, with a `breathe` between them.

    The cyclic garbage collector rests during a slice, since a full collection over a growing list of objects is
    itself the longest silence (see `greendata.hub.collector`). *func* must not switch greenlets.

    Args:
        budget: seconds; an item that takes longer makes its slice longer.

    Example:
        >>> paced(str, range(3))
        ['0', '1', '2']
    """
    make_up()
    done: list[R] = []
    source = iter(items)
    while not _slice(func, source, done, budget):
        breathe()
    return done


def sliced(func: Callable[[int, int], R], count: int, *, budget: float = BUDGET) -> Iterator[R]:
    """``func(start, length)`` over all of ``range(count)`` in slices of about *budget* seconds, a `breathe` between.

    For work that is cheaper in bulk than item by item. Each slice is as long as the one before it suggests; during
    a slice the collector rests, as in `paced`. *func* must not switch greenlets.

    Args:
        budget: seconds.

    Example:
        >>> [item for some in sliced(lambda start, length: range(start, start + length), 3) for item in some]
        [0, 1, 2]
    """
    return _slices(func, count, budget, is_kept=False)


def gathered(func: Callable[[int, int], list[R]], count: int, *, budget: float = BUDGET) -> list[R]:
    """``func(0, count)``, made in slices as `sliced` has them; that they become one list is part of each slice.

    Args:
        budget: seconds.

    Example:
        >>> gathered(lambda start, length: list(range(start, start + length)), 3)
        [0, 1, 2]
    """
    rows: list[R] = []
    for _ in _slices(lambda start, length: rows.extend(func(start, length)), count, budget, is_kept=True):
        continue
    return rows


def _slices(func: Callable[[int, int], R], count: int, budget: float, *, is_kept: bool) -> Iterator[R]:
    start, length = 0, _FIRST
    while start < count:
        if not (start and is_kept):
            make_up()
        length = min(length, count - start)
        begun = perf_counter()
        with at_rest():
            done = func(start, length)
        seconds = perf_counter() - begun
        yield done
        start += length
        if start < count:
            del done
            breathe()
            length = max(1, int(length * min(_GROWTH, budget / max(seconds, 1e-9))))


def _slice(func: Callable[[T], R], source: Iterator[T], done: list[R], budget: float) -> bool:
    """Work for *budget* seconds; True at the end of *source*."""
    ends = perf_counter() + budget
    with at_rest():
        for item in source:
            done.append(func(item))
            if perf_counter() >= ends:
                return False
    return True
