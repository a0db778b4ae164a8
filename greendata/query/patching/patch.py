"""The patch: Polars' own functions, sent through the pool when a greenlet calls them. See `greendata.monkey`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from greendata.internals.polars import EXECUTIONS
from greendata.pool import pool
from greendata.query.patching import fork_guard  # noqa: F401 - its hooks tell a forked child that Polars' threads are gone
from greendata.query.patching.function_patch import FunctionPatch
from greendata.threads import sharing

__all__ = ("is_polars_patched", "patch_polars", "unpatch_polars")

_patch = FunctionPatch(EXECUTIONS, "the pool")


def patch_polars() -> None:
    """Make every Polars execution yield to the hub. Idempotent; before or after `patch_all`, as you like.

    Each execution becomes a switch point: another greenlet may run between ``df.filter(...)`` and the next line.

    A function that the Polars in place lacks, since it is newer than this greendata, is a `RuntimeWarning`. What has
    taken its place runs as without the patch.

    Raises:
        SeamMissing: it lacks one of the few that every query goes through; nothing was patched.

    Example:
        >>> patch_polars()
        >>> is_polars_patched()
        True
        >>> unpatch_polars()
    """
    sharing.share()
    if not _patch.is_applied:
        _patch.apply(_through_the_pool)


def unpatch_polars() -> None:
    """Take the patch back. Idempotent; executions that are on their way come to their end.

    Example:
        >>> unpatch_polars()
    """
    _patch.undo()


def is_polars_patched() -> bool:
    """True between `patch_polars` and `unpatch_polars`.

    Example:
        >>> is_polars_patched()
        False
    """
    return _patch.is_applied


def _through_the_pool(func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    def run_in_the_pool(*args: Any, **kwargs: Any) -> Any:
        return pool.call(func, *args, **kwargs)

    return run_in_the_pool
