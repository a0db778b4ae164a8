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


@pytest.mark.once("unpatched")  # the children are the same, and so are the threads that use them
def test_every_result_settles_once_and_rightly_while_children_are_killed_stopped_and_confused(tmp_path: Path) -> None:
    chance = random.Random(1)
    before = children_of_this_process().total()
    is_over: list[bool] = []

    with ProcessEngine(workers=4) as engine:

        def torment() -> None:
            while not is_over:
                native.sleep(chance.uniform(0.0, 0.1))
                child = chance.choice([*engine._busy, *engine._idle] or [None])
                if child is not None:
                    with child._lock, suppress(OSError):  # its process id stays its own meanwhile
                        if child.is_gone:
                            continue
                        if chance.random() < 0.2:
                            child._sock.send(b"\x08\0\0\0\0\0\0\0garbage!")
                        else:
                            blow = chance.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
                            signal.pidfd_send_signal(child._process, blow)

        tormentor = Native(torment)
        outcomes: Counter[str] = Counter()
        results = []
        for number in range(QUERIES):
            query = pl.LazyFrame().select(pl.int_range(20_000 + number).sum())
            result = greendata.collect(query, engine=engine, timeout=0.05 if number % 10 == 0 else 60)
            if number % 10 == 5:
                result.cancel()
            results.append((number, result))
        for number, result in results:
            try:
                value = result.get().item()
            except (WorkerDied, JobCancelled, DeadlineExceeded) as error:
                outcomes[type(error).__name__] += 1
            else:
                assert value == sum(range(20_000 + number))
                outcomes["right"] += 1
            result.end().get()
        is_over.append(True)
        tormentor.join()
        assert outcomes.total() == QUERIES
        assert outcomes["JobCancelled"] >= QUERIES // 10 - 1

        with suppress(WorkerDied):  # the last blow
            engine.call(abs, -1)
        for _ in range(5):
            assert engine.call(abs, -1) == 1
        folders = [child._spill for child in (*engine._busy, *engine._idle)]
    assert not any(Path(folder).exists() for folder in folders)
    until(lambda: children_of_this_process().total() == before)
