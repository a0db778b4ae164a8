"""`Result`: an `AsyncResult` that any thread may wait for and that is settled exactly once.

The outcome itself is stored in the base class `Outcome`, where every thread can read it. Only notifications cross
threads. The thread that settles a result, usually a worker, does three things and never blocks::

    settle()  --------------------------  the outcome is readable by every thread
       |
       +-- wake()  ---------------------  calls each callback of `add_callback`, in the settling thread:
       |                                    a greenlet of another hub: Link.wake -> that hub's HubWaker.notify
       |                                    a thread without a hub:    put() into a native queue
       |
       +-- work.announce()  ------------  HubWaker.notify, for the owning hub (the hub that submitted the job)
                                            its thread then calls notify_waiters(): greenlets of the owning hub
                                            continue, links run

So each greenlet is resumed, and each link is called, by the hub it belongs to, in that hub's thread. A link that a
thread without a hub made runs in the owning hub. A result without a job has no owning hub, and `set` notifies the
waiters in the calling thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast
from weakref import ref

from gevent import Timeout

from greendata.errors import DeadlineExceeded, JobCancelled, ResultTimeout, UsedAsValue
from greendata.errors.notes import shortened
from greendata.hub import native
from greendata.hub.deadline import seconds_of
from greendata.hub.hubs import ensure_hub
from greendata.hub.outcome import Outcome, Status
from greendata.hub.waiters import Link, running_loop, sleep_until, wait_native, wait_on_other_hub, warn_of_event_loop
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists

__all__ = ("Result", "Work", "name_attributes_of_values")

T = TypeVar("T")


class Work(Protocol):
    """The job behind a result, as the result sees it."""

    deadline: float | None  # on time.monotonic's clock
    seconds: float  # that the deadline allowed
    in_block: bool  # whether a block around the job has set the deadline

    def note(self, error: Exception) -> None:
        """Add a note with the job's label, key and submitting line to *error*. Never raises. Safe from any thread."""

    def withdraw(self) -> None:
        """Remove the job from the queue, stop its work, or mark its worker slot as abandoned. Safe from any thread."""

    def announce(self) -> None:
        """Make the owning hub notify the result's waiters, in that hub's thread. Safe from any thread; never blocks."""


_lazy_lock = native.RLock()  # guards the creation of fields that few results need: the end and the lists of links
# The public methods that the pool, the hubs and the waiters call. Completion does not show them to users.
_INTERNAL = frozenset(
    {
        "add_callback",
        "begin",
        "bind",
        "detach",
        "drop_callback",
        "drop_link",
        "expire",
        "fail_after_fork",
        "is_delivered",
        "is_native",
        "is_stoppable",
        "members",
        "notify_waiters",
        "own_deadline",
        "set_done",
        "settle",
        "times",
        "wake",
    }
)
_NO_HUB = object()  # the owning hub of a result without a job, or whose job was submitted in a thread without a hub


class _Misused:
    """An attribute of values that results do not have: its use on a result says what to do instead.

    It is a descriptor and not a ``__getattr__``, with which every other attribute would cost four times as much.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        self._problem = problem
        self._remedy = remedy

    def __get__(self, result: Any, owner: type) -> Any:
        if result is None:
            raise AttributeError(f"type object {owner.__name__!r} {self._problem}")
        raise UsedAsValue(result.label, self._problem, self._remedy)


class _NotAValue:
    """What results refuse. Type checkers do not see it: they report these uses themselves.

    `inspect.isawaitable` is true for results, because there is no other way to respond to ``await``.
    """

    __slots__ = ()

    if not TYPE_CHECKING:
        # Python iterates with __getitem__ where there is no __iter__, which would make results instances of Iterable.
        __getitem__ = _Misused("cannot be indexed or iterated over", "call get() first: result.get()")
        __enter__ = __exit__ = _Misused("is not a context manager", "call get() for its value, cancel() to give it up")

        def __await__(self):
            raise UsedAsValue(
                self.label, "cannot be awaited", "call get(), or in asyncio: await asyncio.to_thread(result.get)"
            )


def name_attributes_of_values(names: Iterable[str]) -> None:
    """Make the use of these attributes on a result raise `UsedAsValue`. Call when the module of the values is imported.

    Example:
        >>> name_attributes_of_values(["n_chunks"])
        >>> Result("collect").n_chunks
        Traceback (most recent call last):
        greendata.errors.jobs.UsedAsValue: the Result of 'collect' has no attribute 'n_chunks'; call get() first: \
result.get().n_chunks
        >>> hasattr(Result("collect"), "n_chunks")
        False
    """
    for name in names:
        if name not in vars(_NotAValue) and all(name not in vars(kind) for kind in Result.__mro__):
            setattr(_NotAValue, name, _Misused(f"has no attribute {name!r}", f"call get() first: result.get().{name}"))


class Result(Outcome[T], _NotAValue, Generic[T]):
    """The outcome of a job, which may still be pending: a `gevent.event.AsyncResult` for every thread.

    ``Result()`` without a job is a settable AsyncResult; the first ``set`` or ``set_exception`` decides.

    Attributes:
        label: the name of the job.
        worker: the name of the native thread that ran it, or "".

    Safe from any thread. If the calling thread has a hub, waiting yields to that hub. A thread without a hub
    waits on a native queue, and no hub is created.

    Example:
        >>> import greendata
        >>> result = greendata.run(sum, [1, 2, 3])
        >>> result.get(timeout=5)
        6
        >>> result.status, result.successful()
        (<Status.DONE: 'done'>, True)
    """

    __slots__ = (
        "_callbacks",
        "_end",
        "_foreign_links",
        "_hubless_links",
        "_owning_hub",
        "_sleepers",
        "_work",
        "is_delivered",
    )

    is_native: ClassVar[bool] = True  # the work is a native call

    def __init__(self, label: str = "result") -> None:
        Outcome.__init__(self, label)  # not super(), for speed, as in `Outcome`
        self._foreign_links: list[Link] | None = None  # links of other hubs; any thread, one C call each
        self._callbacks: list[Callable[[], object]] = []  # any thread appends and pops, one C call each
        self._sleepers: list[Callable[[object], object]] = []  # greenlets of the owning hub; its thread only
        self._hubless_links: list[Callable[[Any], object]] | None = None  # links of threads without a hub; any thread
        # The hub that resumes its waiters; set before the job is queued, then read only.
        self._owning_hub: object = _NO_HUB
        self._work: Work | None = None  # the submitting thread sets it, the owning hub's thread drops it
        self.is_delivered = False  # True once the owning hub's waiters were notified; that hub's thread writes
        self._end: Result[None] | None = None  # see `end`; any thread creates it, when first needed

    # -- waiting: any thread ------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | Timeout | None = None) -> T:  # noqa: FBT001, FBT002
        """Wait for the outcome; return the value, or raise the job's own exception.

        Args:
            block: if False, raise `ResultTimeout` at once when there is no outcome.
            timeout: seconds, or a `gevent.Timeout`. It limits this wait, never the work.

        Raises:
            ResultTimeout: there was no outcome in time.
            BadTimeout: *timeout* is negative or NaN.
            DeadlineExceeded, JobCancelled, JobAborted: the outcome is that error.
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
        """Return ``get(block=False)``."""
        return self.get(block=False)

    def result(self, timeout: float | Timeout | None = None) -> T:
        """Return ``get(timeout=timeout)``, under the name that a Future has for it."""
        return self.get(timeout=timeout)

    def wait(self, timeout: float | Timeout | None = None) -> T | None:
        """Wait for the outcome and return `value`, which is None if the job failed or there is no outcome in time.

        Raises:
            BadTimeout: *timeout* is negative or NaN.
        """
        if not self._outcomes:
            self._await(timeout)
        return self.value

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Make the hub of the calling thread call ``callback(self)`` once there is an outcome.

        If the calling thread has no hub, the callback runs in the owning hub, the one that submitted the job. If that
        hub has already notified its waiters, the callback runs at once in the calling thread.

        Raises:
            TypeError: *callback* is not callable.
        """
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        hub = ensure_hub() if self._owning_hub is _NO_HUB else get_hub_if_exists()
        if hub is None:
            self._link_without_hub(callback)
        elif self._owning_hub is hub:
            super().rawlink(callback)
        else:
            link = Link(self, hub, callback)
            with _lazy_lock:
                self._foreign_links = links = [] if self._foreign_links is None else self._foreign_links
            links.append(link)
            if not self.add_callback(link.wake):
                link.wake()

    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Remove a link that this thread made. Do nothing if there is no such link."""
        for link in list(self._foreign_links or ()):
            if link.is_here and link.callback == callback:
                self.drop_callback(link.wake)
                link.drop()
                return
        # gevent's own list holds the links of the owning hub.
        if not self._drop_hubless_link(callback) and self._owning_hub is get_hub_if_exists():
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
        """Give the work up for the reason in *message*; return True if that decided the outcome.

        A queued job never runs. A running job fails with `JobCancelled` at once for all its waiters. Work that can be
        stopped (a statement in a database, a child process) is stopped. Any other native call continues, and its
        worker slot counts as abandoned until the call returns.
        """
        if self._outcomes:
            return False
        error = JobCancelled(self.label, running=self._began is not None, native=not self.is_stoppable, message=message)
        self._note(error)
        return self._decide(Status.CANCELLED, error=error)

    def cancel_wait(self, message: str = "", *, timeout: float | Timeout | None = None) -> bool:
        """Call `cancel` and wait until the work has really ended; return True if that decided the outcome.

        Raises:
            ResultTimeout: the work continued for longer than *timeout*. The result is cancelled nevertheless.
        """
        decided = self.cancel(message)
        self.end().get(timeout=timeout)
        return decided

    def end(self) -> Result[None]:
        """Return a result that is settled when the work itself ends: the native call returned, or the greenlet died.

        A cancelled or expired result is ready before that. If there is no work, the end is settled already.
        """
        with _lazy_lock:
            if self._end is None:
                self._end = _End(self)
                self._end.bind(None, None)
        if self._work is None:  # read after `_end` is set; `detach` sets `_work` first and reads `_end` then
            self._end.set_done()
        return self._end

    def set_done(self) -> None:
        """Settle a result that has no owning hub as done. Safe from any thread, including workers."""
        self.settle(Status.DONE)
        self.wake()

    def expire(self) -> None:
        """Fail with `DeadlineExceeded`, unless there is an outcome. Called when the deadline has passed. Any thread."""
        work = self._work
        seconds = 0.0 if work is None else work.seconds
        running = self._began is not None
        in_block = work is not None and work.in_block
        native = not self.is_stoppable
        error = DeadlineExceeded(self.label, seconds, running=running, native=native, in_block=in_block)
        self._note(error)
        self._decide(Status.FAILED, error=error)

    def wake(self) -> None:
        """Wake the waiters of other hubs and of threads without a hub.

        The calling thread calls each callback of `add_callback`. Safe from any thread; a second call does no harm.
        """
        callbacks = self._callbacks
        while callbacks:
            try:
                wake = callbacks[0]
            except IndexError:  # a waiter that gave up took the last one
                return
            try:
                wake()
            except BaseException:
                wake()  # a signal handler raised during the first call, or memory ran out
                raise
            self.drop_callback(wake)  # afterwards, so that an interruption loses no waiter

    # -- for waiters and the pool -------------------------------------------------------------------------------

    @property
    def own_deadline(self) -> float | None:
        """The deadline of unfinished work, on `time.monotonic`'s clock; None without one.

        Waiters on other hubs and in threads without a hub enforce it too: there may be no owning hub, or it may be
        destroyed or blocked.
        """
        work = self._work
        return None if work is None else work.deadline

    @property
    def is_stoppable(self) -> bool:
        """True if the work ends when the result is given up: a greenlet, or a call with `stopped_by`. Any thread."""
        return not self.is_native or getattr(self._work, "stopper", None) is not None

    @property
    def members(self) -> tuple[Any, ...]:
        """The results that a pending `gather` waits for. A scope that keeps this result must keep them too."""
        return getattr(self._work, "members", ())

    def add_callback(self, wake: Callable[[], object]) -> bool:
        """Make the settling thread call *wake* at the outcome, perhaps twice.

        Return False if there is an outcome already; *wake* is then not called, and the caller must read the outcome.
        """
        self._callbacks.append(wake)
        return not self._outcomes or not self.drop_callback(wake)

    def drop_callback(self, wake: Callable[[], object]) -> bool:
        """Remove *wake*; return False if it was not registered."""
        with suppress(ValueError):
            self._callbacks.remove(wake)
            return True
        return False

    def bind(self, work: Work | None, waker: HubWaker | None) -> None:
        """Bind the result to its job and to the hub of *waker*. Called once, before the job is queued."""
        self._work = work
        self._owning_hub = _NO_HUB if waker is None else waker.hub

    def notify_waiters(self, waker: HubWaker | None = None) -> None:
        """Resume the greenlets that wait on the owning hub, the hub of *waker*, and schedule its links.

        Called in the owning hub's thread. For a result without an owning hub, the thread that settles it calls this.
        """
        assert self._outcomes
        self.is_delivered = True
        links = self._hubless_links
        while links:
            with suppress(IndexError):  # the thread that made the last link removed it
                link = links.pop(0)
                cast("Any", self._owning_hub).loop.run_callback(link, self)
        if waker is not None:
            waker.resume(self._sleepers)
        if self.linkcount():  # gevent's set() only schedules the links here
            super().set(None)

    def fail_after_fork(self, error: Exception) -> None:
        """Fail without waking any waiter, because the job belongs to another process. Call in the child of a fork."""
        self._callbacks.clear()
        self.settle(Status.FAILED, error=error)
        self.detach()

    def detach(self) -> None:
        """Drop the job. Called in the owning hub's thread, or in the worker if there is no owning hub."""
        self._work = None
        if self._end is not None:
            self._end.set_done()

    def drop_link(self, link: Link) -> None:
        """Remove *link*. Safe from any thread."""
        with suppress(ValueError):
            (self._foreign_links or []).remove(link)

    # -- private ------------------------------------------------------------------------------------

    def _link_without_hub(self, callback: Callable[[Any], object]) -> None:
        """Make the owning hub call *callback*, for a thread that has no hub."""
        with _lazy_lock:
            self._hubless_links = links = [] if self._hubless_links is None else self._hubless_links
        links.append(callback)
        # Read after the link was appended. `notify_waiters` sets it first and takes the links then.
        if self.is_delivered and self._drop_hubless_link(callback):
            callback(self)

    def _drop_hubless_link(self, callback: Callable[[Any], object]) -> bool:
        """Remove a callback of `_link_without_hub`; return False if it is not there, or is being called."""
        with suppress(ValueError):
            (self._hubless_links or []).remove(callback)
            return True
        return False

    def _decide(self, status: Status, value: Any = None, error: BaseException | None = None) -> bool:
        """Settle, give the work up and wake the waiters; return False if the result was settled before."""
        work = self._work  # read before settling: afterwards the owning hub may drop it at any moment
        try:
            if not self.settle(status, value, error):
                return False
            self._tell(work)
        except BaseException:  # a signal handler raised at some step, and no other call will make up for it
            if self._outcomes and self._outcomes[0][1] is value and self._outcomes[0][2] is error:
                self._tell(work)
            raise
        return True

    def _tell(self, work: Work | None) -> None:
        """Wake the waiters, and give up *work*. A second call does no harm."""
        self.wake()
        if work is None:
            self.notify_waiters()
        else:
            work.announce()
            work.withdraw()

    def _note(self, error: Exception) -> None:
        work = self._work  # read once: the owning hub may drop it at any moment
        if work is not None:
            work.note(error)

    def _await(self, timeout: float | Timeout | None) -> Timeout | None:
        """Wait until there is an outcome, or return the timeout that expired first."""
        if running_loop and running_loop[0]() is not None:
            warn_of_event_loop(self.label)
        hub = get_hub_if_exists()
        if hub is None:
            return wait_native(self, timeout)
        timer = timeout if isinstance(timeout, Timeout) else None
        if timer is None and timeout is not None and (seconds := seconds_of(timeout)) is not None:
            timer = ResultTimeout(self, seconds, armed=True)
        if self._owning_hub is hub:
            sleep_until(timer, hub, self._sleepers)
        else:
            wait_on_other_hub(self, hub, timer)
        return timer

    @recursive_repr("<Result ...>")  # its error may be about this very result
    def __repr__(self) -> str:
        where = f" on {self.worker}" if self.worker else ""
        error = f" {shortened(self.exception)}" if self.exception is not None else ""
        return f"<Result {self.label!r} {self.status}{where}{error} at {id(self):#x}>"

    __str__ = __repr__

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in _INTERNAL and name not in vars(_NotAValue)]


class _End(Result[None]):
    """The end of the work behind a result. Waiting for it enforces the deadline of that work as well."""

    __slots__ = ("_of",)

    def __init__(self, result: Result[Any]) -> None:
        super().__init__(f"end of {result.label}")
        self._of = ref(result)  # weak: the result refers to its end, and unfinished work refers to the result

    @property
    def own_deadline(self) -> float | None:
        """The deadline of work that is neither finished nor given up."""
        result = self._of()
        return None if result is None or result.ready() else result.own_deadline

    def expire(self) -> None:
        """Fail the result. The end itself is settled when the work ends, which may be later."""
        result = self._of()
        if result is not None:
            result.expire()


def _after_fork_in_child() -> None:
    """Replace the lock: a thread that exists only in the parent may hold it."""
    global _lazy_lock
    _lazy_lock = native.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
