"""Timeouts and deadlines: check numbers of seconds, and pass the deadline of a block on to the jobs in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextvars import ContextVar
from time import monotonic
from typing import NamedTuple

from greendata.errors import BadTimeout
from greendata.hub.checks import is_number
from greendata.hub.contexts import contextmanager

__all__ = ("Limit", "clear_deadline", "current_deadline", "deadline", "nearest_limit", "seconds_of", "within")


class Limit(NamedTuple):
    """A deadline, and the number of seconds that was given for it, which error messages show.

    Attributes:
        until: the deadline, on `time.monotonic`'s clock.
        seconds: as given to the job or to a block around it, not the seconds that are left.
        in_block: whether a block around the job has set it.

    Example:
        >>> min(Limit(until=10.0, seconds=5.0), Limit(until=20.0, seconds=1.0)).seconds
        5.0
    """

    until: float
    seconds: float
    in_block: bool = False


_limit: ContextVar[Limit | None] = ContextVar("greendata.deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[float]:
    """Set a deadline for every job that is submitted inside the block. The nearest deadline applies.

    Jobs submitted in the block fail with `DeadlineExceeded` when it passes, even after the block was left.
    Greenlets spawned in the block do not inherit it, because gevent does not copy context variables.

    Args:
        seconds: from now, >= 0.

    Yields:
        The deadline on `time.monotonic`'s clock.

    Raises:
        BadTimeout: *seconds* is negative, NaN or not a number.

    Example:
        >>> import greendata
        >>> with greendata.deadline(5.0), greendata.deadline(60.0) as nearest:
        ...     total = greendata.run(sum, [1, 2]).get()
        >>> total
        3
    """
    checked = seconds_of(seconds)
    if checked is None:
        raise BadTimeout(seconds)
    limit = nearest_limit(checked)
    with within(None if limit is None else limit._replace(in_block=True)):
        yield math.inf if limit is None else limit.until


@contextmanager
def within(limit: Limit | None) -> Iterator[None]:
    """Set a deadline like `deadline`, from a limit that `nearest_limit` returned earlier.

    Example:
        >>> with within(Limit(until=10.0, seconds=5.0)), within(None), within(Limit(until=20.0, seconds=1.0)):
        ...     current_deadline()
        10.0
    """
    around = _limit.get()
    token = _limit.set(min(filter(None, (limit, around)), default=None))
    try:
        yield
    finally:
        _limit.reset(token)


def clear_deadline() -> None:
    """Remove the deadline from the current context.

    Example:
        >>> from contextvars import copy_context
        >>> with deadline(5.0):
        ...     context = copy_context()
        >>> context.run(clear_deadline)
        >>> context.run(current_deadline) is None
        True
    """
    _limit.set(None)


def current_deadline() -> float | None:
    """Return the nearest deadline of the blocks around the caller, on `time.monotonic`'s clock; None without one."""
    limit = _limit.get()
    return None if limit is None else limit.until


def nearest_limit(seconds: float | None) -> Limit | None:
    """Return the nearer of *seconds* from now and the deadline of the blocks around the caller; None without either."""
    around = _limit.get()
    if seconds is None or math.isinf(seconds):
        return around
    limit = Limit(monotonic() + seconds, seconds)
    return limit if around is None else min(limit, around)


def seconds_of(timeout: object) -> float | None:
    """Return *timeout* as a float of seconds, or None if it is None.

    Raises:
        BadTimeout: *timeout* is negative, NaN or not a number.

    Example:
        >>> seconds_of(2)
        2.0
    """
    if timeout is None:
        return None
    if not is_number(timeout):
        raise BadTimeout(timeout)
    return float(timeout)
