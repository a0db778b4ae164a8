"""Queries in child processes: what the way there costs, large results, kills, and functions that hold the GIL.

A child writes a large result into a file in memory, once; this process maps the file. Two rows show what that costs:
the transfer of a finished file into a frame, against `read_ipc` of a file with the same data in memory; and the whole
query in a child, against the same query here, where each frame is kept, so that each needs memory of its own.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import gevent
import polars as pl

import greendata
from examples.demo.figures import quantile
from greendata.engines.messages import close_all
from greendata.engines.plans import pack, unpack
from greendata.engines.process import ProcessEngine
from tests.bench.heavy import Ticker
from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

TINY = 2000  # queries
LARGE = {"125 MB": 15_625_000, "1 GB": 125_000_000}  # rows of Int64
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
    return [row for name, rows in LARGE.items() for row in _large_of(name, rows)]


def _large_of(name: str, rows: int) -> list[Row]:
    query = pl.LazyFrame().select(a=pl.int_range(rows))
    rounds = ROUNDS if rows < 50_000_000 else 3
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, ProcessEngine(workers=1, inner="in-memory") as engine:
        file = Path(folder) / "a.ipc"
        query.sink_ipc(file)
        packed, files = pack([query.collect(engine="in-memory")])
        transfers = interleaved(
            {
                "greendata": lambda: _seconds(lambda: unpack(packed, files)),
                "read_ipc": lambda: _seconds(lambda: pl.read_ipc(file)),
            },
            rounds,
        )
        close_all(files)
        file.unlink()
        query.collect(engine=engine)
        before = _anonymous()
        frame = query.collect(engine=engine)
        growth = (_anonymous() - before) / frame.estimated_size()
        del frame
        kept: list[pl.DataFrame] = []
        queries = interleaved(
            {
                "greendata": lambda: _seconds(lambda: kept.append(query.collect(engine=engine))),
                "here": lambda: _seconds(lambda: kept.append(query.collect(engine="in-memory"))),
            },
            rounds,
        )
    shown = [f"{median(transfers[side]) * 1e3:.0f} ms" for side in ("greendata", "read_ipc")]
    whole = [f"{median(queries[side]) * 1e3:.0f} ms" for side in ("greendata", "here")]
    what = f"a result of {name}: from its file in memory to a frame, against read_ipc of the same"
    return [
        Row(what, *shown, ratio(transfers["greendata"], transfers["read_ipc"]), "x", 0.5),
        Row(f"a result of {name}: growth of this process's own memory", "", "", growth * 100, " %", 2.0),
        Row(
            f"a result of {name}: the whole query in a child, against the same here",
            *whole,
            ratio(queries["greendata"], queries["here"]),
            "x",
            2.0,
        ),
    ]


def _killed() -> list[Row]:
    ends, waits, nexts = [], [], []
    with ProcessEngine(workers=1) as engine:
        for _ in range(ROUNDS):
            engine.call(abs, -1)
            while not all(child.is_ready or child._poll.poll(0) for child in engine._children.idle):
                sleep(0.01)  # the spare child starts
            with tempfile.TemporaryDirectory() as folder:
                result = greendata.run(engine.call, _allocate, 1 << 30, folder)
                while not os.listdir(folder):
                    gevent.sleep(0.01)
                begun = perf_counter()
                result.cancel()
                result.wait()
                waits.append(perf_counter() - begun)
                result.end().get()
                ends.append(perf_counter() - begun)
            nexts.append(_seconds(lambda: engine.call(abs, -1)))
    end, waiter, following = median(ends) * 1e3, median(waits) * 1e3, median(nexts) * 1e3
    last = median(_server_killed() for _ in range(ROUNDS)) * 1e3
    return [
        Row("from cancel() to the end of a process of 1 GiB", f"{end:.0f} ms", "", end, " ms", 200.0),
        Row("from cancel() to the waiter", f"{waiter:.1f} ms", "", waiter, " ms", 5.0),
        Row("from kill -9 of the server to the end of its last child", f"{last:.0f} ms", "", last, " ms", 100.0),
        Row("the next query after a cancel", f"{following:.1f} ms", "", following, " ms", 5.0),
    ]


def _server_killed() -> float:
    code = """
import sys
from greendata.engines.process import ProcessEngine
engine = ProcessEngine(workers=2)
engine.call(abs, -1)
print(*[child.pid for child in (*engine._children.idle, *engine._children.busy)], flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        children = [os.pidfd_open(int(pid)) for pid in server.stdout.readline().split()]
        begun = perf_counter()
        server.kill()
        for child in children:
            waiting = select.poll()
            waiting.register(child, select.POLLIN)
            waiting.poll()
        seconds = perf_counter() - begun
    for child in children:
        os.close(child)
    return seconds


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
