"""The picture of the process at one moment: `stats` for code, `snapshot_json` for what polls it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from time import time
from typing import Any

from greendata.observe.histogram import BOUNDS, Histogram
from greendata.observe.record import Failure, LabelStats
from greendata.observe.running import RunningJob, running
from greendata.observe.watch import Second, current
from greendata.pool import pool
from greendata.pool.pool import PoolStats

__all__ = ("Lag", "Stats", "snapshot_json", "stats")


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
class Stats:
    """What a process does and has done.

    Attributes:
        at: when, in seconds since 1970.
        pid: the process.
        pool: counters of all jobs since the process began (of the pool's own, they need no `start`).
        jobs: those that run now, the oldest first.
        waits, runs: how long the jobs waited and ran that came home since `start`.
        labels: the same and their outcomes by label.
        failures: the last ones since `start`, the newest first.
        lag: of the hub; zeros before `start`.
        history: the last minutes second by second, the oldest first.
    """

    at: float
    pid: int
    pool: PoolStats
    jobs: tuple[RunningJob, ...]
    waits: Histogram
    runs: Histogram
    labels: dict[str, LabelStats]
    failures: tuple[Failure, ...]
    lag: Lag
    history: tuple[Second, ...]


def stats() -> Stats:
    """The process now. Safe from any thread.

    Example:
        >>> stats().pool.queued
        0
    """
    watch = current()
    labels = {} if watch is None else watch.recorder.labels()
    return Stats(
        at=time(),
        pid=os.getpid(),
        pool=pool.stats(),
        jobs=running(),
        waits=_sum([counters.waits for counters in labels.values()]),
        runs=_sum([counters.runs for counters in labels.values()]),
        labels=labels,
        failures=() if watch is None else watch.recorder.failures(),
        lag=Lag() if watch is None else Lag(watch.probe.last, watch.probe.worst(60.0)),
        history=() if watch is None else watch.history(),
    )


def snapshot_json(now: Stats | None = None, *, seconds: int = 60) -> str:
    """`stats` as a JSON object with the same names, and ``bounds``: those of the histograms' buckets, in seconds.

    No values of data are in it, nor texts of errors unless ``start(keep_texts=True)`` asked for them. Labels and keys
    are as the program named them.

    Args:
        now: stats that are there already.
        seconds: of the history, from now back.

    Example:
        >>> json.loads(snapshot_json())["pool"]["queued"]
        0
    """
    now = now or stats()
    recent = tuple(second for second in now.history if second.at > now.at - seconds)
    seen = {**_fields(replace(now, history=recent)), "bounds": BOUNDS}
    return json.dumps(seen, default=_fields, separators=(",", ":"))


def _fields(thing: Any) -> dict[str, object]:
    """The fields of a dataclass, as they are: `asdict` copies each of them down to the numbers, in 6 ms against 1."""
    return {field.name: getattr(thing, field.name) for field in fields(thing)}


def _sum(histograms: list[Histogram]) -> Histogram:
    columns = zip(Histogram().counts, *(each.counts for each in histograms), strict=True)
    return Histogram(tuple(sum(column) for column in columns), sum(each.total for each in histograms))
