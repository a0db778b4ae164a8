"""Make every Polars execution raise `PolarsForked` in a process that has lost Polars' threads by a fork.

See `greendata.query.patching.fork_guard`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial, wraps
from importlib import import_module
from typing import Any

import polars as pl

from greendata.errors import PolarsForked
from greendata.internals.polars import COLLECT_SCHEMA, EXECUTIONS, HANDOFFS, THREADED, UNTHREADED, native_plan
from greendata.pool import pool, workers
from greendata.query.patching.function_patch import FunctionPatch, function_named, original

__all__ = ("fail_all", "fail_if", "prepare", "resolve_schema")

_AFTER_FORK = "greendata.engines.after_fork"  # above this package; imported if the setting asks for it

_patches = [FunctionPatch((name,), "a fork", outermost=True) for name in (*EXECUTIONS, *HANDOFFS)]
# While queries run elsewhere, or may come to: written by the threads that call `fail_all` and `fail_if`.
_more_patches: list[FunctionPatch] = []
_is_lost = False  # set once, by the thread that finds out
_was_lost: Callable[[], bool] | None = None  # set by `fail_if`


def prepare() -> None:
    """Import what `fail_all` needs, in the parent: in the child of a fork an import lock may be held."""
    if _runs_elsewhere():
        import_module(_AFTER_FORK)


def fail_all() -> None:
    """Make every execution and every submit raise `PolarsForked` from now on, or run in child processes."""
    global _is_lost
    _is_lost = True
    while _more_patches:
        _more_patches.pop().undo()
    if not _runs_elsewhere():
        pool.refuse(PolarsForked)
        for patch in _patches:
            patch.apply_to_existing(_fail)
        return
    after_fork = import_module(_AFTER_FORK)
    after_fork.begin()
    pool.refuse(None)
    _more_patches.extend(_other_patches())
    for patch in (*_patches, *_more_patches):
        (name,) = patch.names
        if name in UNTHREADED:
            patch.undo()
        else:
            patch.apply_to_existing(after_fork.REPLACEMENTS.get(name, _fail_alone))


def fail_if(was_lost: Callable[[], bool]) -> None:
    """Call *was_lost* before every execution. If it returns True, log and raise `PolarsForked`.

    *was_lost* calls `fail_all` before it returns True. That replaces this patch, so the error is logged once.

    Where queries are to run in child processes, the other functions that differ there are checked as well, such as
    ``df.lazy()``: a plan that was made before the check could not be sent.
    """
    global _was_lost
    _was_lost = was_lost
    if _runs_elsewhere() and not _more_patches:
        _more_patches.extend(_other_patches())

    def check_first(name: str, func: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(func)
        def check_and_run(*args: Any, **options: Any) -> Any:
            if was_lost():
                if _runs_elsewhere():
                    return function_named(name)(*args, **options)  # that took the place of this one
                if not workers.is_inline_thread():  # a worker must not log: a handler's patched lock would block it
                    logging.getLogger(__name__).error("%s", PolarsForked())
                raise PolarsForked
            return func(*args, **options)

        return check_and_run

    for patch in (*_patches, *_more_patches):
        patch.apply_to_existing(partial(check_first, patch.names[0]))


def resolve_schema() -> bool:
    """Resolve the schema of an in-memory plan without any patch. Polars starts its tokio runtime for it if needed.

    Return False if this Polars has no such function.
    """
    func = original(COLLECT_SCHEMA)
    plan = native_plan(pl.LazyFrame({"a": [1]}))
    if func is None or plan is None:
        return False
    func(plan)
    return True


def _other_patches() -> Iterator[FunctionPatch]:
    """Yield a patch for each function that is replaced only where queries run in child processes."""
    replacements = import_module(_AFTER_FORK).REPLACEMENTS
    for name in {*THREADED, *replacements}.difference(EXECUTIONS, HANDOFFS):
        yield FunctionPatch((name,), "a fork", outermost=True)


def _runs_elsewhere() -> bool:
    return bool(pool.shared.settings.on_fork == "process")


def _follow_settings() -> None:
    if _is_lost:
        fail_all()
    elif _was_lost is not None and _runs_elsewhere():
        fail_if(_was_lost)


def _fail_alone(func: Callable[..., Any]) -> Callable[..., Any]:
    def raise_forked(*_args: object, **_options: object) -> None:
        raise PolarsForked(func.__qualname__)

    return raise_forked


def _fail(_func: Callable[..., Any]) -> Callable[..., Any]:
    def raise_forked(*_args: object, **_options: object) -> None:
        raise PolarsForked

    return raise_forked


pool.settings_listeners += (_follow_settings,)
