"""`as_completed`: each result when it is ready, from a container or from a generator that submits on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gevent
import pytest
from gevent.event import Event

from greendata.errors import BadSetting, NotAResult, WaitsForItself
from greendata.hub.result import Result
from greendata.pool.pool import submit
from greendata.tasks.group import Group
from greendata.tasks.task import current_job
from greendata.tasks.waiting import as_completed
from tests.support.failures import fail, forever
from tests.support.gates import Gate
from tests.support.natives import Native, get_ident, in_a_plain_thread

MakeGate = Callable[[], Gate]


class Noted(gevent.Greenlet):
    """A greenlet that records in which thread it is killed."""

    def kill(self, *args: Any, **options: Any) -> None:
        killed_in.append(get_ident())
        super().kill(*args, **options)


killed_in: list[int] = []


def test_an_iterator_closed_in_another_thread_kills_greenlets_in_their_own() -> None:
    """Its finalizer runs in the thread in which the garbage collector runs."""
    sleeping = Noted.spawn(gevent.sleep, 60)
    stream = as_completed([submit(int), sleeping], cancel_unfinished=True)
    next(stream)
    Native(stream.close).join()  # type: ignore[attr-defined]
    sleeping.join()
    assert killed_in == [get_ident()]
    killed_in.clear()


def test_results_come_in_the_order_of_their_completion(make_gate: MakeGate) -> None:
    gates = [make_gate() for _ in range(3)]
    jobs = [submit(gate, number) for number, gate in enumerate(gates)]
    completed = as_completed(jobs)
    for number in (2, 0, 1):
        gates[number].open()
        assert next(completed).get() == number
    assert next(completed, None) is None


def test_failures_and_cancellations_arrive_too(held: Gate) -> None:
    cancelled, failed = submit(held), submit(fail, ValueError())
    cancelled.cancel()
    assert set(as_completed([cancelled, failed])) == {cancelled, failed}
    held.open()


def test_greenlets_arrive_too() -> None:
    leave = Event()
    slow, fast = gevent.spawn(leave.wait), gevent.spawn(int)
    completed = as_completed([slow, fast])
    assert next(completed) is fast
    leave.set()
    assert list(completed) == [slow]


def test_a_duplicate_result_is_yielded_once() -> None:
    job = submit(int)
    assert list(as_completed([job, job])) == [job]
    assert list(as_completed([])) == []


def test_a_generator_is_at_most_max_concurrent_ahead(make_gate: MakeGate) -> None:
    gates: list[Gate] = []

    def jobs() -> Iterator[Result[object]]:
        for number in range(5):
            gates.append(make_gate())
            yield submit(gates[-1], number)

    completed = as_completed(jobs(), max_concurrent=2)
    assert gates == []
    for number in range(5):
        gevent.spawn(lambda: gates[0].open() if len(gates) == 1 else gates[-2].open())
        if number == 4:
            gates[-1].open()
        arrived = next(completed)
        assert len(gates) <= number + 2
        assert arrived.successful()
    assert len(gates) == 5
    assert next(completed, None) is None


def test_an_endless_generator() -> None:
    def jobs() -> Iterator[Result[int]]:
        while True:
            yield submit(int)

    with closing(as_completed(jobs(), max_concurrent=3)) as completed:  # type: ignore[type-var]
        assert [next(completed).get() for _ in range(20)] == [0] * 20


def test_a_generator_that_raises_ends_it_with_that_error(held: Gate) -> None:
    def jobs() -> Iterator[Result[object]]:
        yield submit(held, "before")
        raise LookupError("no more pages")

    completed = as_completed(jobs())
    held.open()
    assert next(completed).get() == "before"
    with pytest.raises(LookupError, match="no more pages"):
        next(completed)
    with pytest.raises(LookupError, match="at once"):
        next(as_completed(fail(LookupError("at once")) for _ in range(1)))


def test_closing_does_not_cancel_unfinished_results(held: Gate) -> None:
    jobs = [submit(int), submit(held, "went on")]
    with closing(as_completed(jobs)) as completed:  # type: ignore[type-var]
        assert next(completed) is jobs[0]
    assert not jobs[1].ready()
    held.open()
    assert jobs[1].get() == "went on"


def test_closing_cancels_unfinished_results_on_request(held: Gate) -> None:
    jobs: list[Any] = [submit(int), submit(held), gevent.spawn(forever)]
    with closing(as_completed(jobs, cancel_unfinished=True)) as completed:
        assert next(completed) is jobs[0]
    assert jobs[1].cancelled()
    jobs[2].join()
    held.open()


def test_an_interrupted_wait_closes_it(held: Gate) -> None:
    job = submit(held)
    outer = gevent.Timeout(0.001)
    with pytest.raises(gevent.Timeout) as caught, outer:
        list(as_completed([job], cancel_unfinished=True))
    assert caught.value is outer
    assert job.cancelled()
    held.open()


def test_in_a_thread_without_a_hub(make_gate: MakeGate) -> None:
    gates = [make_gate(), make_gate()]
    jobs = [submit(gate, number) for number, gate in enumerate(gates)]

    def ask() -> list[object]:
        completed = as_completed(jobs)
        gates[1].open()
        first = next(completed).get()
        gates[0].open()
        return [first, next(completed).get()]

    assert in_a_plain_thread(ask) == [1, 0]


# -- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "2"])
def test_max_concurrent_is_checked_at_the_call(most: object) -> None:
    with pytest.raises(BadSetting, match="max_concurrent must be None or a whole number >= 1"):
        as_completed([], max_concurrent=most)  # type: ignore[arg-type]


def test_items_are_checked() -> None:
    with pytest.raises(TypeError):
        as_completed(3)  # type: ignore[arg-type]
    for thing in (None, 3):
        with pytest.raises(NotAResult):
            next(as_completed([thing]))  # type: ignore[type-var]


def test_none_does_not_end_it_silently() -> None:
    jobs = [submit(int), None, submit(int)]
    completed = as_completed(jobs)  # type: ignore[type-var]
    assert next(completed) is jobs[0]  # type: ignore[comparison-overlap]
    with pytest.raises(NotAResult):
        next(completed)


def test_it_does_not_wait_for_itself() -> None:
    def wait_for_myself() -> None:
        with pytest.raises(WaitsForItself):
            list(as_completed([current_job()]))  # type: ignore[type-var]

    with Group() as group:
        job, call = group.run(wait_for_myself), group.spawn(wait_for_myself)
    assert (job.successful(), call.successful()) == (True, True)
