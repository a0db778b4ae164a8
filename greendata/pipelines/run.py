"""`Run`: one iteration of a pipeline: its channels, its greenlets and its end.

Every iteration of a stage builds a run anew, on the hub of the thread that iterates. A run ends when its stream
is exhausted, closed or dropped, or when it fails; then no greenlet of it is left and every ``on_done`` has run.
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
from greendata.pipelines.element import Item, Mark, Place, path_of

__all__ = ("Flow", "Operator", "Run", "Windows", "workers")

Windows = list[Window]  # those that hold back the numbering; empty where nothing has to be put in order


class Flow(NamedTuple):
    """Elements to pull.

    Attributes:
        items: the elements.
        is_ordered: they come in order; if not, they are numbered without gaps where order is asked for.
    """

    items: Iterator[Item]
    is_ordered: bool


class Operator(Protocol):
    """A stage as a run sees it. It is hashed by its identity."""

    maxsize: int
    sources: tuple[Any, ...]  # operators

    @property
    def expected(self) -> int | None:
        """How many elements it will give, if that is known."""

    def reach(self, behind: int) -> int:
        """The smallest window that the sources' elements will pass, given the smallest *behind* this stage."""

    def flow(self, run: Run, windows: Windows) -> Flow:
        """The elements, to be pulled by one greenlet."""

    def feed(self, run: Run, channel: Channel, windows: Windows) -> None:
        """Have the elements come into *channel*."""


class _Fork:
    """The output of a stage that feeds several others."""

    def __init__(self) -> None:
        self.windows: Windows = []
        self.branches: list[tuple[Channel, bool]] = []  # and whether it wants the marks


class Run:
    """The greenlets and channels of one iteration. Call from the hub's thread."""

    def __init__(self, exit_: Operator) -> None:
        self.hub = ensure_hub()
        self.pace = YieldTimer.here(self.hub)
        self.error: BaseException | None = None
        self._doors: list[WaitQueue] = []
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._forks: dict[Operator, _Fork] = {}
        self._uses: dict[Operator, int] = {}
        self._reach: dict[Operator, int] = {}
        self._closer: gevent.Greenlet[..., None] | None = None
        self._kept: list[Iterator[Item]] = []
        self._survey(exit_, 0)
        self.items = self.pull(exit_, []).items
        self.pace.join()
        _live.add(self)
        _close_at_exit()
        for greenlet in self._greenlets:
            greenlet.start()

    # -- building -----------------------------------------------------------------------------------

    def _survey(self, stage: Operator, reach: int) -> None:
        """Count the users of each stage, and note the smallest window behind it (0: nobody wants order)."""
        known = stage in self._uses
        self._uses[stage] = self._uses.get(stage, 0) + 1
        before = self._reach.get(stage, 0)
        reach = min(before, reach) if before and reach else before or reach
        if known and reach == before:
            return
        self._reach[stage] = reach
        for source in stage.sources:
            if known:
                self._uses[source] -= 1  # it was counted the first time
            self._survey(source, stage.reach(reach))

    def reach(self, stage: Operator) -> int:
        """The smallest window that the elements *stage* puts out will pass; 0 if nobody wants them in order."""
        return self._reach[stage]

    def pull(self, stage: Operator, windows: Windows) -> Flow:
        """The elements of *stage*, to be pulled by one greenlet."""
        if self._uses[stage] > 1:
            channel = self.channel(stage.maxsize)
            self.push(stage, channel, windows)
            return Flow(channel.drain(), False)
        return stage.flow(self, windows)

    def push(self, stage: Operator, channel: Channel, windows: Windows) -> None:
        """Have the elements of *stage* come into *channel*."""
        if self._uses[stage] == 1:
            stage.feed(self, channel, windows)
            return
        fork = self._forks.get(stage)
        if fork is None:
            fork = self._forks[stage] = _Fork()
            trunk = self.channel(stage.maxsize)
            stage.feed(self, trunk, fork.windows)
            self.spawn(self._copy, trunk, fork)
        fork.windows.extend(windows)
        fork.branches.append((channel, bool(windows)))
        channel.join()

    def channel(self, maxsize: int) -> Channel:
        """A new channel."""
        channel = Channel(self.hub, maxsize)
        self._doors.append(channel)
        return channel

    def window(self, size: int) -> Window:
        """A new window."""
        window = Window(self.hub, size)
        self._doors.append(window)
        return window

    def turnstile(self) -> TicketLock:
        """A new turnstile."""
        turnstile = TicketLock(self.hub)
        self._doors.append(turnstile)
        return turnstile

    def keep(self, items: Iterator[Item]) -> Iterator[Item]:
        """Have *items*, a generator, closed at the end, also when whoever pulls it leaves it halfway."""
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
            numbers: number them where somebody wants them in order, and hold them back for the windows.
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
            if self._closer is None:  # the function raised it, nobody was killed
                self.fail(exit_)
        except BaseException as error:  # noqa: BLE001 - it is raised in the consumer
            self.fail(error)

    def _check(self, greenlet: gevent.Greenlet[..., None]) -> None:
        """Fail because *greenlet* ended with an error outside its guard, where only a signal handler raises."""
        if greenlet.exception is not None and self in _live:
            self.fail(greenlet.exception)

    def move(self, items: Iterator[Item], channel: Channel) -> None:
        """Put *items* into *channel* as long as there is room, and let the loop poll when it is due."""
        waiting, takers, room = channel.items, channel.takers, channel.room
        push, pace = waiting.append, self.pace
        try:
            for item in items:
                if len(waiting) >= room:
                    channel.wait_for_room()
                push(item)
                if takers:
                    channel.wake_taker()
                if clock() >= pace.due:
                    pace.rest()
        finally:
            _close(items)
        channel.leave()

    def _feed(self, flow: Flow, channel: Channel, windows: Windows, numbers: bool) -> None:  # noqa: FBT001
        if windows and flow.is_ordered and numbers:
            self.move(_numbered(flow.items, windows), channel)
        else:
            self.move(flow.items, channel)

    def _copy(self, trunk: Channel, fork: _Fork) -> None:
        for item in trunk.drain():
            for branch, wants_marks in fork.branches:
                if wants_marks or not isinstance(item[1], Mark):
                    branch.put(item)
            if clock() >= self.pace.due:
                self.pace.rest()
        for branch, _ in fork.branches:
            branch.leave()

    # -- the end ------------------------------------------------------------------------------------

    def own(self, error: BaseException) -> BaseException:
        """*error*, if it is the run's to deal with.

        Raises:
            gevent.Timeout: *error*, which may be the consumer's own: it struck in the consumer's greenlet. One without
                seconds never strikes; a function has raised it.
        """
        strikes = isinstance(error, Timeout) and not isinstance(error, Exception) and error.seconds is not None
        if strikes and getcurrent() not in self._greenlets:
            raise error
        return error

    def fail(self, error: BaseException) -> None:
        """End the run because of *error*, which its consumer will get; of several it gets the first."""
        self._note(error)
        self.stop()

    def stop(self) -> None:
        """Have every greenlet of the run killed. Does not wait."""
        if self._closer is None:
            self._closer = gevent.Greenlet(self._end)
            self._closer.gr_context = copy_context()
            self._closer.start()
            for door in self._doors:
                door.stop()

    def close(self) -> None:
        """End the run and wait until none of its greenlets is left."""
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
            if greenlet.exception is not None:  # its link may come later than its end
                self._note(greenlet.exception)
        for items in (self.items, *reversed(self._kept)):
            try:
                if not getattr(items, "gi_running", False):
                    _close(items)
            except BaseException as error:  # noqa: BLE001 - it is raised in the consumer
                self._note(error)
        _live.discard(self)
        self.pace.leave()
        self._greenlets.clear()
        self._doors.clear()
        self._forks.clear()
        self._kept.clear()


def workers() -> list[gevent.Greenlet[..., None]]:
    """The greenlets of all pipelines of this process that have not ended.

    Example:
        >>> workers()
        []
    """
    return [greenlet for run in list(_live) for greenlet in run._greenlets if not greenlet.dead]


def _numbered(items: Iterator[Item], windows: Windows) -> Iterator[Item]:
    """*items* in order, as they set out: numbered without gaps, and held back for the windows.

    What their source raises takes its turn as the last of them.
    """
    number = 0
    try:
        try:
            for index, value in items:
                for window in windows:
                    window.admit(number)
                yield (index if type(index) is int and index == number else Place(number, path_of(index))), value
                number += 1
        finally:
            _close(items)
    except (Exception, Timeout) as error:  # noqa: BLE001 - it is raised in its turn
        yield Place(number, (number,)), Mark(error)


def _close(items: Iterable[Item]) -> None:
    if isinstance(items, GeneratorType):
        items.close()


@cache  # once: CPython keeps a slot for every registration, also one that was taken back
def _close_at_exit() -> None:
    atexit.register(_close_all)


def _close_all() -> None:
    """At exit: a loop that was left by a break, and no turn of the hub after it, has its ``on_done`` to run."""
    here = get_hub_if_exists()
    for run in [run for run in list(_live) if run.hub is here]:
        run.close()


_live: set[Run] = set()  # runs that have not ended; each hub's thread adds and discards its own
