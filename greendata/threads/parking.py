"""A parking lot: a queue in which greenlets of any hub and native threads wait together for one resource.

A resource is, for example, a lock that is free or a queue that has an item. A greenlet sleeps in its hub, which
continues to run. A thread without a hub sleeps on a native lock. Any thread wakes them::

    the releasing thread                          a waiting thread
    --------------------                          ----------------
                                                  lot.append(waiter)
                                                  attempt() to take the resource; if that fails, sleep:
    makes the resource available                    a greenlet switches to its hub
    lot.wake_one():                                 a thread acquires its native lock
      waiter = popleft()
      waiter.wake():
        a greenlet: post to the    ------------>  the hub switches to the greenlet
          EntryQueue of its hub
        a thread: release its      ------------>  the thread has acquired its native lock
          native lock
                                                  lot.appendleft(waiter), attempt(), and so on
                                                  lot.remove(waiter) when it no longer waits

- No wakeup is lost. The releasing thread changes the resource before it reads the lot. The waiting thread enters the
  lot before it tries the resource. Each of these steps is one C call under the GIL.
- A waiter enters the lot and takes the resource in its own greenlet or thread. So nothing is ever taken for a waiter
  that a signal handler has interrupted while it left, and no waiter is in the lot twice.
- If the woken waiter was killed, timed out or interrupted at that moment, the wakeup is passed on to the next waiter.
- A signal handler may raise between any two steps of the releasing thread, for example after ``popleft()``. Nothing in
  that thread could make up for it in every case, as the handler may raise there again. So each waiter also tries by
  itself every `RETRY_INTERVAL`.
- A new waiter may overtake the one that was woken, as with Python's own locks and gevent's. The woken waiter then
  waits again, in the first position.
- A wakeup takes the same time for any number of waiters: a thread that puts a thousand items for a thousand waiting
  greenlets does not hold the hub.
- A greenlet is resumed by its own hub, and a thread by its own lock. A hub that is not running, such as a worker's
  between two jobs, delays no other waiter.
- A loop with nothing else to do keeps running while one of its greenlets waits here and another thread may wake it. If
  no such thread is left, gevent ends the wait of the main greenlet with LoopExit, as usual.
- It costs nothing if there are no waiters: an empty lot is false.

gevent's own notification across threads is not used. It runs in the hub that used the semaphore last, or in the
releasing thread if that has no hub, and never resumes a waiter that it cannot resume there
(github.com/gevent/gevent/issues/2013).
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
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
from greendata.hub.hubs import weak_callback
from greendata.internals.gevent import WHERE_THREADS_WAIT, get_hub_if_exists

__all__ = (
    "ParkingLot",
    "hub_here",
    "hub_runs_here",
    "native_threads",
    "treat_as_idle_unless",
    "treat_hubs_as_stopped_where",
)

# The hub greenlet cannot switch to another greenlet. If another thread holds the resource, and may release it within a
# few bytecodes, the hub blocks for up to this time. Then the error is raised that gevent raises at once.
HUB_PATIENCE = 0.005  # seconds

# The time until a hub checks whether any thread may still wake its greenlets, and between later checks.
FIRST_CHECK = 0.005  # seconds; most waits are over by then, and new threads are running
CHECK_INTERVAL = 0.1  # seconds
CHECKS = 3  # in a row that find no such thread before the loop may end: Python 3.11 shows a new thread once it runs

# Waiters try to take the resource by themselves, in case a signal handler interrupted the thread that should have woken
# them: a thread after each interval, and of the greenlets of a hub the first `MOST_RETRIES`, which then are the last.
RETRY_INTERVAL = 1.0  # seconds
MOST_RETRIES = 100  # these take some 200 us

native_threads: set[int] = set()  # those that run a `threading.Thread`; each adds and removes itself, any thread reads


def hub_here() -> Any:
    """Return the hub of the calling thread, or None if the thread waits natively.

    In the main thread, create the hub if there is none: `gevent.monkey` patches on behalf of that hub.
    """
    hub = get_hub_if_exists()
    if hub is None and native.get_native_id() == _main_thread:
        hub = get_hub()
    return hub


def hub_runs_here() -> bool:
    """Return True if a greenlet started in the calling thread will run, whatever the thread does next."""
    return hub_here() is not None and not _is_hub_stopped() and native.get_ident() not in native_threads


def treat_hubs_as_stopped_where(is_stopped: Callable[[], bool]) -> None:
    """Make `hub_runs_here` return False in threads where ``is_stopped()``: those run native code for other hubs."""
    global _is_hub_stopped
    _is_hub_stopped = is_stopped


def treat_as_idle_unless(is_busy: Callable[[], bool], *entries: Callable[..., object]) -> None:
    """Treat threads whose outermost function is one of *entries* as idle, unless ``is_busy()``."""
    _busy_checks.append(is_busy)
    _entry_codes.update(entry.__code__ for entry in entries)


class ParkingLot(deque["_WaitingGreenlet | _WaitingThread"]):
    """The waiters for one resource, first in first out. Safe from any thread.

    Example:
        >>> lot, arrived = ParkingLot(), []
        >>> def arrive():
        ...     arrived.append("an item")
        ...     lot.wake_one()
        >>> _ = native.start_thread(arrive, ())
        >>> lot.wait(lambda: bool(arrived), timeout=5)
        True
    """

    __slots__ = ()

    def wait(self, attempt: Callable[[], object], timeout: float | None = None, *, elsewhere: bool = False) -> bool:
        """Wait until ``attempt()`` is true; return False if it is not true after *timeout* seconds.

        Args:
            attempt: takes the resource if it is available, and returns whether it did. It is called in the waiter's
                thread and must not wait.
            elsewhere: True if another thread holds the resource. The hub greenlet then waits for up to `HUB_PATIENCE`.

        Raises:
            BlockingSwitchOutError: the hub greenlet itself called, and the resource is not available.
            LoopExit: no thread is left that could wake the greenlet.
        """
        if not _is_hub_stopped():
            return self._wait(attempt, timeout, elsewhere=elsewhere)
        with native.blocked():
            return self._wait(attempt, timeout, elsewhere=elsewhere)

    def _wait(self, attempt: Callable[[], object], timeout: float | None, *, elsewhere: bool) -> bool:
        waiter = _waiter(self, HUB_PATIENCE if elsewhere else 0.0)
        ends = None if timeout is None else monotonic() + timeout
        is_interrupted = True  # perhaps between a wakeup and the attempt that it asks for
        try:
            self.append(waiter)
            while not (is_taken := bool(attempt())):
                if waiter.sleep(ends):
                    self.appendleft(waiter)
                elif ends is not None and monotonic() >= ends:
                    is_taken = bool(attempt())
                    break
            is_interrupted = False
            return is_taken
        finally:
            waiter.end()
            if not self._discard(waiter) or is_interrupted:  # a wakeup is under way to it, or got no further
                self.wake_one()

    def wake_one(self) -> None:
        """Wake the waiter that has waited longest, if there is one. Safe from any thread; never blocks.

        The calling thread only posts to the waiter's hub or releases the waiter's lock. The waiter tries to take the
        resource itself.
        """
        while self:
            try:
                waiter = self.popleft()
            except IndexError:  # another thread has woken the last waiter
                return
            if waiter.wake():
                return

    def wake_all(self) -> None:
        """Wake everything that waits now. Safe from any thread; never blocks."""
        for _ in range(len(self)):
            self.wake_one()

    def _discard(self, waiter: _WaitingGreenlet | _WaitingThread) -> bool:
        """Remove *waiter*; return False if it was not in the lot."""
        try:
            self.remove(waiter)
        except ValueError:
            return False
        return True


class _WaitingThread:
    """A waiting thread that has no hub."""

    __slots__ = ("_lock", "_process")

    def __init__(self) -> None:
        self._lock = native.allocate_lock()  # its own thread acquires, any thread releases
        self._lock.acquire()
        self._process = _process

    def wake(self) -> bool:
        """Wake the thread; return False if it did not survive a fork.

        Safe from any thread, once for each stay in the lot.
        """
        if self._process is not _process:
            return False
        self._lock.release()
        return True

    def sleep(self, ends: float | None) -> bool:
        """Sleep until a wakeup, *ends*, or the time for a retry; return True if woken. Call in its thread, as `end`."""
        seconds = RETRY_INTERVAL if ends is None else min(max(0.0, ends - monotonic()), RETRY_INTERVAL)
        return self._lock.acquire(True, seconds)

    def end(self) -> None:
        """Do nothing: see `_WaitingGreenlet.end`."""


class _WaitingHub(_WaitingThread):
    """A waiting hub greenlet, which blocks its thread for a limited time."""

    __slots__ = ("_patience",)

    def __init__(self, patience: float) -> None:
        super().__init__()
        self._patience = patience

    def sleep(self, ends: float | None) -> bool:
        seconds = self._patience if ends is None else min(max(0.0, ends - monotonic()), self._patience)
        if self._lock.acquire(True, seconds):
            return True
        if ends is not None and monotonic() >= ends:
            return False
        raise BlockingSwitchOutError("Impossible to call blocking function in the event loop callback")


class _WaitingGreenlet(Waiter):  # type: ignore[type-arg]
    """A waiting greenlet.

    It is created without a call of a Python function: this is the cost that greenlets pay when no thread is involved.
    """

    __slots__ = ("_is_woken", "_lot", "hub_waiters")

    hub_waiters: _HubWaiters  # set once, as the next
    _lot: ParkingLot
    _is_woken: bool  # a wakeup has ended its sleep; its hub's thread only

    def wake(self) -> bool:
        """Make its hub resume it; return False if the hub no longer exists.

        Safe from any thread, once for each stay in the lot.
        """
        hub = self.hub_waiters.hub
        here: Any = get_hub_if_exists()
        if here is hub:
            hub.loop.run_callback(self._resume)
            return True
        if hub.loop is None:
            return False
        if self.hub_waiters.process is not _process:  # a copy after a fork: its hub runs only if its thread forked
            hub.loop.run_callback_threadsafe(self._resume)
            return False
        self.hub_waiters.entry_queue.post(self._resume)
        return True

    def sleep(self, ends: float | None) -> bool:
        """Sleep until a wakeup, *ends*, or a `retry`; return True if woken. Call in the greenlet, as `end`."""
        self._is_woken = False
        self.hub_waiters.enter(self)
        timer = None if ends is None else Timeout(max(0.0, ends - monotonic()))
        try:
            if timer is not None:
                timer.start()
            self.get()
        except Timeout as expired:
            if expired is not timer:
                raise
        finally:
            self.clear()
            if timer is not None:
                timer.close()
        return self._is_woken

    def end(self) -> None:
        """Stop holding the loop open."""
        self.hub_waiters.leave(self)

    def retry(self) -> None:
        """Make it try, or forget it if it was interrupted while it left. Call from the hub greenlet."""
        if self.greenlet is not None:
            self.switch(None)
        else:
            self.end()

    def _resume(self) -> None:
        if self.greenlet is not None:
            self._is_woken = True
            self.switch(None)
        else:  # it has left, or was interrupted while it left
            self._lot.wake_one()


class _HubWaiters:
    """The waiting greenlets of one hub, and the timer that holds its loop open for them."""

    __slots__ = (
        "__weakref__",
        "_idle_checks",
        "_next_retry",
        "_on_callback",
        "_on_time",
        "_timer",
        "_waiting",
        "entry_queue",
        "hub",
        "process",
    )

    def __init__(self, hub: Any) -> None:
        self.hub = hub  # this and the next two: set once, any thread reads
        self.entry_queue = EntryQueue.here()
        self.process = _process
        self._waiting: OrderedDict[_WaitingGreenlet, None] = OrderedDict()  # this and all below: the hub's thread only
        self._idle_checks = 0  # in a row
        self._next_retry = monotonic() + RETRY_INTERVAL  # of the main hub, on time.monotonic's clock
        # The main thread may wake greenlets of any other hub, so only the main hub has to check.
        if hub.main_hub:
            self._timer = hub.loop.timer(FIRST_CHECK, CHECK_INTERVAL)
            self._on_time, self._on_callback = weak_callback(self._schedule_check), weak_callback(self._check)
        else:
            self._timer = hub.loop.timer(RETRY_INTERVAL, RETRY_INTERVAL)
            self._on_time = weak_callback(self._retry)

    def enter(self, waiter: _WaitingGreenlet) -> None:
        """Hold the loop open for *waiter*. Call from the hub's thread."""
        if not self._waiting or not self._timer.ref:
            self._timer.ref = True
            self._idle_checks = 0
            self._timer.start(self._on_time, update=False)
        self._waiting[waiter] = None

    def leave(self, waiter: _WaitingGreenlet) -> None:
        """Stop holding the loop open for *waiter*. Call from the hub's thread."""
        self._waiting.pop(waiter, None)
        if not self._waiting and self.hub.loop is not None:
            self._timer.stop()

    def __del__(self) -> None:
        if self.hub is get_hub_if_exists():  # a child of a fork has other objects; libuv uses the timer until then
            self._timer.close()

    def _schedule_check(self) -> None:
        """Check after the pending callbacks have run. Then everything that is still to come is active in the loop."""
        self.hub.loop.run_callback(self._on_callback)

    def _check(self) -> None:
        """Hold the loop open while something else does, or while another thread may wake the waiters.

        Something else counts because the greenlets that it resumes may start such a thread. On libuv `activecnt` does
        not show it, but that loop ends only after an iteration in which nothing was resumed. A thread that woke a
        waiter and has ended since has left an entry in the queue.
        """
        timer = self._timer
        is_last = self.hub.loop.activecnt <= timer.ref
        may_continue = not is_last or _others_may_wake() or not self.entry_queue.is_empty
        self._idle_checks = 0 if may_continue else self._idle_checks + 1
        timer.ref = self._idle_checks < CHECKS
        if (now := monotonic()) >= self._next_retry:
            self._next_retry = now + RETRY_INTERVAL
            self._retry()

    def _retry(self) -> None:
        for waiter in list(islice(self._waiting, MOST_RETRIES)):
            if waiter in self._waiting:  # else it left while another one ran
                self._waiting.move_to_end(waiter)
                waiter.retry()


def _others_may_wake() -> bool:
    """Return True if a thread other than the calling one runs Python code, or is about to."""
    if any(is_busy() for is_busy in _busy_checks):
        return True
    frames = sys._current_frames()
    others = sys._current_exceptions().keys() - {native.get_ident()}  # also new threads: on 3.11 once the OS runs them
    return any(not _is_idle(frames.get(thread)) for thread in others)


def _is_idle(frame: FrameType | None) -> bool:
    """Return True for gevent's threads that wait for work, and for greendata's workers, which `_busy_checks` covers."""
    if frame is None:
        return False
    if frame.f_globals.get("__name__") in WHERE_THREADS_WAIT:
        return True
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code in _entry_codes


def _waiter(lot: ParkingLot, patience: float) -> _WaitingGreenlet | _WaitingThread:
    hub = get_hub_if_exists() or hub_here()
    if hub is None:
        return _WaitingThread()
    if getcurrent() is hub:
        return _WaitingHub(patience)
    hub_waiters: _HubWaiters | None = getattr(_local, "hub_waiters", None)
    if hub_waiters is None or hub_waiters.hub is not hub:
        hub_waiters = _local.hub_waiters = _HubWaiters(hub)
    waiter = _WaitingGreenlet(hub)
    waiter.hub_waiters, waiter._lot, waiter._is_woken = hub_waiters, lot, False
    return waiter


def _main_native_id() -> Any:
    # On Linux it equals the process id, even in a child that another thread has forked.
    return os.getpid() if sys.platform == "linux" else main_native_thread().native_id


def _after_fork_in_child() -> None:
    global _main_thread, _process
    _main_thread = native.get_native_id()
    _process = object()
    native_threads.clear()
    _local.__dict__.clear()


_busy_checks: list[Callable[[], bool]] = []  # these two are written at import
_entry_codes: set[CodeType] = set()
_is_hub_stopped: Callable[[], bool] = bool  # see `treat_hubs_as_stopped_where`; set once
_main_thread = _main_native_id()  # set again in the child of a fork, to its only thread
_process = object()  # identifies this process; the child of a fork gets another object
_local = native.Local()  # the `_HubWaiters` of each thread's hub
os.register_at_fork(after_in_child=_after_fork_in_child)
