"""`Caller` across threads: how callers are found, calls from any thread, new threads, children, and stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import gevent
import polars as pl
import pytest

from greendata import BadTimeout, JobCancelled, collect
from greendata.errors import BadSetting, CallerStopped, NoCaller
from greendata.hub import native
from greendata.hub.result import Result
from greendata.pool.pool import submit
from greendata.tasks.caller import Caller
from tests.support.failures import fail, forever, until_running
from tests.support.gates import Gate
from tests.support.natives import in_a_plain_thread

tenant: ContextVar[str] = ContextVar("tenant")


@pytest.fixture
def side() -> Iterator[Caller]:
    """A caller with a new thread, which is stopped after the test."""
    side = Caller.new(name="side")
    yield side
    side.stop().get(timeout=60)


@pytest.fixture
def current() -> Iterator[Caller]:
    """The caller of this thread, which is stopped after the test."""
    current = Caller.current()
    yield current
    current.stop().get(timeout=60)


# -- finding callers ----------------------------------------------------------------------------------------


def test_there_is_one_caller_a_thread(current: Caller, side: Caller) -> None:
    assert Caller.current() is current
    assert Caller.main() is current
    assert current.id == native.get_ident()
    assert side.call_soon(Caller.current).get() is side
    assert side.call_soon(Caller.main).get() is current
    assert side.call_soon(native.get_ident).get() == side.id
    assert Caller.get(side.id) is side
    assert Caller.get(0) is None
    assert set(Caller.all()) == {current, side}


def test_a_new_thread_has_the_name_of_the_caller(side: Caller) -> None:
    assert side.name == "side"
    assert side.call_soon(native.this_thread_name).get() in ("side", "")
    assert "side" in repr(side)
    assert side.call_soon(gevent.get_hub).get() is not gevent.get_hub()


def test_workers_have_no_caller() -> None:
    with pytest.raises(NoCaller, match=r"no hub runs in a worker thread; call Caller.current\(\) on the hub's thread"):
        submit(Caller.current).get()


def test_the_main_threads_caller_must_have_been_made() -> None:
    with Caller.new() as other, pytest.raises(NoCaller, match="the main thread has no caller yet"):
        other.call_soon(Caller.main).get()


# -- from any thread ----------------------------------------------------------------------------------


def test_a_worker_calls_the_hub_and_waits_for_the_answer(current: Caller) -> None:
    def work() -> list[object]:
        answers = [
            current.call_soon(gevent.get_hub),
            current.call_direct(gevent.get_hub),
            current.queue_call(gevent.get_hub),
        ]
        return [answer.get(timeout=60) for answer in answers]

    assert submit(work).get() == [gevent.get_hub()] * 3


def test_a_function_inside_a_query_calls_the_hub(current: Caller) -> None:
    seen: list[int] = []

    def report(value: int) -> int:
        current.call_soon(seen.append, value).get(timeout=60)
        return value * 10

    lf = pl.LazyFrame({"a": [1, 2, 3]}).select(pl.col("a").map_elements(report, return_dtype=pl.Int64))
    assert collect(lf).get().to_series().to_list() == [10, 20, 30]
    assert sorted(seen) == [1, 2, 3]


def test_a_thousand_calls_from_another_thread_end_in_order(current: Caller) -> None:
    order: list[int] = []

    def work() -> None:
        kinds: list[Callable[..., Result[None]]] = [current.call_soon, current.call_direct, current.queue_call]
        calls = [kinds[number % 3](order.append, number) for number in range(1000)]
        for call in calls:
            call.get(timeout=60)

    submit(work).get()
    assert order == list(range(1000))


def test_calls_from_many_threads_all_arrive(side: Caller) -> None:
    totals: dict[int, int] = {}

    def add(source: int) -> None:
        totals[source] = totals.get(source, 0) + 1

    def work(source: int) -> None:
        for call in [side.call_soon(add, source) for _ in range(250)]:
            call.get(timeout=60)

    for job in [submit(work, source) for source in range(8)]:
        job.get()
    assert totals == dict.fromkeys(range(8), 250)


def test_the_context_crosses_threads(side: Caller) -> None:
    token = tenant.set("acme")
    try:
        calls = [side.call_soon(tenant.get), side.call_direct(tenant.get), side.call_later(0, tenant.get)]
    finally:
        tenant.reset(token)
    assert [call.get() for call in calls] == ["acme"] * 3


def test_errors_cross_threads(side: Caller) -> None:
    error = ValueError("there")
    with pytest.raises(ValueError, match="there") as caught:
        side.call_soon(fail, error).get()
    assert caught.value is error


def test_a_call_is_cancelled_from_another_thread(side: Caller) -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            forever()
        finally:
            ended.append("killed")

    call = side.call_soon(work)
    until_running(call)
    assert call.cancel("from afar")
    with pytest.raises(JobCancelled, match="from afar"):
        call.get()
    call.end().get(timeout=60)
    assert ended == ["killed"]


def test_a_call_waits_for_native_work_without_blocking_its_thread(side: Caller, held: Gate) -> None:
    first = side.call_soon(lambda: submit(held, 1).get())
    held.wait_arrived()
    assert side.call_soon(int).get() == 0
    held.open()
    assert first.get() == 1


def test_a_plain_thread_calls_and_waits(current: Caller) -> None:
    assert in_a_plain_thread(lambda: current.call_soon(native.get_ident).get(timeout=60)) == native.get_ident()


# -- new threads, and how they end -----------------------------------------------------------


def test_children_are_found_by_name_and_stop_with_their_parent(side: Caller) -> None:
    child = side.child("child")
    grandchild = child.child("grandchild")
    assert side.child("child") is child
    assert side.children == (child,)
    assert (child.parent, grandchild.parent) == (side, child)
    assert len({side.id, child.id, grandchild.id}) == 3
    calls = [caller.call_soon(forever) for caller in (side, child, grandchild)]
    side.stop().get(timeout=60)
    assert all(caller.stopped.ready() for caller in (side, child, grandchild))
    assert all(call.cancelled() for call in calls)
    assert not {side, child, grandchild} & set(Caller.all())


def test_concurrent_greenlets_get_the_same_child(side: Caller) -> None:
    found = [gevent.spawn(side.child, "one") for _ in range(5)]
    assert len({greenlet.get() for greenlet in found}) == 1


def test_a_child_that_is_stopped_while_it_starts(side: Caller) -> None:
    asking = gevent.spawn(side.child, "child")
    gevent.idle()
    side.stop().get(timeout=60)
    child = asking.get(timeout=60)
    child.stopped.get(timeout=60)
    with pytest.raises(CallerStopped):
        child.call_soon(int)


def test_a_stopped_child_is_replaced(side: Caller) -> None:
    child = side.child("child")
    child.stop().get(timeout=60)
    assert side.children == ()
    assert side.child("child") is not child


def test_the_last_user_stops_it() -> None:
    side = Caller.new()
    with side:
        with side:
            pass
        assert side.call_soon(int).get() == 0
    assert side.stopped.ready()
    with pytest.raises(CallerStopped):
        side.call_soon(int)


def test_a_call_may_be_the_last_user_of_its_own_caller() -> None:
    side = Caller.new()

    def work() -> None:
        with side:
            pass

    side.call_soon(work).wait(timeout=60)
    side.stopped.get(timeout=60)


def test_an_idle_caller_stops_and_a_used_one_does_not() -> None:
    used = soon_idle(Caller.__enter__)
    with used:
        Caller.new(idle_after=0.1).stopped.get(timeout=60)
        assert used.call_soon(int).get() == 0
    assert not used.is_stopped
    used.__exit__(None, None, None)
    assert used.stopped.ready()


def test_a_busy_caller_is_not_idle(current: Caller) -> None:
    leave = gevent.event.Event()
    busy = soon_idle(lambda caller: caller.call_soon(lambda: current.call_soon(leave.wait).get()))
    Caller.new(idle_after=0.1).stopped.get(timeout=60)
    assert not busy.is_stopped
    leave.set()
    busy.stopped.get(timeout=60)


def soon_idle(use: Callable[[Caller], object]) -> Caller:
    """Return a caller that will soon be idle unless *use* keeps it busy."""
    while True:
        caller = Caller.new(idle_after=0.02)
        with suppress(CallerStopped):  # idle already, on a slow machine
            use(caller)
            return caller


def test_a_child_keeps_its_idle_parent() -> None:
    parent = soon_idle(lambda caller: caller.child("child"))
    Caller.new(idle_after=0.1).stopped.get(timeout=60)
    assert not parent.is_stopped
    parent.child("child").stop().get(timeout=60)
    parent.stopped.get(timeout=60)


def test_stopping_does_not_wait_for_greenlets_that_refuse_to_end() -> None:
    side = Caller.new()
    gate = Gate()

    def stubborn() -> None:
        while not gate.is_open:
            try:
                gevent.sleep(3600)
            except gevent.GreenletExit:
                continue

    call = side.call_soon(stubborn)
    until_running(call)
    side.stop(grace=0.01).get(timeout=60)
    assert call.cancelled()
    gate.open()


def test_a_stopped_thread_leaves_no_descriptor(keeps_descriptors: Callable[[], Any]) -> None:
    Caller.new().stop().get(timeout=60)
    with keeps_descriptors():
        for _ in range(5):
            with Caller.new() as side:
                side.child("child").call_soon(gevent.sleep, 0).get()


def test_a_caller_whose_thread_has_ended_rejects_calls() -> None:
    orphan = in_a_plain_thread(Caller.current)
    while orphan in Caller.all():  # the thread ends a moment after it has returned its caller
        gevent.sleep(0.001)
    with pytest.raises(CallerStopped):
        orphan.call_soon(int)
    orphan.stop().get(timeout=60)


def test_a_thread_that_ends_fails_its_pending_calls() -> None:
    def work() -> tuple[Caller, Caller, list[Result[Any]]]:
        caller = Caller.current()
        child = caller.child("child")
        service = caller.service(lambda service: service.stopping.wait())
        return caller, child, [caller.call_soon(int), caller.call_later(3600, int), service.started, service.stopped]

    caller, child, lost = in_a_plain_thread(work)
    for result in lost:
        with pytest.raises(CallerStopped):
            result.get(timeout=60)
        result.end().get(timeout=60)
    caller.stopped.get(timeout=60)
    child.stopped.get(timeout=60)


def test_a_caller_whose_hub_was_destroyed_rejects_calls() -> None:
    def destroy() -> Caller:
        caller = Caller.current()
        gevent.get_hub().destroy(destroy_loop=True)
        with pytest.raises(CallerStopped):
            caller.call_soon(int)
        return caller

    assert in_a_plain_thread(destroy).is_stopped


# -- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", 3, b"bytes"])
def test_names_are_checked(side: Caller, name: Any) -> None:
    with pytest.raises(BadSetting, match="name must be"):
        Caller.new(name)
    with pytest.raises(BadSetting, match="name must be"):
        side.child(name)


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1"])
def test_idle_times_are_checked(side: Caller, seconds: Any) -> None:
    with pytest.raises(BadTimeout):
        Caller.new(idle_after=seconds)
    with pytest.raises(BadTimeout):
        side.child("new", idle_after=seconds)
    with pytest.raises(BadTimeout):
        side.stop(grace=seconds)
    assert side.children == ()
    assert not side.is_stopped
