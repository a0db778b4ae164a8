"""`ProcessEngine`: a Polars engine whose queries run in child processes, where they can really be stopped."""

from __future__ import annotations

import atexit
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from itertools import count
from typing import Any, TypeVar
from weakref import WeakSet, finalize

import polars as pl
from polars.lazyframe.query_result import SingleNodeQueryResult

from greendata.engines.children import Child
from greendata.engines.plans import pack, pack_options, unpack
from greendata.engines.shared import SharedFrame
from greendata.errors import BadArgument, EngineClosed, JobCancelled, NotAFrame, NotSendable
from greendata.hub import native
from greendata.hub.checks import is_count
from greendata.pool import pool
from greendata.pool.stopping import stopped_by

__all__ = ("ProcessEngine",)

T = TypeVar("T")

MAX_PLAN = 8 << 20  # bytes of a plan; a larger one has a frame inside, which takes seconds for each 100 MB


class ProcessEngine(pl.Engine):
    """A Polars engine that runs each query in a child process of its own interpreter.

    `Result.cancel`, a deadline, and a client that leaves end the process, and so the query with all its memory. A
    query that needs too much memory, or that crashes, fails alone: the server and its other queries go on.

    A child runs one query at a time. It is a fresh interpreter, never a fork of this process, and ends with this
    process, however that ends. One spare child is kept warm for the next query after such an end.

    Plans, options and functions are pickled, with cloudpickle if it is installed, so lambdas may be sent. Frames come
    back without a copy if pyarrow is installed (``pip install 'greendata[process]'`` installs both). Safe from any
    thread; a greenlet that calls it waits without blocking the hub.

    Args:
        workers: children that run queries at the same time.
        memory_limit: bytes of memory that a child may use for itself, its interpreter (some 30 MB) included; None for
            no limit. Polars' own allocations are checked at each allocation, all other memory every 10 ms.
        inner: the engine that computes there: "auto", "in-memory", "streaming", or ``"module:factory"``, a function
            that is called in the child and returns any `polars.Engine`.
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
        if memory_limit is not None and not is_count(memory_limit, least=64 << 20):
            raise BadArgument("memory_limit", memory_limit, "None or bytes, at least 64 MiB")
        if not is_count(recycle_after):
            raise BadArgument("recycle_after", recycle_after, "a whole number >= 1")
        if not isinstance(inner, str) or (inner not in _INNER and ":" not in inner):
            raise BadArgument("inner", inner, "'auto', 'in-memory', 'streaming' or 'module:factory'")
        if environment is not None and not _is_environment(environment):
            raise BadArgument("environment", environment, "a dict of names and values, both str")
        self._workers = workers
        self._memory_limit = memory_limit
        self._inner = inner
        self._recycle_after = recycle_after
        self._environment = environment or {}
        self._reset()
        _engines.add(self)

    def _reset(self) -> None:
        self._lock = native.allocate_lock()  # guards everything below; held for the start of a process at most
        self._is_closed = False
        self._idle: list[Child] = []  # the spare one included
        finalize(self, _end_all, self._idle).atexit = False
        self._busy: set[Child] = set()
        self._waiting: deque[_Waiter] = deque()  # for a child, while `workers` are busy

    # -- the engine of Polars -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the engine."""
        return "process"

    @property
    def plan_engine(self) -> str:
        """The engine name that query plans are rendered for."""
        return self._inner if self._inner in _INNER else "auto"

    def __repr__(self) -> str:
        return f"ProcessEngine(workers={self._workers}, memory_limit={self._memory_limit}, inner={self._inner!r})"

    def collect(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """Return the frame; see `polars.Engine.collect`.

        Raises:
            WorkerDied, MemoryLimitExceeded: the child ended.
            NotSendable: the plan or an option cannot be sent.
            EngineClosed: the engine was closed.
        """
        if options.pop("background", False):
            raise NotSendable("background=True returns an object that lives in this process; use greendata.collect")
        if options.pop("post_opt_callback", None) is not None:
            raise NotSendable("post_opt_callback is a function of this process")
        return self._query("collect", [lf], options)[0]

    def collect_all(self, lfs: Iterable[pl.LazyFrame], **options: Any) -> list[pl.DataFrame]:
        """Return the frames of several queries, which one child runs together; see `polars.Engine.collect_all`."""
        return self._query("collect_all", list(lfs), options)

    def execute(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """See `polars.Engine.execute`."""
        return SingleNodeQueryResult(self.collect(lf, **options))

    def _query(self, method: str, lfs: list[pl.LazyFrame], options: dict[str, Any]) -> list[pl.DataFrame]:
        return pool.call(self._query_here, method, lfs, options)

    def _query_here(self, method: str, lfs: list[pl.LazyFrame], options: dict[str, Any]) -> list[pl.DataFrame]:
        try:
            packed = pack_options(options)
        except Exception as error:
            raise NotSendable(f"an argument of {method} cannot be pickled ({error}); pass plain values") from error
        plans = [_plan_of(lf) for lf in lfs]
        values, files = self._ask("query", method, plans, packed)
        try:
            return unpack(values, files)
        finally:
            for file in files:
                os.close(file)

    # -- shared frames ------------------------------------------------------------------------------------

    def share(self, frame: pl.DataFrame) -> pl.LazyFrame:
        """Return a query on *frame*, whose data reach each child once and not with each plan.

        The frame is written to a file in memory, which all children map if pyarrow is installed. It is forgotten when
        no plan refers to it any more. On other engines the query runs as well. The calling greenlet waits.

        Raises:
            NotAFrame: *frame* is not a `polars.DataFrame`.

        Example:
            >>> with ProcessEngine(workers=1) as engine:
            ...     prices = engine.share(pl.DataFrame({"price": range(1_000_000)}))
            ...     prices.max().collect(engine=engine).item()
            999999
        """
        if not isinstance(frame, pl.DataFrame):
            raise NotAFrame(frame, "DataFrame")
        key = f"{os.getpid()}-{next(_keys)}"
        packed, files = pool.call(pack, [frame])
        shared = SharedFrame(key, frame)
        _shared[key] = packed, files
        finalize(shared, _unshare, key).atexit = False
        return shared.lazy()

    # -- functions ----------------------------------------------------------------------------------------

    def call(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Call a function in a child and return its value. The calling greenlet waits.

        Raises:
            NotSendable: the function or an argument cannot be pickled.
            WorkerDied, MemoryLimitExceeded, EngineClosed: see `collect`.
            BaseException: what the function raised.

        Example:
            >>> with ProcessEngine(workers=1) as engine:
            ...     engine.call(sum, [1, 2])
            3
        """
        return pool.call(self._call_here, func, args, kwargs)

    def _call_here(self, func: Callable[..., T], args: Any, kwargs: Any) -> T:
        try:
            work = _dumps((func, args, kwargs))
        except Exception as error:
            raise NotSendable(f"the function or an argument cannot be pickled: {error}") from error
        value, _ = self._ask("call", work)
        found: T = pickle.loads(value)  # both ends are ours
        return found

    # -- children -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all children, and with them what they run. Idempotent, and safe from any thread."""
        with self._lock:
            self._is_closed = True
            busy, idle, waiting = [*self._busy], [*self._idle], [*self._waiting]
            self._idle.clear()
            self._waiting.clear()
        for waiter in waiting:
            waiter.give(None, EngineClosed())
        for child in (*busy, *idle):
            child.kill()  # the worker that uses a busy one reaps it
        for child in idle:
            child.reap()

    def __enter__(self) -> ProcessEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pool.call(self.close)

    def _ask(self, task: str, *arguments: Any) -> tuple[Any, list[int]]:
        child = self._lease()
        try:
            with stopped_by(child.kill):
                if task == "call":
                    return child.ask(task, *arguments)
                unshared = [key for key in child.keys if key not in _shared]
                child.keys.difference_update(unshared)
                return child.ask(task, unshared, *arguments, frame=_shared.__getitem__)
        finally:
            self._give_back(child)

    def _lease(self) -> Child:
        """Return a child for the calling worker alone.

        Raises:
            EngineClosed: the engine is closed.
            OSError: the system cannot start a process.
            JobCancelled: the job was given up while it waited.
        """
        waiter = _Waiter()
        with self._lock:
            if self._is_closed:
                raise EngineClosed
            if len(self._busy) < self._workers:
                return self._take()
            self._waiting.append(waiter)
        with stopped_by(partial(self._stop_waiting, waiter)):
            return waiter.wait()

    def _stop_waiting(self, waiter: _Waiter) -> None:
        with suppress(ValueError), self._lock:  # it has a child already
            self._waiting.remove(waiter)
            waiter.give(None, JobCancelled("a query that waited for a child process", running=False))

    def _take(self) -> Child:
        """Return an idle child, or a new one, and start a spare one. Call under the lock.

        Raises:
            OSError: the system cannot start a process.
        """
        for child in sorted(self._idle, key=lambda child: not child.is_ready):
            self._idle.remove(child)
            if child.is_alive:
                break
            child.kill()
            child.reap()  # it has ended: this does not wait
        else:
            child = self._start()
        self._busy.add(child)
        if not self._idle:
            with suppress(OSError):  # it will be tried again
                self._idle.append(self._start())
        return child

    def _give_back(self, child: Child) -> None:
        limit = self._memory_limit
        is_worn = child.queries >= self._recycle_after or (limit is not None and child.memory > limit // 2)
        if not child.is_gone and (is_worn or child.was_killed or self._is_closed):
            child.kill()
            child.reap()
        with self._lock:
            self._busy.discard(child)
            if not child.is_gone:
                self._idle.append(child)
            if self._waiting:
                waiter = self._waiting.popleft()
                try:
                    waiter.give(self._take(), None)
                except OSError as error:
                    waiter.give(None, error)

    def _start(self) -> Child:
        _register_at_exit()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GREENDATA_")}
        environment.setdefault("POLARS_MAX_THREADS", str(max(2, len(os.sched_getaffinity(0)) // self._workers)))
        return Child(self._inner, self._memory_limit, {**environment, **self._environment})

    def _after_fork_in_child(self) -> None:
        children = [*self._idle, *self._busy]
        self._reset()
        for child in children:
            child.forget()


class _Waiter:
    """A worker that waits for a child. Another thread gives it one, or an error."""

    def __init__(self) -> None:
        self._lock = native.allocate_lock()
        self._lock.acquire()
        self._given: tuple[Child | None, Exception | None] = None, None

    def give(self, child: Child | None, error: Exception | None) -> None:
        """End the wait. Called once."""
        self._given = child, error
        self._lock.release()

    def wait(self) -> Child:
        """Wait natively; return the child or raise the error."""
        self._lock.acquire()
        child, error = self._given
        if child is None:
            assert error is not None
            raise error
        return child


def _plan_of(lf: pl.LazyFrame) -> bytes:
    try:
        plan = lf.serialize()
    except Exception as error:
        raise NotSendable(f"the plan cannot be serialized ({error})") from error
    assert isinstance(plan, bytes)
    if len(plan) > MAX_PLAN:
        raise NotSendable(f"the plan has {len(plan)} bytes, so a frame is inside; see ProcessEngine.share")
    return plan


def _dumps(value: object) -> bytes:
    try:
        packed: bytes = import_module("cloudpickle").dumps(value)
    except ImportError:
        packed = pickle.dumps(value)
    return packed


def _sink(name: str) -> Callable[..., None]:
    def sink(self: ProcessEngine, lf: pl.LazyFrame, *args: Any, **options: Any) -> None:
        path = args[0] if args else options.pop("path")
        if hasattr(path, "write"):
            raise NotSendable("a file object exists in this process only; pass a path")
        self._query(name, [lf], {"path": path, **options})

    sink.__name__ = name
    sink.__qualname__ = f"ProcessEngine.{name}"
    sink.__doc__ = f"Write to a path; see `polars.Engine.{name}`."
    return sink


for _name in ("sink_csv", "sink_ipc", "sink_ndjson", "sink_parquet"):
    setattr(ProcessEngine, _name, _sink(_name))


def _unshare(key: str) -> None:
    _, files = _shared.pop(key)
    for file in files:
        os.close(file)


_keys = count(1)
_shared: dict[str, tuple[Any, list[int]]] = {}  # packed frames and their files by key; any thread, one step at a time
_INNER = ("auto", "in-memory", "streaming")
_engines: WeakSet[ProcessEngine] = WeakSet()  # any thread adds


def _is_environment(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)


@cache
def _register_at_exit() -> None:
    # Exit handlers run in reverse order: when a child is started, the pool has registered its own, which waits for the
    # jobs that use the children.
    atexit.register(_close_all)


def _close_all() -> None:
    for engine in list(_engines):
        engine.close()


def _end_all(children: list[Child]) -> None:
    for child in children:
        child.kill()
        child.reap()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
