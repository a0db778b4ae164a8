"""Warnings that name each Polars execution which runs on a hub's thread, where it stops every greenlet."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from time import monotonic
from typing import Any

from greendata.hub.contexts import contextmanager
from greendata.internals.gevent import get_hub_if_exists
from greendata.internals.polars import EXECUTIONS
from greendata.observe.site import calling_frame
from greendata.pool.workers import is_inline_thread
from greendata.query.patching.function_patch import FunctionPatch

__all__ = ("HubBlockedWarning", "warn_on_block")

_patch = FunctionPatch(EXECUTIONS, "warnings", innermost=True)
_open: list[None] = []  # one for each `warn_on_block` block; any thread appends and pops, one C call each


class HubBlockedWarning(RuntimeWarning):
    """A Polars execution ran on a hub's thread, and every greenlet of the hub waited for it.

    Attributes:
        function: the native function that ran.
        seconds: how long.

    Example:
        >>> print(HubBlockedWarning("collect", 1.2))
        collect ran on the hub's thread; use greendata.patch_polars(), a verb of greendata, or greendata.run
    """

    def __init__(self, function: str, seconds: float) -> None:
        super().__init__(function, seconds)
        self.function = function
        self.seconds = seconds

    def __str__(self) -> str:  # the same for each run of a line: Python's filters know it again by its text
        return (
            f"{self.function} ran on the hub's thread; "
            "use greendata.patch_polars(), a verb of greendata, or greendata.run"
        )


@contextmanager
def warn_on_block() -> Iterator[None]:
    """Warn of each Polars execution that runs on a hub's thread inside the block, at the line that called it.

    What goes through the pool is silent, and so are threads without a hub. The block is for the process, not for
    the calling greenlet alone. The warning comes when the execution is over; Python's filters decide what becomes of
    it, and by default each line is told of once.

    Raises:
        SeamMissing: the Polars in place cannot be watched.

    Example:
        >>> import gevent, polars as pl
        >>> hub = gevent.get_hub()
        >>> with warnings.catch_warnings(record=True) as caught, warn_on_block():
        ...     warnings.simplefilter("always")
        ...     height = pl.LazyFrame({"a": [1, 2]}).collect().height
        >>> caught[0].category.__name__, caught[0].lineno
        ('HubBlockedWarning', 3)
    """
    _open.append(None)
    try:
        if not _patch.is_applied:
            _patch.apply(_warned)
        yield
    finally:
        _open.pop()
        if not _open:
            _patch.undo()


def _warned(func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    def run_and_warn(*args: Any, **kwargs: Any) -> Any:
        if get_hub_if_exists() is None or is_inline_thread():
            return func(*args, **kwargs)
        began = monotonic()
        try:
            return func(*args, **kwargs)
        finally:
            _warn(func.__name__, monotonic() - began)

    return run_and_warn


def _warn(function: str, seconds: float) -> None:
    frame = calling_frame()
    if frame is not None:
        warnings.warn_explicit(
            HubBlockedWarning(function, seconds),
            category=HubBlockedWarning,
            filename=frame.f_code.co_filename,
            lineno=frame.f_lineno,
            module=frame.f_globals.get("__name__"),
            registry=frame.f_globals.setdefault("__warningregistry__", {}),
        )
