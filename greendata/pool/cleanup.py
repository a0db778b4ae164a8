"""Work that has to come to its end, whatever becomes of the greenlet or of the pool: half-done things are put right."""

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

__all__ = ("carry_out", "shielded")

T = TypeVar("T")


def carry_out(func: Callable[[], T], *, label: str) -> Result[T]:
    """Begin ``func()`` in a native thread, come what may, and return its result at once.

    In the pool, also when its queue is full, and in no request or deadline that may be over; in a thread of its own
    where the pool takes no more work or the job was taken out of it; and in the calling thread where no other is to be
    had. To cancel the result changes nothing. Safe from any thread.

    Raises:
        PolarsForked: nothing is to be put right in a forked child: it is the parent's.

    Example:
        >>> carry_out(list, label="close").get(timeout=5)
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
        except BaseException as error:  # noqa: BLE001 - it belongs to the waiter
            outcome.settle(Status.FAILED, error=error if isinstance(error, Exception) else JobAborted(label, error))
        outcome.wake()

    def see_to_it() -> None:
        if not (job.successful() or workers.run_in_new_thread(work)):
            work()

    try:
        job = Context().run(bypassing_queue_limit, pool.submit, work, label=label)
    except (NoThread, PoolClosed):
        if not workers.run_in_new_thread(work):
            work()
    else:
        if not job.add_callback(see_to_it):
            see_to_it()
    return outcome


def shielded(func: Callable[[], Any]) -> None:
    """Call *func* in a greenlet of its own and wait for it, also while the caller is being killed.

    Raises:
        BaseException: what *func* raised, or what interrupted the wait.
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
            if not isinstance(interruption, GreenletExit):  # a kill counts, whatever comes after
                interruption = error
    if raised and (interruption is None or isinstance(interruption, GreenletExit)):
        raise raised.pop()  # a kill tells nobody anything
    if interruption is not None:
        if raised:
            note(interruption, f"meanwhile there was also: {shown(raised.pop())}")
        raise interruption
