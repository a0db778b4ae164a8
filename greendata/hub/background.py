"""A function in the background: in a greenlet of this thread's hub, so that it may wait, and stops where it waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

from gevent._hub_local import get_hub_if_exists

from greendata.hub import pool
from greendata.hub.caller import Caller
from greendata.hub.crew import is_inline_thread
from greendata.hub.deadline import deadline, seconds_of
from greendata.hub.result import Result

__all__ = ("in_background",)

T = TypeVar("T")


def in_background(func: Callable[[], T], *, timeout: float | None = None) -> Result[T]:
    """Begin ``func()`` in a greenlet and return its result at once; in a thread without a hub, in the pool.

    Cancelling the result kills the greenlet, and with it the jobs that it waits for. Safe from any thread.

    Args:
        timeout: the deadline in seconds, of *func* and of all jobs that it submits.

    Raises:
        BadTimeout: *timeout* is negative or NaN.
        PoolFull, PoolClosed: in a thread without a hub.

    Example:
        >>> in_background(lambda: 42).get(timeout=5)
        42
    """
    seconds = seconds_of(timeout)
    if get_hub_if_exists() is None or is_inline_thread():
        return pool.submit(func, timeout=seconds)
    with nullcontext() if seconds is None else deadline(seconds):
        return Caller.current().call_soon(func)
