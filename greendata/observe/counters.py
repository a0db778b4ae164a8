"""Count finished jobs: outcomes, wait and run times by label, and the last failures.

A job is recorded by the hub that submitted it, when the outcome arrives there and before its waiters continue. So code
that has a result finds it in the counters.

Some work is not recorded:

- A job that is submitted by a worker runs inline and is part of the enclosing job.
- A job of a thread without a hub is counted only by the pool (`PoolStats`).
- Greenlets of groups and calls of a `Caller` are not pool jobs.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from time import time
from typing import Any

from greendata.errors.notes import text_of
from greendata.hub import native
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.observe.histogram import Durations, Histogram
from greendata.observe.listeners import add_listener, remove_listener
from greendata.pool.job import Job

__all__ = ("Failure", "LabelStats", "Labels", "Recorder")

LABELS = 100  # labels with separate counters; the limit bounds the memory if labels contain identifiers
OTHER = "other"  # the label of all others
FAILURES = 50  # number of failures that are kept
TEXT = 500  # characters that are kept of an error's text

OUTCOMES = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed.

    Attributes:
        label: the label of the job.
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
    """The finished jobs of one label.

    Attributes:
        done, failed, cancelled: the number of jobs by outcome.
        waits: times from submit to start, or to the outcome if a job never started.
        runs: times from start to outcome, of the jobs that started.
    """

    done: int
    failed: int
    cancelled: int
    waits: Histogram
    runs: Histogram


class Labels:
    """Keeps the first `LABELS` labels and replaces all later ones by "other". Not thread-safe.

    Example:
        >>> labels = Labels()
        >>> {labels.of(f"report {number}") for number in range(1_000)} > {"report 0", "other"}
        True
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, label: str) -> str:
        """Return *label*, or "other" if there are too many labels."""
        if label not in self._known:
            if len(self._known) >= LABELS:
                return OTHER
            self._known.add(label)
        return label


class _Counters:
    """The counters of one label."""

    __slots__ = ("outcomes", "runs", "waits")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.waits = Durations()
        self.runs = Durations()

    def add(self, result: Result[Any]) -> None:
        self.outcomes[result.status.value] += 1
        self.waits.add(result.queued_seconds)
        if result.times[1] is not None:
            self.runs.add(result.run_seconds)

    def stats(self) -> LabelStats:
        return LabelStats(**self.outcomes, waits=self.waits.histogram(), runs=self.runs.histogram())


class Recorder:
    """Records finished jobs from `start` to `stop`. What was recorded stays readable.

    Args:
        keep_texts: keep the texts of errors, not only their types.

    Safe from any thread.

    Example:
        >>> import greendata
        >>> recorder = Recorder()
        >>> recorder.start()
        >>> greendata.run(sum, [1, 2], label="example").get(timeout=5)
        3
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
        self._pid = os.getpid()  # last, so that a thread that sees the new pid finds the new lock

    def start(self) -> None:
        """Start recording. Idempotent."""
        add_listener(self._record)

    def stop(self) -> None:
        """Stop recording. Idempotent."""
        remove_listener(self._record)

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

    def _record(self, job: Job) -> None:
        self._check_process()
        result = job.result
        with self._lock:
            label = self._labels.of(result.label)
            counters = self._counters.get(label)
            if counters is None:
                counters = self._counters[label] = _Counters()
            counters.add(result)
            if result.status is Status.FAILED:
                self._failures.append(self._failure(result))

    def _failure(self, result: Result[Any]) -> Failure:
        error = result.exception
        text = text_of(error)[:TEXT] if self.keep_texts else None
        return Failure(result.label, type(error).__name__, time(), text)

    def _check_process(self) -> None:
        """Reset in a forked child: the counters are those of the parent, and the lock may be held for ever."""
        if self._pid != os.getpid():
            self._begin()
