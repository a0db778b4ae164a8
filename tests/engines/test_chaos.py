"""Many queries over a few children, while others kill, stop and confuse these children."""

from __future__ import annotations

import gc
import os
import random
import signal
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import greendata
from greendata.engines.children import Child
from greendata.engines.process import ProcessEngine
from greendata.errors import DeadlineExceeded, JobCancelled, WorkerDied
from greendata.hub import native
from tests.support.natives import Native, until
from tests.support.processes import run_python

QUERIES = int(os.environ.get("CHAOS_QUERIES", "50"))


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
    """A thread that kills, stops or confuses a random child of an engine for every two results that are settled."""

    def __init__(self, engine: ProcessEngine, results: list[greendata.Result[Any]]) -> None:
        self._engine = engine
        self._results = results
        self.strikes = 0
        self._thread = Native(self._run)

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        chance = random.Random(1)
        while (settled := sum(result.ready() for result in self._results)) < len(self._results):
            children = [*self._engine._children.busy, *self._engine._children.idle]
            if settled >= 2 * self.strikes and children:
                self.strikes += 1
                self._strike(chance, chance.choice(children))
            native.sleep(0.001)

    def _strike(self, chance: random.Random, child: Child) -> None:
        with child._lock, suppress(OSError):  # its process id stays its own meanwhile
            if child.is_gone:
                return
            if chance.random() < 0.2:
                child._sock.send(b"\x08\0\0\0\0\0\0\0garbage!")
            else:
                blow = chance.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
                signal.pidfd_send_signal(child._process, blow)


def submit(engine: ProcessEngine, number: int) -> greendata.Result[Any]:
    """Submit a query, a stream or a function; a tenth of them has no time, another tenth is cancelled."""
    query = pl.LazyFrame().select(a=pl.int_range(20_000 + number))
    timeout = 0.05 if number % 10 == 0 else None
    if number % 3 == 0:  # a frame of more than 64 KiB, which comes back in a file
        result: greendata.Result[Any] = greendata.collect(query, engine=engine, timeout=timeout)
    elif number % 3 == 1:
        result = greendata.run(batches, query, engine, timeout=timeout)
    else:
        result = greendata.run(pl.LazyFrame.collect, query, engine=engine, timeout=timeout)
    if number % 10 == 5:
        result.cancel()
    return result


def batches(query: pl.LazyFrame, engine: ProcessEngine) -> pl.DataFrame:
    with closing(query.collect_batches(engine=engine, chunk_size=9000)) as stream:
        return pl.concat(stream)


def outcome_of(number: int, result: greendata.Result[Any]) -> str:
    try:
        frame = result.get()
    except (WorkerDied, JobCancelled, DeadlineExceeded) as error:
        return type(error).__name__
    finally:
        result.end().get()
    total = frame["a"].sum()
    return "right" if total == sum(range(20_000 + number)) else f"wrong: {total}"


def is_done(result: greendata.Result[Any]) -> bool:
    with suppress(WorkerDied):  # the last strikes
        result.get()
    return result.successful()


def descriptors() -> list[str]:
    """Return what the descriptors of this process are, without the one that lists them."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return sorted(found)


def torment(queries: int) -> Counter[str]:
    """Run *queries* over 4 children that are killed, stopped and confused; return how many ended in which way."""
    with ProcessEngine(workers=1) as engine:
        greendata.run(abs, -1, engine=engine).get()  # what is made once for all engines
    gc.collect()
    processes, before = children_of_this_process().total(), descriptors()
    with ProcessEngine(workers=4) as engine:
        results = [submit(engine, number) for number in range(queries)]
        tormentor = Tormentor(engine, results)
        outcomes = Counter(outcome_of(number, result) for number, result in enumerate(results))
        tormentor.join()
        del tormentor
        assert outcomes.keys() <= {"right", "WorkerDied", "JobCancelled", "DeadlineExceeded"}, outcomes
        assert outcomes.total() == queries
        assert outcomes["right"] > queries / 4

        struck = len(engine._children.busy) + len(engine._children.idle)  # at most; each of them fails one function
        after = [greendata.run(os.getpid, engine=engine) for _ in range(struck + 4)]
        assert [is_done(result) for result in after].count(True) >= 4
        folders = [child._spill for child in (*engine._children.busy, *engine._children.idle)]
    assert not any(Path(folder).exists() for folder in folders)
    until(lambda: children_of_this_process().total() <= processes)
    del results
    gc.collect()
    greendata.run(int).get()  # the pool has let go of the last frame
    until(lambda: not Counter(descriptors()) - Counter(before))  # a worker may be reading names of threads
    return outcomes


def test_every_result_settles_once_and_rightly_while_children_are_killed_stopped_and_confused() -> None:
    print(torment(QUERIES))


@pytest.mark.once("unpatched")  # a process of its own
def test_the_same_on_libuv_in_a_patched_process() -> None:
    code = f"""
from gevent import monkey
monkey.patch_all()
import gevent
from tests.engines.test_chaos import torment

assert "libuv" in type(gevent.get_hub().loop).__module__
print(torment({QUERIES}).total())
"""
    finished = run_python(code, env={"GEVENT_LOOP": "libuv"}, warnings="default", timeout=600)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"{QUERIES}\n"
