"""`Result`: an `AsyncResult` that any thread may wait for and that is decided exactly once.

What is decided lives in its `Outcome`. What travels between threads is only the waking: the result's own hub is
told through its `HubWaker`, other hubs and plain threads through wakers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast
from weakref import ref

from gevent import Timeout

from greendata.errors import DeadlineExceeded, JobCancelled, ResultTimeout
from greendata.errors.notes import shown
from greendata.hub import native
from greendata.hub.deadline import seconds_of
from greendata.hub.hubs import ensure_hub
from greendata.hub.outcome import Outcome, Status
from greendata.hub.waiters import Link, sleep_until, wait_abroad, wait_native
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists

__all__ = ("Result", "Work")

T = TypeVar("T")


class Work(Protocol):
    """What a result knows of the job behind it."""

    deadline: float | None  # on time.monotonic's clock
    seconds: float  # that the deadline allowed

    def withdraw(self) -> None:
        """Take the job out of the queue, or mark its slot abandoned. Safe from any thread."""

    def announce(self) -> None:
        """Have the result's own hub notify its waiters. Safe from any thread."""


_making = native.RLock()  # what most results never need: an end, lists of strays and of links abroad
_NOWHERE = object()  # the home of a result without a job, or that was submitted in a thread without a hub


class Result(Outcome[T], Generic[T]):
    """The outcome of a job, now or later: a `gevent.event.AsyncResult` for every thread.

    ``Result()`` without a job is a settable AsyncResult; the first ``set`` or ``set_exception`` wins.

    Attributes:
        label: what the job is called.
        worker: the native thread that ran it, or "".

    Safe from any thread. Where the calling thread has a hub, waiting yields to it; a plain thread
    without one waits on a native lock, and no hub is made.

    Example:
        >>> import greendata
        >>> result = greendata.run(sum, [1, 2, 3])
        >>> result.get(timeout=5)
        6
        >>> result.status, result.successful()
        (<Status.DONE: 'done'>, True)
    """

    __slots__ = ("_abroad", "_callbacks", "_end", "_home", "_sleepers", "_strays", "_work", "is_delivered")

    is_native: ClassVar[bool] = True  # the work is a native call, which nobody can stop

    def __init__(self, label: str = "result") -> None:
        Outcome.__init__(self, label)  # as there
        self._abroad: list[Link] | None = None  # links of other hubs; any thread, one C call each
        self._callbacks: list[Callable[[], object]] = []  # any thread appends and pops, one C call each
        self._sleepers: list[Callable[[object], object]] = []  # greenlets of the home hub; its thread only
        self._strays: list[Callable[[Any], object]] | None = None  # links of threads without a hub; any thread
        self._home: object = _NOWHERE  # the hub that settles it; set before the job is queued, then read only
        self._work: Work | None = None  # the submitting thread sets it, the home drops it
        self.is_delivered = False  # the waiters of the home hub were notified; home hub's thread
        self._end: Result[None] | None = None  # who waits for `end`; any thread makes it, once in need

    # -- waiting: any thread ------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | Timeout | None = None) -> T:  # noqa: FBT001, FBT002
        """The value, once it is there; or the job's own exception, raised.

        Args:
            block: False raises `ResultTimeout` at once if there is no outcome.
            timeout: seconds, or a `gevent.Timeout`. It bounds this wait, never the work.

        Raises:
            ResultTimeout: no outcome in time.
            BadTimeout: *timeout* is negative or NaN.
            DeadlineExceeded, JobCancelled, JobAborted: that was the outcome.
        """
        if not self._outcomes:
            expired = self._await(timeout) if block else ResultTimeout(self, None)
            if not self._outcomes:
                assert expired is not None
                raise expired
        _, value, error, trace, _ = self._outcomes[0]
        if error is None:
            return cast("T", value)
        try:
            raise BaseException.with_traceback(error, trace)
        finally:
            del self, error, trace  # the frame is in the traceback: no cycle through it

    def get_nowait(self) -> T:
        """``get(block=False)``."""
        return self.get(block=False)

    def result(self, timeout: float | Timeout | None = None) -> T:
        """``get(timeout=timeout)``, as a Future calls it."""
        return self.get(timeout=timeout)

    def wait(self, timeout: float | Timeout | None = None) -> T | None:
        """Wait for an outcome and return `value`; None if there is an error or no outcome in time.

        Raises:
            BadTimeout: *timeout* is negative or NaN.
        """
        if not self._outcomes:
            self._await(timeout)
        return self.value

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Have the hub of the calling thread call ``callback(self)`` once there is an outcome.

        A link made in a thread without a hub runs in the hub that submitted the job, or at once where the outcome
        has come there already.
        """
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        hub = ensure_hub() if self._home is _NOWHERE else get_hub_if_exists()
        if hub is None:
            self._link_at_home(callback)
        elif self._home is hub:
            super().rawlink(callback)
        else:
            link = Link(self, hub, callback)
            with _making:
                self._abroad = links = [] if self._abroad is None else self._abroad
            links.append(link)
            if not self.add_callback(link.wake):
                link.wake()

    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Take back a link that this thread has made; nothing happens if it is not there."""
        for link in list(self._abroad or ()):
            if link.is_here and link.callback == callback:
                self.drop_callback(link.wake)
                link.drop()
                return
        if not self._drop_stray(callback) and self._home is get_hub_if_exists():  # gevent's own are the home's
            super().unlink(callback)

    # -- deciding: any thread -----------------------------------------------------------------------

    def set(self, value: T | None = None) -> None:
        """Make *value* the outcome, unless there is one already."""
        self._decide(Status.DONE, value)

    set_result = set

    def set_exception(self, exception: Any, exc_info: Any = None) -> None:
        """Make *exception* the outcome, unless there is one already."""
        if exc_info and exc_info[2] is not None:
            exception = BaseException.with_traceback(exception, exc_info[2])
        self._decide(Status.FAILED, error=exception)

    def cancel(self, message: str = "") -> bool:  # type: ignore[override]  # gevent's is always False
        """Give the work up, for the reason that *message* tells; True if that decided the outcome.

        A queued job never runs. A running one fails with `JobCancelled` at once for all its waiters; its
        native call goes on, and its slot counts as abandoned until it returns.
        """
        error = JobCancelled(self.label, running=self._began is not None, native=self.is_native, message=message)
        return self._decide(Status.CANCELLED, error=error)

    def cancel_wait(self, message: str = "", *, timeout: float | Timeout | None = None) -> bool:
        """`cancel`, and wait until the work has really come to its end; True if that decided the outcome.

        Raises:
            ResultTimeout: the work went on for longer than *timeout*; the result is cancelled all the same.
        """
        decided = self.cancel(message)
        self.end().get(timeout=timeout)
        return decided

    def end(self) -> Result[None]:
        """The end of the work itself, as a result: the native call has returned, the greenlet is dead.

        A cancelled or expired result is ready before that. Where there is no work, there is nothing to wait for.
        """
        with _making:
            if self._end is None:
                self._end = _End(self)
                self._end.bind(None, None)
        if self._work is None:  # looked at after _end is in its place; `part` does it the other way round
            self._end.set_done()
        return self._end

    def set_done(self) -> None:
        """Settle as done, for a result that is bound to no hub. Safe from any thread, workers too."""
        self.settle(Status.DONE)
        self.wake()

    def expire(self) -> None:
        """Fail with `DeadlineExceeded`, unless there is an outcome. Called when the deadline has passed."""
        work = self._work
        seconds = 0.0 if work is None else work.seconds
        running = self._began is not None
        error = DeadlineExceeded(self.label, seconds, running=running, native=self.is_native)
        self._decide(Status.FAILED, error=error)

    def wake(self) -> None:
        """Wake the waiters of other hubs and of plain threads. Safe from any thread; twice does no harm."""
        wakers = self._callbacks
        while wakers:
            try:
                wake = wakers[0]
            except IndexError:  # a waiter that gave up took the last one
                return
            try:
                wake()
            except BaseException:
                wake()  # a signal came in between, or memory was short
                raise
            self.drop_callback(wake)  # afterwards: nobody is forgotten, whatever comes in between

    # -- for waiters and the pool -------------------------------------------------------------------------------

    @property
    def own_deadline(self) -> float | None:
        """The deadline of the work that is not over, on time.monotonic's clock.

        Waiters that are not at home watch it too: there may be no home, or its hub may be gone or blocked.
        """
        work = self._work
        return None if work is None else work.deadline

    @property
    def members(self) -> tuple[Any, ...]:
        """What it gathers, while it waits for that; who lets it go on has to let them go on."""
        return getattr(self._work, "members", ())

    def add_callback(self, wake: Callable[[], object]) -> bool:
        """Have *wake* called at the outcome, perhaps twice; False if there is one, and the caller has to look."""
        self._callbacks.append(wake)
        return not self._outcomes or not self.drop_callback(wake)

    def drop_callback(self, wake: Callable[[], object]) -> bool:
        """Take *wake* back; False if it is not there."""
        with suppress(ValueError):
            self._callbacks.remove(wake)
            return True
        return False

    def bind(self, work: Work | None, home: HubWaker | None) -> None:
        """Tie the result to its job and to the hub of *home*. Called once, before the job is queued."""
        self._work = work
        self._home = _NOWHERE if home is None else home.hub

    def notify_waiters(self, home: HubWaker | None = None) -> None:
        """Notify greenlets that wait on the hub of *home*. Called there, or by `set` of an unbound result."""
        assert self._outcomes
        self.is_delivered = True
        strays = self._strays
        while strays:
            with suppress(IndexError):  # whoever made the last one took it back
                stray = strays.pop(0)
                cast("Any", self._home).loop.run_callback(stray, self)
        if home is not None:
            home.resume(self._sleepers)
        if self.linkcount():  # gevent's own set() does no more here than to notify them
            super().set(None)

    def fail_after_fork(self, error: Exception) -> None:
        """Fail without waking anybody: the job belongs to another process. Call after a fork, in the child."""
        self._callbacks.clear()
        self.settle(Status.FAILED, error=error)
        self.detach()

    def detach(self) -> None:
        """Let go of the job. Called on the home hub, or on the worker where there is no home."""
        self._work = None
        if self._end is not None:
            self._end.set_done()

    def drop_link(self, link: Link) -> None:
        """Know *link* no longer. Safe from any thread."""
        with suppress(ValueError):
            (self._abroad or []).remove(link)

    # -- private ------------------------------------------------------------------------------------

    def _link_at_home(self, callback: Callable[[Any], object]) -> None:
        """Have the home hub run *callback*, for a thread that has no hub."""
        with _making:
            self._strays = strays = [] if self._strays is None else self._strays
        strays.append(callback)
        # Looked at after the stray is in its place, as `notify_waiters` takes it after this.
        if self.is_delivered and self._drop_stray(callback):
            callback(self)

    def _drop_stray(self, callback: Callable[[Any], object]) -> bool:
        """Take back what `_link_at_home` noted; False if it is not there, or is being called."""
        with suppress(ValueError):
            (self._strays or []).remove(callback)
            return True
        return False

    def _decide(self, status: Status, value: Any = None, error: BaseException | None = None) -> bool:
        """Settle, give the work up and wake the waiters; False if it was decided before."""
        work = self._work  # before the outcome: from then on the home may let go of it at any moment
        if not self.settle(status, value, error):
            return False
        self.wake()
        if work is None:
            self.notify_waiters()
        else:  # withdrawn last: if a signal handler raises before that, whoever does the work tells the waiters
            work.announce()
            work.withdraw()
        return True

    def _await(self, timeout: float | Timeout | None) -> Timeout | None:
        """Wait until there is an outcome, or return what expired before."""
        hub = get_hub_if_exists()
        if hub is None:
            return wait_native(self, timeout)
        timer = timeout if isinstance(timeout, Timeout) else None
        if timer is None and (seconds := seconds_of(timeout)) is not None:
            timer = ResultTimeout(self, seconds, armed=True)
        if self._home is hub:
            sleep_until(timer, hub, self._sleepers)
        else:
            wait_abroad(self, hub, timer)
        return timer

    def __repr__(self) -> str:
        where = f" on {self.worker}" if self.worker else ""
        error = f" {shown(self.exception)}" if self.exception is not None else ""
        return f"<Result {self.label!r} {self.status}{where}{error} at {id(self):#x}>"

    __str__ = __repr__


class _End(Result[None]):
    """The end of the work behind a result. Whoever waits for it keeps the deadline of that work as well."""

    __slots__ = ("_of",)

    def __init__(self, result: Result[Any]) -> None:
        super().__init__(f"end of {result.label}")
        self._of = ref(result)  # weak: the result knows its end; while there is work, the work knows the result

    @property
    def own_deadline(self) -> float | None:
        """The deadline of the work that is neither over nor given up."""
        result = self._of()
        return None if result is None or result.ready() else result.own_deadline

    def expire(self) -> None:
        """Fail the result; the end comes when the work is over, which may be later."""
        result = self._of()
        if result is not None:
            result.expire()


def _after_fork_in_child() -> None:
    """A thread that only the parent has may hold the lock, for ever."""
    global _making
    _making = native.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
