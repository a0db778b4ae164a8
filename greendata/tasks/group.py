"""`Group`: greenlets and jobs that begin and end with a block of code. Leaving the block waits for all of them.

Guarantees:

- No member outlives the block, but for what nobody can stop: a native call that runs is abandoned and listed.
- A member's failure cancels the others, interrupts the block at its next wait, and leaves it as an ExceptionGroup
  of the original exceptions. The same goes for an error in the block. What is no `Exception` (a kill, Ctrl-C, a
  `gevent.Timeout` from around) cancels the members too, and passes through as it is.
- Out of time, the group cancels its members and says which of them go on.

The books are a dict that any thread may write to; everything else happens on the thread of the group's hub.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from contextvars import Token
from functools import partial
from time import monotonic
from typing import Any, Literal, Self, TypeVar

from gevent import Greenlet, Timeout
from gevent.event import AsyncResult
from gevent.exceptions import LoopExit
from greenlet import GreenletExit, getcurrent

from greendata.errors import BadChoice, GroupClosed, GroupTimeout, JobAborted, NotAFrame, NotCallable
from greendata.errors.plural import counted
from greendata.hub.deadline import seconds_of
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.hubs import ensure_hub, weakly
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.hub.waiters import sleep_until
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import pool
from greendata.pool.job import on_submit
from greendata.tasks.completion_queue import waitable
from greendata.tasks.task import Task, TaskResult, name_of

__all__ = ("Group",)

Take = Callable[[Result[Any]], object]
T = TypeVar("T")
M = TypeVar("M", bound="AsyncResult[Any] | Greenlet[..., Any]")

SLICE = 100  # members cancelled at once, some 10 us each; then the loop polls
_NEW, _OPEN, _CANCELLED, _LEFT = "was not entered", "", "is being cancelled", "was left"
_ON_ERROR = ("cancel", "collect")
_ON_CANCEL = ("ignore", "stop", "cancel", "collect")


class Group:
    """A block of code that waits for all that was started in it, and ends it where one fails.

    Args:
        timeout: seconds from entering until all members must be done.
        on_error: "cancel" cancels the other members at the first failure; "collect" lets them go on. Either way all
            failures are raised in the end.
        on_cancel: what a member's cancellation means: nothing ("ignore"); the others are cancelled, quietly ("stop")
            or with its JobCancelled raised ("cancel"); the others go on and it is raised in the end ("collect").
        adopt: every result that is submitted in the block is a member, also by the members themselves, be they
            greenlets or jobs on a worker.
        shield: an interruption from around (an outer group, a kill, a `gevent.Timeout`) while the block waits for its
            members lets them finish first.
        grace: seconds that killed greenlets have for their cleanup after a timeout.
        label: what the group is called in errors.

    Raises, on leaving:
        ExceptionGroup: of the failures, the block's own error first.
        GroupTimeout: out of time.

    Enter and leave it in one greenlet; members may be added from any thread.

    Example:
        >>> import greendata
        >>> with Group(timeout=5) as group:
        ...     total = group.run(sum, [1, 2])
        ...     text = group.spawn(str.upper, "a")
        >>> total.get(), text.get()
        (3, 'A')
    """

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
        self._state = _NEW  # home and `cancel` write, any thread reads
        self._pending: dict[Any, None] = {}  # any thread puts, home pops
        self._message = ""  # the reason for which members are cancelled
        self._count = 0  # members that are done; from here on: home's thread only
        self._failures: dict[int, Exception] = {}  # by identity: the block may raise what a member did
        self._abandoned: list[Result[Any]] = []
        self._doomed: deque[Any] = deque()  # to be cancelled, a slice at a time
        self._leaves_at: float | None = None  # when out of time and of grace, on time.monotonic's clock
        self._is_overdue = False
        self._block: Any = None  # the greenlet in the block
        self._interrupt: _Interrupt | None = None
        self._sleepers: list[Callable[[object], object]] = []
        self._timer: Any = None
        self._registration = _Registration(self._take) if adopt else None

    # -- the block: home ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._state is not _NEW:
            raise GroupClosed(self.label, "was entered before")
        self._hub = ensure_hub()
        self._entry_queue = EntryQueue.here()
        if self._seconds is not None:
            self._timer = self._hub.loop.timer(self._seconds)
            self._timer.start(weakly(self._on_timeout), update=True)
        if self._registration is not None:
            self._registration.begin()
        self._block = getcurrent()
        self._state = _OPEN
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
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

    def spawn(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` in a greenlet of the group's hub, with the caller's context variables.

        Raises:
            NotCallable: *func* is no callable.
            GroupClosed: the group takes no members.
        """
        self._check_open()
        task: Task[T] = Task(self._entry_queue, func, args, kwargs, on_end=self._on_end)
        start = partial(self._start, task)
        if self._entry_queue.is_here:  # posted first: a signal handler may raise in between
            self._entry_queue.post(start)
            self._pending[task.call] = None
        else:  # it may have ended as soon as it is posted
            self._pending[task.call] = None
            self._entry_queue.post(start)
        if self._registration is not None:  # the request is to know of it too
            self._registration(task.call)
        return task.call

    def run(
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

        Raises:
            NotCallable, PoolFull, PoolClosed: nothing was queued.
            GroupClosed: the group takes no members.
        """
        self._check_open()
        if not callable(func):
            raise NotCallable(func)
        work = partial(func, **kwargs) if kwargs else func
        result = pool.submit(work, *args, timeout=timeout, key=key, label=label or name_of(func))
        return self.add(result)

    def collect(self, lf: Any, **options: Any) -> Result[Any]:
        """``lf.green.collect(**options)``, a Polars query, as a member.

        Raises:
            NotAFrame: *lf* is no LazyFrame.
            GroupClosed: the group takes no members.
        """
        self._check_open()
        if not hasattr(lf, "green") or not hasattr(lf, "collect"):
            raise NotAFrame(lf, "LazyFrame")
        result: Result[Any] = lf.green.collect(**options)
        return self.add(result)

    def add(self, result: M) -> M:
        """Make *result*, a Result, an AsyncResult or a Greenlet, a member; returns it.

        Raises:
            NotAResult: it is nothing to wait for.
            WaitsForItself: it is the job or the greenlet that calls.
            ForeignGreenlet: it is a greenlet of another thread than the group's.
            GroupClosed: the group takes no members; the result was cancelled.
        """
        waitable(result, get_hub_if_exists() if self._state is _NEW else self._hub)
        if self._state is not _OPEN:
            self._refuse(result)
        self._check_open()
        self._take(result)
        return result

    def remove(self, result: Result[Any]) -> bool:
        """Let go of *result*: nobody waits for it here any more; False if it is no member (any more)."""
        is_out = self._pending.pop(result, self) is not self
        if is_out:
            self._entry_queue.post(self._wake)  # the block may wait for nothing else
        return is_out

    def cancel(self, message: str = "") -> None:
        """Cancel all members, interrupt the block at its next wait, and take no more members.

        The group leaves quietly, unless something failed before.

        Raises:
            GroupClosed: it was not entered yet.
        """
        if self._state is _NEW:
            self._check_open()
        if self._state is _OPEN:
            self._state = _CANCELLED
            self._message = message
            self._entry_queue.post(self._doom)

    @property
    def pending(self) -> tuple[Result[Any], ...]:
        """The members that are not done. Safe from any thread."""
        return (*self._pending,)  # in one step, by way of a list: to make a tuple can start the collector

    @property
    def abandoned(self) -> tuple[Result[Any], ...]:
        """Cancelled members whose native call goes on. Safe from any thread."""
        return tuple(result for result in self._abandoned if not result.end().ready())

    def __repr__(self) -> str:
        state = self._state or "open"
        return f"<Group {self.label!r} {state}: {len(self._pending)} pending, {self._count} done>"

    # -- private: any thread --------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._state is not _OPEN:
            raise GroupClosed(self.label, self._state)

    def _refuse(self, result: Any) -> None:
        if isinstance(result, Result):
            result.cancel(self._message)
        elif isinstance(result, Greenlet):  # its thread is the group's, where there is one already
            kill = partial(result.kill, block=False)
            kill() if self._state is _NEW else self._entry_queue.post(kill)

    def _take(self, result: Any) -> None:
        """Note a member. What comes after the block was left is the doing of a call that nobody could stop."""
        if result in self._pending or self._state is _LEFT:
            return
        if self._entry_queue.is_here:  # followed first: a signal handler may raise in between
            self._follow(result)
            self._pending[result] = None
        else:  # its end may be told as soon as it is posted
            self._pending[result] = None
            self._entry_queue.post(partial(self._follow, result))

    # -- private: home --------------------------------------------------------------------------------

    def _start(self, task: Task[Any]) -> None:
        if self._state is not _OPEN:
            self._give_up(task.call)
        task.start()

    def _follow(self, result: Any) -> None:
        if isinstance(result, TaskResult):  # it is over when its greenlet is dead
            result.end().rawlink(lambda _: self._on_end(result))
        else:
            result.rawlink(self._on_end)
        if self._state is not _OPEN:
            self._give_up(result)

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
            self._count_down()

    def _doom(self) -> None:
        self._doomed.extend(self._pending)
        self._cancel_slice()
        if self._block is not None and self._interrupt is None:
            self._interrupt = _Interrupt(f"{self.label} {self._state}")
            self._block.throw(self._interrupt)

    def _cancel_slice(self) -> None:
        for _ in range(min(SLICE, len(self._doomed))):
            self._give_up(self._doomed.popleft())
        if self._doomed:
            self._entry_queue.post(self._cancel_slice)
        elif self._is_overdue:
            self._count_down()

    def _count_down(self) -> None:
        self._leaves_at = monotonic() + self._grace
        self._wake(always=True)

    def _give_up(self, member: Any) -> None:
        if isinstance(member, Greenlet):
            member.kill(block=False)
        elif isinstance(member, Result):
            is_running = member.status is Status.RUNNING
            if member.cancel(self._message) and is_running and member.is_native:
                self._abandoned.append(member)
        else:  # nobody can cancel an AsyncResult
            self._on_end(member)

    def _wake(self, *, always: bool = False) -> None:
        if self._sleepers and (always or not self._pending):
            HubWaker.here(self._hub).resume(self._sleepers)

    def _wait_for_members(self) -> BaseException | None:
        """Wait until all are done, or time and grace are over; returns what interrupted the wait, if anything."""
        outside: BaseException | None = None
        while self._pending and (self._leaves_at is None or monotonic() < self._leaves_at):
            seconds = None if self._leaves_at is None else self._leaves_at - monotonic()
            try:
                sleep_until(None if seconds is None else Timeout(seconds), self._hub, self._sleepers)
            except BaseException as interruption:  # noqa: BLE001 - it is raised once the members are done
                if outside is not None and isinstance(interruption, LoopExit):
                    break
                if outside is None or isinstance(interruption, GreenletExit):  # a kill counts, whatever came before
                    outside = interruption
                if not self._shield:
                    self.cancel("the wait was interrupted")
        return outside

    def _conclude(self, outside: BaseException | None) -> None:
        failures, members = list(self._failures.values()), counted(self._count, "member")
        told = f"{self.label}: {counted(len(failures), 'failure')} among {members} and the block"
        found: Exception | None = ExceptionGroup(told, failures) if failures else None
        if self._is_overdue:
            assert self._seconds is not None
            late = GroupTimeout(self.label, self._seconds, [*self._pending, *self.abandoned])
            late.__cause__, found = found, late
        raised = found if outside is None else outside
        if raised is not None:
            raise raised from raised.__cause__  # the block's error is one of them; the interrupt is ours


class _Interrupt(BaseException):
    """Thrown into the block of a group that is being cancelled; the group takes it back on leaving."""


def _label_of(member: Any) -> str:
    return str(getattr(member, "label", None) or getattr(member, "name", None) or type(member).__name__)


class _Registration:
    """Gives *take* each result that is submitted between `begin` and `end`, and the request around it too.

    A group around it does not get them: it ends with the block that this one is in, and a failure that is dealt with
    here is none of its own.

    Args:
        take: called in the thread that submits.
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._request: Take | None = None  # set by `begin`, then read by any thread
        self._token: Token[Any] | None = None  # the thread that begins and ends

    def begin(self) -> None:
        """Begin. Call in the greenlet of the block."""
        around = on_submit.get()
        self._request = around._request if isinstance(around, _Registration) else around
        self._token = on_submit.set(self)

    def end(self) -> None:
        """End; nothing happens if it was not begun. Call in the greenlet of the block."""
        token, self._token = self._token, None
        if token is not None:
            on_submit.reset(token)

    def __call__(self, result: Result[Any]) -> None:
        """Hand *result* on. Safe from any thread."""
        self._take(result)
        if self._request is not None:
            self._request(result)
