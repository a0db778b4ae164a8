"""Cancellation: a queued job never runs, a running one is given up, and each result settles exactly once."""

from __future__ import annotations

import gevent
import pytest

from greendata.errors import DeadlineExceeded, JobCancelled, PoolFull
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.pool.pool import configure, stats, submit
from tests.conftest import Gate
from tests.support.natives import Native, settle_down, small_pool, until


def test_a_queued_job_never_runs(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    blocking = pool.submit(held)
    held.wait_arrived()
    ran: list[int] = []
    result = pool.submit(ran.append, 1, label="never")
    assert result.cancel() is True
    assert pool.stats().queued == 0
    with pytest.raises(JobCancelled, match="never was cancelled before it began"):
        result.get()
    held.open()
    blocking.get()
    settle_down(pool)
    assert ran == []
    assert pool.stats().cancelled == 1


def test_a_running_job_is_given_up_at_once_and_counted_until_it_returns(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    result = pool.submit(held)
    waiting = [gevent.spawn(result.wait) for _ in range(3)]
    gevent.idle()
    held.wait_arrived()
    assert result.cancel() is True
    gevent.joinall(waiting)
    assert result.status is Status.CANCELLED
    with pytest.raises(JobCancelled, match="while it ran"):
        result.get()
    assert (pool.stats().abandoned, pool.stats().running) == (1, 1)
    held.open()
    settle_down(pool)
    assert result.status is Status.CANCELLED  # the value that it finally returned is ignored


def test_cancelling_twice_or_too_late(held: Gate) -> None:
    result = submit(held)
    assert [result.cancel(), result.cancel()] == [True, False]
    held.open()
    done = submit(int)
    done.get()
    assert done.cancel() is False
    assert done.get() == 0


@pytest.mark.parametrize("where", ["greenlet", "hub", "plain thread", "other hub", "worker"])
def test_a_job_can_be_cancelled_from_any_thread(held: Gate, where: str) -> None:
    result = submit(held)
    waiting = gevent.spawn(result.wait)
    gevent.idle()
    held.wait_arrived()
    if where == "greenlet":
        gevent.spawn(result.cancel).join()
    elif where == "hub":
        gevent.get_hub().loop.run_callback(result.cancel)
    elif where == "worker":
        submit(result.cancel).get()
    else:
        make_hub = gevent.get_hub if where == "other hub" else bool
        Native(lambda: (make_hub(), result.cancel())).join()
    waiting.join()
    assert result.cancelled()
    held.open()


def test_one_waiter_cancels_under_the_others(held: Gate) -> None:
    result = submit(held)
    woken: list[str] = []

    def wait(number: int) -> None:
        with pytest.raises(JobCancelled):
            result.get()
        woken.append(f"{number}")
        assert result.cancel() is False

    waiting = [gevent.spawn(wait, number) for number in range(5)]
    gevent.idle()
    result.cancel()
    gevent.joinall(waiting, raise_error=True)
    assert sorted(woken) == ["0", "1", "2", "3", "4"]
    held.open()


def test_two_thousand_jobs_that_fail_time_out_and_are_cancelled_settle_once_each(held: Gate) -> None:
    """A third of each. Greenlets, plain threads and another hub wait for them, and the pool ends as it began."""
    blocking = [submit(held) for _ in range(configure().max_workers)]
    held.wait_arrived(len(blocking))
    before = stats()
    kinds = [ValueError, DeadlineExceeded, JobCancelled]
    results: list[tuple[Result[object], type[Exception]]] = []
    for number in range(2000):
        kind = kinds[number % 3]
        job = submit(int, "x", key=number % 7, timeout=0.2 if kind is DeadlineExceeded else None)
        results.append((job, kind))
    settled = [0] * len(results)

    def note(number: int) -> None:
        settled[number] += 1

    for number, (result, _) in enumerate(results):
        result.rawlink(lambda _, number=number: note(number))  # type: ignore[misc]
    plain = Native(lambda: [result.wait() for result, _ in results])
    other = Native(lambda: len(gevent.wait([result for result, _ in results])))
    for result, kind in results:
        if kind is JobCancelled:
            assert result.cancel() is True
    until(lambda: all(result.ready() for result, kind in results if kind is DeadlineExceeded))
    held.open()
    found = [gevent.spawn(lambda result: type(_error_of(result)), result) for result, _ in results]
    gevent.joinall(found)
    assert [greenlet.value for greenlet in found] == [kind for _, kind in results]
    assert plain.join() == [None] * len(results)
    assert other.join() == len(results)
    gevent.wait(blocking)
    until(lambda: not stats().running)
    gevent.idle()
    assert settled == [1] * len(results)
    after = stats()
    assert (after.queued, after.running, after.abandoned, after.lost) == (0, 0, 0, 0)
    assert after.failed - before.failed == sum(kind is not JobCancelled for _, kind in results)
    assert after.cancelled - before.cancelled == sum(kind is JobCancelled for _, kind in results)
    assert submit(int).get() == 0


def _error_of(result: Result[object]) -> BaseException | None:
    try:
        result.get()
    except Exception as error:  # noqa: BLE001 - the caller checks it
        return error
    return None


def test_a_cancelled_job_frees_its_place_in_the_queue(held: Gate) -> None:
    pool = small_pool(max_workers=1, max_queue=1)
    pool.submit(held)
    held.wait_arrived()
    queued = pool.submit(held)
    with pytest.raises(PoolFull):
        pool.submit(held)
    queued.cancel()
    again = pool.submit(held, 5)
    held.open()
    assert again.get() == 5


def test_cancel_and_outcome_at_the_same_time_agree() -> None:
    """The return value of cancel() is right, whether the worker or the caller comes first."""
    for _ in range(300):
        result = submit(int)
        assert result.cancel() is result.cancelled()
        assert result.wait() in {None, 0}
        assert result.cancelled() is (result.wait() is None)
