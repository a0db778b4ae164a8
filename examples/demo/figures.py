"""What the parts hand to each other: a load, its outcome, the hub's silences, and the figures read from them.

Every moment is a second of CLOCK_MONOTONIC, which all processes of one machine share.
"""

__all__ = ("DemoError", "Load", "Outcome", "Run", "Silence", "Span", "quantile")

import math
from collections.abc import Sequence
from dataclasses import dataclass


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is put on a server: closed loops of reports, and of pings with a pause between two."""

    seconds: float = 7.0
    warmup: float = 1.0  # seconds of the same load before anything counts
    report_clients: int = 4
    ping_clients: int = 2
    report_path: str = "/report"
    ping_path: str = "/ping"
    ping_pause: float = 0.01  # seconds; pings probe the server and should not be its work


@dataclass(frozen=True, slots=True)
class Span:
    """One request of one client, from before it was sent until its answer was read."""

    client: int
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the clients saw between `began` and `ended`: every request that shares a moment with that window."""

    began: float
    ended: float
    pings: tuple[Span, ...]
    reports: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def ping_seconds(self, share: float) -> float:
        """The latency that `share` of the pings did not exceed; 1.0 asks for the worst.

        A client sends its next ping after the answer to its last, so a silent server is asked less often: this errs in
        favour of the server that blocks.
        """
        return quantile([ping.seconds for ping in self.pings], share)

    @property
    def reports_per_second(self) -> float:
        """Reports by the share of each that lay within the window: whole ones would be too few to compare."""
        return sum(self._share_within(report) for report in self.reports) / self.seconds

    def _share_within(self, span: Span) -> float:
        within = min(span.ended, self.ended) - max(span.began, self.began)
        return max(within, 0.0) / span.seconds


@dataclass(frozen=True, slots=True)
class Silence:
    """The hub should have woken a greenlet at `due`, and did so at `woke`."""

    due: float
    woke: float

    @property
    def seconds(self) -> float:
        return self.woke - self.due


@dataclass(frozen=True, slots=True)
class Run:
    """One server under one load: what its clients saw, and what its hub did meanwhile."""

    name: str
    outcome: Outcome
    silences: tuple[Silence, ...]

    @property
    def longest_silence(self) -> float:
        """Seconds; of the silences that touch the window."""
        touching = (s.seconds for s in self.silences if s.woke > self.outcome.began and s.due < self.outcome.ended)
        return max(touching, default=0.0)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed.

    >>> quantile([5.0, 1.0, 3.0], 0.5)
    3.0
    """
    if not values:
        raise ValueError("no values: expected one at least")
    rank = math.ceil(len(values) * share)
    return sorted(values)[max(rank, 1) - 1]
