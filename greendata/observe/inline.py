"""Warn of each Polars execution that runs on a hub's thread, where it blocks every greenlet."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from time import monotonic
from typing import Any

from greendata.hub.contexts import contextmanager
from greendata.hub.origin import calling_frame
from greendata.internals.gevent import get_hub_if_exists
from greendata.internals.polars import EXECUTIONS
from greendata.pool.workers import is_inline_thread
from greendata.query.patching.function_patch import FunctionPatch

__all__ = ("HubBlockedWarning", "warn_on_block")

_patch = FunctionPatch(EXECUTIONS, "warnings", innermost=True)
_open_blocks: list[None] = []  # one for each `warn_on_block` block; any thread appends and pops, one C call each


class HubBlockedWarning(RuntimeWarning):
    """A Polars execution ran on a hub's thread, and every greenlet of the hub waited for it.

    Attributes:
        function: the native function that ran.
        seconds: how long it ran.

    Example:
        >>> print(HubBlockedWarning("collect", 1.2))
        collect ran on the hub's thread; use greendata.patch_polars(), a verb of greendata, or greendata.run
    """

    def __init__(self, function: str, seconds: float) -> None:
        super().__init__(function, seconds)
        self.function = function
        self.seconds = seconds

    def __str__(self) -> str:  # without the seconds: Python's filters recognize a repeated warning by its text
        return (
            f"{self.function} ran on the hub's thread; "
            "use greendata.patch_polars(), a verb of greendata, or greendata.run"
        )


@contextmanager
def warn_on_block() -> Iterator[None]:
    """Warn of each Polars execution that runs on a hub's thread inside the block, at the line that called it.

    Executions in the pool and in threads without a hub give no warning. The block applies to the whole process, not
    only to the calling greenlet. The warning is issued when the execution has ended. Python's filters apply to it; by
    default each line is reported once.

    Raises:
        SeamMissing: the installed Polars cannot be watched.

    Example:
        >>> import gevent, polars as pl
        >>> hub = gevent.get_hub()
        >>> with warnings.catch_warnings(record=True) as caught, warn_on_block():
        ...     warnings.simplefilter("always")
        ...     height = pl.LazyFrame({"a": [1, 2]}).collect().height
        >>> caught[0].category.__name__, caught[0].lineno
        ('HubBlockedWarning', 3)
    """
    _open_blocks.append(None)
    try:
        if not _patch.is_applied:
            _patch.apply(_with_warning)
        yield
    finally:
        _open_blocks.pop()
        if not _open_blocks:
            _patch.undo()


def _with_warning(func: Callable[..., Any]) -> Callable[..., Any]:
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
