"""Garbage collection with paced work: deferred during slices, done afterwards, and under the user's settings."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from greendata.hub import collector
from greendata.hub.collector import deferred
from greendata.hub.pacing import gathered, paced, sliced
from tests.support.gates import Gate
from tests.support.natives import Native
from tests.support.processes import run_python

MANY = 10_000  # objects: more than any default first threshold of Python


class Knot:
    """An object in a reference cycle, which only the collector can free."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    found = gc.get_threshold()
    yield
    gc.enable()
    gc.set_threshold(*found)


@pytest.fixture
def begun() -> Iterator[list[str]]:
    """A list to which the test appends its progress, and each collection its generation."""
    seen: list[str] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            seen.append(f"generation {info['generation']}")

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def many(number: int) -> list[list[int]]:
    return [[number] for _ in range(MANY)]


def lost_in_a_slice() -> weakref.ref[Knot]:
    """Create a knot that becomes garbage in a slice of many objects; return a weak reference to it."""
    refs: list[weakref.ref[Knot]] = []

    def make(number: int) -> list[list[int]]:
        refs.append(weakref.ref(Knot()))
        return many(number)

    paced(make, [1])
    return refs[0]


@pytest.mark.parametrize("budget", [0.0, 60.0])
def test_no_collection_begins_in_a_slice(begun: list[str], budget: float) -> None:
    def make(number: int) -> list[list[int]]:
        begun.append("in")
        made = many(number)
        begun.append("out")
        return made

    paced(make, range(3), budget=budget)
    assert [after for before, after in pairwise(begun) if before == "in"] == ["out"] * 3


def test_garbage_of_a_slice_is_collected_at_its_end() -> None:
    assert lost_in_a_slice()() is None


def test_garbage_of_others_is_collected_at_the_end_of_a_slice() -> None:
    gc.collect()  # none begins now while the knot is in use, which would make it old
    knot = weakref.ref(Knot())
    list(sliced(lambda start, length: many(start), 1))
    assert knot() is None


def test_small_slices_are_counted() -> None:
    """A request that creates a few objects, in a slice or not, counts toward the next collection."""
    gc.collect()
    knots = []
    for _ in range(3 * gc.get_threshold()[0]):
        knots.append(weakref.ref(Knot()))
        gathered(lambda start, length: [[start]] * length, 3)
    assert sum(knot() is not None for knot in knots) <= 2 * gc.get_threshold()[0]


def test_what_outlived_a_slice_is_collected_before_a_later_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SHARE` is 0, so a full collection is always due."""
    monkeypatch.setattr(collector, "SHARE", 0)
    knot = Knot()
    paced(many, range(3), budget=0.0)
    gone = weakref.ref(knot)
    del knot
    paced(many, range(3), budget=0.0)
    paced(str, [1])
    assert gone() is None


def test_a_stream_collects_between_its_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "SHARE", 0)
    slices = sliced(lambda start, length: many(start), 10_000, budget=0.0)
    next(slices)
    knot = Knot()
    next(slices)
    gone = weakref.ref(knot)
    del knot
    next(slices)
    next(slices)
    assert gone() is None


def test_no_full_collection_comes_while_objects_pile_up() -> None:
    """In a separate process, where few objects are old: the new ones grow to many times their number."""
    finished = run_python(
        """
        import gc
        from greendata.hub.pacing import gathered
        gc.collect()
        full = []
        gc.callbacks.append(lambda phase, info: phase == "start" and info["generation"] == 2 and full.append(1))
        rows = gathered(lambda start, length: [[n] for n in range(20 * length)], 50_000)
        print(len(rows), len(full))
        del full[:]
        plain = [[n] for n in range(1_000_000)]
        print(len(full) > 0)
        """
    )
    assert finished == (0, "1000000 0\nTrue\n", "")


def test_an_error_leaves_the_collector_as_it_was() -> None:
    found = gc.get_threshold()
    with pytest.raises(ZeroDivisionError):
        paced(lambda number: 1 // number, [1, 0, 1])
    with pytest.raises(ZeroDivisionError):
        list(sliced(lambda start, _: 1 // start, 3))
    assert gc.isenabled()
    assert gc.get_threshold() == found


def test_between_slices_it_is_as_it_was() -> None:
    found = gc.get_threshold()
    between = {gc.get_threshold() for _ in sliced(lambda *_: None, 500, budget=0.0)}
    assert between == {found}


# -- the user's settings --------------------------------------------------------------------------------


def test_a_collector_that_is_off_stays_off(begun: list[str]) -> None:
    gc.disable()
    assert lost_in_a_slice()() is not None
    assert begun == []
    assert not gc.isenabled()


def test_a_threshold_of_zero_is_off(begun: list[str]) -> None:
    gc.set_threshold(0)
    assert lost_in_a_slice()() is not None
    assert begun == []
    assert gc.get_threshold()[0] == 0


def test_off_in_a_slice_stays_off(begun: list[str]) -> None:
    paced(lambda number: (gc.disable(), many(number)), [1])
    assert not gc.isenabled()
    assert begun == []


def test_off_in_another_thread_stays_off() -> None:
    def elsewhere(_: int) -> None:
        done = Gate()
        Native(lambda: (gc.disable(), done.open()))
        done()

    paced(elsewhere, [1])
    assert not gc.isenabled()


def test_on_in_a_slice_stays_on() -> None:
    gc.disable()
    paced(lambda _: gc.enable(), [1])
    assert gc.isenabled()


def test_a_threshold_that_is_set_in_a_slice_stays() -> None:
    paced(lambda _: gc.set_threshold(1234, 5, 6), [1])
    assert gc.get_threshold() == (1234, 5, 6)


def test_what_was_frozen_stays_frozen() -> None:
    """In a separate process, because frozen objects stay frozen for the rest of it."""
    finished = run_python(
        """
        import gc
        from greendata.hub.pacing import gathered
        def work():
            gathered(lambda start, length: [[n] for n in range(20 * length)], 10_000)
        work()
        print(gc.get_freeze_count())
        gc.freeze()
        frozen = gc.get_freeze_count()
        work()
        print(frozen - 100 < gc.get_freeze_count() <= frozen)
        """
    )
    assert finished == (0, "0\nTrue\n", "")


# -- several threads ------------------------------------------------------------------------------------


def test_collection_is_deferred_until_the_last_of_several_threads_is_done() -> None:
    found, held = gc.get_threshold(), Gate()
    other = Native(paced, held, [1])
    held.wait_arrived()
    paced(str, [1])
    assert gc.get_threshold()[0] == collector.DEFERRED
    held.open()
    other.join()
    assert gc.get_threshold() == found


def test_a_slice_whose_end_was_interrupted_is_forgotten_at_the_next() -> None:
    """A signal handler that raises can interrupt it so."""
    found = gc.get_threshold()
    slice_ = deferred()
    slice_.__enter__()
    paced(str, [1])
    assert gc.get_threshold() == found
    slice_.__exit__(None, None, None)
    assert gc.get_threshold() == found


def test_a_child_that_is_forked_meanwhile_collects() -> None:
    finished = run_python(
        """
        import gc, os
        from greendata.hub import native
        from greendata.hub.pacing import paced
        found = gc.get_threshold()
        within, over = native.allocate_lock(), native.allocate_lock()
        within.acquire(), over.acquire()
        native.start_thread(paced, (lambda _: (within.release(), over.acquire()), [1]))
        within.acquire()
        print(gc.get_threshold() == found, flush=True)
        if not (child := os.fork()):
            print(gc.get_threshold() == found, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    assert finished == (0, "False\nTrue\n", "")
