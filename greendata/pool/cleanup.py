"""Cleanup that must run to completion, whatever happens to the calling greenlet or to the pool."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVar

import gevent
from gevent import GreenletExit

from greendata.errors import JobAborted, NoThread, PoolClosed
from greendata.errors.notes import note, shown
from greendata.hub import native
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.pool import pool, workers
from greendata.pool.job import bypassing_queue_limit
from greendata.pool.operation import INTERNAL, current_operation

__all__ = ("run_to_completion", "run_uninterrupted")

T = TypeVar("T")


def run_to_completion(func: Callable[[], T], *, label: str) -> Result[T]:
    """Start ``func()`` in a native thread under all circumstances, and return its result at once.

    It runs in the pool, even if the queue is full, in an empty context: no request and no deadline can end it. If the
    pool is closed, or if the job was removed from it, it runs in a new thread. If the system has no more threads, it
    runs in the calling thread. Cancelling the result has no effect on *func*. Safe from any thread.

    Raises:
        PolarsForked: in a forked child there is nothing to clean up: it belongs to the parent.

    Example:
        >>> run_to_completion(list, label="close").get(timeout=5)
        []
    """
    outcome: Result[T] = Result(label)
    outcome.bind(None, None)
    once = native.allocate_lock()

    def work() -> None:
        if not once.acquire(False):
            return
        try:
            outcome.settle(Status.DONE, func())
        except BaseException as error:  # noqa: BLE001 - the error is the waiter's
            outcome.settle(Status.FAILED, error=error if isinstance(error, Exception) else JobAborted(label, error))
        outcome.wake()

    def run_unless_done() -> None:
        if not (job.successful() or workers.run_in_new_thread(work)):
            work()

    try:
        job = Context().run(_submit, work, label)
    except (NoThread, PoolClosed):
        if not workers.run_in_new_thread(work):
            work()
    else:
        if not job.add_callback(run_unless_done):
            run_unless_done()
    return outcome


def _submit(work: Callable[[], None], label: str) -> Result[None]:
    current_operation.set(INTERNAL)
    return bypassing_queue_limit(pool.submit, work, label=label)


def run_uninterrupted(func: Callable[[], Any]) -> None:
    """Call *func* in a new greenlet and wait until it has finished, even while the caller is being killed.

    Raises:
        BaseException: the error of *func*, or the exception that interrupted the wait.
    """
    raised: list[BaseException] = []

    def call() -> None:
        try:
            func()
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller
            raised.append(error)

    helper = gevent.Greenlet(call)
    helper.gr_context = copy_context()
    helper.start()
    interruption: BaseException | None = None
    while not helper.dead:
        try:
            helper.join()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            if not isinstance(interruption, GreenletExit):  # a kill has precedence over later interruptions
                interruption = error
    if raised and (interruption is None or isinstance(interruption, GreenletExit)):
        raise raised.pop()  # a kill has no message that could be lost
    if interruption is not None:
        if raised:
            note(interruption, f"meanwhile there was also: {shown(raised.pop())}")
        raise interruption
