"""The state of a process as JSON for the page: small enough to be sent every second.

It has labels and keys as the program named them, and the types of errors. It has no data and no plans, and texts of
errors only after ``observe.start(keep_texts=True)``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from greendata.observe.running import QueuedJob, RunningCrawl, RunningJob
from greendata.observe.stats import Stats
from greendata.observe.summaries import FailureGroup, LabelSummary
from greendata.pool.settings import Settings

__all__ = ("state_json",)

NAME = 200  # characters of a label that are sent, at most
FAILURES = 10  # groups of failures that are sent
QUEUE = 20  # waiting jobs that are sent; all are counted
CRAWLS = 20  # crawls that are sent
LABELS = 15  # labels that are sent, those with the longest run times


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
        "queries": asdict(now.queries),
        "max_workers": settings.max_workers,
        "max_queue": settings.max_queue,
        "viewers": viewers,
        "lag": round(now.lag.last * 1_000, 1),
        "jobs": [_job(job) | {"abandoned": job.abandoned, "stops": job.stops} for job in now.jobs],
        "queue": [_job(job) for job in now.queue[:QUEUE]],
        "crawls": [_crawl(crawl) for crawl in now.crawls[:CRAWLS]],
        "labels": [_label(summary) for summary in now.by_label[:LABELS]],
        "failures": [_failure(group, now.at) for group in now.failure_groups[:FAILURES]],
        "history": [
            [round(now.at - second.at, 1), round(second.lag * 1_000, 1), second.queued, second.running]
            for second in now.history
        ],
    }
    return json.dumps(state, separators=(",", ":"))


def _job(job: RunningJob | QueuedJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "label": job.label[:NAME],
        "key": job.key,
        "origin": job.origin,
        "seconds": round(job.seconds, 1),
        "internal": job.internal,
    }


def _crawl(crawl: RunningCrawl) -> dict[str, Any]:
    return asdict(crawl) | {
        "label": crawl.label[:NAME],
        "pages_per_second": round(crawl.pages_per_second, 1),
        "seconds": round(crawl.seconds, 1),
    }


def _label(summary: LabelSummary) -> dict[str, Any]:
    """Return the summary with its quantiles in milliseconds; null stands for more than a minute."""
    times = {name: [bound and bound * 1_000 for bound in getattr(summary, name)] for name in ("run", "wait")}
    return asdict(summary) | {"label": summary.label[:NAME]} | times


def _failure(group: FailureGroup, now: float) -> dict[str, Any]:
    return {
        "label": group.label[:NAME],
        "error": group.error,
        "count": group.count,
        "text": group.text,
        "age": round(max(0.0, now - group.at)),
    }
