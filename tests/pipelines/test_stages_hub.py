"""Pipelines and the hub: sockets and timers are served, and idle greenlets cost nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue

from greendata.pipelines import stages
from tests.support.gates import rest
from tests.support.processes import run_python


@pytest.mark.parametrize("on", ["greenlet", "inline"])
@pytest.mark.parametrize("kind", [stages.map, stages.filter, stages.flat_map, stages.each])
def test_the_hub_polls_while_trivial_functions_run(kind: Any, on: Any) -> None:
    """The source ends when a timer fires, which never happens if the loop does not poll."""
    rung: list[str] = []
    timer = gevent.spawn_later(0.001, rung.append, "rung")
    source = itertools.takewhile(lambda _: not rung, itertools.count())
    kind(lambda x: (), source, workers=4, on=on, maxsize=0).run()
    assert rung
    timer.join()


def test_an_idle_pipeline_does_not_turn_the_loop() -> None:
    inbox: Queue[int] = Queue()
    chain: Any = iter(inbox.get, None)
    for _ in range(50):
        chain = stages.map(lambda x: x + 1, chain, workers=2)
    stream = iter(chain | stages.ordered())
    consumer = gevent.spawn(next, stream)
    inbox.put(0)
    assert consumer.get() == 50
    turns: list[str] = []
    polls = gevent.get_hub().loop.check(ref=False)
    polls.start(turns.append, "turn")
    rest(0.05)
    polls.stop()
    assert len(turns) <= 5
    stream.close()


def test_workers_work_at_the_same_time() -> None:
    """Each worker waits for the others; with one worker less they would wait forever."""
    here: list[int] = []
    everybody = Event()

    def meet(x: int) -> int:
        here.append(x)
        if len(here) == 10:
            everybody.set()
        everybody.wait()
        return x

    assert sorted(stages.map(meet, range(10), workers=10, maxsize=1)) == list(range(10))


def test_a_slow_element_holds_nothing_that_another_worker_could_do() -> None:
    door = Event()
    stream = iter(stages.map(lambda x: x if x else x * door.wait(), range(20), workers=2))
    assert list(itertools.islice(stream, 19)) == list(range(1, 20))
    door.set()
    assert list(stream) == [0]


def test_elements_come_before_the_source_ends() -> None:
    def endless() -> Iterator[int]:
        yield from range(3)
        Event().wait()

    with stages.to_iterable(endless() | stages.map(abs, workers=2) | stages.ordered()) as stream:
        assert list(itertools.islice(stream, 3)) == [0, 1, 2]


def test_an_endless_source_keeps_the_window_only() -> None:
    """Memory use: the number of elements alive at any time, over many windows."""
    finished = run_python("""
        import gc, itertools
        from greendata.pipelines import stages
        class Element:
            alive = most = 0
            def __init__(self, n):
                Element.alive += 1
                Element.most = max(Element.most, Element.alive)
            def __del__(self):
                Element.alive -= 1
        chain = stages.map(Element, workers=4) | stages.ordered(window=100)
        for _ in itertools.islice(itertools.count() | chain, 50_000):
            pass
        print(Element.most <= 100 + 5)
    """)
    assert finished == (0, "True\n", "")


def test_importing_starts_nothing() -> None:
    finished = run_python("""
        import sys, gevent
        import greendata.pipelines.stages
        from gevent._hub_local import get_hub_if_exists
        print(get_hub_if_exists(), "tqdm" in sys.modules)
    """)
    assert finished == (0, "None False\n", "")
