"""The doorbell: rung from native threads it calls on the hub's thread, holds the loop open, and survives errors."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest
from gevent.event import AsyncResult

from greendata.hub.waker import TURN, Bridge
from tests.support.natives import Native, get_ident, until


@pytest.fixture
def bridge() -> Bridge:
    return Bridge.here(gevent.get_hub())


def take_back(bridge: Bridge, *numbers: int) -> None:
    for number in numbers:
        bridge.forget(number)


def test_the_callback_runs_on_the_hubs_thread(bridge: Bridge) -> None:
    answer: AsyncResult[int] = AsyncResult()
    number = bridge.expect(lambda: answer.set(get_ident()))
    Native(bridge.ring, number).join()
    assert answer.get(timeout=30) == get_ident()
    take_back(bridge, number)


def test_a_hub_has_one_bridge_and_each_hub_its_own(bridge: Bridge) -> None:
    assert Bridge.here(gevent.get_hub()) is bridge
    assert Bridge.of_this_thread() is bridge
    assert bridge.is_here
    assert Native(lambda: bridge.is_here).join() is False
    assert Native(lambda: Bridge.here(gevent.get_hub()) is bridge).join() is False


def test_a_thread_without_a_hub_has_none_and_gets_none() -> None:
    def look() -> object:
        return Bridge.of_this_thread(), Bridge.of_this_thread()

    assert Native(look).join() == (None, None)


def test_waiting_for_a_ring_is_no_dead_end() -> None:
    """A greenlet that only a native thread will wake gets no LoopExit, in a loop that has nothing else to do."""

    def wait() -> str:
        bridge = Bridge.here(gevent.get_hub())
        answer: AsyncResult[str] = AsyncResult()
        number = bridge.expect(lambda: answer.set("rung"))
        ringer = Native(bridge.ring, number)
        value = answer.get()
        ringer.join()
        take_back(bridge, number)
        return value

    assert Native(wait).join() == "rung"


def test_a_loop_with_nothing_expected_ends() -> None:
    def join() -> tuple[bool, bool]:
        hub = gevent.get_hub()
        bridge = Bridge.here(hub)
        forgotten = bridge.expect(lambda: None)
        take_back(bridge, forgotten)
        released = bridge.expect(lambda: None)  # it may still ring, but nobody waits for it
        bridge.release(released)
        ended = hub.join()
        bridge.forget(released)
        return ended, hub.join()

    assert Native(join).join() == (True, True)


def test_many_numbers_in_one_ring_come_in_order(bridge: Bridge) -> None:
    heard: list[int] = []
    numbers = [bridge.expect(lambda index=index: heard.append(index)) for index in range(5000)]  # type: ignore[misc]

    def ring_all() -> None:
        for number in numbers:
            bridge.ring(number)

    Native(ring_all).join()
    until(lambda: len(heard) == len(numbers))
    assert heard == list(range(5000))
    take_back(bridge, *numbers)


def test_the_loop_polls_between_two_turns_of_callbacks(bridge: Bridge) -> None:
    order: list[str] = []

    def take_the_whole_turn() -> None:
        order.append("first")
        gevent.spawn(order.append, "greenlet")
        end = monotonic() + TURN
        while monotonic() < end:
            pass

    first, second = bridge.expect(take_the_whole_turn), bridge.expect(lambda: order.append("second"))
    bridge.ring(first)
    bridge.ring(second)
    until(lambda: "second" in order)
    assert order == ["first", "greenlet", "second"]
    take_back(bridge, first, second)


def test_an_error_in_a_callback_is_told_once_and_the_rest_is_delivered(bridge: Bridge, hub_errors: list[str]) -> None:
    heard: list[str] = []
    bad = bridge.expect(lambda: int("provoked"))
    good = bridge.expect(lambda: heard.append("good"))
    for number in (good, bad, good, bad, good):
        bridge.ring(number)
    until(lambda: len(heard) == 3 and len(hub_errors) == 2)
    assert all("provoked" in hub_errors.pop() for _ in range(2))
    take_back(bridge, bad, good)


def test_a_ring_that_comes_too_late_finds_nobody(bridge: Bridge) -> None:
    heard: list[str] = []
    stays = bridge.expect(lambda: heard.append("stays"))
    gone = bridge.expect(lambda: heard.append("gone"))
    bridge.ring(gone)
    take_back(bridge, gone)
    bridge.ring(gone)
    bridge.ring(stays)
    until(lambda: heard)
    assert heard == ["stays"]
    take_back(bridge, stays)
    bridge.ring(stays)  # also with nothing expected at all


def test_a_hub_that_is_gone_makes_it_a_no_op() -> None:
    def leave() -> tuple[Bridge, int]:
        bridge = Bridge.here(gevent.get_hub())
        number = bridge.expect(lambda: None)
        gevent.get_hub().destroy(destroy_loop=True)
        return bridge, number

    bridge, number = Native(leave).join()
    bridge.ring(number)
    take_back(bridge, number)


def test_a_new_hub_in_a_thread_gets_a_new_bridge() -> None:
    def renew() -> bool:
        first = Bridge.here(gevent.get_hub())
        first.hub.destroy(destroy_loop=True)
        assert Bridge.of_this_thread() is None
        return Bridge.here(gevent.get_hub()) is not first

    assert Native(renew).join()


def test_numbers_of_a_bridge_that_was_reset_do_not_count_for_the_next() -> None:
    """In a child after a fork: what held a number before releases it when it is dropped."""

    def fork_without_fork() -> str:
        before = Bridge.here(gevent.get_hub())
        number = before.expect(lambda: None)
        before.reset()
        bridge = Bridge.here(gevent.get_hub())
        answer: AsyncResult[str] = AsyncResult()
        mine = bridge.expect(lambda: answer.set("rung"))
        take_back(before, number)
        ringer = Native(bridge.ring, mine)
        value = answer.get()  # with the count wrong this is a LoopExit
        ringer.join()
        take_back(bridge, mine)
        return value

    assert Native(fork_without_fork).join() == "rung"


def test_repr_tells_what_is_out(bridge: Bridge) -> None:
    number = bridge.expect(lambda: None)
    assert f"{bridge.expected} expected, " in repr(bridge)
    take_back(bridge, number)
