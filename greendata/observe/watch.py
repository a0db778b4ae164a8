"""Watching a process: its jobs by label, its hub's lag, and both second by second for the last minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import time

from greendata.observe.lag import INTERVAL, LagProbe
from greendata.observe.record import Recorder
from greendata.pool import pool

__all__ = ("Observer", "Second", "current", "start", "stop")

HISTORY = 300  # seconds: what a page shows of the past


@dataclass(frozen=True, slots=True)
class Second:
    """One second of the past, or a little more.

    Attributes:
        at: its end, in seconds since 1970.
        lag: the worst lag of the hub in it, in seconds.
        queued, running: jobs at its end.
    """

    at: float
    lag: float
    queued: int
    running: int


class Observer:
    """A recorder of jobs and a probe of the hub, and their history; `start` makes the one of the process.

    Attributes:
        recorder: the books.
        probe: of the hub of the thread that made it.

    Call from the hub's thread; `history` is safe from any thread.
    """

    def __init__(self, interval: float, *, keep_texts: bool) -> None:
        self.probe = LagProbe(interval)
        self.recorder = Recorder(keep_texts=keep_texts)
        self._seconds: deque[Second] = deque(maxlen=HISTORY)  # the hub's thread writes
        self._worst = 0.0  # lag since the last entry; hub's thread only
        self._callbacks: list[Callable[[Second], object]] = []  # likewise
        self.probe.on_beat(self._on_beat)
        self.probe.start()
        self.recorder.start()

    def history(self) -> tuple[Second, ...]:
        """The last `HISTORY` seconds, the oldest first."""
        return tuple(self._seconds.copy())

    def on_second(self, callback: Callable[[Second], object]) -> None:
        """Have the hub itself call *callback*, which must not wait, with each second when it is over."""
        self._callbacks.append(callback)

    def off_second(self, callback: Callable[[Second], object]) -> None:
        """Take *callback* back; nothing happens if it is not there."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def stop(self) -> None:
        """Record and measure no more. Idempotent."""
        self.recorder.stop()
        self.probe.close()

    def _on_beat(self, lag: float) -> None:
        self._worst = max(self._worst, lag)
        now = time()
        if self._seconds and 0.0 <= now - self._seconds[-1].at < 1.0:
            return
        counts = pool.stats()
        second = Second(now, self._worst, counts.queued, counts.running)
        self._seconds.append(second)
        self._worst = 0.0
        for callback in tuple(self._callbacks):
            callback(second)


def start(*, interval: float = INTERVAL, keep_texts: bool = False) -> Observer:
    """Observe the process: its jobs, and the hub of the calling thread. Idempotent: what is on stays as it is.

    `greendata.observe.stats` tells what was seen. Recording costs a job some 3 us on the hub's thread.

    Args:
        interval: seconds between two measurements of the hub's lag, from 0.01 to 0.05.
        keep_texts: keep what errors say, not only their types; it may quote data.

    Raises:
        BadArgument: an *interval* out of these bounds.

    Example:
        >>> start().probe.is_on
        True
        >>> stop()
    """
    global _observer
    if _observer is None:
        _observer = Observer(interval, keep_texts=keep_texts)
    return _observer


def stop() -> None:
    """Observe no more, and forget what was seen. Idempotent. Call from the thread that called `start`.

    Example:
        >>> stop()
    """
    global _observer
    if _observer is not None:
        _observer.stop()
        _observer = None


def current() -> Observer | None:
    """The observer between `start` and `stop`."""
    return _observer


_observer: Observer | None = None  # the thread that starts writes, any thread reads
