"""`Channel`: a bounded queue between greenlets of one hub, and the other doors at which they wait.

All greenlets of a pipeline run on one hub's thread and switch only where they wait, so nothing here takes a lock.
A greenlet that finds elements takes them without a switch, and one that has to wait for room sleeps until half of
the room is free: trivial functions move runs of elements, and slow ones hold nothing that another could work on.
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
    "Window",
    "YieldTimer",
    "clock",
)

clock = perf_counter

Waiting = deque["Waiter[object]"]


class Stopped(GreenletExit):
    """The pipeline has ended; whoever waits at one of its doors leaves."""


class WaitQueue:
    """A place where greenlets of *hub* wait. Call from the hub's thread."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._is_stopped = False

    def stop(self) -> None:
        """Send everybody away who waits here, or comes to wait, with `Stopped`."""
        self._is_stopped = True

    def _wait_in(self, waiting: Waiting) -> None:
        if self._is_stopped:
            raise Stopped
        waiter: Waiter[object] = Waiter(self._hub)
        waiting.append(waiter)
        try:
            waiter.get()
        finally:
            with suppress(ValueError):  # whoever woke it has removed it
                waiting.remove(waiter)
        if self._is_stopped:
            raise Stopped

    def _wake(self, waiting: Waiting, count: int) -> None:
        for _ in range(min(count, len(waiting))):
            self._hub.loop.run_callback(waiting.popleft().switch, None)


class Channel(WaitQueue):
    """A bounded queue of elements that ends when its last producer has left.

    The fields are public for the loops that move elements; they put and take without a call where they can.

    Args:
        maxsize: elements that may wait in it; 0 for no bound.
    """

    def __init__(self, hub: Any, maxsize: int) -> None:
        super().__init__(hub)
        self.items: deque[Item] = deque()
        self.room = maxsize or sys.maxsize
        self.low = maxsize // 2  # so many left: time to wake those who wait for room
        self.takers: Waiting = deque()
        self.putters: Waiting = deque()
        self._producers = 0

    def join(self, count: int = 1) -> None:
        """Announce producers. Each has to `leave`."""
        self._producers += count

    def leave(self) -> None:
        """One producer is done; after the last the channel ends."""
        self._producers -= 1
        if not self._producers:
            self._wake(self.takers, len(self.takers))

    def put(self, item: Item) -> None:
        """Append *item*, once there is room."""
        if len(self.items) >= self.room:
            self.wait_for_room()
        self.items.append(item)
        if self.takers:
            self.wake_taker()

    def wait_for_room(self) -> None:
        """Return when there is room."""
        while len(self.items) >= self.room:
            self._wait_in(self.putters)

    def wake_taker(self) -> None:
        """Tell one who waits that there is an element."""
        self._wake(self.takers, 1)

    def wake_putters(self) -> None:
        """Tell those who wait for room that there is some."""
        self._wake(self.putters, self.room - len(self.items))

    def drain(self) -> Iterator[Item]:
        """What comes, until the end. Each consumer has its own iterator."""
        items, putters, low = self.items, self.putters, self.low
        pop = items.popleft
        while items or self._wait_for_item():
            item = pop()
            if putters and len(items) <= low:
                self.wake_putters()
            yield item

    def stop(self) -> None:
        """Forget what waits in the channel, and send everybody away."""
        super().stop()
        self.items.clear()
        self._wake(self.takers, len(self.takers))
        self._wake(self.putters, len(self.putters))

    def _wait_for_item(self) -> bool:
        """True when there is an element, False at the end."""
        while not self.items:
            if self._is_stopped:
                raise Stopped
            if not self._producers:
                return False
            self._wait_in(self.takers)
        return True


class Window(WaitQueue):
    """How far the numbering of elements may be ahead of the place that puts them in order.

    Args:
        size: elements that may be under way between the two.
    """

    def __init__(self, hub: Any, size: int) -> None:
        super().__init__(hub)
        self.size = size
        self._passed = 0
        self._wake_at = 0
        self._waiting: Waiting = deque()

    def admit(self, number: int) -> None:
        """Return when element *number* may set out."""
        while number >= self._passed + self.size:
            self._wake_at = number - self.size // 2
            self._wait_in(self._waiting)

    def advance(self) -> None:
        """One more element has passed, in order."""
        self._passed += 1
        if self._waiting and self._passed >= self._wake_at:
            self._wake(self._waiting, len(self._waiting))

    def stop(self) -> None:
        """Send everybody away."""
        super().stop()
        self._wake(self._waiting, len(self._waiting))


class TicketLock(WaitQueue):
    """Lets those with a ticket through one after the other."""

    def __init__(self, hub: Any) -> None:
        super().__init__(hub)
        self._tickets = 0
        self._turn = 0
        self._waiting: Waiting = deque()

    def draw(self) -> int:
        """The next ticket."""
        self._tickets += 1
        return self._tickets - 1

    def is_turn(self, ticket: int) -> bool:
        """True for the one ticket whose turn it is."""
        return ticket == self._turn

    def wait(self, ticket: int) -> None:
        """Return when it is the turn of *ticket*."""
        while ticket != self._turn:
            self._wait_in(self._waiting)

    def advance(self) -> None:
        """The next one's turn."""
        self._turn += 1
        self._wake(self._waiting, len(self._waiting))

    def stop(self) -> None:
        """Send everybody away."""
        super().stop()
        self._wake(self._waiting, len(self._waiting))


class YieldTimer:
    """When the greenlets of this hub's pipelines have to let the loop poll: `BUDGET` after it did so last.

    One for a hub, shared by its pipelines: thirteen greenlets with a budget of their own would be thirteen
    budgets of silence. Call from the hub's thread.
    """

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.due = 0.0  # on `clock`; the loops of the workers compare
        self._users = 0
        self._polls = hub.loop.check(ref=False)

    @classmethod
    def here(cls, hub: Any) -> YieldTimer:
        """The pace of *hub*, which is this thread's."""
        pace: YieldTimer | None = getattr(_local, "pace", None)
        if pace is None or pace.hub is not hub:
            pace = _local.pace = cls(hub)
        return pace

    def join(self) -> None:
        """A pipeline starts."""
        self.due = clock() + BUDGET
        if not self._users:
            self._polls.start(self._has_polled)
        self._users += 1

    def leave(self) -> None:
        """A pipeline has ended."""
        self._users -= 1
        if not self._users:
            self._polls.stop()

    def rest(self) -> None:
        """Let the loop poll."""
        breathe()
        self._has_polled()

    def _has_polled(self) -> None:
        self.due = clock() + BUDGET


_local = native.Local()  # one pace a thread, its own
