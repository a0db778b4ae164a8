"""The mailbox of a hub: what any thread may leave there is done on the hub's thread, in the order it came."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from greendata.hub import native
from greendata.hub.hubs import ensure_hub, weakly
from greendata.hub.waker import TURN, HubWaker
from greendata.internals.gevent import get_hub_if_exists

__all__ = ("EntryQueue",)

_A_MOMENT = 1e-6  # seconds: a timer, so that the loop polls before the rest; its length is of no account


class EntryQueue:
    """Callables for one hub, first in first out, whether they come from its own thread or from another.

    Its being there does not hold the loop open; whoever waits for an answer from another thread does.

    Example:
        >>> import greendata
        >>> here = EntryQueue.here()
        >>> said = []
        >>> greendata.run(here.post, lambda: said.append("done on the hub's thread")).get(timeout=5)
        >>> greendata.run(len, said).get(timeout=5)
        1
    """

    __slots__ = ("__weakref__", "_due", "_letters", "_number", "_rest", "_waker", "hub", "thread")

    def __init__(self, hub: Any) -> None:
        self.hub = hub  # any thread reads; set once
        self.thread = native.this_thread_name() or "hub"  # likewise
        self._letters: deque[Callable[[], object]] = deque()  # any thread appends, hub's thread pops
        self._waker = HubWaker.here(hub)
        self._number = self._waker.listen(self._deliver)
        self._due: Any = None  # the last delivery that was scheduled; hub's thread only
        self._rest: Any = None  # the timer that brings the rest; hub's thread only

    @classmethod
    def here(cls) -> EntryQueue:
        """The mailbox of the calling thread's hub, which is made if there is none."""
        hub = ensure_hub()
        box: EntryQueue | None = getattr(_local, "entry_queue", None)
        if box is None or box.hub is not hub:
            box = _local.entry_queue = cls(hub)
        return box

    @property
    def waker(self) -> HubWaker:
        """The doorbell of the same hub."""
        return self._waker

    @property
    def is_here(self) -> bool:
        """True on the thread of this hub. Safe from any thread."""
        return get_hub_if_exists() is self.hub

    @property
    def is_gone(self) -> bool:
        """True if the hub was destroyed. Safe from any thread."""
        return self.hub.loop is None

    @property
    def is_empty(self) -> bool:
        """True if all that was posted has been called, or is being called. Safe from any thread."""
        return not self._letters

    def post(self, letter: Callable[[], object]) -> None:
        """Have the hub call *letter*, which must not wait. Safe from any thread; never blocks.

        If the hub is gone, nothing happens.
        """
        self._letters.append(letter)
        if self.is_gone:
            self._letters.clear()
        elif not self.is_here:
            self._waker.notify(self._number)
        elif self._due is None or not self._due.pending:
            self._due = self.hub.loop.run_callback(self._deliver)

    def _deliver(self) -> None:
        letters = self._letters
        turn_ends = monotonic() + TURN
        try:
            while letters and monotonic() < turn_ends:
                letters.popleft()()
        finally:
            if letters:  # not the doorbell: with nothing else to wait for, the loop would end before it rings
                self._rest = self.hub.loop.timer(_A_MOMENT)
                self._rest.start(weakly(self._deliver))

    def __repr__(self) -> str:
        return f"<EntryQueue of {self.hub!r}: {len(self._letters)} letters>"


def _after_fork_in_child() -> None:
    _local.__dict__.clear()  # the bridge has forgotten its numbers


_local = native.Local()  # one mailbox a thread, its own
os.register_at_fork(after_in_child=_after_fork_in_child)
