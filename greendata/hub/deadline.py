"""Timeouts and deadlines: what a number of seconds means, and the deadline that a block hands down."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextvars import ContextVar
from time import monotonic

from greendata.errors import BadTimeout
from greendata.hub.blocks import contextmanager

__all__ = ("current_deadline", "deadline", "nearest", "seconds_of")

_deadline: ContextVar[float | None] = ContextVar("greendata.deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[float]:
    """Give every job that is submitted inside the block until then; the nearest deadline wins.

    Jobs submitted in the block fail with `DeadlineExceeded` when it passes, also after the block was left.
    Greenlets that the block spawns do not inherit it: gevent hands context variables to nobody.

    Args:
        seconds: from now, >= 0.

    Yields:
        The deadline on `time.monotonic`'s clock.

    Raises:
        BadTimeout: *seconds* is negative, NaN or no number.

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
    until = nearest(checked)
    token = _deadline.set(until)
    try:
        yield math.inf if until is None else until
    finally:
        _deadline.reset(token)


def current_deadline() -> float | None:
    """The deadline of the innermost blocks around the caller, on `time.monotonic`'s clock; None without one."""
    return _deadline.get()


def nearest(seconds: float | None) -> float | None:
    """The nearer of *seconds* from now and the deadline of the blocks around the caller."""
    around = _deadline.get()
    if seconds is None or math.isinf(seconds):
        return around
    until = monotonic() + seconds
    return until if around is None else min(until, around)


def seconds_of(timeout: object) -> float | None:
    """*timeout* as seconds, None if it is None.

    Raises:
        BadTimeout: it is negative, NaN or no number.

    Example:
        >>> seconds_of(2)
        2.0
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise BadTimeout(timeout)
    return float(timeout)
