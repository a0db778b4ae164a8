"""The books of what has come home: outcomes, waits and runs by label, and the last failures.

Entries are made by the hub that a job comes home to, before its waiters go on, so that whoever has a result finds it
in the books. What has no such moment is not in them: a job that a worker submits runs inline and is part of the job
around it; one of a thread without a hub is in the pool's own counters (`PoolStats`) alone. Greenlets of groups and
calls of a `Caller` are no jobs of the pool.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

from greendata.errors.notes import text_of
from greendata.hub import native
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.observe.histogram import Durations, Histogram
from greendata.pool import job as jobs
from greendata.pool.job import Job

__all__ = ("Failure", "LabelStats", "Labels", "Recorder", "hear", "unhear")

LABELS = 100  # labels with books of their own: a label made of an identifier must not eat the memory
OTHER = "other"  # the label of the rest
FAILURES = 50  # that are remembered
TEXT = 500  # characters of an error's text

OUTCOMES = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that failed.

    Attributes:
        label: of the job.
        error: the name of the error's type.
        at: when it came home, in seconds since 1970.
        text: what the error says, or None: it may quote data, so it is kept only where that was asked for.
    """

    label: str
    error: str
    at: float
    text: str | None = None


@dataclass(frozen=True, slots=True)
class LabelStats:
    """The jobs of one label that came home.

    Attributes:
        done, failed, cancelled: jobs, by outcome.
        waits: from submit to begin, or to the outcome of a job that never began.
        runs: from begin to outcome, of those that began.
    """

    done: int
    failed: int
    cancelled: int
    waits: Histogram
    runs: Histogram


class Labels:
    """The first `LABELS` labels that it is asked for, and "other" for all after them. Its owner guards it.

    Example:
        >>> labels = Labels()
        >>> {labels.of(f"report {number}") for number in range(1_000)} > {"report 0", "other"}
        True
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, label: str) -> str:
        """*label*, or what stands for it."""
        if label not in self._known:
            if len(self._known) >= LABELS:
                return OTHER
            self._known.add(label)
        return label


class _Counters:
    """What is counted for one label."""

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
    """Keeps the books from `start` to `stop`; what was written stays readable.

    Args:
        keep_texts: keep what errors say, not only their types.

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
        self._lock = native.RLock()  # hubs of several threads write; guards all below
        self._labels = Labels()
        self._counters: dict[str, _Counters] = {}
        self._failures: deque[Failure] = deque(maxlen=FAILURES)
        self._pid = os.getpid()  # last: another thread of a child that sees it takes the lock that is there

    def start(self) -> None:
        """Write down every job that comes home from now on. Idempotent."""
        hear(self._write)

    def stop(self) -> None:
        """Write no more. Idempotent."""
        unhear(self._write)

    def labels(self) -> dict[str, LabelStats]:
        """The books by label: `LABELS` of them, and the rest under "other"."""
        self._check_process()
        with self._lock:
            return {label: counters.stats() for label, counters in self._counters.items()}

    def failures(self) -> tuple[Failure, ...]:
        """The last failures, the newest first."""
        self._check_process()
        with self._lock:
            return tuple(reversed(self._failures))

    def _write(self, job: Job) -> None:
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
        """Begin anew in a forked child: the books are the parent's, and its lock may be held for ever."""
        if self._pid != os.getpid():
            self._begin()


_changing = native.RLock()  # guards `jobs.listeners`


def hear(listener: Callable[[Job], object]) -> None:
    """Have *listener* called with each job whose outcome comes home, in its hub. Idempotent.

    It must not raise and must not wait: the job's waiters go on after it.
    """
    with _changing:
        if listener not in jobs.listeners:
            jobs.listeners = (*jobs.listeners, listener)


def unhear(listener: Callable[[Job], object]) -> None:
    """Call *listener* no more. Idempotent."""
    with _changing:
        jobs.listeners = tuple(each for each in jobs.listeners if each != listener)


def _after_fork_in_child() -> None:
    """A thread that only the parent has may hold the lock, for ever."""
    global _changing
    _changing = native.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
