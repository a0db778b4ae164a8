"""`SendingEngine`: the base of engines that send plans to other processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

import polars as pl
from gevent import getcurrent
from polars.lazyframe.query_result import SingleNodeQueryResult

from greendata.engines.plans import pack_options, pack_plan
from greendata.engines.sharing import share
from greendata.errors import BadArgument, NotSendable, PolarsForked
from greendata.hub.closing import Closing
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import pool
from greendata.pool.cleanup import run_to_completion
from greendata.pool.engine_setting import is_factory

__all__ = ("SendingEngine",)

BATCH_ROWS = 50_000  # rows in a batch by default
_INNER = ("auto", "in-memory", "streaming")


class SendingEngine(Closing, pl.Engine):
    """The base of engines that send plans, options and functions to other processes, and get frames back.

    Args:
        inner: the engine that computes there: "auto", "in-memory", "streaming", or ``"module:factory"``.
        environment: variables for the processes.

    Raises:
        BadArgument: an argument that cannot be used.
    """

    def __init__(self, inner: str, environment: dict[str, str] | None) -> None:
        if not isinstance(inner, str) or (inner not in _INNER and not is_factory(inner)):
            raise BadArgument("inner", inner, "'auto', 'in-memory', 'streaming' or 'module:factory'")
        if environment is not None and not _is_environment(environment):
            raise BadArgument("environment", environment, "a dict of names and values of variables, both str")
        self._inner = inner
        self._environment = environment or {}

    @abstractmethod
    def _run(self, method: str, plans: list[bytes], options: bytes) -> list[pl.DataFrame]:
        """Have *method* of an engine run elsewhere; return its frames, none for a sink. Called on a worker."""

    @abstractmethod
    def end_processes(self) -> None:
        """End the processes and wait for that natively; see `close`."""

    @property
    def plan_engine(self) -> str:
        """The engine name that query plans are rendered for."""
        return self._inner if self._inner in _INNER else "auto"

    def collect(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """Return the frame; see `polars.Engine.collect`.

        Raises:
            WorkerDied, MemoryLimitExceeded: the process that ran the query has ended.
            NotSendable: the plan or an option cannot be sent.
            EngineClosed: the engine was closed.
            EngineFailed: the engine of a factory cannot be made, or does not return a frame.
        """
        if options.pop("background", False):
            raise NotSendable("background=True returns an object that lives in this process; use greendata.collect")
        return self._query("collect", [lf], options)[0]

    def collect_all(self, lfs: Iterable[pl.LazyFrame], **options: Any) -> list[pl.DataFrame]:
        """Return the frames of several queries; see `polars.Engine.collect_all`."""
        return self._query("collect_all", list(lfs), options)

    def collect_async(self, lf: pl.LazyFrame, *, gevent: bool = False, **options: Any) -> Any:
        """Return the `Result` of the frame, for ``gevent=True``.

        Raises:
            NotSendable: ``gevent=False`` asks for an awaitable of asyncio.
        """
        if not gevent:
            raise _no_awaitable("lf.collect")
        return pool.submit(partial(self.collect, lf, **options), label="collect")

    def collect_all_async(self, lfs: Iterable[pl.LazyFrame], *, gevent: bool = False, **options: Any) -> Any:
        """Return the `Result` of the frames, for ``gevent=True``; see `collect_async`."""
        if not gevent:
            raise _no_awaitable("polars.collect_all, lfs")
        return pool.submit(partial(self.collect_all, list(lfs), **options), label="collect_all")

    def collect_batches(self, lf: pl.LazyFrame, *, chunk_size: int | None = None, **options: Any) -> Any:
        """Return an iterator over the frame that `collect` returns, in batches of *chunk_size* rows.

        The query begins with the first ``next``, and runs to its end before the first batch.
        """
        for name in ("lazy", "maintain_order"):  # the rows are in their order
            options.pop(name, None)
        return self._batches(lf, BATCH_ROWS if chunk_size is None else chunk_size, options)

    def _batches(self, lf: pl.LazyFrame, rows: int, options: dict[str, Any]) -> Iterator[pl.DataFrame]:
        yield from self.collect(lf, **options).iter_slices(rows)

    def sink_batches(self, lf: pl.LazyFrame, function: Callable[[pl.DataFrame], bool | None], **options: Any) -> None:
        """Call *function* here with each batch until it returns True; see `polars.Engine.sink_batches`."""
        with closing(self.collect_batches(lf, **options)) as batches:
            for batch in batches:
                if function(batch):
                    break

    def execute(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """See `polars.Engine.execute`."""
        return SingleNodeQueryResult(self.collect(lf, **options))

    def share(self, frame: pl.DataFrame) -> pl.LazyFrame:
        """Return a query on *frame*, whose data reach each process once and not with each plan.

        The frame is written to a file in memory, which children map if pyarrow is installed. It is forgotten when no
        plan refers to it any more. On other engines the query runs as well. The calling greenlet waits.

        Raises:
            NotAFrame: *frame* is not a `polars.DataFrame`.
            NotSendable: a column has Python objects.

        Example:
            >>> from greendata import ProcessEngine
            >>> with ProcessEngine(workers=1) as engine:
            ...     prices = engine.share(pl.DataFrame({"price": range(1_000_000)}))
            ...     prices.max().collect(engine=engine).item()
            999999
        """
        return share(frame)

    def close(self) -> None:
        """End the processes of the engine: queries that they run fail. Idempotent, and safe from any thread.

        The calling greenlet waits until they have ended.
        """
        with suppress(PolarsForked):  # they belong to the parent process
            closing = run_to_completion(self.end_processes, label="close the engine")
            if getcurrent() is not get_hub_if_exists():  # the hub itself cannot wait
                closing.get()

    def _query(self, method: str, lfs: list[pl.LazyFrame], options: dict[str, Any]) -> list[pl.DataFrame]:
        return pool.call(self._query_here, method, lfs, options)

    def _query_here(self, method: str, lfs: list[pl.LazyFrame], options: dict[str, Any]) -> list[pl.DataFrame]:
        return self._run(method, *self._pack(method, lfs, options))

    def _pack(self, method: str, lfs: list[pl.LazyFrame], options: dict[str, Any]) -> tuple[list[bytes], bytes]:
        """Return the plans of *lfs* and the options of *method* as bytes.

        Raises:
            NotSendable: something in them exists in this process only, or is too large.
        """
        for name in ("post_opt_callback", "sinked_paths_callback"):
            if options.get(name) is not None:
                raise NotSendable(f"{name} would be called in another process and not in this one; leave it out")
        try:
            packed = pack_options(options)
        except Exception as error:
            raise NotSendable(f"an argument of {method} cannot be pickled ({error}); pass plain values") from error
        return [pack_plan(lf, type(self).__name__) for lf in lfs], packed


def _no_awaitable(call: str) -> NotSendable:
    return NotSendable(
        "an awaitable of asyncio is fed by threads of Polars in this process; pass gevent=True, or "
        f"await asyncio.to_thread({call}, engine=engine)"
    )


def _sink(name: str) -> Callable[..., None]:
    def sink(self: SendingEngine, lf: pl.LazyFrame, *args: Any, **options: Any) -> None:
        path = args[0] if args else options.pop("path")
        if hasattr(path, "write"):
            raise NotSendable("a file object exists in this process only; pass a path")
        if isinstance(path, pl.PartitionBy):  # has expressions, which can travel in a plan only
            optimizations = options.pop("optimizations")
            self.collect(getattr(lf, name)(path, lazy=True, **options), optimizations=optimizations)
        else:
            self._query(name, [lf], {"path": path, **options})

    sink.__name__ = name
    sink.__qualname__ = f"SendingEngine.{name}"
    sink.__doc__ = f"Write to a path; see `polars.Engine.{name}`."
    return sink


for _name in ("sink_csv", "sink_ipc", "sink_ndjson", "sink_parquet"):
    setattr(SendingEngine, _name, _sink(_name))


def _is_environment(value: object) -> bool:
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        return False
    return all(name and "=" not in name and "\0" not in name + text for name, text in value.items())
