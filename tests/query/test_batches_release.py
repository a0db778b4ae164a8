"""Batches that are closed or dropped release their source in a native thread, in every state of the pool."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import polars as pl
import pytest

import greendata
from greendata.pool import pool
from greendata.pool.cleanup import run_to_completion
from greendata.sql import databases
from tests.pool.test_pool_threads import no_threads
from tests.pool.test_queue_limit import full, is_idle
from tests.support.databases import closing
from tests.support.natives import get_ident, until

COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT i FROM n"


@contextmanager
def filled() -> Iterator[Callable[[], None]]:
    """Fill the pool; yield a function that releases its worker."""
    with full() as gate:
        yield gate.open


@contextmanager
def emptied() -> Iterator[Callable[[], None]]:
    """Fill the pool; yield a function that cancels all waiting jobs, as `drain` and the dashboard do."""

    def cancel() -> None:
        for job in pool.pending():
            if not job.worker:
                job.cancel()

    with full():
        yield cancel


@contextmanager
def drained() -> Iterator[Callable[[], None]]:
    """Drain the pool, so that it accepts no more work."""
    greendata.drain()
    try:
        yield lambda: None
    finally:
        greendata.configure()


def close(streams: list[Any]) -> None:
    streams[0].close()
    streams.clear()


def drop(streams: list[Any]) -> None:
    streams.clear()
    gc.collect()


every_pool = pytest.mark.parametrize("state", [filled, emptied, drained])
every_end = pytest.mark.parametrize("end", [close, drop])


@every_pool
@every_end
def test_the_source_ends_in_a_native_thread(
    end: Callable[[list[Any]], None], state: Callable[[], AbstractContextManager[Callable[[], None]]]
) -> None:
    ended_in: list[int] = []

    def source() -> Iterator[pl.DataFrame]:
        try:
            while True:
                yield pl.DataFrame({"a": [1]})
        finally:
            ended_in.append(get_ident())

    streams = [greendata.Batches(source)]
    next(streams[0])
    until(is_idle)  # the batch is read in advance
    with state() as go:
        end(streams)
        assert get_ident() not in ended_in
        go()
        until(lambda: ended_in)
    assert get_ident() not in ended_in


@every_pool
@every_end
def test_a_connection_is_given_back(
    end: Callable[[list[Any]], None], state: Callable[[], AbstractContextManager[Callable[[], None]]]
) -> None:
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        streams = [greendata.read_sql(COUNTING, connection, batch_rows=3)]
        next(streams[0])
        until(is_idle)
        with state() as go:
            end(streams)
            go()
            until(lambda: not databases._claims)
        assert greendata.read_sql("SELECT 1", connection).get().item() == 1


def test_without_any_thread_the_clean_up_runs_in_the_calling_thread() -> None:
    ended_in: list[int] = []
    with drained(), no_threads():
        assert run_to_completion(lambda: ended_in.append(get_ident()), label="close").get(block=False) is None
    assert ended_in == [get_ident()]
