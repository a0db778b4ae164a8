"""Stop the work of a running job when its result is cancelled or out of time.

A native call cannot be stopped from outside: its job is *abandoned*, and counted until the call returns. Work with a
way to stop it (a statement in a database, a child process, a stream between two batches) registers that way while it
runs.

::

    thread that gives the result up           worker
    -------------------------------           ------
    settles the result                        stopped_by: registers *stop*
    withdraw: calls the registered *stop*                 calls *stop* if the result is settled
                                              the end of the block waits for a call that has begun

Each side writes before it reads, so at least one of them sees the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from greendata.hub.contexts import contextmanager
from greendata.pool.job import Stopper
from greendata.pool.workers import job_of_this_worker

__all__ = ("is_given_up", "stopped_by")


def is_given_up() -> bool:
    """Return True if nobody waits any more for the job that the calling worker runs: cancelled, or out of time.

    False on any other thread.

    Example:
        >>> is_given_up()
        False
    """
    job = job_of_this_worker()
    return job is not None and job.result.ready()


@contextmanager
def stopped_by(stop: Callable[[], object]) -> Iterator[None]:
    """Let *stop* end the work of the block when the result of the job that the calling worker runs is given up.

    On any other thread the block runs unchanged, because no result exists yet that could be given up. An inner block
    is stopped before the outer one.

    Args:
        stop: called at most once, in any thread, the hub's included: it must not block and must not raise. It is not
            called after the block has ended.

    Example:
        >>> from greendata.hub import native
        >>> begun, stopped = native.allocate_lock(), native.allocate_lock()
        >>> begun.acquire(), stopped.acquire()
        (True, True)
        >>> def work():
        ...     with stopped_by(stopped.release):
        ...         begun.release()
        ...         stopped.acquire()
        >>> from greendata import run
        >>> result = run(work)
        >>> begun.acquire(timeout=5), result.cancel_wait(timeout=5)
        (True, True)
    """
    job = job_of_this_worker()
    if job is None:
        yield
        return
    outer = job.stopper
    job.stopper = stopper = Stopper(stop)
    try:
        if job.result.ready():
            stopper.stop()
        yield
    finally:
        job.stopper = outer
        stopper.close()
        if outer is not None and job.result.ready():
            outer.stop()
