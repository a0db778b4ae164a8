"""The cost of a job by itself: time by how many are outstanding, and memory."""

from __future__ import annotations

import gc
import tracemalloc
from statistics import median
from time import perf_counter

import gevent

import greendata
from greendata.hub import native
from tests.bench.rows import Row, interleaved

__all__ = ("rows",)

OUTSTANDING = (10, 100, 1_000, 10_000)
JOBS = 20_000  # a measurement, whatever is outstanding
ROUNDS = 7
QUEUED = 5_000


def rows() -> list[Row]:
    """Per-job cost while 10 to 10 000 jobs are outstanding, and memory of a queued one."""
    before = greendata.configure()
    greendata.configure(max_queue=100_000)
    gates = [native.allocate_lock() for _ in range(before.max_workers)]
    figures = interleaved({str(n): lambda n=n: seconds_a_job(n, gates) for n in OUTSTANDING}, ROUNDS)
    costs = {n: median(figures[str(n)]) * 1e6 for n in OUTSTANDING}
    shown = " / ".join(f"{costs[n]:.1f}" for n in OUTSTANDING)
    spread = max(costs.values()) / min(costs.values())
    memory = bytes_a_job(gates)
    greendata.configure(max_queue=before.max_queue)
    return [
        Row(
            "an empty job at 10 / 100 / 1 000 / 10 000 outstanding: dearest by cheapest",
            f"{shown} us",
            "",
            spread,
            "x",
            1.3,
        ),
        Row("memory of a queued job", f"{memory / 1024:.2f} KiB", "", memory / 1024, " KiB", 2.0),
    ]


def seconds_a_job(outstanding: int, gates: list[native.Lock]) -> float:
    """Seconds to submit and to settle a job that stands in a queue of *outstanding*."""
    total = 0.0
    gc.collect()
    for _ in range(JOBS // outstanding):
        held = hold(gates)
        begun = perf_counter()
        results = [greendata.run(int) for _ in range(outstanding)]
        total += perf_counter() - begun
        release(gates)
        gevent.joinall(held)
        begun = perf_counter()
        gevent.joinall(results)
        total += perf_counter() - begun
    return total / (JOBS // outstanding * outstanding)


def bytes_a_job(gates: list[native.Lock]) -> float:
    """Bytes that a queued job keeps, its result included."""
    held = hold(gates)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    results = [greendata.run(int) for _ in range(QUEUED)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    release(gates)
    gevent.joinall([*held, *results])
    return (after - before) / QUEUED


def hold(gates: list[native.Lock]) -> list[greendata.Result[None]]:
    """Every worker held at its gate."""
    for gate in gates:
        gate.acquire()
    held = [greendata.run(pass_through, gate) for gate in gates]
    while greendata.stats().queued:
        gevent.sleep(0.0001)
    return held


def pass_through(gate: native.Lock) -> None:
    """Wait until the gate is open, and leave it so."""
    with gate:
        pass


def release(gates: list[native.Lock]) -> None:
    """Let every worker go on."""
    for gate in gates:
        gate.release()
