"""Gates: native code waits until a test opens them, which makes the suite independent of the clock.

A `Gate` is a callable that can stand for any slow native job. It never touches a gevent object, so a
worker thread, a Polars UDF and a plain thread may all wait at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gevent
from gevent._hub_local import get_hub_if_exists  # not from greendata: programs without it use this file too
from gevent.monkey import get_original

__all__ = ("Gate", "open_from_hub", "rest", "timeout_at")

GUARD = 60.0  # seconds until a forgotten gate fails; less than the guard of a test, so that the failure is reported

_allocate_lock = get_original("_thread", "allocate_lock")
_get_ident = get_original("_thread", "get_ident")


class Gate:
    """A closed gate. Call it in a native thread to wait there; `open` it from any thread.

    ``submit(gate, 42)`` is a held job: it runs from the moment a worker takes it until the test opens
    the gate, and its outcome is 42. Any number of jobs may wait at one gate; open means open for all.
    """

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._lock.acquire()
        self._closed = [True]  # `open` pops it; the lock does not show it: threads that pass hold it briefly
        self._arrived: list[int] = []  # native threads append; list.append is one step under the GIL

    def __call__(self, value: object = None) -> object:
        """Wait natively until the gate is open, then return *value*."""
        self._arrived.append(_get_ident())
        if not self._lock.acquire(timeout=GUARD):
            raise TimeoutError(f"the gate was not opened within {GUARD:g} seconds; was the hub blocked?")
        self._lock.release()  # for the next waiter
        return value

    def open(self) -> None:
        """Let all calls pass, now and later. Idempotent."""
        with suppress(IndexError):  # already open
            self._closed.pop()
            self._lock.release()

    @property
    def is_open(self) -> bool:
        """Return True once `open` was called."""
        return not self._closed

    @property
    def arrived(self) -> tuple[int, ...]:
        """The idents of the native threads that arrived at the gate, in order of arrival."""
        return tuple(self._arrived)

    def wait_arrived(self, count: int = 1) -> None:
        """Wait until *count* calls have arrived at the gate. In a greenlet this lets the hub run."""
        while len(self._arrived) < count:
            rest()


def open_from_hub(gate: Gate) -> gevent.Greenlet:
    """Start a greenlet that opens *gate* after a call has arrived at it: it opens only if the hub runs."""

    def ticker() -> None:
        gate.wait_arrived()
        gate.open()

    return gevent.spawn(ticker)


@contextmanager
def timeout_at(gate: Gate) -> Iterator[gevent.Timeout]:
    """A `gevent.Timeout` around the block, which expires once a call waits at *gate*, however long that takes."""
    timeout, around = gevent.Timeout(None), gevent.getcurrent()

    def strike() -> None:
        gate.wait_arrived()
        gevent.get_hub().loop.run_callback(around.throw, timeout)

    striker = gevent.spawn(strike)
    try:
        yield timeout
    finally:
        striker.kill()


def rest(seconds: float = 0.001) -> None:
    """Let native threads run, and the greenlets of the calling thread if it has a hub."""
    hub = get_hub_if_exists()
    if hub is None:
        _never.acquire(timeout=seconds)
    else:
        with hub.loop.timer(seconds) as timer:
            hub.wait(timer)


_never = _allocate_lock()
_never.acquire()
