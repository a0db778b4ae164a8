"""The end of a server process: running requests finish, and queries that take too long are cancelled in time.

A server that is stopped gives its requests some seconds and then kills them. A query that still runs is killed too,
without any report. So the process begins to drain when it is asked to stop, and cancels queued and running queries
shortly before the end: each request still gets a response, a 503, and the log gets the names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gevent

from greendata.hub.outcome import Status
from greendata.pool import pool

__all__ = ("Abandoned", "abandon", "begin", "is_draining", "reset")

REASON = "the server is shutting down"


class Abandoned(NamedTuple):
    """The labels of the jobs that were cancelled at the end.

    Attributes:
        running: native calls that continue until they return or the process ends.
        queued: jobs that never started.

    Example:
        >>> Abandoned(running=("report",), queued=())
        Abandoned(running=('report',), queued=())
    """

    running: tuple[str, ...]
    queued: tuple[str, ...]


_drain: gevent.Greenlet[..., None] | None = None  # used on the main thread's hub; None after a fork before any request


def is_draining() -> bool:
    """Return True once `begin` was called: the process takes no new requests, and will end. Safe from any thread.

    Example:
        >>> is_draining()
        False
    """
    return _drain is not None


def begin(seconds: float, report: Callable[[Abandoned], object]) -> None:
    """Begin the end of the process, and call ``report(abandon())`` in *seconds*. Only the first call has an effect.

    Until then running requests may submit more work. Call from the hub's thread, also in a signal handler.

    Example:
        >>> begin(60.0, print)
        >>> is_draining()
        True
        >>> reset()
    """
    global _drain
    drain = gevent.Greenlet(_end, report)
    if _drain is None:  # no call between test and assignment, so that no signal handler can run there
        _drain = drain
        drain.start_later(seconds)


def reset() -> None:
    """Undo `begin`, unless the jobs are already cancelled. Call from the hub's thread."""
    global _drain
    if _drain is not None:
        _drain.kill(block=False)
        _drain = None


def abandon() -> Abandoned:
    """Close the pool, cancel all its jobs, and return their labels. Their waiters get `JobCancelled` at once.

    Call from a greenlet or a plain thread. `greendata.configure` opens the pool again.

    Example:
        >>> import greendata
        >>> abandon()
        Abandoned(running=(), queued=())
        >>> _ = greendata.configure()
    """
    pending = pool.pending()
    running = [result.label for result in pending if result.status is Status.RUNNING or result.ready()]
    queued = [result.label for result in pending if result.status is Status.QUEUED]
    for result in pending:
        result.cancel(REASON)
    pool.drain(0)
    return Abandoned(tuple(sorted(running)), tuple(sorted(queued)))


def _end(report: Callable[[Abandoned], object]) -> None:
    report(abandon())
