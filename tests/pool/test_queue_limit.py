"""A full queue rejects new work and admits the jobs of work that has begun: streams, bodies, half-sent responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import polars as pl
import pytest
from flask import Flask

import greendata
from greendata.errors import PoolFull
from greendata.formats.encoders import encode
from greendata.web.flask import respond
from tests.support.frames import gated_batches
from tests.support.gates import Gate
from tests.support.natives import until

ROWS = pl.DataFrame({"a": range(2_000_000)})
PIECES = 10


def made() -> Iterator[pl.DataFrame]:
    """Yield frames, each made by a query when it is asked for."""
    for number in range(PIECES):
        yield greendata.collect(ROWS.lazy().slice(number * len(ROWS) // PIECES, len(ROWS) // PIECES)).get()


def answered(source: Any) -> Iterator[bytes]:
    with Flask("service").test_request_context():
        return respond(source, "csv").iter_encoded()


STREAMS: dict[str, Callable[[], Iterator[Any]]] = {
    "batches": lambda: greendata.batches(ROWS.lazy(), chunk_size=len(ROWS) // PIECES, maintain_order=True),
    "a body of a frame": lambda: encode(ROWS, "csv"),
    "a body of a query": lambda: encode(ROWS.lazy(), "csv"),
    "a body of batches": lambda: encode(greendata.batches(ROWS.lazy(), maintain_order=True), "csv"),
    "a response": lambda: answered(ROWS.lazy()),
    "a response of queries": lambda: answered(made()),
}
every_stream = pytest.mark.parametrize("start", STREAMS.values(), ids=STREAMS.keys())


@contextmanager
def full() -> Iterator[Gate]:
    """Fill the pool: one worker, which is held at the gate, and one waiting job, which is the limit."""
    before = greendata.configure()
    greendata.configure(max_workers=1, max_queue=1)
    until(lambda: greendata.stats().workers <= 1)  # another one may be about to look for a job
    gate = Gate()
    holders = [greendata.run(gate)]
    gate.wait_arrived()
    try:
        holders.append(greendata.run(int))
        yield gate
    finally:
        gate.open()
        gevent.wait(holders)
        greendata.configure(max_workers=before.max_workers, max_queue=before.max_queue)


def is_idle() -> bool:
    stats = greendata.stats()
    return not stats.running and not stats.queued


@every_stream
def test_work_that_has_begun_continues(start: Callable[[], Iterator[Any]]) -> None:
    stream = start()
    pieces = [next(stream)]
    until(is_idle)  # the prefetched batch is ready
    with full() as gate:
        rest = gevent.spawn(list, stream)
        until(lambda: greendata.stats().queued > 1 or rest.ready())
        gate.open()
        pieces += rest.get()
    whole = pl.concat(pieces) if isinstance(pieces[0], pl.DataFrame) else pl.read_csv(b"".join(pieces))
    assert whole.equals(ROWS)
    assert isinstance(pieces[0], pl.DataFrame) or len(pieces) > 10


@every_stream
def test_new_work_is_rejected(start: Callable[[], Iterator[Any]]) -> None:
    with full(), pytest.raises(PoolFull):
        next(start())


def test_a_stream_is_closed_in_a_full_pool_too() -> None:
    ended: list[str] = []
    stream = greendata.batches(gated_batches(int, 1000, lambda: ended.append("ended")), chunk_size=1)
    next(stream)
    until(is_idle)
    with full():
        stream.close()
        assert greendata.stats().queued == 2
    until(lambda: pl.Series([0]) is not None and ended)
    assert ended == ["ended"]


def test_only_jobs_of_work_that_has_begun_are_admitted() -> None:
    stream = greendata.batches(ROWS.lazy(), chunk_size=1000)
    next(stream)
    until(is_idle)
    with full(), pytest.raises(PoolFull):
        greendata.run(int)
    stream.close()
