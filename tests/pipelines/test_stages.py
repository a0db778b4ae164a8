"""Pipelines: names and keywords, the pipe operator, sharing, injection, and combinations of all kinds of stages."""

from __future__ import annotations

import itertools
import sys
from contextvars import ContextVar
from typing import Any

import gevent
import pytest
from gevent.event import Event

import greendata
from greendata.pipelines import stages
from greendata.pipelines.stages import Element, Stage, StageStatus, WorkerInfo
from tests.support.gates import Gate

PLACES = ("greenlet", "native", "inline")

every_place = pytest.mark.parametrize("on", PLACES)


def test_each_stage_function_has_its_documented_result() -> None:
    assert sorted(stages.map(abs, [-1, -2], workers=2)) == [1, 2]
    assert sorted(stages.filter(bool, [0, 1, 2], workers=2)) == [1, 2]
    assert sorted(stages.flat_map(range, [1, 2], workers=2)) == [0, 0, 1]
    assert list(stages.from_iterable("ab")) == ["a", "b"]
    assert list(stages.from_iterable("ab", on="native")) == ["a", "b"]
    assert list(stages.ordered(stages.map(abs, [-1, -2], workers=2))) == [1, 2]
    assert sorted(stages.concat([[1], stages.map(abs, [-2]), (3,)])) == [1, 2, 3]
    assert list(stages.concat([])) == []


def test_each_and_run_are_for_side_effects() -> None:
    seen: list[int] = []
    assert list(stages.each(seen.append, [1, 2])) == []
    assert stages.each(seen.append, [3], run=True) is None
    stages.run(stages.each(seen.append, [4]), stages.each(seen.append, [5]))
    stages.each(seen.append, [6]).run()
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]


def test_to_iterable_returns_the_index_on_request() -> None:
    indexed = stages.to_iterable(stages.flat_map(lambda n: "ab"[:n], [2, 0, 1]), return_index=True)
    assert list(indexed) == [Element((0, 0), "a"), Element((0, 1), "b"), Element((2, 0), "a")]
    assert list(stages.to_iterable([7], return_index=True)) == [Element((0,), 7)]


def test_partials_and_the_pipe() -> None:
    chain = stages.map(lambda x: x + 1) | stages.filter(lambda x: x % 2) | stages.ordered()
    assert list(range(5) | chain) == [1, 3, 5]
    assert list(chain(range(5))) == [1, 3, 5]
    assert (iter("ab") | stages.map(str.upper) | list) == ["A", "B"]
    assert stages.map(str.upper, "ab") | stages.flat_map(lambda c: c * 2) | "".join == "AABB"


def test_a_stage_is_lazy_and_can_be_iterated_again() -> None:
    calls: list[int] = []
    stage = stages.map(calls.append, [1, 2])
    streams = iter(stage), iter(stage)
    assert not calls
    assert [list(stream) for stream in streams] == [[None, None]] * 2
    assert calls == [1, 2, 1, 2]


def test_a_shared_stage_runs_once_for_all_its_branches() -> None:
    calls: list[int] = []
    shared = stages.map(lambda x: calls.append(x) or x, range(50), workers=3)
    plus, minus = stages.map(lambda x: x, shared), stages.map(lambda x: -x, shared)
    assert sorted(stages.concat([plus, minus])) == sorted([*range(50), *range(0, -50, -1)])
    assert sorted(calls) == list(range(50))
    assert sorted(stages.concat([shared, shared])) == sorted([*range(50)] * 2)


def test_concat_loses_no_element_of_the_slower_source() -> None:
    door = Event()
    slow = stages.map(lambda x: door.wait() and x, range(5))
    fast = stages.map(lambda x: x, range(100, 105))
    stream = iter(stages.concat([slow, fast], maxsize=1))
    assert [next(stream) for _ in range(5)] == [100, 101, 102, 103, 104]
    door.set()
    assert list(stream) == [0, 1, 2, 3, 4]


@every_place
def test_arguments_are_injected_by_name(on: Any) -> None:
    ended: list[tuple[int, str, bool]] = []

    def begin(worker_info: WorkerInfo) -> dict[str, object]:
        return {"session": f"session {worker_info.index}"}

    def work(value: str, element_index: tuple[int, ...], session: str, worker_info: WorkerInfo) -> tuple[Any, ...]:
        return value, element_index, session == f"session {worker_info.index}"

    def end(session: str, stage_status: StageStatus) -> None:
        ended.append((stage_status.active_workers, session, stage_status.done))

    stage = stages.map(work, "ab", on_start=begin, on_done=end, workers=2, on=on)
    assert sorted(stage) == [("a", (0,), True), ("b", (1,), True)]
    assert len(ended) == (1 if on == "inline" else 2)
    assert sorted(left for left, _, _ in ended) == list(range(len(ended)))
    assert [done for left, _, done in ended if not left] == [True]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before Python 3.14 an annotation must exist at run time")
def test_what_is_asked_for_by_name_is_injected_though_annotations_exist_for_type_checkers_only() -> None:
    names: dict[str, Any] = {}
    source = (
        "def work(x: Some, element_index: Other) -> More: return x, element_index\ndef end(stage_status: Some): pass"
    )
    exec(compile(source, "<functions>", "exec", dont_inherit=True), names)
    assert list(stages.map(names["work"], "a", on_done=names["end"])) == [("a", (0,))]


def test_the_element_index_is_the_path_through_every_flat_map() -> None:
    chain = stages.flat_map(range, [1, 2]) | stages.map(lambda x, element_index: element_index, workers=2)
    assert sorted(chain) == [(0, 0), (1, 0), (1, 1)]
    assert list(stages.ordered(chain)) == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize(("first", "second"), [*itertools.product(PLACES, PLACES)])
def test_every_pair_of_places_chained_and_ordered_equals_the_input(first: Any, second: Any) -> None:
    chain = stages.map(lambda x: -x, workers=3, maxsize=2, on=first) | stages.map(abs, workers=3, on=second)
    assert list(range(100) | chain | stages.ordered(window=7)) == list(range(100))


@every_place
def test_context_variables_reach_every_function(on: Any) -> None:
    name: ContextVar[str] = ContextVar("name")
    name.set("outer")
    seen: list[str] = []

    def look(*_: object) -> None:
        seen.append(name.get())

    stages.map(look, "ab", workers=2, on=on, on_start=look, on_done=look).run()
    assert set(seen) == {"outer"}
    assert len(seen) == 2 + 2 * (1 if on == "inline" else 2)


def test_native_functions_leave_the_hub_alone(hub_alive: Gate) -> None:
    assert list(stages.map(hub_alive, [1, 2], on="native")) == [1, 2]
    assert stages.flat_map(lambda x: iter([hub_alive(x)]), [3], on="native").get() == [3]


def test_workers_bound_the_native_calls_at_once(held: Gate) -> None:
    result = stages.map(held, range(10), workers=2, on="native").submit()
    held.wait_arrived(2)
    gevent.idle()
    assert greendata.stats().running + greendata.stats().queued == 2
    held.open()
    assert sorted(result.get()) == list(range(10))


def test_get_gives_the_list_and_submit_a_result() -> None:
    stage = stages.map(abs, [-1, 2])
    assert stage.get() == [1, 2]
    assert stage.get(timeout=60) == [1, 2]
    result = stage.submit()
    assert isinstance(result, greendata.Result)
    assert result.get() == [1, 2]
    with pytest.raises(greendata.ResultTimeout):
        stage.get(block=False)


def test_get_ends_the_run_at_the_timeout() -> None:
    ended: list[str] = []
    stage = stages.map(lambda _: Event().wait(), [1], on_done=lambda: ended.append("done"))
    with pytest.raises(greendata.ResultTimeout):
        stage.get(timeout=0.001)
    gevent.idle()
    assert ended == ["done"]


def test_stages_work_on_a_worker_of_the_pool() -> None:
    chain: Stage[int] = stages.map(abs, [-1, -2], workers=2)
    assert sorted(greendata.run(list, chain).get()) == [1, 2]
