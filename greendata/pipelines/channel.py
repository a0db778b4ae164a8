"""`Channel`, a bounded queue between greenlets of one hub, and the other objects at which they wait.

All greenlets of a pipeline run on one hub's thread and switch only where they wait, so nothing here takes a lock.

A consumer takes the elements that are present without a greenlet switch. A producer that finds the channel full
sleeps until half of it is free. So fast functions move many elements for each switch, and slow functions do not hold
elements that another worker could process.

    producers ──put──► Channel (maxsize) ──drain──► consumers
       wait in `putters` while it is full      wait in `takers` while it is empty
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any

from gevent.hub import Waiter
from greenlet import GreenletExit

from greendata.hub import native
from greendata.hub.pacing import BUDGET, breathe
from greendata.pipelines.element import Item

__all__ = (
    "Channel",
    "Stopped",
    "TicketLock",
    "WaitQueue",
    "Waiting",
    "Window",
    "YieldTimer",
    "clock",
)

clock = perf_counter

Waiting = deque["Waiter[object]"]


class Stopped(GreenletExit):
    """The pipeline has ended. Raised in every greenlet that waits in one of its queues."""


class WaitQueue:
    """A queue in which greenlets of *hub* wait. Call from the hub's thread."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._is_stopped = False

    def stop(self) -> None:
        """Raise `Stopped` in every greenlet that waits here, or tries to wait here later."""
        self._is_stopped = True

    def _wait_in(self, waiting: Waiting) -> None:
        if self._is_stopped:
            raise Stopped
        waiter: Waiter[object] = Waiter(self._hub)
        waiting.append(waiter)
        try:
            waiter.get()
        finally:
            with suppress(ValueError):  # the greenlet that woke it has removed it
                waiting.remove(waiter)
        if self._is_stopped:
            raise Stopped

    def _wake(self, waiting: Waiting, count: int) -> None:
        for _ in range(min(count, len(waiting))):
            self._hub.loop.run_callback(waiting.popleft().switch, None)


class Channel(WaitQueue):
    """A bounded queue of elements that ends when its last producer has left.

    The fields are public because the loops that move elements put and take without a method call where they can.

    Args:
        maxsize: elements that may wait in it; 0 for no limit.
    """

    def __init__(self, hub: Any, maxsize: int) -> None:
        super().__init__(hub)
        self.items: deque[Item] = deque()
        self.capacity = maxsize or sys.maxsize
        self.wake_putters_at = maxsize // 2  # length at which waiting producers are woken
        self.takers: Waiting = deque()
        self.putters: Waiting = deque()
        self._producers = 0

    def join(self, count: int = 1) -> None:
        """Register *count* producers. Each of them has to call `leave`."""
        self._producers += count

    def leave(self) -> None:
        """Unregister one producer. The channel ends with the last one."""
        self._producers -= 1
        if not self._producers:
            self._wake(self.takers, len(self.takers))

    def put(self, item: Item) -> None:
        """Append *item*; wait while the channel is full."""
        if len(self.items) >= self.capacity:
            self.wait_until_not_full()
        self.items.append(item)
        if self.takers:
            self.wake_taker()

    def wait_until_not_full(self) -> None:
        """Wait until the channel is not full."""
        while len(self.items) >= self.capacity:
            self._wait_in(self.putters)

    def wake_taker(self) -> None:
        """Wake one consumer that waits for an element."""
        self._wake(self.takers, 1)

    def wake_putters(self) -> None:
        """Wake as many waiting producers as there are free places."""
        self._wake(self.putters, self.capacity - len(self.items))

    def drain(self) -> Iterator[Item]:
        """Yield the elements until the channel ends. Each consumer needs a separate iterator."""
        items, putters, wake_putters_at = self.items, self.putters, self.wake_putters_at
        pop = items.popleft
        while items or self._wait_for_item():
            item = pop()
            if putters and len(items) <= wake_putters_at:
                self.wake_putters()
            yield item

    def stop(self) -> None:
        """Discard the elements in the channel, and raise `Stopped` in the greenlets that wait."""
        super().stop()
        self.items.clear()
        self._wake(self.takers, len(self.takers))
        self._wake(self.putters, len(self.putters))

    def _wait_for_item(self) -> bool:
        """Wait for an element. Return False if the channel has ended."""
        while not self.items:
            if self._is_stopped:
                raise Stopped
            if not self._producers:
                return False
            self._wait_in(self.takers)
        return True


class Window(WaitQueue):
    """A limit on how far the numbering of elements may be ahead of the stage that puts them in order.

    Args:
        size: elements that may be between the two.
    """

    def __init__(self, hub: Any, size: int) -> None:
        super().__init__(hub)
        self.size = size
        self._passed = 0
        self._wake_at = 0
        self._waiting: Waiting = deque()

    def admit(self, number: int) -> None:
        """Wait until element *number* may enter."""
        while number >= self._passed + self.size:
            self._wake_at = number - self.size // 2
            self._wait_in(self._waiting)

    def advance(self) -> None:
        """Count one more element that has passed in order."""
        self._passed += 1
        if self._waiting and self._passed >= self._wake_at:
            self._wake(self._waiting, len(self._waiting))

    def stop(self) -> None:
        """Raise `Stopped` in the greenlets that wait."""
        super().stop()
        self._wake(self._waiting, len(self._waiting))


class TicketLock(WaitQueue):
    """A lock that greenlets acquire in the order of their tickets."""

    def __init__(self, hub: Any) -> None:
        super().__init__(hub)
        self._tickets = 0
        self._turn = 0
        self._waiting: Waiting = deque()

    def draw(self) -> int:
        """Return the next ticket."""
        self._tickets += 1
        return self._tickets - 1

    def is_turn(self, ticket: int) -> bool:
        """Return True if it is the turn of *ticket*."""
        return ticket == self._turn

    def wait(self, ticket: int) -> None:
        """Wait for the turn of *ticket*."""
        while ticket != self._turn:
            self._wait_in(self._waiting)

    def advance(self) -> None:
        """Pass the turn to the next ticket."""
        self._turn += 1
        self._wake(self._waiting, len(self._waiting))

    def stop(self) -> None:
        """Raise `Stopped` in the greenlets that wait."""
        super().stop()
        self._wake(self._waiting, len(self._waiting))


class YieldTimer:
    """Decide when the greenlets of a hub's pipelines have to let the loop poll: `BUDGET` seconds after the last time.

    All pipelines of a hub share one timer. With a timer for each greenlet, thirteen greenlets could block the hub for
    thirteen budgets. Call from the hub's thread.
    """

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.due = 0.0  # on `clock`; the loops of the workers compare it with the time
        self._users = 0
        self._polls = hub.loop.check(ref=False)

    @classmethod
    def here(cls, hub: Any) -> YieldTimer:
        """Return the timer of *hub*, which must be the hub of the calling thread."""
        timer: YieldTimer | None = getattr(_local, "timer", None)
        if timer is None or timer.hub is not hub:
            timer = _local.timer = cls(hub)
        return timer

    def join(self) -> None:
        """Register a pipeline that starts."""
        self.due = clock() + BUDGET
        if not self._users:
            self._polls.start(self._has_polled)
        self._users += 1

    def leave(self) -> None:
        """Unregister a pipeline that has ended."""
        self._users -= 1
        if not self._users:
            self._polls.stop()

    def yield_now(self) -> None:
        """Switch to the hub and let its loop poll."""
        breathe()
        self._has_polled()

    def _has_polled(self) -> None:
        self.due = clock() + BUDGET


_local = native.Local()  # the timer of each thread
