"""Count finished queries: outcomes, wait and run times by label, and the last failures.

A query of one job is recorded by the hub that submitted it, when the outcome arrives there and before its waiters
continue. So code that has a result finds it in the counters. A query of several jobs, such as a stream or a
validation, is recorded at its end: it waited as long as its first job, and ran as long as all its jobs together. Jobs
of greendata's own, such as closing a file or encoding a response, are counted separately.

Some work is not recorded:

- A job that is submitted by a worker runs inline and is part of the enclosing job.
- A job of a thread without a hub is counted only by the pool (`PoolStats`).
- Greenlets of groups and calls of a `Caller` are not pool jobs.
"""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass
from time import time

from greendata.errors.notes import text_of
from greendata.hub import native
from greendata.hub.outcome import Status
from greendata.observe.histogram import Durations, Histogram
from greendata.observe.listeners import FinishedQuery, add_query_listener, remove_query_listener

__all__ = ("Failure", "LabelStats", "Labels", "Recorder", "folded")

LABELS = 100  # labels with separate counters; the limit bounds the memory if labels contain names of users
OTHER = "other"  # the label of all others
FAILURES = 50  # number of failures that are kept
TEXT = 500  # characters that are kept of an error's text

# UUIDs; eight and more hexadecimal digits, at least one of them decimal; four and more digits; a number by itself.
_IDENTIFIER = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
    r"|(?<![0-9a-z])(?=[a-f]*[0-9])[0-9a-f]{8,}(?![0-9a-z])"
    r"|[0-9]{4,}"
    r"|(?<![0-9a-z])[0-9]+(?![0-9a-z])",
    re.IGNORECASE,
)

OUTCOMES = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Failure:
    """A query that failed.

    Attributes:
        label: the label of the query.
        error: the name of the error's type.
        at: when its outcome arrived, in seconds since 1970.
        text: the text of the error, or None. It may quote data, so it is kept only on request.
    """

    label: str
    error: str
    at: float
    text: str | None = None


@dataclass(frozen=True, slots=True)
class LabelStats:
    """The finished queries of one label.

    Attributes:
        done, failed, cancelled: the number of queries by outcome.
        waits: times from submit to start, or to the outcome if a query never started.
        runs: times from start to outcome, of the queries that started.
    """

    done: int
    failed: int
    cancelled: int
    waits: Histogram
    runs: Histogram


def folded(label: str) -> str:
    """Return *label* with ``*`` in the place of identifiers, such as numbers and UUIDs.

    Numbers that are part of a word, as in ``q1`` or ``v2``, are kept unless they have four digits.

    Example:
        >>> folded("export 8412"), folded("q1"), folded("user-7c9e6679-7425-40de-944b-e07fc1f90ae7")
        ('export *', 'q1', 'user-*')
    """
    return _IDENTIFIER.sub("*", label)


class Labels:
    """Give labels a bounded number of names. Not thread-safe.

    Identifiers become ``*``, see `folded`. Of the names that result, the first `LABELS` are kept, and all later ones
    become "other".

    Example:
        >>> labels = Labels()
        >>> labels.of("export 8412"), labels.of("export 8413"), labels.of("report")
        ('export *', 'export *', 'report')
        >>> {labels.of(f"report of {chr(number)}") for number in range(300, 1_000)} > {"other"}
        True
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, label: str) -> str:
        """Return the name under which *label* is counted."""
        if label in self._known:
            return label
        name = folded(label)
        if name not in self._known:
            if len(self._known) >= LABELS:
                return OTHER
            self._known.add(name)
        return name


class _Counters:
    """The counters of one label."""

    __slots__ = ("outcomes", "runs", "waits")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.waits = Durations()
        self.runs = Durations()

    def add(self, query: FinishedQuery) -> None:
        self.outcomes[query.status.value] += 1
        self.waits.add(query.waited)
        if query.ran is not None:
            self.runs.add(query.ran)

    def stats(self) -> LabelStats:
        return LabelStats(**self.outcomes, waits=self.waits.histogram(), runs=self.runs.histogram())


class Recorder:
    """Record finished queries from `start` to `stop`. What was recorded stays readable.

    Args:
        keep_texts: keep the texts of errors, not only their types.

    Safe from any thread.

    Example:
        >>> import gevent, greendata
        >>> hub = gevent.get_hub()  # jobs of a thread without a hub are not recorded
        >>> recorder = Recorder()
        >>> recorder.start()
        >>> result = greendata.run(sum, [1, 2], label="example")
        >>> while not recorder.labels():  # a job is recorded by its hub, perhaps after its outcome can be read
        ...     gevent.sleep(0.001)
        >>> recorder.stop()
        >>> recorder.labels()["example"].done
        1
    """

    def __init__(self, *, keep_texts: bool = False) -> None:
        self.keep_texts = keep_texts
        self._begin()

    def _begin(self) -> None:
        self._lock = native.RLock()  # guards all fields below; hubs of several threads write them
        self._labels = Labels()
        self._counters: dict[str, _Counters] = {}
        self._failures: deque[Failure] = deque(maxlen=FAILURES)
        self._internal = 0
        self._pid = os.getpid()  # last, so that a thread that sees the new pid finds the new lock

    def start(self) -> None:
        """Start recording. Idempotent."""
        add_query_listener(self._record)

    def stop(self) -> None:
        """Stop recording. Idempotent."""
        remove_query_listener(self._record)

    def labels(self) -> dict[str, LabelStats]:
        """Return the statistics by label: those of `LABELS` labels, and of all others as "other"."""
        self._check_process()
        with self._lock:
            return {label: counters.stats() for label, counters in self._counters.items()}

    def failures(self) -> tuple[Failure, ...]:
        """Return the last failures, the newest first."""
        self._check_process()
        with self._lock:
            return tuple(reversed(self._failures))

    def internal(self) -> int:
        """Return the number of finished jobs that were part of a query, or greendata's own."""
        self._check_process()
        return self._internal

    def _record(self, query: FinishedQuery | None) -> None:
        self._check_process()
        with self._lock:
            if query is None:
                self._internal += 1
                return
            label = self._labels.of(query.label)
            counters = self._counters.get(label)
            if counters is None:
                counters = self._counters[label] = _Counters()
            counters.add(query)
            if query.status is Status.FAILED:
                self._failures.append(self._failure(query))

    def _failure(self, query: FinishedQuery) -> Failure:
        text = text_of(query.error)[:TEXT] if self.keep_texts and query.error is not None else None
        return Failure(query.label, type(query.error).__name__, time(), text)

    def _check_process(self) -> None:
        """Reset in a forked child: the counters are those of the parent, and the lock may be held forever."""
        if self._pid != os.getpid():
            self._begin()
