"""`GreenEngine`: a Polars engine that blocks the calling greenlet but not the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.lazyframe.engine_config import get_engine_affinity_override

from greendata.errors import BadEngine
from greendata.internals.polars import engine_affinity, engine_named
from greendata.pool import pool
from greendata.query.batches import Batches

if TYPE_CHECKING:
    from polars.lazyframe.query_result import QueryResult

    from greendata.internals.polars import EngineType

__all__ = ("GreenEngine", "engine_of")


class GreenEngine(pl.Engine):
    """A Polars engine that runs another one in the pool.

    ``lf.collect(engine=GreenEngine())`` blocks the calling greenlet and not the hub;
    ``lf.collect_async(gevent=True, engine=GreenEngine())`` returns a `Result`. If it is set
    as the process-wide engine affinity (``pl.Config.set_engine_affinity``), it serves every call without an engine.

    Arguments are passed through unchanged, so the engines of every Polars 2 release work. Errors are those of the
    inner engine. Safe from any thread; in a thread without a hub the query runs inline.

    Args:
        inner: the engine that computes: a name, or any `polars.Engine`. "auto" is the engine that Polars would use:
            its engine affinity, or else its default.

    Raises:
        BadEngine: *inner* is not an engine.

    Example:
        >>> lf = pl.LazyFrame({"a": [1, 2, 3]})
        >>> lf.collect(engine=GreenEngine("streaming")).height
        3
        >>> lf.collect_async(gevent=True, engine=GreenEngine()).get(timeout=5).height
        3
    """

    def __init__(self, inner: EngineType = "auto") -> None:
        self._inner = inner if inner == "auto" else engine_of(inner)

    @property
    def inner(self) -> pl.Engine:
        """The engine that computes."""
        if isinstance(self._inner, pl.Engine):
            return self._inner
        affinity = get_engine_affinity_override()
        if affinity is None or isinstance(affinity, GreenEngine):
            return engine_of(engine_affinity())
        return affinity

    @property
    def name(self) -> str:
        """The inner engine's name with a prefix, because Polars replaces an engine that is named "auto"."""
        return f"green {self.inner.name}"

    @property
    def plan_engine(self) -> str:
        """The engine name that query plans are rendered for."""
        return self.inner.plan_engine

    def __repr__(self) -> str:
        return f"GreenEngine({self._inner!r})"

    def collect(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """See `polars.Engine.collect`. A background query is returned by the inner engine unchanged."""
        if options.get("background"):
            return self.inner.collect(lf, **options)
        collect: Callable[..., Any] = self.inner.collect
        return pool.execute(collect, lf, **options)

    def collect_all(self, lfs: Iterable[pl.LazyFrame], **options: Any) -> list[pl.DataFrame]:
        """See `polars.Engine.collect_all`."""
        return pool.execute(self.inner.collect_all, list(lfs), **options)

    def execute(self, lf: pl.LazyFrame, **options: Any) -> QueryResult:
        """See `polars.Engine.execute`."""
        return pool.execute(self.inner.execute, lf, **options)

    def collect_async(self, lf: pl.LazyFrame, *, gevent: bool = False, **options: Any) -> Any:
        """Return a `Result` of the frame, or with ``gevent=False`` the awaitable of the inner engine."""
        if not gevent:
            return self.inner.collect_async(lf, gevent=False, **options)
        return pool.submit(partial(self.inner.collect, lf, **options), label="collect")

    def collect_all_async(self, lfs: Iterable[pl.LazyFrame], *, gevent: bool = False, **options: Any) -> Any:
        """Return a `Result` of the frames, or with ``gevent=False`` the awaitable of the inner engine."""
        if not gevent:
            return self.inner.collect_all_async(lfs, gevent=False, **options)
        return pool.submit(partial(self.inner.collect_all, list(lfs), **options), label="collect_all")

    def collect_batches(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """Return the frame in `Batches`."""
        inner = self.inner
        if inner.name == "auto":  # "auto" does not stream; Polars makes the same choice
            inner = engine_of("streaming")
        return Batches(partial(inner.collect_batches, lf, **options))


def _sink(name: str) -> Callable[..., None]:
    def sink(self: GreenEngine, lf: pl.LazyFrame, *args: Any, **options: Any) -> None:
        pool.execute(getattr(self.inner, name), lf, *args, **options)

    sink.__name__ = name
    sink.__qualname__ = f"GreenEngine.{name}"
    sink.__doc__ = f"See `polars.Engine.{name}`."
    return sink


for _name in [name for name in vars(pl.Engine) if name.startswith("sink_")]:
    setattr(GreenEngine, _name, _sink(_name))


def engine_of(engine: object) -> pl.Engine:
    """Return the engine with the name *engine*, or *engine* itself if it is one.

    Raises:
        BadEngine: *engine* is neither.
    """
    if isinstance(engine, pl.Engine):
        return engine
    if not isinstance(engine, str):
        raise BadEngine(engine)
    try:
        return engine_named(engine)
    except ValueError as error:
        raise BadEngine(engine) from error
