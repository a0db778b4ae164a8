"""What the page shows of a process, as JSON: small enough to be sent every second.

Labels and keys are there as the program named them, and errors by their type. Of data and plans there is nothing;
texts of errors are there only if ``observe.start(keep_texts=True)`` asked for them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from greendata.observe.record import Failure
from greendata.observe.running import RunningJob
from greendata.observe.stats import Stats
from greendata.pool.settings import Settings

__all__ = ("picture",)

NAME = 200  # characters of a label that are sent
FAILURES = 10  # that are sent, of those remembered


def picture(now: Stats, settings: Settings, *, viewers: int) -> str:
    """*now* for the page.

    ``history`` has a row for each second, the oldest first: its age in seconds, the worst lag of the hub in it in
    milliseconds, and the jobs that waited and that ran at its end.

    Args:
        settings: of the pool.
        viewers: streams that are open.

    Example:
        >>> from greendata.observe import stats
        >>> json.loads(picture(stats(), Settings(), viewers=1))["pool"]["queued"]
        0
    """
    seen = {
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
    return json.dumps(seen, separators=(",", ":"))


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
