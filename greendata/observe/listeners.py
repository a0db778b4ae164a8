"""Listen to what finishes: each job of the pool, or each query, which may consist of several jobs.

The pool calls a listener of jobs in the hub that submitted the job, when the outcome has arrived there. A query of one
job is reported at the same moment. A query of several jobs is reported by the code that ran them, in its thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from greendata.hub import native
from greendata.hub.outcome import Status
from greendata.pool import job as jobs
from greendata.pool import operation as operations
from greendata.pool.job import Job
from greendata.pool.operation import Operation

__all__ = ("FinishedQuery", "add_listener", "add_query_listener", "remove_listener", "remove_query_listener")

_changing = native.RLock()  # guards the writing of all tuples of listeners


class FinishedQuery(NamedTuple):
    """A query that has an outcome.

    Attributes:
        label: its name.
        status: DONE, FAILED or CANCELLED.
        waited: seconds from submit to start, or to the outcome if it never started.
        ran: seconds that its jobs have run; None if none started.
        error: the error of a failed or cancelled query, else None.
    """

    label: str
    status: Status
    waited: float
    ran: float | None
    error: BaseException | None


QueryListener = Callable[[FinishedQuery | None], object]

_query_listeners: tuple[QueryListener, ...] = ()  # replaced as a whole; any thread reads


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


def add_query_listener(listener: QueryListener) -> None:
    """Call *listener* with each finished query, and with None for each job that is a part of one. Idempotent.

    It is called in any thread, and must not raise and not wait.

    Example:
        >>> add_query_listener(print)
        >>> remove_query_listener(print)
    """
    global _query_listeners
    with _changing:
        if listener not in _query_listeners:
            _query_listeners = (*_query_listeners, listener)
        operations.listeners = (_on_operation,)
        add_listener(_on_job)


def remove_query_listener(listener: QueryListener) -> None:
    """Stop calling *listener*. Idempotent."""
    global _query_listeners
    with _changing:
        _query_listeners = tuple(each for each in _query_listeners if each != listener)
        if not _query_listeners:
            operations.listeners = ()
            remove_listener(_on_job)


def _on_job(job: Job) -> None:
    result, operation = job.result, job.operation
    if operation is not None:
        operation.add(result)
        _notify(None)
        return
    ran = None if result.times[1] is None else result.run_seconds
    _notify(FinishedQuery(result.label, result.status, result.queued_seconds, ran, result.exception))


def _on_operation(operation: Operation, error: BaseException | None) -> None:
    _notify(FinishedQuery(operation.label, operation.status, operation.waited or 0.0, operation.ran, error))


def _notify(query: FinishedQuery | None) -> None:
    for listener in _query_listeners:
        listener(query)


def _after_fork_in_child() -> None:
    """Replace the lock: a thread of the parent may have held it at the fork."""
    global _changing
    _changing = native.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
