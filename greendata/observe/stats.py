"""The state of the process at one moment: `stats` for Python code, `snapshot_json` for clients that poll."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from time import time
from typing import Any

from greendata.observe.counters import Failure, LabelStats
from greendata.observe.histogram import BOUNDS, Histogram
from greendata.observe.running import QueuedJob, RunningCrawl, RunningJob, crawls, queued, running
from greendata.observe.summaries import FailureGroup, LabelSummary, grouped, summaries
from greendata.observe.watch import Second, current
from greendata.pool import pool
from greendata.pool.operation import INTERNAL
from greendata.pool.pool import PoolStats

__all__ = ("Lag", "QueryCounts", "Stats", "snapshot_json", "stats")


QUEUE = 100  # waiting jobs that are listed; all are counted


@dataclass(frozen=True, slots=True)
class Lag:
    """How late the hub was, in seconds.

    Attributes:
        last: at the last measurement.
        worst: in the last minute.
    """

    last: float = 0.0
    worst: float = 0.0


@dataclass(frozen=True, slots=True)
class QueryCounts:
    """The numbers of queries. The batches of a stream and the steps of a validation are one query.

    Attributes:
        running, queued: the queries with a job that runs, and with a job that waits.
        done, failed, cancelled: the queries that have finished since `greendata.observe.start`, by outcome.
        internal_jobs: the jobs that have finished since then and are parts of a query, or greendata's own.
    """

    running: int = 0
    queued: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    internal_jobs: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """The current state and the statistics of a process.

    Attributes:
        at: the time, in seconds since 1970.
        pid: the process id.
        pool: the pool's counters of all jobs since the process began; they need no `start`.
        queries: the numbers of queries.
        jobs: the jobs that run now, the oldest first.
        queue: the jobs that wait, at most `QUEUE` of them, those that were submitted first at the front.
        crawls: the crawls that run now, the oldest first.
        waits, runs: the wait and run times of the queries that have finished since `start`.
        labels: the same times and the outcomes, by label.
        by_label: the same in short, with quantiles, the label whose queries ran longest together first.
        failures: the last failures since `start`, the newest first.
        failure_groups: the same with equal ones in one group, that of the newest first.
        lag: the lag of the hub; zeros before `start`.
        history: the last minutes, second by second, the oldest first.
    """

    at: float
    pid: int
    pool: PoolStats
    queries: QueryCounts
    jobs: tuple[RunningJob, ...]
    queue: tuple[QueuedJob, ...]
    crawls: tuple[RunningCrawl, ...]
    waits: Histogram
    runs: Histogram
    labels: dict[str, LabelStats]
    by_label: tuple[LabelSummary, ...]
    failures: tuple[Failure, ...]
    failure_groups: tuple[FailureGroup, ...]
    lag: Lag
    history: tuple[Second, ...]


def stats() -> Stats:
    """Return the current statistics of the process. Safe from any thread.

    Example:
        >>> stats().pool.queued
        0
    """
    watch = current()
    labels = {} if watch is None else watch.recorder.labels()
    failures = () if watch is None else watch.recorder.failures()
    jobs, waiting = running(), pool.queued_jobs()
    return Stats(
        at=time(),
        pid=os.getpid(),
        pool=pool.stats(),
        queries=QueryCounts(
            running=sum(not job.internal for job in jobs),
            queued=sum(job.operation is not INTERNAL for job in waiting),
            done=sum(counters.done for counters in labels.values()),
            failed=sum(counters.failed for counters in labels.values()),
            cancelled=sum(counters.cancelled for counters in labels.values()),
            internal_jobs=0 if watch is None else watch.recorder.internal(),
        ),
        jobs=jobs,
        queue=queued(QUEUE),
        crawls=crawls(),
        waits=_sum([counters.waits for counters in labels.values()]),
        runs=_sum([counters.runs for counters in labels.values()]),
        labels=labels,
        by_label=summaries(labels),
        failures=failures,
        failure_groups=grouped(failures),
        lag=Lag() if watch is None else Lag(watch.probe.last, watch.probe.worst(60.0)),
        history=() if watch is None else watch.history(),
    )


def snapshot_json(now: Stats | None = None, *, seconds: int = 60) -> str:
    """Return `stats` as a JSON object with the same names, and ``bounds``: the histograms' buckets in seconds.

    It contains no values of data, and no texts of errors unless ``start(keep_texts=True)`` was called. Labels and keys
    are contained as the program chose them.

    Args:
        now: the statistics; the current ones if None.
        seconds: how many seconds of the history are included.

    Example:
        >>> json.loads(snapshot_json())["pool"]["queued"]
        0
    """
    now = now or stats()
    recent = tuple(second for second in now.history if second.at > now.at - seconds)
    seen = {**_fields(replace(now, history=recent)), "bounds": BOUNDS}
    return json.dumps(seen, default=_fields, separators=(",", ":"))


def _fields(thing: Any) -> dict[str, object]:
    """Return the fields of a dataclass without a deep copy: with `asdict` a snapshot takes 6 ms instead of 1."""
    return {field.name: getattr(thing, field.name) for field in fields(thing)}


def _sum(histograms: list[Histogram]) -> Histogram:
    columns = zip(Histogram().counts, *(each.counts for each in histograms), strict=True)
    return Histogram(tuple(sum(column) for column in columns), sum(each.total for each in histograms))
