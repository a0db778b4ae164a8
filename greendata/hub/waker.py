"""`HubWaker`: how a native thread notifies a hub that something is ready for it.

Each hub has one `HubWaker`, and each waker has one async watcher of the hub's loop::

    the hub's thread                              another thread
    ----------------                              --------------
    number = waker.expect(callback)
      starts the watcher if necessary   ------->  gets the number, works, drops its references
                                                  waker.notify(number):
    the loop polls and finds the        <-------    pending.append(number); watcher.send()
    watcher ready
    takes numbers from `pending` and              continues its own work
      calls callback() for each
    switches to the greenlets that the
      callback passed to `resume`
    waker.forget(number)

Guarantees:

- The other thread does two things: it appends an integer to a deque, and it calls ``watcher.send()``. Each is one
  C call under the GIL. Every other access to a gevent object happens on the hub's thread.
- Only numbers cross threads. The callback, and everything it keeps alive (frames, closures, sessions), belongs to the
  hub's thread and is freed there, where finalizers may take patched locks. The other thread drops its own references
  before it notifies, so it is never the last owner.
- The watcher is started only while something is expected, and holds the loop open only while something may be waiting:
  ``get()`` never raises LoopExit, and a process with nothing pending exits. On libev, ``send()`` to a watcher that
  was not started is lost. The watcher is therefore started before the number is returned. On libuv it then stays
  started, because one that is stopped while a send is under way is an error there.
- One wakeup delivers many numbers. Callbacks run for at most `TURN` seconds; then the loop polls before the rest.
- A waiting greenlet is resumed (`HubWaker.resume`) after the callback has returned, from a frame that holds no
  reference to the job. The job's objects are freed when that greenlet drops them, not at its next wait.
- A signal handler may raise in the hub's thread before a delivery has begun, and gevent then only prints the error. So
  the main hub, in whose thread signal handlers run, looks every `RETRY_INTERVAL` for what was not delivered.
- After the hub was destroyed, notify() does nothing.

``loop.run_callback_threadsafe`` is not used. A waiter that depends on it alone gets LoopExit, and on libuv it can
hang the hub (github.com/gevent/gevent/issues/2212).
"""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from time import monotonic
from traceback import walk_tb
from typing import Any

from greenlet import GreenletExit

from greendata.hub import native
from greendata.hub.hubs import HubBound, before_destroy, is_libuv, weak_callback
from greendata.internals.gevent import get_hub_if_exists

__all__ = ("HubWaker", "call_twice_if_interrupted", "report")

TURN = 0.001  # seconds that callbacks run before the loop polls again; greenlets that they resume are included
RETRY_INTERVAL = 1.0  # seconds


class HubWaker(HubBound):
    """Wake one hub from any thread, and call callbacks on the hub's thread.

    Example:
        >>> import gevent
        >>> from gevent.event import AsyncResult
        >>> waker, answer = HubWaker.here(gevent.get_hub()), AsyncResult()
        >>> number = waker.expect(lambda: answer.set("notified"))
        >>> _ = native.start_thread(waker.notify, (number,))
        >>> answer.get()
        'notified'
        >>> waker.forget(number)
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_can_stop",
        "_delivering",
        "_holding",
        "_listening",
        "_numbers",
        "_on_notify",
        "_resumed",
        "_retry_timer",
        "_watcher",
        "pending",
    )

    def __init__(self, hub: Any) -> None:
        self.hub = hub  # any thread reads; set once
        self.pending: deque[int] = deque()  # numbers to call when the hub is woken; any thread appends, the hub pops
        self._watcher = hub.loop.async_()  # any thread calls send(); everything else on the hub's thread
        self._can_stop = not is_libuv(hub.loop)  # set once
        self._callbacks: dict[int, Callable[[], object]] = {}  # hub's thread only
        self._delivering = False  # True during the watcher's callback; hub's thread only
        self._resumed: deque[Callable[[object], object]] = deque()  # switches into greenlets; hub's thread only
        self._listening: set[int] = set()  # numbers of `listen`; hub's thread writes
        self._holding: set[int] = set()  # numbers that hold the loop open; hub's thread only
        self._on_notify = weak_callback(self._deliver)  # weak: pending jobs and the thread keep the waker alive
        self._numbers = count(1)  # hub's thread only; never reused, so a late notify has no effect
        self._retry_timer: Any = None  # hub's thread only
        if hub.main_hub:
            self._retry_timer = hub.loop.timer(RETRY_INTERVAL, RETRY_INTERVAL, ref=False)
            self._retry_timer.start(weak_callback(self._retry))
        before_destroy(hub, weak_callback(self.reset))

    @classmethod
    def here(cls, hub: Any) -> HubWaker:
        """Return the waker of *hub*, which must be the calling thread's hub. Call from the hub's thread."""
        waker: HubWaker | None = getattr(_local, "waker", None)
        if waker is None or waker.hub is not hub:
            waker = _local.waker = cls(hub)
        return waker

    @classmethod
    def of_this_thread(cls) -> HubWaker | None:
        """Return the waker of the calling thread's hub, or None if the thread has no hub. Never creates a hub."""
        hub = get_hub_if_exists()
        if hub is None or hub.loop is None:
            return None
        waker: HubWaker | None = getattr(_local, "waker", None)
        return waker if waker is not None and waker.hub is hub else cls.here(hub)

    @property
    def expected(self) -> int:
        """The number of registered callbacks, without those of `listen`. Safe from any thread."""
        return len(self._callbacks) - len(self._listening)

    def number(self) -> int:
        """Return a number for `expect`, for callers that must `forget` it even if `expect` is interrupted."""
        return next(self._numbers)

    def expect(self, callback: Callable[[], object], number: int | None = None) -> int:
        """Register *callback*, hold the loop open for it, and return its number.

        The hub calls *callback* once for each `notify` of the number, until the number is forgotten. The callback must
        not wait, and must use `resume` to switch to a greenlet. If it raises, it is called a second time before the
        error is reported, because a signal handler may have raised in the middle of it.
        Call from the hub's thread.
        """
        if number is None:
            number = next(self._numbers)
        self._callbacks[number] = callback
        self._holding.add(number)
        if self._watcher.callback is None or not self._watcher.ref:  # skip a call: each job runs this
            self._settle()
        return number

    def listen(self, callback: Callable[[], object]) -> int:
        """Register *callback* like `expect`, but do not hold the loop open for it.

        Use it for notifications that may come at any time, or never. Call from the hub's thread.
        """
        number = self.expect(callback)
        self._listening.add(number)
        self.release(number)
        return number

    def release(self, number: int) -> None:
        """Stop holding the loop open for *number*. Its callback stays registered. Idempotent.

        Call from the hub's thread.
        """
        self._holding.discard(number)
        if not self._delivering:
            self._settle()

    def forget(self, number: int) -> None:
        """Unregister *number*. A later `notify` of it does nothing. Idempotent.

        Call from the hub's thread.
        """
        self._callbacks.pop(number, None)
        self._listening.discard(number)
        self._holding.discard(number)
        if not self._delivering:
            self._settle()

    def resume(self, sleepers: list[Callable[[object], object]]) -> None:
        """Resume the waiting greenlets of this hub whose switch functions are in *sleepers*, and empty the list.

        They run as soon as the callback that called this method has returned, in the same iteration of the loop.
        Call from the hub greenlet itself.
        """
        self._resumed.extend(sleepers)
        sleepers.clear()
        if not self._delivering:
            self.hub.loop.run_callback(self._resume)

    def notify(self, number: int) -> None:
        """Make the hub call the callback of *number* on the hub's thread. Safe from any thread; never blocks.

        The calling thread only appends the number to `pending` and sends to the watcher. The callback runs later, when
        the hub's loop polls, even if the calling thread is the hub's.
        """
        self.pending.append(number)
        self.wake()

    def wake(self) -> None:
        """Wake the hub to deliver the numbers that were appended to `pending`. Safe from any thread; never blocks."""
        try:
            self._watcher.send()
        except Exception:
            # Each loop has its own error for a destroyed loop or a stopped watcher. Any other error was raised by a
            # signal handler after the watcher was sent to, and is passed on.
            loop = self.hub.loop
            is_gone = loop is None or not loop.ptr
            if not is_gone and self._is_started:
                raise
            self.pending.clear()  # nothing is waiting for them
            if is_gone:
                self._callbacks.clear()

    def reset(self) -> None:
        """Forget every number, when the hub ends or in a child process after a fork. Call from the hub's thread.

        A hub that continues gets a new waker, because holders of this waker's numbers may still release them.
        """
        self._callbacks.clear()
        self._listening.clear()
        self._holding.clear()
        self.pending.clear()
        self._watcher.close()
        if self._retry_timer is not None:
            self._retry_timer.close()
        _local.waker = None

    def _deliver(self) -> None:
        pending, callbacks = self.pending, self._callbacks
        slice_ends = monotonic() + TURN
        try:
            self._delivering = True
            while pending and monotonic() < slice_ends:
                self._call(callbacks.get(pending[0]))  # removed after its callback: a signal may come in between
                if pending:  # else this is a forked child now, see `reset`
                    pending.popleft()
                if self._resumed:
                    self._resume()
        finally:
            self._delivering = False
            self._settle()
            if self._resumed and self.hub.loop is not None:
                self.hub.loop.run_callback(self._resume)
            if pending:
                self.wake()

    def _retry(self) -> None:
        """Deliver what a signal handler has kept from being delivered. Listeners may have entries of their own."""
        self.pending.extend(self._listening)
        self._deliver()

    def _call(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:  # else forgotten
            call_twice_if_interrupted(callback, self.hub)

    def _resume(self) -> None:
        while self._resumed:
            self._resumed[0](None)
            self._resumed.popleft()

    def _settle(self) -> None:
        """Start or stop the watcher, and set whether it holds the loop open.

        The watcher is started while any number is registered, and holds the loop open while any number requires it.
        This method is not called during a delivery: a greenlet that submits one job after another would stop and start
        the watcher each time. The decision depends only on the watcher's state, so the next call repairs what an
        interruption left undone.
        """
        if self.hub.loop is None:  # the hub is destroyed
            return
        watcher = self._watcher
        if not self._callbacks and watcher.callback is not None and self._can_stop:  # as `_is_started`
            watcher.stop()
        if self._callbacks and watcher.callback is None:  # or a signal handler ran just before stop()
            watcher.start(self._on_notify)
            if self.pending:
                watcher.send()
        if watcher.ref != bool(self._holding):
            watcher.ref = bool(self._holding)

    @property
    def _is_started(self) -> bool:
        """True if the watcher is started. Its `active` attribute does not say: on libuv it is always true."""
        return self._watcher.callback is not None

    def __repr__(self) -> str:
        return f"<HubWaker to {self.hub!r}: {self.expected} expected, {len(self._holding)} held>"


def call_twice_if_interrupted(callback: Callable[[], object], hub: Any) -> None:
    """Call *callback*, and again if it raises: a signal handler may have raised in the middle of it. Report the error.

    Call from the hub greenlet of *hub* itself.
    """
    try:
        callback()
    except GreenletExit:  # the hub is being destroyed
        raise
    except BaseException:  # noqa: BLE001 - the hub reports it; libuv stops a watcher whose callback raises
        caught = sys.exc_info()
        with suppress(BaseException):  # the same error again, or none
            callback()
        report(hub, callback, *caught)
        del caught


def report(hub: Any, context: object, kind: Any, error: Any, trace: Any) -> None:
    """Report through *hub* an error of *context*, which the hub called. Call from the hub greenlet itself.

    An error that a signal handler raised during the call does not belong to *context*: it asks the program to stop
    something. It is raised in the main greenlet, as gevent does for a signal that arrives while the loop polls.
    """
    if _is_from_signal_handler(trace):
        hub.handle_system_error(kind, error, trace)
    else:
        hub.handle_error(context, kind, error, trace)


def _is_from_signal_handler(trace: Any) -> bool:
    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    return any(frame.f_code in codes for frame, _ in walk_tb(trace))


def _code_of(handler: Any) -> object:
    """Return the code object of a Python function, a method or a callable object; None for anything else."""
    while isinstance(handler, partial):
        handler = handler.func
    return getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)


_local = native.Local()  # the waker of each thread's hub
