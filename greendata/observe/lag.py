"""Hub lag: how much later than due the hub gets to its timers, which is how late it gets to everything.

A probe is one timer that repeats. The hub's loop serves it like any other, so a greenlet that computes, a native
call that keeps the GIL, or too many callbacks in a turn show as lag. It costs 3 us a tick: at the default interval
0.01 percent of a core. It does not hold the loop open: a process with nothing else to wait for ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from greendata.errors import BadArgument
from greendata.hub.checks import is_number
from greendata.hub.closing import Closing
from greendata.hub.hubs import ensure_hub

__all__ = ("LagProbe", "watch_lag")

INTERVAL = 0.05  # seconds; a silence shorter than that is seen at the share of its length
LEAST, MOST = 0.01, 0.05  # seconds of the interval
SAMPLES = 1_200  # that are kept: a minute at 50 ms


class LagProbe(Closing):
    """Measures the hub of the thread that makes it, from `start` to `close`; see `watch_lag`.

    Attributes:
        interval: seconds between two measurements.
        hub: whose lag it is.
        beat: when the last measurement was, on `time.monotonic`'s clock. Any thread may read it.

    Methods are for the hub's thread; `samples`, `last` and `worst` are safe from any thread.

    Example:
        >>> import gevent
        >>> probe = LagProbe(0.01)
        >>> probe.start()
        >>> while not probe.samples():
        ...     gevent.sleep(0.01)
        >>> probe.last >= 0.0
        True
        >>> probe.close()
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        if not is_number(interval, LEAST, MOST):
            raise BadArgument("interval", interval, f"a number of seconds from {LEAST} to {MOST}")
        self.interval = interval
        self.hub = ensure_hub()
        self.beat = monotonic()  # the hub's thread writes
        self._samples: deque[float] = deque(maxlen=SAMPLES)  # likewise
        self._callbacks: list[Callable[[float], object]] = []  # hub's thread only
        self._timer: Any = None  # likewise

    @property
    def is_on(self) -> bool:
        """True between `start` and `close`."""
        return self._timer is not None

    @property
    def last(self) -> float:
        """The last sample in seconds; 0.0 before the first."""
        return self._samples[-1] if self._samples else 0.0

    def samples(self) -> tuple[float, ...]:
        """The last `SAMPLES` lags in seconds, the oldest first."""
        return tuple(self._samples.copy())

    def worst(self, seconds: float) -> float:
        """The worst lag of the last *seconds*, up to a minute at the default interval; 0.0 without samples."""
        count = max(1, round(seconds / self.interval))
        return max(self.samples()[-count:], default=0.0)

    def start(self) -> None:
        """Begin to measure. Idempotent."""
        if self._timer is None:
            self._timer = self.hub.loop.timer(self.interval, self.interval, ref=False)
        if not self._timer.active:
            self.beat = monotonic()
            self._timer.start(self._tick, update=True)

    def close(self) -> None:
        """Measure no more. Idempotent."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def on_beat(self, callback: Callable[[float], object]) -> None:
        """Have the hub itself call *callback*, which must not wait, with each lag in seconds."""
        self._callbacks.append(callback)

    def off_beat(self, callback: Callable[[float], object]) -> None:
        """Take *callback* back."""
        self._callbacks.remove(callback)

    def _tick(self) -> None:
        now = monotonic()
        lag = max(0.0, now - self.beat - self.interval)
        self.beat = now
        self._timer.again(self._tick, update=True)  # due an interval from now, not from when this one was due
        self._samples.append(lag)
        for callback in tuple(self._callbacks):
            callback(lag)

    def __enter__(self) -> LagProbe:
        self.start()
        return self

    def __repr__(self) -> str:
        state = "on" if self.is_on else "off"
        return f"<LagProbe of {self.hub!r}: {state}, last {self.last * 1000:.1f} ms>"


def watch_lag(interval: float = INTERVAL) -> LagProbe:
    """A probe that measures the calling thread's hub already; close it, or leave its block.

    Args:
        interval: seconds, from 0.01 to 0.05.

    Raises:
        BadArgument: an *interval* out of these bounds.

    Example:
        >>> with watch_lag() as probe:
        ...     probe.is_on
        True
    """
    probe = LagProbe(interval)
    probe.start()
    return probe
