"""The patch that runs Polars' functions in the pool when a greenlet calls them. See `greendata.monkey`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import polars as pl
from polars.lazyframe.engine_config import get_engine_affinity_override

from greendata.internals.polars import ENGINE_CHOICES, EXECUTIONS
from greendata.pool import pool
from greendata.query import choice
from greendata.query.engine import GreenEngine, NamedEngine
from greendata.query.patching import fork_guard  # noqa: F401 - its fork hooks are needed
from greendata.query.patching.function_patch import FunctionPatch
from greendata.threads import sharing

__all__ = ("is_polars_patched", "patch_polars", "unpatch_polars")

_patch = FunctionPatch(EXECUTIONS, "the pool")
_engines = FunctionPatch(ENGINE_CHOICES, "the engine")  # applied while the other is, and a place was chosen


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
        _follow_choice()


def unpatch_polars() -> None:
    """Remove the patch. Idempotent. Executions that have started continue to their end.

    Example:
        >>> unpatch_polars()
    """
    _patch.undo()
    _follow_choice()


def is_polars_patched() -> bool:
    """Return True between `patch_polars` and `unpatch_polars`.

    Example:
        >>> is_polars_patched()
        False
    """
    return _patch.is_applied


def _follow_choice() -> None:
    """Have Polars choose engines by `greendata.query.choice`, or as usual. Idempotent. Safe from any thread."""
    if not (_patch.is_applied and choice.is_made()):
        _engines.undo()
    elif not _engines.is_applied:
        _engines.apply(_choose)


def _choose(func: Callable[[Any], pl.Engine]) -> Callable[[Any], pl.Engine]:
    green = {name: NamedEngine(name) for name in ("in-memory", "streaming")} | {"auto": GreenEngine()}

    @wraps(func)
    def choose(engine: Any) -> pl.Engine:
        if not isinstance(engine, str) or engine not in green:
            return func(engine)
        if engine == "auto" and get_engine_affinity_override() is not None:
            return func(engine)  # an engine object that the program has set in Polars' own way
        return green[engine]

    return choose


choice.listeners += (_follow_choice,)


def _submit_to_pool(func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    def run_in_the_pool(*args: Any, **kwargs: Any) -> Any:
        return pool.execute(func, *args, **kwargs)

    return run_in_the_pool
