"""A parking lot: where greenlets of any hub and native threads wait together for one thing.

Each waiter sleeps in its own way: a greenlet in its hub, which goes on, and a thread without a hub on a native
lock. Whoever makes the thing available wakes one of them, from any thread:

    releasing thread                       waiter
    ----------------                       ------
    make the thing available               append itself to the lot
    wake the first of the lot, if any      try once more; sleep; try again

- No wakeup is lost: one side writes before it looks at the lot, the other appends itself before it looks at the thing,
  and each of these steps is one C call under the GIL.
- A wakeup that comes to nothing (its waiter was killed, or timed out, at that moment) is passed on to the next.
- A newcomer may be faster than the one who was woken, as with Python's own locks and gevent's. The loser parks first
  in line.
- A greenlet is resumed by its own hub, and a native thread by its own lock, whatever other hubs do meanwhile: a hub
  that does not turn, as a worker's between two jobs, holds up nobody.
- Nothing is paid where nobody waits: an empty lot is false.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from gevent import Timeout
from gevent._hub_local import get_hub_if_exists
from gevent.exceptions import BlockingSwitchOutError
from gevent.hub import Waiter, get_hub
from greenlet import getcurrent

from greendata.hub import native
from greendata.hub.mailbox import Mailbox

__all__ = ("ParkingLot", "hub_here", "native_threads")

# The hub itself cannot switch to anybody. For something that another thread has, a few bytecodes from giving it back,
# it sleeps as long as this; then it gets the error that gevent has for it.
HUB_PATIENCE = 0.005  # seconds

native_threads: set[int] = set()  # that run for `threading.Thread`; each adds and removes itself, any thread looks


def hub_here() -> Any:
    """The hub of the calling thread, or None where things wait natively.

    The main thread is a hub's also before the hub is made, since `gevent.monkey` patched for its sake.
    """
    hub = get_hub_if_exists()
    if hub is None and native.get_native_id() == _main_thread:
        hub = get_hub()
    return hub


class ParkingLot(deque["_Greenlet | _NativeSleeper"]):
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
            attempt: takes the thing if it can be had, and tells. Called in the waiter's thread; must not wait.
            elsewhere: another thread has the thing, so that the hub of a waiting greenlet goes on until it is there,
                also with nothing else to do.

        Raises:
            BlockingSwitchOutError: the hub itself called, and the thing is not there.
            LoopExit: nobody is left who could wake the greenlet.
        """
        sleeper = _sleeper(elsewhere)
        hold = sleeper.hold(elsewhere)
        ends = None if timeout is None else monotonic() + timeout
        has_left = False
        try:
            self.append(sleeper)
            while not attempt():
                if ends is None:
                    sleeper.sleep()
                elif not sleeper.sleep_for(ends - monotonic()):
                    return bool(attempt())
                if attempt():
                    has_left = True
                    return True
                self.appendleft(sleeper)
            return True
        finally:
            if hold:
                sleeper.let_go(hold)
            if not has_left:
                self._leave(sleeper)

    def wake_one(self) -> None:
        """Wake the one that waits longest, if anyone does."""
        while self:
            try:
                sleeper = self.popleft()
            except IndexError:  # another thread woke the last one
                return
            if sleeper.wake():
                return

    def wake_all(self) -> None:
        """Wake everyone who waits now."""
        for _ in range(len(self)):
            self.wake_one()

    def _leave(self, sleeper: _Greenlet | _NativeSleeper) -> None:
        try:
            self.remove(sleeper)
        except ValueError:  # it was woken, and what for is perhaps still there
            self.wake_one()


class _NativeSleeper:
    """A thread without a hub."""

    __slots__ = ("_bell", "_process")

    def __init__(self) -> None:
        self._bell = native.allocate_lock()
        self._bell.acquire()
        self._process = _process

    def hold(self, _elsewhere: bool) -> int:
        return 0

    def let_go(self, number: int) -> None: ...

    def sleep(self) -> None:
        self._bell.acquire()

    def sleep_for(self, seconds: float) -> bool:
        return self._bell.acquire(True, min(max(0.0, seconds), native.TIMEOUT_MAX))

    def wake(self) -> bool:
        if self._process is not _process:  # the thread did not survive the fork
            return False
        self._bell.release()
        return True


class _SleepingHub(_NativeSleeper):
    """A hub, for as long as it has patience."""

    __slots__ = ("_patience",)

    def __init__(self, patience: float) -> None:
        super().__init__()
        self._patience = patience

    def sleep(self) -> None:
        self.sleep_for(self._patience)

    def sleep_for(self, seconds: float) -> bool:
        if super().sleep_for(min(seconds, self._patience)):
            return True
        raise BlockingSwitchOutError("Impossible to call blocking function in the event loop callback")


class _Greenlet(Waiter):  # type: ignore[type-arg]
    """A greenlet of a hub."""

    __slots__ = ("place",)

    place: _Place

    def hold(self, elsewhere: bool) -> int:
        """Hold the loop open if need be; a number for `let_go`, or 0."""
        place = self.place
        return place.mailbox.bridge.expect(_nothing) if elsewhere or native_threads or not place.is_main else 0

    def let_go(self, number: int) -> None:
        bridge = self.place.mailbox.bridge
        bridge.release()
        bridge.forget(number)

    def sleep(self) -> None:
        self.get()
        self.clear()

    def sleep_for(self, seconds: float) -> bool:
        timer = Timeout.start_new(max(0.0, seconds))
        try:
            self.sleep()
        except Timeout as expired:
            if expired is not timer:
                raise
            return False
        finally:
            timer.close()
        return True

    def wake(self) -> bool:
        hub = self.hub
        if get_hub_if_exists() is hub:
            hub.loop.run_callback(self.switch, None)
        elif hub.loop is None:
            return False
        elif self.place.process is not _process:  # a copy after a fork: its hub turns if it is of the thread that forked
            hub.loop.run_callback_threadsafe(self.wake)
            return False
        else:
            self.place.mailbox.post(self.wake)
        return True


class _Place:
    """A hub as its waiting greenlets need it. Any thread reads; set once."""

    __slots__ = ("hub", "is_main", "mailbox", "process")

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.is_main = hub.main_hub
        self.mailbox = Mailbox.here()
        self.process = _process


def _sleeper(elsewhere: bool) -> _Greenlet | _NativeSleeper:
    hub = get_hub_if_exists() or hub_here()
    if hub is None:
        return _NativeSleeper()
    if getcurrent() is hub:
        return _SleepingHub(HUB_PATIENCE if elsewhere else 0.0)
    sleeper = _Greenlet(hub)
    place: _Place | None = getattr(_local, "place", None)
    if place is None or place.hub is not hub:
        place = _local.place = _Place(hub)
    sleeper.place = place
    return sleeper


def _nothing() -> None:
    """The answer to a ring that nobody rings: what is expected holds the loop open."""


def _after_fork_in_child() -> None:
    global _main_thread, _process
    _main_thread = native.get_native_id()
    _process = object()
    native_threads.clear()
    _local.__dict__.clear()


_main_thread = threading.main_thread().native_id  # the number the system has for it; after a fork, the one that forked
_local = native.Local()  # one place a thread, its own
_process = object()  # this one, and no copy of it after a fork
os.register_at_fork(after_in_child=_after_fork_in_child)
