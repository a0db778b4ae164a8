"""`EntryQueue`: callables that any thread may post, and that a hub calls in its own thread, in the order they came."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from greenlet import GreenletExit

from greendata.hub import native
from greendata.hub.hubs import HubBound, Timer, ensure_hub, poll_delay
from greendata.hub.waker import TURN, HubWaker, call_twice_if_interrupted

__all__ = ("EntryQueue",)


class EntryQueue(HubBound):
    """Callables for one hub, first in first out, whether they are posted in its own thread or in another.

    The queue does not hold the loop open. A greenlet that waits for another thread has to do so.

    Example:
        >>> import greendata
        >>> here = EntryQueue.here()
        >>> called = []
        >>> greendata.run(here.post, lambda: called.append("in the hub's thread")).get(timeout=5)
        >>> greendata.run(len, called).get(timeout=5)
        1
    """

    __slots__ = ("__weakref__", "_entries", "_number", "_scheduled", "_timer", "_waker", "thread")

    def __init__(self, hub: Any) -> None:
        self.hub = hub  # any thread reads; set once
        self.thread = native.this_thread_name() or "hub"  # any thread reads; set once
        self._entries: deque[Callable[[], object]] = deque()  # any thread appends, hub's thread pops
        self._waker = HubWaker.here(hub)
        self._number = self._waker.listen(self._deliver)
        self._scheduled: Any = None  # the last delivery that the hub's own thread scheduled; hub's thread only
        self._timer: Timer | None = None  # continues an interrupted delivery; hub's thread only

    @classmethod
    def here(cls) -> EntryQueue:
        """Return the queue of the calling thread's hub. Create the hub if there is none."""
        hub = ensure_hub()
        queue: EntryQueue | None = getattr(_local, "entry_queue", None)
        if queue is None or queue.hub is not hub:
            queue = _local.entry_queue = cls(hub)
        return queue

    @property
    def waker(self) -> HubWaker:
        """The `HubWaker` of the same hub."""
        return self._waker

    @property
    def is_empty(self) -> bool:
        """True if everything that was posted has been called, or is being called. Safe from any thread."""
        return not self._entries

    def post(self, callback: Callable[[], object]) -> None:
        """Make the hub call *callback* in the hub's thread. Safe from any thread; never blocks.

        *callback* must not wait. If it raises, it is called a second time, as by `HubWaker`. The calling thread
        appends it and notifies the hub. In the hub's own thread it is scheduled as a callback of the loop, so it never
        runs inside this call. If the hub was destroyed, nothing happens.
        """
        try:
            self._entries.append(callback)
            self._announce()
        except BaseException:  # a signal handler raised at some step: the hub may not have heard of it
            self._announce()
            raise

    def _announce(self) -> None:
        """Make the hub call what is in the queue. Any thread."""
        if self.is_gone:
            self._entries.clear()
        elif not self.is_here:
            self._waker.notify(self._number)
        elif self._scheduled is None or not self._scheduled.pending:
            self._scheduled = self.hub.loop.run_callback(self._deliver)

    def _deliver(self) -> None:
        entries = self._entries
        slice_ends = monotonic() + TURN
        try:
            while entries and monotonic() < slice_ends:
                call_twice_if_interrupted(entries[0], self.hub)
                if entries:  # else the hub was destroyed meanwhile
                    entries.popleft()  # after its call, as in `HubWaker`
        except GreenletExit:  # the hub is being destroyed, perhaps by a greenlet that an entry has resumed
            entries.clear()
            raise
        finally:
            if entries:  # not a notify: a loop with nothing else to wait for would end before it
                self._timer = Timer(self.hub, poll_delay(self.hub.loop), self._deliver, ref=True, update=False)

    def __repr__(self) -> str:
        return f"<EntryQueue of {self.hub!r}: {len(self._entries)} entries>"


def _after_fork_in_child() -> None:
    _local.__dict__.clear()  # the waker has forgotten its numbers


_local = native.Local()  # the queue of each thread's hub
os.register_at_fork(after_in_child=_after_fork_in_child)
