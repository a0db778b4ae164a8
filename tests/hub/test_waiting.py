"""Waiting for a result: in its owning hub, in other hubs, in threads without a hub; with timeouts, kills and crowds."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from gevent import Timeout

from greendata.errors import DeadlineExceeded, JobCancelled, ResultTimeout
from greendata.hub.result import Result
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool.pool import submit
from tests.conftest import Gate
from tests.support.natives import Native, get_ident, until

T = Result[object]


def in_own_hub(wait: Callable[[T], object]) -> Callable[[T], object]:
    """Return a function that calls *wait* in a greenlet of the calling thread's hub."""
    return lambda result: gevent.spawn(wait, result).get()


def expects_nothing() -> bool:
    waker = HubWaker.of_this_thread()
    return waker is not None and waker.expected == 0


def test_several_hubs_and_plain_threads_wait_for_one_result(held: Gate) -> None:
    result: T = submit(held, 42)
    hubless = [Native(lambda: (result.get(), get_hub_if_exists())) for _ in range(4)]
    with_hub = [Native(in_own_hub(lambda result: result.get()), result) for _ in range(4)]
    here = [gevent.spawn(result.get) for _ in range(4)]
    held.wait_arrived()
    held.open()
    assert [waiter.get() for waiter in here] == [42] * 4
    assert [thread.join() for thread in with_hub] == [42] * 4
    assert [thread.join() for thread in hubless] == [(42, None)] * 4  # and no hub was created


def test_the_error_is_the_same_object_for_all() -> None:
    result = submit(int, "x")

    def caught(_: T) -> BaseException:
        with pytest.raises(ValueError, match="invalid literal") as found:
            result.get()
        return found.value

    found = [caught(result), Native(caught, result).join(), Native(in_own_hub(caught), result).join()]
    assert found == [result.exception] * 3


def test_submitted_in_a_plain_thread_awaited_in_greenlets(held: Gate) -> None:
    result = Native(submit, held, 42).join()
    waiting = [gevent.spawn(result.get) for _ in range(3)]
    gevent.idle()
    held.open()
    assert [waiter.get() for waiter in waiting] == [42] * 3
    assert gevent.wait([result]) == [result]


@pytest.mark.parametrize("place", ["own hub", "other hub", "plain"])
def test_a_wait_given_up_leaves_the_work_to_the_others(held: Gate, place: str) -> None:
    result: T = submit(held, 42)
    held.wait_arrived()

    def give_up(result: T) -> tuple[bool, object]:
        try:
            result.get(timeout=0.01)
        except ResultTimeout as expired:
            return expired.result is result, result.wait(timeout=0.01)
        return False, "no timeout"

    ways = {"own hub": give_up, "other hub": in_own_hub(give_up), "plain": give_up}
    found = ways[place](result) if place == "own hub" else Native(ways[place], result).join()
    assert found == (True, None)
    held.open()
    assert result.get() == 42


def test_an_outer_timeout_is_not_confused_with_the_timeout_of_get(held: Gate) -> None:
    result = submit(held)
    with pytest.raises(Timeout) as caught, Timeout(0.01) as outer:
        result.get(timeout=60)
    assert caught.value is outer
    with Timeout(0.01, False):
        result.wait(timeout=60)
        pytest.fail("wait() swallowed an outer timeout")

    def elsewhere(result: T) -> bool:
        with pytest.raises(Timeout) as caught, Timeout(0.01) as outer:
            result.get(timeout=60)
        return caught.value is outer

    assert Native(in_own_hub(elsewhere), result).join()
    held.open()


def test_the_timeout_of_get_expires_within_a_longer_outer_timeout(held: Gate) -> None:
    result = submit(held)
    with Timeout(60), pytest.raises(ResultTimeout):
        result.get(timeout=0.01)
    held.open()


def test_a_timeout_object_is_raised_itself(held: Gate) -> None:
    result = submit(held)
    for get in (lambda timer: result.get(timeout=timer), lambda timer: result.get(True, timer)):
        timer = Timeout(0.01)
        with pytest.raises(Timeout) as caught:
            get(timer)
        assert caught.value is timer
        assert not timer.pending
    timer = Timeout(0.01)
    assert result.wait(timeout=timer) is None
    held.open()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_killed_waiter_leaves_nothing_behind(held: Gate, elsewhere: bool) -> None:  # noqa: FBT001
    result: T = submit(held, 42)

    def kill_one(_: T) -> tuple[object, bool, object]:
        killed, stays = gevent.spawn(result.get), gevent.spawn(result.get)
        gevent.idle()
        killed.kill()
        held.open()
        return stays.get(), killed.successful(), killed.value

    value, _, last_words = Native(kill_one, result).join() if elsewhere else kill_one(result)
    assert value == 42
    assert isinstance(last_words, gevent.GreenletExit)
    until(lambda: result.end().ready())
    until(expects_nothing)


def test_many_waiters_are_woken_each_once(held: Gate) -> None:
    result, woken = submit(held, 42), []
    waiting = [gevent.spawn(lambda number: woken.append((number, result.get())), number) for number in range(1000)]
    gevent.idle()
    held.open()
    gevent.joinall(waiting)
    assert sorted(woken) == [(number, 42) for number in range(1000)]


def test_a_waiter_that_fails_does_not_keep_the_others_asleep(held: Gate, hub_errors: list[str]) -> None:
    result = submit(held, 42)

    def fail() -> None:
        result.get()
        int("provoked")

    waiting = [gevent.spawn(fail), gevent.spawn(result.get), gevent.spawn(fail), gevent.spawn(result.get)]
    gevent.idle()
    held.open()
    gevent.joinall(waiting)
    assert [waiter.value for waiter in waiting[1::2]] == [42, 42]
    assert len(hub_errors) == 2
    hub_errors.clear()


def test_gevents_waits_in_another_hub(make_gate: Callable[[], Gate]) -> None:
    gates = [make_gate() for _ in range(3)]
    results = [submit(gate, number) for number, gate in enumerate(gates)]

    def elsewhere() -> list[object]:
        found: list[object] = [len(gevent.wait(results, timeout=0))]
        gates[1].open()
        found.append(gevent.wait(results, count=1) == [results[1]])
        found.append(expects_nothing())  # the links of the others were removed
        gates[0].open()
        gates[2].open()
        found.append(sorted(result.value for result in gevent.iwait(results)))  # type: ignore[type-var]
        found.append(gevent.joinall(results) == results)
        return [*found, expects_nothing()]

    assert Native(elsewhere).join() == [0, True, True, [0, 1, 2], True, True]


def test_links_of_another_hub_run_in_that_hub(held: Gate) -> None:
    result: T = submit(held, 42)

    def elsewhere() -> tuple[int, list[int], list[object]]:
        heard: list[int] = []
        dropped: list[object] = []
        gevent.get_hub()
        result.rawlink(lambda _: heard.append(get_ident()))
        result.rawlink(dropped.append)
        result.unlink(dropped.append)
        held.open()
        until(lambda: heard)
        result.rawlink(lambda _: heard.append(get_ident()))  # on a settled result
        until(lambda: len(heard) == 2)
        return get_ident(), heard, dropped

    ident, heard, dropped = Native(elsewhere).join()
    assert heard == [ident, ident]
    assert dropped == []


def test_a_link_of_another_hub_unlinked_between_outcome_and_delivery_is_not_called(held: Gate) -> None:
    result: T = submit(held, 42)
    held.wait_arrived()

    def elsewhere() -> list[object]:
        heard: list[object] = []
        gevent.get_hub()
        result.rawlink(heard.append)
        held.open()
        while not result.ready():  # without running this hub
            pass
        result.unlink(heard.append)
        assert expects_nothing()
        gevent.idle()
        return heard

    assert Native(elsewhere).join() == []


def test_an_error_in_a_link_of_another_hub_is_reported_and_the_rest_is_called(
    held: Gate, hub_errors: list[str]
) -> None:
    result: T = submit(held, 42)

    def elsewhere() -> list[object]:
        heard: list[object] = []
        gevent.get_hub()
        result.rawlink(lambda _: int("provoked"))
        result.rawlink(heard.append)
        held.open()
        until(lambda: heard)
        return heard

    assert Native(elsewhere).join() == [result]
    until(lambda: hub_errors)
    assert "provoked" in hub_errors.pop()


@pytest.mark.parametrize("ending", ["destroyed", "ended"])
def test_a_result_whose_owning_hub_is_gone(held: Gate, ending: str) -> None:
    def leave() -> T:
        gevent.get_hub()
        result: T = submit(held, 42)
        held.wait_arrived()
        if ending == "destroyed":
            gevent.get_hub().destroy(destroy_loop=True)
        return result

    result = Native(leave).join()
    waiting = [gevent.spawn(result.get), gevent.spawn(gevent.wait, [result])]
    gevent.idle()
    held.open()
    assert [waiter.get() for waiter in waiting] == [42, [result]]
    assert submit(int, "3").get() == 3


def test_waiters_enforce_the_deadline_of_a_result_whose_owning_hub_is_gone(make_gate: Callable[[], Gate]) -> None:
    gate = make_gate()

    def leave() -> T:
        gevent.get_hub()
        result: T = submit(gate, timeout=0.05)
        gevent.get_hub().destroy(destroy_loop=True)
        return result

    for wait in (
        lambda result: result.get(),
        lambda result: Native(result.get).join(),
        lambda result: gevent.wait([result]) and result.get(),
    ):
        with pytest.raises(DeadlineExceeded):
            wait(Native(leave).join())
    gate.open()


def test_a_result_settled_by_another_thread_wakes_its_own_hub(held: Gate) -> None:
    result: T = submit(held)
    waiting = gevent.spawn(result.wait)
    gevent.idle()
    assert Native(result.cancel).join() is True
    waiting.join()
    with pytest.raises(JobCancelled):
        result.get(block=False)
    held.open()


def test_a_settable_result_crosses_threads() -> None:
    def signal_then_wait(result: Result[int], ready: Result[bool]) -> int:
        ready.set(True)
        return result.get(timeout=60)  # without a timeout, gevent sees a hub that nothing can wake

    for wait in (signal_then_wait, lambda *results: gevent.spawn(signal_then_wait, *results).get()):
        result: Result[int] = Result()
        ready: Result[bool] = Result()
        thread = Native(wait, result, ready)
        assert ready.get(timeout=60)
        result.set(42)
        assert thread.join() == 42
