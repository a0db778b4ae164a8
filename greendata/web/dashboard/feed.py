"""One snapshot a second, for any number of viewers.

Snapshots are made on request. The first request after the last snapshot is a second old makes the next one, and all
other requests get its bytes. So there is no work without viewers, and each further viewer costs one write a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from time import monotonic

import gevent

from greendata.hub import native
from greendata.hub.contexts import contextmanager
from greendata.internals.gevent import get_hub_if_exists
from greendata.observe.stats import Stats, snapshot_json, stats
from greendata.pool import pool
from greendata.web.dashboard.state import state_json

__all__ = ("Feed", "shared")

SECOND = 1.0  # seconds between two snapshots
STREAM = 300.0  # seconds until a viewer must connect again, and be authorized again
RETRY = 500  # milliseconds until it connects again
LEAST = 0.001  # seconds: a timer may fire that much early


class Feed:
    """The snapshots of this process, of which the last is kept. The process has one feed, `shared`.

    Attributes:
        viewers: the number of open streams.
        made: the number of snapshots so far.

    Safe from any thread.

    Example:
        >>> feed = Feed()
        >>> feed.state() is feed.state(), feed.made
        (True, 1)
    """

    def __init__(self, interval: float = SECOND) -> None:
        self.interval = interval
        self._begin()

    def _begin(self) -> None:
        self._lock = native.RLock()  # guards all attributes below; no greenlet switch happens under it
        self.viewers = 0
        self.made = 0
        self._made_at = -self.interval  # on the monotonic clock
        self._stats: Stats | None = None
        self._state: bytes | None = None  # made from these stats on request
        self._snapshot: bytes | None = None  # made from these stats on request
        self._pid = os.getpid()  # set last: another thread of a child that sees it uses the new lock

    def state(self) -> bytes:
        """Return the state that the page shows, at most a second old."""
        with self._latest() as now:
            if self._state is None:
                text = state_json(now, pool.shared.settings, viewers=self.viewers)
                self._state = text.encode()
            return self._state

    def snapshot(self) -> bytes:
        """Return `greendata.observe.snapshot_json`, at most a second old."""
        with self._latest() as now:
            if self._snapshot is None:
                self._snapshot = snapshot_json(now).encode()
            return self._snapshot

    def follow(self, is_over: Callable[[], bool]) -> Generator[bytes, None, None]:
        """Yield a server-sent event each second, until *is_over* returns True or the time is up.

        Closing or dropping the generator removes the viewer.
        """
        ends = monotonic() + STREAM
        with self._viewer():
            yield b"retry: %d\n\n" % RETRY
            while monotonic() < ends and not is_over():
                sent = self.state()
                yield b"data: %b\n\n" % sent
                while self.state() is sent:
                    _pause(max(LEAST, self._made_at + self.interval - monotonic()))

    @contextmanager
    def _latest(self) -> Iterator[Stats]:
        """Yield stats that are at most a second old, under the lock."""
        self._check_process()
        with self._lock:
            if self._stats is None or monotonic() - self._made_at >= self.interval:
                self._stats, self._state, self._snapshot = stats(), None, None
                self._made_at = monotonic()
                self.made += 1
            yield self._stats

    @contextmanager
    def _viewer(self) -> Iterator[None]:
        self._check_process()
        with self._lock:
            self.viewers += 1
        try:
            yield
        finally:
            with self._lock:
                self.viewers -= 1

    def _check_process(self) -> None:
        """Reset in a forked child: the viewers are the parent's, and its lock may be held forever."""
        if self._pid != os.getpid():
            self._begin()


def _pause(seconds: float) -> None:
    if get_hub_if_exists() is None:  # a server of plain threads
        native.sleep(seconds)
    else:
        gevent.sleep(seconds)


shared = Feed()
