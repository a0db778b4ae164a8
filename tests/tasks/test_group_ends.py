"""How a `Group` ends: cancelled, out of time, nested, shielded; and wrong use."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import polars as pl
import pytest

from greendata import DeadlineExceeded, GreenDataError, JobCancelled, NotAFrame, NotCallable, deadline
from greendata.errors import (
    BadChoice,
    BadTimeout,
    ForeignGreenlet,
    GroupClosed,
    GroupTimeout,
    NotAResult,
    WaitsForItself,
)
from greendata.hub import native
from greendata.hub.result import Result
from greendata.pool.pool import submit
from greendata.tasks.caller import Caller
from greendata.tasks.group import Group
from greendata.tasks.task import current_job
from greendata.tasks.waiting import shield
from tests.support.failures import Careful, fail, forever, raised, until_running
from tests.support.frames import gated
from tests.support.gates import Gate
from tests.support.natives import TIMEOUTS

# -- cancellation of members: the modes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_cancel", "others", "raised"),
    [("ignore", "done", False), ("stop", "cancelled", False), ("cancel", "cancelled", True), ("collect", "done", True)],
)
def test_a_cancelled_member(on_cancel: str, others: str, raised: bool) -> None:  # noqa: FBT001
    group = Group(on_cancel=on_cancel)  # type: ignore[arg-type]
    errors: list[BaseException] = []
    try:
        with group:
            other = group.spawn(forever if others == "cancelled" else gevent.sleep, *[0.01] * (others == "done"))
            group.spawn(forever).cancel("not needed")
    except ExceptionGroup as found:
        errors.extend(found.exceptions)
    assert other.status == others
    assert [type(error) for error in errors] == ([JobCancelled] if raised else [])


def test_cancel_ends_the_group_quietly() -> None:
    with Group() as group:
        idle = group.spawn(forever)
        group.cancel("enough")
        forever()
    assert "enough" in str(idle.exception)


def test_a_call_of_a_caller_is_a_member_until_its_greenlet_is_dead() -> None:
    careful = Careful()
    with Caller.new() as side:
        with Group() as group:
            until_running(group.add(side.call_soon(careful)))
            group.cancel()
        assert careful.cleaned_in == [side.id]


def test_two_threads_that_cancel_at_once_interrupt_the_block_once() -> None:
    careful = Careful()
    with Group() as group:
        group.cancel()
        group._entry_queue.post(lambda: group._cancel_members(""))  # as if two threads had both found the group open
        careful()
    assert len(careful.cleaned_in) == 1


# -- timeouts -----------------------------------------------------------------------------------------


def test_a_timeout_cancels_raises_and_names_the_survivors(held: Gate) -> None:
    for timeout in TIMEOUTS:
        with raised(GroupTimeout) as caught, Group(timeout=timeout, label="load") as group:
            native = group.run(held, label="native-call")
            idle = group.spawn(forever)
        if caught.value.survivors:
            break
    assert caught.value.survivors == (native,)
    assert str(caught.value).startswith(f"load was not done within {timeout:g} second")
    assert "1 cannot be stopped and continues: native-call" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    assert native.cancelled()
    assert idle.cancelled()
    held.open()


def test_a_timeout_interrupts_the_block() -> None:
    with pytest.raises(GroupTimeout, match="none of them continues"), Group(timeout=0.001):
        forever()


def test_a_timeout_names_a_greenlet_that_does_not_end() -> None:
    leave = gevent.event.Event()

    def stubborn() -> None:
        while not leave.is_set():
            try:
                leave.wait()
            except gevent.GreenletExit:
                continue

    with raised(GroupTimeout) as caught, Group(timeout=0.001, grace=0.01) as group:
        member = group.spawn(stubborn)
    assert caught.value.survivors == (member,)
    assert not member.end().ready()
    leave.set()
    member.end().get(timeout=30)


def test_a_deadline_around_the_block_holds_for_every_member(held: Gate) -> None:
    with deadline(0.05), raised() as caught, Group(on_error="collect") as group:
        late = {group.run(held), group.spawn(forever), group.collect(gated(held))}
        with deadline(60):
            late.add(group.spawn(forever))
    assert {type(error) for error in caught.value.exceptions} == {DeadlineExceeded}
    assert len(caught.value.exceptions) == len(late) == 4
    held.open()


def test_a_timeout_keeps_the_failures_as_its_cause(held: Gate) -> None:
    with raised(GroupTimeout) as caught, Group(timeout=0.05, on_error="collect") as group:
        group.spawn(fail, ValueError("before"))
        group.spawn(forever)
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert [str(error) for error in caught.value.__cause__.exceptions] == ["before"]
    held.open()


# -- nesting and shields ------------------------------------------------------------------------------


def test_a_nested_failure_comes_out_nested() -> None:
    def inner() -> None:
        with Group(label="inner") as group:
            group.spawn(fail, ValueError("deep"))
            group.spawn(forever)

    with raised() as caught, Group(label="outer") as outer:
        idle = outer.spawn(forever)
        outer.spawn(inner)
    assert caught.value.subgroup(ValueError) is not None
    assert [type(error) for error in caught.value.exceptions] == [ExceptionGroup]
    assert idle.cancelled()


def test_the_end_of_the_outer_group_ends_the_inner_group() -> None:
    idle: list[Result[None]] = []
    with raised() as caught, Group() as outer, Group() as inner:
        idle.append(inner.spawn(forever))
        gevent.sleep(0.001)
        outer.spawn(fail, ValueError("outer"))
    assert [str(error) for error in caught.value.exceptions] == ["outer"]
    assert idle[0].cancelled()


def test_a_shielded_group_finishes_before_it_lets_the_interruption_through() -> None:
    done: list[Result[str]] = []
    with raised() as caught, Group() as outer, Group(shield=True) as inner:
        done.append(inner.spawn(lambda: gevent.sleep(0.02) or "whole"))
        outer.spawn(lambda: gevent.sleep(0.001) or fail(ValueError("outer")))
    assert done[0].get() == "whole"
    assert [str(error) for error in caught.value.exceptions] == ["outer"]


def test_a_shield_keeps_the_work_from_the_group(held: Gate) -> None:
    job = submit(held, "kept")
    with raised(), Group() as group:
        member = group.add(shield(job))
        group.spawn(fail, ValueError())
    assert member.cancelled()
    assert not job.ready()
    held.open()
    assert job.get() == "kept"


# -- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [-1, float("nan"), "2", True])
def test_bad_timeouts(timeout: object) -> None:
    with pytest.raises(BadTimeout):
        Group(timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(BadTimeout):
        Group(grace=timeout)  # type: ignore[arg-type]


def test_bad_choices() -> None:
    with pytest.raises(BadChoice, match=r"on_error must be 'cancel' or 'collect', got 'ignore'"):
        Group(on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(BadChoice, match=r"on_cancel must be 'ignore', 'stop', 'cancel' or 'collect', got 1"):
        Group(on_cancel=1)  # type: ignore[arg-type]


def test_a_group_that_was_left_takes_no_members() -> None:
    with Group(label="old") as group:
        pass
    uses: list[Callable[[], object]] = [
        lambda: group.spawn(int),
        lambda: group.run(int),
        lambda: group.collect(pl.LazyFrame()),
        lambda: group.add(Result()),
        group.__enter__,
    ]
    for use in uses:
        with pytest.raises(GroupClosed, match="old was"):
            use()
    group.cancel()


def test_a_group_that_was_not_entered_takes_no_members() -> None:
    with pytest.raises(GroupClosed, match="was not entered and takes no members"):
        Group().spawn(int)
    with pytest.raises(GroupClosed):
        Group().cancel()


def test_a_group_that_is_being_cancelled_takes_no_members() -> None:
    late: Result[int] = Result("late")
    with Group() as group:
        group.cancel()
        with pytest.raises(GroupClosed, match="is being cancelled"):
            group.spawn(int)
        with pytest.raises(GroupClosed):
            group.add(late)
    assert late.cancelled()


def test_a_late_worker_leaves_killing_a_greenlet_to_the_hub() -> None:
    careful = Careful()
    late = gevent.spawn(careful)
    gevent.idle()
    with Group() as group:
        pass
    with pytest.raises(GroupClosed):
        submit(group.add, late).get()
    late.join()
    assert careful.cleaned_in == [native.get_ident()]


def test_greenlets_of_another_thread_are_rejected() -> None:
    with Caller.new() as side:
        foreign = side.call_soon(gevent.spawn, forever).get()
        with (
            Group() as group,
            pytest.raises(ForeignGreenlet, match=r"belongs to another thread; start it with Caller\.call_soon"),
        ):
            group.add(foreign)
        side.call_soon(foreign.kill).get()


def test_another_thread_may_add_a_greenlet_of_the_groups_own() -> None:
    greenlet = gevent.spawn(lambda: gevent.sleep(0.001) or "done")
    with Group() as group:
        assert submit(group.add, greenlet).get() is greenlet
    assert greenlet.value == "done"


def test_the_greenlet_of_the_block_is_rejected() -> None:
    def work() -> str:
        with Group() as group, pytest.raises(WaitsForItself):
            group.add(gevent.getcurrent())  # type: ignore[type-var]
        return "left"

    assert gevent.spawn(work).get() == "left"


def test_other_objects_are_rejected() -> None:
    with raised() as caught, Group(on_error="collect") as group:
        with pytest.raises(NotCallable):
            group.spawn(3)  # type: ignore[arg-type]
        with pytest.raises(NotCallable):
            group.run(None)  # type: ignore[arg-type]
        with pytest.raises(NotAFrame):
            group.collect(3)
        with pytest.raises(NotAResult):
            group.add(3)  # type: ignore[type-var]
        group.spawn(lambda: group.add(current_job()))  # type: ignore[type-var]
    assert [type(error) for error in caught.value.exceptions] == [WaitsForItself]
    assert all(isinstance(error, GreenDataError) for error in caught.value.exceptions)


def test_a_kill_replaces_an_earlier_timeout(held: Gate) -> None:
    went_on: list[str] = []

    def block() -> None:
        with gevent.Timeout(0.001, False), Group(shield=True) as group:
            group.run(held)
        went_on.append("went on")

    greenlet = gevent.spawn(block)
    held.wait_arrived()
    gevent.sleep(0.01)  # the timeout is raised, and the shielded group continues to wait
    greenlet.kill(block=False)
    gevent.sleep(0)
    held.open()
    greenlet.join()
    assert went_on == []
