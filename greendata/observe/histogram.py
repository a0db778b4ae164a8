"""`Histogram`: durations counted by bucket, in the form that Prometheus and OpenTelemetry use."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

__all__ = ("BOUNDS", "Durations", "Histogram")

# Seconds: the bounds that OpenTelemetry advises for database clients (db.client.operation.duration), and a minute.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, counted by bucket.

    Attributes:
        counts: one count for each of `BOUNDS`: the durations up to that bound and above the previous one. The last
            count is for durations above all bounds.
        total: the sum of all durations, in seconds.

    Example:
        >>> histogram = Durations([0.002, 0.003, 0.02]).histogram()
        >>> histogram.count, histogram.quantile(0.5)
        (3, 0.005)
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    total: float = 0.0

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean duration in seconds; 0.0 if there are no durations."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Return the lowest bound that *share* of the durations do not exceed.

        Return inf if that is above the last bound, and 0.0 if there are no durations.
        """
        needed, seen = share * self.count, 0
        for bound, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= needed and seen:
                return bound
        return 0.0


class Durations:
    """A histogram that can be added to. Not thread-safe: the code that holds it has to guard it."""

    __slots__ = ("counts", "total")

    def __init__(self, seconds: list[float] | None = None) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        for duration in seconds or ():
            self.add(duration)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def histogram(self) -> Histogram:
        """Return the current counts."""
        return Histogram(tuple(self.counts), self.total)
