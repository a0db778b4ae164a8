"""Eight heavy group-bys at once: does the hub go on, and do the queries go as fast?

Each contender is measured in a process of its own, in turn: greendata lowers the priority of Polars' threads, which
would serve its peer as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import gevent
import polars as pl

import greendata
from examples.demo.figures import quantile
from tests.bench.apart import apart, tell
from tests.bench.rows import Row, interleaved, rate_row, ratio

__all__ = ("rows",)

QUERIES = 8
ROWS = 2_000_000
ROUNDS = 9
REPEATS = 3  # of the eight queries, in a measurement
TICK = 0.001  # seconds
IDLE = 0.7  # seconds of ticks without work


class Ticker:
    """A greenlet that wants to wake every millisecond, and the seconds between its wakings."""

    def __enter__(self) -> list[float]:
        self.intervals: list[float] = []
        self._greenlet = gevent.spawn(self._tick)
        return self.intervals

    def __exit__(self, *_error: object) -> None:
        self._greenlet.kill()

    def _tick(self) -> None:
        last = perf_counter()
        while True:
            gevent.sleep(TICK)
            now = perf_counter()
            self.intervals.append(now - last)
            last = now


def rows() -> list[Row]:
    """Hub tick and throughput of eight group-bys, against idle and against collect_async."""
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}

    def contender(name: str) -> Callable[[], float]:
        def run() -> float:
            tick, rate = apart(__name__, name)
            rates[name].append(rate)
            return tick

        return run

    ticks = interleaved({name: contender(name) for name in CONTENDERS}, ROUNDS)
    return [
        _tick_row("idle", ticks, 1.6),
        _tick_row("collect_async", ticks, 0.6),
        rate_row(f"{QUERIES} heavy group-bys: queries a second, against collect_async", rates, "collect_async", 1.0),
    ]


def query() -> pl.LazyFrame:
    """Some 60 ms of work for two cores."""
    numbers = pl.DataFrame({"a": pl.int_range(ROWS, eager=True)}).lazy()
    groups = numbers.group_by((pl.col("a") * 7919) % 100_003)
    return groups.agg(pl.len(), pl.col("a").mean().alias("mean"), pl.col("a").max().alias("max"))


def loaded(collect: Callable[[pl.LazyFrame], Any]) -> tuple[float, float]:
    """The tick's p99 in seconds while the queries run, and their rate."""
    lf = query()
    collect(lf).get()
    with Ticker() as intervals:
        begun = perf_counter()
        for _ in range(REPEATS):
            for result in [collect(lf) for _ in range(QUERIES)]:
                result.get()
        seconds = perf_counter() - begun
    return quantile(intervals, 0.99), REPEATS * QUERIES / seconds


def idle() -> tuple[float, float]:
    """The tick's p99 in seconds with nothing else to do."""
    with Ticker() as intervals:
        gevent.sleep(IDLE)
    return quantile(intervals, 0.99), 0.0


CONTENDERS: dict[str, Callable[[], tuple[float, float]]] = {
    "greendata": lambda: loaded(greendata.collect),
    "idle": idle,
    "collect_async": lambda: loaded(lambda lf: lf.collect_async(gevent=True)),
}


def _tick_row(peer: str, ticks: dict[str, list[float]], bound: float) -> Row:
    shown = [f"{median(ticks[name]) * 1e3:.2f} ms" for name in ("greendata", peer)]
    what = f"{QUERIES} heavy group-bys: tick p99 of the hub, against {peer}"
    return Row(what, *shown, ratio(ticks["greendata"], ticks[peer]), "x", bound)


if __name__ == "__main__":
    tell(CONTENDERS[sys.argv[1]]())
