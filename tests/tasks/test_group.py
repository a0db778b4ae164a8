"""`Group`: a block that waits for the members started in it, and cancels them when one fails."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import gevent
import polars as pl
import pytest

import greendata
from greendata.errors import BadEngine, JobAborted, UnknownArgument
from greendata.hub.result import Result
from greendata.pool.job import on_submit
from greendata.pool.pool import submit
from greendata.tasks.group import Group
from tests.support.failures import Careful, fail, forever, raised, until_running
from tests.support.frames import gated
from tests.support.gates import Gate

tenant: ContextVar[str] = ContextVar("tenant")


# -- leaving waits for all ----------------------------------------------------------------------------


def test_leaving_waits_for_greenlets_jobs_and_queries(hub_alive: Gate) -> None:
    with Group() as group:
        job = group.run(hub_alive, 42)
        greenlet = group.spawn(lambda *words, sep: sep.join(words), "a", "b", sep="-")
        query = group.collect(pl.LazyFrame({"a": [1, 2]}).sum(), engine="streaming")
    assert (job.ready(), greenlet.ready(), query.ready()) == (True, True, True)
    assert (job.get(), greenlet.get(), query.get().item()) == (42, "a-b", 3)
    assert group.pending == ()


def test_a_query_of_a_group_takes_the_arguments_of_collect(held: Gate) -> None:
    with Group() as group:
        named = group.collect(gated(held), engine="streaming", label="report", key="tenant", timeout=60)
        flags = group.collect(pl.LazyFrame({"a": [1]}), optimizations=pl.QueryOptFlags.none())
        with pytest.raises(BadEngine):
            group.collect(pl.LazyFrame(), engine="warp")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="unexpected keyword argument 'enigne'"):
            group.collect(pl.LazyFrame(), enigne="streaming")  # type: ignore[call-arg]
        held.open()
    assert named.label == "report"
    assert flags.get().item() == 1


def test_an_unknown_keyword_suggests_the_nearest() -> None:
    with pytest.raises(
        UnknownArgument, match=r"^Group\(\) got .* 'on_eror'; did you mean 'on_error'\? It takes timeout, "
    ):
        Group(on_eror="collect")  # type: ignore[call-arg]


def test_an_empty_group_is_left_at_once() -> None:
    with Group(timeout=60):
        pass


def test_a_member_may_start_another_while_the_block_is_being_left() -> None:
    seen: list[int] = []

    def descend(depth: int) -> None:
        seen.append(depth)
        gevent.sleep(0.001)
        if depth:
            group.spawn(descend, depth - 1)

    with Group() as group:
        group.spawn(descend, 5)
    assert seen == [5, 4, 3, 2, 1, 0]


def test_results_from_elsewhere_can_be_members(held: Gate) -> None:
    greenlet = gevent.spawn(held.open)
    with Group() as group:
        job = group.add(submit(held, 1))
        group.add(greenlet)
    assert job.ready()
    assert greenlet.dead


def test_a_removed_member_is_not_waited_for(held: Gate) -> None:
    with Group() as group:
        job = group.run(held)
        assert group.remove(job)
        assert not group.remove(job)
    assert not job.ready()
    held.open()
    job.get()


def test_a_member_removed_while_the_block_waits_for_it_alone(held: Gate) -> None:
    with Group() as group:
        job = group.run(held)
        gevent.spawn(group.remove, job)
    assert not job.ready()
    held.open()
    job.get()


def test_context_variables_reach_the_members() -> None:
    token = tenant.set("acme")
    try:
        with Group() as group:
            found = [group.spawn(tenant.get), group.run(tenant.get)]
    finally:
        tenant.reset(token)
    assert [result.get() for result in found] == ["acme", "acme"]


def test_ten_thousand_members_end_well_and_badly() -> None:
    with Group() as group:
        good = [group.spawn(int, number) for number in range(10_000)]
    assert [result.get() for result in good] == list(range(10_000))
    with raised() as caught, Group() as group:
        idle = [group.spawn(forever) for _ in range(10_000)]
        group.spawn(fail, ValueError("one"))
    assert [str(error) for error in caught.value.exceptions] == ["one"]
    assert all(result.cancelled() for result in idle)


# -- failures -----------------------------------------------------------------------------------------


def test_a_failure_cancels_the_rest_and_raises_the_original(held: Gate) -> None:
    original = ValueError("original")
    original.__cause__ = KeyError("cause")
    with raised() as caught, Group() as group:
        idle = group.spawn(forever)
        native = group.run(held)
        held.wait_arrived()
        group.spawn(fail, original)
    assert caught.value.exceptions == (original,)
    assert caught.value.exceptions[0] is original
    assert isinstance(original.__cause__, KeyError)
    assert idle.cancelled()
    assert native.cancelled()
    assert "another member failed" in str(idle.exception)
    assert group.abandoned == (native,)
    held.open()
    native.end().get(timeout=30)
    assert group.abandoned == ()


def test_a_failure_interrupts_the_block() -> None:
    reached = []
    with raised() as caught, Group() as group:
        group.spawn(fail, ValueError("member"))
        forever()
        reached.append("the line after")
    assert reached == []
    assert [str(error) for error in caught.value.exceptions] == ["member"]


def test_a_failure_that_the_block_saw_first_is_raised_once() -> None:
    with raised() as caught, Group() as group:
        group.run(fail, ValueError("once")).get()
    assert [str(error) for error in caught.value.exceptions] == ["once"]


def test_a_greenlet_that_fails_with_a_cancelled_job_is_a_failure(held: Gate, hub_errors: list[str]) -> None:
    job = submit(held)
    with raised() as caught, Group() as group:
        group.add(gevent.spawn(job.get))
        job.cancel("by somebody else")
        forever()
    assert [str(error) for error in caught.value.exceptions] == [str(job.exception)]
    assert "by somebody else" in hub_errors.pop()  # gevent prints the error of every failed greenlet
    held.open()


def test_a_greenlet_that_ends_with_a_base_exception_is_a_failure_too(hub_errors: list[str]) -> None:
    own = gevent.Timeout(None)
    with raised() as caught, Group() as group:
        greenlet = group.add(gevent.spawn(fail, own))
        forever()
    (error,) = caught.value.exceptions
    assert isinstance(error, JobAborted)
    assert error.__cause__ is own
    assert greenlet.name in str(error)
    hub_errors.clear()


def test_collecting_lets_the_others_continue_and_raises_all() -> None:
    with raised() as caught, Group(on_error="collect") as group:
        group.spawn(fail, ValueError("a"))
        group.run(fail, KeyError("b"))
        good = group.spawn(lambda: gevent.sleep(0.001) or "done")
    assert good.get() == "done"
    assert {type(error) for error in caught.value.exceptions} == {ValueError, KeyError}


def test_an_error_in_the_block_cancels_the_members() -> None:
    with raised() as caught, Group() as group:
        idle = group.spawn(forever)
        gevent.sleep(0.001)
        raise LookupError("block")
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert idle.cancelled()
    assert "the block failed" in str(idle.exception)


def test_a_base_exception_passes_through() -> None:
    idle: list[Result[None]] = []
    stop = gevent.Timeout(0.001)
    with raised(gevent.Timeout) as caught, stop, Group() as group:
        idle.append(group.spawn(forever))
        forever()
    assert caught.value is stop
    assert idle[0].cancelled()


def test_a_killed_waiter_cancels_its_members() -> None:
    idle: list[Result[None]] = []

    def work() -> None:
        with Group() as group:
            idle.append(group.spawn(forever))

    worker = gevent.spawn(work)
    gevent.idle()
    until_running(idle[0])
    worker.kill()
    assert idle[0].cancelled()
    assert isinstance(worker.value, gevent.GreenletExit)


def test_killed_greenlets_clean_up_before_the_block_is_left() -> None:
    careful = Careful()
    with raised(), Group() as group:
        group.spawn(careful)
        gevent.sleep(0.001)
        group.spawn(fail, ValueError())
    assert len(careful.cleaned_in) == 1


# -- adoption -----------------------------------------------------------------------------------------


def test_a_group_adopts_what_its_context_submits(held: Gate) -> None:
    def in_a_greenlet() -> None:
        submit(held, "greenlet")

    def on_a_worker() -> None:
        submit(int, "7")

    with Group(adopt=True) as group:
        submit(held, "block")
        group.spawn(in_a_greenlet)
        submit(on_a_worker)
        held.wait_arrived(2)
        labels = sorted(result.label for result in group.pending)
        held.open()
    assert labels.count("Gate") == 2
    assert "5 done" in repr(group)


def test_a_failure_of_a_job_that_a_member_left_behind_is_raised() -> None:
    def careless() -> None:
        submit(fail, ValueError("nobody looks"))

    for group in (Group(adopt=True), Group(adopt=True)):
        with raised() as caught, group:
            group.spawn(careless)
        assert [str(error) for error in caught.value.exceptions] == ["nobody looks"]


def test_a_failure_of_a_nested_job_is_raised() -> None:
    def careless() -> None:
        submit(fail, ValueError("inline"))

    with raised() as caught, Group(adopt=True):
        submit(careless)
    assert [str(error) for error in caught.value.exceptions] == ["inline"]


def test_without_adoption_only_members_count(held: Gate) -> None:
    with Group():
        job = submit(held)
    assert not job.ready()
    held.open()
    job.get()


def test_after_the_block_nothing_is_adopted(held: Gate) -> None:
    with Group(adopt=True) as group:
        pass
    job = submit(held)
    assert group.pending == ()
    held.open()
    job.get()


# -- results that are submitted in the block ------------------------------------------------------------


def test_an_outer_request_registers_results_and_an_outer_group_does_not() -> None:
    registered: list[Any] = []
    token = on_submit.set(registered.append)
    try:
        with greendata.Group(adopt=True), greendata.Group(adopt=True, on_error="collect", label="inner") as inner:
            results = [greendata.run(int), inner.run(int), inner.spawn(int)]
        assert on_submit.get() == registered.append
    finally:
        on_submit.reset(token)
    assert set(results) <= set(registered)


def test_a_failure_handled_inside_does_not_reach_the_outer_group() -> None:
    with greendata.Group(adopt=True) as outer:
        with pytest.raises(ExceptionGroup, match="inner: 1 failure"), greendata.Group(adopt=True, label="inner"):
            greendata.run(int, "x")
        assert greendata.run(int).get() == 0
    assert outer.pending == ()
