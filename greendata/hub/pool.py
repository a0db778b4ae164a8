"""The pool: the only place where threads are made, and the only way that work gets into them.

One `Pool` serves the process, whatever the number of hubs. Its threads are native, fixed in number and
long-lived (Polars estimates its memory by thread: github.com/pola-rs/polars/issues/29430), and they are never
gevent's ``hub.threadpool``, where DNS is served.

Guarantees:

- `Pool.submit` never blocks and never runs the job, except where waiting for a worker would deadlock: on a
  worker and on a thread of the library that it runs, the job runs inline and the result comes back settled.
- Admission is bounded (`PoolFull`), fair (round robin over keys, first in first out within a key), and a job
  leaves exactly once: run, cancelled, out of time, or lost to a fork.
- A worker appends to a deque and rings: it never logs, warns, prints or touches a gevent object. It drops its
  references to a job before it rings, so that what the job kept alive dies on the hub's thread.
- A slot whose job does not return costs its slot, not the pool: it is counted (abandoned), and after
  ``stuck_after`` seconds written off and replaced.

No lock is taken on the way of a job: the queue and the books of what runs are built-in containers, touched by
one C call at a time (see `greendata.hub.fairness` for what a lock would cost). The one lock guards threads that
start and end. It is reentrant, because a finalizer or a signal handler may run between any two bytecodes.

Refused: `concurrent.futures` and gevent's ThreadPool (greenlets after patching, DNS, unbounded or blocking
submit, failures printed twice), and a second queue for urgent work (a second way to run things).
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from gevent._hub_local import get_hub_if_exists
from greenlet import getcurrent

from greendata.errors import JobAborted, NotCallable, PoolClosed, PoolFull, ResultLost
from greendata.hub import native
from greendata.hub.bridge import Bridge
from greendata.hub.deadline import seconds_of
from greendata.hub.fairness import FairQueue
from greendata.hub.job import Job
from greendata.hub.result import Result, Status
from greendata.hub.settings import Settings

__all__ = (
    "Pool",
    "PoolStats",
    "call",
    "configure",
    "drain",
    "inline_on",
    "refuse",
    "runs_inline",
    "shared",
    "stats",
    "submit",
)

P = ParamSpec("P")
T = TypeVar("T")

_runtime_threads: tuple[str, ...] = ()  # name prefixes; written at import, see inline_on
_local = native.Local()


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The pool at one moment.

    Attributes:
        workers: native threads.
        running: jobs on them, abandoned ones included.
        queued: jobs that wait.
        abandoned: running jobs whose result is settled (cancelled, out of time).
        lost: slots written off; their jobs have not returned.
        done, failed, cancelled: jobs that left, by outcome.
        rejected: submits that got `PoolFull` or `PoolClosed`.

    Example:
        >>> stats().queued
        0
    """

    workers: int
    running: int
    queued: int
    abandoned: int
    lost: int
    done: int
    failed: int
    cancelled: int
    rejected: int


class _Worker:
    """One native thread and what it has in hand."""

    __slots__ = ("left", "lost", "name", "since")

    def __init__(self, name: str) -> None:
        self.name = name
        self.since = 0.0  # when its job began; the worker writes, any thread reads
        self.left = {"done": 0, "failed": 0, "cancelled": 0}  # jobs by outcome; likewise
        self.lost = False  # it ends after its job: the slot was written off or is too many; under the lock


class Pool:
    """Native threads for jobs. The process has one, `shared`; tests may make their own.

    Example:
        >>> Pool().submit(sum, [1, 2]).get(timeout=5)
        3
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.from_environment()  # replaced under the lock, read by any thread
        self._refusal: Callable[[], Exception] | None = None  # any thread reads; see refuse()
        self._names = count()
        self._open()

    def _open(self) -> None:
        self._queue: FairQueue[Job] = FairQueue()
        self._running: dict[Job, _Worker] = {}  # workers put and pop, any thread reads
        self._lock = native.RLock()  # guards all below
        self._workers: set[_Worker] = set()
        self._lost: set[_Worker] = set()  # written off, and their jobs have not returned
        self._ended = {"done": 0, "failed": 0, "cancelled": 0}  # jobs of ended workers, and of none
        self._rejected = 0
        self._watching = False  # a thread looks after stuck jobs
        self._closed = False
        self._drained: Result[None] | None = None  # settled by the last worker of a draining pool

    # -- in: any thread ---------------------------------------------------------------------------------

    def submit(
        self,
        func: Callable[..., T],
        /,
        *args: Any,
        timeout: float | None = None,
        key: Hashable = None,
        label: str | None = None,
    ) -> Result[T]:
        """Queue ``func(*args)`` for a native thread and return its `Result` at once. Safe from any thread.

        Args:
            timeout: the deadline in seconds, queue wait and run time together; the nearest one counts,
                this or that of a `deadline` block.
            key: jobs of different keys take turns; a tenant or a route.
            label: what the job is called in errors and statistics; the function's name if None.

        Raises:
            NotCallable, BadTimeout: at once, nothing was queued.
            PoolFull, PoolClosed: likewise.
            PolarsForked: the process was forked after Polars ran.
        """
        if not callable(func):
            raise NotCallable(func)
        seconds = seconds_of(timeout)
        self._check_refusal()
        self._queue.beckon(key)
        name = label or str(getattr(func, "__name__", type(func).__name__))
        job = Job(self, func, args, key, name)
        if runs_inline():
            job.bind(None, seconds)
            job.run(native.this_thread_name())
            job.result.part()
            return job.result
        job.bind(Bridge.of_this_thread(), seconds)
        try:
            self._admit(job)
        except BaseException:
            job.drop()
            raise
        return job.result

    def call(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``func(*args, **kwargs)`` so that the hub goes on, and return what it returns.

        The calling greenlet waits. Where there is no greenlet to give way to (no hub in this thread, or
        the hub itself is calling) and where a worker or a runtime thread calls, it runs inline. Errors are
        the function's own, also those that are no `Exception`; if the wait is interrupted (`gevent.Timeout`,
        kill), the job is cancelled.
        """
        self._check_refusal()
        hub = get_hub_if_exists()
        if hub is None or getcurrent() is hub or runs_inline():
            return func(*args, **kwargs)
        work = partial(func, *args, **kwargs) if kwargs else func
        result = self.submit(work, *(() if kwargs else args), label=getattr(func, "__name__", None))
        try:
            return result.get()
        except JobAborted as aborted:
            cause = aborted.__cause__
        finally:
            result.cancel()
        assert cause is not None
        raise cause

    def _admit(self, job: Job) -> None:
        settings, waiting, running = self.settings, len(self._queue), len(self._running)
        if self._closed or waiting + running >= settings.max_queue + settings.max_workers:
            with self._lock:
                self._rejected += 1
            raise PoolClosed if self._closed else PoolFull(waiting, settings.max_queue)
        if waiting + running >= len(self._workers) or self._lost:
            self._make_room()
        self._queue.put(job.key, job)

    def withdraw(self, job: Job) -> None:
        """Take *job*, whose result is settled, out of the queue if it is there. Safe from any thread."""
        if self._queue.remove(job):
            job.returned = True
            with self._lock:
                self._ended[_column(job)] += 1

    # -- workers: native threads ------------------------------------------------------------------------

    def _make_room(self) -> None:
        """One more worker if there may be one; else somebody to look after stuck jobs."""
        with self._lock:
            if len(self._workers) < self.settings.max_workers:
                self._start_worker()
            elif not self._watching:
                native.start_thread(self._watch, ())
                self._watching = True

    def _start_worker(self) -> None:
        if not self._workers and not self._lost:
            atexit.unregister(self._at_exit)
            atexit.register(self._at_exit)
        worker = _Worker(f"greendata-{next(self._names)}")
        native.start_thread(self._serve, (worker, self._queue))
        self._workers.add(worker)

    def _serve(self, worker: _Worker, queue: FairQueue[Job]) -> None:
        _local.inline = True
        native.name_this_thread(worker.name)
        _be_nice(self.settings.nice)
        while not worker.lost:
            job = queue.take()
            if job is None:
                self._retire(worker)
                continue
            bridge, number = self._run(worker, job)
            del job  # before the ring: the hub's reference shall be the last
            if bridge is not None:
                bridge.ring(number)
                del bridge

    def _run(self, worker: _Worker, job: Job) -> tuple[Bridge | None, int]:
        worker.since = monotonic()
        self._running[job] = worker
        self._queue.let_go(job)
        job.run(worker.name)
        hub = get_hub_if_exists()
        if hub is not None:  # the job slept or used a socket: its hub would keep two descriptors
            hub.destroy(destroy_loop=True)
        worker.left[_column(job)] += 1
        job.returned = True
        self._running.pop(job)
        if worker.lost:
            self._return_lost(worker)
        if self._drained is not None:
            self._check_drained()
        job.result.wake()
        return job.come_back()

    def _retire(self, worker: _Worker) -> None:
        with self._lock:
            if len(self._workers) > self.settings.max_workers:
                worker.lost = True
                self._workers.discard(worker)
                self._add_up(worker)

    def _return_lost(self, worker: _Worker) -> None:
        with self._lock:
            self._lost.discard(worker)
            self._add_up(worker)

    def _add_up(self, worker: _Worker) -> None:
        for column, number in worker.left.items():
            self._ended[column] += number

    # -- stuck jobs: a native thread while jobs queue ---------------------------------------------------

    def _watch(self) -> None:
        native.name_this_thread("greendata-watch")
        pause = native.allocate_lock()
        pause.acquire()
        while (seconds := self._write_off()) is not None:
            pause.acquire(True, seconds)

    def _write_off(self) -> float | None:
        """Replace stuck workers; seconds until the next look, None when nothing waits."""
        with self._lock:
            if not len(self._queue):
                self._watching = False
                return None
            limit, now = self.settings.stuck_after, monotonic()
            busy = {w for job in list(self._running) if (w := self._running.get(job)) is not None and not w.lost}
            for worker in busy:
                if now - worker.since >= limit and len(self._lost) < self.settings.max_workers:
                    worker.lost = True
                    self._workers.discard(worker)
                    self._lost.add(worker)
                    self._start_worker()
            oldest = max((now - w.since for w in busy if not w.lost), default=0.0)
            return max(limit - oldest, limit / 10)

    # -- settings, statistics, the end ------------------------------------------------------------------

    def configure(self, **changes: Any) -> Settings:
        """Change settings and open a drained pool again; returns the settings now in force.

        Raises:
            BadSetting: a value that cannot be used; nothing was changed.
            TypeError: no setting of that name.
        """
        with self._lock:
            settings = self.settings = self.settings.changed(**changes)
            self._closed = False
            self._drained = None
            for _ in range(min(len(self._queue), settings.max_workers - len(self._workers))):
                self._start_worker()
            for _ in range(len(self._workers) - settings.max_workers):
                self._queue.poke()
        return settings

    def stats(self) -> PoolStats:
        """The pool now."""
        running = list(self._running)
        with self._lock:
            left = dict(self._ended)
            for worker in (*self._workers, *self._lost):
                for column, number in worker.left.items():
                    left[column] += number
            return PoolStats(
                workers=len(self._workers),
                running=len(running),
                queued=len(self._queue),
                abandoned=sum(job.result.ready() and not job.returned for job in running),
                lost=len(self._lost),
                rejected=self._rejected,
                **left,
            )

    def refuse(self, error: Callable[[], Exception] | None) -> None:
        """Raise ``error()`` at every submit and call from now on; None takes that back."""
        self._refusal = error

    def drain(self, timeout: float | None = None) -> bool:
        """Take no more work and wait for what is queued and running; True if all of it came to its end.

        After *timeout* seconds what is still queued is cancelled; what runs is left running.

        Raises:
            BadTimeout: *timeout* is negative or NaN.
        """
        seconds = seconds_of(timeout)
        with self._lock:
            self._closed = True
            if self._drained is None:
                self._drained = Result("drain")
                self._drained.bind(None, None)
            drained = self._drained
        self._check_drained()
        drained.wait(seconds)
        self._cancel_queued()
        return drained.ready()

    def _check_drained(self) -> None:
        drained = self._drained
        if drained is not None and not len(self._queue) and not len(self._running):
            drained.settle(Status.DONE)
            drained.wake()

    def _cancel_queued(self) -> None:
        for job in self._queue.items():
            job.result.cancel()

    def _at_exit(self) -> None:
        self._closed = True
        self._cancel_queued()
        self.drain(self.settings.exit_timeout)

    def _check_refusal(self) -> None:
        if self._refusal is not None:
            raise self._refusal()

    def _after_fork_in_child(self) -> None:
        """The parent's threads are gone: start anew, and fail what they had in hand without waking anyone.

        The child holds copies of the parent's waiting greenlets. They must not run on: they would answer
        the parent's clients.
        """
        jobs = [*self._queue.items(), *self._running]
        self._open()
        for job in jobs:
            job.result.lose(ResultLost(job.result.label))


def _column(job: Job) -> str:
    return job.result.status.value


def inline_on(*prefixes: str) -> None:
    """Have submits from native threads whose names begin so run inline.

    They are a library's own threads, where waiting for a worker would deadlock. The workers give them their own
    scheduling priority.
    """
    global _runtime_threads
    _runtime_threads += prefixes


def runs_inline() -> bool:
    """True on a worker and on a runtime thread, where waiting for a worker would deadlock."""
    known: bool | None = getattr(_local, "inline", None)
    if known is None:
        name = native.this_thread_name()
        known = name.startswith(_runtime_threads) if name else get_hub_if_exists() is None
        _local.inline = known
    return known


def _be_nice(nice: int) -> None:
    """Let the scheduler prefer the hub's thread to this one and to the runtime's. Linux: nice is per thread."""
    if not nice or not (names := native.thread_names()):
        return
    level = min(19, os.getpriority(os.PRIO_PROCESS, os.getpid()) + nice)
    for thread in [native.get_native_id(), *(tid for tid, name in names.items() if name.startswith(_runtime_threads))]:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.setpriority(os.PRIO_PROCESS, thread, level)


shared = Pool()
submit = shared.submit
call = shared.call
configure = shared.configure
drain = shared.drain
refuse = shared.refuse
stats = shared.stats


def _after_fork_in_child() -> None:
    bridge = Bridge.of_this_thread()
    if bridge is not None:
        bridge.reset()
    shared._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
