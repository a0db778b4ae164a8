"""What a page shows of many queries: quantiles by label, and equal failures in one group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from greendata.observe.counters import Failure, LabelStats, folded
from greendata.observe.histogram import Histogram

__all__ = ("FailureGroup", "LabelSummary", "grouped", "summaries")

SHARES = (0.5, 0.95, 0.99)  # of the quantiles


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures with the same error and the same label, apart from identifiers in it.

    Attributes:
        label: the label if all have the same, otherwise the label with ``*`` in the place of identifiers.
        error: the name of the errors' type.
        count: the number of failures, of those that are kept.
        at: when the last one arrived, in seconds since 1970.
        text: the text of the last one, or None.
    """

    label: str
    error: str
    count: int
    at: float
    text: str | None = None


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """The finished queries of one label, for display.

    Attributes:
        label: the label.
        done, failed, cancelled: the number of queries by outcome.
        run, wait: the times in seconds that 50, 95 and 99 percent of the queries did not exceed, as bounds of the
            histograms' buckets. None stands for more than the last bound, 0.0 for no queries.
    """

    label: str
    done: int
    failed: int
    cancelled: int
    run: tuple[float | None, ...]
    wait: tuple[float | None, ...]


def grouped(failures: Iterable[Failure]) -> tuple[FailureGroup, ...]:
    """Return *failures*, the newest first, with equal ones in one group. The group of the newest is first.

    Example:
        >>> first, second = Failure("export 7", "KeyError", 1.0), Failure("export 8", "KeyError", 2.0)
        >>> grouped([second, first])
        (FailureGroup(label='export *', error='KeyError', count=2, at=2.0, text=None),)
    """
    groups: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((folded(failure.label), failure.error), []).append(failure)
    return tuple(
        FailureGroup(
            label=found[0].label if len({failure.label for failure in found}) == 1 else label,
            error=error,
            count=len(found),
            at=found[0].at,
            text=found[0].text,
        )
        for (label, error), found in groups.items()
    )


def summaries(labels: Mapping[str, LabelStats]) -> tuple[LabelSummary, ...]:
    """Return a summary of each label, the one whose queries ran longest together first.

    Example:
        >>> from greendata.observe.histogram import Durations
        >>> runs, waits = Durations([0.2, 0.3, 70.0]).histogram(), Durations([0.0]).histogram()
        >>> summaries({"report": LabelStats(2, 1, 0, waits, runs)})[0].run
        (0.5, None, None)
    """
    ordered = sorted(labels.items(), key=lambda entry: -entry[1].runs.total)
    return tuple(
        LabelSummary(label, found.done, found.failed, found.cancelled, _quantiles(found.runs), _quantiles(found.waits))
        for label, found in ordered
    )


def _quantiles(histogram: Histogram) -> tuple[float | None, ...]:
    found = (histogram.quantile(share) for share in SHARES)
    return tuple(None if bound == inf else bound for bound in found)
