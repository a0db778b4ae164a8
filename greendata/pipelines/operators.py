"""The stages themselves: where elements come from, what is done with them, how they meet and get into order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from functools import partial
from itertools import islice
from typing import Any, Literal

from gevent import Timeout

from greendata.errors import NotIterable
from greendata.errors.notes import note
from greendata.hub.checks import checked_count
from greendata.pipelines.call_policy import NATIVE_RUN, CallPolicy
from greendata.pipelines.channel import Channel, TicketLock, clock
from greendata.pipelines.element import Item, Mark, Place, path_of
from greendata.pipelines.injection import StageStatus, WorkerInfo
from greendata.pipelines.order import merge, reorder, unmarked
from greendata.pipelines.progress import bar_class, counted
from greendata.pipelines.run import Flow, Run, Windows
from greendata.pipelines.stage import Stage
from greendata.pool import pool

__all__ = ("Concat", "Kind", "Ordered", "Source", "Work", "as_stage", "in_order")

Kind = Literal["map", "filter", "flat_map", "each"]


_DROPPED = Mark()


def as_stage(source: Any, maxsize: int) -> Stage[Any]:
    """*source* as a stage.

    Raises:
        NotIterable: it is neither a stage nor an iterable.
    """
    return source if isinstance(source, Stage) else Source(source, maxsize)


class Source(Stage[Any]):
    """Elements from outside the pipeline."""

    def __init__(
        self, iterable: Iterable[Any], maxsize: int, *, on: Literal["greenlet", "native"] = "greenlet"
    ) -> None:
        if not isinstance(iterable, Iterable):
            raise NotIterable(iterable)
        super().__init__("source", maxsize, ())
        self._iterable = iterable
        self._on = on

    @property
    def expected(self) -> int | None:
        """Its length, if it has one."""
        return len(self._iterable) if isinstance(self._iterable, Sized) else None

    def flow(self, run: Run, windows: Windows) -> Flow:
        """The elements, in order."""
        return Flow(self._read(), True)

    def _read(self) -> Iterator[Item]:
        index = -1
        try:
            values = self._iterable if self._on == "greenlet" else self._read_natively()
            for item in enumerate(values):
                index = item[0]
                yield item
        except (Exception, Timeout) as error:
            note(error, f"raised by the source, after {index + 1} elements")
            raise

    def _read_natively(self) -> Iterator[Any]:
        iterator = pool.call(iter, self._iterable)
        while run := pool.call(list, islice(iterator, NATIVE_RUN)):
            yield from run


class Work(Stage[Any]):
    """A function over elements, with workers of its own unless it runs inline."""

    def __init__(
        self, kind: Kind, step: CallPolicy, source: Stage[Any], *, workers: int, maxsize: int, progress: str | None
    ) -> None:
        super().__init__(step.label, maxsize, (source,))
        self._kind = kind
        self._step = step
        self._workers = 1 if step.on == "inline" else checked_count("workers", workers)
        self._progress = progress
        if progress is not None:
            bar_class()  # an ImportError comes now and not later

    @property
    def expected(self) -> int | None:
        """As many as the source gives, if it maps them one to one."""
        return self.sources[0].expected if self._kind == "map" else None

    def flow(self, run: Run, windows: Windows) -> Flow:
        """The elements, out of order unless they are made inline."""
        if self._step.on == "inline":
            flow = self._flow_inline(run, windows)
        else:
            channel = run.channel(self.maxsize)
            self._start_workers(run, channel, windows)
            flow = Flow(channel.drain(), False)
        return flow if self._progress is None else self._counted(flow)

    def feed(self, run: Run, channel: Channel, windows: Windows) -> None:
        """Have the elements come into *channel*, from the workers or by a feeder."""
        if self._step.on == "inline" or self._progress is not None:
            super().feed(run, channel, windows)
        else:
            self._start_workers(run, channel, windows)

    def _counted(self, flow: Flow) -> Flow:
        assert self._progress is not None
        return Flow(counted(flow.items, self._progress, self.expected), flow.is_ordered)

    def _flow_inline(self, run: Run, windows: Windows) -> Flow:
        if self._kind == "flat_map" and run.reach(self):
            items, is_ordered = in_order(run, self.sources[0], run.reach(self)), True
        else:
            items, is_ordered = run.pull(self.sources[0], windows)
        return Flow(run.keep(self._worked(run, items, WorkerInfo(0), StageStatus(1))), is_ordered)

    def _start_workers(self, run: Run, channel: Channel, windows: Windows) -> None:
        inbox = run.channel(self.maxsize)
        status = StageStatus(self._workers)
        channel.join(self._workers)
        if self._kind == "flat_map" and run.reach(self):
            flow = Flow(in_order(run, self.sources[0], run.reach(self)), True)
            run.spawn_feeder(flow, inbox, [], numbers=False)
            work: Callable[..., None] = partial(self._work_in_turn, run.turnstile(), [0], windows)
        else:
            run.push(self.sources[0], inbox, windows)
            work = self._work
        for number in range(self._workers):
            run.spawn(work, run, inbox, channel, WorkerInfo(number), status)

    def _work(self, run: Run, inbox: Channel, channel: Channel, info: WorkerInfo, status: StageStatus) -> None:
        run.move(self._worked(run, inbox.drain(), info, status), channel)

    def _worked(self, run: Run, items: Iterator[Item], info: WorkerInfo, status: StageStatus) -> Iterator[Item]:
        with self._step.opened(info, status) as call:
            if self._kind == "flat_map":
                yield from self._expanded(run, call, items)
            else:
                yield from self._applied(run, self._step.call_of(call), items)

    def _applied(self, run: Run, call: Callable[..., Any], items: Iterator[Item]) -> Iterator[Item]:
        """The loop that every element of a map, a filter and an each passes."""
        failed, wants_index, pace = self._step.failed, self._step.wants_index, run.pace
        maps, filters, keeps_marks = self._kind == "map", self._kind == "filter", bool(run.reach(self))
        for item in items:
            index, value = item
            if keeps_marks and value.__class__ is Mark:
                yield item
                continue
            mark = None
            try:
                result = call(value, element_index=path_of(index)) if wants_index else call(value)
            except (Exception, Timeout) as error:  # noqa: BLE001 - the policy decides
                mark = failed(run.own(error), index, value, deferred=keeps_marks) or _DROPPED
            if mark is not None:
                if keeps_marks:
                    yield index, mark
            elif maps:
                yield index, result
            elif filters and result:
                yield item
            elif keeps_marks:
                yield index, _DROPPED
            if clock() >= pace.due:  # also where nothing is put out, or nobody behind it looks at the time
                pace.rest()

    def _expanded(self, run: Run, call: Callable[..., Any], items: Iterator[Item]) -> Iterator[Item]:
        marks = bool(run.reach(self))
        for item in items:
            if not isinstance(item[1], Mark):
                yield from self._children(run, call, item, marks=marks)
            elif marks:
                yield item
            if clock() >= run.pace.due:
                run.pace.rest()

    def _children(self, run: Run, call: Callable[..., Any], item: Item, *, marks: bool) -> Iterator[Item]:
        """What the function makes of one element; with *marks* at least one, so that the others know it is done."""
        index, value = item
        path, number = path_of(index), 0
        injected = {"element_index": path} if self._step.wants_index else {}
        try:
            for child in self._step.children(call, value, **injected):
                yield (*path, number), child
                number += 1
        except (Exception, Timeout) as error:  # noqa: BLE001 - the policy decides
            mark = self._step.failed(run.own(error), index, value, deferred=marks)
            if mark is not None:
                yield (*path, number), mark
                return
        if marks and not number:
            yield path, _DROPPED

    def _work_in_turn(
        self,
        turnstile: TicketLock,
        count: list[int],
        windows: Windows,
        run: Run,
        inbox: Channel,
        channel: Channel,
        info: WorkerInfo,
        status: StageStatus,
    ) -> None:
        """Work side by side, put out in the order of the inbox, numbered without gaps."""
        with self._step.opened(info, status) as call:
            for item in inbox.drain():
                ticket = turnstile.draw()
                children = iter((item,)) if isinstance(item[1], Mark) else self._children(run, call, item, marks=True)
                for index, value in _held_back(children, turnstile, ticket, run.reach(self)):
                    for window in windows:
                        window.admit(count[0])
                    channel.put((Place(count[0], path_of(index)), value))
                    count[0] += 1
                turnstile.advance()
                if clock() >= run.pace.due:
                    run.pace.rest()
        channel.leave()


class Concat(Stage[Any]):
    """The elements of several stages as they come; where order is asked for, by their index."""

    def __init__(self, sources: Iterable[Stage[Any]], maxsize: int) -> None:
        super().__init__("concat", maxsize, tuple(sources))

    def flow(self, run: Run, windows: Windows) -> Flow:
        """The elements of all sources."""
        if size := run.reach(self):
            return Flow(merge([in_order(run, source, size) for source in self.sources]), True)
        channel = run.channel(self.maxsize)
        self.feed(run, channel, windows)
        return Flow(channel.drain(), False)

    def feed(self, run: Run, channel: Channel, windows: Windows) -> None:
        """Have the elements of all sources come into *channel*."""
        if run.reach(self):
            super().feed(run, channel, windows)
            return
        channel.join()
        for source in self.sources:
            run.push(source, channel, windows)
        channel.leave()


class Ordered(Stage[Any]):
    """The elements in the order of the source, with a bounded number of them under way."""

    def __init__(self, source: Stage[Any], window: int) -> None:
        super().__init__("ordered", window, (source,))
        self._window = window

    @property
    def expected(self) -> int | None:
        """As many as the source gives."""
        return self.sources[0].expected

    def reach(self, behind: int) -> int:
        """The sources' elements have to pass this window."""
        return self._window

    def flow(self, run: Run, windows: Windows) -> Flow:
        """The elements, in order."""
        items = in_order(run, self.sources[0], self._window)
        return Flow(items if run.reach(self) else unmarked(items), True)


def in_order(run: Run, source: Stage[Any], size: int) -> Iterator[Item]:
    """The elements of *source* in order, marks and all, with at most *size* of them under way."""
    window = run.window(size)
    flow = run.pull(source, [window])
    return flow.items if flow.is_ordered else reorder(flow.items, window)


def _held_back(children: Iterator[Item], turnstile: TicketLock, ticket: int, limit: int) -> Generator[Item]:
    """*children* when it is the turn of *ticket*; at most *limit* of them are made before."""
    early: list[Item] = []
    while not turnstile.is_turn(ticket) and len(early) < limit and (child := next(children, None)) is not None:
        early.append(child)
    turnstile.wait(ticket)
    yield from early
    yield from children
