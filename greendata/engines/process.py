"""`ProcessEngine`: a Polars engine whose queries run in child processes, where they can really be stopped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import polars as pl

from greendata.engines.child_pool import ChildPool
from greendata.engines.children import Child
from greendata.engines.messages import close_all, remedy_for
from greendata.engines.plans import pack_object, unpack, unpack_object
from greendata.engines.sending import SendingEngine
from greendata.engines.sharing import packed_frames
from greendata.engines.stream import ChildStream
from greendata.errors import BadArgument, NotSendable
from greendata.hub.checks import check_function, is_count
from greendata.pool import pool
from greendata.pool.engine_setting import LEAST_MEMORY

__all__ = ("ProcessEngine",)

T = TypeVar("T")


class ProcessEngine(SendingEngine):
    """A Polars engine that runs each query in a child process of its own interpreter.

    `Result.cancel`, a deadline, and a client that leaves end the process, and so the query with all its memory. A
    query that needs too much memory, or that crashes, fails alone: the server and its other queries continue.

    A child runs one query at a time; a stream of batches has its child until it ends or is closed. While the consumer
    of a stream works, another child takes its place, for 16 streams at most. Each child is a fresh interpreter, never a
    fork of this process. It ends with this process, however that ends, and with it the programs that its functions have
    started. One spare child is kept ready, to take the place of one that has ended. Children have the environment of
    this process without ``GREENDATA_*``, the flags of its interpreter, and its current directory. What they write to
    stdout and stderr appears here.

    Plans, options and functions are pickled, with cloudpickle if it is installed, so lambdas may be sent. Frames come
    back without a copy if pyarrow is installed (``pip install 'greendata[process]'`` installs both). Safe from any
    thread; a greenlet that calls it waits without blocking the hub.

    Args:
        workers: children that run queries at the same time.
        memory_limit: bytes of memory that a child may use for itself, its interpreter (some 30 MB) included; None for
            no limit. Polars' own allocations are checked at each allocation, all other memory every 10 ms.
        inner: the engine that computes there: "auto", "in-memory", "streaming", or ``"module:factory"``, a function
            that is called in the child, with its first query, and returns any `polars.Engine`.
        recycle_after: queries after which a child is replaced.
        environment: variables for the children, in addition to this process's own, such as ``POLARS_MAX_THREADS``.

    Raises:
        BadArgument: an argument that cannot be used.

    Example:
        >>> with ProcessEngine(workers=1) as engine:
        ...     pl.LazyFrame({"a": [1, 2]}).sum().collect(engine=engine).item()
        3
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        memory_limit: int | None = None,
        inner: str = "auto",
        recycle_after: int = 10_000,
        environment: dict[str, str] | None = None,
    ) -> None:
        if not is_count(workers):
            raise BadArgument("workers", workers, "a whole number >= 1")
        if memory_limit is not None and not is_count(memory_limit, least=LEAST_MEMORY):
            raise BadArgument("memory_limit", memory_limit, "None or a number of bytes, at least 64 << 20 (64 MiB)")
        if not is_count(recycle_after):
            raise BadArgument("recycle_after", recycle_after, "a whole number >= 1")
        super().__init__(inner, environment)
        self._workers = workers
        self._memory_limit = memory_limit
        self._children = ChildPool(
            workers,
            memory_limit=memory_limit,
            inner=inner,
            recycle_after=recycle_after,
            environment=self._environment,
        )

    # -- the engine of Polars -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the engine."""
        return "process"

    @property
    def has_engines_of_polars(self) -> bool:
        """True if an engine of Polars computes in the children. A query may name another one of these."""
        return ":" not in self._inner

    def __repr__(self) -> str:
        return f"ProcessEngine(workers={self._workers}, memory_limit={self._memory_limit}, inner={self._inner!r})"

    def collect_batches(self, lf: pl.LazyFrame, *, lazy: bool = False, **options: Any) -> Any:
        """Return an iterator over the frame in batches, see `ChildStream`.

        The query starts with the first batch, whatever *lazy* is. Until its end the iterator has a child of its own.
        """
        plans, packed = self._pack("collect_batches", [lf], options)
        return ChildStream(self._children, partial(self._begin_batches, lf, plans, packed))

    def _begin_batches(
        self, _lf: pl.LazyFrame, plans: list[bytes], options: bytes, child: Child
    ) -> tuple[Any, list[int]]:
        """Have *child* begin. The query is an argument because shared frames exist as long as it does."""
        return self._ask_about(child, "batches", plans, options)

    def _run(self, method: str, plans: list[bytes], options: bytes) -> list[pl.DataFrame]:
        with self._children.child() as child:
            values, files = self._ask_about(child, "query", plans, options, method)
        try:
            return unpack(values, files)
        finally:
            close_all(files)

    def _ask_about(
        self, child: Child, task: str, *arguments: Any, files: list[int] | None = None
    ) -> tuple[Any, list[int]]:
        """Have *child* do *task* with shared frames, of which it gets those that it lacks."""
        unshared = [key for key in child.keys if key not in packed_frames]
        child.keys.difference_update(unshared)
        return child.ask(task, unshared, *arguments, files=files, frame=packed_frames.__getitem__)

    # -- functions ----------------------------------------------------------------------------------------

    def call(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call a function in a child and return its value. The calling greenlet waits.

        Raises:
            NotCallable, AsyncFunction: *func* is not a function that can be called.
            NotSendable: the function, an argument or the value cannot be pickled, or the child cannot import it.
            WorkerDied, MemoryLimitExceeded, EngineClosed: see `collect`.
            BaseException: what the function raised.

        Example:
            >>> with ProcessEngine(workers=1) as engine:
            ...     engine.call(sum, [1, 2])
            3
        """
        check_function(func)
        return pool.call(self._call_here, func, args, kwargs)

    def _call_here(self, func: Callable[..., T], args: Any, kwargs: Any) -> T:
        try:
            work, files = pack_object((func, args, kwargs))
        except Exception as error:
            reason = f"the function or an argument cannot be pickled ({error}){remedy_for(error)}"
            raise NotSendable(reason) from error
        try:
            with self._children.child() as child:
                value, received = self._ask_about(child, "call", work, files=files)
        finally:
            close_all(files)
        try:
            found: T = unpack_object(value, received)
        finally:
            close_all(received)
        return found

    # -- children -----------------------------------------------------------------------------------------

    def end_processes(self) -> None:
        """End all children and wait for that natively; see `close`."""
        self._children.end_processes()
