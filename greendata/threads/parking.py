"""A parking lot: where greenlets of any hub and native threads wait together for one thing.

Each sleeps in its own way: a greenlet in its hub, which goes on meanwhile, and a thread without a hub on a native
lock. Any thread wakes them:

    who gives                              who waits
    ---------                              ---------
    makes the thing available              parks at the end of the lot
    wakes the first of the lot, if any     tries once more; sleeps; tries again, or its hub does so for it

- No wakeup is lost. The one side writes before it looks at the lot, the other parks before it looks at the thing, and
  each of these steps is one C call under the GIL.
- A wakeup that comes to nothing, since its waiter was killed or timed out at that moment, goes on to the next.
- A newcomer may be faster than the one who was woken, as with Python's own locks and gevent's. The loser parks again,
  as the first.
- A greenlet is resumed by its own hub and a thread by its own lock. A hub that does not turn, such as a worker's
  between two jobs, holds up nobody.
- A loop with nothing else to do goes on while a greenlet of it waits here and another thread may wake it. If nobody is
  left who could, gevent ends the wait of the main greenlet by LoopExit, as ever.
- Where nobody waits nothing is paid: an empty lot is false.

Refused: gevent's own notification across threads. It runs in the hub that touched the semaphore last, or in the
releasing thread if that has no hub, and what it cannot resume there it resumes never
(github.com/gevent/gevent/issues/2013).
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from time import monotonic
from types import CodeType, FrameType
from typing import Any

from gevent import Timeout
from gevent.exceptions import BlockingSwitchOutError
from gevent.hub import Waiter, get_hub
from gevent.threading import main_native_thread  # type: ignore[import-not-found]
from greenlet import getcurrent

from greendata.hub import native
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.hubs import weakly
from greendata.internals.gevent import WHERE_THREADS_WAIT, get_hub_if_exists

__all__ = (
    "ParkingLot",
    "hub_here",
    "hub_runs_here",
    "native_threads",
    "treat_as_idle_unless",
    "treat_hubs_as_stopped_where",
)

# The hub itself has nobody to switch to. If another thread has the thing, a few bytecodes from giving it back, the hub
# sleeps for as long as this. After that it gets the error that gevent has for it at once.
HUB_PATIENCE = 0.005  # seconds

# How long until a hub looks whether somebody is left who may wake its greenlets, and until it looks again.
FIRST_CHECK = 0.005  # seconds: most waits are over by then, and threads that were started run
CHECK_INTERVAL = 0.1  # seconds

native_threads: set[int] = set()  # that run a `threading.Thread`; each adds and removes itself, any thread looks


def hub_here() -> Any:
    """The hub of the calling thread, or None where things wait natively.

    The main thread has one also before it is made, since `gevent.monkey` patches for its sake.
    """
    hub = get_hub_if_exists()
    if hub is None and native.get_native_id() == _main_thread:
        hub = get_hub()
    return hub


def hub_runs_here() -> bool:
    """True if a greenlet that is started on the calling thread will get its turn, whatever the thread does next."""
    return hub_here() is not None and not _is_hub_stopped() and native.get_ident() not in native_threads


def treat_hubs_as_stopped_where(is_stopped: Callable[[], bool]) -> None:
    """Have hubs count as such that do not turn on threads where ``is_stopped()``: they run native code for others."""
    global _is_hub_stopped
    _is_hub_stopped = is_stopped


def treat_as_idle_unless(is_busy: Callable[[], bool], *entries: Callable[..., object]) -> None:
    """Have threads whose outermost function is one of *entries* count as idle, unless ``is_busy()``."""
    _busy_checks.append(is_busy)
    _entry_codes.update(entry.__code__ for entry in entries)


class ParkingLot(deque["_Greenlet | _Thread"]):
    """Those that wait for one thing, first come first. Safe from any thread.

    Example:
        >>> lot, arrived = ParkingLot(), []
        >>> def arrive():
        ...     arrived.append("it is here")
        ...     lot.wake_one()
        >>> _ = native.start_thread(arrive, ())
        >>> lot.wait(lambda: bool(arrived), timeout=5)
        True
    """

    __slots__ = ()

    def wait(self, attempt: Callable[[], object], timeout: float | None = None, *, elsewhere: bool = False) -> bool:
        """Wait until ``attempt()`` is true; False if it is not after *timeout* seconds.

        Args:
            attempt: takes the thing if it can be had, and tells. Called in the waiter's thread; it must not wait.
            elsewhere: another thread has the thing, so that also the hub itself waits for a moment.

        Raises:
            BlockingSwitchOutError: the hub itself called, and the thing is not there.
            LoopExit: nobody is left who could wake the greenlet.
        """
        waiter = _waiter(HUB_PATIENCE if elsewhere else 0.0)
        return waiter.wait_in(self, attempt, None if timeout is None else monotonic() + timeout)

    def wake_one(self) -> None:
        """Wake the one that waits longest, if anyone does."""
        while self:
            try:
                waiter = self.popleft()
            except IndexError:  # another thread woke the last one
                return
            if waiter.wake():
                return

    def wake_all(self) -> None:
        """Wake everyone who waits now."""
        for _ in range(len(self)):
            self.wake_one()

    def leave(self, waiter: _Greenlet | _Thread) -> None:
        """Wait no longer, and have nothing of a wakeup."""
        try:
            self.remove(waiter)
        except ValueError:  # it was woken, and what for is perhaps still there
            self.wake_one()


class _Thread:
    """A waiting thread that has no hub."""

    __slots__ = ("_lock", "_process")

    def __init__(self) -> None:
        self._lock = native.allocate_lock()  # its own thread acquires, any thread releases
        self._lock.acquire()
        self._process = _process

    def wait_in(self, lot: ParkingLot, attempt: Callable[[], object], ends: float | None) -> bool:
        is_over = False
        try:
            lot.append(self)
            while not attempt():
                if not self._sleep(ends):
                    return bool(attempt())
                if attempt():
                    is_over = True
                    return True
                lot.appendleft(self)
            return True
        finally:
            if not is_over:
                lot.leave(self)

    def wake(self) -> bool:
        """Wake it; False if it is no more. Safe from any thread, once for each time that it is in the lot."""
        if self._process is not _process:  # the thread did not survive the fork
            return False
        self._lock.release()
        return True

    def _sleep(self, ends: float | None) -> bool:
        if ends is None:
            return self._lock.acquire()
        return self._lock.acquire(True, min(max(0.0, ends - monotonic()), native.TIMEOUT_MAX))


class _Hub(_Thread):
    """A waiting hub, for as long as it has patience."""

    __slots__ = ("_patience",)

    def __init__(self, patience: float) -> None:
        super().__init__()
        self._patience = patience

    def _sleep(self, ends: float | None) -> bool:
        latest = monotonic() + self._patience
        if ends is not None and ends <= latest:
            return super()._sleep(ends)
        if super()._sleep(latest):
            return True
        raise BlockingSwitchOutError("Impossible to call blocking function in the event loop callback")


class _Greenlet(Waiter):  # type: ignore[type-arg]
    """A waiting greenlet. Its hub tries for it, and switches to it when it has got the thing.

    It is made without a Python call, and fields are set where they are needed: this is what greenlets pay that no
    thread disturbs.
    """

    __slots__ = ("_attempt", "_lot", "hub_waiters")

    _attempt: Callable[[], object]
    _lot: ParkingLot | None  # while it waits; its hub's thread only
    hub_waiters: _HubWaiters

    def wait_in(self, lot: ParkingLot, attempt: Callable[[], object], ends: float | None) -> bool:
        self._attempt, self._lot = attempt, lot
        hub_waiters = self.hub_waiters
        try:
            hub_waiters.enter(self)
            lot.append(self)
            if attempt():
                return True
            if ends is None:
                self.get()
                return True
            return self._get_until(ends) or bool(attempt())
        finally:
            hub_waiters.leave(self)
            if self._lot is not None:
                self._lot = None
                lot.leave(self)

    def wake(self) -> bool:
        """Have its hub try; False if that is no more. Safe from any thread, once for each time it is in the lot."""
        hub = self.hub_waiters.hub
        here: Any = get_hub_if_exists()
        if here is hub:
            hub.loop.run_callback(self._try)
            return True
        if hub.loop is None:
            return False
        if self.hub_waiters.process is not _process:  # a copy after a fork: its hub turns if its thread is what forked
            hub.loop.run_callback_threadsafe(self._try)
            return False
        self.hub_waiters.entry_queue.post(self._try)
        return True

    def _get_until(self, ends: float) -> bool:
        timer = Timeout.start_new(max(0.0, ends - monotonic()))
        try:
            self.get()
        except Timeout as expired:
            if expired is not timer:
                raise
            return False
        finally:
            timer.close()
        return True

    def _try(self) -> None:
        lot = self._lot
        if lot is None:  # it waits no longer, and the wakeup went to the next
            return
        if not self._attempt():
            lot.appendleft(self)
            if not self._attempt():
                return
            lot.leave(self)
        self._lot = None
        self.switch(None)


class _HubWaiters:
    """A hub as those need it who wait there, and what holds its loop open for them."""

    __slots__ = ("__weakref__", "_on_callback", "_on_time", "_timer", "_waiting", "entry_queue", "hub", "process")

    def __init__(self, hub: Any) -> None:
        self.hub = hub  # set once, any thread reads; so are these two
        self.entry_queue = EntryQueue.here()
        self.process = _process
        self._waiting: set[_Greenlet] = set()  # the hub's thread only, as all that follows
        # The main thread may wake those of any other hub, so that only the main hub has to look.
        self._timer = (
            hub.loop.timer(FIRST_CHECK, CHECK_INTERVAL) if hub.main_hub else hub.loop.timer(native.TIMEOUT_MAX)
        )
        self._on_time, self._on_callback = weakly(self._schedule_check), weakly(self._check)

    def enter(self, waiter: _Greenlet) -> None:
        """Hold the loop open for *waiter*. Call from the hub's thread."""
        if not self._waiting or not self._timer.ref:
            self._timer.ref = True
            self._timer.start(self._on_time, update=False)
        self._waiting.add(waiter)

    def leave(self, waiter: _Greenlet) -> None:
        """Undo `enter`."""
        self._waiting.discard(waiter)
        if not self._waiting and self.hub.loop is not None:
            self._timer.stop()

    def _schedule_check(self) -> None:
        """Look when the callbacks that are due have run: then all that is yet to come is active in the loop."""
        self.hub.loop.run_callback(self._on_callback)

    def _check(self) -> None:
        """Hold the loop open while something else does, or somebody is left who may wake those that wait.

        While something else does, since greenlets that it resumes may start somebody. libuv does not tell of it; its
        loop ends only after a turn in which nothing was resumed. Who woke one of them and is gone has left a letter.
        """
        timer = self._timer
        is_last = self.hub.loop.activecnt <= timer.ref
        timer.ref = not is_last or _others_may_wake() or not self.entry_queue.is_empty


def _others_may_wake() -> bool:
    """True if a thread besides the calling one runs Python code, or is about to."""
    if any(is_busy() for is_busy in _busy_checks):
        return True
    frames = sys._current_frames()
    others = sys._current_exceptions().keys() - {native.get_ident()}  # also those that have not begun
    return any(not _is_idle(frames.get(thread)) for thread in others)


def _is_idle(frame: FrameType | None) -> bool:
    """True where a thread of gevent's waits for work, and where one of our own is: `_busy_checks` speaks for it."""
    if frame is None:
        return False
    if frame.f_globals.get("__name__") in WHERE_THREADS_WAIT:
        return True
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code in _entry_codes


def _waiter(patience: float) -> _Greenlet | _Thread:
    hub = get_hub_if_exists() or hub_here()
    if hub is None:
        return _Thread()
    if getcurrent() is hub:
        return _Hub(patience)
    hub_waiters: _HubWaiters | None = getattr(_local, "hub_waiters", None)
    if hub_waiters is None or hub_waiters.hub is not hub:
        hub_waiters = _local.hub_waiters = _HubWaiters(hub)
    waiter = _Greenlet(hub)
    waiter.hub_waiters = hub_waiters
    return waiter


def _main_native_id() -> Any:
    # Linux gives it the number of the process, also in a child that another thread has forked.
    return os.getpid() if sys.platform == "linux" else main_native_thread().native_id


def _after_fork_in_child() -> None:
    global _main_thread, _process
    _main_thread = native.get_native_id()
    _process = object()
    native_threads.clear()
    _local.__dict__.clear()


_busy_checks: list[Callable[[], bool]] = []  # these two are written at import
_entry_codes: set[CodeType] = set()
_is_hub_stopped: Callable[[], bool] = bool  # True on such a thread; set once
_main_thread = _main_native_id()  # written again by the child of a fork, whose one thread it then is
_process = object()  # this process, and no copy of it after a fork
_local = native.Local()  # one hub_waiters a thread, its own
os.register_at_fork(after_in_child=_after_fork_in_child)
