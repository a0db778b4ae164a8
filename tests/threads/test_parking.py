"""The parking lot: no wakeup is lost, and a loop stays open while another thread may wake its greenlets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

import gevent
import pytest
from gevent.exceptions import BlockingSwitchOutError

from greendata.hub import native
from greendata.threads import parking
from greendata.threads.locks import Event, SimpleQueue
from greendata.threads.parking import ParkingLot
from tests.conftest import PATCHED, Gate, run_python
from tests.support.natives import Native, until
from tests.support.races import Interruption, at, interrupted
from tests.support.wakers import WAKERS


class Coins:
    """A resource to wait for: coins, of which each waiter takes one."""

    def __init__(self) -> None:
        self.lot = ParkingLot()
        self.is_open = True
        self._coins: list[object] = []

    def give(self) -> None:
        self._coins.append(None)
        self.lot.wake_one()

    def take(self) -> bool:
        if not self.is_open:
            return False
        try:
            self._coins.pop()
        except IndexError:
            return False
        return True

    def wait(self, timeout: float | None = None) -> bool:
        return self.lot.wait(self.take, timeout, elsewhere=True)


@pytest.fixture
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter tries when it is woken only. One that retries may be the first to see what another is woken for."""
    monkeypatch.setattr(parking, "RETRY_INTERVAL", 3600.0)
    monkeypatch.setattr(parking, "_local", native.Local())  # hubs that have waited before have a time for a retry


@pytest.mark.usefixtures("_no_retries")
@pytest.mark.parametrize("giver", ["thread", "greenlet"])
def test_greenlets_and_threads_wait_in_one_lot_and_are_served_in_turn(giver: str) -> None:
    coins, served = Coins(), list[str]()

    def take(name: str) -> None:
        coins.wait()
        served.append(name)

    for name in "abcdef":
        if name in "ace":
            Native(take, name)
        else:
            gevent.spawn(take, name)
        until(lambda name=name: len(coins.lot) > "abcdef".index(name))  # type: ignore[misc]
    for count in range(1, 7):
        if giver == "thread":
            Native(coins.give).join()
        else:
            coins.give()
        until(lambda count=count: len(served) == count)  # type: ignore[misc]
    assert served == list("abcdef")
    assert not coins.lot


def in_another_hub(wait: Callable[[], object]) -> None:
    Native(lambda: gevent.spawn(wait).join())


@pytest.mark.parametrize("start", [gevent.spawn, in_another_hub, Native], ids=["greenlet", "another hub", "thread"])
def test_a_signal_handler_that_raises_in_the_waking_thread_loses_no_wakeup(
    start: Callable[[Callable[[], object]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "RETRY_INTERVAL", 0.01)
    monkeypatch.setattr(parking, "CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(parking, "_local", native.Local())  # hubs that have waited before have a slow timer
    coins, served, steps = Coins(), list[None](), 0

    def wait() -> None:
        coins.wait()
        served.append(None)

    def give() -> None:
        coins.is_open = False  # a waiter that retries now would be gone before the step at which it is woken
        try:
            coins.give()
        finally:
            coins.is_open = True

    start(wait)
    until(lambda: coins.lot)
    for step in interrupted(give):
        steps = step
        until(lambda step=step: len(served) == step)  # type: ignore[misc]
        start(wait)
        until(lambda: coins.lot)
    assert steps > 10
    until(lambda: len(served) == steps + 1)


@pytest.mark.usefixtures("_no_retries")
@pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout])
def test_a_wakeup_of_one_who_leaves_goes_to_the_next(error: type[BaseException]) -> None:
    coins = Coins()

    def wait() -> bool | None:
        with suppress(gevent.Timeout):
            return coins.wait()
        return None

    first, second = gevent.spawn(wait), gevent.spawn(wait)
    until(lambda: len(coins.lot) == 2)
    first.kill(error(), block=False)
    coins.give()  # before the hub runs: the first is woken, and killed before it can take a coin
    assert second.get(timeout=20)
    assert not isinstance(first.value, bool)


def test_a_waiter_that_a_signal_handler_interrupts_after_its_wakeup_passes_it_on() -> None:
    def stop() -> None:
        raise Interruption

    coins = Coins()
    second = gevent.spawn(coins.wait)  # begins once this greenlet, the first, waits
    gevent.spawn(gevent.spawn, coins.give)
    sys.setprofile(at("return", "sleep", ParkingLot._wait.__code__, stop))
    with pytest.raises(Interruption):
        coins.wait()
    gevent.idle()
    assert second.ready()
    assert not coins.lot


def test_nothing_is_taken_for_a_waiter_that_a_signal_handler_interrupts_while_it_leaves() -> None:
    coins, run_callback = Coins(), gevent.get_hub().loop.run_callback
    coins.wait(timeout=0.001)  # makes what the hub keeps about waiters

    def take_one() -> None:
        coins.give()
        coins.wait()

    for _ in interrupted(take_one):
        coins.take()  # if it is still there
        coins.give()
        run_callback(parking._local.hub_waiters._retry)
        gevent.idle()
        assert coins.take()
        waiter = gevent.spawn(coins.wait)
        gevent.idle()
        coins.give()
        gevent.idle()
        assert waiter.ready()


def test_a_wakeup_looks_at_one_waiter_however_many_are_being_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    coins, looks, wake = Coins(), list[object](), parking._WaitingGreenlet.wake

    def counted(waiter: parking._WaitingGreenlet) -> bool:
        looks.append(waiter)
        return wake(waiter)

    monkeypatch.setattr(parking._WaitingGreenlet, "wake", counted)
    waiters = [gevent.spawn(coins.wait) for _ in range(100)]
    until(lambda: len(coins.lot) == 100)
    for _ in waiters:  # before the hub runs
        coins.give()
    assert len(looks) == 100
    gevent.joinall(waiters)
    assert len(looks) == 100


def test_a_hub_that_does_not_run_keeps_one_wakeup_and_no_more(held: Gate) -> None:
    coins = Coins()

    def wait_beside_native_work() -> bool:
        waiter = gevent.spawn(coins.wait)
        gevent.sleep(0)
        held()
        return waiter.get()

    thread = Native(wait_beside_native_work)
    held.wait_arrived()
    second = gevent.spawn(coins.wait)
    until(lambda: len(coins.lot) == 2)
    coins.give()
    coins.give()
    assert second.get()
    held.open()
    assert thread.join()


def test_a_timeout_that_passes_leaves_nobody_in_the_lot() -> None:
    coins = Coins()
    assert not coins.wait(timeout=0)
    assert not coins.wait(timeout=0.001)
    assert Native(coins.wait, 0.001).join() is False
    assert not coins.lot
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
        coins.wait(timeout=50)
    assert not coins.lot


def test_a_loop_with_nothing_else_to_do_runs_while_another_thread_has_the_resource() -> None:
    code = """
        from tests.threads.test_parking import Coins
        import gevent
        from greendata.hub import native
        coins = Coins()
        native.start_thread(lambda: (native.sleep(0.05), coins.give()), ())
        print(coins.wait())
    """
    assert run_python(code) == (0, "True\n", "")


def test_a_wakeup_by_a_thread_that_has_ended_is_not_lost() -> None:
    """The wakeup is pending when the hub checks for other threads. Its delivery is delayed, as on a busy machine."""
    code = """
        import sys
        from tests.threads.test_parking import Coins
        import gevent
        from greendata.hub import waker
        from greendata.hub import native
        from greendata.threads import parking
        from tests.support.gates import Gate

        deliver, slices = waker.HubWaker._deliver, iter([-1.0, -1.0])

        def deliver_late(self):
            turn, waker.TURN = waker.TURN, next(slices, waker.TURN)  # its time is over when it begins
            deliver(self)
            waker.TURN = turn

        waker.HubWaker._deliver = deliver_late
        coins, gate, original = Coins(), Gate(), parking._others_may_wake

        def look():
            gate.open()
            while len(sys._current_frames()) > 1:
                native.sleep(0.001)
            return original()

        parking._others_may_wake = look
        native.start_thread(lambda: (gate(), coins.give()), ())
        gate.wait_arrived()
        print(coins.wait())
    """
    assert run_python(code) == (0, "True\n", "")


def test_a_wait_that_no_thread_can_end_is_a_loop_exit() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import queue, threading, gevent, greendata
        greendata.run(int).get()
        gevent.get_hub().threadpool.apply(int)  # its thread stays alive, and so does the worker
        lock = threading.Lock(); lock.acquire()
        for wait in lock.acquire, queue.Queue().get, queue.SimpleQueue().get, threading.Event().wait:
            try: wait()
            except gevent.exceptions.LoopExit: print("LoopExit")
        print(lock._lot)
    """
    assert run_python(code) == (0, "LoopExit\n" * 4 + "ParkingLot([])\n", "")


@pytest.mark.parametrize("start", ["result = greendata.run(gate)", "native.start_thread(gate, ())"])
def test_a_wait_is_a_loop_exit_when_the_last_thread_ends_without_a_wakeup(start: str) -> None:
    code = f"""
        from gevent import monkey; monkey.patch_all()
        import threading, gevent, greendata
        from greendata.hub import native
        from greendata.threads import parking
        from tests.support.gates import Gate

        greendata.run(int).get()
        original, gate = parking._others_may_wake, Gate()

        def look():
            seen = original()
            gate.open()
            print(seen) if seen is not look.seen else None
            look.seen = seen
            return seen

        look.seen, parking._others_may_wake = None, look
        {start}
        gate.wait_arrived()
        if "result" in globals(): result.cancel()
        try: threading.Event().wait()
        except gevent.exceptions.LoopExit: print("LoopExit")
    """
    assert run_python(code) == (0, "True\nFalse\nLoopExit\n", "")


@pytest.mark.skipif(PATCHED, reason="each test runs in a separate process, which the run without patch covers")
@pytest.mark.parametrize("waker", WAKERS)
def test_a_main_hub_with_nothing_else_to_do_waits_for(waker: str) -> None:
    assert run_python(["-m", "tests.support.wakers", waker]) == (0, "all\n", "")


def test_the_hub_greenlet_itself_waits_only_for_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "HUB_PATIENCE", 0.001)
    coins, seen = Coins(), list[type[BaseException]]()

    def in_the_hub() -> None:
        try:
            coins.wait()
        except BlockingSwitchOutError as error:
            seen.append(type(error))

    gevent.get_hub().loop.run_callback(in_the_hub)
    until(lambda: seen)
    assert not coins.lot
    monkeypatch.setattr(parking, "HUB_PATIENCE", 50.0)
    Native(lambda: (until_parked(coins), coins.give()))
    gevent.get_hub().loop.run_callback(lambda: seen.append(type(coins.wait())))  # type: ignore[arg-type]
    until(lambda: len(seen) == 2)
    assert seen == [BlockingSwitchOutError, bool]


def until_parked(coins: Coins) -> None:
    while not coins.lot:
        native.sleep(0.0005)


def test_a_forked_child_wakes_its_own_greenlets_and_not_the_parents_threads() -> None:
    code = """
        import os, gevent
        from greendata.hub import native
        from tests.threads.test_parking import Coins, until_parked
        coins = Coins()
        native.start_thread(coins.wait, ())
        until_parked(coins)
        waiter = gevent.spawn(coins.wait)
        gevent.sleep(0)
        assert len(coins.lot) == 2
        gevent.get_hub().loop.install_sigchld()  # otherwise gevent misses a child that ends before it watches
        child = gevent.os.fork()
        if not child:
            coins.give()
            os._exit(0 if waiter.get(timeout=20) else 1)
        _, status = gevent.os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        coins.give(); coins.give()
        print(waiter.get())
    """
    assert run_python(code, warnings="ignore") == (0, "0\nTrue\n", "")


def test_events_and_queues_behave_like_the_standard_librarys() -> None:
    event, items = Event(), SimpleQueue()
    assert event.wait(0) is False
    event.set()
    assert event.wait() is True
    event.clear()
    assert not event.is_set()
    with pytest.raises(native.Empty):
        items.get(block=False)
    with pytest.raises(native.Empty):
        items.get(timeout=0.001)
    with pytest.raises(ValueError, match="non-negative"):
        items.get(timeout=-1)
    items.put_nowait(1)
    assert (items.get_nowait(), items.qsize(), items.empty()) == (1, 0, True)


def test_an_event_that_was_set_for_a_moment_wakes_all_that_waited() -> None:
    event = Event()
    thread, waiter = Native(event.wait, 50), gevent.spawn(event.wait, 50)
    until(lambda: len(event._lot) == 2)
    event.set()
    event.clear()
    assert thread.join() is waiter.get() is True
