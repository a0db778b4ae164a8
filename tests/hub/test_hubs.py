"""Hubs that are created and destroyed: those of plain threads and of callers, with work in flight."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager

import gevent
import pytest
from gevent.hub import Hub

import greendata
from greendata import stages
from greendata.errors import CallerStopped
from greendata.hub import native
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.outcome import Outcome
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.pool.pool import Pool
from greendata.pool.settings import Settings
from greendata.tasks.caller import Caller
from greendata.tasks.group import Group
from greendata.tasks.task import TaskResult
from tests.support.gates import Gate
from tests.support.natives import until
from tests.support.processes import run_python


class Value:
    """A value that a job takes or returns, such as a frame."""


def ended_thread(func: Callable[[], object]) -> None:
    """Run *func* in a plain thread; return after the thread has ended."""
    before = ended = native.thread_names().keys()
    failed: list[BaseException] = []

    def run() -> None:
        nonlocal ended
        me = native.get_native_id()
        ended = {me}
        try:
            func()
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            failed.append(error)

    native.start_thread(run, ())
    until(lambda: ended is not before and not ended & native.thread_names().keys())
    if failed:
        raise failed[0]


def in_a_group() -> None:
    with Group(timeout=30) as group:
        group.run(int)


def with_a_link() -> None:
    greendata.run(int).rawlink(print)


THREADS = {
    "a stage": lambda: list(range(3) | stages.map(abs, workers=2)),
    "a stage's get": lambda: (range(3) | stages.map(abs, on="native")).get(timeout=30),
    "a stream that is left": lambda: next(iter(range(300) | stages.map(abs, workers=2))),
    "a group": in_a_group,
    "a link": with_a_link,
    "its caller": lambda: Caller.current().call_soon(int).get(timeout=30),
    "an entry queue": EntryQueue.here,
}


def loops() -> set[int]:
    """Return the ids of all loops of hubs, including destroyed ones."""
    gc.collect()
    kind = type(gevent.get_hub().loop)
    return {id(thing) for thing in gc.get_objects() if type(thing) is kind}


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not show when a thread has ended")
@pytest.mark.parametrize("name", sorted(THREADS.keys() - {"a stream that is left"}))
def test_a_plain_thread_leaves_no_loop(name: str) -> None:
    """An abandoned stream has greenlets that wait forever, and greenlet frees none of a thread that has ended."""
    ended_thread(THREADS[name])  # initialise what is created only once
    before = len(loops())
    ended_thread(THREADS[name])
    until(lambda: len(loops()) <= before)


def test_a_worker_that_ends_leaves_no_loop() -> None:
    """Its hub had an entry queue, as every hub that waits for another thread has."""
    workers = Pool(Settings(max_workers=1))
    workers.configure(max_workers=2)
    gate = Gate()
    held = [workers.submit(hold_with_an_entry_queue, gate) for _ in range(2)]
    gate.wait_arrived(2)
    gate.open()
    made = {result.get() for result in held}
    assert len(made) == 2
    assert made <= loops()
    workers.configure(max_workers=1)
    until(lambda: len(made & loops()) == 1)


def hold_with_an_entry_queue(gate: Gate) -> int:
    """Return the id of the loop."""
    EntryQueue.here()
    gate()
    return id(gevent.get_hub().loop)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not show when a thread has ended")
@pytest.mark.parametrize("name", THREADS)
def test_a_plain_thread_leaves_no_descriptor(
    name: str, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    ended_thread(THREADS[name])  # initialise what is created only once
    with keeps_descriptors():
        for _ in range(3):
            ended_thread(THREADS[name])


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not show when a thread has ended")
def test_an_existing_hub_is_left_to_its_owner() -> None:
    hubs: list[Hub] = []

    def thread() -> None:
        hubs.append(gevent.get_hub())
        EntryQueue.here()

    ended_thread(thread)
    assert hubs[0].loop is not None
    hubs[0].destroy(destroy_loop=True)


@pytest.mark.parametrize("deadline", [None, 600.0])
def test_a_destroyed_hub_frees_its_jobs(held: Gate, deadline: float | None) -> None:
    gone: list[weakref.ref[object]] = []

    def job(argument: Value) -> Value:
        held()
        value = Value()
        gone.extend((weakref.ref(argument), weakref.ref(value)))
        return value

    def thread() -> None:
        hub = gevent.get_hub()
        pool.submit(job, Value(), timeout=deadline)
        held.wait_arrived()
        hub.destroy(destroy_loop=True)

    native.start_thread(thread, ())
    until(lambda: held.arrived)
    held.open()
    until(lambda: len(gone) == 2 and (gc.collect(), not any(ref() for ref in gone))[1])


def test_a_stopped_caller_leaves_nothing(held: Gate) -> None:
    gone: list[weakref.ref[object]] = []

    def job(argument: Value) -> Value:
        held()
        value = Value()
        gone.extend((weakref.ref(argument), weakref.ref(value)))
        return value

    with Caller.new(idle_after=600) as caller:
        caller.call_soon(lambda: greendata.run(job, Value())).get(timeout=30)
        gone.extend((weakref.ref(caller), weakref.ref(caller._entry_queue.hub)))
        caller.call_soon(gevent.sleep, 0).get(timeout=30)
    held.wait_arrived()
    del caller
    held.open()
    until(lambda: len(gone) == 4 and (gc.collect(), not any(ref() for ref in gone))[1])


def test_the_end_of_a_job_is_settled_even_if_its_hub_is_gone(held: Gate) -> None:
    ends: list[Outcome[None]] = []

    def thread() -> None:
        hub = gevent.get_hub()
        ends.append(greendata.run(held).end())
        held.wait_arrived()
        hub.destroy(destroy_loop=True)
        held.open()

    native.start_thread(thread, ())
    until(lambda: ends)
    ends[0].get(timeout=30)


def test_entries_for_a_destroyed_hub_are_dropped() -> None:
    queues: list[EntryQueue] = []
    value = Value()
    gone = weakref.ref(value)

    def thread() -> None:
        queues.append(EntryQueue.here())
        gevent.get_hub().destroy(destroy_loop=True)
        queues.append(queues[0])

    native.start_thread(thread, ())
    until(lambda: len(queues) == 2)
    queues[0].post(lambda value=value: value)  # type: ignore[misc]
    del value
    assert gone() is None


def test_a_caller_that_waits_for_its_idleness_ends_on_libuv() -> None:
    """libuv's loop keeps running while one of its timers is active."""
    pytest.importorskip("cffi", reason="gevent's libuv loop needs cffi")
    finished = run_python(
        """
        import greendata
        with greendata.Caller.new(idle_after=600) as caller:
            caller.child("child", idle_after=600).call_soon(int).get(timeout=30)
        print("ended")
        """,
        env={"GEVENT_LOOP": "libuv"},
        warnings="ignore",
    )
    assert finished == (0, "ended\n", "")


def test_a_hub_of_libuv_may_stop_expecting_what_has_been_sent_and_end() -> None:
    """There a watcher that is stopped after a send is reported as an error, and its loop cannot be destroyed."""
    pytest.importorskip("cffi", reason="gevent's libuv loop needs cffi")
    finished = run_python(
        """
        import gevent
        from greendata.hub.hubs import ensure_hub, destroy_hub
        from greendata.hub.waker import HubWaker
        from tests.support.natives import Native

        def serve():
            waker = HubWaker.here(ensure_hub())
            number = waker.expect(bool)
            waker.notify(number)
            waker.forget(number)
            gevent.sleep(0.001)
            waker.notify(waker.expect(bool))
            destroy_hub(waker.hub)
            return "ended"

        print(Native(serve).join())
        """,
        env={"GEVENT_LOOP": "libuv"},
        warnings="ignore",
    )
    assert finished == (0, "ended\n", "")


def test_a_result_that_is_never_decided_takes_its_links_with_it() -> None:
    waker = EntryQueue.here().waker
    before = waker.expected
    value = Value()
    gone = weakref.ref(value)
    Result[None]().rawlink(lambda _, value=value: value)  # type: ignore[misc]
    del value
    until(lambda: (gc.collect(), gone() is None and waker.expected <= before)[1])


def test_the_calls_of_a_destroyed_hub_fail_when_its_thread_gets_another() -> None:
    calls: list[TaskResult[object]] = []
    over = Gate()

    def thread() -> None:
        caller = Caller.current()
        calls.append(caller.call_soon(int))
        gevent.get_hub().destroy(destroy_loop=True)
        assert Caller.current() is not caller
        over()

    native.start_thread(thread, ())
    until(lambda: calls)
    with pytest.raises(CallerStopped):
        calls[0].get(timeout=30)
    over.open()


def test_watchers_of_libuv_are_closed_before_they_are_freed() -> None:
    """libuv uses the memory of a watcher until it is closed, or its loop is destroyed."""
    pytest.importorskip("cffi", reason="gevent's libuv loop needs cffi")
    finished = run_python(
        """
        import gc, os, time
        import gevent, gevent.event, greendata
        from gevent._ffi.watcher import watcher
        from greendata.hub.entry_queue import EntryQueue
        from greendata.hub.hubs import destroy_hub, ensure_hub
        from greendata.hub.waker import HubWaker
        from tests.support.natives import Native

        def report(self):
            if self._watcher and self.loop.ptr:
                print("not closed:", self, flush=True)

        watcher.__del__ = report

        def spin():
            ends = time.perf_counter() + 0.0007
            while time.perf_counter() < ends:
                pass

        def deliver_in_parts():
            here, done = EntryQueue.here(), gevent.event.Event()
            for _ in range(20):
                here.post(spin)
            here.post(done.set)
            done.wait()

        def drop_a_link():
            greendata.run(time.sleep, 0.001, timeout=100).rawlink(bool)

        def wait_until_late():
            result = greendata.run(time.sleep, 0.001, timeout=100)
            greendata.gather(result).get()
            with greendata.Group(timeout=100) as group:
                group.run(int)
            greendata.Caller.current().call_later(0.001, int).get()

        def work():
            for func in (deliver_in_parts, drop_a_link, wait_until_late):
                func()
                gc.collect()

        def work_and_leave():
            work()
            destroy_hub(ensure_hub())

        def fork():
            pending = greendata.run(time.sleep, 0.05, timeout=100)
            pid = os.fork()
            if not pid:
                del pending
                gc.collect()
                gevent.sleep(0.001)
                work()
                os._exit(0)
            pending.get()
            assert os.waitpid(pid, 0)[1] == 0

        work()
        Native(work_and_leave).join()
        fork()
        print("ended")
        """,
        env={"GEVENT_LOOP": "libuv"},
        warnings="ignore",
    )
    assert finished == (0, "ended\n", "")
