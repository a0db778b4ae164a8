"""Listen to finished jobs: the pool calls each listener in the hub that submitted the job."""

from __future__ import annotations

import os
from collections.abc import Callable

from greendata.hub import native
from greendata.pool import job as jobs
from greendata.pool.job import Job

__all__ = ("add_listener", "remove_listener")

_changing = native.RLock()  # guards `jobs.listeners`


def add_listener(listener: Callable[[Job], object]) -> None:
    """Call *listener* with each finished job, in the hub that submitted the job. Idempotent.

    The listener must not raise and must not wait: the job's waiters continue after it.

    Example:
        >>> add_listener(print)
        >>> remove_listener(print)
    """
    with _changing:
        if listener not in jobs.listeners:
            jobs.listeners = (*jobs.listeners, listener)


def remove_listener(listener: Callable[[Job], object]) -> None:
    """Stop calling *listener*. Idempotent."""
    with _changing:
        jobs.listeners = tuple(each for each in jobs.listeners if each != listener)


def _after_fork_in_child() -> None:
    """Replace the lock: a thread of the parent may have held it at the fork."""
    global _changing
    _changing = native.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
