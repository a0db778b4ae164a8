"""Property tests of pipelines: order, no element lost or duplicated, limits on reading ahead."""

from __future__ import annotations

import gc
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greendata.pipelines import stages
from greendata.pipelines.run import workers
from greendata.pipelines.stages import Stage

EXAMPLES = 60  # a pipeline with native stages takes a millisecond for each element


class Spoilt(Exception):
    """The error that the functions below raise."""


def jumble(x: int) -> None:
    """Let elements overtake each other: some wait for one or two iterations of the hub."""
    for _ in range(x % 3):
        gevent.sleep(0)


@dataclass(frozen=True)
class Link:
    """A stage and its equivalent in plain Python."""

    kind: str
    on: Any
    workers: int
    maxsize: int
    spoils: int = 0  # every element at a multiple of this raises; 0: none

    def func(self, x: int) -> Any:
        if self.on == "greenlet":
            jumble(x)
        if self.spoils and x % self.spoils == self.spoils - 1:
            raise Spoilt(x)
        return {"map": x * 3 + 1, "filter": x % 4, "flat_map": range(x % 3)}[self.kind]

    def stage(self, source: Any, on_error: Any = "raise") -> Stage[int]:
        make: Callable[..., Stage[int]] = getattr(stages, self.kind)
        return make(self.func, source, on=self.on, workers=self.workers, maxsize=self.maxsize, on_error=on_error)

    def plain(self, source: Iterable[int], *, skips: bool = False) -> Iterator[int]:
        for x in source:
            if self.spoils and x % self.spoils == self.spoils - 1:
                if skips:
                    continue
                raise Spoilt(x)
            if self.kind == "map":
                yield x * 3 + 1
            elif self.kind == "filter":
                yield from [x] if x % 4 else []
            else:
                yield from range(x % 3)


links = st.builds(
    Link,
    kind=st.sampled_from(["map", "filter", "flat_map"]),
    on=st.sampled_from(["greenlet", "native", "inline"]),
    workers=st.integers(1, 4),
    maxsize=st.integers(0, 3),
)
spoilt_links = st.builds(replace, links, spoils=st.sampled_from([0, 3, 5, 40]))
chains = st.lists(links, min_size=1, max_size=4)
spoilt_chains = st.lists(spoilt_links, min_size=1, max_size=3)
ends = st.lists(links.filter(lambda link: link.kind == "map"), min_size=1, max_size=3)
sources = st.lists(st.integers(0, 100), max_size=30)
windows = st.integers(1, 8)


def build(chain: list[Link], source: Any, on_error: Any = "raise") -> Stage[int]:
    for link in chain:
        source = link.stage(source, on_error)
    return source


def plain(chain: list[Link], source: Iterable[int], *, skips: bool = False) -> Iterator[int]:
    for link in chain:
        source = link.plain(source, skips=skips)
    return iter(source)


def until_error(values: Iterable[int]) -> tuple[list[int], str]:
    got: list[int] = []
    try:
        for value in values:
            got.append(value)  # noqa: PERF402 - what came before the error counts
    except Spoilt as error:
        return got, str(error)
    return got, ""


@given(chains, sources, windows)
@settings(max_examples=EXAMPLES)
def test_ordered_equals_plain_python(chain: list[Link], source: list[int], window: int) -> None:
    assert list(stages.ordered(build(chain, source), window=window)) == list(plain(chain, source))


@given(chains, chains, sources, windows)
@settings(max_examples=EXAMPLES)
def test_stages_behind_ordered_keep_the_law(a: list[Link], b: list[Link], source: list[int], window: int) -> None:
    first = stages.ordered(build(a, source), window=window)
    assert list(stages.ordered(build(b, first), window=window)) == list(plain([*a, *b], source))


@given(spoilt_chains, sources, windows)
@settings(max_examples=EXAMPLES)
def test_ordered_equals_plain_python_up_to_the_error(chain: list[Link], source: list[int], window: int) -> None:
    if len(chain) > 1 and any(link.spoils for link in chain[1:]):
        chain = [chain[0], *(Link(link.kind, link.on, link.workers, link.maxsize) for link in chain[1:])]
    assert until_error(stages.ordered(build(chain, source), window=window)) == until_error(plain(chain, source))
    assert not workers()


@given(spoilt_chains, sources)
@settings(max_examples=EXAMPLES)
def test_nothing_is_lost_or_doubled_but_what_the_policy_names(chain: list[Link], source: list[int]) -> None:
    assert Counter(build(chain, source, "skip")) == Counter(plain(chain, source, skips=True))
    assert list(stages.ordered(build(chain, source, "skip"))) == list(plain(chain, source, skips=True))


@given(spoilt_chains, sources)
@settings(max_examples=EXAMPLES)
def test_the_elements_before_an_error_are_part_of_the_result(chain: list[Link], source: list[int]) -> None:
    got, error = until_error(build(chain, source))
    whole = Counter(plain(chain, source, skips=True))
    assert Counter(got) <= whole
    assert bool(error) == bool(until_error(plain(chain, source))[1])
    assert not workers()


@given(chains, sources, st.integers(0, 5))
@settings(max_examples=EXAMPLES)
def test_the_elements_before_an_early_close_are_part_of_the_result(
    chain: list[Link], source: list[int], count: int
) -> None:
    with stages.to_iterable(build(chain, source)) as stream:
        got = list(itertools.islice(stream, count))
    whole = Counter(plain(chain, source))
    assert Counter(got) <= whole
    assert len(got) == min(count, whole.total())
    assert not workers()


@given(st.sampled_from(["close", "break", "kill", "collect", "error"]), ends, st.integers(0, 5), windows)
@settings(max_examples=EXAMPLES)
def test_whatever_ends_a_run_every_worker_is_gone_and_done(
    end: str, chain: list[Link], count: int, window: int
) -> None:
    started, done = Counter[int](), Counter[int]()
    source: Any = itertools.count()
    for number, link in enumerate(chain):
        source = stages.map(
            link.func,
            source,
            on=link.on,
            workers=link.workers,
            maxsize=link.maxsize or 1,
            on_start=partial(started.update, [number]),
            on_done=partial(done.update, [number]),
        )
    ENDS[end](stages.ordered(source, window=window), count)
    gevent.idle()
    while workers() or done.total() < started.total():  # native workers end later
        gevent.idle()
    assert done == started
    assert all(started[number] <= link.workers for number, link in enumerate(chain))


def close_early(stage: Stage[int], count: int) -> None:
    with stages.to_iterable(stage) as stream:
        assert len(list(itertools.islice(stream, count))) == count


def break_off(stage: Stage[int], count: int) -> None:
    for number, _ in enumerate(stage):
        if number >= count:
            break


def kill_consumer(stage: Stage[int], count: int) -> None:
    reached = gevent.event.Event()

    def consume() -> None:
        for number, _ in enumerate(stage):
            if number >= count:
                reached.set()

    consumer = gevent.spawn(consume)
    reached.wait()
    consumer.kill()


def drop_in_a_cycle(stage: Stage[int], count: int) -> None:
    cycle: list[Any] = [iter(stage)]
    cycle.append(cycle)
    list(itertools.islice(cycle[0], count))
    del cycle
    gc.collect()


def fail_late(stage: Stage[int], count: int) -> None:
    seen = itertools.count()
    with pytest.raises(ZeroDivisionError):
        stages.map(lambda _: 1 // (count - next(seen)), stage).run()


ENDS: dict[str, Callable[[Stage[int], int], None]] = {
    "close": close_early,
    "break": break_off,
    "kill": kill_consumer,
    "collect": drop_in_a_cycle,
    "error": fail_late,
}


@given(chains, chains, sources, windows)
@settings(max_examples=EXAMPLES)
def test_branches_of_a_shared_stage_come_together(a: list[Link], b: list[Link], source: list[int], window: int) -> None:
    shared = stages.map(lambda x: x, source, workers=2, maxsize=1)
    both = stages.concat([build(a, shared), build(b, shared)], maxsize=1)
    whole = Counter([*plain(a, source), *plain(b, source)])
    assert Counter(both) == whole
    assert Counter(stages.ordered(both, window=window)) == whole


@given(st.lists(sources, max_size=3), windows)
@settings(max_examples=EXAMPLES)
def test_concat_in_order_takes_turns(several: list[list[int]], window: int) -> None:
    mapped = [stages.map(lambda x: jumble(x) or x, source, workers=3) for source in several]
    turns = [x for turn in itertools.zip_longest(*several) for x in turn if x is not None]
    assert list(stages.ordered(stages.concat(mapped), window=window)) == turns


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=EXAMPLES)
def test_no_stage_runs_ahead_by_more_than_its_bound(first: int, second: int, maxsize: int) -> None:
    read, calls, later = itertools.count(), Counter[str](), Counter[str]()

    def call(name: str, behind: str, ahead: int, x: int) -> int:
        calls[name] += 1
        assert calls[name] - later[behind] <= ahead
        jumble(x)
        return x

    def a(x: int) -> int:
        return call("a", "b", maxsize + first, x)

    def b(x: int) -> int:
        later["b"] += 1
        return call("b", "consumer", maxsize + second, x)

    chain = stages.map(a, workers=first, maxsize=maxsize) | stages.map(b, workers=second, maxsize=maxsize)
    with stages.to_iterable(read | chain) as stream:
        for _ in itertools.islice(stream, 50):
            later["consumer"] += 1
            jumble(later["consumer"])
        for _ in range(5):
            gevent.idle()
        assert calls["b"] <= 50 + maxsize + second
        assert calls["a"] <= calls["b"] + maxsize + first
        assert next(read) <= calls["a"] + maxsize + 1


@given(chains, windows)
@settings(max_examples=EXAMPLES)
def test_ordered_keeps_within_its_window(chain: list[Link], window: int) -> None:
    """While the first element is held, no more than a window of the source is read and kept."""
    chain = [link for link in chain if link.kind == "map"]
    door = gevent.event.Event()
    read = itertools.count()
    held = stages.map(lambda x: x if x else x * door.wait(), read, workers=3, maxsize=2)
    with stages.to_iterable(stages.ordered(build(chain, held), window=window)) as stream:
        first = gevent.spawn(next, stream)
        for _ in range(10):
            gevent.idle()
        assert not first.ready()
        assert next(read) <= window + 1
        door.set()
        assert first.get() == next(plain(chain, [0]))


@pytest.mark.parametrize("workers", [1, 4])
def test_an_endless_child_streams_through_ordered(workers: int) -> None:
    endless = stages.flat_map(itertools.count, range(9), workers=workers)
    chain = endless | stages.map(lambda x: jumble(x) or x, workers=workers) | stages.ordered(window=4)
    assert list(itertools.islice(chain, 500)) == list(range(500))


@pytest.mark.parametrize("on", ["greenlet", "inline"])
def test_a_branch_without_elements_does_not_block_the_others(on: Any) -> None:
    shared = stages.map(lambda x: x, range(200), workers=2, maxsize=1)
    nothing = stages.flat_map(lambda x: (), shared, workers=2, maxsize=1, on=on)
    both = stages.concat([nothing, stages.map(lambda x: x, shared, workers=2, maxsize=1)])
    assert list(stages.ordered(both, window=2)) == list(range(200))
