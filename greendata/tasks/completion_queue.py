"""`CompletionQueue`: results in the order in which they become ready. All functions that wait for many use it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

from gevent import Greenlet, Timeout
from gevent.event import AsyncResult
from greenlet import getcurrent

from greendata.errors import ForeignGreenlet, NotAResult, WaitsForItself
from greendata.hub import native
from greendata.hub.result import Result
from greendata.hub.waiters import sleep_until
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.tasks.task import current_job

__all__ = ("CompletionQueue", "link", "unlink", "waitable")

R = TypeVar("R", bound="AsyncResult[Any] | Greenlet[..., Any]")


class CompletionQueue(Generic[R]):
    """A queue from which one greenlet, or one thread without a hub, takes results as they become ready.

    Events wake the waiter; there is no polling. Call from the thread that made it.

    Example:
        >>> import greendata
        >>> completions = CompletionQueue()
        >>> completions.add(greendata.run(sum, [1, 2]))
        >>> completions.take(None).get()
        3
    """

    def __init__(self) -> None:
        self._hub = get_hub_if_exists()
        self._pending: dict[R, Callable[[Any], object]] = {}  # the items, and the link of each
        self._ready: deque[R] = deque()  # any thread appends, the thread that made the queue pops
        self._wakeups: Any = native.SimpleQueue()  # a thread without a hub sleeps on it
        self._sleepers: list[Callable[[object], object]] = []  # used by the thread that made the queue only
        self._deadlines: dict[R, float] = {}  # of items in a thread without a hub, where no timer runs

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, item: R) -> None:
        """Add *item* unless it is in the queue already."""
        if item not in self._pending:
            if self._hub is None and (limit := getattr(item, "own_deadline", None)) is not None:
                self._deadlines[item] = limit
            self._pending[item] = link(item, self._hub, self._note)

    def take(self, timeout: float | None) -> R | None:
        """Return the next item that is ready, or None if there is none within *timeout* seconds."""
        until = None if timeout is None else monotonic() + timeout
        while True:
            while self._ready:
                item = self._ready.popleft()
                self._deadlines.pop(item, None)
                if self._pending.pop(item, None) is not None:  # else it was noted twice
                    return item
            if until is not None and monotonic() >= until:
                return None
            self._sleep(until)
            for item in [item for item, limit in self._deadlines.items() if monotonic() >= limit]:
                del self._deadlines[item]
                assert isinstance(item, Result)
                item.expire()

    def close(self) -> list[R]:
        """Stop waiting, and return the items that were not taken."""
        left = list(self._pending)
        if get_hub_if_exists() is self._hub:  # else a finalizer runs on another thread, which must not touch links
            for item, wake in self._pending.items():
                unlink(item, self._hub, wake)
        self._pending.clear()
        return left

    def _note(self, item: R) -> None:
        self._ready.append(item)
        if self._hub is None:
            self._wakeups.put(None)
        elif self._sleepers:
            HubWaker.here(self._hub).resume(self._sleepers)

    def _sleep(self, until: float | None) -> None:
        ends = [end for end in (until, *self._deadlines.values()) if end is not None]
        seconds = max(0.0, min(ends) - monotonic()) if ends else None
        if self._hub is not None:
            sleep_until(None if seconds is None else Timeout(seconds), self._hub, self._sleepers)
        else:
            with suppress(native.Empty):
                self._wakeups.get(timeout=seconds)


def waitable(item: R, hub: Any) -> R:
    """Return *item* if *hub*, or a thread without a hub if that is None, can wait for it.

    Raises:
        NotAResult: it is not a Result, AsyncResult or Greenlet.
        WaitsForItself: it is the calling job or greenlet.
        ForeignGreenlet: it is a greenlet of another hub.
    """
    if not isinstance(item, AsyncResult | Greenlet):
        raise NotAResult(item)
    if item is current_job() or item is getcurrent():
        raise WaitsForItself(item)
    if isinstance(item, Greenlet) and not item.dead and item.parent is not hub:
        raise ForeignGreenlet(item)
    return item


def link(item: Any, hub: Any, callback: Callable[[Any], object]) -> Callable[[Any], object]:
    """Call *callback* with *item* once it is ready, and return the object to pass to `unlink`.

    With a *hub*, which must be that of the calling thread, the callback runs in the hub. Without a hub it runs on the
    thread that settles the item.
    """
    if hub is not None:
        item.rawlink(callback)
        return callback
    if not isinstance(item, Result):
        item.rawlink(callback)
        return callback
    wake: Callable[..., object] = partial(callback, item)
    if not item.add_callback(wake):
        wake()
    return wake


def unlink(item: Any, hub: Any, linked: Callable[..., object]) -> None:
    """Remove the callback for which `link` returned *linked*."""
    if hub is None and isinstance(item, Result):
        item.drop_callback(linked)
    else:
        item.unlink(linked)
