"""The kinds of stages: sources, functions over elements, concatenation, and ordering."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from functools import partial
from itertools import islice
from typing import Any, Literal

from gevent import Timeout

from greendata.errors import NotIterable
from greendata.errors.notes import note
from greendata.errors.plural import counted
from greendata.hub.checks import checked_count
from greendata.pipelines.call_policy import NATIVE_RUN, CallPolicy
from greendata.pipelines.channel import Channel, TicketLock, clock
from greendata.pipelines.element import Item, Placeholder, SequenceNumber, path_of
from greendata.pipelines.injection import StageStatus, WorkerInfo
from greendata.pipelines.order import merge, reorder, without_placeholders
from greendata.pipelines.progress import bar_class, with_progress_bar
from greendata.pipelines.run import Flow, Run, Windows
from greendata.pipelines.stage import Stage
from greendata.pool import pool

__all__ = ("Concat", "FunctionStage", "Kind", "Ordered", "Source", "as_stage", "in_order")

Kind = Literal["map", "filter", "flat_map", "each"]


_DROPPED = Placeholder()


def as_stage(source: Any, maxsize: int) -> Stage[Any]:
    """Return *source* as a stage.

    Raises:
        NotIterable: *source* is neither a stage nor an iterable.
    """
    return source if isinstance(source, Stage) else Source(source, maxsize)


class Source(Stage[Any]):
    """The elements of an iterable."""

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
        """The length of the iterable, or None if it has no length."""
        return len(self._iterable) if isinstance(self._iterable, Sized) else None

    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return the elements, in order."""
        return Flow(self._read(), True)

    def _read(self) -> Iterator[Item]:
        index = -1
        try:
            values = self._iterable if self._on == "greenlet" else self._read_natively()
            for item in enumerate(values):
                index = item[0]
                yield item
        except (Exception, Timeout) as error:
            note(error, f"raised by the source, after {counted(index + 1, 'element')}")
            raise

    def _read_natively(self) -> Iterator[Any]:
        iterator = pool.call(iter, self._iterable)
        while run := pool.call(list, islice(iterator, NATIVE_RUN)):
            yield from run


class FunctionStage(Stage[Any]):
    """A function that is called for each element, by the workers of this stage or inline."""

    def __init__(
        self, kind: Kind, policy: CallPolicy, source: Stage[Any], *, workers: int, maxsize: int, progress: str | None
    ) -> None:
        super().__init__(policy.label, maxsize, (source,))
        self._kind = kind
        self._policy = policy
        self._workers = 1 if policy.on == "inline" else checked_count("workers", workers)
        self._progress = progress
        if progress is not None:
            bar_class()  # raises ImportError now and not during the run

    @property
    def expected(self) -> int | None:
        """The number of elements of the source, if this stage maps them one to one."""
        return self.sources[0].expected if self._kind == "map" else None

    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return the elements; they are out of order unless they are made inline."""
        if self._policy.on == "inline":
            flow = self._flow_inline(run, windows)
        else:
            channel = run.channel(self.maxsize)
            self._start_workers(run, channel, windows)
            flow = Flow(channel.drain(), False)
        return flow if self._progress is None else self._counted(flow)

    def feed(self, run: Run, channel: Channel, windows: Windows) -> None:
        """Have the workers, or a feeder, put the elements into *channel*."""
        if self._policy.on == "inline" or self._progress is not None:
            super().feed(run, channel, windows)
        else:
            self._start_workers(run, channel, windows)

    def _counted(self, flow: Flow) -> Flow:
        assert self._progress is not None
        return Flow(with_progress_bar(flow.items, self._progress, self.expected), flow.is_ordered)

    def _flow_inline(self, run: Run, windows: Windows) -> Flow:
        if self._kind == "flat_map" and run.downstream_window(self):
            items, is_ordered = in_order(run, self.sources[0], run.downstream_window(self)), True
        else:
            items, is_ordered = run.pull(self.sources[0], windows)
        return Flow(run.keep(self._process(run, items, WorkerInfo(0), StageStatus(1))), is_ordered)

    def _start_workers(self, run: Run, channel: Channel, windows: Windows) -> None:
        inbox = run.channel(self.maxsize)
        status = StageStatus(self._workers)
        channel.join(self._workers)
        if self._kind == "flat_map" and run.downstream_window(self):
            flow = Flow(in_order(run, self.sources[0], run.downstream_window(self)), True)
            run.spawn_feeder(flow, inbox, [], numbers=False)
            work: Callable[..., None] = partial(self._work_in_order, run.ticket_lock(), [0], windows)
        else:
            run.push(self.sources[0], inbox, windows)
            work = self._work
        for number in range(self._workers):
            run.spawn(work, run, inbox, channel, WorkerInfo(number), status)

    def _work(self, run: Run, inbox: Channel, channel: Channel, info: WorkerInfo, status: StageStatus) -> None:
        run.move(self._process(run, inbox.drain(), info, status), channel)

    def _process(self, run: Run, items: Iterator[Item], info: WorkerInfo, status: StageStatus) -> Iterator[Item]:
        with self._policy.worker_scope(info, status) as call:
            if self._kind == "flat_map":
                yield from self._expand(run, call, items)
            else:
                yield from self._apply(run, self._policy.bound(call), items)

    def _apply(self, run: Run, call: Callable[..., Any], items: Iterator[Item]) -> Iterator[Item]:
        """Yield the results of map, filter and each. Every element goes through this loop, so it is kept fast."""
        handle_error, wants_index, timer = self._policy.handle_error, self._policy.wants_index, run.yield_timer
        maps, filters, keeps_placeholders = (
            self._kind == "map",
            self._kind == "filter",
            bool(run.downstream_window(self)),
        )
        for item in items:
            index, value = item
            if keeps_placeholders and value.__class__ is Placeholder:
                yield item
                continue
            placeholder = None
            try:
                result = call(value, element_index=path_of(index)) if wants_index else call(value)
            except (Exception, Timeout) as error:  # noqa: BLE001 - the policy decides
                placeholder = (
                    handle_error(run.checked_timeout(error), index, value, deferred=keeps_placeholders) or _DROPPED
                )
            if placeholder is not None:
                if keeps_placeholders:
                    yield index, placeholder
            elif maps:
                yield index, result
            elif filters and result:
                yield item
            elif keeps_placeholders:
                yield index, _DROPPED
            if clock() >= timer.due:  # checked here too: there may be no output, or no later stage that checks
                timer.yield_now()

    def _expand(self, run: Run, call: Callable[..., Any], items: Iterator[Item]) -> Iterator[Item]:
        placeholders = bool(run.downstream_window(self))
        for item in items:
            if not isinstance(item[1], Placeholder):
                yield from self._children(run, call, item, placeholders=placeholders)
            elif placeholders:
                yield item
            if clock() >= run.yield_timer.due:
                run.yield_timer.yield_now()

    def _children(self, run: Run, call: Callable[..., Any], item: Item, *, placeholders: bool) -> Iterator[Item]:
        """Yield the items that the function makes of one element.

        With *placeholders* at least one item is yielded, so that the later elements need not wait for this one.
        """
        index, value = item
        path, number = path_of(index), 0
        injected = {"element_index": path} if self._policy.wants_index else {}
        try:
            for child in self._policy.children(call, value, **injected):
                yield (*path, number), child
                number += 1
        except (Exception, Timeout) as error:  # noqa: BLE001 - the policy decides
            placeholder = self._policy.handle_error(run.checked_timeout(error), index, value, deferred=placeholders)
            if placeholder is not None:
                yield (*path, number), placeholder
                return
        if placeholders and not number:
            yield path, _DROPPED

    def _work_in_order(
        self,
        ticket_lock: TicketLock,
        count: list[int],
        windows: Windows,
        run: Run,
        inbox: Channel,
        channel: Channel,
        info: WorkerInfo,
        status: StageStatus,
    ) -> None:
        """Process elements concurrently, and put the results out in input order, numbered without gaps."""
        with self._policy.worker_scope(info, status) as call:
            for item in inbox.drain():
                ticket = ticket_lock.draw()
                children = (
                    iter((item,))
                    if isinstance(item[1], Placeholder)
                    else self._children(run, call, item, placeholders=True)
                )
                for index, value in _in_turn(children, ticket_lock, ticket, run.downstream_window(self)):
                    for window in windows:
                        window.admit(count[0])
                    channel.put((SequenceNumber(count[0], path_of(index)), value))
                    count[0] += 1
                ticket_lock.advance()
                if clock() >= run.yield_timer.due:
                    run.yield_timer.yield_now()
        channel.leave()


class Concat(Stage[Any]):
    """The elements of several stages as they arrive, or sorted by index if a later stage needs order."""

    def __init__(self, sources: Iterable[Stage[Any]], maxsize: int) -> None:
        super().__init__("concat", maxsize, tuple(sources))

    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return the elements of all sources."""
        if size := run.downstream_window(self):
            return Flow(merge([in_order(run, source, size) for source in self.sources]), True)
        channel = run.channel(self.maxsize)
        self.feed(run, channel, windows)
        return Flow(channel.drain(), False)

    def feed(self, run: Run, channel: Channel, windows: Windows) -> None:
        """Have the elements of all sources put into *channel*."""
        if run.downstream_window(self):
            super().feed(run, channel, windows)
            return
        channel.join()
        for source in self.sources:
            run.push(source, channel, windows)
        channel.leave()


class Ordered(Stage[Any]):
    """The elements in the order of the source, with a limit on how many are in progress."""

    def __init__(self, source: Stage[Any], window: int) -> None:
        super().__init__("ordered", window, (source,))
        self._window = window

    @property
    def expected(self) -> int | None:
        """The number of elements of the source, or None if it is not known."""
        return self.sources[0].expected

    def upstream_window(self, downstream: int) -> int:
        """Return the window of this stage: the elements of its source have to pass it."""
        return self._window

    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return the elements, in order."""
        items = in_order(run, self.sources[0], self._window)
        return Flow(items if run.downstream_window(self) else without_placeholders(items), True)


def in_order(run: Run, source: Stage[Any], size: int) -> Iterator[Item]:
    """Return the elements of *source* in order, placeholders included, with at most *size* of them in progress."""
    window = run.window(size)
    flow = run.pull(source, [window])
    return flow.items if flow.is_ordered else reorder(flow.items, window)


def _in_turn(children: Iterator[Item], ticket_lock: TicketLock, ticket: int, limit: int) -> Generator[Item]:
    """Yield *children* when it is the turn of *ticket*; compute at most *limit* of them before."""
    early: list[Item] = []
    while not ticket_lock.is_turn(ticket) and len(early) < limit and (child := next(children, None)) is not None:
        early.append(child)
    ticket_lock.wait(ticket)
    yield from early
    yield from children
