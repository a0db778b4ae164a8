"""The pool without available threads, descriptors or memory: no job is lost, and the pool recovers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import pytest
from gevent.monkey import get_original

from greendata.errors import NoThread
from tests.support.gates import Gate
from tests.support.natives import settle_down, small_pool, until
from tests.support.processes import run_python

_stack_size: Callable[[int], int] = get_original("_thread", "stack_size")


@contextmanager
def no_threads() -> Iterator[None]:
    """Make starting a thread fail in the block: its stack would be too large."""
    before = _stack_size(1 << 46)
    try:
        yield
    finally:
        _stack_size(before)


def test_a_job_is_rejected_if_no_worker_can_start() -> None:
    pool = small_pool(max_workers=2)
    with no_threads():
        for _ in range(3):
            with pytest.raises(NoThread, match="no native thread could be started, and the pool has none") as caught:
                pool.submit(int)
            assert isinstance(caught.value, RuntimeError)
            assert "start new thread" in str(caught.value.__cause__)
    now = pool.stats()
    assert (now.workers, now.running, now.queued) == (0, 0, 0)
    assert pool.submit(int).get() == 0


def test_the_existing_workers_run_the_jobs(held: Gate) -> None:
    pool = small_pool(max_workers=3)
    first = pool.submit(held)
    held.wait_arrived()
    with no_threads():
        rest = [pool.submit(partial(int, number)) for number in range(20)]
        assert (pool.stats().workers, pool.stats().queued) == (1, 20)
        held.open()
        assert [result.get() for result in [first, *rest]] == [None, *range(20)]
    assert pool.submit(int).get() == 0


def test_a_watch_that_cannot_start_rejects_no_job_and_is_started_later(held: Gate) -> None:
    pool = small_pool(max_workers=1, stuck_after=0.02)
    stuck = pool.submit(held)
    held.wait_arrived()
    with no_threads():
        waiting = pool.submit(int)
        assert (pool.stats().queued, pool.stats().lost) == (1, 0)
    assert pool.submit(int).get() == waiting.get() == 0  # this submit started the watch, which replaced the worker
    held.open()
    stuck.get()
    settle_down(pool)


def test_a_stuck_worker_counts_as_lost_once_it_can_be_replaced(held: Gate) -> None:
    pool = small_pool(max_workers=1, stuck_after=600.0)
    stuck = pool.submit(held)
    held.wait_arrived()
    waiting = pool.submit(int)  # starts the watch
    with no_threads():
        pool.configure(stuck_after=0.02)
        until(lambda: stuck.run_seconds > pool.settings.stuck_after)
        pool._workers._replace_stuck()  # what the watch does, at the right moment
        assert (pool.stats().workers, pool.stats().lost, pool.stats().queued) == (1, 0, 1)
    assert waiting.get() == 0
    assert pool.stats().lost == 1
    held.open()
    stuck.get()
    settle_down(pool)


def test_workers_start_without_a_descriptor_to_spare() -> None:
    finished = run_python(
        """
        import os, resource
        import greendata
        from tests.support.gates import Gate
        greendata.run(int).get()  # now the waker has its descriptors
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        greendata.configure(max_workers=8)
        files = []
        try:
            while True:
                files.append(os.dup(0))
        except OSError:
            pass
        gate = Gate()
        results = [greendata.run(gate, number) for number in range(8)]
        gate.wait_arrived(8)
        gate.open()
        print([result.get() for result in results])
        for file in files:
            os.close(file)
        """
    )
    assert finished == (0, "[0, 1, 2, 3, 4, 5, 6, 7]\n", "")


@pytest.mark.skipif(find_spec("_testcapi") is None, reason="this Python has no way to make an allocation fail")
def test_a_failed_allocation_after_a_job_ends_no_worker() -> None:
    """Whichever allocation fails, the waiter is notified and the next job runs."""
    # On 3.14 fewer are made, and the eighth is greenlet's own, in a switch: it does not check it, and crashes.
    finished = run_python(
        """
        import _testcapi, os, sys
        import gevent, greendata
        from tests.support.natives import until
        gevent.get_hub()
        greendata.configure(max_workers=1)
        greendata.run(int).get()
        for number in range(8 if sys.version_info < (3, 14) else 7):
            result = greendata.run(_testcapi.set_nomemory, number, number + 1)
            try:
                result.get(timeout=30)
            except MemoryError:
                pass
            _testcapi.remove_mem_hooks()
            assert greendata.run(int, "3").get(timeout=30) == 3
        until(lambda: not greendata.stats().running)  # a waiter may get the outcome before it is counted
        now = greendata.stats()
        print(now.queued, now.running, now.workers, now.faults > 0)
        sys.stdout.flush()
        os._exit(0)
        """
    )
    assert (finished.returncode, finished.stdout) == (0, "0 0 1 True\n")
