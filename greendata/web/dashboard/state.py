"""The state of a process as JSON for the page: small enough to be sent every second.

It has labels and keys as the program named them, and the types of errors. It has no data and no plans, and texts of
errors only after ``observe.start(keep_texts=True)``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from greendata.observe.counters import Failure
from greendata.observe.running import RunningJob
from greendata.observe.stats import Stats
from greendata.pool.settings import Settings

__all__ = ("state_json",)

NAME = 200  # characters of a label that are sent, at most
FAILURES = 10  # failures that are sent, of those in memory


def state_json(now: Stats, settings: Settings, *, viewers: int) -> str:
    """Return the stats *now* as JSON for the page.

    ``history`` has a row for each second, the oldest first: its age in seconds, the worst lag of the hub in
    milliseconds, and the numbers of jobs that were queued and running at its end.

    Args:
        settings: the settings of the pool.
        viewers: the number of open streams.

    Example:
        >>> from greendata.observe import stats
        >>> json.loads(state_json(stats(), Settings(), viewers=1))["pool"]["queued"]
        0
    """
    state = {
        "pid": now.pid,
        "pool": asdict(now.pool),
        "max_workers": settings.max_workers,
        "max_queue": settings.max_queue,
        "viewers": viewers,
        "lag": round(now.lag.last * 1_000, 1),
        "jobs": [_job(job) for job in now.jobs],
        "failures": [_failure(failure, now.at) for failure in now.failures[:FAILURES]],
        "history": [
            [round(now.at - second.at, 1), round(second.lag * 1_000, 1), second.queued, second.running]
            for second in now.history
        ],
    }
    return json.dumps(state, separators=(",", ":"))


def _job(job: RunningJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "label": job.label[:NAME],
        "key": job.key,
        "seconds": round(job.seconds, 1),
        "abandoned": job.abandoned,
    }


def _failure(failure: Failure, now: float) -> dict[str, Any]:
    return {
        "label": failure.label[:NAME],
        "error": failure.error,
        "text": failure.text,
        "age": round(max(0.0, now - failure.at)),
    }
