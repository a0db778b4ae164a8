"""List the jobs that run now, those that wait, and the crawls that run; cancel a job by its id."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from greendata.errors.notes import text_of
from greendata.pool import pool
from greendata.pool.job import Job
from greendata.pool.operation import INTERNAL

__all__ = (
    "CrawlTotals",
    "QueuedJob",
    "RunningCrawl",
    "RunningJob",
    "add_crawl",
    "cancel",
    "crawl_totals",
    "crawls",
    "origin",
    "queued",
    "remove_crawl",
    "running",
)

KEY = 80  # characters that are shown of a key
ORIGIN = 200  # characters that are shown of an origin
QUEUED = ".queued."  # in the ids of jobs without a worker
REASON = "by an operator, by its id"  # the message of `JobCancelled`

# What has asked for the jobs that are submitted in a context, for display: a request's method and path.
origin: ContextVar[str | None] = ContextVar("greendata.origin", default=None)


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job on a worker.

    Attributes:
        id: identifies the job among all processes of this machine, for as long as this process lives.
        label: the label of the job, or of the query that it is a part of.
        key: the key for fair queueing, as text; None without a key.
        worker: the name of the native thread.
        seconds: the time since it started, or since the query that it is a part of was made.
        abandoned: True if its result is settled (cancelled or timed out) while the native call still runs.
        internal: True for a job of greendata's own, such as closing a file or encoding a response.
        stops: True if a cancel ends the native call soon, as it does with a stream, a database statement and a child
            process. Otherwise Polars computes on.
        origin: the method and path of its request, if the app shows them; else None.
    """

    id: str
    label: str
    key: str | None
    worker: str
    seconds: float
    abandoned: bool
    internal: bool = False
    stops: bool = False
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that waits for a worker.

    Attributes:
        id, label, key, internal, origin: as in `RunningJob`. The id is valid after the job has started, too.
        seconds: the time since it was submitted.
    """

    id: str
    label: str
    key: str | None
    seconds: float
    internal: bool = False
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class RunningCrawl:
    """A crawl that runs now.

    Attributes:
        label: the hosts where it began, shortened; or the name of its stage.
        pages: the pages that are finished.
        failed: those of them that have an error.
        bytes: the decoded bytes of their bodies.
        requests: the requests that were sent.
        in_flight: the requests that wait for a response.
        hosts_waiting: the hosts that have URLs and wait for their time.
        todo: the URLs that are known and not done; None where that is not known.
        pages_per_second: of the last few seconds.
        seconds: the time since it began.
    """

    label: str
    pages: int
    failed: int
    bytes: int
    requests: int
    in_flight: int
    hosts_waiting: int
    todo: int | None
    pages_per_second: float
    seconds: float


class CrawlTotals(NamedTuple):
    """What all crawls of this process have done together, those that have ended included."""

    pages: int = 0
    failed: int = 0
    bytes: int = 0
    requests: int = 0


_crawls: dict[Callable[[], RunningCrawl], None] = {}  # in the order of their beginning; any thread reads and writes
_ended = CrawlTotals()  # of the crawls that have ended; hubs' threads replace it


def add_crawl(look: Callable[[], RunningCrawl]) -> None:
    """List a crawl, of which *look* returns the state, until `remove_crawl`. *look* is called in any thread."""
    _crawls[look] = None


def remove_crawl(look: Callable[[], RunningCrawl]) -> None:
    """List a crawl no longer, and keep what it has done in `crawl_totals`. Idempotent."""
    global _ended
    if look in _crawls:
        done = _done_by(look())
        del _crawls[look]
        _ended = _sum_of(_ended, done)


def crawls() -> tuple[RunningCrawl, ...]:
    """Return the crawls that run now, the oldest first. Safe from any thread.

    Example:
        >>> crawls()
        ()
    """
    return tuple(look() for look in tuple(_crawls))


def crawl_totals() -> CrawlTotals:
    """Return what all crawls of this process have done. Safe from any thread.

    Example:
        >>> crawl_totals().pages >= 0
        True
    """
    total = _ended
    for crawl in crawls():
        total = _sum_of(total, _done_by(crawl))
    return total


def _done_by(crawl: RunningCrawl) -> CrawlTotals:
    return CrawlTotals(crawl.pages, crawl.failed, crawl.bytes, crawl.requests)


def _sum_of(one: CrawlTotals, other: CrawlTotals) -> CrawlTotals:
    return CrawlTotals(*map(sum, zip(one, other, strict=True)))


def running() -> tuple[RunningJob, ...]:
    """Return the jobs that run now, the oldest first. Safe from any thread.

    Example:
        >>> import greendata
        >>> greendata.run(lambda: running()[0].label, label="looks").get(timeout=5)
        'looks'
    """
    now, found = monotonic(), []
    for job, worker, number in pool.running_jobs():
        query = job.operation
        is_part = query is not None and query is not INTERNAL
        found.append(
            RunningJob(
                id=_id_of(worker.name, number),
                label=_label_of(job),
                key=_key_of(job),
                worker=worker.name,
                seconds=max(0.0, now - (query.began if query is not None and is_part else worker.since)),
                abandoned=job.result.ready(),
                internal=query is INTERNAL,
                stops=job.stopper is not None or (query is not None and query.stops),
                origin=_origin_of(job),
            )
        )
    return tuple(sorted(found, key=lambda job: -job.seconds))


def queued(limit: int | None = None) -> tuple[QueuedJob, ...]:
    """Return the jobs that wait for a worker, those that were submitted first at the front. Safe from any thread.

    They may start in another order, because jobs of different keys take turns.

    Args:
        limit: the number of jobs to return at most; all of them if None, which takes 2 us for each.

    Example:
        >>> queued()
        ()
    """
    now = monotonic()
    return tuple(
        QueuedJob(
            id=_queued_id_of(job),
            label=_label_of(job),
            key=_key_of(job),
            seconds=max(0.0, now - job.result.times[0]),
            internal=job.operation is INTERNAL,
            origin=_origin_of(job),
        )
        for job in pool.queued_jobs()[:limit]
    )


def cancel(job_id: str) -> bool:
    """Cancel the job with that id. Return False if it has ended, is settled, or is unknown here.

    Its waiters get `JobCancelled` at once. A waiting job never starts. A native call that runs continues, and counts as
    abandoned until it returns. Safe from any thread.

    Example:
        >>> cancel("an id of another process")
        False
    """
    if QUEUED in job_id:
        for job in pool.queued_jobs():
            if _queued_id_of(job) == job_id:
                return job.result.cancel(REASON)
    for job, worker, number in pool.running_jobs():
        if job_id in (_id_of(worker.name, number), _queued_id_of(job)):
            return job.result.cancel(REASON)
    return False


def _id_of(worker: str, number: int) -> str:
    return f"{os.getpid()}.{worker}.{number}"


def _queued_id_of(job: Job) -> str:
    """Return the id of a job without a worker: its address, which a later job may have, and its time of submit."""
    return f"{os.getpid()}{QUEUED}{id(job):x}-{job.result.times[0]:.6f}"


def _label_of(job: Job) -> str:
    query = job.operation
    return job.result.label if query is None or query is INTERNAL else query.label


def _key_of(job: Job) -> str | None:
    return None if job.key is None else text_of(job.key)[:KEY]


def _origin_of(job: Job) -> str | None:
    found = job.context.get(origin)
    return None if found is None else found[:ORIGIN]


def _after_fork_in_child() -> None:
    """Forget the crawls, whose greenlets are the parent's."""
    global _ended
    _crawls.clear()
    _ended = CrawlTotals()


os.register_at_fork(after_in_child=_after_fork_in_child)
