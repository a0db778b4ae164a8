"""How a thread that is not a result's home waits for it: a greenlet of another hub, or a plain thread.

Whoever settles the result calls each waker once, in its own thread. A waker rings a bridge or releases a
native lock, so it may be called from anywhere and never blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Protocol
from weakref import ref

from gevent import Timeout
from gevent.hub import Waiter

from greendata.errors import ResultTimeout
from greendata.errors.root import AnyResult
from greendata.hub import native
from greendata.hub.deadline import seconds_of
from greendata.hub.hubs import weakly
from greendata.hub.waker import HubWaker

__all__ = ("Awaited", "Link", "sleep_until", "wait_abroad", "wait_native")


class Awaited(AnyResult, Protocol):
    """A result, as those who wait for it see it."""

    @property
    def own_deadline(self) -> float | None:
        """The end of the time that its work has, on `time.monotonic`'s clock."""

    def expire(self) -> None:
        """Fail it, if its deadline has passed."""

    def add_callback(self, wake: Callable[[], object]) -> bool:
        """Have *wake* called at its outcome; return False if there is one."""

    def drop_callback(self, wake: Callable[[], object]) -> bool:
        """Take back what `add_waker` was given; return False if it is not there."""

    def drop_link(self, link: Link) -> None:
        """Take back a callback of another hub. Call from that hub's thread."""


class Link:
    """A callback that another hub than the result's own will run, once. Made on that hub's thread.

    It keeps the result's deadline meanwhile.
    """

    __slots__ = ("__weakref__", "_number", "_result", "_timer", "_waker", "callback")

    def __init__(self, result: Awaited, hub: Any, callback: Callable[[Any], object]) -> None:
        self.callback = callback
        self._result = result
        self._number: int | None = None  # a number of the bridge, until it is delivered or dropped
        waker = self._waker = HubWaker.here(hub)
        me = ref(self)  # a result that nobody has any more, and that was never decided, takes its links with it

        def deliver() -> None:
            link = me()
            if link is not None:
                link._deliver()
            else:
                waker.release(number)
                waker.forget(number)

        number = waker.expect(deliver)
        self._number = number
        self._timer: Any = None
        if (limit := _until_deadline(result)) is not None:
            self._timer = hub.loop.timer(limit, ref=False)
            self._timer.start(weakly(result.expire), update=True)

    @property
    def is_here(self) -> bool:
        """True on the thread that made the link. Safe from any thread."""
        return self._waker.is_here

    def wake(self) -> None:
        """Have the link's hub run the callback. Safe from any thread."""
        if (number := self._number) is not None:
            self._waker.notify(number)

    def drop(self) -> None:
        """Take the link back. Call from its hub's thread."""
        if self._number is not None:
            self._waker.forget(self._number)
            self._number = None
            self._result.drop_link(self)
            if self._timer is not None:
                self._timer.close()

    def __del__(self) -> None:
        self.wake()

    def _deliver(self) -> None:
        if self._number is not None:
            self.drop()
            self.callback(self._result)


def sleep_until(timer: Timeout | None, hub: Any, sleepers: list[Callable[[object], object]]) -> None:
    """Let this greenlet of *hub* sleep until *sleepers* are resumed (`HubWaker.resume`) or *timer* expires.

    It runs on inside the bell's callback, without another turn of the loop: 12 us of the 85 that a tiny query takes.
    """
    waiter: Waiter[object] = Waiter(hub)
    sleepers.append(waiter.switch)
    try:
        if timer is None:
            waiter.get()
        else:
            with Timeout.start_new(timer):
                waiter.get()
    except Timeout as expired:
        if expired is not timer:
            raise
    finally:
        if waiter.switch in sleepers:  # it was not called
            sleepers.remove(waiter.switch)


def wait_abroad(result: Awaited, hub: Any, timer: Timeout | None) -> None:
    """Let this greenlet of *hub* sleep until *result* is settled, its deadline passed or *timer* expired."""
    sleepers: list[Callable[[object], object]] = []
    waker = HubWaker.here(hub)
    link = Link(result, hub, lambda _: waker.resume(sleepers))
    try:
        if result.add_callback(link.wake):
            sleep_until(timer, hub, sleepers)
    finally:
        result.drop_callback(link.wake)
        link.drop()


def wait_native(result: Awaited, timeout: float | Timeout | None) -> Timeout | None:
    """Let this thread, which has no hub, sleep until *result* is settled; returns what expired, if anything."""
    seconds = seconds_of(timeout.seconds if isinstance(timeout, Timeout) else timeout)
    ends = None if seconds is None else monotonic() + seconds
    bell = native.SimpleQueue[None]()
    wake = partial(bell.put, None)
    if not result.add_callback(wake):
        return None
    try:
        while not _sleep_natively(bell, ends, result) and not result.ready():
            if ends is not None and monotonic() >= ends:
                return timeout if isinstance(timeout, Timeout) else ResultTimeout(result, seconds)
    finally:
        result.drop_callback(wake)
    return None


def _sleep_natively(bell: native.SimpleQueue[None], ends: float | None, result: Awaited) -> bool:
    """Wait for *bell* until *ends* or the deadline of the work, which is kept; False if it did not ring."""
    left = None if ends is None else max(0.0, ends - monotonic())
    limit = _until_deadline(result)
    bounds = [bound for bound in (left, limit) if bound is not None]
    try:
        bell.get(timeout=min(*bounds, native.TIMEOUT_MAX) if bounds else None)
    except native.Empty:
        if limit == min(bounds):
            result.expire()
        return False
    return True


def _until_deadline(result: Awaited) -> float | None:
    """Seconds to the deadline of the work, or None."""
    until = result.own_deadline
    return None if until is None else min(max(0.0, until - monotonic()), native.TIMEOUT_MAX)
