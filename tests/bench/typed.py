"""Typed frames: what models cost in time and in silence of the hub, and what a stream saves in both.

Each contender is measured in a process of its own, since peak memory is a process's and models stay in its heap.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import gevent
import polars as pl
from pydantic import BaseModel, Field, TypeAdapter

import greendata
from examples.demo.figures import quantile
from greendata import Frame
from tests.bench.heavy import Ticker
from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

MODELS = 150_000
SCANNED = 10_000_000
ROUNDS = 5
REPEATS = 10  # of a call of some 50 ms
BATCH = 50_000  # rows


class User(BaseModel):
    """Six columns, four of them with a constraint."""

    id: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(min_length=1)]
    age: Annotated[int, Field(ge=0, le=150)]
    score: Annotated[float, Field(ge=0)]
    active: bool
    nick: str | None = None


class Point(BaseModel):
    """A row of the long scan."""

    id: Annotated[int, Field(ge=0)]
    value: float


def rows() -> list[Row]:
    """All rows about typed frames."""
    return [*models(), *columns(), *stream()]


def models() -> list[Row]:
    """150 000 models: the time they take, and the longest silence of the hub meanwhile."""
    found = measured(("collect", "naive inline", "naive native"), ROUNDS)
    seconds = {name: [run["seconds"] for run in runs] for name, runs in found.items()}
    ours, peer = median(seconds["collect"]), median(seconds["naive inline"])
    wall = Row(
        f"{MODELS:,} models: collect(), against TypeAdapter in the greenlet",
        shown_ms(ours),
        shown_ms(peer),
        ratio(seconds["collect"], seconds["naive inline"]),
        "x",
        0.7,
    )
    return [wall, *silences(f"{MODELS:,} models", found, "collect", "naive native")]


def columns() -> list[Row]:
    """The silence of the hub during to_dict of the same rows."""
    found = measured(("to_dict", "to_dict native"), ROUNDS)
    return silences(f"to_dict() of {MODELS:,} rows", found, "to_dict", "to_dict native")


def stream() -> list[Row]:
    """The first batch of a long scan, and the memory of all of it, against a collect of the whole."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.parquet"
        frame = pl.select(id=pl.int_range(SCANNED)).with_columns(value=pl.col("id") * 0.5)
        frame.write_parquet(path, row_group_size=100_000)
        del frame
        found = measured(("stream", "whole"), 3, str(path))
    first = {name: [run["seconds"] for run in runs] for name, runs in found.items()}
    peak = {name: [run["peak"] for run in runs] for name, runs in found.items()}
    shown = [shown_ms(median(first[name])) for name in ("stream", "whole")]
    grown = [f"{median(peak[name]):.0f} MiB" for name in ("stream", "whole")]
    what = f"scan of {SCANNED:,} rows: first batch of stream(), against to_frame()"
    memory = f"scan of {SCANNED:,} rows: growth of peak memory over the whole stream, against to_frame()"
    return [
        Row(what, *shown, ratio(first["stream"], first["whole"]), "x", 0.1),
        Row(memory, *grown, ratio(peak["stream"], peak["whole"]), "x", 0.25),
    ]


def silences(what: str, found: dict[str, list[dict[str, float]]], ours: str, peer: str) -> list[Row]:
    """The longest silence and the 99th percentile of a ticker of 1 ms."""
    return [
        Row(
            f"{what}: {title}, beside the naive call in a native thread",
            *(shown_ms(median(run[key] for run in found[name])) for name in (ours, peer)),
            median(run[key] for run in found[ours]) * 1e3,
            " ms",
            bound,
        )
        for title, key, bound in (("longest silence of the hub", "longest", 10.0), ("tick p99", "p99", 3.0))
    ]


def measured(names: tuple[str, ...], rounds: int, *arguments: str) -> dict[str, list[dict[str, float]]]:
    """What each contender reports, round by round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def contender(name: str) -> Callable[[], float]:
        def run() -> float:
            command = [sys.executable, "-m", __name__, name, *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout))
            return 0.0

        return run

    interleaved({name: contender(name) for name in names}, rounds)
    return found


def users() -> pl.DataFrame:
    """The rows of the models."""
    number = pl.int_range(MODELS)
    return pl.select(
        id=number,
        name=pl.lit("user ") + number.cast(pl.String),
        age=number % 100,
        score=number * 0.25,
        active=number % 2 == 0,
        nick=pl.when(number % 3 == 0).then(pl.lit("nick")),
    )


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """The seconds of *work*, and what a ticker of 1 ms saw meanwhile."""
    gc.collect()
    gevent.sleep(0.05)
    with Ticker() as intervals:
        gevent.sleep(0.01)
        begun = perf_counter()
        kept = work()
        seconds = perf_counter() - begun
        gevent.sleep(0.01)
    assert kept is not None
    return {"seconds": seconds, "longest": max(intervals), "p99": quantile(intervals, 0.99)}


def naive(df: pl.DataFrame) -> list[User]:
    return TypeAdapter(list[User]).validate_python(df.to_dicts())


def repeated(work: Callable[[], Any]) -> list[int]:
    """So often that the ticker has a 99th percentile."""
    return [len(work()) for _ in range(REPEATS)]


def in_a_thread(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The naive way off the hub, which holds the GIL there."""
    return greendata.run(func, *args, **kwargs).get()


def first_of_stream(path: str) -> dict[str, float]:
    """The seconds to the first batch; then the rest is taken, for the memory."""
    before = peak()
    begun = perf_counter()
    with Frame[Point].scan_parquet(path).stream(batch_size=BATCH) as batches:
        count = next(batches).height
        seconds = perf_counter() - begun
        count += sum(batch.height for batch in batches)
    assert count == SCANNED
    return {"seconds": seconds, "peak": peak() - before}


def the_whole(path: str) -> dict[str, float]:
    before = peak()
    begun = perf_counter()
    assert Frame[Point].scan_parquet(path).to_frame().height == SCANNED
    return {"seconds": perf_counter() - begun, "peak": peak() - before}


def peak() -> float:
    """The peak of the process's memory so far, in MiB: VmHWM."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def shown_ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def warm() -> pl.DataFrame:
    """The rows, with everything that happens only once done."""
    few = users().head(100)
    Frame[User].from_frame(few).collect()
    Frame[User].from_frame(few).to_dict()
    greendata.run(naive, few).get()
    return users()


CONTENDERS: dict[str, Callable[..., dict[str, float]]] = {
    "collect": lambda: timed(Frame[User].from_frame(warm()).collect),
    "naive inline": lambda: timed(partial(naive, warm())),
    "naive native": lambda: timed(partial(in_a_thread, naive, warm())),
    "to_dict": lambda: timed(partial(repeated, Frame[User].from_frame(warm()).to_dict)),
    "to_dict native": lambda: timed(partial(repeated, partial(in_a_thread, warm().to_dict, as_series=False))),
    "stream": first_of_stream,
    "whole": the_whole,
}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](*sys.argv[2:])))
