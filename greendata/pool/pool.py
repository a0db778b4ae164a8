"""The pool: the only place that starts worker threads, and the only way to run work in them.

One `Pool` serves the process, whatever the number of hubs. Its threads are native, limited in number and long-lived
(Polars estimates its memory by thread: github.com/pola-rs/polars/issues/29430). They are separate from gevent's
``hub.threadpool``, which resolves names.

Guarantees:

- `Pool.submit` never blocks and never runs the job, except where waiting for a worker would deadlock: on a worker, and
  on a thread of a library that a job uses, the job runs inline and the returned result is settled.
- Admission is bounded (`PoolFull`; the jobs of a stream that has begun are admitted beyond the bound) and fair (round
  robin over keys, first in first out within a key). A job leaves exactly once: run, cancelled, out of time, or lost
  to a fork.
- A worker appends to a deque and wakes the hub. It never logs, warns, prints or touches a gevent object. It drops its
  references to a job before it notifies the hub, so that objects that the job kept alive are freed on the hub's thread.
- A job that does not return occupies one worker and leaves the others alone: it is counted as abandoned, and after
  ``stuck_after`` seconds its worker is counted as lost and replaced.
- An error on a worker outside the job's function (a MemoryError, for example) fails that job and does not end the
  worker. The user's objects besides the job's call, the key and the label, are used in `Pool.submit` only.
- A signal handler may raise at any step of a submit. Then nothing was queued, and nothing of the job is left.

A job takes no lock between submit and outcome: the queue and the running jobs are built-in containers, used by one C
call at a time (`greendata.pool.fair_queue` says what a lock would cost). The one lock guards the starting and ending of
workers. It is reentrant, because a finalizer or a signal handler may run between any two bytecodes.

Alternatives considered: `concurrent.futures` and gevent's ThreadPool (greenlets after patching, DNS, unbounded or
blocking submit, failures printed twice), and a second queue for urgent work (a second way to run jobs).
"""

from __future__ import annotations

import atexit
import inspect
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar

from greenlet import getcurrent

from greendata.errors import (
    JobAborted,
    NotCallable,
    NoThread,
    OptionTaken,
    PoolClosed,
    PoolFull,
    ResultLost,
    WaitsForItself,
)
from greendata.hub import native
from greendata.hub.checks import check_function, code_of, naming_arguments
from greendata.hub.deadline import seconds_of
from greendata.hub.origin import origin_here
from greendata.hub.result import Result
from greendata.hub.waiters import wait_native
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import workers
from greendata.pool.job import Job, bypass_queue_limit, default_key, default_label, name_of, on_submit
from greendata.pool.operation import INTERNAL, current_operation
from greendata.pool.settings import Settings
from greendata.pool.workers import Worker, Workers, is_inline_thread
from greendata.startup.environment import warn_of_unknown_variables

__all__ = (
    "Pool",
    "PoolStats",
    "call",
    "configure",
    "drain",
    "execute",
    "pending",
    "queued_jobs",
    "refuse",
    "result_of_this_worker",
    "run",
    "running_jobs",
    "shared",
    "stats",
    "submit",
)

P = ParamSpec("P")
T = TypeVar("T")

# Called after each change of settings, in the thread that changes them. Modules add theirs at import.
settings_listeners: tuple[Callable[[], object], ...] = ()


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The counters of the pool at one moment.

    Attributes:
        workers: native threads; those that wait for another process or thread included, which `max_workers` does not
            count.
        running: jobs on them, abandoned ones included.
        queued: jobs that wait.
        abandoned: running jobs whose result is settled (cancelled, out of time).
        lost: workers that were replaced because their jobs do not return.
        faults: errors on workers outside a job's function; the job, if there was one, has failed.
        done, failed, cancelled: jobs that have left, by outcome.
        rejected: submits that raised `PoolFull` or `PoolClosed`.

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
    """A pool of native threads for jobs. The process has one, `shared`; tests may make others.

    Example:
        >>> Pool().submit(sum, [1, 2]).get(timeout=5)
        3
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._refusal: Callable[[], Exception] | None = None  # any thread reads; see `refuse`
        self._open(settings or Settings.from_environment())

    def _open(self, settings: Settings) -> None:
        self._workers = Workers(settings, self._check_drained)
        self._rejected = 0  # submits add without a call in between: no lock is needed
        self._is_registered = False  # with atexit; any thread writes, and registering twice is harmless
        self._lock = native.RLock()  # guards everything below
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
        depth: int | None = 0,
    ) -> Result[T]:
        """Queue ``func(*args)`` for a native thread and return its `Result` at once. Safe from any thread.

        Args:
            timeout: the deadline in seconds, for queue wait and run time together. If a `deadline` block ends earlier,
                its deadline counts.
            key: jobs of different keys take turns; a tenant or a route. None means the key of the request, if any.
            label: the job's name in errors and statistics; the function's name if None.
            depth: the number of greendata's own functions between the user's line and this call, as far as it is
                known. The job's error gets a note with the label, the key and that line; none if *depth* is None.

        Raises:
            NotCallable, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
            TypeError: *key* cannot be hashed.
            PoolFull, PoolClosed: the pool does not accept the job.
            NoThread: there is no worker, and the system has no more threads.
            PolarsForked: the process was forked after Polars ran.
        """
        if not callable(func):
            raise NotCallable(func)
        seconds = None if timeout is None else seconds_of(timeout)
        if self._refusal is not None:
            self._check_refusal()
        key = default_key.get() if key is None else key
        name = str(label or name_of(func))
        origin = None if depth is None else origin_here(depth + 1)
        if is_inline_thread():
            hash(key)  # raise the same error as the queue
            job = Job(self, func, args, key, name, origin)
            job.bind(None, seconds)
            job.run(native.this_thread_name())
            job.result.detach()
        else:
            self._check_capacity()  # before the queue sees the key: rejected submits leave nothing there
            self.end_at_exit()
            job = Job(self, func, args, key, name, origin)
            try:
                job.bind(HubWaker.of_this_thread(), seconds)
                self._workers.put(job)
            except BaseException as error:
                if self._undo_submit(job, error) or not isinstance(error, NoThread | PoolClosed):
                    raise  # else a worker has taken it already
        if (register := on_submit.get()) is not None:
            register(job.result)
        return job.result

    def run(
        self,
        func: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        timeout: float | None = None,
        key: Hashable = None,
        label: str | None = None,
        place: Callable[..., Any] | None = None,
    ) -> Result[T]:
        """Submit ``func(*args, **kwargs)``; see `submit` for the other arguments. For functions of greendata's own.

        Args:
            func: what is called with *args* and *kwargs*.
            place: called with *func* and these on the worker, if it runs elsewhere.

        Raises:
            NotCallable, AsyncFunction: *func* is not a function that can be called.
            OptionTaken: *func* needs an argument that has the name of an option. Other errors are those of `submit`.
        """
        check_function(func)
        for option, value in (("timeout", timeout), ("key", key), ("label", label)):
            if value is not None and _lacks(func, args, kwargs, option):
                raise OptionTaken(func, option)
        work = _with_keywords(func if place is None else partial(place, func), kwargs)
        return self.submit(work, *args, timeout=timeout, key=key, label=label or name_of(func), depth=2)

    def call(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``func(*args, **kwargs)`` in the pool while the hub runs other greenlets, and return its value.

        The calling greenlet waits. It runs inline where no other greenlet can run (the thread has no hub, or the hub
        itself calls), on a worker and on a runtime thread. Errors of the function are raised unchanged, even if they
        are not an `Exception`. If the wait is interrupted (`gevent.Timeout`, kill), the job is cancelled.

        It is for steps of greendata's own, which the statistics do not count as a query; see `execute`.
        """
        token = None if current_operation.get() is not None else current_operation.set(INTERNAL)
        try:
            return self._call(func, args, kwargs, getattr(func, "__name__", None))
        finally:
            if token is not None:
                current_operation.reset(token)

    def execute(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an execution of Polars, or a function of the user, like `call`. The statistics count it as a query.

        Its label is that of the context, the endpoint of a request, or the name of *func*.
        """
        return self._call(func, args, kwargs, default_label.get() or getattr(func, "__name__", "").lstrip("_"))

    def _call(self, func: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], label: str | None) -> T:
        self._check_refusal()
        hub = get_hub_if_exists()
        if hub is None or getcurrent() is hub or is_inline_thread():
            return func(*args, **kwargs)
        work = _with_keywords(func, kwargs)
        # Without a note: the traceback shows the line, and errors under the patch are those of Polars.
        result = self.submit(work, *args, label=label, depth=None)
        try:
            return result.get()
        except JobAborted as aborted:
            cause = aborted.__cause__
        finally:
            result.cancel()
            del result, work  # the error's traceback has this frame: avoid a cycle
        assert cause is not None
        try:
            raise cause
        finally:
            del cause

    def _check_capacity(self) -> None:
        workers = self._workers
        settings = workers.settings
        waiting = len(workers.queue.waiting)
        limit = settings.max_queue + settings.max_workers + len(workers.lost) + len(workers.away)
        if self._closed or (waiting + len(workers.running) >= limit and not bypass_queue_limit.get()):
            self._rejected += 1
            raise PoolClosed if self._closed else PoolFull(waiting, settings.max_queue)

    def _undo_submit(self, job: Job, error: BaseException) -> bool:
        """Undo the submit of *job* that *error* interrupted; return False if a worker has the job."""
        if not self._workers.undo_put(job):
            return False
        job.unbind()
        if isinstance(error, PoolClosed):
            self._rejected += 1
        self._check_drained()  # a drain may have seen it in the queue
        return True

    def withdraw(self, job: Job) -> None:
        """Remove *job*, whose result is settled, from the queue, or stop it if it runs. Safe from any thread."""
        self._workers.remove(job)

    def holds(self, job: Job) -> bool:
        """Return True if *job* waits or runs. Safe from any thread."""
        return self._workers.holds(job)

    # -- settings, statistics, the end ------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings now in force. Safe from any thread."""
        return self._workers.settings

    @naming_arguments
    def configure(
        self,
        *,
        max_workers: int | None = None,
        max_queue: int | None = None,
        nice: int | None = None,
        stuck_after: float | None = None,
        exit_timeout: float | None = None,
        engine: object = None,
        route: Callable[[str, Hashable], object] | Literal[False] | None = None,
        isolate: bool | str | None = None,
        on_fork: Literal["raise", "process"] | None = None,
    ) -> Settings:
        """Change settings, reopen a drained pool, and return the settings now in force.

        A setting that is None is left as it is. `greendata.pool.settings.Settings` has the defaults and their reasons.

        Args:
            max_workers: native threads that run jobs.
            max_queue: jobs that may wait for one; another submit raises `PoolFull`.
            nice: added to the nice value of Polars' threads, from 0 to 19 (Linux).
            stuck_after: seconds after which the worker of a running job counts as lost and is replaced.
            exit_timeout: seconds that an exiting process waits for running jobs.
            engine: where queries run that name no engine: "threads" (of this process, the default), "process" or
                ``"process:workers=2,memory_limit=512MiB"`` for children that can be killed, "in-memory", "streaming",
                "gpu", ``"module:factory"``, or a `polars.Engine`. See `greendata.query.choice`.
            route: called in the greenlet of each such query, with its label and its key; returns its engine in one of
                these forms, or None for *engine*. It is called often, and must be quick. False ends it.
            isolate: True if untrusted input is read in a child process, or text with other limits, such as
                ``"workers=2,memory_limit=512MiB,timeout=10"``. See `greendata.formats.isolation`.
            on_fork: what queries do in a process that was forked after a query, where Polars would hang, such as a
                worker of ``gunicorn --preload``: "raise" `PolarsForked`, or "process": they run in child processes,
                and what cannot do that raises. See `greendata.engines.after_fork`.

        Raises:
            BadSetting: a value that cannot be used; nothing was changed.
            UnknownArgument: there is no setting of that name.

        Example:
            >>> import greendata
            >>> greendata.configure(max_workers=8).max_workers
            8
        """
        given = locals()
        changes = {setting.name: given[setting.name] for setting in fields(Settings)}
        changes = {name: value for name, value in changes.items() if value is not None}
        if route is False:
            changes["route"] = None
        with self._lock:
            settings = self._workers.settings = self.settings.changed(**changes)
            self._closed = False
            self._workers.draining = False
            if self._drained is not None:
                self._drained.cancel("the pool was opened again")  # it would never be settled otherwise
                self._drained = None
        self._workers.resize()
        for listener in settings_listeners:
            listener()
        return settings

    def stats(self) -> PoolStats:
        """Return the counters of the pool now."""
        workers = self._workers
        queued = len(workers.queue)  # read before `running`, and that before the tally: no job that moves on is missed
        running = list(workers.running.values())
        return PoolStats(
            workers=len(workers.workers) + len(workers.away),
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
        """True while it accepts no jobs: after `drain`, or at exit. Safe from any thread."""
        return self._closed

    def pending(self) -> tuple[Result[Any], ...]:
        """Return the results of all waiting and running jobs, abandoned ones included. Safe from any thread."""
        return tuple(
            job.result for job in dict.fromkeys([*self._workers.queue.items(), *self._workers.running.values()])
        )

    def queued_jobs(self) -> list[Job]:
        """Return the jobs that wait, in the order in which they were submitted. Safe from any thread."""
        return self._workers.queue.items()

    def running_jobs(self) -> list[tuple[Job, Worker, int]]:
        """Return what runs now, abandoned jobs included: each job, its worker, and its number among the worker's jobs.

        A worker and a number identify a job for the lifetime of the process. Safe from any thread.
        """
        return self._workers.running_jobs()

    def refuse(self, error: Callable[[], Exception] | None) -> None:
        """Raise ``error()`` at every submit and call from now on; None ends that."""
        self._refusal = error

    def drain(self, timeout: float | None = None) -> bool:
        """Accept no more jobs and wait for those that are queued and running; return True if all of them finished.

        After *timeout* seconds the queued jobs are cancelled, and the running ones are left running. `configure` ends
        the wait, since it reopens the pool.

        Raises:
            BadTimeout: *timeout* is negative or NaN.
            WaitsForItself: a job calls this and would wait for its own end; nothing was changed.
        """
        seconds = seconds_of(timeout)
        if (job := workers.job_of_this_worker()) is not None:
            raise WaitsForItself(job.result)
        drained = self._close()
        drained.wait(seconds)
        has_finished = drained.successful()
        if self._drained is drained:  # else it was reopened meanwhile
            for job in self._workers.queue.items():
                job.result.cancel()
        return has_finished

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

    def end_at_exit(self) -> None:
        """Have the pool end when the process exits. Safe from any thread, idempotent.

        Exit handlers run in reverse order: one that needs the pool has to be registered after this.
        """
        if not self._is_registered:
            atexit.register(self._at_exit)
            self._is_registered = True

    def _at_exit(self) -> None:
        """Drop the queued jobs and wait for the running ones, natively: greenlets do not run in an exiting process.

        Exit handlers that run after this one may submit jobs. These run inline.
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
        """Reset the pool, since the parent's threads do not exist here, and fail its jobs without waking their waiters.

        The child has copies of the parent's waiting greenlets. They must not continue: they would send responses to
        the parent's clients.
        """
        jobs = {*self._workers.queue.items(), *self._workers.running.values()}
        self._open(self.settings)
        for job in jobs:
            job.result.fail_after_fork(ResultLost(job.result.label))


def _lacks(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> bool:
    """Return True if *func* cannot be called without an argument *name*, which was not given."""
    code = code_of(func)
    if name in kwargs or code is None or name not in code.co_varnames:  # almost always
        return False
    try:
        signature = inspect.signature(func)
        given = signature.bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):  # the call itself will say what is wrong
        return False
    parameter = signature.parameters.get(name)
    if parameter is None or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return False
    return parameter.default is parameter.empty and name not in given


def _with_keywords(func: Callable[..., T], kwargs: Mapping[str, Any]) -> Callable[..., T]:
    return partial(func, **kwargs) if kwargs else func


def result_of_this_worker() -> Result[Any] | None:
    """Return the result of the job that the calling worker runs now; None on any other thread."""
    job = workers.job_of_this_worker()
    return None if job is None else job.result


warn_of_unknown_variables()
shared = Pool()
running_jobs = shared.running_jobs
submit = shared.submit
run = shared.run
call = shared.call
execute = shared.execute
configure = shared.configure
drain = shared.drain
pending = shared.pending
queued_jobs = shared.queued_jobs
refuse = shared.refuse
stats = shared.stats


def _after_fork_in_child() -> None:
    waker = HubWaker.of_this_thread()
    if waker is not None:
        waker.reset()
    shared._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
