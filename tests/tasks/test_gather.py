"""`gather`, `wait` and `shield`: many results at once, and one that cancelling does not reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult

from greendata import DeadlineExceeded, JobCancelled, ResultTimeout, deadline
from greendata.errors import BadChoice, BadTimeout, ForeignGreenlet, NotAResult, WaitsForItself
from greendata.hub import native
from greendata.pool.pool import submit
from greendata.tasks.group import Group
from greendata.tasks.task import current_job
from greendata.tasks.waiting import as_completed, gather, shield, wait
from tests.support.failures import Careful, fail
from tests.support.gates import Gate
from tests.support.natives import in_a_plain_thread

# -- gather -------------------------------------------------------------------------------------------


def test_gather_gives_the_values_in_the_order_asked(hub_alive: Gate) -> None:
    slow, fast = submit(hub_alive, "slow"), submit(str, "fast")
    assert gather(slow, fast, slow).get() == ["slow", "fast", "slow"]
    assert gather().get() == []


@pytest.mark.parametrize("several", [list, tuple, lambda results: (result for result in results)])
def test_a_list_or_a_generator_of_results_is_gathered_too(several: Callable[[Any], Any]) -> None:
    results = [submit(str, 1), submit(str, 2)]
    assert gather(several(results)).get() == ["1", "2"]
    assert gather(several([])).get() == []


def test_gather_takes_greenlets_and_async_results() -> None:
    answer: AsyncResult[str] = AsyncResult()
    gathered = gather(gevent.spawn(str, "greenlet"), answer, submit(str, "job"))
    answer.set("answer")
    assert gathered.get() == ["greenlet", "answer", "job"]


def test_gather_fails_with_the_first_failure_and_the_others_continue(held: Gate) -> None:
    error = ValueError("first")
    other = submit(held, "other")
    gathered = gather(other, submit(fail, error))
    with pytest.raises(ValueError, match="first") as caught:
        gathered.get()
    assert caught.value is error
    assert not other.ready()
    held.open()
    assert other.get() == "other"


def test_gather_can_return_the_errors() -> None:
    error = ValueError("kept")
    assert gather(submit(fail, error), submit(int), return_exceptions=True).get() == [error, 0]


def test_cancelling_the_gathered_result_cancels_the_work(held: Gate) -> None:
    done, job = submit(int), submit(held)
    done.get()
    gathered = gather(done, job)
    assert gathered.cancel()
    with pytest.raises(JobCancelled):
        gathered.get()
    assert job.cancelled()
    assert done.successful()
    held.open()


def test_cancelling_from_another_thread_kills_greenlets_in_their_own(held: Gate) -> None:
    careful = Careful()
    greenlet, job = gevent.spawn(careful), submit(held)
    gevent.idle()
    assert in_a_plain_thread(gather(greenlet, job).cancel)
    assert job.cancelled()
    greenlet.join()
    assert careful.cleaned_in == [native.get_ident()]
    held.open()


def test_a_timeout_of_the_wait_cancels_nothing(held: Gate) -> None:
    job = submit(held, 1)
    gathered = gather(job)
    with pytest.raises(ResultTimeout):
        gathered.get(timeout=0)
    held.open()
    assert gathered.get() == [1]


def test_gather_in_a_thread_without_a_hub(held: Gate) -> None:
    job = submit(held, 1)

    def ask() -> list[int]:
        gathered = gather(job, submit(int, "2"))
        held.open()
        return gathered.get(timeout=60)

    assert in_a_plain_thread(ask) == [1, 2]


def test_gather_in_a_thread_without_a_hub_keeps_deadlines(held: Gate) -> None:
    def ask() -> None:
        with deadline(0.01):
            late = submit(held)
        gather(submit(int), late).get(timeout=60)

    with pytest.raises(DeadlineExceeded):
        in_a_plain_thread(ask)
    held.open()


def test_gathered_results_can_be_gathered_from_another_thread(held: Gate) -> None:
    gathered = gather(submit(held, 1))
    held.open()
    assert in_a_plain_thread(lambda: gathered.get(timeout=60)) == [1]


# -- wait ---------------------------------------------------------------------------------------------


def test_wait_for_all(hub_alive: Gate) -> None:
    jobs = {submit(hub_alive), submit(int), gevent.spawn(int)}
    assert wait(jobs) == (jobs, set())
    assert wait([]) == (set(), set())


def test_wait_for_the_first(held: Gate) -> None:
    slow, fast = submit(held), submit(int)
    assert wait([slow, fast], return_when="FIRST_COMPLETED") == ({fast}, {slow})
    held.open()


def test_wait_for_the_first_failure(held: Gate) -> None:
    slow, good, bad = submit(held), submit(int), submit(fail, ValueError())
    gather(good, bad, return_exceptions=True).get()
    assert wait([slow, good, bad], return_when="FIRST_EXCEPTION") == ({good, bad}, {slow})
    assert wait([good], return_when="FIRST_EXCEPTION") == ({good}, set())
    held.open()


def test_wait_has_a_timeout_and_cancels_nothing(held: Gate) -> None:
    job = submit(held, 7)
    assert wait([job], timeout=0) == (set(), {job})
    assert wait([job], timeout=0.001) == (set(), {job})
    held.open()
    assert job.get() == 7


def test_wait_in_a_thread_without_a_hub(held: Gate) -> None:
    slow, fast = submit(held), submit(int)
    done, pending = in_a_plain_thread(lambda: wait([slow, fast], return_when="FIRST_COMPLETED"))
    assert (done, pending) == ({fast}, {slow})
    held.open()
    assert in_a_plain_thread(lambda: wait([slow], timeout=60)) == ({slow}, set())


def test_an_outer_timeout_is_not_swallowed(held: Gate) -> None:
    job = submit(held)
    outer = gevent.Timeout(0.001)
    with pytest.raises(gevent.Timeout) as caught, outer:
        wait([job], timeout=60)
    assert caught.value is outer
    held.open()


# -- shield -------------------------------------------------------------------------------------------


def test_a_shield_follows_its_result(held: Gate) -> None:
    error = ValueError("same")
    followers = [shield(submit(held, 3)), shield(submit(fail, error))]
    held.open()
    assert followers[0].get() == 3
    with pytest.raises(ValueError, match="same") as caught:
        followers[1].get()
    assert caught.value is error
    assert shield(followers[0]).get() == 3


def test_cancelling_a_shield_lets_the_work_continue(held: Gate) -> None:
    job = submit(held, 3)
    follower = shield(job)
    assert follower.cancel("not mine to stop")
    with pytest.raises(JobCancelled, match="not mine to stop"):
        follower.get()
    held.open()
    assert job.get() == 3


def test_a_cancelled_result_cancels_its_followers(held: Gate) -> None:
    job = submit(held)
    follower = shield(job)
    job.cancel()
    assert follower.cancelled()
    held.open()


# -- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [gather, lambda item: wait([item]), shield])
def test_other_objects_are_rejected(use: Callable[[Any], object]) -> None:
    for thing in (None, 3, int):
        with pytest.raises(NotAResult, match="expected a Result, an AsyncResult or a Greenlet"):
            use(thing)


@pytest.mark.parametrize("use", [gather, lambda item: wait([item]), lambda item: next(as_completed([item]))])
def test_greenlets_are_waited_for_in_their_own_thread(use: Callable[[Any], object]) -> None:
    leave = gevent.event.Event()
    greenlet = gevent.spawn(leave.wait)
    for elsewhere in (lambda: use(greenlet), lambda: (gevent.get_hub(), use(greenlet))):
        with pytest.raises(ForeignGreenlet, match="belongs to another thread"):
            in_a_plain_thread(elsewhere)
    leave.set()
    greenlet.join()
    assert in_a_plain_thread(lambda: wait([greenlet])) == ({greenlet}, set())


def test_wait_checks_its_arguments() -> None:
    with pytest.raises(BadChoice, match="got 'ALL'"):
        wait([], return_when="ALL")  # type: ignore[arg-type]
    for timeout in (-1, float("nan"), "1"):
        with pytest.raises(BadTimeout):
            wait([], timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        wait(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("use", [gather, lambda item: wait([item])])
def test_a_job_does_not_wait_for_itself(use: Callable[[Any], object]) -> None:
    with Group(on_error="collect") as group:
        jobs = [group.spawn(lambda: _error_text(use)), group.run(lambda: _error_text(use))]
    assert ["it is the caller itself" in job.get() for job in jobs] == [True, True]


def _error_text(use: Callable[[Any], object]) -> str:
    with pytest.raises(WaitsForItself) as caught:
        use(current_job())
    return str(caught.value)
