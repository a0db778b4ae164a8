"""Queries, files and schemas that wait at a gate, and the pool in states that a test needs.

A ``gate`` here is any function that returns its argument: a `tests.support.gates.Gate` that holds the work, or a
function of the test that observes it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import polars as pl
from polars.io.plugins import register_io_source

import greendata
from greendata.hub import native
from tests.support.gates import Gate, rest
from tests.support.natives import until

__all__ = (
    "ROWS",
    "GatedFile",
    "crowded",
    "gated",
    "gated_batches",
    "gated_schema",
    "killed_before_it_hears",
    "one_worker",
)

ROWS = pl.DataFrame({"a": [1, 2, 3]})

Pass = Callable[[Any], Any]


def gated(gate: Pass, df: pl.DataFrame = ROWS) -> pl.LazyFrame:
    """Return a query that yields *df* once *gate* lets it pass."""
    return df.lazy().map_batches(gate)


def gated_batches(gate: Pass, count: int, ended: Callable[[], object] = int) -> pl.LazyFrame:
    """Return a query of *count* batches of one row, ``a`` = 0, 1, ..., each passed through *gate* on request.

    *ended* is called when Polars releases the source, at its end or earlier.
    """

    def source(*_: object) -> Iterator[pl.DataFrame]:
        try:
            for number in range(count):
                yield pl.DataFrame({"a": [gate(number)]})
        finally:
            ended()

    return register_io_source(source, schema={"a": pl.Int64})


def gated_schema(gate: Pass) -> pl.LazyFrame:
    """Return a lazy frame that asks *gate* for its schema, as one for a remote file asks the store."""

    def source(*_: object) -> Iterator[pl.DataFrame]:
        yield ROWS

    return register_io_source(source, schema=lambda: gate(ROWS.schema))


class GatedFile(io.BytesIO):
    """A file in memory that is read and written once *gate* lets it pass."""

    def __init__(self, gate: Pass, content: bytes = b"") -> None:
        super().__init__(content)
        self._gate = gate

    def read(self, *args: Any) -> bytes:
        self._gate(None)
        return super().read(*args)

    def getvalue(self) -> bytes:
        self._gate(None)
        return super().getvalue()

    def write(self, data: Any) -> int:
        self._gate(None)
        return super().write(data)


@contextmanager
def one_worker() -> Iterator[None]:
    """Limit the pool to one worker inside the block."""
    before = greendata.configure().max_workers
    greendata.configure(max_workers=1)
    try:
        while greendata.stats().workers > 1:  # another one may be about to look for a job
            rest()
        yield
    finally:
        greendata.configure(max_workers=before)


def killed_before_it_hears(func: Callable[..., object], *args: object, seen: Callable[[], object] = bool) -> object:
    """Kill a greenlet that waits for a job when that has ended, and before the hub has brought its outcome back.

    Args:
        func: what the greenlet calls with *args*. It waits for one job of the shared pool.
        seen: called in the hub between the end of the job and the kill.

    Returns:
        The value of the greenlet: a `GreenletExit`.
    """

    def strike() -> None:  # in the hub, which does nothing else meanwhile
        gate.open()
        while (now := greendata.stats()).queued or now.running:
            native.sleep(0.001)
        seen()
        greenlet.throw(gevent.GreenletExit)

    gate = Gate()
    with one_worker():
        holder = greendata.run(gate)
        gate.wait_arrived()
        greenlet = gevent.spawn(func, *args)
        until(lambda: greendata.stats().queued)
        gevent.get_hub().loop.run_callback(strike)
        greenlet.join()
        holder.get()
    return greenlet.value


@contextmanager
def crowded() -> Iterator[Gate]:
    """Check that the block sends work to the pool, and that the hub runs meanwhile.

    Every worker is held. A greenlet frees them when it sees a job queue behind them: the job of the block. If
    the block runs without the pool, or keeps the hub, the gate stays closed, and the proof fails.
    """
    gate, workers = Gate(), greendata.configure().max_workers
    holders = [greendata.run(gate, None) for _ in range(workers)]
    gate.wait_arrived(workers)

    def free_when_queued() -> None:
        while not greendata.stats().queued:
            rest()
        gate.open()

    ticker = gevent.spawn(free_when_queued)
    try:
        yield gate
        assert gate.is_open, "nothing was queued: it ran outside of the pool"
    finally:
        ticker.kill()
        gate.open()
        gevent.wait(holders)
