"""Frames to bytes, bytes to frames, rows to models: what the hub notices of it, against the naive call in a thread."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from statistics import median
from time import perf_counter
from typing import Any

import gevent
import polars as pl
from pydantic import BaseModel, TypeAdapter

from examples.demo.figures import quantile
from greendata.formats.decoders import decode
from greendata.formats.encoders import encode
from greendata.pool import pool
from greendata.query.objects import to_columns, to_models
from greendata.validation.verbs import validate
from tests.bench.heavy import Ticker
from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

ROWS = 600_000
MODELS = 150_000
BODY_BYTES = 50_000_000
BODY_ROWS = 300_000
ROUNDS = 3
REPEATS = 5  # in a measurement
SILENCE = 10.0  # milliseconds
TICK_P99 = 3.0  # milliseconds
JUDGED = f"decode {BODY_ROWS:,} rows of JSON with a model"


class Order(BaseModel):
    """A row."""

    id: int
    price: float
    name: str
    paid: bool
    at: datetime
    parent: int | None


def frame(count: int) -> pl.DataFrame:
    """Orders."""
    return pl.DataFrame({"id": pl.int_range(count, eager=True)}).with_columns(
        price=pl.col("id") / 3,
        name=pl.format("order {}", "id"),
        paid=pl.col("id") % 2 == 0,
        at=pl.lit(datetime(2024, 1, 1)),
        parent=pl.when(pl.col("id") % 3 == 0).then("id"),
    )


def text(count: int) -> pl.DataFrame:
    """Orders with their times as text, as NDJSON has them."""
    return frame(count).with_columns(pl.col("at").dt.to_string("iso:strict"))


def rows() -> list[Row]:
    """The longest silence of the hub and its tick's p99 for each, and the wall time where it counts."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CONTENDERS}

    def contender(name: str) -> Callable[[], float]:
        def run() -> float:
            found[name].append(in_a_process(name))
            return found[name][-1][2]

        return run

    seconds = interleaved({name: contender(name) for name in CONTENDERS}, ROUNDS)
    table = []
    for name in [name for name in CONTENDERS if not name.startswith("naive ")]:
        for figure, what, bound in ((0, "longest silence of the hub", SILENCE), (1, "tick p99", TICK_P99)):
            ours, peer = (median(one[figure] for one in found[of]) * 1e3 for of in (name, f"naive {name}"))
            table.append(Row(f"{name}: {what}", f"{ours:.1f} ms", f"{peer:.1f} ms", ours, " ms", bound))
    for name, bound in (("NDJSON", 0.5), ("models", 0.7), (JUDGED, 1.5)):
        ours_of, peer_of = seconds[name], seconds[f"naive {name}"]
        shown = [f"{median(times) * 1e3:.0f} ms" for times in (ours_of, peer_of)]
        table.append(Row(f"{name}: wall time against the naive call", *shown, ratio(ours_of, peer_of), "x", bound))
    return table


def in_a_process(name: str) -> tuple[float, float, float]:
    """The longest silence, the tick's p99 and the wall time of a contender in a fresh process, in seconds."""
    done = subprocess.run([sys.executable, "-m", __name__, name], check=True, capture_output=True, text=True)
    longest, tick, seconds = json.loads(done.stdout)
    return longest, tick, seconds


def measured(prepare: Callable[[], Callable[[], Any]]) -> tuple[float, float, float]:
    """The longest interval between two ticks, their p99, and how long the work took, once it is warm."""
    work = prepare()
    work()
    silences, ticks, seconds = [], [], []
    for _ in range(REPEATS):
        gc.collect()
        with Ticker() as intervals:
            gevent.sleep(0.02)
            del intervals[:]
            begun = perf_counter()
            outcome = work()
            seconds.append(perf_counter() - begun)
            gevent.sleep(0.002)  # for the tick that came late
        silences.append(max(intervals))
        ticks += intervals
        del outcome
    return median(silences), quantile(ticks, 0.99), median(seconds)


def drained(chunks: Any) -> int:
    """How many bytes came."""
    return sum(map(len, chunks))


def encoder(format: Any) -> Callable[[], Callable[[], Any]]:
    """A body of a frame, its chunks sent nowhere."""

    def prepare() -> Callable[[], Any]:
        df = text(ROWS)
        return lambda: drained(encode(df, format))

    return prepare


def writer(name: str) -> Callable[[], Callable[[], Any]]:
    """The same by the method of the frame, in a native thread."""

    def prepare() -> Callable[[], Any]:
        df = text(ROWS)
        return lambda: pool.submit(getattr(df, name)).get()

    return prepare


def body() -> bytes:
    """NDJSON of the size that is to be decoded."""
    lines = text(1000).write_ndjson().encode()
    return lines * (BODY_BYTES // len(lines))


def decoder() -> Callable[[], Any]:
    """NDJSON with a schema."""
    content, schema = body(), frame(1).schema
    return lambda: decode(content, "ndjson", schema=schema)


def naive_decoder() -> Callable[[], Any]:
    """NDJSON line by line, in a native thread."""
    content = body()
    return lambda: pool.submit(lambda: pl.DataFrame([json.loads(line) for line in content.splitlines()])).get()


def judged() -> Callable[[], Any]:
    """JSON with a model, which judges each row by its own text."""
    content = text(BODY_ROWS).write_json().encode()
    return lambda: decode(content, "json", model=Order)


def naive_judged() -> Callable[[], Any]:
    """The same as a frame, of types inferred over all rows, that the model judges."""
    content = text(BODY_ROWS).write_json().encode()
    return lambda: validate(decode(content, "json"), Order)


def models() -> Callable[[], Any]:
    """Rows to models."""
    df = frame(MODELS)
    return lambda: to_models(df, Order)


def naive_models() -> Callable[[], Any]:
    """The same in one call, in a native thread."""
    df = frame(MODELS)
    return lambda: pool.submit(lambda: TypeAdapter(list[Order]).validate_python(df.to_dicts())).get()


def columns() -> Callable[[], Any]:
    """Columns as lists."""
    df = frame(ROWS)
    return lambda: to_columns(df)


def naive_columns() -> Callable[[], Any]:
    """The same in one call, in a native thread."""
    df = frame(ROWS)
    return lambda: pool.submit(lambda: df.to_dict(as_series=False)).get()


CONTENDERS: dict[str, Callable[[], Callable[[], Any]]] = {
    "NDJSON": encoder("ndjson"),
    "naive NDJSON": writer("write_ndjson"),
    "JSON": encoder("json"),
    "naive JSON": writer("write_json"),
    "CSV": encoder("csv"),
    "naive CSV": writer("write_csv"),
    "decode 50 MB of NDJSON": decoder,
    "naive decode 50 MB of NDJSON": naive_decoder,
    JUDGED: judged,
    f"naive {JUDGED}": naive_judged,
    "models": models,
    "naive models": naive_models,
    "to_columns": columns,
    "naive to_columns": naive_columns,
}


if __name__ == "__main__":
    print(json.dumps(measured(CONTENDERS[sys.argv[1]])))
