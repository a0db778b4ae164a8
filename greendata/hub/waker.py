"""The doorbell: how a native thread tells a hub that something is ready for it.

A hub has one `HubWaker`, and a bridge has one async watcher, the bell. Whoever waits for something from
another thread registers a callback on the hub's own thread (`HubWaker.expect`) and gets a number; the other
thread rings that number (`HubWaker.ring`), and the hub calls the callback in its next turn.

Guarantees:

- A foreign thread does two things: it appends an integer to a deque, and it calls ``watcher.send()``. Both
  are one C call under the GIL. Every other touch of a gevent object happens on the hub's thread.
- Only numbers cross. The callback, and all that it keeps alive (frames, closures, sessions), is owned by the
  hub's side and dies there, where finalizers may take patched locks. The foreign thread drops its own
  references before it rings, so it is never the last owner.
- The bell is hung only while something is expected, and holds the loop open only while somebody may wait:
  ``get()`` never raises LoopExit, and a process with nothing pending exits. ``send()`` to a watcher that was
  not started is lost on libev, so it is started with its callback before the number is handed out.
- Many numbers, one ring; a `TURN` of callbacks at most, then the loop polls before the rest.
- A greenlet that waits is resumed (`HubWaker.resume`) once the callback has returned, out of a frame that holds
  nothing of it: what the job had in hand dies when that greenlet lets go of it, and not at its next wait.
- A hub that is gone makes ring() a no-op.

Refused: ``loop.run_callback_threadsafe``. A waiter fed only by it gets LoopExit, and on libuv it can hang
the hub (github.com/gevent/gevent/issues/2212).
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
from greendata.hub.hubs import before_take_down, weakly
from greendata.internals.gevent import get_hub_if_exists

__all__ = ("HubWaker", "report")

TURN = 0.001  # seconds of callbacks before the loop polls again: a waiting greenlet runs inside its callback


class HubWaker:
    """One hub's doorbell.

    Example:
        >>> import gevent
        >>> from gevent.event import AsyncResult
        >>> waker, answer = HubWaker.here(gevent.get_hub()), AsyncResult()
        >>> number = waker.expect(lambda: answer.set("rung"))
        >>> _ = native.start_thread(waker.notify, (number,))
        >>> answer.get()
        'rung'
        >>> waker.forget(number)
    """

    __slots__ = (
        "__weakref__",
        "_answering",
        "_bell",
        "_callbacks",
        "_holding",
        "_numbers",
        "_on_ring",
        "_resumed",
        "_standing",
        "hub",
        "pending",
    )

    def __init__(self, hub: Any) -> None:
        self.hub = hub  # any thread reads; set once
        self.pending: deque[int] = deque()  # numbers to call when the hub is woken; any thread appends, the hub pops
        self._bell = hub.loop.async_()  # any thread send()s; all else on the hub's thread
        self._callbacks: dict[int, Callable[[], object]] = {}  # hub's thread only
        self._answering = False  # the bell's callback is at work; hub's thread only
        self._resumed: deque[Callable[[object], object]] = deque()  # switches into greenlets; hub's thread only
        self._standing: set[int] = set()  # numbers of `listen`; hub's thread writes
        self._holding: set[int] = set()  # numbers that hold the loop open; hub's thread only
        self._on_ring = weakly(self._answer)  # the jobs that are on their way, and its thread, keep it alive
        self._numbers = count(1)  # hub's thread only; never reused, so a late ring finds nobody
        before_take_down(hub, weakly(self.reset))

    @classmethod
    def here(cls, hub: Any) -> HubWaker:
        """The bridge of *hub*, which must be the calling thread's. Call from the hub's thread."""
        waker: HubWaker | None = getattr(_local, "waker", None)
        if waker is None or waker.hub is not hub:
            waker = _local.waker = cls(hub)
        return waker

    @classmethod
    def of_this_thread(cls) -> HubWaker | None:
        """The bridge of the calling thread's hub, or None where there is no hub. Makes no hub."""
        hub = get_hub_if_exists()
        if hub is None or hub.loop is None:
            return None
        waker: HubWaker | None = getattr(_local, "waker", None)
        return waker if waker is not None and waker.hub is hub else cls.here(hub)

    @property
    def is_here(self) -> bool:
        """True on the thread of this bridge's hub. Safe from any thread."""
        return get_hub_if_exists() is self.hub

    @property
    def is_gone(self) -> bool:
        """True if the hub was destroyed. Safe from any thread."""
        return self.hub.loop is None

    @property
    def expected(self) -> int:
        """How many numbers are out, those of `listen` aside. Safe from any thread."""
        return len(self._callbacks) - len(self._standing)

    def number(self) -> int:
        """A number for `expect`, for those who have to `forget` it also if `expect` is interrupted."""
        return next(self._numbers)

    def expect(self, callback: Callable[[], object], number: int | None = None) -> int:
        """Register *callback* and hold the loop open for it; returns its number.

        The callback runs in the hub at each ring until it is forgotten. It must not wait, and leaves it to
        `resume` to switch to a greenlet. If it raises it is called once more before the error is told, since a signal
        handler may have raised in the midst of it.
        Call from the hub's thread.
        """
        if number is None:
            number = next(self._numbers)
        self._callbacks[number] = callback
        self._holding.add(number)
        if self._bell.callback is None or not self._bell.ref:  # else there is nothing to settle: each job passes here
            self._settle()
        return number

    def listen(self, callback: Callable[[], object]) -> int:
        """`expect` for something that may come at any time, or never: it does not hold the loop open.

        Call from the hub's thread.
        """
        number = self.expect(callback)
        self._standing.add(number)
        self.release(number)
        return number

    def release(self, number: int) -> None:
        """Hold the loop open for *number* no longer: it may still ring, but nobody waits for it. Idempotent.

        Call from the hub's thread.
        """
        self._holding.discard(number)
        if not self._answering:
            self._settle()

    def forget(self, number: int) -> None:
        """Take *number* back. A later ring of it does nothing. Idempotent.

        Call from the hub's thread.
        """
        self._callbacks.pop(number, None)
        self._standing.discard(number)
        self._holding.discard(number)
        if not self._answering:
            self._settle()

    def resume(self, sleepers: list[Callable[[object], object]]) -> None:
        """Call every one of *sleepers*, which empties: greenlets of this hub that wait. Call from the hub itself.

        They run on as soon as the callback that calls this has returned, in this turn of the loop.
        """
        self._resumed.extend(sleepers)
        sleepers.clear()
        if not self._answering:
            self.hub.loop.run_callback(self._resume)

    def notify(self, number: int) -> None:
        """Have the hub call the callback of *number*. Safe from any thread; never blocks."""
        self.pending.append(number)
        self.wake()

    def wake(self) -> None:
        """Wake the hub for what has been appended to `pending`. Safe from any thread; never blocks."""
        try:
            self._bell.send()
        except Exception:
            # Each loop has its own error for a destroyed loop or a bell that was taken off. Any other is a signal
            # handler's, and not ours: it came when the bell had rung.
            loop = self.hub.loop
            is_gone = loop is None or not loop.ptr
            if not is_gone and self._is_hung:
                raise
            self.pending.clear()  # nobody waits
            if is_gone:
                self._callbacks.clear()

    def reset(self) -> None:
        """Forget every number, when the hub ends or in a child process after a fork. Call from the hub's thread.

        A hub that goes on gets a new bridge: the numbers of this one may still be released by those who hold them.
        """
        self._callbacks.clear()
        self._standing.clear()
        self._holding.clear()
        self.pending.clear()
        self._bell.stop()
        _local.waker = None

    def _answer(self) -> None:
        pending, callbacks = self.pending, self._callbacks
        turn_ends = monotonic() + TURN
        try:
            self._answering = True
            while pending and monotonic() < turn_ends:
                self._call(callbacks.get(pending[0]))  # removed after its callback: a signal may come in between
                if pending:  # else this is a forked child now, see `reset`
                    pending.popleft()
                if self._resumed:
                    self._resume()
        finally:
            self._answering = False
            self._settle()
            if self._resumed and self.hub.loop is not None:
                self.hub.loop.run_callback(self._resume)
            if pending:
                self.wake()

    def _call(self, callback: Callable[[], object] | None) -> None:
        if callback is None:  # forgotten
            return
        try:
            callback()
        except GreenletExit:  # the hub is being destroyed
            raise
        except BaseException:  # noqa: BLE001 - the hub's to tell; libuv stops a bell that lets it out
            told = sys.exc_info()
            with suppress(BaseException):  # the same again, or none
                callback()
            report(self.hub, callback, *told)
            del told

    def _resume(self) -> None:
        while self._resumed:
            self._resumed[0](None)
            self._resumed.popleft()

    def _settle(self) -> None:
        """Have the bell hang while something is expected, and hold the loop open while somebody waits.

        Not while answering: a greenlet that asks for one thing after the other would have it taken off each time.
        What it does depends on the bell alone, so that after an interruption the next call puts it right.
        """
        if self.hub.loop is None:  # the hub is destroyed
            return
        bell = self._bell
        if not self._callbacks and bell.callback is not None:  # as `_is_hung`
            bell.stop()
        if self._callbacks and bell.callback is None:  # also if a signal handler came in between and took it for hung
            bell.start(self._on_ring)
            if self.pending:
                bell.send()
        if bell.ref != bool(self._holding):
            bell.ref = bool(self._holding)

    @property
    def _is_hung(self) -> bool:
        """True if the bell is started; libuv calls every bell active."""
        return self._bell.callback is not None

    def __repr__(self) -> str:
        return f"<HubWaker to {self.hub!r}: {self.expected} expected, {len(self._holding)} held>"


def report(hub: Any, context: object, kind: Any, error: Any, trace: Any) -> None:
    """Have *hub* tell that *context*, which it has called, let out an error. Call from the hub itself.

    What a signal handler raised in the midst of it is not its own, and asks the program to stop something. It is raised
    in the main greenlet, as gevent does with one that comes while the loop polls.
    """
    if _is_from_signal_handler(trace):
        hub.handle_system_error(kind, error, trace)
    else:
        hub.handle_error(context, kind, error, trace)


def _is_from_signal_handler(trace: Any) -> bool:
    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    return any(frame.f_code in codes for frame, _ in walk_tb(trace))


def _code_of(handler: Any) -> object:
    """The code of a Python function, a method, or an object that can be called; else None."""
    while isinstance(handler, partial):
        handler = handler.func
    return getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)


_local = native.Local()  # one bridge a thread, its own
