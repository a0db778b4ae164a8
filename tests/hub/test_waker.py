"""The doorbell: rung from native threads it calls on the hub's thread, holds the loop open, and survives errors."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest
from gevent.event import AsyncResult

from greendata.hub.waker import TURN, HubWaker
from tests.support.natives import Native, get_ident, until


@pytest.fixture
def waker() -> HubWaker:
    return HubWaker.here(gevent.get_hub())


def take_back(waker: HubWaker, *numbers: int) -> None:
    for number in numbers:
        waker.forget(number)


def test_the_callback_runs_on_the_hubs_thread(waker: HubWaker) -> None:
    answer: AsyncResult[int] = AsyncResult()
    number = waker.expect(lambda: answer.set(get_ident()))
    Native(waker.notify, number).join()
    assert answer.get(timeout=30) == get_ident()
    take_back(waker, number)


def test_a_hub_has_one_bridge_and_each_hub_its_own(waker: HubWaker) -> None:
    assert HubWaker.here(gevent.get_hub()) is waker
    assert HubWaker.of_this_thread() is waker
    assert waker.is_here
    assert Native(lambda: waker.is_here).join() is False
    assert Native(lambda: HubWaker.here(gevent.get_hub()) is waker).join() is False


def test_a_thread_without_a_hub_has_none_and_gets_none() -> None:
    def look() -> object:
        return HubWaker.of_this_thread(), HubWaker.of_this_thread()

    assert Native(look).join() == (None, None)


def test_waiting_for_a_ring_is_no_dead_end() -> None:
    """A greenlet that only a native thread will wake gets no LoopExit, in a loop that has nothing else to do."""

    def wait() -> str:
        waker = HubWaker.here(gevent.get_hub())
        answer: AsyncResult[str] = AsyncResult()
        number = waker.expect(lambda: answer.set("rung"))
        ringer = Native(waker.notify, number)
        value = answer.get()
        ringer.join()
        take_back(waker, number)
        return value

    assert Native(wait).join() == "rung"


def test_a_loop_with_nothing_expected_ends() -> None:
    def join() -> tuple[bool, bool]:
        hub = gevent.get_hub()
        waker = HubWaker.here(hub)
        forgotten = waker.expect(lambda: None)
        take_back(waker, forgotten)
        released = waker.expect(lambda: None)  # it may still ring, but nobody waits for it
        waker.release(released)
        ended = hub.join()
        waker.forget(released)
        return ended, hub.join()

    assert Native(join).join() == (True, True)


def test_many_numbers_in_one_ring_come_in_order(waker: HubWaker) -> None:
    heard: list[int] = []
    numbers = [waker.expect(lambda index=index: heard.append(index)) for index in range(5000)]  # type: ignore[misc]

    def ring_all() -> None:
        for number in numbers:
            waker.notify(number)

    Native(ring_all).join()
    until(lambda: len(heard) == len(numbers))
    assert heard == list(range(5000))
    take_back(waker, *numbers)


def test_the_loop_polls_between_two_turns_of_callbacks(waker: HubWaker) -> None:
    order: list[str] = []

    def take_the_whole_turn() -> None:
        order.append("first")
        gevent.spawn(order.append, "greenlet")
        end = monotonic() + TURN
        while monotonic() < end:
            pass

    first, second = waker.expect(take_the_whole_turn), waker.expect(lambda: order.append("second"))
    waker.notify(first)
    waker.notify(second)
    until(lambda: "second" in order)
    assert order == ["first", "greenlet", "second"]
    take_back(waker, first, second)


def test_an_error_in_a_callback_is_told_once_and_the_rest_is_delivered(waker: HubWaker, hub_errors: list[str]) -> None:
    heard: list[str] = []
    bad = waker.expect(lambda: int("provoked"))
    good = waker.expect(lambda: heard.append("good"))
    for number in (good, bad, good, bad, good):
        waker.notify(number)
    until(lambda: len(heard) == 3 and len(hub_errors) == 2)
    assert all("provoked" in hub_errors.pop() for _ in range(2))
    take_back(waker, bad, good)


def test_a_ring_that_comes_too_late_finds_nobody(waker: HubWaker) -> None:
    heard: list[str] = []
    stays = waker.expect(lambda: heard.append("stays"))
    gone = waker.expect(lambda: heard.append("gone"))
    waker.notify(gone)
    take_back(waker, gone)
    waker.notify(gone)
    waker.notify(stays)
    until(lambda: heard)
    assert heard == ["stays"]
    take_back(waker, stays)
    waker.notify(stays)  # also with nothing expected at all


def test_a_hub_that_is_gone_makes_it_a_no_op() -> None:
    def leave() -> tuple[HubWaker, int]:
        waker = HubWaker.here(gevent.get_hub())
        number = waker.expect(lambda: None)
        gevent.get_hub().destroy(destroy_loop=True)
        return waker, number

    waker, number = Native(leave).join()
    waker.notify(number)
    take_back(waker, number)


def test_a_new_hub_in_a_thread_gets_a_new_bridge() -> None:
    def renew() -> bool:
        first = HubWaker.here(gevent.get_hub())
        first.hub.destroy(destroy_loop=True)
        assert HubWaker.of_this_thread() is None
        return HubWaker.here(gevent.get_hub()) is not first

    assert Native(renew).join()


def test_numbers_of_a_bridge_that_was_reset_do_not_count_for_the_next() -> None:
    """In a child after a fork: what held a number before releases it when it is dropped."""

    def fork_without_fork() -> str:
        before = HubWaker.here(gevent.get_hub())
        number = before.expect(lambda: None)
        before.reset()
        waker = HubWaker.here(gevent.get_hub())
        answer: AsyncResult[str] = AsyncResult()
        mine = waker.expect(lambda: answer.set("rung"))
        take_back(before, number)
        ringer = Native(waker.notify, mine)
        value = answer.get()  # with the count wrong this is a LoopExit
        ringer.join()
        take_back(waker, mine)
        return value

    assert Native(fork_without_fork).join() == "rung"


def test_repr_tells_what_is_out(waker: HubWaker) -> None:
    number = waker.expect(lambda: None)
    assert f"{waker.expected} expected, " in repr(waker)
    take_back(waker, number)
