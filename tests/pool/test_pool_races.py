"""Events between two steps of the pool: submits during a drain, signal handlers, finalizers."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import gevent
import pytest

from greendata.errors import PoolClosed
from greendata.hub import native
from greendata.pool.fair_queue import FairQueue
from greendata.pool.workers import Workers
from tests.conftest import Gate
from tests.support.natives import Native, small_pool, until
from tests.support.races import at, before


class SlowKey:
    """A key whose hash holds the submit at a gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __hash__(self) -> int:
        self._gate()
        return 1


def test_a_job_that_reaches_the_queue_of_a_drained_pool_is_rejected(held: Gate) -> None:
    """`drain` has reported that all jobs finished: nothing may run after that."""
    pool, ran = small_pool(), []
    submitting = Native(lambda: pool.submit(ran.append, 1, key=SlowKey(held)))
    held.wait_arrived()
    assert pool.drain() is True
    held.open()
    with pytest.raises(PoolClosed):
        submitting.join()
    now = pool.stats()
    assert (now.queued, now.running, now.done, now.rejected) == (0, 0, 0, 1)
    assert ran == []


def test_a_signal_handler_that_submits_while_the_first_worker_starts_adds_no_lasting_second_one() -> None:
    pool, results = small_pool(max_workers=1), []
    started = native.start_thread_watched.__code__
    sys.setprofile(at("c_return", "start_new_thread", started, lambda: results.append(pool.submit(int))))
    results.append(pool.submit(int))
    assert [result.get() for result in results] == [0, 0]
    until(lambda: pool.stats().workers == 1)
    assert pool.submit(int).get() == 0


@pytest.mark.parametrize("allocations", range(4))
def test_a_job_that_returns_while_the_running_ones_are_listed(make_gate: Callable[[], Gate], allocations: int) -> None:
    """Listing them may start a garbage collection, in which a finalizer lets the workers run."""
    pool, gates = small_pool(max_workers=24), [make_gate() for _ in range(24)]
    for gate in gates:
        pool.submit(gate)
        gate.wait_arrived()

    def finalize(phase: str, _: object) -> None:
        if phase == "start" and gates:
            left = len(gates) - 1
            gates.pop().open()
            while len(pool._workers.running) > left:
                native.sleep(0.001)

    spare = [(number, None) for number in range(5_000)]  # uses up the tuples that the interpreter keeps for reuse
    gc.collect()
    thresholds = gc.get_threshold()
    gc.callbacks.append(finalize)
    gc.set_threshold(1)
    try:
        spare.extend((number, None) for number in range(allocations))
        found = pool.running_jobs()
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(finalize)
    assert len(found) <= 24
    assert len(gates) < 24


def test_a_job_that_has_returned_is_not_listed_while_its_worker_notifies_the_waiters(held: Gate) -> None:
    pool = small_pool()
    result = pool.submit(lambda: sys.setprofile(at("call", "wake", Workers._finish_job.__code__, held)))
    held.wait_arrived()
    assert (result.ready(), pool.stats().running, pool.running_jobs()) == (True, 0, [])
    held.open()


def test_a_drain_ends_though_it_saw_a_job_that_is_rejected(held: Gate) -> None:
    pool = small_pool()

    def submit() -> None:
        sys.settrace(before("key_queue.items[item] = None", FairQueue.put, held))
        pool.submit(int)

    submitting = Native(submit)
    held.wait_arrived()
    draining = gevent.spawn(pool.drain)
    gevent.idle()
    assert not draining.dead
    held.open()
    with pytest.raises(PoolClosed):
        submitting.join()
    assert draining.get() is True


def test_a_drain_ends_when_the_pool_is_reopened(make_gate: Callable[[], Gate]) -> None:
    runs, queued = make_gate(), make_gate()
    pool = small_pool(max_workers=1)
    pool.submit(runs)
    runs.wait_arrived()
    draining = [gevent.spawn(pool.drain), gevent.spawn(pool.drain, timeout=60)]
    gevent.idle()
    pool.configure()
    result = pool.submit(queued, 42)
    assert [greenlet.get() for greenlet in draining] == [False, False]
    runs.open()
    queued.open()
    assert result.get() == 42  # submitted after the drains
