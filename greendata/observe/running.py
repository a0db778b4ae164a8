"""List the jobs that run now, and cancel a job by its id."""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import monotonic

from greendata.errors.notes import text_of
from greendata.pool import pool

__all__ = ("RunningJob", "cancel", "running")

KEY = 80  # characters that are shown of a key


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job on a worker.

    Attributes:
        id: identifies the job among all processes of this machine, for as long as this process lives.
        label: the label of the job.
        key: the key for fair queueing, as text; None without a key.
        worker: the name of the native thread.
        seconds: the time since it started.
        abandoned: True if its result is settled (cancelled or timed out) while the native call still runs.
    """

    id: str
    label: str
    key: str | None
    worker: str
    seconds: float
    abandoned: bool


def running() -> tuple[RunningJob, ...]:
    """Return the jobs that run now, the oldest first. Safe from any thread.

    Example:
        >>> import greendata
        >>> greendata.run(lambda: running()[0].label, label="looks").get(timeout=5)
        'looks'
    """
    now = monotonic()
    found = (
        RunningJob(
            id=_id_of(worker.name, number),
            label=job.result.label,
            key=None if job.key is None else text_of(job.key)[:KEY],
            worker=worker.name,
            seconds=max(0.0, now - worker.since),
            abandoned=job.result.ready(),
        )
        for job, worker, number in pool.at_work()
    )
    return tuple(sorted(found, key=lambda job: -job.seconds))


def cancel(job_id: str) -> bool:
    """Cancel the running job with that id. Return False if it has ended, is settled, or is unknown here.

    Its waiters get `JobCancelled` at once. The native call continues, and counts as abandoned until it returns.
    Safe from any thread.

    Example:
        >>> cancel("an id of another process")
        False
    """
    for job, worker, number in pool.at_work():
        if _id_of(worker.name, number) == job_id:
            return job.result.cancel("by its id")
    return False


def _id_of(worker: str, number: int) -> str:
    return f"{os.getpid()}.{worker}.{number}"
