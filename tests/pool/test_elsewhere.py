"""Jobs that wait for another process: their workers leave room for others, within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import greendata
from greendata import ProcessEngine
from greendata.errors import PoolFull
from greendata.hub import native
from greendata.pool import workers
from greendata.pool.pool import Pool
from greendata.pool.workers import elsewhere
from tests.support.child_tasks import held_query
from tests.support.gates import Gate
from tests.support.natives import settle_down, small_pool, until


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
            return workers._local.worker.elsewhere is not None

    assert greendata.run(nested).get()


def test_reports_in_children_leave_the_workers_to_small_queries(tmp_path: Path) -> None:
    with ProcessEngine(workers=1) as engine:
        reports = [greendata.collect(held_query(str(tmp_path / str(n))), engine=engine) for n in range(20)]
        assert greendata.collect(pl.LazyFrame({"a": [1]})).get().height == 1
        for report in reports:
            report.cancel()
    settle_down(greendata.pool.pool.shared)
