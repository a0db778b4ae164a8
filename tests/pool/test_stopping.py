"""Work that can be stopped: `stopped_by` in running jobs."""

from __future__ import annotations

import sys

import gevent
import pytest

import greendata
from greendata.errors import DeadlineExceeded, JobCancelled
from greendata.hub import native
from greendata.pool import pool, stopping
from greendata.pool.job import Stopper
from greendata.pool.stopping import is_given_up, stopped_by
from tests.support.gates import Gate
from tests.support.natives import TIMEOUTS, Native, until
from tests.support.races import at


class Work:
    """A job that runs until it is stopped."""

    def __init__(self) -> None:
        self.begun, self.was_stopped = Gate(), Gate()
        self.begun.open()
        self.stops: list[int] = []
        self.given_up: list[bool] = []

    def stop(self) -> None:
        self.stops.append(native.get_ident())
        self.was_stopped.open()

    def __call__(self) -> str:
        with stopped_by(self.stop):
            self.begun()
            self.was_stopped()
            self.given_up.append(is_given_up())
        return "stopped"


def test_a_cancelled_job_is_stopped_by_the_thread_that_cancels_it() -> None:
    work = Work()
    result = greendata.run(work)
    work.begun.wait_arrived()
    assert result.cancel_wait() is True
    assert (work.stops, work.given_up) == ([native.get_ident()], [True])
    with pytest.raises(JobCancelled) as caught:
        result.get()
    assert "cannot be stopped" not in str(caught.value)
    assert pool.stats().abandoned == 0


def test_a_job_is_stopped_at_its_deadline() -> None:
    for timeout in TIMEOUTS:
        work = Work()
        result = greendata.run(work, timeout=timeout)
        until(lambda work=work, result=result: work.begun.arrived or result.ready())  # type: ignore[misc]
        if not result.ready():
            break
    with pytest.raises(DeadlineExceeded) as caught:
        result.get()
    result.end().get()
    assert "cannot be stopped" not in str(caught.value)
    assert len(work.stops) == 1


def test_a_job_is_stopped_when_an_interrupted_wait_gives_it_up() -> None:
    work = Work()
    waiter = gevent.spawn(pool.call, work)
    work.begun.wait_arrived()
    waiter.kill()
    work.was_stopped.wait_arrived()
    until(lambda: pool.stats().running == 0)
    assert len(work.stops) == 1


def test_work_that_begins_after_its_job_was_given_up_is_stopped_at_once(held: Gate) -> None:
    work = Work()

    def late() -> None:
        held()
        work()

    result = greendata.run(late)
    held.wait_arrived()
    result.cancel()
    held.open()
    result.end().get()
    assert len(work.stops) == 1


def test_work_that_has_ended_is_not_stopped(held: Gate) -> None:
    stops: list[bool] = []

    def run() -> None:
        with stopped_by(lambda: stops.append(True)):
            pass
        held()

    result = greendata.run(run)
    held.wait_arrived()
    assert result.cancel() is True
    with pytest.raises(JobCancelled, match="cannot be stopped"):
        result.get()
    held.open()
    result.end().get()
    assert stops == []


def test_inner_work_is_stopped_before_the_outer_one() -> None:
    inner, stops = Work(), []

    def run() -> None:
        with stopped_by(lambda: stops.append("outer")):
            inner()
            stops.append("inner ended")

    result = greendata.run(run)
    inner.begun.wait_arrived()
    result.cancel_wait()
    assert len(inner.stops) == 1
    assert stops == ["outer", "inner ended"]


def test_the_end_of_the_block_waits_for_a_stop_that_has_begun(held: Gate) -> None:
    """What *stop* uses, such as a process id, may belong to somebody else afterwards."""
    order: list[str] = []
    stopper = Stopper(lambda: order.append(str(held("stopped"))))
    stop = Native(stopper.stop)
    held.wait_arrived()
    close = Native(lambda: order.append(str(stopper.close() or "closed")))
    held.open()
    stop.join()
    close.join()
    stopper.stop()  # does nothing
    assert order == ["stopped", "closed"]


def test_a_job_that_is_cancelled_between_two_steps_of_registering_is_stopped_once() -> None:
    stops: list[bool] = []
    results: list[greendata.Result[None]] = []
    handed = Gate()

    def run() -> None:
        handed()
        sys.setprofile(at("call", "__init__", stopping.stopped_by.__wrapped__.__code__, results[0].cancel))
        with stopped_by(lambda: stops.append(True)):
            pass

    results.append(greendata.run(run))
    handed.open()
    results[0].end().get()
    assert stops == [True]


def test_elsewhere_the_block_runs_unchanged() -> None:
    with stopped_by(pytest.fail):
        assert is_given_up() is False


def test_the_error_of_a_block_is_raised_unchanged() -> None:
    def run() -> None:
        with stopped_by(list):
            raise KeyError("row")

    with pytest.raises(KeyError, match="row"):
        greendata.run(run).get()
