"""One snapshot a second, for as many viewers as there are.

Nobody makes snapshots in advance. Whoever asks when the last one is a second old makes the next, and all others get
the bytes of that one; so nothing at all is done while nobody looks, and a viewer more costs a write a second.
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
from greendata.web.dashboard.picture import picture

__all__ = ("Feed", "shared")

SECOND = 1.0  # between two snapshots
STREAM = 300.0  # seconds until a viewer is sent to ask again, and to show again that it may
RETRY = 500  # milliseconds until it does
LEAST = 0.001  # seconds: a timer may fire that much early


class Feed:
    """The snapshots of this process, the last of them kept. The process has one, `shared`.

    Attributes:
        viewers: streams that are open.
        made: snapshots so far.

    Safe from any thread.

    Example:
        >>> feed = Feed()
        >>> feed.picture() is feed.picture(), feed.made
        (True, 1)
    """

    def __init__(self, interval: float = SECOND) -> None:
        self.interval = interval
        self._begin()

    def _begin(self) -> None:
        self._lock = native.RLock()  # guards all below; nobody switches greenlets under it
        self.viewers = 0
        self.made = 0
        self._made_at = -self.interval  # on the monotonic clock
        self._stats: Stats | None = None
        self._picture: bytes | None = None  # of these stats, once somebody has asked for it
        self._snapshot: bytes | None = None  # likewise
        self._pid = os.getpid()  # last: another thread of a child that sees it takes the lock that is there

    def picture(self) -> bytes:
        """What the page shows, at most a second old."""
        with self._latest() as now:
            if self._picture is None:
                text = picture(now, pool.shared.settings, viewers=self.viewers)
                self._picture = text.encode()
            return self._picture

    def snapshot(self) -> bytes:
        """`greendata.observe.snapshot_json`, at most a second old."""
        with self._latest() as now:
            if self._snapshot is None:
                self._snapshot = snapshot_json(now).encode()
            return self._snapshot

    def follow(self, is_over: Callable[[], bool]) -> Generator[bytes, None, None]:
        """The pictures as server-sent events, one a second, until *is_over* or the time is.

        Close it, or let go of it, and the viewer is gone.
        """
        ends = monotonic() + STREAM
        with self._viewer():
            yield b"retry: %d\n\n" % RETRY
            while monotonic() < ends and not is_over():
                sent = self.picture()
                yield b"data: %b\n\n" % sent
                while self.picture() is sent:
                    _pause(max(LEAST, self._made_at + self.interval - monotonic()))

    @contextmanager
    def _latest(self) -> Iterator[Stats]:
        """The stats of now or of up to a second ago, under the lock."""
        self._check_process()
        with self._lock:
            if self._stats is None or monotonic() - self._made_at >= self.interval:
                self._stats, self._picture, self._snapshot = stats(), None, None
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
        """Begin anew in a forked child: the viewers are the parent's, and its lock may be held for ever."""
        if self._pid != os.getpid():
            self._begin()


def _pause(seconds: float) -> None:
    if get_hub_if_exists() is None:  # a server of plain threads
        native.sleep(seconds)
    else:
        gevent.sleep(seconds)


shared = Feed()
