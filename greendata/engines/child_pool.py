"""`ChildPool`: the children of one engine, each leased to one job at a time, and a spare one that is ready."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from weakref import finalize

from greendata.engines import spill
from greendata.engines.children import Child
from greendata.engines.closing import close_at_exit, reset_after_fork
from greendata.errors import EngineClosed, JobCancelled
from greendata.hub import native
from greendata.hub.contexts import contextmanager
from greendata.pool.stopping import stopped_by
from greendata.pool.workers import elsewhere, run_in_new_thread

__all__ = ("ChildPool",)

MOST_ASIDE = 16  # streams that may be set aside: the child of each takes some 60 MB of memory

# Options of jemalloc, which allocates for Polars. On huge pages, where the system has them on request, a new frame of
# 125 MB took 13 ms instead of 43 ms, most of which were page faults. A child has 15 MB more for it.
_ALLOCATOR = "_RJEM_MALLOC_CONF"


class ChildPool:
    """Children that are started when needed, replaced when they end, and given to waiting workers in turn.

    Safe from any thread. Workers of greendata's pool call it: it waits natively.

    Args:
        size: children that work at the same time.
        memory_limit: of each, in bytes, or None.
        inner: the engine that computes there, see `ProcessEngine`.
        recycle_after: requests after which a child is replaced.
        environment: variables for the children, in addition to this process's own.
    """

    def __init__(
        self, size: int, *, memory_limit: int | None, inner: str, recycle_after: int, environment: dict[str, str]
    ) -> None:
        self._size = size
        self._memory_limit = memory_limit
        self._inner = inner
        self._recycle_after = recycle_after
        self._environment = environment
        self.forget()
        reset_after_fork(self)

    def forget(self) -> None:
        """Begin without children. In a fork of the process they belong to that one."""
        self._lock = native.allocate_lock()  # guards what is below, except that any thread removes from `waiting`
        self._is_closed = False
        self.idle: list[Child] = []  # the spare one included
        finalize(self, _end_all, self.idle).atexit = False
        self.busy: set[Child] = set()
        self.aside: set[Child] = set()  # those of open streams, which are not counted
        # Those that wait for a child while `size` are busy. The thread that removes one ends its wait.
        self.waiting: deque[_Waiter] = deque()

    @contextmanager
    def child(self) -> Iterator[Child]:
        """Lease a child for the block. If the job's result is given up meanwhile, the child, or the wait for it, ends.

        Raises:
            EngineClosed, OSError, JobCancelled: see `lease`.
        """
        with elsewhere():
            child = self.lease()
            try:
                with stopped_by(child.kill):
                    yield child
            finally:
                self.give_back(child)

    def lease(self) -> Child:
        """Return a child for the caller alone, who gives it back.

        Raises:
            EngineClosed: the pool is closed.
            OSError: the system cannot start a process.
            JobCancelled: the job was given up while it waited.
        """
        waiter = _Waiter()
        with self._lock:
            if self._is_closed:
                raise EngineClosed
            if len(self.busy) < self._size:
                return self._take()
            self.waiting.append(waiter)
        try:
            with stopped_by(partial(self._stop_waiting, waiter)):
                return waiter.wait()
        except BaseException:  # also an interruption of the main thread: a child that it is given later would be lost
            self._leave(waiter)
            raise

    def give_back(self, child: Child) -> None:
        """Take *child* back, or end it and reap it if it must not be used again."""
        limit = self._memory_limit
        is_worn = child.requests >= self._recycle_after or (limit is not None and child.memory > limit // 2)
        others = len(self.idle) + len(self.busy - {child})
        is_needed = others <= self._size  # there are more if children of streams that were set aside come back
        if is_worn or child.was_killed or self._is_closed or not is_needed:
            child.kill()
            child.reap()
        with self._lock:
            self.busy.discard(child)
            self.aside.discard(child)
            if not child.is_gone:
                self.idle.append(child)
            self._serve_waiters()

    def set_aside(self, child: Child) -> None:
        """Let another child take the place of *child*, whose stream waits for its consumer, for `MOST_ASIDE` streams.

        So a consumer that is slow, or that runs queries for each batch, keeps no other query waiting. Idempotent.
        """
        with self._lock:
            if child in self.busy and len(self.aside) < MOST_ASIDE:
                self.busy.discard(child)
                self.aside.add(child)
                self._serve_waiters()

    def end_processes(self) -> None:
        """End all children, and with them what they run. Idempotent. Waits natively."""
        with self._lock:
            self._is_closed = True
            children = [*self.busy, *self.aside, *self.idle]
            self.idle.clear()
            while (waiter := self._next_waiter()) is not None:
                waiter.give(None, EngineClosed())
        for child in children:
            child.kill()
        for child in children:
            child.reap_if_unused()

    def _stop_waiting(self, waiter: _Waiter) -> None:
        """End the wait. It takes no lock: a finalizer may call it in a thread that holds the lock."""
        with suppress(ValueError):  # it has a child already
            self.waiting.remove(waiter)
            waiter.give(None, JobCancelled("a query that waited for a child process", running=False))

    def _next_waiter(self) -> _Waiter | None:
        try:
            return self.waiting.popleft()
        except IndexError:
            return None

    def _serve_waiters(self) -> None:
        """Give children to waiting workers, as far as there are places. Call under the lock."""
        while len(self.busy) < self._size and (waiter := self._next_waiter()) is not None:
            try:
                waiter.give(self._take(), None)
            except Exception as error:  # noqa: BLE001 - the next one gets it too: perhaps no child will come back
                waiter.give(None, error)

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock, suppress(ValueError):  # a thread that gives it a child now does so first, under the lock
            self.waiting.remove(waiter)
        if waiter.child is not None:
            self.give_back(waiter.child)

    def _take(self) -> Child:
        """Return an idle child, or a new one, and start a spare one. Call under the lock.

        Raises:
            OSError: the system cannot start a process.
        """
        for child in sorted(self.idle, key=lambda child: not child.is_ready):
            self.idle.remove(child)
            if child.is_alive:
                break
            child.kill()
            child.reap()  # it has ended: this does not wait
        else:
            child = self._start()
        self.busy.add(child)
        if not self.idle:
            with suppress(OSError):  # it will be tried again
                self.idle.append(self._start())
        return child

    def _start(self) -> Child:
        close_at_exit()
        # A child is an unpatched process with the defaults of greendata, if a function uses it there.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GREENDATA_")}
        environment.setdefault("POLARS_MAX_THREADS", str(max(2, len(os.sched_getaffinity(0)) // self._size)))
        environment.setdefault(_ALLOCATOR, "thp:always")
        environment.update(self._environment)
        spill.sweep(environment)
        return Child("greendata.engines.child:serve", (self._inner,), self._memory_limit, environment)


class _Waiter:
    """A worker that waits for a child. Another thread gives it one, or an error."""

    def __init__(self) -> None:
        self._lock = native.allocate_lock()
        self._lock.acquire()
        self._error: Exception | None = None  # this and the next are set once, before the wait ends
        self.child: Child | None = None

    def give(self, child: Child | None, error: Exception | None) -> None:
        """End the wait. Called once."""
        self.child, self._error = child, error
        self._lock.release()

    def wait(self) -> Child:
        """Wait natively; return the child or raise the error."""
        self._lock.acquire()
        if self.child is None:
            assert self._error is not None
            raise self._error
        return self.child


def _end_all(children: list[Child]) -> None:
    """End the children of a pool that was dropped, in any thread: it does not wait for their end there."""
    children = [child for child in children if not child.is_gone]
    for child in children:
        child.kill()
    reap = partial(_reap_all, children)
    if children and not run_in_new_thread(reap):
        reap()


def _reap_all(children: list[Child]) -> None:
    for child in children:
        child.reap()
