"""The pool: the only place where threads are made, and the only way that work gets into them.

One `Pool` serves the process, whatever the number of hubs. Its threads are native, fixed in number and
long-lived (Polars estimates its memory by thread: github.com/pola-rs/polars/issues/29430), and they are never
gevent's ``hub.threadpool``, where DNS is served.

Guarantees:

- `Pool.submit` never blocks and never runs the job, except where waiting for a worker would deadlock: on a
  worker and on a thread of the library that it runs, the job runs inline and the result comes back settled.
- Admission is bounded (`PoolFull`; what a stream asks for once it has begun is let in beyond the bound), fair (round
  robin over keys, first in first out within a key), and a job leaves exactly once: run, cancelled, out of time, or
  lost to a fork.
- A worker appends to a deque and rings: it never logs, warns, prints or touches a gevent object. It drops its
  references to a job before it rings, so that what the job kept alive dies on the hub's thread.
- A slot whose job does not return costs its slot, not the pool: it is counted (abandoned), and after
  ``stuck_after`` seconds written off and replaced.
- What goes wrong on a worker outside the job's function (no memory, say) fails that job and ends no worker. The user's
  objects that are no part of the job's call, key and label, are used in `Pool.submit` alone.
- A signal handler may raise at any step of a submit: then nothing was queued, and nothing is left of it.

No lock is taken on the way of a job: the queue and what runs are built-in containers, touched by one C call at a
time (see `greendata.pool.fair_queue` for what a lock would cost). The one lock guards workers that come and go. It is
reentrant, because a finalizer or a signal handler may run between any two bytecodes.

Refused: `concurrent.futures` and gevent's ThreadPool (greenlets after patching, DNS, unbounded or blocking
submit, failures printed twice), and a second queue for urgent work (a second way to run things).
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent

from greendata.errors import JobAborted, NotCallable, NoThread, PoolClosed, PoolFull, ResultLost, WaitsForItself
from greendata.hub import native
from greendata.hub.deadline import seconds_of
from greendata.hub.result import Result
from greendata.hub.waiters import wait_native
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import workers
from greendata.pool.job import Job, bypass_queue_limit, default_key, on_submit
from greendata.pool.settings import Settings
from greendata.pool.workers import Worker, Workers, is_inline_thread

__all__ = (
    "Pool",
    "PoolStats",
    "at_work",
    "call",
    "configure",
    "drain",
    "job_here",
    "pending",
    "refuse",
    "shared",
    "stats",
    "submit",
)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The pool at one moment.

    Attributes:
        workers: native threads.
        running: jobs on them, abandoned ones included.
        queued: jobs that wait.
        abandoned: running jobs whose result is settled (cancelled, out of time).
        lost: slots written off; their jobs have not returned.
        faults: turns of workers that ended in an error outside a job's function; the job, if there was one, has failed.
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
    faults: int = 0


class Pool:
    """Native threads for jobs. The process has one, `shared`; tests may make their own.

    Example:
        >>> Pool().submit(sum, [1, 2]).get(timeout=5)
        3
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._refusal: Callable[[], Exception] | None = None  # any thread reads; see refuse()
        self._open(settings or Settings.from_environment())

    def _open(self, settings: Settings) -> None:
        self._workers = Workers(settings, self._check_drained)
        self._rejected = 0  # submits add in one step, without a call between: no lock, no signal handler
        self._is_registered = False  # for the end of this process; any thread, and twice does no harm
        self._lock = native.RLock()  # guards all below
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
            key: jobs of different keys take turns; a tenant or a route. None takes that of the request, if it has one.
            label: what the job is called in errors and statistics; the function's name if None.

        Raises:
            NotCallable, BadTimeout: at once, nothing was queued.
            TypeError: likewise; *key* cannot be hashed.
            PoolFull, PoolClosed: likewise.
            NoThread: likewise; there is no worker, and the system has no thread to give.
            PolarsForked: the process was forked after Polars ran.
        """
        if not callable(func):
            raise NotCallable(func)
        seconds = seconds_of(timeout)
        self._check_refusal()
        key = default_key.get() if key is None else key
        name = str(label or getattr(func, "__name__", type(func).__name__))
        if is_inline_thread():
            hash(key)  # as the queue does
            job = Job(self, func, args, key, name)
            job.bind(None, seconds)
            job.run(native.this_thread_name())
            job.result.detach()
        else:
            self._check_capacity()  # before the queue hears of it: a flood that is turned away leaves nothing there
            if not self._is_registered:
                atexit.register(self._at_exit)
                self._is_registered = True
            job = Job(self, func, args, key, name)
            try:
                job.bind(HubWaker.of_this_thread(), seconds)
                self._workers.put(job)
            except BaseException as error:
                if self._undo_submit(job, error) or not isinstance(error, NoThread | PoolClosed):
                    raise  # else a worker was faster, and has it
        if (adopt := on_submit.get()) is not None:
            adopt(job.result)
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
        if hub is None or getcurrent() is hub or is_inline_thread():
            return func(*args, **kwargs)
        work = partial(func, *args, **kwargs) if kwargs else func
        result = self.submit(work, *(() if kwargs else args), label=getattr(func, "__name__", None))
        try:
            return result.get()
        except JobAborted as aborted:
            cause = aborted.__cause__
        finally:
            result.cancel()
            del result, work  # this frame is in the error's traceback: no cycle through it
        assert cause is not None
        try:
            raise cause
        finally:
            del cause

    def _check_capacity(self) -> None:
        workers = self._workers
        settings = workers.settings
        waiting = len(workers.queue.waiting)
        room = settings.max_queue + settings.max_workers + len(workers.lost)
        if self._closed or (waiting + len(workers.running) >= room and not bypass_queue_limit.get()):
            self._rejected += 1
            raise PoolClosed if self._closed else PoolFull(waiting, settings.max_queue)

    def _undo_submit(self, job: Job, error: BaseException) -> bool:
        """Undo what `submit` did for *job* until *error* came; False if a worker has it."""
        if not self._workers.undo_put(job):
            return False
        job.drop()
        if isinstance(error, PoolClosed):
            self._rejected += 1
        self._check_drained()  # who drains may have seen it in the queue
        return True

    def withdraw(self, job: Job) -> None:
        """Take *job*, whose result is settled, out of the queue if it is there. Safe from any thread."""
        self._workers.remove(job)

    def holds(self, job: Job) -> bool:
        """True if *job* waits or runs. Safe from any thread."""
        return self._workers.holds(job)

    # -- settings, statistics, the end ------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings now in force. Safe from any thread."""
        return self._workers.settings

    def configure(self, **changes: Any) -> Settings:
        """Change settings and open a drained pool again; returns the settings now in force.

        Raises:
            BadSetting: a value that cannot be used; nothing was changed.
            TypeError: no setting of that name.
        """
        with self._lock:
            settings = self._workers.settings = self.settings.changed(**changes)
            self._closed = False
            self._workers.draining = False
            if self._drained is not None:
                self._drained.cancel("the pool was opened again")  # nobody else will tell who waits for its end
                self._drained = None
        self._workers.resize()
        return settings

    def stats(self) -> PoolStats:
        """The pool now."""
        workers = self._workers
        queued = len(workers.queue)  # before `running`, and that before the tally: no job is missed on its way
        running = list(workers.running.values())
        return PoolStats(
            workers=len(workers.workers),
            running=len(running),
            queued=queued,
            abandoned=sum(job.result.ready() and not job.returned for job in running),
            lost=len(workers.lost),
            rejected=self._rejected,
            faults=workers.faults,
            **workers.tally(),
        )

    @property
    def is_closed(self) -> bool:
        """True while it takes no work: drained, or at exit. Safe from any thread."""
        return self._closed

    def pending(self) -> tuple[Result[Any], ...]:
        """The results of the jobs that wait and of those that run, abandoned ones too. Safe from any thread."""
        return tuple(
            job.result for job in dict.fromkeys([*self._workers.queue.items(), *self._workers.running.values()])
        )

    def at_work(self) -> list[tuple[Job, Worker, int]]:
        """What runs now, abandoned jobs included: the job, its worker, and its number among the worker's jobs.

        A worker and a number name a job for as long as the process lives. Safe from any thread.
        """
        return self._workers.at_work()

    def refuse(self, error: Callable[[], Exception] | None) -> None:
        """Raise ``error()`` at every submit and call from now on; None takes that back."""
        self._refusal = error

    def drain(self, timeout: float | None = None) -> bool:
        """Take no more work and wait for what is queued and running; True if all of it came to its end.

        After *timeout* seconds what is still queued is cancelled; what runs is left running. `configure` ends the wait,
        since it opens the pool again.

        Raises:
            BadTimeout: *timeout* is negative or NaN.
            WaitsForItself: a job asks, which would wait for its own end; nothing was changed.
        """
        seconds = seconds_of(timeout)
        if (job := workers.job_here()) is not None:
            raise WaitsForItself(job.result)
        drained = self._close()
        drained.wait(seconds)
        is_over = drained.successful()
        if self._drained is drained:  # else it was opened again meanwhile
            for job in self._workers.queue.items():
                job.result.cancel()
        return is_over

    def _close(self) -> Result[None]:
        with self._lock:
            self._closed = True
            drained = self._drained
            if drained is None:
                drained = Result("drain")
                drained.bind(None, None)
                self._drained = drained
            self._workers.draining = True
        self._workers.repair()
        self._check_drained()
        return drained

    def _check_drained(self) -> None:
        drained = self._drained
        if drained is not None and not len(self._workers.queue) and not len(self._workers.running):
            drained.set_done()

    def _at_exit(self) -> None:
        """Drop what is queued and wait for what runs, without the hub: greenlets do not run on in an exiting process.

        Other exit handlers may run jobs after this one: inline, since the thread that exits has nothing else to do.
        """
        self._closed = True
        for job in self._workers.queue.items():
            if self._workers.queue.remove(job):
                job.result.fail_after_fork(PoolClosed())
        wait_native(self._close(), self.settings.exit_timeout)
        self._workers.close_hubs()
        workers.run_inline_here()

    def _check_refusal(self) -> None:
        if (refusal := self._refusal) is not None:
            raise refusal()

    def _after_fork_in_child(self) -> None:
        """The parent's threads are gone: start anew, and fail what they had in hand without waking anyone.

        The child holds copies of the parent's waiting greenlets. They must not run on: they would answer
        the parent's clients.
        """
        jobs = {*self._workers.queue.items(), *self._workers.running.values()}
        self._open(self.settings)
        for job in jobs:
            job.result.fail_after_fork(ResultLost(job.result.label))


def job_here() -> Result[Any] | None:
    """The result of the job that the calling thread, a worker, runs now; None on any other thread."""
    job = workers.job_here()
    return None if job is None else job.result


shared = Pool()
at_work = shared.at_work
submit = shared.submit
call = shared.call
configure = shared.configure
drain = shared.drain
pending = shared.pending
refuse = shared.refuse
stats = shared.stats


def _after_fork_in_child() -> None:
    waker = HubWaker.of_this_thread()
    if waker is not None:
        waker.reset()
    shared._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
