"""Pacing: the loop keeps running during long work in a greenlet."""

from __future__ import annotations

import gevent

from greendata.hub import native
from greendata.hub.pacing import breathe, gathered, paced, release_gil, sliced, sliced_by_time


def test_timers_that_are_due_run_between_slices() -> None:
    fired: list[int] = []
    timer = gevent.get_hub().loop.timer(0.0)
    timer.start(lambda: fired.append(1))
    try:
        counts = paced(lambda _: len(fired), range(100), budget=0.0)
    finally:
        timer.close()
    assert counts[0] == 0
    assert counts[-1] == 1


def test_one_slice_is_not_interrupted() -> None:
    turns: list[int] = []
    greenlet = gevent.spawn(turns.append, 1)
    assert paced(lambda _: len(turns), range(50), budget=60.0) == [0] * 50
    greenlet.join()


def test_without_a_hub_there_is_nothing_to_wait_for() -> None:
    results: list[object] = []
    ended = native.allocate_lock()
    ended.acquire()

    def plain_thread() -> None:
        breathe()
        results.append(paced(str, range(2), budget=0.0))
        ended.release()

    native.start_thread(plain_thread, ())
    assert ended.acquire(True, 30)
    assert results == [["0", "1"]]


def test_in_the_hub_itself_it_does_not_wait() -> None:
    done = gevent.event.Event()
    gevent.get_hub().loop.run_callback(lambda: (breathe(), done.set()))
    assert done.wait(timeout=30)


def test_slices_cover_everything_once() -> None:
    for count in (0, 1, 63, 64, 65, 1000):
        for budget in (0.0, 60.0):
            slices = list(sliced(lambda start, length: range(start, start + length), count, budget=budget))
            assert [number for some in slices for number in some] == list(range(count))


def test_slices_that_end_early_cover_everything_once() -> None:
    """Their next length follows from what they did, not from what they were given."""
    given: list[tuple[int, int]] = []

    def some(start: int, length: int, _ends: float) -> tuple[int, range]:
        given.append((start, length))
        done = length if start < 64 else 1
        return done, range(start, start + done)

    for count in (0, 1, 64, 70):
        given.clear()
        assert [number for part in sliced_by_time(some, count) for number in part] == [*range(count)]
    assert given == [(0, 64), (64, 6), (65, 2), (66, 2), (67, 2), (68, 2), (69, 1)]


def test_slices_are_put_together_in_order() -> None:
    for count in (0, 1, 1000):
        assert gathered(lambda start, length: list(range(start, start + length)), count, budget=0.0) == [*range(count)]


def test_slices_of_large_items_are_halved() -> None:
    sizes = [1] * 200 + [50] * 5 + [1_000] + [1] * 30

    def is_small(start: int, length: int) -> bool:
        return sum(sizes[start : start + length]) <= 100

    done = list(sliced(lambda start, length: sizes[start : start + length], len(sizes), is_small=is_small))
    assert [size for some in done for size in some] == sizes
    assert all(len(some) == 1 or sum(some) <= 100 for some in done)
    assert max(map(len, done)) > 30
    assert gathered(lambda start, length: sizes[start : start + length], len(sizes), is_small=is_small) == sizes


def test_slices_follow_the_budget() -> None:
    assert [len(some) for some in sliced(lambda _, length: [0] * length, 1000, budget=60.0)] == [64, 128, 256, 512, 40]
    lengths = [len(some) for some in sliced(lambda _, length: [0] * length, 100, budget=0.0)]
    assert lengths == [64] + [1] * 36


def test_the_hub_runs_while_a_thread_releases_the_gil() -> None:
    turns: list[int] = []
    over: list[int] = []

    def work() -> None:
        while not turns:
            release_gil()
        over.append(1)

    native.start_thread(work, ())
    gevent.spawn(turns.append, 1)
    while not over:
        gevent.sleep(0.001)
