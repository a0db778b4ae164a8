"""A signal handler raises at every single step of a call to the pool, and no thread or greenlet hangs."""

from __future__ import annotations

import ctypes
import signal
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import gevent
import pytest

from greendata import stages
from greendata.errors import PoolClosed, PoolFull
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.result import Result
from greendata.hub.waker import HubWaker
from greendata.pool.pool import Pool
from greendata.tasks.caller import Caller, SerialQueue
from greendata.tasks.group import Group
from greendata.tasks.task import Task
from greendata.threads import parking
from tests.conftest import Gate
from tests.support.natives import Native, dismiss, in_a_plain_thread, settle_down, small_pool, until
from tests.support.processes import run_python
from tests.support.races import Interruption, in_hub, interrupted

LIMIT = 60.0  # seconds: longer than this counts as a hang


SUBMITS: dict[str, Callable[[Pool], Result[int]]] = {
    "plain": lambda pool: pool.submit(int, "3"),
    "key": lambda pool: pool.submit(int, "3", key=("tenant", 7)),
    "timeout": lambda pool: pool.submit(int, "3", timeout=LIMIT),
}


@pytest.mark.parametrize("way", SUBMITS)
@pytest.mark.parametrize("state", ["idle", "idle in its hub", "new", "all at work"])
def test_an_interrupted_submit_leaves_nothing(
    state: str, way: str, make_gate: Callable[[], Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "RETRY_INTERVAL", 0.01)  # of the worker that sleeps in its hub
    pool, waker = small_pool(max_workers=1), HubWaker.here(gevent.get_hub())
    results: list[Result[int]] = []
    held = make_gate()
    pool.submit(gevent.sleep if state == "idle in its hub" else int).get()
    until(lambda: not waker._holding)  # `get` may return before the hub has seen the outcome
    expected = waker.expected
    if state == "all at work":
        blocker = pool.submit(held)
        held.wait_arrived()
    steps = 0
    for step in interrupted(lambda: results.append(SUBMITS[way](pool))):
        steps = step
        if state == "new":
            pool.submit(int).get(timeout=LIMIT)
            settle_down(pool)
            dismiss(pool)
        elif state.startswith("idle"):
            assert pool.submit(int, "4").get(timeout=LIMIT) == 4
    assert steps > 100
    held.open()
    assert [result.get(timeout=LIMIT) for result in results] == [3]
    if state == "all at work":
        blocker.get(timeout=LIMIT)
    settle_down(pool)
    until(lambda: waker.expected <= expected)
    assert not waker._holding
    assert pool.drain(LIMIT) is True
    now = pool.stats()
    assert (now.queued, now.running, now.faults, now.failed, now.cancelled) == (0, 0, 0, 0, 0)
    assert now.workers <= 1


def test_an_interrupted_submit_that_is_refused_leaves_nothing(held: Gate) -> None:
    pool, waker = small_pool(max_workers=1, max_queue=1), HubWaker.here(gevent.get_hub())
    results = [pool.submit(held, number) for number in range(2)]
    held.wait_arrived()
    expected = waker.expected

    def submit(error: type[Exception]) -> None:
        with pytest.raises(error):
            pool.submit(int)

    for _ in interrupted(partial(submit, PoolFull)):
        assert (pool.stats().queued, pool.stats().running, waker.expected) == (1, 1, expected)
    pool._closed = True
    for _ in interrupted(partial(submit, PoolClosed)):
        assert (pool.stats().queued, pool.stats().running, waker.expected) == (1, 1, expected)
    pool.configure()
    held.open()
    assert [result.get(timeout=LIMIT) for result in results] == [0, 1]
    assert pool.submit(int).get(timeout=LIMIT) == 0


def test_a_submit_that_is_interrupted_twice() -> None:
    """The second signal comes while the submission is undone. `drain` finds what is left of it in the queue."""
    pool = small_pool(max_workers=1)
    pool.submit(int).get()

    def undo_put(job: object) -> bool:
        raise Interruption

    def submit() -> None:
        gevent.get_hub()
        for _ in interrupted(lambda: pool.submit(int)):
            pass

    pool._workers.undo_put = undo_put  # type: ignore[method-assign]
    Native(submit).join()
    assert pool.drain(LIMIT) is True
    assert (pool.stats().queued, pool.stats().running) == (0, 0)


def test_a_cancel_of_a_job_that_waits(make_gate: Callable[[], Gate]) -> None:
    pool, waiting, waker = small_pool(max_workers=1), [], HubWaker.here(gevent.get_hub())
    held, expected = make_gate(), waker.expected
    blocker = pool.submit(held)
    held.wait_arrived()
    jobs: list[Result[Any]] = []

    def cancel() -> None:
        job = jobs[-1]
        job.cancel()

    def next_job() -> None:
        jobs.append(pool.submit(int))
        waiting.append(gevent.spawn(jobs[-1].wait))
        waiting.append(gevent.spawn(Native(jobs[-1].wait).join))
        gevent.idle()

    next_job()
    for _ in interrupted(cancel):
        next_job()
    held.open()
    blocker.get(timeout=LIMIT)
    gevent.joinall(waiting, timeout=LIMIT, raise_error=True)
    assert all(greenlet.dead for greenlet in waiting)
    settle_down(pool)
    until(lambda: waker.expected <= expected)
    assert pool.drain(LIMIT) is True


def test_a_configure_and_a_drain() -> None:
    pool = small_pool(max_workers=2)
    for _ in interrupted(lambda: pool.configure(max_workers=2)):
        assert pool.submit(int, "3").get(timeout=LIMIT) == 3
    for _ in interrupted(lambda: pool.drain(0)):
        waiting = gevent.spawn(pool.drain, LIMIT)
        gevent.idle()
        assert waiting.get() is True
        pool.configure()
        assert pool.submit(int, "3").get(timeout=LIMIT) == 3


def test_calls_of_a_caller(caller: Caller) -> None:
    for _ in interrupted(lambda: caller.call_soon(int)):
        assert caller.call_soon(int, "3").get(timeout=LIMIT) == 3


def test_entries_for_another_hub() -> None:
    caller = Caller.new()
    entry_queue = caller.call_soon(EntryQueue.here).get(timeout=LIMIT)
    for _ in interrupted(lambda: entry_queue.post(int)):
        until(lambda: entry_queue.is_empty)
    caller.stop().get(timeout=LIMIT)


def test_a_stop_of_a_caller() -> None:
    made = [Caller.new()]

    def stop() -> None:
        made[-1].stop()

    for _ in interrupted(stop):
        made[-1].stop().get(timeout=LIMIT)  # does what is left to do
        made.append(Caller.new())
    made[-1].stop().get(timeout=LIMIT)


def test_members_of_a_group() -> None:
    with Group(timeout=LIMIT, on_error="collect") as group:
        for _ in interrupted(lambda: (group.spawn(int), group.run(int))):
            pass
        group.cancel()  # this also ends a member that never started
    assert group.pending == ()


def test_a_cancel_of_a_call_that_never_ends() -> None:
    caller = Caller.new()
    calls: list[Result[Any]] = []

    def begin() -> None:
        calls.append(caller.call_soon(gevent.sleep, 10 * LIMIT))
        waiting[:] = [gevent.spawn(calls[-1].wait), gevent.spawn(Native(calls[-1].wait).join)]
        gevent.idle()

    def cancel() -> None:
        calls[-1].cancel()

    waiting: list[gevent.Greenlet] = []
    begin()
    for _ in interrupted(cancel):
        cancel()  # unless that is decided
        gevent.joinall(waiting, timeout=LIMIT, raise_error=True)
        assert all(greenlet.dead for greenlet in waiting)
        begin()
    for call in calls:
        call.cancel_wait(timeout=LIMIT)
    caller.stop().get(timeout=LIMIT)


def test_a_cancel_of_a_group() -> None:
    groups: list[Group] = []

    def block() -> None:
        with Group() as group:
            group.spawn(gevent.sleep, LIMIT)
            groups.append(group)

    def cancel() -> None:
        groups[-1].cancel()

    waiting = gevent.spawn(block)
    gevent.idle()
    for _ in interrupted(cancel):
        cancel()  # does what is left to do
        waiting.get(timeout=LIMIT)
        waiting = gevent.spawn(block)
        gevent.idle()
    waiting.get(timeout=LIMIT)


class Alarm:
    """Signal handlers of every kind that Python can call."""

    @staticmethod
    def function(number: int, frame: object) -> None:
        raise Interruption

    def method(self, number: int, frame: object) -> None:
        raise Interruption

    __call__ = method


PROGRAM = """
    import signal
    import sys
    import gevent
    from greendata import run
    from greendata.hub import native
    from greendata.pool.job import Job
    from greendata.observe.listeners import add_listener
    from tests.hub.test_interrupted import Alarm, Interruption
    from tests.support.races import at, in_hub

    def listen(job):
        pass

    alarm = Alarm()
    signal.signal(signal.SIGALRM, {handler})
    add_listener(listen)
    hub, gate = gevent.get_hub(), native.allocate_lock()
    gate.acquire()
    result = run(gate.acquire)
    in_hub(hub, at("call", {called!r}, Job._on_owning_hub.__code__, lambda: signal.raise_signal(signal.SIGALRM)))
    gevent.spawn(gate.release)
    try:
        result.get(timeout=30)
    except Interruption:
        print("raised in the main greenlet,", run(int, "3").get(timeout=30), result.get(timeout=30))
"""


@pytest.mark.parametrize("handler", ["Alarm.function", "alarm.method", "alarm", "partial(Alarm.function)"])
def test_a_signal_while_the_hub_delivers_a_job(handler: str) -> None:
    """Its error interrupts the program, and is not reported as an error of the job."""
    check_program(handler, "notify_waiters")


def test_a_signal_while_a_listener_hears_of_a_job() -> None:
    check_program("alarm", "listen")


def check_program(handler: str, called: str) -> None:
    program = "from functools import partial\n" + textwrap.dedent(PROGRAM.format(handler=handler, called=called))
    finished = run_python(program)
    assert (finished.stdout, finished.stderr) == ("raised in the main greenlet, 3 True\n", "")


CALLS: dict[str, tuple[Callable[..., object], Callable[[], Result[int]]]] = {
    "a job": (HubWaker._deliver, lambda: small_pool().submit(int, "3")),
    "a call": (EntryQueue._deliver, lambda: Caller.current().call_soon(int, "3")),
    "a call from another thread": (
        HubWaker._deliver,
        lambda: in_a_plain_thread(partial(Caller.current().call_soon, int, "3")),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_signal_before_the_hub_begins_to_deliver(name: str, hub_errors: list[str]) -> None:
    """gevent reports the error, and the outcome comes with the next look."""
    deliver, submit = CALLS[name]
    ticker = gevent.spawn(until, lambda: False)  # the loop has something to do
    in_hub(gevent.get_hub(), raising_in(deliver))
    assert submit().get(timeout=LIMIT) == 3
    ticker.kill()
    assert "Interruption" in hub_errors.pop()


STEPS: tuple[Callable[..., object], ...] = (
    Task.start,
    Task._may_begin,
    Task._on_owning_hub,
    Result.detach,
    SerialQueue.take,
    SerialQueue._proceed,
    SerialQueue.note_end,
    Caller._on_end,
)


@pytest.mark.parametrize("func", STEPS)
def test_a_signal_while_the_hub_begins_or_ends_a_call(func: Callable[..., object], hub_errors: list[str]) -> None:
    here, called = Caller.current(), []
    ticker = gevent.spawn(until, lambda: False)  # the loop has something to do
    in_hub(gevent.get_hub(), raising_in(func))
    assert here.queue_call(called.append, 3).get(timeout=LIMIT) is None
    assert here.queue_call(called.append, 4).get(timeout=LIMIT) is None
    assert called == [3, 4]
    until(lambda: not here._calls)
    ticker.kill()
    assert "Interruption" in hub_errors.pop()


def raising_in(func: Callable[..., object]) -> Callable[[FrameType, str, Any], None]:
    """Return a hook for `sys.setprofile` that raises once, when *func* is called."""

    def stop(frame: FrameType, kind: str, _: Any) -> None:
        if kind == "call" and frame.f_code is func.__code__:  # type: ignore[attr-defined]
            sys.setprofile(None)
            raise Interruption

    return stop


def test_a_worker_of_a_stage_that_ends_before_its_first_step(hub_errors: list[str]) -> None:
    def stop(number: int, frame: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, stop)
    try:
        # The signal comes in C, when the hub starts the stage's greenlets. Python handles it in the first of them.
        for workers in (1, 3):
            numbers = range(3) | stages.map(int, workers=workers)
            gevent.get_hub().loop.run_callback(ctypes.CDLL(None)["raise"], int(signal.SIGALRM))
            with pytest.raises(Interruption):
                list(numbers)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert all("Interruption" in hub_errors.pop() for _ in range(2))  # gevent reports each greenlet that ends so
