"""Many queries over a few children, while others kill, stop and confuse these children."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

import greendata
from greendata.engines.children import Child
from greendata.engines.process import ProcessEngine
from greendata.errors import DeadlineExceeded, JobCancelled, WorkerDied
from greendata.hub import native
from tests.support.natives import Native, until

QUERIES = int(os.environ.get("CHAOS_QUERIES", "100"))


def children_of_this_process() -> Counter[str]:
    """Return the states of the child processes by letter, as /proc has them."""
    states: Counter[str] = Counter()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid():
                states[state] += 1
    return states


class Tormentor:
    """A thread that kills, stops and confuses the children of an engine until it is told to end."""

    def __init__(self, engine: ProcessEngine) -> None:
        self._engine = engine
        self._is_over = False
        self._thread = Native(self._run)

    def end(self) -> None:
        self._is_over = True
        self._thread.join()

    def _run(self) -> None:
        chance = random.Random(1)
        while not self._is_over:
            native.sleep(chance.uniform(0.0, 0.1))
            if children := [*self._engine._children.busy, *self._engine._children.idle]:
                self._strike(chance, chance.choice(children))

    def _strike(self, chance: random.Random, child: Child) -> None:
        with child._lock, suppress(OSError):  # its process id stays its own meanwhile
            if child.is_gone:
                return
            if chance.random() < 0.2:
                child._sock.send(b"\x08\0\0\0\0\0\0\0garbage!")
            else:
                blow = chance.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
                signal.pidfd_send_signal(child._process, blow)


def submit(engine: ProcessEngine, number: int) -> greendata.Result[pl.DataFrame]:
    """Submit a query; a tenth of them has no time, another tenth is cancelled."""
    query = pl.LazyFrame().select(pl.int_range(20_000 + number).sum())
    result = greendata.collect(query, engine=engine, timeout=0.05 if number % 10 == 0 else 60)
    if number % 10 == 5:
        result.cancel()
    return result


def outcome_of(number: int, result: greendata.Result[pl.DataFrame]) -> str:
    try:
        value = result.get().item()
    except (WorkerDied, JobCancelled, DeadlineExceeded) as error:
        return type(error).__name__
    finally:
        result.end().get()
    return "right" if value == sum(range(20_000 + number)) else f"wrong: {value}"


@pytest.mark.once("unpatched")  # the children are the same, and so are the threads that use them
def test_every_result_settles_once_and_rightly_while_children_are_killed_stopped_and_confused() -> None:
    before = children_of_this_process().total()
    with ProcessEngine(workers=4) as engine:
        tormentor = Tormentor(engine)
        results = [submit(engine, number) for number in range(QUERIES)]
        outcomes = Counter(outcome_of(number, result) for number, result in enumerate(results))
        tormentor.end()
        assert outcomes.keys() <= {"right", "WorkerDied", "JobCancelled", "DeadlineExceeded"}
        assert outcomes.total() == QUERIES

        for _ in range(5):
            with suppress(WorkerDied):  # the last strikes
                engine.call(abs, -1)
        assert engine.call(abs, -1) == 1
        folders = [child._spill for child in (*engine._children.busy, *engine._children.idle)]
    assert not any(Path(folder).exists() for folder in folders)
    until(lambda: children_of_this_process().total() == before)
