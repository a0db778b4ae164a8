"""`Task`: a function call that runs in a greenlet of a chosen hub, and its `TaskResult`.

A `Task` is for a greenlet what a `Job` is for a native thread. It is posted to the entry queue of the hub, and starts
when it arrives there, without another iteration of the loop. If it is cancelled or out of time, its greenlet is killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, Generic, TypeVar

import gevent
from gevent import GreenletExit
from greenlet import getcurrent, greenlet

from greendata.errors import JobAborted, JobCancelled
from greendata.errors.notes import without_frame
from greendata.hub import native
from greendata.hub.checks import check_function
from greendata.hub.deadline import nearest_limit
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.hubs import Timer
from greendata.hub.origin import note_job, origin_here
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.pool.job import name_of, on_submit

__all__ = (
    "Task",
    "TaskResult",
    "current_job",
)

T = TypeVar("T")


class TaskResult(Result[T], Generic[T]):
    """The outcome of a call that runs in a greenlet of a chosen hub.

    Attributes:
        context: the context variables with which the call runs.
        metadata: the metadata passed to `Caller.schedule_call`.
    """

    __slots__ = ("context", "metadata")

    is_native = False

    def __init__(self, label: str, context: Context, metadata: dict[str, Any]) -> None:
        super().__init__(label)
        self.context = context
        self.metadata = metadata


class Task(Generic[T]):
    """The work behind a `TaskResult`: a callable, the hub on which it runs, and the greenlet that runs it there.

    Any thread may make it. From `start` on, everything happens on the hub's thread. The `TaskResult` refers to it until
    it has finished.
    """

    __slots__ = (
        "__weakref__",
        "_delay",
        "_entry_queue",
        "_greenlet",
        "_has_finished",
        "_is_first_turn",
        "_timer",
        "args",
        "call",
        "deadline",
        "func",
        "in_block",
        "kwargs",
        "on_end",
        "origin",
        "seconds",
    )

    def __init__(
        self,
        entry_queue: EntryQueue,
        func: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        context: Context | None = None,
        metadata: dict[str, Any] | None = None,
        on_end: Callable[[TaskResult[T]], object] | None = None,
    ) -> None:
        check_function(func)
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.on_end = on_end  # called on the hub's thread, when the greenlet has ended; perhaps twice
        self.origin = origin_here(1)
        copied = copy_context() if context is None else context.copy()
        self.call: TaskResult[T] = TaskResult(name_of(func), copied, metadata or {})
        limit = nearest_limit(None)
        self.deadline = None if limit is None else limit.until
        self.seconds = 0.0 if limit is None else limit.seconds
        self.in_block = limit is not None and limit.in_block
        self._entry_queue = entry_queue
        self._greenlet: _Runner | None = None  # from here on: hub's thread only
        self._is_first_turn = False
        self._has_finished = False
        self._timer: Timer | None = None  # for the deadline
        self._delay: Timer | None = None
        self.call.bind(self, entry_queue.waker)

    def dispatch(self, start: Callable[[], object]) -> TaskResult[T]:
        """Post *start*, the function that starts the task, and return the result. Safe from any thread."""
        self._entry_queue.post(start)
        if (register := on_submit.get()) is not None:
            register(self.call)
        return self.call

    # -- on the hub's thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Run the call in a greenlet until it first waits. Call from the hub itself.

        A second call does what a signal handler has kept the first one from doing.
        """
        runner = self._greenlet
        if runner is None:
            if not self._may_begin():
                return
            runner = _Runner(self._run, self._entry_queue.hub)
            runner.call = self.call
            runner.gr_context = self.call.context
            self._greenlet = runner
        if not runner and not runner.dead:  # it has not begun
            self._is_first_turn = True
            try:
                runner.switch()
            except BaseException as error:  # of a signal handler, in a step of `_run` itself
                if not self.call.ready():
                    self._fail(error, JobAborted(self.call.label, error))
                self._entry_queue.post(self._on_owning_hub)
                raise
        self._is_first_turn = False
        if runner.dead:
            self._on_owning_hub()

    def start_direct(self) -> None:
        """Run the call immediately, in the hub, where it must not wait. Call from the hub itself."""
        if self.call.ready():
            self._on_owning_hub()
        elif self._may_begin():
            _local.call, self._is_first_turn = self.call, True
            self.call.context.run(self._run)
            _local.call, self._is_first_turn = None, False
            self._on_owning_hub()

    def start_later(self, delay: float) -> None:
        """Run the call in a greenlet after *delay* seconds. Call from the hub itself."""
        if not self.call.ready() and self._delay is None:
            self.keep_deadline()
            self._delay = Timer(self._entry_queue.hub, delay, self.start, ref=True)

    def keep_deadline(self) -> None:
        """Make the call fail when its deadline passes, even before it has begun. Call from the hub itself."""
        if self.deadline is not None and self._timer is None:
            left = max(0.0, self.deadline - monotonic())
            self._timer = Timer(self._entry_queue.hub, left, self.call.expire)

    def _may_begin(self) -> bool:
        if self.deadline is not None and monotonic() >= self.deadline:
            self.call.expire()
        if self.call.ready():
            self._on_owning_hub()
            return False
        self.keep_deadline()
        self.call.begin(self._entry_queue.thread)
        return True

    def _run(self) -> None:
        call = self.call
        try:
            call.settle(Status.DONE, self.func(*self.args, **self.kwargs))
        except GreenletExit:
            killed = JobCancelled(call.label, running=True, native=False, message="killed")
            self.note(killed)
            call.settle(Status.CANCELLED, error=killed)
            del killed  # avoid a reference cycle
        except Exception as error:  # noqa: BLE001 - every error is the waiter's
            self._fail(error, error)
        except BaseException as error:  # noqa: BLE001 - it would end the hub's thread
            self._fail(error, JobAborted(call.label, error))
            if isinstance(error, KeyboardInterrupt):  # Ctrl-C arrived here, but is meant for the program
                self._entry_queue.hub.handle_system_error(type(error), error)
        call.wake()
        if not self._is_first_turn:
            self._entry_queue.post(self._on_owning_hub)
        del self, call  # the error of a failed call keeps its frames, and they keep this one as their caller

    def _fail(self, error: BaseException, outcome: Exception) -> None:
        without_frame(error)  # drop the frame of `_run`: avoid a reference cycle
        self.note(outcome)
        self.call.settle(Status.FAILED, error=outcome)

    def _on_owning_hub(self) -> None:
        """Notify the waiters of the outcome, and detach the task when its greenlet has ended."""
        call = self.call
        if not call.ready() or self._has_finished:
            return
        if not call.is_delivered:
            for timer in (self._timer, self._delay):
                if timer is not None:
                    timer.close()
            call.notify_waiters(self._entry_queue.waker)
        if self._greenlet is None or self._greenlet.dead:
            self._greenlet = None
            call.detach()
            if self.on_end is not None:
                self.on_end(call)
            self._has_finished = True  # last: a second call does what an interrupted one has not done

    def _stop(self) -> None:
        if self._greenlet is not None and not self._greenlet.dead:
            gevent.kill(self._greenlet)

    # -- called by the result: any thread ---------------------------------------------------

    def note(self, error: Exception) -> None:
        """Add to *error*, the outcome, a note with the label and the submitting line. Never raises. Any thread."""
        note_job(error, self.call.label, None, self.origin)

    def withdraw(self) -> None:
        """Kill the greenlet. A call that has not begun does not start."""
        self._entry_queue.post(self._stop)

    def announce(self) -> None:
        """Make the hub notify the waiters of the settled result."""
        self._entry_queue.post(self._on_owning_hub)


class _Runner(greenlet):
    """The greenlet of a task, by which `current_job` finds the result.

    It is a plain greenlet: a `gevent.Greenlet` costs 3 us more, for links and values that the `TaskResult` has already.
    Greenlets are not reused, although a new one is most of the cost of a call: the next call would see the values of
    the previous one in ``gevent.local``.
    """

    __slots__ = ("call",)  # instead of a dict

    call: TaskResult[Any] | None


def current_job() -> Result[Any] | None:
    """Return the result of the job or call in which this function is called; None outside of one.

    It finds pool jobs on their own worker, and calls of a `Caller` or a `Group` in their own greenlet.

    Example:
        >>> import greendata
        >>> current_job() is None
        True
        >>> greendata.run(lambda: current_job().label, label="asks").get(timeout=5)
        'asks'
    """
    current = getcurrent()
    if isinstance(current, _Runner):
        return current.call
    return getattr(_local, "call", None) or pool.result_of_this_worker()


def _after_fork_in_child() -> None:
    """Forget the call that forked: it belongs to the parent."""
    _local.call = None
    current = getcurrent()
    if isinstance(current, _Runner):
        current.call = None


_local = native.Local()  # the call that runs in the hub itself
os.register_at_fork(after_in_child=_after_fork_in_child)
