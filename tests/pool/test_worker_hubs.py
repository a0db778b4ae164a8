"""Jobs that wait in a hub: their worker keeps it, and what one leaves there does not reach another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from weakref import ref

import gevent
import pytest
from gevent.exceptions import LoopExit
from greenlet import getcurrent

from greendata.errors import JobAborted
from tests.support.natives import dismiss, small_pool, until


def start_timeout() -> None:
    gevent.Timeout(0.001).start()


def kill_later() -> None:
    gevent.spawn_later(0.001, gevent.kill, gevent.getcurrent())


def throw_later() -> None:
    gevent.spawn_later(0.001, gevent.getcurrent().throw, ValueError("late"))


@pytest.mark.parametrize("leave", [start_timeout, kill_later, throw_later])
def test_what_a_job_leaves_behind_is_not_raised_in_another_job(
    leave: Callable[[], None], hub_errors: list[str]
) -> None:
    pool = small_pool(max_workers=1)
    for _ in range(3):  # the first one makes the hub of the worker
        pool.submit(leave).get()
        assert pool.submit(gevent.sleep, 0.01).get() is None
    assert pool.stats().faults == 0
    del hub_errors[:]  # as anywhere in gevent, the hub reports what is raised in a greenlet that has ended


def test_errors_of_its_hub_are_those_of_the_job() -> None:
    pool = small_pool(max_workers=1)
    for _ in range(2):
        with pytest.raises(LoopExit):
            pool.submit(lambda: gevent.get_hub().switch()).get()

        def exit_in_a_greenlet() -> None:
            gevent.spawn(sys.exit, 3)
            gevent.sleep(1)

        with pytest.raises(JobAborted, match="SystemExit: 3"):
            pool.submit(exit_in_a_greenlet).get()
    assert pool.submit(int, "3").get() == 3
    assert pool.stats().faults == 0


def test_a_job_may_destroy_its_hub() -> None:
    pool = small_pool(max_workers=1)

    def destroy() -> int:
        gevent.sleep(0)
        gevent.get_hub().destroy(destroy_loop=True)
        gevent.sleep(0)
        return 3

    assert [pool.submit(destroy).get() for _ in range(3)] == [3] * 3
    assert pool.submit(gevent.sleep, 0).get() is None
    assert pool.stats().faults == 0


def test_the_greenlet_of_a_worker_is_gone_with_its_thread() -> None:
    """Else greenlet looks for what refers to it, among all objects, each time a worker ends."""
    pool = small_pool(max_workers=1)
    main: list[ref[Any]] = []
    pool.submit(lambda: main.append(ref(getcurrent()))).get()
    workers = list(pool._workers.workers)
    dismiss(pool)
    assert [worker.greenlet for worker in workers] == [None]
    until(lambda: main[0]() is None)
