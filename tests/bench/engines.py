"""Queries in child processes: what the way there costs, large results, kills, and functions that hold the GIL."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import gevent
import polars as pl

import greendata
from examples.demo.figures import quantile
from greendata.engines.process import ProcessEngine
from tests.bench.heavy import Ticker
from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

TINY = 2000  # queries
LARGE = 15_625_000  # rows of Int64: 125 MB
LOOPS = 3_000_000  # of Python, in one UDF
ROUNDS = 5


def rows() -> list[Row]:
    """Rows of the table; each engine is closed before the next one starts."""
    return [*_tiny(), *_large(), *_killed(), *_functions(), _shared()]


def _tiny() -> list[Row]:
    lf = pl.LazyFrame({"a": [1, 2, 3]}).select(pl.col("a").sum())
    with ProcessEngine(workers=1, inner="in-memory") as engine:
        seconds = [_seconds(lambda: greendata.collect(lf, engine=engine).get()) for _ in range(TINY)][100:]
    middle, tail = median(seconds) * 1e3, quantile(seconds, 0.99) * 1e3
    return [
        Row("a tiny query in a child: median", f"{middle:.2f} ms", "", middle, " ms", 0.35),
        Row("a tiny query in a child: p99", f"{tail:.2f} ms", "", tail, " ms", 1.0),
    ]


def _large() -> list[Row]:
    query = pl.LazyFrame().select(a=pl.int_range(LARGE))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, ProcessEngine(workers=1, inner="in-memory") as engine:
        file = Path(folder) / "a.ipc"
        query.sink_ipc(file)
        query.collect(engine=engine)
        computing = median(engine.call(_computing) for _ in range(ROUNDS))
        before = _anonymous()
        frame = query.collect(engine=engine)
        growth = (_anonymous() - before) / frame.estimated_size()
        del frame
        figures = interleaved(
            {
                "greendata": lambda: max(1e-9, _seconds(lambda: query.collect(engine=engine)) - computing),
                "read_ipc": lambda: _seconds(lambda: pl.read_ipc(file)),
            },
            ROUNDS,
        )
    shown = [f"{median(figures[name]) * 1e3:.0f} ms" for name in ("greendata", "read_ipc")]
    what = "a result of 125 MB: time beyond the query itself, against read_ipc of the same file"
    return [
        Row(what, *shown, ratio(figures["greendata"], figures["read_ipc"]), "x", 0.5),
        Row("a result of 125 MB: growth of this process's own memory", "", "", growth * 100, " %", 2.0),
    ]


def _computing() -> float:
    return _seconds(lambda: pl.LazyFrame().select(a=pl.int_range(LARGE)).collect(engine="in-memory"))


def _killed() -> list[Row]:
    ends, nexts = [], []
    with ProcessEngine(workers=1) as engine:
        for _ in range(ROUNDS):
            engine.call(abs, -1)
            while not all(child.is_ready or child._poll.poll(0) for child in engine._children.idle):
                sleep(0.01)  # the spare child starts
            with tempfile.TemporaryDirectory() as folder:
                result = greendata.run(engine.call, _allocate, 1 << 30, folder)
                while not os.listdir(folder):
                    gevent.sleep(0.01)
                ends.append(_seconds(result.cancel_wait))
            nexts.append(_seconds(lambda: engine.call(abs, -1)))
    end, following = median(ends) * 1e3, median(nexts) * 1e3
    return [
        Row("from cancel() to the end of a process of 1 GiB", f"{end:.0f} ms", "", end, " ms", 200.0),
        Row("the next query after that", f"{following:.1f} ms", "", following, " ms", 5.0),
    ]


def _allocate(size: int, folder: str) -> None:
    pages = b"x" * size
    Path(folder, "allocated").touch()
    sleep(60 + len(pages))


def _functions() -> list[Row]:
    with ProcessEngine(workers=4) as engine:
        gevent.joinall([gevent.spawn(engine.call, abs, -1) for _ in range(4)])
        ticks = interleaved(
            {"greendata": lambda: _tick(engine.call), "threads": lambda: _tick(lambda loop: greendata.run(loop).get())},
            ROUNDS,
        )
        times = interleaved({"one": lambda: _time(engine, 1), "two": lambda: _time(engine, 2)}, ROUNDS)
    shown = [f"{median(ticks[name]) * 1e3:.1f} ms" for name in ("greendata", "threads")]
    speed = 2 * ratio(times["one"], times["two"])
    what = "four functions of Python in children: tick p99 of the hub, against in threads"
    return [
        Row(what, *shown, ratio(ticks["greendata"], ticks["threads"]), "x", 0.2),
        Row(
            "two children against one, functions of Python on two cores: work a second",
            "",
            "",
            speed,
            "x",
            1.7,
            at_most=False,
        ),
    ]


def _tick(run: Callable[..., object]) -> float:
    with Ticker() as intervals:
        gevent.joinall([gevent.spawn(run, _loop) for _ in range(4)], raise_error=True)
    return quantile(intervals, 0.99)


def _time(engine: ProcessEngine, number: int) -> float:
    return _seconds(lambda: gevent.joinall([gevent.spawn(engine.call, _loop) for _ in range(number)], raise_error=True))


def _loop() -> int:
    return sum(number % 7 for number in range(LOOPS))


def _shared() -> Row:
    frame = pl.DataFrame({"a": range(12_500_000)})
    with ProcessEngine(workers=1) as engine:
        query = engine.share(frame).filter(pl.col("a") > 5).select(pl.col("a").sum())
        query.collect(engine=engine)
        sent = len(query.serialize())
    return Row("a second query over a shared frame of 100 MB: its plan", f"{sent} bytes", "", sent, " bytes", 2000)


def _seconds(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def _anonymous() -> int:
    """The bytes of memory that belong to this process alone."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
