"""`Group`: greenlets and jobs that begin and end with a block of code. Leaving the block waits for all of them.

Guarantees:

- No member outlives the block, except native calls that cannot be stopped: these are abandoned and listed.
- The failure of a member cancels the others and interrupts the block at its next wait. The block then raises an
  ExceptionGroup of the original exceptions. An error in the block has the same effect. Exceptions that are not an
  `Exception` (a kill, Ctrl-C, an outer `gevent.Timeout`) cancel the members too, and are raised unchanged.
- When the group is out of time, it cancels its members and reports which of them continue.

The pending members are in a dict that any thread may write. Everything else happens on the thread of the group's hub.

    any thread                            the thread of the group's hub
    ----------                            -----------------------------
    spawn, run, add: put into _pending
      posted to the EntryQueue  ------->  start the task, link the result
    a member ends               ------->  _on_end: removed from _pending; a failure cancels the others
                                          __exit__ sleeps until _pending is empty
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from contextvars import Token
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

from gevent import Greenlet, Timeout
from gevent.event import AsyncResult
from gevent.exceptions import LoopExit
from greenlet import GreenletExit, getcurrent

from greendata.errors import BadChoice, GroupClosed, GroupTimeout, JobAborted, NotAFrame
from greendata.errors.plural import counted
from greendata.hub.checks import naming_arguments
from greendata.hub.deadline import seconds_of
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.hubs import Timer, ensure_hub
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.hub.waiters import sleep_until
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import pool
from greendata.pool.job import on_submit
from greendata.tasks.completion_queue import waitable
from greendata.tasks.task import Task, TaskResult

if TYPE_CHECKING:
    import polars as pl

    from greendata.internals.polars import EngineType

__all__ = ("Group",)

OnSubmit = Callable[[Result[Any]], object]
P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound="AsyncResult[Any] | Greenlet[..., Any]")

SLICE = 100  # members cancelled in one step, some 10 us each; then the loop runs other callbacks
_NEW, _OPEN, _CANCELLED, _LEFT = "was not entered", "", "is being cancelled", "was left"
_ON_ERROR = ("cancel", "collect")
_ON_CANCEL = ("ignore", "stop", "cancel", "collect")


class Group:
    """A block of code that waits for all members started in it, and cancels them when one fails.

    Args:
        timeout: seconds from entering until all members must be done.
        on_error: "cancel" cancels the other members at the first failure; "collect" lets them continue. In both cases
            all failures are raised at the end.
        on_cancel: the effect of a member's cancellation: nothing ("ignore"); the others are cancelled, and its
            JobCancelled is not raised ("stop") or is raised ("cancel"); the others continue, and its JobCancelled is
            raised at the end ("collect").
        adopt: make every result submitted in the block a member, also those that members submit, whether they are
            greenlets or jobs on a worker.
        shield: if an outer group, a kill or a `gevent.Timeout` interrupts the block while it waits for its members,
            let them finish first.
        grace: seconds that killed greenlets have for their cleanup after a timeout.
        label: the name of the group in errors.

    Raises:
        BadChoice, BadTimeout, UnknownArgument: the arguments cannot be used.
        ExceptionGroup: at the end of the block: the failures, the error of the block first.
        GroupTimeout: at the end of the block: the group is out of time.

    Enter and leave it in the same greenlet. Members may be added from any thread.

    Example:
        >>> import greendata
        >>> with Group(timeout=5) as group:
        ...     total = group.run(sum, [1, 2])
        ...     text = group.spawn(str.upper, "a")
        >>> total.get(), text.get()
        (3, 'A')
    """

    @naming_arguments
    def __init__(
        self,
        *,
        timeout: float | None = None,
        on_error: Literal["cancel", "collect"] = "cancel",
        on_cancel: Literal["ignore", "stop", "cancel", "collect"] = "ignore",
        adopt: bool = False,
        shield: bool = False,
        grace: float = 1.0,
        label: str = "group",
    ) -> None:
        if on_error not in _ON_ERROR:
            raise BadChoice("on_error", on_error, _ON_ERROR)
        if on_cancel not in _ON_CANCEL:
            raise BadChoice("on_cancel", on_cancel, _ON_CANCEL)
        self.label = label  # from here to _grace: set once, any thread reads
        self._seconds = seconds_of(timeout)
        self._on_error = on_error
        self._on_cancel = on_cancel
        self._shield = shield
        self._grace = seconds_of(grace) or 0.0
        self._state = _NEW  # written on the hub's thread and by `cancel`; any thread reads
        self._pending: dict[Any, None] = {}  # any thread puts, the hub's thread pops
        self._message = ""  # the reason for which members are cancelled
        self._count = 0  # members that have ended; from here on: hub's thread only
        self._failures: dict[int, Exception] = {}  # by id: the block may raise the error of a member
        self._abandoned: list[Result[Any]] = []
        self._to_cancel: deque[Any] = deque()  # to be cancelled, a slice at a time
        self._abandon_at: float | None = None  # when timeout and grace have passed, on time.monotonic's clock
        self._is_overdue = False
        self._is_cancelling = False
        self._block: Any = None  # the greenlet that runs the block
        self._interrupt: _Interrupt | None = None
        self._sleepers: list[Callable[[object], object]] = []
        self._timer: Timer | None = None
        self._registration = _Registration(self._register) if adopt else None

    # -- the block: hub's thread ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._state is not _NEW:
            raise GroupClosed(self.label, "was entered before")
        self._hub = ensure_hub()
        self._entry_queue = EntryQueue.here()
        if self._seconds is not None:
            self._timer = Timer(self._hub, self._seconds, self._on_timeout, ref=True)
        if self._registration is not None:
            self._registration.begin()
        self._block = getcurrent()
        self._state = _OPEN
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool | None:
        self._block = None
        if self._registration is not None:
            self._registration.end()
        is_interrupted = error is not None and error is self._interrupt
        if error is not None and not is_interrupted:
            self._note_error(error)
        try:
            outside = self._wait_for_members()
        finally:
            self._state = _LEFT
            self._interrupt = None
            if self._timer is not None:
                self._timer.close()
        if is_interrupted or error is None or isinstance(error, Exception):
            self._conclude(outside)
        return is_interrupted

    # -- members: any thread ------------------------------------------------------------------------

    def spawn(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` in a greenlet of the group's hub, with the caller's context variables.

        Args:
            func: a function that waits cooperatively.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Raises:
            NotCallable, AsyncFunction: *func* is not a function that can be called.
            GroupClosed: the group accepts no members.
        """
        self._check_open()
        task: Task[T] = Task(self._entry_queue, func, args, kwargs, on_end=self._on_end)
        start = partial(self._start, task)
        if self._entry_queue.is_here:  # post first: a signal handler may raise in between
            self._entry_queue.post(start)
            self._pending[task.call] = None
        else:  # add first: it may end as soon as it is posted
            self._pending[task.call] = None
            self._entry_queue.post(start)
        if self._registration is not None:  # the request registers it too
            self._registration(task.call)
        return task.call

    @overload
    def run(
        self,
        func: Callable[..., T],
        /,
        *args: Any,
        timeout: float | None,
        key: Hashable = ...,
        label: str | None = ...,
        **kwargs: Any,
    ) -> Result[T]: ...
    @overload
    def run(
        self,
        func: Callable[..., T],
        /,
        *args: Any,
        timeout: float | None = ...,
        key: Hashable,
        label: str | None = ...,
        **kwargs: Any,
    ) -> Result[T]: ...
    @overload
    def run(
        self,
        func: Callable[..., T],
        /,
        *args: Any,
        timeout: float | None = ...,
        key: Hashable = ...,
        label: str | None,
        **kwargs: Any,
    ) -> Result[T]: ...
    @overload
    def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Result[T]: ...
    def run(  # type: ignore[misc]  # a func with parameters named as the three options
        self,
        func: Callable[..., T],
        /,
        *args: Any,
        timeout: float | None = None,
        key: Hashable = None,
        label: str | None = None,
        **kwargs: Any,
    ) -> Result[T]:
        """Run ``func(*args, **kwargs)`` in the pool, as `greendata.run` does.

        Args:
            func: a function that blocks or computes.
            args: its positional arguments.
            timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
            key: jobs with different keys, for example tenants or routes, take turns.
            label: the name of the job in errors and statistics; the function's name if None.
            kwargs: its keyword arguments.

        Raises:
            NotCallable, AsyncFunction, BadTimeout, OptionTaken: an argument that cannot be used. Here and below,
                nothing was queued.
            PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.
            GroupClosed: the group accepts no members.
        """
        self._check_open()
        return self.add(pool.run(func, args, kwargs, timeout=timeout, key=key, label=label))

    def collect(
        self,
        lf: pl.LazyFrame,
        *,
        engine: EngineType = "auto",
        optimizations: pl.QueryOptFlags | None = None,
        timeout: float | None = None,
        key: Hashable = None,
        label: str | None = None,
    ) -> Result[pl.DataFrame]:
        """Run a Polars query as a member, as `greendata.collect` does.

        Args:
            lf: the query.
            engine: the engine that computes: "auto", "in-memory", "streaming", "gpu" or a `polars.Engine`.
            optimizations: the optimizations that Polars may use, a `polars.QueryOptFlags`; None for Polars' default.
            timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
            key: jobs with different keys, for example tenants or routes, take turns.
            label: the name of the job in errors and statistics; "collect" if None.

        Raises:
            NotAFrame, BadEngine, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
            PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.
            GroupClosed: the group accepts no members.
        """
        self._check_open()
        if not hasattr(lf, "green") or not hasattr(lf, "collect"):
            raise NotAFrame(lf, "LazyFrame")
        flags = {} if optimizations is None else {"optimizations": optimizations}
        green: Any = lf.green  # the frame brings its verbs along: groups work without Polars, as this package does
        result: Result[pl.DataFrame] = green.collect(engine=engine, timeout=timeout, key=key, label=label, **flags)
        return self.add(result)

    def add(self, result: M) -> M:
        """Make *result*, a Result, an AsyncResult or a Greenlet, a member, and return it.

        Raises:
            NotAResult: it is not a Result, AsyncResult or Greenlet.
            WaitsForItself: it is the calling job or greenlet.
            ForeignGreenlet: it is a greenlet of another thread than the group's.
            GroupClosed: the group accepts no members; the result was cancelled.
        """
        waitable(result, get_hub_if_exists() if self._state is _NEW else self._hub)
        if self._state is not _OPEN:
            self._refuse(result)
        self._check_open()
        self._register(result)
        return result

    def remove(self, result: Result[Any]) -> bool:
        """Remove *result* from the group without cancelling it. Return False if it is not a pending member."""
        is_out = self._pending.pop(result, self) is not self
        if is_out:
            self._entry_queue.post(self._wake)  # the block may be waiting for this member only
        return is_out

    def cancel(self, message: str = "") -> None:
        """Cancel all members, interrupt the block at its next wait, and accept no more members.

        Leaving the group then raises nothing, unless something failed before.

        Raises:
            GroupClosed: the group has not been entered yet.
        """
        if self._state is _NEW:
            self._check_open()
        if self._state is _OPEN:  # post first: a signal handler may raise in between
            self._entry_queue.post(partial(self._cancel_members, message))
            self._close(message)

    @property
    def pending(self) -> tuple[Result[Any], ...]:
        """The members that have not ended. Safe from any thread."""
        return (*self._pending,)  # one step, through a list: creating a tuple can start a garbage collection

    @property
    def abandoned(self) -> tuple[Result[Any], ...]:
        """The cancelled members whose native call continues. Safe from any thread."""
        return tuple(result for result in self._abandoned if not result.end().ready())

    def __repr__(self) -> str:
        state = self._state or "open"
        return f"<Group {self.label!r} {state}: {len(self._pending)} pending, {self._count} done>"

    # -- private: any thread --------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._state is not _OPEN:
            raise GroupClosed(self.label, self._state)

    def _close(self, message: str) -> None:
        """Accept no more members, for the reason *message*."""
        if self._state is _OPEN:
            self._message = message
            self._state = _CANCELLED

    def _refuse(self, result: Any) -> None:
        if isinstance(result, Result):
            result.cancel(self._message)
        elif isinstance(result, Greenlet):  # it belongs to the group's thread, if the group has one
            kill = partial(result.kill, block=False)
            kill() if self._state is _NEW else self._entry_queue.post(kill)

    def _register(self, result: Any) -> None:
        """Add a member. Does nothing after the block was left: only a call that cannot be stopped submits then."""
        if result in self._pending or self._state is _LEFT:
            return
        if self._entry_queue.is_here:  # follow first: a signal handler may raise in between
            self._follow(result)
            self._pending[result] = None
        else:  # add first: `_on_end` may run as soon as it is posted
            self._pending[result] = None
            self._entry_queue.post(partial(self._follow, result))

    # -- private: hub's thread --------------------------------------------------------------------------------

    def _start(self, task: Task[Any]) -> None:
        if self._state is not _OPEN:
            self._cancel_member(task.call)
        task.start()

    def _follow(self, result: Any) -> None:
        if isinstance(result, TaskResult):  # it has ended when its greenlet is dead
            result.end().rawlink(lambda _: self._on_end(result))
        else:
            result.rawlink(self._on_end)
        if self._state is not _OPEN:
            self._cancel_member(result)

    def _on_end(self, result: Any) -> None:
        if self._pending.pop(result, self) is self:
            return
        self._count += 1
        error = result.exception
        if isinstance(result, Result) and result.cancelled():
            self._note_cancelled(error)
        elif error is not None:
            self._note_failure(error if isinstance(error, Exception) else JobAborted(_label_of(result), error))
        self._wake()

    def _note_failure(self, error: Exception) -> None:
        self._failures[id(error)] = error
        if self._on_error == "cancel":
            self.cancel("another member failed")

    def _note_cancelled(self, error: Any) -> None:
        if self._state is not _OPEN:
            return
        if self._on_cancel in ("cancel", "collect"):
            self._failures[id(error)] = error
        if self._on_cancel in ("cancel", "stop"):
            self.cancel("another member was cancelled")

    def _note_error(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self._failures = {id(error): error, **self._failures}
        self.cancel("the block failed")

    def _on_timeout(self) -> None:
        self._is_overdue = True
        if self._state is _OPEN:
            self.cancel("the group was out of time")
        else:
            self._start_grace()

    def _cancel_members(self, message: str) -> None:
        if self._is_cancelling:
            return
        self._is_cancelling = True
        self._close(message)
        self._to_cancel.extend(self._pending)
        self._cancel_slice()
        if self._block is not None and self._interrupt is None:
            self._interrupt = _Interrupt(f"{self.label} {self._state}")
            self._block.throw(self._interrupt)

    def _cancel_slice(self) -> None:
        for _ in range(min(SLICE, len(self._to_cancel))):
            self._cancel_member(self._to_cancel.popleft())
        if self._to_cancel:
            self._entry_queue.post(self._cancel_slice)
        elif self._is_overdue:
            self._start_grace()

    def _start_grace(self) -> None:
        self._abandon_at = monotonic() + self._grace
        self._wake(always=True)

    def _cancel_member(self, member: Any) -> None:
        if isinstance(member, Greenlet):
            member.kill(block=False)
        elif isinstance(member, Result):
            continues = member.status is Status.RUNNING and not member.is_stoppable
            if member.cancel(self._message) and continues:
                self._abandoned.append(member)
        else:  # an AsyncResult cannot be cancelled
            self._on_end(member)

    def _wake(self, *, always: bool = False) -> None:
        if self._sleepers and (always or not self._pending):
            HubWaker.here(self._hub).resume(self._sleepers)

    def _wait_for_members(self) -> BaseException | None:
        """Wait until all members have ended, or timeout and grace have passed. Return the interruption, if any."""
        outside: BaseException | None = None
        while self._pending and (self._abandon_at is None or monotonic() < self._abandon_at):
            seconds = None if self._abandon_at is None else self._abandon_at - monotonic()
            try:
                sleep_until(None if seconds is None else Timeout(seconds), self._hub, self._sleepers)
            except BaseException as interruption:  # noqa: BLE001 - it is raised once the members have ended
                if outside is not None and isinstance(interruption, LoopExit):
                    break
                if outside is None or isinstance(interruption, GreenletExit):  # a kill replaces an earlier interruption
                    outside = interruption
                if not self._shield:
                    self.cancel("the wait was interrupted")
        return outside

    def _conclude(self, outside: BaseException | None) -> None:
        failures, members = list(self._failures.values()), counted(self._count, "member")
        message = f"{self.label}: {counted(len(failures), 'failure')} among {members} and the block"
        found: Exception | None = ExceptionGroup(message, failures) if failures else None
        if self._is_overdue:
            assert self._seconds is not None
            late = GroupTimeout(self.label, self._seconds, [*self._pending, *self.abandoned])
            late.__cause__, found = found, late
        raised = found if outside is None else outside
        if raised is not None:
            raise raised from raised.__cause__  # not from the error of the block, which is among the failures


class _Interrupt(BaseException):
    """Thrown into the block of a group that is being cancelled; `Group.__exit__` suppresses it."""


def _label_of(member: Any) -> str:
    return str(getattr(member, "label", None) or getattr(member, "name", None) or type(member).__name__)


class _Registration:
    """Pass each result submitted between `begin` and `end` to *register*, and to the surrounding request.

    An outer group does not get them: the inner group ends before the outer block does, and a failure handled by the
    inner group must not fail the outer one.

    Args:
        register: called in the thread that submits.
    """

    def __init__(self, register: OnSubmit) -> None:
        self._register = register
        self._request: OnSubmit | None = None  # set by `begin`, then read by any thread
        self._token: Token[Any] | None = None  # used by the thread that begins and ends

    def begin(self) -> None:
        """Start registering. Call in the greenlet of the block."""
        around = on_submit.get()
        self._request = around._request if isinstance(around, _Registration) else around
        self._token = on_submit.set(self)

    def end(self) -> None:
        """Stop registering, if `begin` was called. Call in the greenlet of the block."""
        token, self._token = self._token, None
        if token is not None:
            on_submit.reset(token)

    def __call__(self, result: Result[Any]) -> None:
        """Register *result*. Safe from any thread."""
        self._register(result)
        if self._request is not None:
            self._request(result)
