"""The patch that runs Polars' functions in the pool when a greenlet calls them. See `greendata.monkey`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from greendata.internals.polars import EXECUTIONS
from greendata.pool import pool
from greendata.query.patching import fork_guard  # noqa: F401 - its fork hooks are needed
from greendata.query.patching.function_patch import FunctionPatch
from greendata.threads import sharing

__all__ = ("is_polars_patched", "patch_polars", "unpatch_polars")

_patch = FunctionPatch(EXECUTIONS, "the pool")


def patch_polars() -> None:
    """Make every Polars execution yield to the hub. Idempotent. Call it before or after `patch_all`.

    Each execution becomes a switch point: another greenlet may run between ``df.filter(...)`` and the next line.

    If the installed Polars is newer than this greendata and lacks one of the functions, a `RuntimeWarning` is issued.
    Functions that have replaced it are not patched.

    Raises:
        SeamMissing: Polars lacks a function that every query uses. Nothing was patched.

    Example:
        >>> patch_polars()
        >>> is_polars_patched()
        True
        >>> unpatch_polars()
    """
    sharing.share()
    if not _patch.is_applied:
        _patch.apply(_submit_to_pool)


def unpatch_polars() -> None:
    """Remove the patch. Idempotent. Executions that have started continue to their end.

    Example:
        >>> unpatch_polars()
    """
    _patch.undo()


def is_polars_patched() -> bool:
    """Return True between `patch_polars` and `unpatch_polars`.

    Example:
        >>> is_polars_patched()
        False
    """
    return _patch.is_applied


def _submit_to_pool(func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    def run_in_the_pool(*args: Any, **kwargs: Any) -> Any:
        return pool.execute(func, *args, **kwargs)

    return run_in_the_pool
