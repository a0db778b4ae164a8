"""Waiting for a result outside its owning hub: in a greenlet of another hub, or in a thread without a hub.

The thread that settles the result calls each registered callback (`Awaited.add_callback`) in that thread. Such a
callback notifies a `HubWaker` or puts an item into a native queue, so it may be called from any thread and never
blocks.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from time import monotonic
from types import FrameType
from typing import Any, Protocol
from weakref import ref

from gevent import Timeout
from gevent.hub import Waiter

from greendata.errors import ResultTimeout
from greendata.errors.root import AnyResult
from greendata.hub import native
from greendata.hub.deadline import seconds_of
from greendata.hub.hubs import Timer
from greendata.hub.origin import calling_frame
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.startup.importing import when_imported

__all__ = ("Awaited", "Link", "running_loop", "sleep_until", "wait_native", "wait_on_other_hub", "warn_of_event_loop")

# One function, which returns asyncio's running loop of the calling thread or None; empty until asyncio is imported.
running_loop: list[Callable[[], object]] = []


class Awaited(AnyResult, Protocol):
    """A result, as its waiters see it."""

    @property
    def own_deadline(self) -> float | None:
        """The deadline of its work, on `time.monotonic`'s clock; None without one."""

    def expire(self) -> None:
        """Fail it because its deadline has passed."""

    def add_callback(self, wake: Callable[[], object]) -> bool:
        """Make the settling thread call *wake* at the outcome; return False if there is an outcome already."""

    def drop_callback(self, wake: Callable[[], object]) -> bool:
        """Remove a callback of `add_callback`; return False if it was not registered."""

    def drop_link(self, link: Link) -> None:
        """Remove a link of another hub. Call from that hub's thread."""


class Link:
    """A callback that a hub other than the owning one runs once, when the result has an outcome.

    Create it in the thread of the hub that is to run it. Until then the link enforces the result's deadline.
    """

    __slots__ = ("__weakref__", "_number", "_result", "_timer", "_waker", "callback")

    def __init__(self, result: Awaited, hub: Any, callback: Callable[[Any], object]) -> None:
        self.callback = callback
        self._result = result
        self._number: int | None = None  # the waker's number, until the link is delivered or dropped
        waker = self._waker = HubWaker.here(hub)
        me = ref(self)  # weak: an unsettled result that is freed takes its links with it

        def deliver() -> None:
            link = me()
            if link is not None:
                link._deliver()
            else:
                waker.release(number)
                waker.forget(number)

        number = waker.expect(deliver)
        self._number = number
        self._timer: Timer | None = None
        if (limit := _until_deadline(result)) is not None:
            self._timer = Timer(hub, limit, result.expire)

    @property
    def is_here(self) -> bool:
        """True in the thread that made the link. Safe from any thread."""
        return self._waker.is_here

    def wake(self) -> None:
        """Make the link's hub run the callback, in that hub's thread. Safe from any thread; never blocks."""
        if (number := self._number) is not None:
            self._waker.notify(number)

    def drop(self) -> None:
        """Remove the link. Call from its hub's thread."""
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
    """Suspend this greenlet of *hub* until *sleepers* are resumed (`HubWaker.resume`) or *timer* expires.

    The greenlet continues inside the waker's callback, without another iteration of the loop. That saves 12 of the
    85 microseconds that a tiny query takes.
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


def wait_on_other_hub(result: Awaited, hub: Any, timer: Timeout | None) -> None:
    """Suspend this greenlet of *hub* until *result* is settled, its deadline has passed or *timer* has expired."""
    sleepers: list[Callable[[object], object]] = []
    waker = HubWaker.here(hub)
    link = Link(result, hub, lambda _: waker.resume(sleepers))
    try:
        if result.add_callback(link.wake):
            with native.blocked():
                sleep_until(timer, hub, sleepers)
    finally:
        result.drop_callback(link.wake)
        link.drop()


def wait_native(result: Awaited, timeout: float | Timeout | None) -> Timeout | None:
    """Block this thread, which has no hub, until *result* is settled; return the timeout that expired, or None."""
    seconds = seconds_of(timeout.seconds if isinstance(timeout, Timeout) else timeout)
    ends = None if seconds is None else monotonic() + seconds
    wakeups = native.SimpleQueue[None]()
    wake = partial(wakeups.put, None)
    if not result.add_callback(wake):
        return None
    try:
        with native.blocked():
            while not _sleep_natively(wakeups, ends, result) and not result.ready():
                if ends is not None and monotonic() >= ends:
                    return timeout if isinstance(timeout, Timeout) else ResultTimeout(result, seconds)
    finally:
        result.drop_callback(wake)
    return None


def warn_of_event_loop(label: str) -> None:
    """Issue a warning if waiting here blocks an asyncio event loop. Call where `running_loop` returns a loop.

    With a hub, another greenlet of this thread may be the one that runs the loop.
    """
    frame = calling_frame()
    if frame is None or (get_hub_if_exists() is not None and not _is_in_event_loop(frame)):
        return
    text = (
        f"waiting for the Result of {label!r} blocks the asyncio event loop of this thread; "
        "use: await asyncio.to_thread(result.get)"
    )
    warnings.warn_explicit(
        text,
        category=RuntimeWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_in_event_loop(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
            return True
        if str(frame.f_globals.get("__name__")).startswith("asyncio."):
            return True
        frame = frame.f_back
    return False


def _sleep_natively(wakeups: native.SimpleQueue[None], ends: float | None, result: Awaited) -> bool:
    """Wait for an item of *wakeups* until *ends* or the deadline of the work; return False if none came.

    If the deadline of the work passes first, the result fails.
    """
    left = None if ends is None else max(0.0, ends - monotonic())
    limit = _until_deadline(result)
    bounds = [bound for bound in (left, limit) if bound is not None]
    try:
        wakeups.get(timeout=min(*bounds, native.TIMEOUT_MAX) if bounds else None)
    except native.Empty:
        if limit == min(bounds):
            result.expire()
        return False
    return True


def _until_deadline(result: Awaited) -> float | None:
    """Return the seconds to the deadline of the work, or None if there is none."""
    until = result.own_deadline
    return None if until is None else min(max(0.0, until - monotonic()), native.TIMEOUT_MAX)


when_imported("asyncio", lambda: running_loop.append(sys.modules["asyncio"]._get_running_loop))
