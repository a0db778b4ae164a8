"""Observe a process: its jobs by label, its hub's lag, and the last minutes of both second by second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import time

from greendata.observe.counters import Recorder
from greendata.observe.lag import INTERVAL, LagProbe
from greendata.pool import pool

__all__ = ("Observer", "Second", "current", "start", "stop")

HISTORY = 300  # seconds that are kept, for a page to show


@dataclass(frozen=True, slots=True)
class Second:
    """One second of the history, or a little more.

    Attributes:
        at: the end of the second, in seconds since 1970.
        lag: the worst lag of the hub in that second, in seconds.
        queued, running: the number of jobs at its end.
    """

    at: float
    lag: float
    queued: int
    running: int


class Observer:
    """A recorder of jobs, a probe of the hub, and their history. `start` makes the one observer of the process.

    Attributes:
        recorder: the recorder of finished jobs.
        probe: the lag probe of the hub of the thread that created the observer.

    Call from the hub's thread; `history` is safe from any thread.
    """

    def __init__(self, interval: float, *, keep_texts: bool) -> None:
        self.probe = LagProbe(interval)
        self.recorder = Recorder(keep_texts=keep_texts)
        self._seconds: deque[Second] = deque(maxlen=HISTORY)  # the hub's thread writes
        self._worst = 0.0  # lag since the last entry; hub's thread only
        self._callbacks: list[Callable[[Second], object]] = []  # hub's thread only
        self.probe.on_tick(self._on_tick)
        self.probe.start()
        self.recorder.start()

    def history(self) -> tuple[Second, ...]:
        """Return the last `HISTORY` seconds, the oldest first."""
        return tuple(self._seconds.copy())

    def on_second(self, callback: Callable[[Second], object]) -> None:
        """Call *callback* with each second at its end. It runs in the hub itself and must not wait."""
        self._callbacks.append(callback)

    def off_second(self, callback: Callable[[Second], object]) -> None:
        """Remove *callback*, if it is registered."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def stop(self) -> None:
        """Stop recording and measuring. Idempotent."""
        self.recorder.stop()
        self.probe.close()

    def _on_tick(self, lag: float) -> None:
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
    """Start to observe the process: its jobs, and the hub of the calling thread. Idempotent.

    If the process is observed already, the arguments have no effect. `greendata.observe.stats` returns what was
    recorded. Recording costs about 3 us for each job on the hub's thread.

    Args:
        interval: seconds between two measurements of the hub's lag, from 0.01 to 0.05.
        keep_texts: keep the texts of errors, not only their types. A text may quote data.

    Raises:
        BadArgument: *interval* is not within these bounds.

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
    """Stop observing, and discard what was recorded. Idempotent. Call from the thread that called `start`.

    Example:
        >>> stop()
    """
    global _observer
    if _observer is not None:
        _observer.stop()
        _observer = None


def current() -> Observer | None:
    """Return the observer, or None before `start` and after `stop`."""
    return _observer


_observer: Observer | None = None  # written by the thread that calls `start`; read by any thread
