"""Hub lag: how late the hub serves its timers, and so everything else.

A probe is a repeating timer, which the hub's loop serves like any other. So the lag shows a greenlet that computes, a
native call that holds the GIL, or too many callbacks in one iteration of the loop. A tick costs 3 us; at the default
interval that is 0.01 percent of a core. A probe does not keep the loop running: a process that waits for nothing else
ends.
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

INTERVAL = 0.05  # seconds; a shorter block is noticed with a probability in proportion to its length
LEAST, MOST = 0.01, 0.05  # bounds of the interval, in seconds
SAMPLES = 1_200  # number of samples kept: a minute at 50 ms


class LagProbe(Closing):
    """Measure the hub of the thread that creates it, from `start` to `close`; see `watch_lag`.

    Attributes:
        interval: seconds between two measurements.
        hub: the hub that is measured.
        last_tick: the time of the last measurement, on `time.monotonic`'s clock. Any thread may read it.

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
        self.last_tick = monotonic()  # the hub's thread writes
        self._samples: deque[float] = deque(maxlen=SAMPLES)  # the hub's thread appends
        self._callbacks: list[Callable[[float], object]] = []  # hub's thread only
        self._timer: Any = None  # hub's thread only

    @property
    def is_on(self) -> bool:
        """True between `start` and `close`."""
        return self._timer is not None

    @property
    def last(self) -> float:
        """The last sample in seconds; 0.0 before the first."""
        return self._samples[-1] if self._samples else 0.0

    def samples(self) -> tuple[float, ...]:
        """Return the last `SAMPLES` lags in seconds, the oldest first."""
        return tuple(self._samples.copy())

    def worst(self, seconds: float) -> float:
        """Return the worst lag of the last *seconds*, up to a minute at the default interval; 0.0 without samples."""
        count = max(1, round(seconds / self.interval))
        return max(self.samples()[-count:], default=0.0)

    def start(self) -> None:
        """Start measuring. Idempotent."""
        if self._timer is None:
            self._timer = self.hub.loop.timer(self.interval, self.interval, ref=False)
        if not self._timer.active:
            self.last_tick = monotonic()
            self._timer.start(self._tick, update=True)

    def close(self) -> None:
        """Stop measuring. Idempotent."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def on_tick(self, callback: Callable[[float], object]) -> None:
        """Call *callback* with each lag in seconds. It runs in the hub itself and must not wait."""
        self._callbacks.append(callback)

    def off_tick(self, callback: Callable[[float], object]) -> None:
        """Remove *callback*."""
        self._callbacks.remove(callback)

    def _tick(self) -> None:
        now = monotonic()
        lag = max(0.0, now - self.last_tick - self.interval)
        self.last_tick = now
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
    """Return a running probe of the calling thread's hub. Close it, or use it in a ``with`` block.

    Args:
        interval: seconds, from 0.01 to 0.05.

    Raises:
        BadArgument: *interval* is not within these bounds.

    Example:
        >>> with watch_lag() as probe:
        ...     probe.is_on
        True
    """
    probe = LagProbe(interval)
    probe.start()
    return probe
