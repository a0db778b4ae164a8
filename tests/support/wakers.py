"""An idle main hub waits for work from other threads.

``python -m tests.support.wakers "a cancelled job"`` patches its process and waits in the main hub once for each kind of
lock, event and queue. Its waker is held at a gate, which opens when the hub has checked twice for threads that may
wake it.
"""

from __future__ import annotations

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import gevent

import greendata
from greendata.hub import native
from greendata.threads import parking
from tests.support.gates import Gate, rest

__all__ = ("WAKERS",)

Wake = Callable[[], object]

IS_NEW_THREAD_HIDDEN = sys.version_info < (3, 12)  # until the OS runs it, which the first checks may not see


def cancelled(gate: Gate, wake: Wake) -> None:
    """A job continues although its result is set."""
    result = greendata.run(passing(gate, wake))
    gate.wait_arrived()
    assert result.cancel()


def cancelled_later(gate: Gate, wake: Wake) -> None:
    """It keeps the loop open until then."""
    result = greendata.run(passing(gate, wake))
    gate.wait_arrived()
    gevent.spawn_later(0.02, result.cancel)


def expired(gate: Gate, wake: Wake) -> None:
    """A job continues after its deadline."""
    result = greendata.run(passing(gate, wake), timeout=60)  # long enough that the job starts before it expires
    gate.wait_arrived()
    result.expire()


def of_a_thread(gate: Gate, wake: Wake) -> None:
    """A job without a waiting hub."""
    native.start_thread(greendata.run, (passing(gate, wake),))
    gate.wait_arrived()


def queued(gate: Gate, wake: Wake) -> None:
    """A job that is queued behind another."""
    greendata.configure(max_workers=1)
    of_a_thread(gate, lambda: None)
    native.start_thread(greendata.run, (wake,))
    while greendata.stats().queued == 0:
        rest()


def of_a_caller(gate: Gate, wake: Wake) -> None:
    """A greenlet of another hub, without a waiter."""

    def begin() -> None:
        gevent.spawn(gevent.get_hub().threadpool.apply, passing(gate, wake))

    greendata.Caller.new().call_soon(begin).get()


def in_a_thread(gate: Gate, wake: Wake) -> None:
    """A native thread that may not have started."""
    native.start_thread(passing(gate, wake), ())


def in_a_later_thread(gate: Gate, wake: Wake) -> None:
    """The last greenlet starts the thread."""
    gevent.spawn_later(0.02, in_a_thread, gate, wake)


def passing(gate: Gate, wake: Wake) -> Callable[[], None]:
    """Pass the gate and wake the waiter."""

    def work() -> None:
        gate()
        wake()

    return work


WAKERS: dict[str, Callable[[Gate, Wake], None]] = {
    "a cancelled job": cancelled,
    "a job that is cancelled later": cancelled_later,
    "a job out of time": expired,
    "a job of a plain thread": of_a_thread,
    "a queued job": queued,
    "a greenlet of a caller": of_a_caller,
    "a plain thread": in_a_thread,
    "a plain thread that is started later": in_a_later_thread,
}


def main(waker: str) -> None:
    """Wait for everything once."""
    greendata.run(int).get()  # objects that are made from now on are shared
    lock, event, condition, barrier = threading.Lock(), threading.Event(), threading.Condition(), threading.Barrier(2)
    items: Any = queue.Queue()
    bare: Any = queue.SimpleQueue()
    gate, looks = Gate(), list[bool]()
    original = parking._others_may_wake

    def look() -> bool:
        looks.append(original())
        if len(looks) > 1:
            gate.open()
        return looks[-1]

    def wait_for_condition() -> bool:
        with condition:
            return condition.wait()

    def wake_by_condition() -> None:
        with condition:
            condition.notify()

    lock.acquire()
    parking._others_may_wake = look
    for wait, wake in (
        (lock.acquire, lock.release),
        (event.wait, event.set),
        (items.get, lambda: items.put(1)),
        (bare.get, lambda: bare.put(1)),
        (wait_for_condition, wake_by_condition),
        (barrier.wait, barrier.wait),
    ):
        gate = Gate()
        looks.clear()
        WAKERS[waker](gate, wake)
        waiter = gevent.spawn(wait)
        waiter.join()
        waiter.get()
        assert all(looks) or IS_NEW_THREAD_HIDDEN, looks
    print("all")


if __name__ == "__main__":
    main(*sys.argv[1:])
