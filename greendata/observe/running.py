"""What the workers do now, job by job, each with an id by which it can be cancelled."""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import monotonic

from greendata.errors.notes import text_of
from greendata.pool import pool

__all__ = ("RunningJob", "cancel", "running")

KEY = 80  # characters of a key that are shown


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job on a worker.

    Attributes:
        id: names it in this process and in no other, for as long as the process lives.
        label: what it is called.
        key: what it is queued by, as text; None without a key.
        worker: the native thread.
        seconds: since it began.
        abandoned: its result is settled (cancelled, out of time), and the native call goes on.
    """

    id: str
    label: str
    key: str | None
    worker: str
    seconds: float
    abandoned: bool


def running() -> tuple[RunningJob, ...]:
    """The jobs that run now, the oldest first. Safe from any thread.

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
    """Cancel the running job of that id; False if it runs no more, is settled, or was never here.

    Its waiters get `JobCancelled` at once; the native call goes on, and counts as abandoned until it returns.
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
