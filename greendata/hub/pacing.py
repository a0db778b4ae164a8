"""Run long Python work in slices, and let the loop poll between them.

Work that holds the GIL blocks the hub even from a native thread, so it runs on the hub, in slices. Between slices,
``gevent.sleep(0)`` is not enough: it resumes the greenlet in the same iteration of the loop, and timers and sockets
starve. While 150 000 rows became models, the hub was blocked for 99 ms with it, and for under 2 ms with `breathe`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TypeVar

import gevent
from greenlet import getcurrent

from greendata.hub import native
from greendata.hub.checks import check_function
from greendata.hub.collector import deferred, run_deferred
from greendata.hub.hubs import poll_delay
from greendata.internals.gevent import get_hub_if_exists

__all__ = (
    "BUDGET",
    "GilReleaser",
    "breathe",
    "breathing",
    "gathered",
    "paced",
    "release_gil",
    "sliced",
    "sliced_by_time",
)

BUDGET = 0.001  # seconds per slice; with 2 ms the p99 of a 1 ms tick is over 3 ms. The overhead is 2 percent
_GIL_PAUSE = 5e-5  # seconds; longer than a thread takes to wake up
_FIRST_LENGTH = 64  # items in the first slice; few enough that even wide rows keep the budget
_MAX_GROWTH = 2  # a slice has at most this many times the items of the one before, which may have been fast by chance

T = TypeVar("T")
R = TypeVar("R")


def breathe() -> None:
    """Let the loop poll once, so that sockets and timers that are ready, and the greenlets they wake, run first.

    In a thread without a hub, call `release_gil`, so that other hubs can run. In the hub greenlet itself, do nothing.

    Example:
        >>> breathe()
    """
    hub = get_hub_if_exists()
    if hub is None:
        release_gil()
    elif getcurrent() is not hub:
        gevent.sleep(poll_delay(hub.loop))


def release_gil() -> None:
    """Release the GIL so that other threads can run. For workers, between slices of Python work.

    Without it the interpreter takes the GIL from a thread only after 5 ms, and the hub is blocked for that time. To
    release it and request it again at once does not help, because the hub needs some microseconds to wake up.

    Example:
        >>> release_gil()
    """
    native.sleep(_GIL_PAUSE)


def breathing(items: Iterable[T]) -> Iterator[T]:
    """Yield *items*, and `breathe` between two of them whenever `BUDGET` seconds have passed.

    Example:
        >>> list(breathing("ab"))
        ['a', 'b']
    """
    ends = perf_counter() + BUDGET
    for item in items:
        yield item
        if perf_counter() >= ends:
            breathe()
            ends = perf_counter() + BUDGET


class GilReleaser:
    """Release the GIL every `BUDGET` seconds in a loop of a worker, which calls `release_if_due` in each iteration.

    Only one thread may use it.

    Example:
        >>> gil = GilReleaser()
        >>> for _ in range(100):
        ...     gil.release_if_due()
    """

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = perf_counter() + BUDGET

    def release_if_due(self) -> None:
        """Release the GIL if `BUDGET` seconds have passed since the last time."""
        if perf_counter() >= self._ends:
            release_gil()
            self._ends = perf_counter() + BUDGET


def paced(func: Callable[[T], R], items: Iterable[T], *, budget: float = BUDGET) -> list[R]:
    """Return ``[func(item) for item in items]``, computed in slices of *budget* seconds with a `breathe` between them.

    Garbage collection is deferred during a slice, because a full collection over a growing list of objects would block
    the hub longest of all (see `greendata.hub.collector`). *func* must not switch greenlets.

    Args:
        func: called with each item, in the calling greenlet.
        items: an iterable.
        budget: seconds. An item that takes longer makes its slice longer.

    Raises:
        NotCallable: *func* is not callable.
        AsyncFunction: *func* is an async function.

    Example:
        >>> paced(str, range(3))
        ['0', '1', '2']
    """
    check_function(func)
    run_deferred()
    done: list[R] = []
    source = iter(items)
    while not _slice(func, source, done, budget):
        breathe()
    return done


def sliced(
    func: Callable[[int, int], R],
    count: int,
    *,
    budget: float = BUDGET,
    is_small: Callable[[int, int], bool] | None = None,
) -> Iterator[R]:
    """Yield ``func(start, length)`` for consecutive slices of ``range(count)``, with a `breathe` between them.

    Use it for work that is cheaper in bulk than item by item. Each slice takes about *budget* seconds; its length
    follows from the duration of the one before. Garbage collection is deferred during a slice, as in `paced`. *func*
    must not switch greenlets.

    Args:
        budget: seconds.
        is_small: of a start and a length, returns whether they may be one slice. If not, it is halved: the duration of
            the slice before says nothing about items that are far larger.

    Example:
        >>> [item for some in sliced(lambda start, length: range(start, start + length), 3) for item in some]
        [0, 1, 2]
    """
    return _slices(func, count, budget, is_small, is_kept=False)


def sliced_by_time(func: Callable[[int, int, float], tuple[int, R]], count: int) -> Iterator[R]:
    """Do *count* items of work in slices of `BUDGET` seconds, however unequal they are, and yield what *func* returns.

    The length of a slice of `sliced` follows from the items before it, which may have been much faster. Here *func* has
    a look at the clock after each item.

    Args:
        func: called with the first item, the number of items that it may do, and the time of `perf_counter` after which
            it does no more. It returns how many it did, at least one, and its result. Otherwise as for `sliced`.

    Example:
        >>> [*sliced_by_time(lambda start, length, ends: (2, start), 5)]
        [0, 2, 4]
    """
    start, length = 0, _FIRST_LENGTH
    while start < count:
        run_deferred()
        with deferred():
            done, result = func(start, min(length, count - start), perf_counter() + BUDGET)
        yield result
        start += done
        if start < count:
            breathe()
            length = _MAX_GROWTH * done


def gathered(
    func: Callable[[int, int], list[R]],
    count: int,
    *,
    budget: float = BUDGET,
    is_small: Callable[[int, int], bool] | None = None,
) -> list[R]:
    """Return ``func(0, count)``, computed in slices as by `sliced`. Appending to the list is part of each slice.

    Args:
        budget: seconds.
        is_small: see `sliced`.

    Example:
        >>> gathered(lambda start, length: list(range(start, start + length)), 3)
        [0, 1, 2]
    """
    rows: list[R] = []
    for _ in _slices(lambda start, length: rows.extend(func(start, length)), count, budget, is_small, is_kept=True):
        continue
    return rows


def _slices(
    func: Callable[[int, int], R],
    count: int,
    budget: float,
    is_small: Callable[[int, int], bool] | None,
    *,
    is_kept: bool,
) -> Iterator[R]:
    start, length = 0, _FIRST_LENGTH
    while start < count:
        if not (start and is_kept):
            run_deferred()
        length = min(length, count - start)
        while is_small is not None and length > 1 and not is_small(start, length):
            length //= 2
        begun = perf_counter()
        with deferred():
            done = func(start, length)
        seconds = perf_counter() - begun
        yield done
        start += length
        if start < count:
            del done
            breathe()
            length = max(1, int(length * min(_MAX_GROWTH, budget / max(seconds, 1e-9))))


def _slice(func: Callable[[T], R], source: Iterator[T], done: list[R], budget: float) -> bool:
    """Work for *budget* seconds; return True at the end of *source*."""
    ends = perf_counter() + budget
    with deferred():
        for item in source:
            done.append(func(item))
            if perf_counter() >= ends:
                return False
    return True
