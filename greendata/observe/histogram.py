"""`Histogram`: how many durations fell into which bucket, in the shape that Prometheus and OpenTelemetry know."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

__all__ = ("BOUNDS", "Durations", "Histogram")

# Seconds. What OpenTelemetry advises for database clients (db.client.operation.duration), and a minute for reports.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, counted by bucket.

    Attributes:
        counts: one for each of `BOUNDS`: durations up to it, and above the bound before; the last one is for those
            above all bounds.
        total: seconds, of all durations together.

    Example:
        >>> histogram = Durations([0.002, 0.003, 0.02]).histogram()
        >>> histogram.count, histogram.quantile(0.5)
        (3, 0.005)
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    total: float = 0.0

    @property
    def count(self) -> int:
        """How many durations there are."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Seconds; 0.0 where there are no durations."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The least bound that *share* of the durations do not exceed; inf above the last, 0.0 without durations."""
        needed, seen = share * self.count, 0
        for bound, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= needed and seen:
                return bound
        return 0.0


class Durations:
    """A histogram that grows. Its owner says who may touch it."""

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
        """As it is now."""
        return Histogram(tuple(self.counts), self.total)
