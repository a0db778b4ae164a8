"""Make every Polars execution raise `PolarsForked` in a process that has lost Polars' threads by a fork.

See `greendata.query.patching.fork_guard`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import polars as pl

from greendata.errors import PolarsForked
from greendata.internals.polars import COLLECT_SCHEMA, EXECUTIONS, HANDOFFS, native_plan
from greendata.pool import pool, workers
from greendata.query.patching.function_patch import FunctionPatch, original

__all__ = ("fail_all", "fail_if", "resolve_schema")

_patch = FunctionPatch(EXECUTIONS + HANDOFFS, "a fork", outermost=True)


def fail_all() -> None:
    """Make every execution and every submit raise `PolarsForked` from now on."""
    pool.refuse(PolarsForked)
    _patch.apply_to_existing(_fail)


def fail_if(was_lost: Callable[[], bool]) -> None:
    """Call *was_lost* before every execution. If it returns True, log and raise `PolarsForked`.

    *was_lost* calls `fail_all` before it returns True. That replaces this patch, so the error is logged once.
    """

    def check_first(func: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(func)
        def check_and_run(*args: Any, **options: Any) -> Any:
            if was_lost():
                if not workers.is_inline_thread():  # a worker must not log: a handler's patched lock would block it
                    logging.getLogger(__name__).error("%s", PolarsForked())
                raise PolarsForked
            return func(*args, **options)

        return check_and_run

    _patch.apply_to_existing(check_first)


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


def _fail(_func: Callable[..., Any]) -> Callable[..., Any]:
    def raise_forked(*_args: object, **_options: object) -> None:
        raise PolarsForked

    return raise_forked
