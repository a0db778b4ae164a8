"""`HubThread`: what lives on one hub, can be found there from any thread, and comes to an end.

The hub is that of a thread that is there already, which keeps its resident as long as it lives itself, or that of a
native thread made for it. Residents have children by name, which stop with them, and users, who are counted. What a
resident does on its hub is the business of those that derive from it: they say when it is idle, and end its work.
"""

from __future__ import annotations

import atexit
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache, partial
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self

import gevent
from gevent.hub import MAIN_THREAD_IDENT, get_hub  # type: ignore[attr-defined]

from greendata.errors import BadSetting, CallerStopped, NoCaller, ResultLost
from greendata.hub import native
from greendata.hub.deadline import seconds_of
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.hubs import take_down, weakly
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.hub.waiters import sleep_until, wait_native
from greendata.pool import workers
from greendata.tasks.waiting import wait

__all__ = ("HubThread",)

GRACE = 5.0  # seconds for work to end, and again for killed greenlets to clean up; a guess, as gunicorn's is one


class HubThread(ABC):
    """One name, one hub, and an end. Made by `current`, `main`, `new` or `child`. Safe from any thread."""

    def __init__(self, name: str, *, parent: Self | None = None, idle_after: float | None = None) -> None:
        self.id = 0  # these are set before it is handed out, and only read then
        self.name = name
        self.parent = parent
        self.stopped: Result[None] = Result(f"stop of caller {name}")
        self.stopped.bind(None, None)
        self._started: Result[None] = Result(f"start of caller {name}")
        self._started.bind(None, None)
        self._idle_after = idle_after
        self._entry_queue: EntryQueue
        self._departure: Any = None  # finalizer of the thread's anchor; set with the mailbox
        self._lock = native.RLock()  # guards what is put below; finalizers may call, so it is reentrant
        self._is_open = False  # it has its mailbox
        self._is_stopping = False
        self._closing: Callable[[], object] | None = None  # what its own hub does to stop
        self._users = 0
        self._children: dict[str, Self] = {}
        self._sleepers: list[Callable[[object], object]] = []  # own thread: its main greenlet
        self._idle_timer: Any = None  # own thread only

    # -- which one: any thread ------------------------------------------------------------------------

    @classmethod
    def current(cls) -> Self:
        """The caller of the calling thread's hub, made at the first call.

        Raises:
            NoCaller: the thread is a worker or the runtime's, where no hub runs.
        """
        if workers.is_inline_thread():
            raise NoCaller("no hub runs in a worker thread")
        entry_queue = EntryQueue.here()
        found = _residents.get(native.get_ident())
        if found is not None and found._entry_queue.is_gone:  # the hub was destroyed, and the thread goes on
            found._vanish()
        if not isinstance(found, cls) or found._entry_queue is not entry_queue or found._is_stopping:
            found = cls(entry_queue.thread)
            found._open(entry_queue)
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
            RuntimeError: the system has no more threads to give.
        """
        made = cls._make(name, None, idle_after)
        try:
            made._started.get()
        except BaseException:  # nobody will know it
            made._started.rawlink(lambda _: made.stop())
            raise
        return made

    @classmethod
    def get(cls, caller_id: int) -> Self | None:
        """The caller of the thread with that ident, or None."""
        found = _residents.get(caller_id)
        return found if isinstance(found, cls) and not found.is_stopped else None

    @classmethod
    def all(cls) -> tuple[Self, ...]:
        """Every caller that takes calls."""
        return tuple(found for key in list(_residents) if (found := cls.get(key)) is not None)

    def child(self, name: str, *, idle_after: float | None = None) -> Self:
        """The child of that *name*, made with `new` if there is none. It stops with its parent.

        Raises:
            BadSetting, BadTimeout, RuntimeError: as `new`.
            CallerStopped: this caller takes no more calls.
        """
        with self._lock:
            self._check_open()
            found = self._children.get(name)
            if found is None or found.is_stopped:
                found = self._children[name] = self._make(name, self, idle_after)
        found._started.get()
        return found

    @property
    def children(self) -> tuple[Self, ...]:
        """Its children that take calls."""
        return tuple(child for child in list(self._children.values()) if child._is_open and not child.is_stopped)

    @property
    def is_stopped(self) -> bool:
        """True if it takes no more calls: it was stopped, or its thread or hub is gone."""
        is_gone = self._is_open and (not self._departure.alive or self._entry_queue.is_gone)
        return self._is_stopping or is_gone

    # -- the end: any thread --------------------------------------------------------------------------

    def stop(self, *, grace: float = GRACE) -> Result[None]:
        """Take no more calls, stop children and services, cancel the other calls; returns `stopped`. Idempotent.

        Args:
            grace: seconds for services to end, and again for killed calls to clean up.

        Raises:
            BadTimeout: *grace* is negative or no number.
        """
        seconds = seconds_of(grace) or 0.0
        with self._lock:
            is_gone = self._begin_to_stop(seconds)
        if is_gone:
            self._vanish()
        return self.stopped

    def __enter__(self) -> Self:
        with self._lock:
            self._check_open()
            self._users += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        with self._lock:  # held until it takes no more users
            self._users -= 1
            is_last = not self._users
            is_gone = is_last and self._begin_to_stop(GRACE)
        if is_gone:
            self._vanish()
        if is_last and not self._is_at_work_here():  # else it waits for itself
            self.stopped.wait()
        return False

    # -- for those that derive ------------------------------------------------------------------------

    def _is_idle(self) -> bool:
        """True if nothing speaks against its end. Any thread."""
        return not (self._users or self._children)

    @abstractmethod
    def _is_at_work_here(self) -> bool:
        """True if the calling greenlet is part of its work. Any thread."""

    @abstractmethod
    def _end_work(self, grace: float) -> None:
        """Have its work end, and wait for that. Called in a greenlet of its hub."""

    @abstractmethod
    def _lose_work(self, lose: Callable[[Result[Any]], object]) -> None:
        """Call *lose* with each result that will not come any more. Any thread: the own one is gone."""

    def _check_open(self) -> None:
        if self.is_stopped:
            raise CallerStopped(self.name)

    def _watch_idleness(self) -> None:
        """Stop it in a while if it is idle now, and still is then. Called on its hub."""
        if self._idle_after is not None and self._is_idle():
            if self._idle_timer is None:
                self._idle_timer = self._entry_queue.hub.loop.timer(min(self._idle_after, native.TIMEOUT_MAX))
            self._idle_timer.stop()
            self._idle_timer.start(weakly(self._reap), update=True)

    # -- private: any thread --------------------------------------------------------------------------

    @classmethod
    def _make(cls, name: str | None, parent: Self | None, idle_after: float | None) -> Self:
        if name is not None and (not isinstance(name, str) or not name):
            raise BadSetting("name", name, "None or a text that is not empty")
        made = cls(name or f"caller-{next(_numbers)}", parent=parent, idle_after=seconds_of(idle_after))
        _stop_at_exit()
        native.start_thread(made._serve, ())
        return made

    def _forget(self) -> None:
        if _residents.get(self.id) is self:
            _residents.pop(self.id, None)
        if self._departure is not None:
            self._departure.detach()
        parent = self.parent
        if parent is not None:
            with parent._lock:
                if parent._children.get(self.name) is self:
                    del parent._children[self.name]
            if parent._is_open:
                parent._entry_queue.post(parent._watch_idleness)

    def _begin_to_stop(self, grace: float) -> bool:
        """Take no more calls; True if its thread or its hub is gone. Called under the lock."""
        if self._is_stopping:
            return False
        is_gone, self._is_stopping = self.is_stopped, True
        if not is_gone:
            self._closing = partial(gevent.spawn, self._close, grace)
            if self._is_open:
                self._entry_queue.post(self._closing)
        return is_gone

    def _vanish(self) -> None:
        """Its thread or its hub is gone: what was to be done there will not be. Any thread."""
        with self._lock:
            self._is_stopping = True
        for child in list(self._children.values()):
            child.stop()
        self._lose_work(self._lose)
        self._forget()
        self.stopped.set_done()

    def _on_thread_end(self, pid: int) -> None:
        """Called by the thread's last breath; in a forked child by that of threads which never were there."""
        if os.getpid() == pid:
            self._vanish()

    def _lose(self, result: Result[Any]) -> None:
        if result.settle(Status.FAILED, error=CallerStopped(self.name)):
            result.wake()
        result.detach()

    # -- private: its own thread ----------------------------------------------------------------------

    def _open(self, entry_queue: EntryQueue) -> None:
        self.id = native.get_ident()
        self._entry_queue = entry_queue
        anchor = getattr(_local, "anchor", None)
        if anchor is None:
            anchor = _local.anchor = _Anchor()
        self._departure = weakref.finalize(anchor, self._on_thread_end, os.getpid())
        self._departure.atexit = False
        _residents[self.id] = self
        with self._lock:
            self._is_open = True
            if self._closing is not None:  # its parent was stopped meanwhile
                entry_queue.post(self._closing)

    def _serve(self) -> None:
        native.name_this_thread(self.name)
        workers.run_in_pool_here()
        try:
            hub = get_hub()
            self._open(EntryQueue.here())
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked for the caller
            self._vanish()
            self._started.settle(Status.FAILED, error=error)
            self._started.wake()
            return
        waker = self._entry_queue.waker
        number = waker.expect(_nothing)  # it holds the loop open
        self._watch_idleness()
        self._started.set_done()
        sleep_until(None, hub, self._sleepers)
        waker.forget(number)
        self._forget()
        if self._idle_timer is not None:
            self._idle_timer.close()
        take_down(hub)
        self.stopped.set_done()

    def _close(self, grace: float) -> None:
        children = list(self._children.values())
        for child in children:
            child.stop(grace=grace)
        self._end_work(grace)
        wait([child.stopped for child in children], 2 * grace)
        if self._sleepers:
            self._entry_queue.post(lambda: self._entry_queue.waker.resume(self._sleepers))
        else:
            self._forget()
            self.stopped.set_done()

    def _reap(self) -> None:
        with self._lock:
            if self._is_idle():
                self.stop()


class _Anchor:
    """Lives as long as its thread."""


def _nothing() -> None:
    return None


@cache  # once: CPython keeps a slot for every registration, also one that was taken back
def _stop_at_exit() -> None:
    atexit.register(_stop_all)


def _stop_all() -> None:
    """At exit: the threads of residents end before the interpreter does."""
    others = [found for found in list(_residents.values()) if found.id != native.get_ident()]
    for stopped in [found.stop(grace=1.0) for found in others]:
        wait_native(stopped, GRACE)  # greenlets do not run on in an exiting process


def _after_fork_in_child() -> None:
    """The other threads are gone, and the bridge of this one has forgotten its numbers."""
    for found in list(_residents.values()):
        found._lock = native.RLock()
        found._is_stopping = True
        found._lose_work(lambda result: result.fail_after_fork(ResultLost(result.label)))
        found.stopped.settle(Status.DONE)  # nobody waits for it any more, but somebody may come to
    _residents.clear()


_numbers = count()
_residents: dict[int, HubThread] = {}  # by the ident of the native thread; any thread, one C call each
_local = native.Local()  # the anchor of each thread
os.register_at_fork(after_in_child=_after_fork_in_child)
