"""`Caller.queue_call` and `Caller.service`: calls that never overlap, and functions that run until they are stopped."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from greendata import JobCancelled
from greendata.errors import ServiceEnded
from greendata.tasks.caller import Caller, Service
from tests.support.failures import fail, forever, raised, until_running

# -- queues -------------------------------------------------------------------------------------------


def test_queued_calls_of_a_function_never_overlap(caller: Caller) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> int:
        inside.append(number)
        most.append(len(inside))
        gevent.sleep(0)
        inside.remove(number)
        return number

    calls = [caller.queue_call(work, number) for number in range(50)]
    assert [call.get() for call in calls] == list(range(50))
    assert max(most) == 1


def test_queues_of_different_functions_run_side_by_side(caller: Caller) -> None:
    leave = Event()
    first = caller.queue_call(leave.wait)
    assert caller.queue_call(int).get() == 0
    leave.set()
    first.get()


class Same:
    """A callable with the same hash as all others, and equal to them."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def __call__(self, leave: Event) -> bool:
        return leave.wait()

    def method(self, leave: Event) -> bool:
        return leave.wait()


def test_queues_are_distinguished_by_identity(caller: Caller) -> None:
    leave, now = Event(), Event()
    now.set()
    one, two = Same(), Same()
    held = [caller.queue_call(one, leave), caller.queue_call(one.method, leave)]
    assert caller.queue_call(two, now).get() is True
    assert caller.queue_call(two.method, now).get() is True
    behind = caller.queue_call(one.method, now)
    queue = caller.queue_get(one.method)
    assert queue is caller.queue_get(one.method)
    assert queue is not None
    assert len(queue) == 2
    assert not behind.ready()
    leave.set()
    for call in (*held, behind):
        call.get()


def test_a_queue_continues_after_a_failure_and_a_cancellation(caller: Caller) -> None:
    def work(step: Callable[[], object]) -> object:
        return step()

    calls = [caller.queue_call(work, step) for step in (lambda: fail(ValueError("x")), forever, forever, int)]
    until_running(calls[1])
    calls[2].cancel()
    calls[1].cancel()
    assert calls[3].get() == 0
    assert isinstance(calls[0].exception, ValueError)


def test_closing_and_reopening_never_runs_two_at_once(caller: Caller) -> None:
    leave = Event()
    running: list[str] = []

    def work(name: str) -> None:
        running.append(name)
        leave.wait()
        running.remove(name)

    first, second = caller.queue_call(work, "first"), caller.queue_call(work, "second")
    until_running(first)
    assert caller.queue_close(work)
    with pytest.raises(JobCancelled, match="its queue was closed"):
        second.get()
    third = caller.queue_call(work, "third")
    gevent.sleep(0.001)
    assert running == ["first"]
    leave.set()
    third.get()
    first.get()
    third.end().get()
    gevent.idle()
    assert caller.queue_get(work) is None
    assert not caller.queue_close(work)


# -- services -----------------------------------------------------------------------------------------


def serve(service: Service[str], log: list[str]) -> str:
    log.append("started")
    service.started.set()
    service.stopping.wait()
    log.append("stopping")
    return "stopped"


def test_a_service_starts_stops_and_has_an_outcome(caller: Caller) -> None:
    log: list[str] = []
    with caller.service(serve, log) as service:
        assert log == ["started"]
        assert not service.stopped.ready()
    assert log == ["started", "stopping"]
    assert service.stop().get() == "stopped"


def test_a_service_that_returns_early_is_an_error(caller: Caller) -> None:
    def quit_early(service: Service[int]) -> int:
        service.started.set()
        return 7

    with raised(ServiceEnded) as caught, caller.service(quit_early):
        gevent.sleep(0.001)
    assert "service quit_early returned 7 before it was asked to stop" in str(caught.value)
    with pytest.raises(ServiceEnded):
        caller.service(lambda _: None).started.get()


def test_a_service_that_fails_before_it_started_fails_its_start(caller: Caller) -> None:
    error = ValueError("no port")
    service = caller.service(lambda _: fail(error))
    with pytest.raises(ValueError, match="no port") as caught, service:
        pytest.fail("the block of a service that never started")
    assert caught.value is error
    assert service.stopped.exception is error


def test_a_service_that_is_stopped_before_it_started(caller: Caller) -> None:
    service = caller.service(lambda service: service.stopping.wait())
    assert service.stop().get() is None
    with pytest.raises(JobCancelled, match="the service ended before"):
        service.started.get()


def test_stopping_the_caller_stops_services_first(caller: Caller) -> None:
    log: list[str] = []
    service = caller.service(serve, log)
    idle = caller.call_soon(forever)
    service.started.get()
    caller.stop().get()
    assert log == ["started", "stopping"]
    assert service.stopped.get() == "stopped"
    assert "stops" in str(idle.exception)
