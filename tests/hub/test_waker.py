"""`HubWaker`: native threads notify it, callbacks run in the hub's thread, and it holds the loop open."""

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


def forget_all(waker: HubWaker, *numbers: int) -> None:
    for number in numbers:
        waker.forget(number)


def test_the_callback_runs_on_the_hubs_thread(waker: HubWaker) -> None:
    answer: AsyncResult[int] = AsyncResult()
    number = waker.expect(lambda: answer.set(get_ident()))
    Native(waker.notify, number).join()
    assert answer.get(timeout=30) == get_ident()
    forget_all(waker, number)


def test_each_hub_has_one_waker(waker: HubWaker) -> None:
    assert HubWaker.here(gevent.get_hub()) is waker
    assert HubWaker.of_this_thread() is waker
    assert waker.is_here
    assert Native(lambda: waker.is_here).join() is False
    assert Native(lambda: HubWaker.here(gevent.get_hub()) is waker).join() is False


def test_a_thread_without_a_hub_has_none_and_gets_none() -> None:
    def look() -> object:
        return HubWaker.of_this_thread(), HubWaker.of_this_thread()

    assert Native(look).join() == (None, None)


def test_waiting_for_a_notify_holds_the_loop_open() -> None:
    """A greenlet that only a native thread will wake gets no LoopExit, even if its loop has nothing else to do."""

    def wait() -> str:
        waker = HubWaker.here(gevent.get_hub())
        answer: AsyncResult[str] = AsyncResult()
        number = waker.expect(lambda: answer.set("notified"))
        notifier = Native(waker.notify, number)
        value = answer.get()
        notifier.join()
        forget_all(waker, number)
        return value

    assert Native(wait).join() == "notified"


def test_a_loop_with_nothing_expected_ends() -> None:
    def join() -> tuple[bool, bool]:
        hub = gevent.get_hub()
        waker = HubWaker.here(hub)
        forgotten = waker.expect(lambda: None)
        forget_all(waker, forgotten)
        released = waker.expect(lambda: None)  # it may still be notified, but nothing waits for it
        waker.release(released)
        ended = hub.join()
        waker.forget(released)
        return ended, hub.join()

    assert Native(join).join() == (True, True)


def test_many_numbers_in_one_wakeup_come_in_order(waker: HubWaker) -> None:
    heard: list[int] = []
    numbers = [waker.expect(lambda index=index: heard.append(index)) for index in range(5000)]  # type: ignore[misc]

    def notify_all() -> None:
        for number in numbers:
            waker.notify(number)

    Native(notify_all).join()
    until(lambda: len(heard) == len(numbers))
    assert heard == list(range(5000))
    forget_all(waker, *numbers)


def test_the_loop_polls_between_two_slices_of_callbacks(waker: HubWaker) -> None:
    order: list[str] = []

    def use_the_whole_slice() -> None:
        order.append("first")
        gevent.spawn(order.append, "greenlet")
        end = monotonic() + TURN
        while monotonic() < end:
            pass

    first, second = waker.expect(use_the_whole_slice), waker.expect(lambda: order.append("second"))
    waker.notify(first)
    waker.notify(second)
    until(lambda: "second" in order)
    assert order == ["first", "greenlet", "second"]
    forget_all(waker, first, second)


def test_an_error_in_a_callback_is_reported_once_and_the_rest_is_called(waker: HubWaker, hub_errors: list[str]) -> None:
    heard: list[str] = []
    bad = waker.expect(lambda: int("provoked"))
    good = waker.expect(lambda: heard.append("good"))
    for number in (good, bad, good, bad, good):
        waker.notify(number)
    until(lambda: len(heard) == 3 and len(hub_errors) == 2)
    assert all("provoked" in hub_errors.pop() for _ in range(2))
    forget_all(waker, bad, good)


def test_a_notify_of_a_forgotten_number_does_nothing(waker: HubWaker) -> None:
    heard: list[str] = []
    stays = waker.expect(lambda: heard.append("stays"))
    gone = waker.expect(lambda: heard.append("gone"))
    waker.notify(gone)
    forget_all(waker, gone)
    waker.notify(gone)
    waker.notify(stays)
    until(lambda: heard)
    assert heard == ["stays"]
    forget_all(waker, stays)
    waker.notify(stays)  # also when nothing at all is expected


def test_a_notify_of_a_destroyed_hub_does_nothing() -> None:
    def leave() -> tuple[HubWaker, int]:
        waker = HubWaker.here(gevent.get_hub())
        number = waker.expect(lambda: None)
        gevent.get_hub().destroy(destroy_loop=True)
        return waker, number

    waker, number = Native(leave).join()
    waker.notify(number)
    forget_all(waker, number)


def test_a_new_hub_in_a_thread_gets_a_new_waker() -> None:
    def renew() -> bool:
        first = HubWaker.here(gevent.get_hub())
        first.hub.destroy(destroy_loop=True)
        assert HubWaker.of_this_thread() is None
        return HubWaker.here(gevent.get_hub()) is not first

    assert Native(renew).join()


def test_numbers_of_a_waker_that_was_reset_do_not_count_for_the_next() -> None:
    """In the child of a fork, an object that held a number of the old waker releases it when it is freed."""

    def fork_without_fork() -> str:
        before = HubWaker.here(gevent.get_hub())
        number = before.expect(lambda: None)
        before.reset()
        waker = HubWaker.here(gevent.get_hub())
        answer: AsyncResult[str] = AsyncResult()
        mine = waker.expect(lambda: answer.set("notified"))
        forget_all(before, number)
        notifier = Native(waker.notify, mine)
        value = answer.get()  # a wrong count raises LoopExit here
        notifier.join()
        forget_all(waker, mine)
        return value

    assert Native(fork_without_fork).join() == "notified"


def test_repr_shows_how_many_are_expected(waker: HubWaker) -> None:
    number = waker.expect(lambda: None)
    assert f"{waker.expected} expected, " in repr(waker)
    forget_all(waker, number)
