"""Jobs that wait for another process or thread: their workers leave room for others, within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import polars as pl
import pytest

import greendata
from greendata import Caller, ProcessEngine
from greendata.errors import PoolFull
from greendata.hub import native
from greendata.pool import workers
from greendata.pool.pool import Pool
from greendata.pool.workers import elsewhere
from greendata.threads.parking import ParkingLot
from tests.support.child_tasks import held_query
from tests.support.gates import Gate
from tests.support.natives import settle_down, small_pool, until
from tests.support.processes import run_python


@pytest.fixture
def held() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def wait_elsewhere(gate: Gate) -> str:
    with elsewhere():
        gate()
    return native.this_thread_name()


def test_another_worker_takes_the_place(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    away = [pool.submit(wait_elsewhere, held) for _ in range(5)]
    assert pool.submit(sum, [1, 2]).get() == 3
    until(lambda: len(held.arrived) == 5)
    until(lambda: pool.stats().running == 5)  # the sum has its outcome, and may not have been counted
    stats = pool.stats()
    assert (stats.queued, stats.lost) == (0, 0)
    assert len(pool.running_jobs()) == len(pool.pending()) == 5
    held.open()
    for result in away:
        result.get()
    settle_down(pool)
    assert pool.stats().done == 6
    assert_one_at_a_time(pool)


def assert_one_at_a_time(pool: Pool) -> None:
    """Check that the pool has one worker again."""
    gate = Gate()
    first, second = (pool.submit(gate) for _ in range(2))
    until(lambda: gate.arrived)
    # A worker returns after it has set the result.
    until(lambda: len(pool._workers.workers) == 1 and not pool._workers.away)
    assert (pool.stats().running, pool.stats().queued) == (1, 1)
    gate.open()
    first.get()
    second.get()


def test_a_cancelled_one_is_abandoned_until_it_returns(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    away = pool.submit(wait_elsewhere, held)
    assert pool.submit(sum, [1]).get() == 1
    until(lambda: pool.stats().running == 1)
    away.cancel()
    assert pool.stats().abandoned == 1
    held.open()
    settle_down(pool)
    assert_one_at_a_time(pool)


def test_no_more_than_a_number_of_workers(held: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MOST_AWAY", 2)
    pool = small_pool(max_workers=1, max_queue=4)
    results = [pool.submit(wait_elsewhere, held) for _ in range(3)]
    until(lambda: len(held.arrived) == 3)
    results += [pool.submit(wait_elsewhere, held) for _ in range(4)]
    with pytest.raises(PoolFull):
        pool.submit(sum, [1])
    assert pool.stats().running == 3
    held.open()
    for result in results:
        result.get()
    settle_down(pool)
    assert_one_at_a_time(pool)


def test_drain_waits_for_them(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    away = pool.submit(wait_elsewhere, held)
    assert pool.submit(sum, [1]).get() == 1
    assert not pool.drain(0)
    held.open()
    assert pool.drain()
    assert away.successful()


def test_on_other_threads_and_nested_the_block_runs() -> None:
    with elsewhere(), elsewhere():
        pass

    def nested() -> bool:
        with elsewhere():
            with elsewhere():
                pass
            return workers._local.worker.away_at is not None

    assert greendata.run(nested).get()


def test_reports_in_children_leave_the_workers_to_small_queries(tmp_path: Path) -> None:
    with ProcessEngine(workers=1) as engine:
        reports = [greendata.collect(held_query(str(tmp_path / str(n))), engine=engine) for n in range(20)]
        assert greendata.collect(pl.LazyFrame({"a": [1]})).get().height == 1
        for report in reports:
            report.cancel()
    settle_down(greendata.pool.pool.shared)


# -- waiting for other threads --------------------------------------------------------------------------


@pytest.fixture(params=["without a hub", "with a hub"])
def pool_of_one(request: pytest.FixtureRequest) -> Pool:
    pool = small_pool(max_workers=1)
    if request.param == "with a hub":
        pool.submit(gevent.sleep, 0).get()  # the worker keeps it
    return pool


def test_a_worker_that_waits_for_another_thread_leaves_its_place(pool_of_one: Pool) -> None:
    pool, lot, is_free = pool_of_one, ParkingLot(), []
    waiting = [pool.submit(lot.wait, lambda: bool(is_free)) for _ in range(3)]
    assert pool.submit(sum, [1, 2]).get() == 3
    assert not any(result.ready() for result in waiting)
    is_free.append(True)
    lot.wake_all()
    assert [result.get() for result in waiting] == [True] * 3
    settle_down(pool)
    assert_one_at_a_time(pool)


def test_a_worker_that_waits_for_a_greenlet_leaves_its_place_to_what_the_greenlet_needs(pool_of_one: Pool) -> None:
    pool, here = pool_of_one, Caller.current()

    def ask_a_greenlet() -> int:
        return here.call_soon(lambda: pool.submit(sum, [1, 2]).get()).get()

    results = [pool.submit(ask_a_greenlet) for _ in range(3)]
    assert [result.get() for result in results] == [3] * 3
    settle_down(pool)
    assert_one_at_a_time(pool)


def test_a_greenlet_that_a_job_left_behind_may_wait_for_ever(pool_of_one: Pool, held: Gate) -> None:
    pool, lot = pool_of_one, ParkingLot()

    def leave_a_greenlet() -> None:
        gevent.spawn(lot.wait, lambda: False)
        gevent.sleep(0)

    pool.submit(leave_a_greenlet).get()
    pool.submit(gevent.sleep, 0).get()
    assert not pool.submit(lambda: workers._local.worker.away_at is not None).get()


def test_queries_with_functions_that_take_a_lock_which_a_request_holds_during_a_query() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import threading
        import gevent, greendata, polars as pl

        greendata.patch_polars()
        greendata.configure(max_workers=2)
        loading, df = threading.Lock(), pl.DataFrame({"a": [1, 2]})

        def look_up(value):
            with loading:
                return value

        def request():
            with loading:
                df.lazy().select(pl.col("a").sum()).collect()
            return df["a"].map_elements(look_up, return_dtype=pl.Int64).sum()

        requests = [gevent.spawn(request) for _ in range(20)]
        print({job.get() for job in requests})
    """
    assert run_python(code) == (0, "{3}\n", "")
