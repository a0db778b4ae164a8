"""`ProcessEngine`: a Polars engine whose queries run in child processes, where they can really be stopped."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, TypeVar
from weakref import finalize

import polars as pl

from greendata.engines.children import Child
from greendata.engines.closing import close_at_exit, reset_after_fork
from greendata.engines.plans import unpack
from greendata.engines.sending import SendingEngine
from greendata.engines.sharing import packed_frames
from greendata.errors import BadArgument, EngineClosed, JobCancelled, NotSendable
from greendata.hub import native
from greendata.hub.checks import is_count
from greendata.pool import pool
from greendata.pool.stopping import stopped_by

__all__ = ("ProcessEngine",)

T = TypeVar("T")


class ProcessEngine(SendingEngine):
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
        super().__init__(inner, environment)
        self._workers = workers
        self._memory_limit = memory_limit
        self._recycle_after = recycle_after
        self._reset()
        reset_after_fork(self)

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
    def has_engines_of_polars(self) -> bool:
        """True if an engine of Polars computes in the children. A query may name another one of these."""
        return ":" not in self._inner

    def __repr__(self) -> str:
        return f"ProcessEngine(workers={self._workers}, memory_limit={self._memory_limit}, inner={self._inner!r})"

    def _run(self, method: str, plans: list[bytes], options: bytes) -> list[pl.DataFrame]:
        values, files = self._ask("query", method, plans, options)
        try:
            return unpack(values, files)
        finally:
            for file in files:
                os.close(file)

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
                unshared = [key for key in child.keys if key not in packed_frames]
                child.keys.difference_update(unshared)
                return child.ask(task, unshared, *arguments, frame=packed_frames.__getitem__)
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
        close_at_exit()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GREENDATA_")}
        environment.setdefault("POLARS_MAX_THREADS", str(max(2, len(os.sched_getaffinity(0)) // self._workers)))
        environment.update(self._environment)
        return Child("greendata.engines.child:serve", (self._inner,), self._memory_limit, environment)

    def forget(self) -> None:
        """Leave the children to the process that has started them. Called in a fork of it."""
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


def _dumps(value: object) -> bytes:
    try:
        packed: bytes = import_module("cloudpickle").dumps(value)
    except ImportError:
        packed = pickle.dumps(value)
    return packed


def _end_all(children: list[Child]) -> None:
    for child in children:
        child.kill()
        child.reap()
