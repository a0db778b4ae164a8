"""`GreenEngine`: a Polars engine that blocks the calling greenlet but not the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.lazyframe.engine_config import get_engine_affinity_override

from greendata.pool import pool
from greendata.query.batches import Batches
from greendata.query.choice import engine_for, engine_of, local_engine

if TYPE_CHECKING:
    from polars.lazyframe.query_result import QueryResult

    from greendata.internals.polars import EngineType

__all__ = ("GreenEngine", "NamedEngine")


class GreenEngine(pl.Engine):
    """A Polars engine that runs another one in the pool.

    ``lf.collect(engine=GreenEngine())`` blocks the calling greenlet and not the hub;
    ``lf.collect_async(gevent=True, engine=GreenEngine())`` returns a `Result`. If it is set
    as the process-wide engine affinity (``pl.Config.set_engine_affinity``), it serves every call without an engine.

    Arguments are passed through unchanged, so the engines of every Polars 2 release work. Errors are those of the
    inner engine. Safe from any thread; in a thread without a hub the query runs inline.

    Args:
        inner: the engine that computes: a name, or any `polars.Engine`. "auto" is the engine that `greendata.configure`
            or its route chooses; if none is chosen, the one that Polars would use: its engine affinity, or else its
            default.

    Raises:
        BadEngine: *inner* is not an engine.

    Example:
        >>> lf = pl.LazyFrame({"a": [1, 2, 3]})
        >>> lf.collect(engine=GreenEngine("streaming")).height
        3
        >>> lf.collect_async(gevent=True, engine=GreenEngine()).get(timeout=5).height
        3
    """

    is_green = True  # it asks `greendata.query.choice` where to compute, also if it is Polars' engine affinity

    def __init__(self, inner: EngineType = "auto") -> None:
        self._inner = inner if inner == "auto" else engine_of(inner)

    @property
    def inner(self) -> pl.Engine:
        """The engine that computes, unless `greendata.configure` or its route chooses another one for "auto"."""
        if isinstance(self._inner, pl.Engine):
            return self._inner
        affinity = get_engine_affinity_override()
        return local_engine() if affinity is None or isinstance(affinity, GreenEngine) else affinity

    def _engine_for(self, verb: str) -> pl.Engine:
        """Return the engine for one query. Call in its greenlet."""
        chosen = engine_for("auto", verb) if self._inner == "auto" else self._inner
        return chosen if isinstance(chosen, pl.Engine) else self.inner

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
        collect: Callable[..., Any] = self._engine_for("collect").collect
        return collect(lf, **options) if options.get("background") else pool.execute(collect, lf, **options)

    def collect_all(self, lfs: Iterable[pl.LazyFrame], **options: Any) -> list[pl.DataFrame]:
        """See `polars.Engine.collect_all`."""
        return pool.execute(self._engine_for("collect_all").collect_all, list(lfs), **options)

    def execute(self, lf: pl.LazyFrame, **options: Any) -> QueryResult:
        """See `polars.Engine.execute`."""
        return pool.execute(self._engine_for("execute").execute, lf, **options)

    def collect_async(self, lf: pl.LazyFrame, *, gevent: bool = False, **options: Any) -> Any:
        """Return a `Result` of the frame, or with ``gevent=False`` the awaitable of the inner engine."""
        inner = self._engine_for("collect")
        if not gevent:
            return inner.collect_async(lf, gevent=False, **options)
        return pool.submit(partial(inner.collect, lf, **options), label="collect")

    def collect_all_async(self, lfs: Iterable[pl.LazyFrame], *, gevent: bool = False, **options: Any) -> Any:
        """Return a `Result` of the frames, or with ``gevent=False`` the awaitable of the inner engine."""
        inner = self._engine_for("collect_all")
        if not gevent:
            return inner.collect_all_async(lfs, gevent=False, **options)
        return pool.submit(partial(inner.collect_all, list(lfs), **options), label="collect_all")

    def collect_batches(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """Return the frame in `Batches`."""
        inner = self._engine_for("batches")
        if inner.name == "auto":  # "auto" does not stream; Polars makes the same choice
            inner = engine_of("streaming")
        return Batches(partial(inner.collect_batches, lf, **options))


class NamedEngine(GreenEngine):
    """The engine for a query that names one of Polars' engines, where a place was chosen for all queries.

    The place decides where, and the name how Polars computes there. Sinks run in this process: Polars writes frames
    that are in memory with ``sink_parquet(engine="streaming")``.

    Args:
        name: of an engine of Polars.

    Example:
        >>> pl.LazyFrame({"a": [1]}).collect(engine=NamedEngine("streaming")).height
        1
    """

    def __init__(self, name: EngineType) -> None:
        super().__init__(name)
        self._engine_name: EngineType = name

    def _engine_for(self, verb: str) -> pl.Engine:
        chosen = self._inner if verb.startswith("sink_") else engine_for(self._engine_name, verb)
        return chosen if isinstance(chosen, pl.Engine) else self.inner


def _sink(name: str) -> Callable[..., None]:
    def sink(self: GreenEngine, lf: pl.LazyFrame, *args: Any, **options: Any) -> None:
        pool.execute(getattr(self._engine_for(name), name), lf, *args, **options)

    sink.__name__ = name
    sink.__qualname__ = f"GreenEngine.{name}"
    sink.__doc__ = f"See `polars.Engine.{name}`."
    return sink


for _name in [name for name in vars(pl.Engine) if name.startswith("sink_")]:
    setattr(GreenEngine, _name, _sink(_name))
