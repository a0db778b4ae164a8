"""`Run`: one iteration of a pipeline, with its channels and greenlets.

Every iteration of a stage builds a new run, on the hub of the thread that iterates. A run ends when its stream
is exhausted, closed or dropped, or when it fails. Then all of its greenlets have ended and every ``on_done`` has run.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import cache
from types import GeneratorType
from typing import Any, NamedTuple, Protocol

import gevent
from gevent import Timeout
from greenlet import GreenletExit, getcurrent

from greendata.errors.notes import note, shown
from greendata.hub.hubs import ensure_hub
from greendata.internals.gevent import get_hub_if_exists
from greendata.pipelines.channel import Channel, Stopped, TicketLock, WaitQueue, Window, YieldTimer, clock
from greendata.pipelines.element import Item, Placeholder, SequenceNumber, path_of
from greendata.pool import pool

__all__ = ("Flow", "Operator", "Run", "Windows", "workers")

Windows = list[Window]  # the windows that limit the numbering; empty where nothing has to be put in order


class Flow(NamedTuple):
    """Elements to be pulled by one greenlet.

    Attributes:
        items: the elements.
        is_ordered: True if they come in order. If not, they are numbered without gaps where a later stage needs order.
    """

    items: Iterator[Item]
    is_ordered: bool


class Operator(Protocol):
    """The interface of a stage that a run uses. Stages are hashed by identity."""

    maxsize: int
    sources: tuple[Any, ...]  # operators

    @property
    def expected(self) -> int | None:
        """The number of elements it will produce, or None if that is not known."""

    def upstream_window(self, downstream: int) -> int:
        """Return the smallest window after the sources, given the smallest window *downstream* of this stage."""

    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return the elements, to be pulled by one greenlet."""

    def feed(self, run: Run, channel: Channel, windows: Windows) -> None:
        """Have the elements put into *channel*."""


class _FanOut:
    """The output channels of a stage that feeds several others."""

    def __init__(self) -> None:
        self.windows: Windows = []
        self.branches: list[tuple[Channel, bool]] = []  # the flag: the branch needs placeholders


class Run:
    """The greenlets and channels of one iteration. Call from the hub's thread."""

    def __init__(self, last: Operator) -> None:
        self.hub = ensure_hub()
        self.yield_timer = YieldTimer.here(self.hub)
        self.error: BaseException | None = None
        self._wait_queues: list[WaitQueue] = []
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._fan_outs: dict[Operator, _FanOut] = {}
        self._uses: dict[Operator, int] = {}
        self._downstream_window: dict[Operator, int] = {}
        self._closer: gevent.Greenlet[..., None] | None = None
        self._kept: list[Iterator[Item]] = []
        self._count_uses(last, 0)
        self.items = self.pull(last, []).items
        self.yield_timer.join()
        _live.add(self)
        _close_at_exit()
        for greenlet in self._greenlets:
            greenlet.start()

    # -- building -----------------------------------------------------------------------------------

    def _count_uses(self, stage: Operator, window: int) -> None:
        """Count the users of each stage, and record the smallest window downstream of it (0: no order is needed)."""
        known = stage in self._uses
        self._uses[stage] = self._uses.get(stage, 0) + 1
        before = self._downstream_window.get(stage, 0)
        window = min(before, window) if before and window else before or window
        if known and window == before:
            return
        self._downstream_window[stage] = window
        for source in stage.sources:
            if known:
                self._uses[source] -= 1  # it was counted the first time
            self._count_uses(source, stage.upstream_window(window))

    def downstream_window(self, stage: Operator) -> int:
        """Return the smallest window downstream of *stage*; 0 if no later stage needs order."""
        return self._downstream_window[stage]

    def pull(self, stage: Operator, windows: Windows) -> Flow:
        """Return the elements of *stage*, to be pulled by one greenlet."""
        if self._uses[stage] > 1:
            channel = self.channel(stage.maxsize)
            self.push(stage, channel, windows)
            return Flow(channel.drain(), False)
        return stage.flow(self, windows)

    def push(self, stage: Operator, channel: Channel, windows: Windows) -> None:
        """Have the elements of *stage* put into *channel*."""
        if self._uses[stage] == 1:
            stage.feed(self, channel, windows)
            return
        fan_out = self._fan_outs.get(stage)
        if fan_out is None:
            fan_out = self._fan_outs[stage] = _FanOut()
            shared = self.channel(stage.maxsize)
            stage.feed(self, shared, fan_out.windows)
            self.spawn(self._copy, shared, fan_out)
        fan_out.windows.extend(windows)
        fan_out.branches.append((channel, bool(windows)))
        channel.join()

    def channel(self, maxsize: int) -> Channel:
        """Return a new channel of this run."""
        channel = Channel(self.hub, maxsize)
        self._wait_queues.append(channel)
        return channel

    def window(self, size: int) -> Window:
        """Return a new window of this run."""
        window = Window(self.hub, size)
        self._wait_queues.append(window)
        return window

    def ticket_lock(self) -> TicketLock:
        """Return a new ticket lock of this run."""
        ticket_lock = TicketLock(self.hub)
        self._wait_queues.append(ticket_lock)
        return ticket_lock

    def keep(self, items: Iterator[Item]) -> Iterator[Item]:
        """Return *items*, a generator, and close it when the run ends, even if its consumer has stopped halfway."""
        self._kept.append(items)
        return items

    def spawn(self, func: Callable[..., object], *args: Any) -> None:
        """Have a greenlet call *func* once the run starts, with the context variables of the consumer."""
        greenlet = gevent.Greenlet(self._guard, func, *args)
        greenlet.gr_context = copy_context()
        greenlet.link_exception(self._check)
        self._greenlets.append(greenlet)

    def spawn_feeder(self, flow: Flow, channel: Channel, windows: Windows, *, numbers: bool = True) -> None:
        """Have a greenlet move the elements of *flow* into *channel*.

        Args:
            numbers: number the elements if a later stage needs order, and hold them back for the windows.
        """
        channel.join()
        self.spawn(self._feed, flow, channel, windows, numbers)

    # -- greenlets ----------------------------------------------------------------------------------

    def _guard(self, func: Callable[..., object], *args: Any) -> None:
        try:
            func(*args)
        except Stopped:
            return
        except GreenletExit as exit_:
            if self._closer is None:  # the function raised it; the greenlet was not killed
                self.fail(exit_)
        except BaseException as error:  # noqa: BLE001 - it is raised in the consumer
            self.fail(error)

    def _check(self, greenlet: gevent.Greenlet[..., None]) -> None:
        """Fail if *greenlet* ended with an error outside `_guard`, where only a signal handler can raise."""
        if greenlet.exception is not None and self in _live:
            self.fail(greenlet.exception)

    def move(self, items: Iterator[Item], channel: Channel) -> None:
        """Put *items* into *channel*, wait while it is full, and let the loop poll when that is due."""
        waiting, takers, capacity = channel.items, channel.takers, channel.capacity
        push, timer = waiting.append, self.yield_timer
        try:
            for item in items:
                if len(waiting) >= capacity:
                    channel.wait_until_not_full()
                push(item)
                if takers:
                    channel.wake_taker()
                if clock() >= timer.due:
                    timer.yield_now()
        finally:
            _close(items)
        channel.leave()

    def _feed(self, flow: Flow, channel: Channel, windows: Windows, numbers: bool) -> None:  # noqa: FBT001
        if windows and flow.is_ordered and numbers:
            self.move(_numbered(flow.items, windows), channel)
        else:
            self.move(flow.items, channel)

    def _copy(self, shared: Channel, fan_out: _FanOut) -> None:
        for item in shared.drain():
            for branch, wants_placeholders in fan_out.branches:
                if wants_placeholders or not isinstance(item[1], Placeholder):
                    branch.put(item)
            if clock() >= self.yield_timer.due:
                self.yield_timer.yield_now()
        for branch, _ in fan_out.branches:
            branch.leave()

    # -- the end ------------------------------------------------------------------------------------

    def checked_timeout(self, error: BaseException) -> BaseException:
        """Return *error*, unless it may be a timeout of the consumer.

        A function may run inline in the consumer's greenlet, where a `gevent.Timeout` of the consumer can expire. A
        timeout without seconds never expires, so a function has raised it.

        Raises:
            gevent.Timeout: *error*, if it may belong to the consumer.
        """
        can_expire = isinstance(error, Timeout) and not isinstance(error, Exception) and error.seconds is not None
        if can_expire and getcurrent() not in self._greenlets:
            raise error
        return error

    def fail(self, error: BaseException) -> None:
        """End the run and raise *error* in its consumer. If there are several errors, the first one is raised."""
        self._note(error)
        self.stop()

    def stop(self) -> None:
        """Have every greenlet of the run killed. Does not wait."""
        if self._closer is None:
            self._closer = gevent.Greenlet(self._end)
            self._closer.gr_context = copy_context()
            self._closer.start()
            for queue in self._wait_queues:
                queue.stop()

    def close(self) -> None:
        """End the run and wait until all of its greenlets have ended."""
        if self not in _live:
            return
        if self._closer is None and all(greenlet.dead for greenlet in self._greenlets):
            self._finish()
            return
        self.stop()
        assert self._closer is not None
        self._closer.join()

    def _end(self) -> None:
        for greenlet in self._greenlets:
            greenlet.kill(block=False)
        gevent.joinall(self._greenlets)
        self._finish()

    def _note(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        elif self.error is not error:
            note(self.error, f"meanwhile there was also: {shown(error)}")

    def _finish(self) -> None:
        for greenlet in self._greenlets:
            if greenlet.exception is not None:  # its link may be called after this
                self._note(greenlet.exception)
        for items in (self.items, *reversed(self._kept)):
            try:
                if not getattr(items, "gi_running", False):
                    _close(items)
            except BaseException as error:  # noqa: BLE001 - it is raised in the consumer
                self._note(error)
        _live.discard(self)
        self.yield_timer.leave()
        self._greenlets.clear()
        self._wait_queues.clear()
        self._fan_outs.clear()
        self._kept.clear()


def workers() -> list[gevent.Greenlet[..., None]]:
    """Return the greenlets of all pipelines of this process that have not ended.

    Example:
        >>> workers()
        []
    """
    return [greenlet for run in list(_live) for greenlet in run._greenlets if not greenlet.dead]


def _numbered(items: Iterator[Item], windows: Windows) -> Iterator[Item]:
    """Yield *items* numbered without gaps, and held back for the windows.

    An error of their source is yielded as the last item, to be raised in its turn.
    """
    number = 0
    try:
        try:
            for index, value in items:
                for window in windows:
                    window.admit(number)
                yield (
                    (index if type(index) is int and index == number else SequenceNumber(number, path_of(index))),
                    value,
                )
                number += 1
        finally:
            _close(items)
    except (Exception, Timeout) as error:  # noqa: BLE001 - it is raised in its turn
        yield SequenceNumber(number, (number,)), Placeholder(error)


def _close(items: Iterable[Item]) -> None:
    if isinstance(items, GeneratorType):
        items.close()


@cache  # once: CPython keeps a slot for every registration, even an unregistered one
def _close_at_exit() -> None:
    pool.shared.end_at_exit()  # later than the runs: what they do at their end may need it
    atexit.register(_close_all)


def _close_all() -> None:
    """Close the runs of this hub at exit, so that ``on_done`` runs even after a ``break`` as the last statement."""
    here = get_hub_if_exists()
    for run in [run for run in list(_live) if run.hub is here]:
        run.close()


_live: set[Run] = set()  # runs that have not ended; each hub's thread adds and discards the runs of that hub
