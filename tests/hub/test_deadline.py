"""Deadlines: they include the time in the queue, the nearest applies, in greenlets, plain threads and workers."""

from __future__ import annotations

from contextlib import AbstractContextManager

import gevent
import polars as pl
import pytest

from greendata.errors import BadTimeout, DeadlineExceeded, GreenDataError, ResultTimeout
from greendata.formats.encoders import encode
from greendata.hub.deadline import Limit, current_deadline, deadline, within
from greendata.hub.outcome import Status
from greendata.pool.pool import stats, submit
from greendata.query.verbs import batches
from greendata.tasks.caller import Caller
from greendata.tasks.waiting import gather, shield, wait
from tests.conftest import Gate
from tests.support.natives import Native, expiring, settle_down, small_pool, until


def test_a_running_job_fails_at_its_deadline_and_its_slot_is_counted(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    result = expiring(lambda timeout: pool.submit(held, timeout=timeout, label="slow"), held)
    with pytest.raises(DeadlineExceeded, match="slow was still running") as caught:
        result.get()
    assert caught.value.running
    assert isinstance(caught.value, TimeoutError)
    assert result.status is Status.FAILED
    assert (pool.stats().running, pool.stats().abandoned) == (1, 1)
    held.open()
    settle_down(pool)
    assert pool.stats().failed >= 1
    assert pool.stats().done == 0  # the value that it finally returned is ignored


def test_a_queued_job_that_is_out_of_time_never_runs(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    blocking = pool.submit(held)
    held.wait_arrived()
    ran: list[int] = []
    result = pool.submit(ran.append, 1, timeout=0.02)
    with pytest.raises(DeadlineExceeded, match="had not begun") as caught:
        result.get()
    assert not caught.value.running
    assert pool.stats().queued == 0
    held.open()
    blocking.get()
    settle_down(pool)
    assert ran == []


def test_a_job_whose_deadline_passed_while_the_hub_slept_never_runs(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    blocking = pool.submit(held)
    held.wait_arrived()
    ran: list[int] = []
    result = pool.submit(ran.append, 1, timeout=0)
    held.open()
    while not result.ready():  # the hub does not run, so its timer cannot have failed the job
        pass
    assert isinstance(result.exception, DeadlineExceeded)
    blocking.get()
    settle_down(pool)
    assert ran == []


def test_a_deadline_that_is_not_reached_changes_nothing() -> None:
    assert submit(int, "3", timeout=60).get() == 3
    assert submit(int, "3", timeout=float("inf")).get() == 3
    assert submit(int, "3", timeout=1e300).get() == 3


def test_a_deadline_fails_the_result_for_all_waiters(held: Gate) -> None:
    result = submit(held, timeout=0.05)
    waiting = [gevent.spawn(result.wait) for _ in range(3)]
    plain, other = Native(result.wait), Native(lambda: gevent.spawn(result.wait).get())
    gevent.joinall(waiting)
    assert plain.join() is other.join() is None
    assert isinstance(result.exception, DeadlineExceeded)
    held.open()


def test_in_a_plain_thread_the_waiter_enforces_the_deadline(held: Gate) -> None:
    def wait() -> object:
        with pytest.raises(DeadlineExceeded):
            submit(held, timeout=0.02).get()
        with pytest.raises(DeadlineExceeded):
            submit(held, timeout=0.02).get(timeout=60)
        return True

    assert Native(wait).join()
    held.open()


@pytest.mark.parametrize("ends", ["get", "wait"])
def test_a_plain_thread_that_waits_for_the_end_enforces_it_too(held: Gate, ends: str) -> None:
    pool = small_pool(max_workers=1)
    blocking = pool.submit(held)
    held.wait_arrived()

    def wait_for_end() -> object:
        result = pool.submit(held, timeout=0.02)
        wait([result.end()], timeout=30) if ends == "wait" else result.end().get(timeout=30)
        return result.end().ready() and isinstance(result.exception, DeadlineExceeded)

    assert Native(wait_for_end).join()
    held.open()
    blocking.get()


def test_the_end_of_what_runs_is_awaited_beyond_the_deadline(held: Gate) -> None:
    def wait_for_end() -> tuple[object, ...]:
        result = expiring(lambda timeout: submit(held, timeout=timeout), held)
        while not result.ready():
            with pytest.raises(ResultTimeout):
                result.end().get(timeout=0.2)
        expired, ended = isinstance(result.exception, DeadlineExceeded), result.end().ready()
        held.open()
        result.end().get(timeout=30)
        return expired, ended

    assert Native(wait_for_end).join() == (True, False)


def test_gevent_waits_for_a_result_of_a_plain_thread_until_its_deadline(held: Gate) -> None:
    result = Native(lambda: submit(held, timeout=0.05)).join()
    assert gevent.wait([result]) == [result]
    assert isinstance(result.exception, DeadlineExceeded)
    held.open()


def test_the_nearest_deadline_applies(held: Gate) -> None:
    with deadline(60) as far:
        assert current_deadline() == far
        with deadline(0.02) as near, deadline(30) as nearest:
            assert far > near == nearest
            results = [submit(held), submit(held, timeout=60)]
        own = submit(held, timeout=0.02)
        free = submit(int)
    assert current_deadline() is None
    for result in (*results, own):
        with pytest.raises(DeadlineExceeded):
            result.get()
    assert free.get() == 0
    held.open()


def passed(seconds: float, moment: float) -> AbstractContextManager[None]:
    """Return a deadline of *seconds* that passed at *moment*."""
    return within(Limit(moment, seconds))


def test_an_error_says_whether_a_block_or_the_job_itself_has_set_the_limit(held: Gate) -> None:
    with (
        deadline(0.0),
        pytest.raises(DeadlineExceeded, match="at the deadline of the block around it, 0 seconds") as late,
    ):
        submit(held, timeout=30).get()
    assert late.value.in_block is True
    with deadline(30), pytest.raises(DeadlineExceeded, match="at its deadline of 0 seconds") as late:
        submit(held, timeout=0.0).get()
    assert late.value.in_block is False


def test_an_error_names_the_limit_that_was_given_and_not_what_was_left_of_it() -> None:
    with passed(2.0, 0.0):
        for late in (
            submit(int),
            submit(int, timeout=60),
            gather(submit(int)),
            shield(submit(int)),
            Caller.current().call_soon(int),
        ):
            with pytest.raises(DeadlineExceeded, match="had not begun at its deadline of 2 seconds"):
                late.get()
        with pytest.raises(DeadlineExceeded, match="of 2 seconds"):
            next(batches(pl.LazyFrame({"a": [1]}), chunk_size=1))
        with pytest.raises(DeadlineExceeded, match="of 2 seconds"):
            next(encode([pl.DataFrame({"a": [1]})], "csv"))
    stream = encode(iter([pl.DataFrame({"a": [1]})] * 2), "csv")
    with passed(3.0, 0.0), pytest.raises(DeadlineExceeded, match="of 3 seconds"):
        next(stream)


def test_a_job_inherits_a_deadline_and_a_greenlet_does_not(held: Gate) -> None:
    with deadline(60) as until_then:
        assert submit(current_deadline).get() == until_then
        assert gevent.spawn(current_deadline).get() is None
    with deadline(float("inf")) as never:
        assert never == float("inf")
        assert submit(int).get() == 0
        assert current_deadline() is None
    held.open()


@pytest.mark.parametrize("bad", [-1, -0.001, float("nan"), "2", True, object()], ids=repr)
def test_values_that_are_not_timeouts(bad: object, held: Gate) -> None:
    pending = submit(held)
    held.wait_arrived()
    before = stats()
    for use in (
        lambda: submit(int, timeout=bad),  # type: ignore[arg-type]
        lambda: pending.get(timeout=bad),  # type: ignore[arg-type]
        lambda: pending.wait(timeout=bad),  # type: ignore[arg-type]
        deadline(bad).__enter__,  # type: ignore[arg-type]
    ):
        with pytest.raises(BadTimeout, match="a number of seconds >= 0") as caught:
            use()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, GreenDataError)
    assert (stats().queued, stats().done) == (before.queued, before.done)
    held.open()
    until(pending.ready)


def test_a_deadline_needs_a_number() -> None:
    with pytest.raises(BadTimeout), deadline(None):  # type: ignore[arg-type]
        pass
