"""Locks, events and queues that greenlets and native threads share.

`gevent.monkey` replaces those of the standard library with its own, on which only greenlets can wait. `share_locks`
adds a `ParkingLot` to them: a thread without a hub waits natively, and any thread may release. Everything that is
written in Python on top of locks then works for both as well: `threading.RLock`, `Condition`, `Semaphore` and
`Barrier`, `queue`, `concurrent.futures` and `logging`.

`gevent.thread.LockType` is a Python class, so existing locks change in place. Events and queues are compiled; only
those created afterwards are instances of the classes here.
"""

from __future__ import annotations

import _queue
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import gevent.event
from gevent.lock import BoundedSemaphore
from gevent.monkey import get_original, is_object_patched
from gevent.thread import LockType  # type: ignore[import-not-found]
from greenlet import getcurrent

from greendata.hub import native
from greendata.internals.gevent import get_hub_if_exists
from greendata.threads.parking import ParkingLot, hub_here

__all__ = ("Event", "SimpleQueue", "share_locks")

_EMPTY: Any = ()  # stands for the lot of a lock, event or queue on which nothing has waited yet

# Compiled methods. Each is one step under the GIL as long as it does not wait.
_take: Callable[..., bool] = BoundedSemaphore.acquire
_give: Callable[..., int] = BoundedSemaphore.release
_set: Callable[..., None] = gevent.event.Event.set
_push: Callable[..., None] = _queue.SimpleQueue.put
_pop: Callable[..., Any] = _queue.SimpleQueue.get
_reinit: Callable[..., None] = BoundedSemaphore._at_fork_reinit  # type: ignore[attr-defined]


def share_locks() -> None:
    """Let native threads wait on the locks, events and queues of `gevent.monkey`."""
    lock = LockType
    lock._lot = _EMPTY
    lock.acquire = _acquire
    lock.__enter__ = _enter
    lock.release = _release
    lock.__exit__ = _exit
    lock._at_fork_reinit = _at_fork_reinit
    lock._is_owned = BoundedSemaphore.locked  # for Condition, which otherwise switches greenlets to find out
    if is_object_patched("threading", "Event"):
        threading.Event = Event  # type: ignore[misc,assignment]
    if is_object_patched("queue", "SimpleQueue"):
        queue.SimpleQueue = SimpleQueue  # type: ignore[misc]
    for name in ("Queue", "LifoQueue", "PriorityQueue"):  # Python's own classes are built on locks
        if is_object_patched("queue", name):
            setattr(queue, name, get_original("queue", name))


# -- methods of LockType ----------------------------------------------------------------------------------


def _acquire(self: Any, blocking: bool = True, timeout: float | None = -1) -> bool:  # noqa: FBT001, FBT002
    """Acquire the lock, as `threading.Lock.acquire` does. Compiled callers pass None for no timeout."""
    if timeout != -1 and timeout is not None:
        _check_timeout(blocking, timeout)
    if self.counter and _take(self, False):
        return True
    if not blocking:
        return _give_up()
    is_elsewhere = self.hub is not get_hub_if_exists()  # `hub`: of the greenlet that holds the lock; None for a thread
    return _lot_of(self).wait(partial(_take, self, False), None if timeout == -1 else timeout, elsewhere=is_elsewhere)


def _enter(self: Any) -> bool:
    return (self.counter and _take(self, False)) or _acquire(self)


def _release(self: Any) -> int:
    counter = _give(self)
    if self._lot:
        self._lot.wake_one()
    return counter


def _exit(self: Any, *_error: object) -> None:
    _give(self)
    if self._lot:
        self._lot.wake_one()


def _at_fork_reinit(self: Any) -> None:
    _reinit(self)
    self.__dict__.pop("_lot", None)


def _check_timeout(blocking: bool, timeout: float) -> None:  # noqa: FBT001
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > native.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")


def _give_up() -> bool:
    hub = hub_here()
    if hub is not None and getcurrent() is not hub:
        gevent.sleep()  # as in gevent: a greenlet that polls the lock lets the others run
    return False


# -- events and queues ------------------------------------------------------------------------------------


class Event(gevent.event.Event):
    """An event for greenlets and native threads, compatible with `threading.Event` and gevent's.

    Example:
        >>> event = Event()
        >>> _ = native.start_thread(event.set, ())
        >>> event.wait(timeout=5)
        True
    """

    _lot = _EMPTY
    _times_set = 0  # each `set` adds one; waiters compare it with the value they saw first

    def set(self) -> None:
        """Set the flag and wake all waiters. Safe from any thread."""
        _set(self)
        self._times_set += 1
        if self._lot:
            self._lot.wake_all()

    def wait(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Wait until the flag is set, even if it is cleared at once; return False after *timeout* seconds."""
        if self.is_set():
            return True
        before = self._times_set
        return _lot_of(self).wait(lambda: self.is_set() or self._times_set != before, timeout)


class SimpleQueue(_queue.SimpleQueue):  # type: ignore[type-arg]
    """A `queue.SimpleQueue` for greenlets and native threads. Threads wait in Python's own queue, greenlets in a lot.

    Example:
        >>> items = SimpleQueue()
        >>> _ = native.start_thread(items.put, ("from a native thread",))
        >>> items.get(timeout=5)
        'from a native thread'
    """

    _lot = _EMPTY

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002
        """Put *item* into the queue. Never blocks. Safe from any thread, finalizers and signal handlers."""
        _push(self, item)
        if self._lot:
            self._lot.wake_one()

    def put_nowait(self, item: Any) -> None:
        """Call ``put(item)``."""
        self.put(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002
        """Remove and return the oldest item.

        Raises:
            Empty: there is no item, or none came within *timeout* seconds.
            ValueError: *timeout* is negative.
        """
        if block and self.empty() and hub_here() is None:
            return _pop(self, True, timeout)
        try:
            return _pop(self, False)
        except native.Empty:
            if not block:
                raise
        if hub_here() is None:  # another thread took the item
            return _pop(self, True, timeout)
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        taken: list[Any] = []
        if not _lot_of(self).wait(partial(_move, self, taken), timeout):
            raise native.Empty
        return taken.pop()


def _move(items: Any, taken: list[Any]) -> bool:
    try:
        taken.append(_pop(items, False))
    except native.Empty:
        return False
    return True


def _lot_of(thing: Any) -> ParkingLot:
    lot: ParkingLot = thing._lot
    return thing.__dict__.setdefault("_lot", ParkingLot()) if lot is _EMPTY else lot  # one step: two threads may do it
