"""How a process that has lost Polars' threads by a fork refuses to execute anything.

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

__all__ = ("refuse_all", "refuse_if", "resolve_a_schema")

_refusal = FunctionPatch(EXECUTIONS + HANDOFFS, "refusal", outermost=True)


def refuse_all() -> None:
    """Raise `PolarsForked` at every execution and every submit from now on."""
    pool.refuse(PolarsForked)
    _refusal.apply_to_existing(_refuse)


def refuse_if(was_lost: Callable[[], bool]) -> None:
    """Ask *was_lost* before every execution. If it says so, raise `PolarsForked` and log it.

    It is asked until it says so and has called `refuse_all`, which takes its place.
    """

    def ask_first(func: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(func)
        def asked(*args: Any, **options: Any) -> Any:
            if was_lost():
                if not workers.is_inline_thread():  # a worker never logs: a handler's patched lock would park it
                    logging.getLogger(__name__).error("%s", PolarsForked())
                raise PolarsForked
            return func(*args, **options)

        return asked

    _refusal.apply_to_existing(ask_first)


def resolve_a_schema() -> bool:
    """Resolve the schema of a plan in memory, past every patch. Polars starts its runtime for it, if it has none.

    False if this Polars has no such function.
    """
    func = original(COLLECT_SCHEMA)
    plan = native_plan(pl.LazyFrame({"a": [1]}))
    if func is None or plan is None:
        return False
    func(plan)
    return True


def _refuse(_func: Callable[..., Any]) -> Callable[..., Any]:
    def refused(*_args: object, **_options: object) -> None:
        raise PolarsForked

    return refused
