"""How a server process ends: requests that are under way finish, and what takes too long is cancelled in time.

A server that is told to stop gives its requests some seconds and then kills them; a query that still runs is
killed with it, and nobody is told. So the process begins to drain when it is told to stop, and shortly before the
end cancels what waits and what runs: each request still gets its answer, a 503, and the log gets the names.
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
    """What was cancelled at the end, by label.

    Attributes:
        running: native calls that go on until they return or the process is gone.
        queued: jobs that never began.

    Example:
        >>> Abandoned(running=("report",), queued=())
        Abandoned(running=('report',), queued=())
    """

    running: tuple[str, ...]
    queued: tuple[str, ...]


_drain: gevent.Greenlet[..., None] | None = None  # the main thread's hub; a fork before any request leaves it None


def is_draining() -> bool:
    """True once `begin` was called: the process takes no new requests, and will end. Safe from any thread.

    Example:
        >>> is_draining()
        False
    """
    return _drain is not None


def begin(seconds: float, tell: Callable[[Abandoned], object]) -> None:
    """Note that the process is to end, and call ``tell(abandon())`` in *seconds*. Only the first call counts.

    Until then requests that are under way may ask for more work. Call from the hub's thread; a signal handler may.

    Example:
        >>> begin(60.0, print)
        >>> is_draining()
        True
        >>> reset()
    """
    global _drain
    drain = gevent.Greenlet(_end, tell)
    if _drain is None:  # tested and set without a call between, at which a signal handler may come in
        _drain = drain
        drain.start_later(seconds)


def reset() -> None:
    """Take `begin` back, if it is not too late. Call from the hub's thread."""
    global _drain
    if _drain is not None:
        _drain.kill(block=False)
        _drain = None


def abandon() -> Abandoned:
    """Close the pool, cancel all its jobs, and return which they were. Their waiters get `JobCancelled` at once.

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


def _end(tell: Callable[[Abandoned], object]) -> None:
    tell(abandon())
