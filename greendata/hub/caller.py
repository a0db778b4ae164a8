"""`Caller`: have a function run on a hub of your choice, from any thread.

One caller stands for one hub: that of a thread that is there already (`Caller.current`), or that of a native thread
of its own (`Caller.new`). What is called on it runs on its thread, in the order of the calls, each with a copy of
the context variables of whoever called. Native work goes to the one pool (`Caller.to_thread`).
"""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Hashable
from contextvars import Context
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import gevent
from gevent.hub import MAIN_THREAD_IDENT, get_hub  # type: ignore[attr-defined]

from greendata.errors import BadSetting, BadTimeout, CallerStopped, NoCaller, NotCallable, ResultLost
from greendata.hub import crew, native, pool
from greendata.hub.call import Call, Errand, current_job, name_of
from greendata.hub.deadline import seconds_of
from greendata.hub.mailbox import Mailbox
from greendata.hub.queues import SerialQueue, identity_of
from greendata.hub.result import Result, Status
from greendata.hub.scope import wait
from greendata.hub.service import Service
from greendata.hub.waiters import sleep_until

__all__ = ("Caller",)

T = TypeVar("T")

GRACE = 5.0  # seconds for services and killed calls to clean up; a guess, as gunicorn's graceful_timeout is one


class Caller:
    """Runs functions on one hub, for every thread. Get one from `current`, `main`, `new` or `child`.

    As a context manager it counts those that use it; when the last one leaves, it stops.

    Attributes:
        id: the native thread's ident.
        name: the thread's name, or what `new` was given.
        parent: the caller that it stops with, or None.
        stopped: a result that is there once it has stopped.

    Safe from any thread.

    Example:
        >>> with Caller.new(name="side") as side:
        ...     side.call_soon(str.upper, "a").get(timeout=5)
        'A'
    """

    def __init__(self, name: str, *, parent: Caller | None = None, idle_after: float | None = None) -> None:
        self.id = 0  # these are set before the caller is handed out, and only read then
        self.name = name
        self.parent = parent
        self.stopped: Result[None] = Result(f"stop of caller {name}")
        self.stopped.bind(None, None)
        self._started: Result[None] = Result(f"start of caller {name}")
        self._started.bind(None, None)
        self._idle_after = idle_after
        self._mailbox: Mailbox
        self._anchor: Callable[[], object] = object  # None once the thread has ended
        self._lock = native.RLock()  # guards what is put below; finalizers may call, so it is reentrant
        self._is_open = False  # it has its mailbox
        self._is_stopping = False
        self._closing: Callable[[], object] | None = None  # what its own hub does to stop
        self._users = 0
        self._calls: dict[Call[Any], None] = {}  # those that have not ended
        self._queues: dict[Hashable, SerialQueue] = {}
        self._services: dict[Call[Any], Service[Any]] = {}
        self._children: dict[str, Caller] = {}
        self._sleepers: list[Callable[[object], object]] = []  # own thread: its main greenlet
        self._idle_timer: Any = None  # own thread only

    # -- which one: any thread ------------------------------------------------------------------------

    @classmethod
    def current(cls) -> Self:
        """The caller of the calling thread's hub, made at the first call.

        Raises:
            NoCaller: the thread is a worker or the runtime's, where no hub runs.
        """
        if crew.is_inline_thread():
            raise NoCaller("no hub runs in a worker thread")
        mailbox = Mailbox.here()
        found = _callers.get(native.get_ident())
        if not isinstance(found, cls) or found._mailbox is not mailbox or found._is_stopping:
            found = cls(mailbox.thread)
            found._open(mailbox)
        return found

    @classmethod
    def main(cls) -> Self:
        """The caller of the main thread's hub.

        Raises:
            NoCaller: another thread asks, and the main thread has not called it yet.
        """
        if native.get_ident() == MAIN_THREAD_IDENT:
            return cls.current()
        found = cls.get(MAIN_THREAD_IDENT)
        if found is None:
            raise NoCaller("the main thread has no caller yet")
        return found

    @classmethod
    def new(cls, name: str | None = None, *, idle_after: float | None = None) -> Self:
        """A caller with a native thread and a hub of its own.

        Args:
            name: of the caller and its thread (15 bytes of it show).
            idle_after: stop by itself after so many seconds without a call, a user or a child.

        Raises:
            BadSetting, BadTimeout: an argument that cannot be used.
        """
        caller = cls._make(name, None, idle_after)
        try:
            caller._started.get()
        except BaseException:  # nobody will know it
            caller._started.rawlink(lambda _: caller.stop())
            raise
        return caller

    @classmethod
    def get(cls, caller_id: int) -> Self | None:
        """The caller of the thread with that ident, or None."""
        found = _callers.get(caller_id)
        return found if isinstance(found, cls) and not found.is_stopped else None

    @classmethod
    def all(cls) -> tuple[Self, ...]:
        """Every caller that takes calls."""
        return tuple(found for key in tuple(_callers) if (found := cls.get(key)) is not None)

    def child(self, name: str, *, idle_after: float | None = None) -> Self:
        """The child of that *name*, made with `new` if there is none. It stops with its parent.

        Raises:
            CallerStopped: this caller takes no more calls.
        """
        with self._lock:
            self._check_open()
            found = self._children.get(name)
            if not isinstance(found, type(self)) or found.is_stopped:
                found = self._children[name] = type(self)._make(name, self, idle_after)
        found._started.get()
        return found

    @property
    def children(self) -> tuple[Caller, ...]:
        """Its children that take calls."""
        return tuple(child for child in tuple(self._children.values()) if not child.is_stopped)

    @property
    def is_stopped(self) -> bool:
        """True if it takes no more calls: it was stopped, or its thread or hub is gone."""
        is_gone = self._is_open and (self._anchor() is None or self._mailbox.hub.loop is None)
        return self._is_stopping or is_gone

    # -- calls: any thread ------------------------------------------------------------------------------

    def call_soon(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> Call[T]:
        """Run ``func(*args, **kwargs)`` in a greenlet of its own, in the next turn of the loop.

        Raises:
            NotCallable: *func* is no callable.
            CallerStopped: the caller takes no more calls.
        """
        return self.schedule_call(func, args, kwargs)

    def call_direct(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> Call[T]:
        """Run ``func(*args, **kwargs)`` in the hub itself, where it must not wait: for short things.

        Raises:
            NotCallable, CallerStopped: as `call_soon`.
        """
        errand = self._errand(func, args, kwargs)
        return self._dispatch(errand, errand.start_direct)

    def call_later(self, delay: float, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> Call[T]:
        """Run ``func(*args, **kwargs)`` in a greenlet after *delay* seconds.

        Raises:
            BadTimeout: *delay* is negative or no number.
            NotCallable, CallerStopped: as `call_soon`.
        """
        seconds = seconds_of(delay)
        if seconds is None:
            raise BadTimeout(delay)
        errand = self._errand(func, args, kwargs)
        return self._dispatch(errand, partial(errand.start_later, seconds))

    def schedule_call(
        self,
        func: Callable[..., T],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        context: Context | None = None,
        /,
        **metadata: Any,
    ) -> Call[T]:
        """`call_soon` with a context of choice, copied, and *metadata*, which the result keeps.

        Raises:
            NotCallable, CallerStopped: as `call_soon`.
        """
        errand = self._errand(func, args, kwargs or {}, context, metadata)
        return self._dispatch(errand, errand.start)

    def to_thread(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> Result[T]:
        """Run ``func(*args, **kwargs)`` in the pool: there is only the one, whoever asks.

        Raises:
            NotCallable, PoolFull, PoolClosed: nothing was queued.
            CallerStopped: the caller takes no more calls.
        """
        self._check_open()
        if not callable(func):
            raise NotCallable(func)
        work = partial(func, **kwargs) if kwargs else func
        return pool.submit(work, *args, label=name_of(func))

    def queue_call(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> Call[T]:
        """Run ``func(*args, **kwargs)`` after every earlier queued call of the same function has ended.

        Raises:
            NotCallable, CallerStopped: as `call_soon`.
        """
        key = identity_of(func)
        with self._lock:
            self._check_open()
            errand = self._errand(func, args, kwargs)
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = SerialQueue(func, self._mailbox, self._drop_queue)
            errand.on_end = partial(self._on_queued_end, queue)
            queue.append(errand)
            return self._dispatch(errand, queue.proceed)

    def queue_get(self, func: Callable[..., Any]) -> SerialQueue | None:
        """The queue of *func*, or None where none of its queued calls waits or runs."""
        return self._queues.get(identity_of(func))

    def queue_close(self, func: Callable[..., Any]) -> bool:
        """Cancel the queued calls of *func* that have not begun; False if there is no queue.

        The one that runs comes to its end, and later calls wait for that.
        """
        queue = self.queue_get(func)
        if queue is not None:
            queue.close()
        return queue is not None

    def service(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> Service[T]:
        """Run ``func(service, *args, **kwargs)`` until its `Service` is stopped, or this caller.

        Raises:
            NotCallable, CallerStopped: as `call_soon`.
        """
        if not callable(func):
            raise NotCallable(func)
        service: Service[T] = Service(name_of(func))
        errand = self._errand(service.run, (func, args, kwargs), {})
        service.follow(errand.call)
        with self._lock:
            self._services[errand.call] = service
            self._dispatch(errand, errand.start)
        return service

    # -- the end: any thread ----------------------------------------------------------------------------

    def stop(self, *, grace: float = GRACE) -> Result[None]:
        """Take no more calls, stop children and services, cancel the other calls; returns `stopped`. Idempotent.

        Args:
            grace: seconds for services to end, and again for killed calls to clean up.
        """
        seconds = seconds_of(grace) or 0.0
        with self._lock:
            if not self._is_stopping:
                is_gone, self._is_stopping = self.is_stopped, True
                if is_gone:
                    self._forget()
                    self.stopped.over()
                else:
                    self._closing = partial(gevent.spawn, self._close, seconds)
                    if self._is_open:
                        self._mailbox.post(self._closing)
        return self.stopped

    def __enter__(self) -> Self:
        with self._lock:
            self._check_open()
            self._users += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        with self._lock:
            self._users -= 1
            is_last = not self._users
        if is_last:
            self.stop()
            if current_job() not in self._calls:  # else it waits for itself
                self.stopped.wait()
        return False

    def __repr__(self) -> str:
        state = "stopped" if self.is_stopped else "running"
        return f"<Caller {self.name!r} {state} in thread {self.id}: {len(self._calls)} calls>"

    # -- private: any thread ----------------------------------------------------------------------------

    @classmethod
    def _make(cls, name: str | None, parent: Caller | None, idle_after: float | None) -> Self:
        if name is not None and (not isinstance(name, str) or not name):
            raise BadSetting("name", name, "None or a text that is not empty")
        caller = cls(name or f"caller-{next(_numbers)}", parent=parent, idle_after=seconds_of(idle_after))
        atexit.unregister(_stop_all)
        atexit.register(_stop_all)
        native.start_thread(caller._serve, ())
        return caller

    def _errand(
        self,
        func: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Errand[T]:
        return Errand(self._mailbox, func, args, kwargs, context=context, metadata=metadata, on_end=self._on_end)

    def _dispatch(self, errand: Errand[T], start: Callable[[], object]) -> Call[T]:
        with self._lock:
            self._check_open()
            self._calls[errand.call] = None
        return errand.dispatch(start)

    def _check_open(self) -> None:
        if self.is_stopped:
            raise CallerStopped(self.name)

    def _is_idle(self) -> bool:
        return not (self._calls or self._users or self._children)

    def _forget(self) -> None:
        with self._lock:
            if _callers.get(self.id) is self:
                del _callers[self.id]
            parent = self.parent
            if parent is not None and parent._children.get(self.name) is self:
                del parent._children[self.name]
                parent._mailbox.post(parent._watch_idleness)

    # -- private: the caller's own thread ---------------------------------------------------------------

    def _open(self, mailbox: Mailbox) -> None:
        self.id = native.get_ident()
        self._mailbox = mailbox
        anchor = getattr(_local, "anchor", None)
        if anchor is None:
            anchor = _local.anchor = _Anchor()
        self._anchor = weakref.ref(anchor)
        _callers[self.id] = self
        with self._lock:
            self._is_open = True
            if self._closing is not None:  # its parent was stopped meanwhile
                mailbox.post(self._closing)

    def _serve(self) -> None:
        native.name_this_thread(self.name)
        try:
            hub = get_hub()
            self._open(Mailbox.here())
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked for the caller
            self._forget()
            self._started.settle(Status.FAILED, error=error)
            self._started.wake()
            return
        bridge = self._mailbox.bridge
        number = bridge.expect(_nothing)  # it holds the loop open
        self._watch_idleness()
        self._started.over()
        sleep_until(None, hub, self._sleepers)
        bridge.release()
        bridge.forget(number)
        self._forget()
        hub.destroy(destroy_loop=True)
        self.stopped.over()

    def _close(self, grace: float) -> None:
        children = tuple(self._children.values())
        for child in children:
            child.stop(grace=grace)
        ends = [service.stop().end() for service in tuple(self._services.values())]
        wait(ends, grace)
        calls = tuple(self._calls)
        for call in calls:
            call.cancel(f"caller {self.name} stops")
        wait([call.end() for call in calls], grace)
        wait([child.stopped for child in children], 2 * grace)
        if self._sleepers:
            self._mailbox.post(lambda: self._sleepers.pop()(None))
        else:
            self._forget()
            self.stopped.over()

    def _on_end(self, call: Call[Any]) -> None:
        self._calls.pop(call, None)
        self._services.pop(call, None)
        if self._idle_after is not None:
            self._watch_idleness()

    def _on_queued_end(self, queue: SerialQueue, call: Call[Any]) -> None:
        queue.note_end(call)
        self._on_end(call)

    def _drop_queue(self, queue: SerialQueue) -> None:
        with self._lock:
            key = identity_of(queue.func)
            if not len(queue) and self._queues.get(key) is queue:
                del self._queues[key]

    def _watch_idleness(self) -> None:
        if self._idle_after is not None and self._is_idle():
            if self._idle_timer is None:
                self._idle_timer = self._mailbox.hub.loop.timer(self._idle_after)
            self._idle_timer.stop()
            self._idle_timer.start(self._reap, update=True)

    def _reap(self) -> None:
        with self._lock:
            if self._is_idle():
                self.stop()


class _Anchor:
    """Lives as long as its thread."""


def _nothing() -> None:
    return None


def _stop_all() -> None:
    """At exit: the threads of callers end before the interpreter does."""
    callers = [caller for caller in tuple(_callers.values()) if caller.id != native.get_ident()]
    for stopped in [caller.stop(grace=1.0) for caller in callers]:
        stopped.wait(GRACE)


def _after_fork_in_child() -> None:
    """The other threads are gone, and the bridge of this one has forgotten its numbers."""
    for caller in tuple(_callers.values()):
        caller._lock = native.RLock()
        caller._is_stopping = True
        for call in tuple(caller._calls):
            call.lose(ResultLost(call.label))
    _callers.clear()


_numbers = count()
_callers: dict[int, Caller] = {}  # by the ident of the native thread; any thread, one C call each
_local = native.Local()  # the anchor of each thread
os.register_at_fork(after_in_child=_after_fork_in_child)
