"""Run queries in child processes, in a process that has lost Polars' threads in a fork.

``greendata.configure(on_fork="process")`` asks for it, so that ``gunicorn --preload`` works although the application
runs queries when it is imported. `greendata.query.patching.polars_forked` puts the functions of `REPLACEMENTS` in the
place of Polars' native ones, in the forked process only.

What works: `collect`, `collect_all`, batches, sinks to paths, `explain` and the schema of a LazyFrame; eager
operations and readers that Polars runs as such queries. What Polars computes natively on a frame otherwise raises
`PolarsForked`. So does a LazyFrame from before the fork whose frame has several chunks: Polars would combine these in
its threads. A DataFrame from before the fork may have any number of chunks: they reach a child once, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import polars as pl

from greendata.engines.plans import combine_chunks
from greendata.engines.process import ProcessEngine
from greendata.engines.sharing import share
from greendata.errors import PolarsForked
from greendata.hub import native
from greendata.internals.polars import frame_of, native_frame, native_name, native_plan, plan_of

__all__ = ("REPLACEMENTS", "begin")

SERIALIZE_TIMEOUT = 10.0  # seconds for a plan, which takes milliseconds unless Polars waits for its threads


def begin() -> None:
    """Prepare this process, which was forked."""
    combine_chunks()


@cache
def _engine() -> ProcessEngine:
    return ProcessEngine()


def _collect(_func: Any, plan: Any, engine: str = "auto", *_: Any) -> Any:
    return native_frame(_engine().collect(plan_of(plan), engine=engine, optimizations=pl.QueryOptFlags()))


def _collect_all(_func: Any, plans: list[Any], engine: str = "auto", *_: Any) -> list[Any]:
    lfs = [plan_of(plan) for plan in plans]
    frames = _engine().collect_all(lfs, engine=engine, optimizations=pl.QueryOptFlags())
    return [native_frame(frame) for frame in frames]


def _collect_batches(_func: Any, plan: Any, **options: Any) -> Iterator[Any]:
    return map(native_frame, _engine().collect_batches(plan_of(plan), **options, optimizations=pl.QueryOptFlags()))


def _ask_plan(func: Any, plan: Any, *args: Any, **options: Any) -> Any:
    return _engine().call(_native_result, func.__name__, plan_of(plan), args, options)


def _native_result(name: str, lf: pl.LazyFrame, args: Any, options: Any) -> Any:
    """Return what a native function returns, in a child."""
    return getattr(native_plan(lf), name)(*args, **options)


def _lazy(_func: Any, frame: Any) -> Any:
    """Return a plan whose data travel apart: in the plan, Polars would combine the chunks in its threads."""
    whole = frame_of(frame)
    return native_plan(share(whole, list(_parts(whole))))


def _parts(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield parts of *frame* whose columns have one chunk each."""
    ends = {0, frame.height}
    for column in frame.get_columns():
        ends.update(accumulate(column.chunk_lengths()))
    for begin, end in pairwise(sorted(ends)):
        yield frame.slice(begin, end - begin)
    if not frame.height:
        yield frame


def _serialize(func: Any, plan: Any, *args: Any) -> None:
    """Serialize a plan. A thread is lost where Polars waits for its own."""
    raised: list[BaseException] = []
    done = native.allocate_lock()
    done.acquire()

    def serialize() -> None:
        try:
            func(plan, *args)
        except BaseException as error:  # noqa: BLE001 - it is raised below
            raised.append(error)
        done.release()

    native.start_thread(serialize, ())
    if not done.acquire(timeout=SERIALIZE_TIMEOUT):
        raise PolarsForked("a LazyFrame from before the fork whose frame has several chunks (see DataFrame.rechunk)")
    if raised:
        raise raised[0]


def _concat(_func: Any, frames: Any) -> Any:
    lfs = [(frame if isinstance(frame, pl.DataFrame) else frame_of(frame)).lazy() for frame in frames]
    return native_frame(pl.concat(lfs).collect())


def _with_one_chunk(func: Any, frame: Any, *args: Any) -> Any:
    """Call *func* with a frame whose columns have one chunk each: a child combines them if there are more."""
    whole = frame_of(frame)
    if _has_several_chunks(whole):
        whole = _engine().call(_rechunked, share(whole, list(_parts(whole))))
        if _has_several_chunks(whole):
            raise PolarsForked(f"{func.__qualname__} of a frame with several chunks")
        frame = native_frame(whole)
    return func(frame, *args)


def _has_several_chunks(frame: pl.DataFrame) -> bool:
    return max(frame.n_chunks("all"), default=1) > 1


def _rechunked(lf: pl.LazyFrame) -> pl.DataFrame:
    """Return the frame of a query, in a child."""
    return lf.collect().rechunk()


def _in_place_of(replacement: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a wrapper of native functions, which calls *replacement* with the function and the arguments."""

    def wrap(func: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: replacement(func, *args, **options)

    return wrap


_BY_NAME: dict[str, Callable[..., Any]] = {
    "PyDataFrame.lazy": _lazy,
    "PyDataFrame.rechunk": _with_one_chunk,
    "PyDataFrame.row_tuples": _with_one_chunk,
    "PyDataFrame.write_ipc_stream": _with_one_chunk,
    "PyLazyFrame.collect": _collect,
    "PyLazyFrame.collect_batches": _collect_batches,
    "PyLazyFrame.collect_schema": _ask_plan,
    "PyLazyFrame.describe_optimized_plan": _ask_plan,
    "PyLazyFrame.describe_optimized_plan_tree": _ask_plan,
    "PyLazyFrame.describe_plan": _ask_plan,
    "PyLazyFrame.describe_plan_tree": _ask_plan,
    "PyLazyFrame.serialize_binary": _serialize,
    "collect_all": _collect_all,
    "concat_df": _concat,
}
REPLACEMENTS = {native_name(name): _in_place_of(replacement) for name, replacement in _BY_NAME.items()}
