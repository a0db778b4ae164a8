"""The data that the parts exchange: a load, its outcome, the silences of the hub, and figures computed from them.

Every moment is a second of CLOCK_MONOTONIC, which all processes of one machine share.
"""

__all__ = ("DemoError", "Load", "Machine", "Outcome", "Run", "Silence", "Span", "quantile")

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass


class DemoError(Exception):
    """The demo cannot continue; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load on a server: closed loops of reports, and of pings with pauses."""

    seconds: float = 7.0
    warmup: float = 1.0  # seconds of the same load before the measurement
    report_clients: int = 4
    ping_clients: int = 2
    report_path: str = "/report"
    ping_path: str = "/ping"
    ping_pause: float = 0.01  # seconds; pings probe the server and should not load it


@dataclass(frozen=True, slots=True)
class Span:
    """One request of one client, from before it was sent until its response was read."""

    client: int
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Outcome:
    """The requests of the clients that overlap the window between `began` and `ended`."""

    began: float
    ended: float
    pings: tuple[Span, ...]
    reports: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def ping_seconds(self, share: float) -> float:
        """Return the latency that `share` of the pings did not exceed; 1.0 for the worst.

        A client sends its next ping after the response to its last one, so a blocked server gets fewer pings. This
        makes the server that blocks look better than it is.
        """
        return quantile([ping.seconds for ping in self.pings], share)

    @property
    def reports_per_second(self) -> float:
        """Return the number of reports, each counted by its share within the window, because they are few."""
        return sum(self._share_within(report) for report in self.reports) / self.seconds

    def _share_within(self, span: Span) -> float:
        within = min(span.ended, self.ended) - max(span.began, self.began)
        return max(within, 0.0) / span.seconds


@dataclass(frozen=True, slots=True)
class Silence:
    """A delay of the hub: it should have woken a greenlet at `due`, and did so at `woke`."""

    due: float
    woke: float

    @property
    def seconds(self) -> float:
        return self.woke - self.due


@dataclass(frozen=True, slots=True)
class Run:
    """One server under one load: the outcome for its clients, and the silences of its hub."""

    name: str
    outcome: Outcome
    silences: tuple[Silence, ...]

    @property
    def longest_silence(self) -> float:
        """Return the longest silence that overlaps the window, in seconds."""
        touching = (s.seconds for s in self.silences if s.woke > self.outcome.began and s.due < self.outcome.ended)
        return max(touching, default=0.0)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the figures depend on, besides the programs.

    Attributes:
        cores: the cores that this process may use.
        load: the system's load average of the last minute, before the runs: processes that ran or wanted to.
    """

    cores: int
    load: float

    @classmethod
    def current(cls) -> "Machine":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux only
        return cls(cores, os.getloadavg()[0])

    def __str__(self) -> str:
        """Describe the machine.

        >>> print(Machine(2, 0.25)); print(Machine(2, 1.5))
        2 cores, load 0.25 before the runs
        2 cores, load 1.50 before the runs: other programs were busy
        """
        busy = ": other programs were busy" if self.load > self.cores / 2 else ""
        return f"{self.cores} cores, load {self.load:.2f} before the runs{busy}"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that at least `share` of them do not exceed.

    >>> quantile([5.0, 1.0, 3.0], 0.5)
    3.0
    """
    if not values:
        raise ValueError("no values: expected one at least")
    rank = math.ceil(len(values) * share)
    return sorted(values)[max(rank, 1) - 1]
