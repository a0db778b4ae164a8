"""A call from a native thread to the hub, and its result back there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import gevent

import greendata
from greendata.hub import native
from tests.bench.apart import apart, tell
from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

TRIPS = 1_000  # in a row, a measurement
ROUNDS = 5
PROCESSES = 9  # a trip takes 20 us or 60, as the system has put the two threads on one core or on two


def rows() -> list[Row]:
    """From a call to its result, against the least that gevent has for it: a callback and a native lock."""
    found: dict[str, list[float]] = {}
    for _ in range(PROCESSES):
        for name, seconds in apart(__name__).items():
            found.setdefault(name, []).extend(seconds)
    pairs = (
        ("call_soon", "run_callback_threadsafe"),
        ("call_soon", "run_callback_threadsafe(gevent.spawn)"),
        ("call_direct", "run_callback_threadsafe"),
    )
    return [_row(ours, theirs, found) for ours, theirs in pairs]


def trips() -> dict[str, list[float]]:
    """Seconds a trip of each contender, from a worker of the pool to this thread's hub."""
    caller, loop = greendata.Caller.current(), gevent.get_hub().loop
    routes: dict[str, Callable[[], object]] = {
        "call_soon": lambda: caller.call_soon(abs, -1).get(),
        "call_direct": lambda: caller.call_direct(abs, -1).get(),
        "run_callback_threadsafe": bare_trip(loop.run_callback_threadsafe),
        "run_callback_threadsafe(gevent.spawn)": bare_trip(partial(loop.run_callback_threadsafe, gevent.spawn)),
    }
    contenders = {name: lambda trip=trip: greendata.run(seconds_a_trip, trip).get() for name, trip in routes.items()}
    for contender in contenders.values():
        contender()
    return interleaved(contenders, ROUNDS)


def seconds_a_trip(trip: Callable[[], object]) -> float:
    """Seconds of a round trip. Called on a worker, whose native thread has no hub."""
    begun = perf_counter()
    for _ in range(TRIPS):
        trip()
    return (perf_counter() - begun) / TRIPS


def bare_trip(post: Callable[[Callable[[], None]], Any]) -> Callable[[], int]:
    """The same with gevent alone, where *post* has the hub call a function."""
    bell, answers = native.allocate_lock(), [1]
    bell.acquire()

    def work() -> None:
        answers[0] = abs(-1)
        bell.release()

    def trip() -> int:
        post(work)
        bell.acquire()
        return answers[0]

    return trip


def _row(ours: str, theirs: str, found: dict[str, list[float]]) -> Row:
    shown = [f"{median(found[name]) * 1e6:.1f} us" for name in (ours, theirs)]
    what = f"{ours} from a foreign thread to its result, against loop.{theirs}"
    return Row(what, *shown, ratio(found[ours], found[theirs]), "x", 1.5)


if __name__ == "__main__":
    tell(trips())
