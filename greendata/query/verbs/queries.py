"""Run functions and queries: the verbs that neither read nor write files."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import polars as pl
from polars.lazyframe.opt_flags import DEFAULT_QUERY_OPT_FLAGS

from greendata.errors import BadArgument, RunsNoFunctions
from greendata.hub.checks import checked_count
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.query.batches import Batches
from greendata.query.choice import engine_for, is_made
from greendata.query.engine import GreenEngine
from greendata.query.options import lazy, options_for, place_query, submitted

if TYPE_CHECKING:
    from greendata.internals.polars import EngineType, ExplainFormat

__all__ = ("batches", "collect", "collect_all", "collect_schema", "explain", "run")

P = ParamSpec("P")
T = TypeVar("T")


# Type checkers compare the arguments with the function's parameters where none of the options is given. Python's
# types cannot express both at once (PEP 612 allows no keywords between *args and **kwargs).
@overload
def run(
    func: Callable[..., T],
    /,
    *args: Any,
    timeout: float | None,
    key: Hashable = ...,
    label: str | None = ...,
    engine: pl.Engine | None = ...,
    **kwargs: Any,
) -> Result[T]: ...
@overload
def run(
    func: Callable[..., T],
    /,
    *args: Any,
    timeout: float | None = ...,
    key: Hashable,
    label: str | None = ...,
    engine: pl.Engine | None = ...,
    **kwargs: Any,
) -> Result[T]: ...
@overload
def run(
    func: Callable[..., T],
    /,
    *args: Any,
    timeout: float | None = ...,
    key: Hashable = ...,
    label: str | None,
    engine: pl.Engine | None = ...,
    **kwargs: Any,
) -> Result[T]: ...
@overload
def run(
    func: Callable[..., T],
    /,
    *args: Any,
    timeout: float | None = ...,
    key: Hashable = ...,
    label: str | None = ...,
    engine: pl.Engine | str | None,
    **kwargs: Any,
) -> Result[T]: ...
@overload
def run(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Result[T]: ...
def run(  # type: ignore[misc]  # a func with parameters named as the options
    func: Callable[..., T],
    /,
    *args: Any,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
    engine: object = None,
    **kwargs: Any,
) -> Result[T]:
    """Run ``func(*args, **kwargs)`` in the pool, or in a child process. Safe from any thread.

    *func* runs in a native thread, with the caller's context variables. It must not use greenlets. If it takes
    arguments named timeout, key or label, bind them with `functools.partial`.

    With ``engine=ProcessEngine(...)`` it runs in a child of that engine: it does not hold this process's GIL, and a
    cancel or the deadline ends it with its memory. It is pickled, with cloudpickle if that is installed, and sees
    neither the context variables nor the globals of this process. Frames in its arguments and in its value are not
    copied by pickle. Another engine is passed on to *func* if that takes an engine, as ``lf.collect`` does.

    Args:
        func: a function, or any callable.
        args: its positional arguments.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the function's name if None.
        engine: a `ProcessEngine` in whose children it runs; None for a thread of this process.
        kwargs: its keyword arguments.

    Raises:
        NotCallable, AsyncFunction, BadTimeout, OptionTaken, RunsNoFunctions: an argument that cannot be used. Here and
            below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    The result raises what *func* raised; in a child also `NotSendable`, `WorkerDied`, `MemoryLimitExceeded` and
    `EngineClosed`.

    Example:
        >>> run(sorted, [3, 1, 2], reverse=True).get(timeout=5)
        [3, 2, 1]
    """
    place = None
    if engine is not None:
        found = engine.inner if isinstance(engine, GreenEngine) else engine
        place = getattr(found, "call", None)
        if place is None and not _takes_engine(func):
            raise RunsNoFunctions(engine)
        if place is None:
            kwargs["engine"] = engine
    return pool.run(func, args, kwargs, timeout=timeout, key=key, label=label, place=place)


def _takes_engine(func: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(func).parameters
    except (TypeError, ValueError):  # a native function without a signature
        return False
    return "engine" in parameters or any(found.kind is found.VAR_KEYWORD for found in parameters.values())


def collect(
    lf: pl.LazyFrame,
    *,
    engine: EngineType = "auto",
    optimizations: pl.QueryOptFlags = DEFAULT_QUERY_OPT_FLAGS,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Collect *lf*: ``lf.collect()`` in the pool. Safe from any thread.

    Args:
        lf: the query.
        engine: the engine that computes: "auto", "in-memory", "streaming", "gpu" or a `polars.Engine`.
        optimizations: the optimizations that Polars may use, a `polars.QueryOptFlags`.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; "collect" if None.

    Returns:
        The `Result` of the frame, at once. ``get()`` waits for it.

    Raises:
        NotAFrame, BadEngine, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        RouteFailed, BadSetting: the route, or the engine of the settings, failed.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> collect(pl.LazyFrame({"a": [1, 2, 3]}).filter(pl.col("a") > 1)).get(timeout=5).height
        2
    """
    work: Any = lazy(lf).collect
    if engine != "auto" or optimizations is not DEFAULT_QUERY_OPT_FLAGS or is_made():
        placed = engine_for(engine, "collect", label=label, key=key)
        work = partial(work, engine=placed, optimizations=optimizations)
    return pool.submit(work, timeout=timeout, key=key, label=label or "collect", depth=1)


def collect_all(
    lazy_frames: Iterable[pl.LazyFrame],
    *,
    optimizations: pl.QueryOptFlags = DEFAULT_QUERY_OPT_FLAGS,
    engine: EngineType = "auto",
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[list[pl.DataFrame]]:
    """Collect several frames as one job with `polars.collect_all`, which computes common parts once.

    Safe from any thread.

    Args:
        lazy_frames: the queries, in a list or another iterable.
        optimizations: the optimizations that Polars may use, a `polars.QueryOptFlags`.
        engine: the engine that computes: "auto", "in-memory", "streaming", "gpu" or a `polars.Engine`.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadArgument, BadEngine, BadTimeout: an argument that cannot be used. Here and below, nothing was
            queued.
        RouteFailed, BadSetting: the route, or the engine of the settings, failed.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> lf = pl.LazyFrame({"a": [1, 2, 3]})
        >>> [df.height for df in collect_all([lf, lf.head(1)]).get(timeout=5)]
        [3, 1]
    """
    given = locals()
    if isinstance(lazy_frames, pl.LazyFrame) or not isinstance(lazy_frames, Iterable):
        raise BadArgument("lazy_frames", lazy_frames, "several LazyFrames, for example a list")
    return submitted(collect_all, pl.collect_all, given, [lazy(lf) for lf in lazy_frames])


def batches(
    lf: pl.LazyFrame,
    *,
    chunk_size: int | None = None,
    maintain_order: bool = True,
    engine: EngineType = "auto",
    optimizations: pl.QueryOptFlags = DEFAULT_QUERY_OPT_FLAGS,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Batches[pl.DataFrame]:
    """Return the result of *lf* in batches while it is computed; see `Batches`. Safe from any thread.

    Args:
        lf: the query.
        chunk_size: the number of rows in a batch; None lets Polars choose.
        maintain_order: keep the order of the query's rows. False can be faster.
        engine: the engine that computes: "auto", "in-memory", "streaming", "gpu" or a `polars.Engine`.
        optimizations: the optimizations that Polars may use, a `polars.QueryOptFlags`.
        timeout: the deadline of the whole stream, in seconds; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the jobs in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadArgument, BadEngine, BadTimeout: an argument that cannot be used.
        RouteFailed, BadSetting: the route, or the engine of the settings, failed.

    Example:
        >>> with batches(pl.LazyFrame({"a": range(10)}), chunk_size=5) as stream:
        ...     sum(batch["a"].sum() for batch in stream)
        45
    """
    options = options_for(batches, lazy(lf).collect_batches, locals())
    place_query(batches, {"engine": engine, "label": label, "key": key}, options)
    if chunk_size is not None:
        checked_count("chunk_size", chunk_size)
    start = partial(lf.collect_batches, **options)
    return Batches(start, timeout=timeout, key=key, label=label or "batches")


def explain(
    lf: pl.LazyFrame,
    *,
    format: ExplainFormat = "plain",
    optimized: bool = True,
    engine: EngineType = "auto",
    optimizations: pl.QueryOptFlags = DEFAULT_QUERY_OPT_FLAGS,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[str]:
    """Return the query plan of *lf*: ``lf.explain()`` in the pool, because it may read files. Safe from any thread.

    Args:
        lf: the query.
        format: "plain" or "tree".
        optimized: the plan after the optimizations.
        engine: the engine for which the plan is made: "auto", "in-memory", "streaming", "gpu" or a `polars.Engine`.
        optimizations: the optimizations that Polars may use, a `polars.QueryOptFlags`.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadEngine, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> "FILTER" in explain(pl.LazyFrame({"a": [1]}).filter(pl.col("a") > 1)).get(timeout=5)
        True
    """
    return submitted(explain, lazy(lf).explain, locals())


def collect_schema(
    lf: pl.LazyFrame, *, timeout: float | None = None, key: Hashable = None, label: str | None = None
) -> Result[pl.Schema]:
    """Return the schema of *lf*: ``lf.collect_schema()`` in the pool, because it may read files. Safe from any thread.

    Args:
        lf: the query.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> dict(collect_schema(pl.LazyFrame({"a": [1]})).get(timeout=5))
        {'a': Int64}
    """
    return submitted(collect_schema, lazy(lf).collect_schema, locals())
