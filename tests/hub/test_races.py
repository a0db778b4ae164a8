"""Interruptions between two steps of a result or a waker: no waiter stays asleep, and no link is lost."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import gevent
import pytest
from gevent.event import AsyncResult

from greendata.hub.result import Result
from greendata.hub.waker import HubWaker
from greendata.pool.pool import submit
from greendata.tasks.group import Group
from greendata.tasks.waiting import gather
from greendata.web.scope import RequestScope
from tests.conftest import Gate, run_python
from tests.support.natives import Native, in_a_plain_thread, until
from tests.support.races import at, before, in_hub


def test_a_link_removed_during_delivery_leaves_no_waiter_asleep(held: Gate, make_gate: Callable[[], Gate]) -> None:
    """A plain thread unlinks the callback that the owning hub is about to take. The waiters come after it."""
    hub = gevent.get_hub()
    result, heard, taken_back = submit(held, 42), [], make_gate()
    in_a_plain_thread(lambda: result.rawlink(heard.append))

    def unlink() -> None:
        result.unlink(heard.append)
        taken_back.open()

    def take_back() -> None:
        Native(unlink)
        taken_back()

    in_hub(hub, at("c_call", "pop", Result.notify_waiters.__code__, take_back))
    waiting = [gevent.spawn(result.get) for _ in range(2)]
    gevent.idle()
    held.open()
    assert [waiter.get() for waiter in waiting] == [42, 42]
    assert taken_back.is_open
    assert heard == []


def test_an_error_of_a_link_that_is_called_at_once_is_raised_in_rawlink() -> None:
    result = submit(int, "3")
    result.get()
    with pytest.raises(ValueError, match="invalid literal"):
        in_a_plain_thread(lambda: result.rawlink(lambda _: int("provoked")))


def test_a_plain_thread_removes_no_link_of_the_owning_hub(held: Gate) -> None:
    gevent.get_hub()
    result, heard = submit(held, 42), []
    result.rawlink(heard.append)
    in_a_plain_thread(lambda: result.unlink(heard.append))
    held.open()
    until(lambda: heard)
    assert heard == [result]


def test_a_fork_while_another_thread_asks_for_an_end() -> None:
    """No thread in the child would release the lock that it holds at that moment."""
    finished = run_python(
        """
import os, signal
from greendata.hub.result import Result
from tests.support.gates import Gate
from tests.support.natives import Native

class Slow(str):
    def __format__(self, spec):
        return gate("slow")

gate = Gate()
asking = Native(Result(Slow()).end)
gate.wait_arrived()
child = os.fork()
if not child:
    signal.alarm(20)
    Result().end().get()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
gate.open()
asking.join()
""",
        warnings="ignore",
    )
    assert finished == (0, "0\n", "")


def test_a_signal_handler_that_waits_while_the_watcher_is_stopped() -> None:
    def wait() -> str:
        waker = HubWaker.here(gevent.get_hub())
        answer: AsyncResult[str] = AsyncResult()
        numbers = [waker.expect(bool)]

        def handle_signal() -> None:
            numbers.append(waker.expect(lambda: answer.set("notified")))
            Native(waker.notify, numbers[-1])

        sys.settrace(before("watcher.stop()", HubWaker._settle, handle_signal))
        waker.forget(numbers[0])
        value = answer.get()
        waker.forget(numbers[1])
        return value

    assert Native(wait).join() == "notified"


def test_a_plain_thread_waits_for_all_until_they_are_notified(make_gate: Callable[[], Gate]) -> None:
    """The last result is ready, but the thread that settled it has not settled the gathered result yet."""
    held, notifying = make_gate(), make_gate()

    def plain() -> list[object]:
        job = submit(held, 42)
        job.add_callback(notifying)
        gathered = gather(job)
        held.open()
        while not notifying.arrived:
            pass
        sys.setprofile(at("call", "wait_native", Result._await.__code__, notifying.open))
        return gathered.get()

    assert in_a_plain_thread(plain) == [42]


@pytest.mark.parametrize("allocations", range(4))
def test_what_the_collector_takes_while_members_are_listed(allocations: int) -> None:
    """A finalizer may run wherever an object is created: results of a request die, and members of a group end."""
    scope, group = RequestScope(None), Group()
    kept, dying = [Result[int]() for _ in range(40)], [Result[int]() for _ in range(40)]
    for result in (*kept, *dying):
        scope.adopt(result)

    def finalize(phase: str, _: object) -> None:
        if phase == "start" and dying:
            group.remove(dying.pop())

    with group:
        for result in (*kept, *dying):
            group.add(result)
        made: list[object] = []
        gc.collect()
        thresholds = gc.get_threshold()
        gc.callbacks.append(finalize)
        gc.set_threshold(1)
        try:
            made.extend([] for _ in range(allocations))
            pending = group.pending
            scope.cancel("over")
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(finalize)
    assert set(pending) >= set(kept)
    assert all(result.cancelled() for result in kept)
    assert len(dying) < 40
