"""A budget for the hub: long work in Python goes in slices, and the loop polls between them.

Work that holds the GIL silences the hub from a native thread as well; it belongs on the hub, in slices. Between
slices ``gevent.sleep(0)`` will not do: it puts the greenlet back into the same turn of the loop, and timers and
sockets starve (150 000 rows to models: 99 ms of silence with it, under 2 ms with `breathe`).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TypeVar

import gevent
from gevent._hub_local import get_hub_if_exists
from greenlet import getcurrent

from greendata.hub import native
from greendata.hub.blocks import contextmanager

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

    In a thread without a hub, and in the hub itself, it does nothing.

    Example:
        >>> breathe()
    """
    hub = get_hub_if_exists()
    if hub is not None and getcurrent() is not hub:
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

    The cyclic garbage collector is held off during a slice, since a full collection over a growing list of
    objects is itself the longest silence. It is never left off. *func* must not switch greenlets.

    Args:
        budget: seconds; an item that takes longer makes its slice longer.

    Example:
        >>> paced(str, range(3))
        ['0', '1', '2']
    """
    done: list[R] = []
    source = iter(items)
    while not _slice(func, source, done, budget):
        breathe()
    return done


def sliced(func: Callable[[int, int], R], count: int, *, budget: float = BUDGET) -> Iterator[R]:
    """``func(start, length)`` over all of ``range(count)`` in slices of about *budget* seconds, a `breathe` between.

    For work that is cheaper in bulk than item by item. Each slice is as long as the one before it suggests; during
    a slice the collector is held off, as in `paced`. *func* must not switch greenlets.

    Args:
        budget: seconds.

    Example:
        >>> [item for some in sliced(lambda start, length: range(start, start + length), 3) for item in some]
        [0, 1, 2]
    """
    start, length = 0, _FIRST
    while start < count:
        length = min(length, count - start)
        begun = perf_counter()
        with _collector_held_off():
            done = func(start, length)
        seconds = perf_counter() - begun
        yield done
        start += length
        if start < count:
            del done
            breathe()
            length = max(1, int(length * min(_GROWTH, budget / max(seconds, 1e-9))))


def gathered(func: Callable[[int, int], list[R]], count: int, *, budget: float = BUDGET) -> list[R]:
    """``func(0, count)``, made in slices as `sliced` has them; that they become one list is part of each slice.

    Args:
        budget: seconds.

    Example:
        >>> gathered(lambda start, length: list(range(start, start + length)), 3)
        [0, 1, 2]
    """
    rows: list[R] = []
    for _ in sliced(lambda start, length: rows.extend(func(start, length)), count, budget=budget):
        continue
    return rows


def _slice(func: Callable[[T], R], source: Iterator[T], done: list[R], budget: float) -> bool:
    """Work for *budget* seconds; True at the end of *source*."""
    ends = perf_counter() + budget
    with _collector_held_off():
        for item in source:
            done.append(func(item))
            if perf_counter() >= ends:
                return False
    return True


@contextmanager
def _collector_held_off() -> Iterator[None]:
    """No collection in the block, and none after it because of what was made in it.

    The collector would look through all objects that were made, and go on to a full collection as they pile up:
    117 ms of silence over 150 000 models. Freezing and unfreezing puts them among the old objects in no time, where
    the next full collection finds them. Where the process has frozen objects of its own these are left alone.
    """
    was_on, thread = gc.isenabled(), native.get_ident()
    try:
        if was_on:
            _holding_off.append(thread)
            gc.disable()
        yield
    finally:
        if was_on:
            _make_old()
            gc.enable()
            _holding_off.remove(thread)


def _make_old() -> None:
    global _is_left_alone
    if _is_left_alone or not _freezing.acquire(False):  # another thread makes all objects old just now
        return
    try:
        _is_left_alone = gc.get_freeze_count() > 0
        if not _is_left_alone:
            gc.freeze()
            gc.unfreeze()
    finally:
        _freezing.release()


def _after_fork_in_child() -> None:
    """The other threads, that would let the collector go on, are not there."""
    global _freezing
    _freezing = native.allocate_lock()
    mine = [thread for thread in _holding_off if thread == native.get_ident()]
    if _holding_off and not mine:
        gc.enable()
    _holding_off[:] = mine


_holding_off: list[int] = []  # the threads that hold the collector off; any thread, one C call each
_freezing = native.allocate_lock()  # any thread tries it, nobody waits for it
_is_left_alone = False  # under the lock, for good: to count the frozen objects of a process is to look at each
os.register_at_fork(after_in_child=_after_fork_in_child)
