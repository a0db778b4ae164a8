"""`Job`: a callable that runs in the pool, and the delivery of its outcome to the hub that submitted it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from contextvars import Context, ContextVar, copy_context
from time import monotonic
from typing import Any, ParamSpec, Protocol, TypeVar

from greenlet import getcurrent

from greendata.errors import JobAborted
from greendata.errors.notes import without_frame
from greendata.hub import native
from greendata.hub.deadline import nearest_limit
from greendata.hub.hubs import Timer
from greendata.hub.origin import Origin, note_job
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.hub.waker import HubWaker, report
from greendata.pool.operation import Operation, current_operation

__all__ = ("Holder", "Job", "JobOwner", "Stopper", "bypassing_queue_limit", "name_of")

P = ParamSpec("P")
T = TypeVar("T")

# Called with each result that is submitted in a context: a group registers them as members.
on_submit: ContextVar[Callable[[Result[Any]], object] | None] = ContextVar("greendata.on_submit", default=None)

# The key of jobs that are submitted in a context without a key: a tenant, a route.
default_key: ContextVar[Hashable] = ContextVar("greendata.default_key", default=None)

# The label of patched Polars functions that are called in a context: the endpoint of a request.
default_label: ContextVar[str | None] = ContextVar("greendata.default_label", default=None)

# True inside work that was admitted when it began, such as a stream or a half-sent response: its jobs are queued even
# if the queue is full. If they were rejected, the work already done would be lost.
bypass_queue_limit: ContextVar[bool] = ContextVar("greendata.bypass_queue_limit", default=False)

# Called with each job whose outcome has reached the owning hub, before its waiters are notified. Listeners run in the
# hub itself; they must not raise and must not wait. `greendata.observe` replaces the tuple as a whole. An empty tuple
# costs a job 30 ns.
listeners: tuple[Callable[[Job], object], ...] = ()


def bypassing_queue_limit(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *func* in a copy of the caller's context whose jobs are queued even if the queue is full.

    Example:
        >>> bypassing_queue_limit(bypass_queue_limit.get), bypass_queue_limit.get()
        (True, False)
    """
    context = copy_context()
    context.run(bypass_queue_limit.set, True)
    return context.run(func, *args, **kwargs)


class Stopper:
    """The way to stop what a running job is doing, which is called at most once and never after `close`."""

    __slots__ = ("_lock", "_stop")

    def __init__(self, stop: Callable[[], object]) -> None:
        self._lock = native.allocate_lock()
        self._stop: Callable[[], object] | None = stop  # any thread takes it, under the lock

    def stop(self) -> None:
        """Stop the work. Safe from any thread."""
        with self._lock:
            stop, self._stop = self._stop, None
            if stop is not None:
                stop()

    def close(self) -> None:
        """Return when the work can no longer be stopped: it has ended. Call on the worker."""
        with self._lock:
            self._stop = None


def name_of(func: Callable[..., Any]) -> str:
    """Return the name of *func* for labels and errors.

    Example:
        >>> name_of(sum)
        'sum'
    """
    return str(getattr(func, "__name__", type(func).__name__))


class Holder(Protocol):
    """The interface of a worker that jobs use."""

    held: int  # the id of the job that it refers to, or 0; the worker writes, any thread reads


class JobOwner(Protocol):
    """The interface of the pool that jobs use. Safe from any thread."""

    def withdraw(self, job: Job) -> None:
        """Remove *job* from the queue; if it runs, stop it or count it as abandoned."""

    def holds(self, job: Job) -> bool:
        """Return whether *job* is in the queue, or a worker has it."""


class Job:
    """A callable with its context, its deadline and its result.

    The submitting thread makes it, one worker runs it, and the owning hub delivers the outcome. The result refers to
    the job until the hub has detached it.

        submitting thread        worker                       owning hub
        -----------------        ------                       ----------
        bind, queue   ------->   run: settles the result
                                 notify(number)   -------->   _on_owning_hub: notifies the waiters, detaches the job
    """

    __slots__ = (
        "_number",
        "_pool",
        "_timer",
        "_waker",
        "args",
        "context",
        "deadline",
        "func",
        "holder",
        "in_block",
        "key",
        "origin",
        "result",
        "returned",
        "seconds",
        "stopper",
    )

    def __init__(
        self,
        pool: JobOwner,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        key: Hashable,
        label: str,
        origin: Origin | None = None,
    ) -> None:
        self.func = func  # from here to result: set once, then read by the worker
        self.args = args
        self.key = key
        self.origin = origin  # None: its errors get no note
        self.context: Context = copy_context()
        self.result: Result[Any] = Result(label)
        self.deadline: float | None = None  # on time.monotonic's clock; set before it is queued
        self.seconds = 0.0  # the timeout behind the deadline, of the job or a block around it; set before queueing
        self.in_block = False  # which of the two; set before queueing
        self.returned = False  # no worker has or will have it; written by the worker, or by the thread that cancels it
        self.holder: Holder | None = None  # the worker that runs it or has run it; that writes, the owning hub reads
        self.stopper: Stopper | None = None  # the worker writes, any thread reads; see greendata.pool.stopping
        self._pool = pool
        self._waker: HubWaker | None = None  # set before it is queued
        self._number = 0  # written on the owning hub's thread; the worker reads
        self._timer: Timer | None = None  # owning hub's thread only

    @property
    def operation(self) -> Operation | None:
        """The query that this job is a part of; None if the job is a query by itself. Safe from any thread."""
        return self.context.get(current_operation)

    def bind(self, waker: HubWaker | None, seconds: float | None) -> None:
        """Set the owning hub and the deadline. Call on the submitting thread."""
        limit = nearest_limit(seconds)
        self.result.bind(self, waker)
        if waker is not None:
            self._number = waker.number()
            self._waker = waker
            waker.expect(self._on_owning_hub, self._number)
        if limit is not None:
            self.deadline, self.seconds, self.in_block = limit
            if waker is not None:
                left = max(0.0, self.deadline - monotonic())
                self._timer = Timer(waker.hub, left, self.result.expire)

    def run(self, worker: str) -> None:
        """Run the callable in its context and settle the result. Call on the worker."""
        result = self.result
        if self.deadline is not None and monotonic() >= self.deadline:
            result.expire()
        if result.ready():
            return
        result.begin(worker)
        try:
            value = self.context.run(self.func, *self.args)
        except BaseException as error:  # noqa: BLE001 - every error is the waiter's
            # Drop this frame from the traceback, and keep the error out of locals: both would make a reference cycle.
            without_frame(error)
            self.fail(error)
            del self, result  # the error keeps the job's frames, and they keep this one as their caller
        else:
            result.settle(Status.DONE, value)

    def fail(self, error: BaseException) -> None:
        """Settle the result with *error* unless it is settled. Call on the worker."""
        result = self.result
        if not isinstance(error, Exception):
            error = JobAborted(result.label, error)
        self.note(error)
        result.settle(Status.FAILED, error=error)

    def notification_target(self) -> tuple[HubWaker | None, int]:
        """Return the waker and the number to notify, once the caller has dropped its references. Call after `run`."""
        if self._waker is None or self._waker.is_gone:
            self.result.detach()
        return self._waker, self._number

    def note(self, error: Exception) -> None:
        """Add to *error*, which is about to be the outcome, a note about this job. Never raises. Safe from any thread.

        Only the submitting thread and the one that settles the result use the error at that time, unless the job's
        function raised an error that others use too.
        """
        if self.origin is not None:
            note_job(error, self.result.label, self.key, self.origin)

    def withdraw(self) -> None:
        """Leave the queue; a running job is stopped, or abandoned if it cannot be. Safe from any thread."""
        try:
            self._pool.withdraw(self)
        finally:
            self.announce()  # again: if it was queued, no worker will take it from now on

    def announce(self) -> None:
        """Make the owning hub notify the waiters of the settled result. Safe from any thread."""
        waker = self._waker
        if waker is None:
            if self.returned:
                self.result.detach()
        elif getcurrent() is waker.hub:
            self._on_owning_hub()
        else:
            waker.notify(self._number)

    def unbind(self) -> None:
        """Undo `bind`, however far it got, for a job that was not admitted. Call on the submitting thread."""
        if self._waker is not None:
            self._release_waker(self._waker)
            self._waker.forget(self._number)
        self.result.detach()

    def _on_owning_hub(self) -> None:
        """Notify the waiters at the first call after the outcome; detach the job when no worker has it.

        A worker that has returned from a job drops its references before it notifies the hub of it. If the hub is
        notified earlier, of a cancellation, it leaves the rest to that: what the job refers to is freed here.
        """
        waker, result = self._waker, self.result
        assert waker is not None
        if result.ready() and not result.is_delivered:
            self._release_waker(waker)
            result.notify_waiters(waker)
            for listener in listeners:
                try:
                    listener(self)
                except Exception:  # noqa: BLE001 - it must not reach waiters or stop other listeners
                    report(waker.hub, listener, *sys.exc_info())
        if self.holder is not None and self.holder.held == id(self):
            return
        if self.returned or not self._pool.holds(self):
            waker.forget(self._number)
            result.detach()

    def _release_waker(self, waker: HubWaker) -> None:
        waker.release(self._number)
        if self._timer is not None:
            self._timer.close()
            self._timer = None
