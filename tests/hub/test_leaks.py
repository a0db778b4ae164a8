"""After 100 000 jobs there are no more descriptors, threads, watchers or hubs than before, and no job is kept alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from time import monotonic

import gevent
import pytest
from gevent.hub import Hub

from greendata.hub import native
from greendata.hub.result import Result
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool.job import Job
from greendata.pool.pool import configure, stats, submit
from greendata.tasks.caller import Caller
from greendata.tasks.group import Group
from greendata.tasks.waiting import gather
from tests.support.gates import Gate, rest
from tests.support.natives import Native, until

JOBS = 100_000
BATCH = 1000
GUARD = 10.0  # seconds: limit for workers to release their last job


def alive(kind: type[object]) -> int:
    return sum(isinstance(found, kind) for found in gc.get_objects())


def left_since(before: dict[type[object], int]) -> dict[type[object], int]:
    """Return how many more objects of each kind exist than *before*."""
    gc.collect()
    return {kind: alive(kind) - count for kind, count in before.items()}


def run_some(count: int) -> None:
    """Run jobs that succeed, fail, are cancelled or are dropped, some with deadlines. Greenlets wait for them."""

    def wait(number: int) -> None:
        timeout = 60 if number % 5 == 0 else None
        result = submit(int, "x" if number % 7 == 0 else "1", timeout=timeout, key=number % 11)
        if number % 13 == 0:
            result.cancel()
        elif number % 17:
            result.wait(60 if number % 3 == 0 else None)

    for _ in range(count // BATCH):
        gevent.joinall([gevent.spawn(wait, number) for number in range(BATCH)])


def expected_here() -> int:
    waker = HubWaker.here(gevent.get_hub())
    return waker.expected


def settled(expected: int) -> bool:
    """Return True if nothing is in flight but the *expected* numbers, which others in this thread have registered."""
    return expected_here() <= expected and not stats().running and not stats().queued


@pytest.fixture
def two_workers() -> Iterator[None]:
    before = configure().max_workers
    configure(max_workers=2)
    yield
    configure(max_workers=before)


@pytest.mark.guard(300)
@pytest.mark.usefixtures("two_workers")
def test_a_hundred_thousand_jobs_leave_nothing(
    keeps_descriptors: Callable[[], AbstractContextManager[None]],
) -> None:
    others = expected_here()
    run_some(BATCH)
    until(lambda: settled(others) and stats().workers <= 2)
    gc.collect()
    watchers = gevent.get_hub().loop.activecnt
    threads = len(native.thread_names())
    before = {kind: alive(kind) for kind in (Job, Result, Hub, gevent.Greenlet, gevent.Timeout)}
    with keeps_descriptors():
        done = stats()
        run_some(JOBS)
        until(lambda: settled(others))
    ran = stats()
    assert (ran.done + ran.failed + ran.cancelled) - (done.done + done.failed + done.cancelled) == JOBS
    assert ran.workers <= 2
    assert len(native.thread_names()) <= threads + 3  # two workers, and one that watches for stuck jobs
    end = monotonic() + GUARD
    while max((left := left_since(before)).values()) > 0 and monotonic() < end:
        rest()  # a worker that has counted its job may hold it for a moment
    assert max(left.values()) <= 0, left
    assert gevent.get_hub().loop.activecnt <= watchers


def test_threads_with_hubs_of_their_own_leave_nothing(
    keeps_descriptors: Callable[[], AbstractContextManager[None]],
) -> None:
    def work() -> int:
        gevent.get_hub()
        return sum(submit(int, "1").get() for _ in range(20))

    assert Native(work).join() == 20
    with keeps_descriptors():
        assert [thread.join() for thread in [Native(work) for _ in range(10)]] == [20] * 10


def test_threads_without_a_hub_get_none() -> None:
    def work() -> object:
        results = [submit(int, "1") for _ in range(100)]
        return sum(result.get(timeout=60) for result in results), get_hub_if_exists()

    assert Native(work).join() == (100, None)


class Kept:
    """An object that a job holds."""


def late(gate: Gate, kept: Kept) -> int:
    """Return once *gate* is open."""
    gate()
    return id(kept)


def call_that_fails(kept: Kept) -> Result[object]:
    def fail() -> None:
        raise ValueError(kept)

    return Caller.current().call_soon(fail)


@pytest.mark.parametrize(
    "begin",
    [
        call_that_fails,
        lambda kept: gather(submit(lambda: kept)),
        lambda kept: gather(call_that_fails(kept)),
        lambda kept: submit(lambda: kept),
    ],
    ids=["call", "gather", "gather a failure", "job"],
)
def test_finished_jobs_are_freed_without_the_collector(begin: Callable[[Kept], Result[object]]) -> None:
    """There is no reference cycle, so frames and connections do not live until the next collection."""
    gc.collect()
    gc.disable()
    try:
        kept = Kept()
        known = weakref.ref(kept)
        begin(kept).wait()
        del kept
        until(lambda: known() is None)
    finally:
        gc.enable()


def wait_for_all(results: list[Result[object]]) -> None:
    """Wait for *results* in a group."""
    with Group() as group:
        for result in results:
            group.add(result)
    results.clear()


@pytest.mark.parametrize(
    "begin",
    [
        lambda gate, kept: submit(late, gate, kept),
        lambda gate, kept: submit(lambda: gate(kept)),
        lambda gate, kept: Caller.current().call_soon(id, kept),
        lambda gate, kept: Caller.current().call_soon(lambda: kept),
        lambda gate, kept: gather(submit(late, gate, kept)),
        lambda gate, kept: wait_for_all([submit(late, gate, kept)]),
    ],
    ids=["job", "value", "call", "value of a call", "gather", "wait"],
)
def test_a_greenlet_that_waited_holds_the_last_reference_to_the_job(
    begin: Callable[[Gate, Kept], Result[object]], make_gate: Callable[[], Gate]
) -> None:
    """It continues inside the hub's callbacks, whose frames must hold no reference to what it waited for."""
    found = []

    def wait_and_look() -> None:
        kept, gate = Kept(), make_gate()
        known = weakref.ref(kept)
        gevent.spawn(gate.open)  # this runs once the current greenlet waits
        result = begin(gate, kept)
        if isinstance(result, Result):
            result.get(timeout=60)
        del kept, result
        found.append(known())

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            gevent.spawn(wait_and_look).get()
    finally:
        gc.enable()
    assert found == [None] * 3
