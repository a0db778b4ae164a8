"""`Caller` on one thread: calls of every kind, in order, with their context; queues; services; bad input."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

import gevent
import pytest
from gevent.event import Event

from greendata import (
    BadTimeout,
    DeadlineExceeded,
    JobAborted,
    JobCancelled,
    NotCallable,
    ResultTimeout,
    configure,
    deadline,
)
from greendata.errors import CallerStopped
from greendata.hub.result import Result
from greendata.pool.pool import stats, submit
from greendata.tasks.caller import Caller
from greendata.tasks.task import current_job
from tests.support.failures import fail, forever, raised, until_running
from tests.support.frames import one_worker
from tests.support.gates import Gate

tenant: ContextVar[str] = ContextVar("tenant")


# -- calls --------------------------------------------------------------------------------------------


def test_call_soon_runs_in_a_greenlet_of_the_hub(caller: Caller) -> None:
    def where(*args: int, **kwargs: int) -> tuple[object, ...]:
        gevent.sleep(0)
        return gevent.get_hub(), args, kwargs

    assert caller.call_soon(where, 1, b=2).get() == (gevent.get_hub(), (1,), {"b": 2})


def test_call_direct_runs_in_the_hub_itself(caller: Caller) -> None:
    assert caller.call_direct(gevent.getcurrent).get() is gevent.get_hub()
    with pytest.raises(Exception, match="blocking"):
        caller.call_direct(gevent.sleep, 1).get()


def test_call_later_runs_after_the_delay(caller: Caller) -> None:
    order: list[float] = []
    late, soon, now = (caller.call_later(seconds, order.append, seconds) for seconds in (3600, 0.001, 0))
    now.get()
    soon.get()
    assert sorted(order) == [0, 0.001]
    assert not late.ready()
    late.cancel()


def test_a_thousand_interleaved_calls_end_in_order(caller: Caller) -> None:
    order: list[int] = []
    kinds: list[Callable[..., Result[None]]] = [
        caller.call_soon,
        caller.call_direct,
        caller.queue_call,
        lambda func, number: caller.schedule_call(func, (number,)),
    ]
    calls = [kinds[number % 4](order.append, number) for number in range(1000)]
    assert order == []
    for call in calls:
        call.get()
    assert order == list(range(1000))


def test_context_variables_are_copied_and_readable(caller: Caller) -> None:
    token = tenant.set("acme")
    try:
        call = caller.call_soon(lambda: (tenant.get(), tenant.set("other")))
        direct = caller.call_direct(tenant.get)
        job = caller.to_thread(tenant.get)
    finally:
        tenant.reset(token)
    assert call.get()[0] == direct.get() == job.get() == "acme"
    assert call.context[tenant] == "other"
    assert tenant.get("none") == "none"


def test_a_context_of_choice_and_metadata(caller: Caller) -> None:
    context = copy_context()
    context.run(tenant.set, "chosen")
    call = caller.schedule_call(tenant.get, (), {}, context, request=7, user="x")
    assert call.metadata == {"request": 7, "user": "x"}
    assert call.get() == "chosen"
    assert call.context is not context
    assert caller.call_soon(int).metadata == {}


def test_to_thread_uses_the_one_pool(caller: Caller, make_gate: Callable[[], Gate]) -> None:
    most = configure().max_workers
    held = make_gate()
    jobs = [caller.to_thread(held) for _ in range(60)]
    held.wait_arrived(most)
    assert (stats().running, stats().queued) == (most, 60 - most)
    held.open()
    for job in jobs:
        job.get()
    assert len(set(held.arrived)) <= most


def test_a_worker_with_an_abandoned_job_gets_no_other_job(caller: Caller, held: Gate) -> None:
    with one_worker():
        late = caller.to_thread(held)
        held.wait_arrived()
        with pytest.raises(ResultTimeout):
            late.get(timeout=0)
        late.cancel()
        following = caller.to_thread(lambda: held.is_open)
        gevent.idle()
        assert not following.ready()
        held.open()
        assert following.get() is True


def test_the_current_job_is_known(caller: Caller) -> None:
    assert current_job() is None
    call, direct, job = caller.call_soon(current_job), caller.call_direct(current_job), submit(current_job)
    assert (call.get(), direct.get(), job.get()) == (call, direct, job)
    assert current_job() is None
    nested = submit(lambda: submit(current_job).get())
    assert nested.get() is nested


# -- errors and cancellation --------------------------------------------------------------------------


def test_errors_keep_traceback_and_cause(caller: Caller) -> None:
    def work() -> None:
        try:
            fail(KeyError("cause"))
        except KeyError as cause:
            raise ValueError("original") from cause

    for call in (caller.call_soon(work), caller.call_direct(work)):
        with pytest.raises(ValueError, match="original") as caught:
            call.get()
        assert isinstance(caught.value.__cause__, KeyError)
        assert [entry.name for entry in caught.traceback][-1] == "work"


@pytest.mark.parametrize("error", [SystemExit(3), gevent.Timeout(), GeneratorExit()])
def test_a_base_exception_is_wrapped(caller: Caller, error: BaseException) -> None:
    with pytest.raises(JobAborted) as caught:
        caller.call_soon(fail, error).get()
    assert caught.value.__cause__ is error


def test_ctrl_c_in_a_call_reaches_the_program(caller: Caller) -> None:
    with raised(KeyboardInterrupt):
        caller.call_soon(fail, KeyboardInterrupt())
        forever()


def test_cancel_kills_the_greenlet_and_gives_the_reason(caller: Caller) -> None:
    cleaned = Event()

    def work() -> None:
        try:
            forever()
        finally:
            cleaned.set()

    call = caller.call_soon(work)
    until_running(call)
    assert call.cancel("not needed")
    assert not call.cancel("again")
    with pytest.raises(JobCancelled) as caught:
        call.get()
    assert str(caught.value) == "work was cancelled while it ran: not needed"
    assert cleaned.wait(60)


def test_a_cancelled_call_that_has_not_begun_never_runs(caller: Caller) -> None:
    ran: list[str] = []
    calls = [
        caller.call_soon(ran.append, "soon"),
        caller.call_direct(ran.append, "direct"),
        caller.call_later(0, ran.append, "later"),
    ]
    for call in calls:
        call.cancel()
    caller.call_later(0.001, int).get()
    assert ran == []
    assert str(calls[0].exception) == "append was cancelled before it began"


def test_cancel_wait_waits_for_the_real_end(caller: Caller, held: Gate) -> None:
    steps: list[str] = []

    def work() -> None:
        try:
            forever()
        finally:
            gevent.sleep(0.001)
            steps.append("cleaned up")

    call = caller.call_soon(work)
    until_running(call)
    assert call.cancel_wait("done with it")
    assert steps == ["cleaned up"]
    assert not call.cancel_wait()
    job = submit(held)
    held.wait_arrived()
    with pytest.raises(ResultTimeout):
        job.cancel_wait(timeout=0)
    assert job.cancelled()
    held.open()
    assert not job.cancel_wait(timeout=60)


def test_one_waiters_timeout_cancels_nothing(caller: Caller) -> None:
    leave = Event()
    call = caller.call_soon(leave.wait)
    with pytest.raises(ResultTimeout):
        call.get(timeout=0.001)
    waiter = gevent.spawn(call.get)
    gevent.idle()
    waiter.kill()
    assert not call.ready()
    leave.set()
    assert call.get() is True


def test_a_deadline_around_the_call_holds(caller: Caller) -> None:
    with deadline(0.001):
        call = caller.call_soon(forever)
        with deadline(60):
            inner = caller.call_soon(forever)
    for late in (call, inner):
        with pytest.raises(DeadlineExceeded, match=r"forever (was still running|had not begun) at the deadline"):
            late.get()
        late.end().get(timeout=60)


def test_a_deadline_around_a_call_that_waits_for_its_turn_holds(caller: Caller) -> None:
    leave, ran = Event(), list[str]()

    def work(name: str) -> None:
        ran.append(name)
        leave.wait()

    first = caller.queue_call(work, "first")
    with deadline(0.001):
        waiting = [caller.queue_call(work, "second"), caller.call_later(3600, work, "later")]
    for call in waiting:
        with pytest.raises(DeadlineExceeded, match="work had not begun"):
            call.get()
        call.end().get(timeout=60)
    leave.set()
    first.get()
    assert ran == ["first"]


def test_a_deadline_that_is_never_reached_changes_nothing(caller: Caller) -> None:
    for seconds in (1e300, float("inf")):
        with deadline(seconds):
            assert caller.call_soon(int).get() == 0
            assert caller.queue_call(int).get() == 0
        caller.call_later(seconds, forever).cancel()


def test_first_set_wins_and_links_can_be_removed(caller: Caller) -> None:
    notified: list[object] = []
    call = caller.call_soon(forever)
    call.rawlink(notified.append)
    call.rawlink(fail)
    call.unlink(fail)
    call.set("mine")  # type: ignore[arg-type]
    call.set("late")  # type: ignore[arg-type]
    assert call.get() == "mine"
    call.end().get(timeout=60)
    assert notified == [call]


def test_errors_of_links_keep_their_traceback_and_stop_no_other_link(caller: Caller, hub_errors: list[str]) -> None:
    def broken_link(_: object) -> None:
        fail(LookupError("in a link"))

    notified: list[object] = []
    call = caller.call_soon(int)
    call.rawlink(broken_link)
    call.rawlink(notified.append)
    assert call.get() == 0
    gevent.idle()
    assert notified == [call]
    printed = hub_errors.pop()
    assert "in broken_link" in printed
    assert "LookupError: in a link" in printed


def test_calls_are_weakly_referable_and_leave_no_cycle(caller: Caller) -> None:
    gc.disable()
    try:
        call = caller.call_soon(int)
        call.get()
        gone = weakref.ref(call)
        call.end().get(timeout=60)
        del call
        assert gone() is None
    finally:
        gc.enable()


# -- bad input ----------------------------------------------------------------------------------------


def test_only_callables_are_called(caller: Caller) -> None:
    uses: list[Callable[[Any], object]] = [
        caller.call_soon,
        caller.call_direct,
        lambda func: caller.call_later(0, func),
        caller.schedule_call,
        caller.to_thread,
        caller.queue_call,
        caller.service,
    ]
    for use in uses:
        with pytest.raises(NotCallable):
            use("print")


@pytest.mark.parametrize("delay", [-1, float("nan"), None, "1"])
def test_delays_are_checked_at_the_call(caller: Caller, delay: Any) -> None:
    with pytest.raises(BadTimeout):
        caller.call_later(delay, int)


def test_a_stopped_caller_refuses_every_call(caller: Caller) -> None:
    caller.stop().get()
    uses: list[Callable[[], object]] = [
        lambda: caller.call_soon(int),
        lambda: caller.call_direct(int),
        lambda: caller.call_later(0, int),
        lambda: caller.schedule_call(int),
        lambda: caller.to_thread(int),
        lambda: caller.queue_call(int),
        lambda: caller.service(int),
        lambda: caller.child("late"),
        caller.__enter__,
    ]
    for use in uses:
        with pytest.raises(CallerStopped, match="is stopped, or its hub is gone"):
            use()
    assert Caller.current() is not caller
    Caller.current().stop().get()
