"""Batches: they arrive while the query runs, only as fast as they are consumed; the query ends with its consumer."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import polars as pl
import pytest
from polars.exceptions import ColumnNotFoundError
from polars.testing import assert_frame_equal

import greendata
from greendata import BatchesBusy, BatchesSpent, DeadlineExceeded, JobAborted, JobCancelled
from greendata.hub import native
from tests.support.frames import ROWS, crowded, gated, gated_batches, one_worker
from tests.support.gates import Gate, rest, timeout_at
from tests.support.natives import TIMEOUTS

MANY = 1000  # batches of a query that should not reach its end
AHEAD = 50  # batches that may be computed ahead of the consumer; 8 with two cores

ESCAPES = (ValueError, SystemExit, KeyboardInterrupt, gevent.Timeout, gevent.GreenletExit, GeneratorExit)


class Query:
    """A query of `MANY` batches that records its progress and when Polars released it."""

    def __init__(self, held_at: dict[int, Gate] | None = None) -> None:
        self.asked = 0
        self._held_at = held_at or {}
        self._ended = native.allocate_lock()
        self._ended.acquire()

    def batches(self, **options: Any) -> greendata.Batches:
        return greendata.batches(gated_batches(self._compute, MANY, self._ended.release), chunk_size=1, **options)

    def wait_stopped(self) -> None:
        """Wait until the query has ended. It was stopped if it never reached its last batch."""
        while self._ended.locked():
            rest()
            pl.Series([0])  # a call of Polars frees the Python objects that its threads have released
        assert self.asked < MANY

    def _compute(self, number: int) -> int:
        self.asked += 1
        if gate := self._held_at.get(number):
            gate()
        return number


@pytest.fixture
def start(make_gate: Callable[[], Gate]) -> Iterator[Callable[..., tuple[Query, Gate]]]:
    """Return a function that makes a query, and the gate that holds it at the batch with a number."""

    def make(held_at: int) -> tuple[Query, Gate]:
        gate = make_gate()
        return Query({held_at: gate}), gate

    yield make
    gc.collect()


# -- what comes ---------------------------------------------------------------------------------------


def test_batches_are_the_frame_in_order() -> None:
    lf = pl.LazyFrame({"a": range(10), "b": [str(number) for number in range(10)]})
    with greendata.batches(lf, chunk_size=4, maintain_order=True) as stream:
        frames = list(stream)
    assert [df.height for df in frames] == [4, 4, 2]
    assert_frame_equal(pl.concat(frames), lf.collect())


@pytest.mark.parametrize("engine", ["auto", "in-memory", "streaming", pl.InMemoryEngine()])
def test_every_engine_makes_batches(engine: Any) -> None:
    frames = list(greendata.batches(ROWS.lazy(), engine=engine, chunk_size=2))
    assert_frame_equal(pl.concat(frames), ROWS)


def test_a_frame_without_rows_has_no_rows_in_batches() -> None:
    assert sum(df.height for df in greendata.batches(ROWS.lazy().head(0))) == 0


def test_after_the_end_nothing_is_returned() -> None:
    stream = greendata.batches(ROWS.lazy())
    assert sum(df.height for df in stream) == ROWS.height
    assert list(stream) == []
    assert "closed" in repr(stream)


def test_the_hub_keeps_running(hub_alive: Gate) -> None:
    assert_frame_equal(pl.concat(list(greendata.batches(gated(hub_alive)))), ROWS)


def test_the_first_batch_comes_before_the_query_ends(start: Callable[..., tuple[Query, Gate]]) -> None:
    query, gate = start(held_at=AHEAD)
    stream = query.batches()
    assert next(stream)["a"].to_list() == [0]
    assert next(stream)["a"].to_list() == [1]
    assert not gate.is_open
    gate.open()
    stream.close()
    query.wait_stopped()


def test_no_more_is_computed_than_a_few_ahead(start: Callable[..., tuple[Query, Gate]]) -> None:
    query, gate = start(held_at=MANY - 1)
    gate.open()
    stream = query.batches()
    for taken in range(1, 6):
        next(stream)
        before = -1
        while before != query.asked:  # until Polars' buffer is full
            before = query.asked
            for _ in range(20):
                rest()
        assert query.asked <= taken + AHEAD
    stream.close()
    query.wait_stopped()


def test_a_slow_consumer_holds_no_worker(start: Callable[..., tuple[Query, Gate]]) -> None:
    query, _ = start(held_at=MANY - 1)
    with one_worker(), query.batches() as stream:
        for _ in range(3):
            next(stream)
            assert greendata.run(sum, [1, 2]).get() == 3
    query.wait_stopped()


def test_batches_go_through_the_pool_with_key_and_label() -> None:
    stream = greendata.batches(ROWS.lazy(), key="tenant", label="export 7")
    with crowded():
        next(stream)
    assert "'export 7'" in repr(stream)
    stream.close()


# -- what stops it ------------------------------------------------------------------------------------


def leave_block(query: Query) -> None:
    with query.batches() as stream:
        next(stream)


def leave_block_by_error(query: Query) -> None:
    stream = query.batches()
    with pytest.raises(ZeroDivisionError), stream:
        1 / next(stream)["a"].item()


def close_it(query: Query) -> None:
    stream = query.batches()
    next(stream)
    stream.close()
    stream.close()
    assert list(stream) == []


def break_the_loop(query: Query) -> None:
    for _ in query.batches():
        break


def drop_it(query: Query) -> None:
    stream = query.batches()
    next(stream)
    del stream
    gc.collect()


def close_it_elsewhere(query: Query) -> None:
    stream = query.batches()
    next(stream)
    native.start_thread(stream.close, ())


@pytest.mark.parametrize(
    "stop", [leave_block, leave_block_by_error, close_it, break_the_loop, drop_it, close_it_elsewhere]
)
def test_the_query_stops(stop: Callable[[Query], None]) -> None:
    query = Query()
    stop(query)
    query.wait_stopped()


def test_closing_before_the_first_batch_starts_nothing() -> None:
    query = Query()
    query.batches().close()
    assert (query.asked, greendata.stats().running + greendata.stats().queued) == (0, 0)


def test_closing_while_the_query_starts_stops_it(start: Callable[..., tuple[Query, Gate]]) -> None:
    query, gate = start(held_at=0)
    stream = query.batches()
    consumer = gevent.spawn(pytest.raises, JobCancelled, next, stream)
    gate.wait_arrived()
    stream.close()
    consumer.get()
    gate.open()
    query.wait_stopped()


def test_closing_while_polars_makes_the_iterator_drops_it(held: Gate) -> None:
    made: list[weakref.ref[Any]] = []

    def begin() -> Iterator[pl.DataFrame]:
        held()
        batches = ROWS.lazy().collect_batches()
        made.append(weakref.ref(batches))
        return batches

    stream = greendata.Batches(begin)
    consumer = gevent.spawn(pytest.raises, JobCancelled, next, stream)
    held.wait_arrived()
    stream.close()
    consumer.get()
    while greendata.stats().running + greendata.stats().queued > 1:  # the held job stays, the closing job ends
        rest()
    held.open()
    while greendata.stats().running:
        rest()
    assert made[0]() is None


def test_closing_while_it_is_queued_starts_nothing(held: Gate) -> None:
    query = Query()
    stream = query.batches()
    with one_worker():
        busy = greendata.run(held, None)
        held.wait_arrived()
        consumer = gevent.spawn(pytest.raises, JobCancelled, next, stream)
        while not greendata.stats().queued:
            rest()
        stream.close()
        held.open()
        consumer.get()
        busy.get()
    assert query.asked == 0


def test_a_killed_consumer_stops_it(start: Callable[..., tuple[Query, Gate]]) -> None:
    query, gate = start(held_at=3)
    consumer = gevent.spawn(list, query.batches())
    gate.wait_arrived()
    consumer.kill()
    gate.open()
    query.wait_stopped()


def test_an_outer_timeout_stops_it(start: Callable[..., tuple[Query, Gate]]) -> None:
    query, gate = start(held_at=3)
    with pytest.raises(gevent.Timeout) as caught, timeout_at(gate) as outer:
        list(query.batches())
    assert caught.value is outer
    gate.open()
    query.wait_stopped()


def test_its_deadline_stops_it(start: Callable[..., tuple[Query, Gate]]) -> None:
    for timeout in TIMEOUTS:
        query, gate = start(held_at=3)
        stream = query.batches(timeout=timeout, label="export 7")
        with pytest.raises(DeadlineExceeded, match="export 7"):
            list(stream)
        assert list(stream) == []
        if gate.arrived:
            break
    gate.open()
    query.wait_stopped()


def test_a_deadline_block_stops_it(start: Callable[..., tuple[Query, Gate]]) -> None:
    for seconds in TIMEOUTS:
        query, gate = start(held_at=3)
        with greendata.deadline(seconds):
            stream = query.batches()
        with pytest.raises(DeadlineExceeded):
            list(stream)
        if gate.arrived:
            break
    gate.open()
    query.wait_stopped()


# -- errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ESCAPES)
def test_an_error_of_a_function_reaches_the_consumer(kind: type[BaseException]) -> None:
    def fail_at_the_third(number: int) -> int:
        if number == 3:
            raise kind
        return number

    stream = greendata.batches(gated_batches(fail_at_the_third, 10), chunk_size=1)
    with pytest.raises(kind if issubclass(kind, Exception) else JobAborted) as caught:
        list(stream)
    assert isinstance(caught.value, kind) or isinstance(caught.value.__cause__, kind)
    assert list(stream) == []


def test_an_invalid_query_fails_at_the_first_batch() -> None:
    stream = greendata.batches(ROWS.lazy().select("b"))
    with pytest.raises(ColumnNotFoundError):
        next(stream)
    assert list(stream) == []


@pytest.mark.parametrize("options", [{"chunk_sise": 1}, {"engine": "warp"}, {"timeout": -1}, {"timeout": "2"}])
def test_bad_input_is_rejected_at_the_call(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        greendata.batches(ROWS.lazy(), **options)


def test_two_consumers_at_once_are_refused(start: Callable[..., tuple[Query, Gate]]) -> None:
    query, gate = start(held_at=0)
    stream = query.batches()
    consumer = gevent.spawn(next, stream)
    gate.wait_arrived()
    with pytest.raises(BatchesBusy, match="give each consumer its own"):
        next(stream)
    gate.open()
    assert consumer.get()["a"].to_list() == [0]
    stream.close()
    query.wait_stopped()


# -- other threads, other formats ---------------------------------------------------------------------


def test_a_plain_thread_may_consume() -> None:
    taken: list[list[int]] = []
    over = Gate()

    def consume() -> None:
        taken.extend(batch["a"].to_list() for batch in greendata.batches(ROWS.lazy(), chunk_size=1))
        over.open()

    native.start_thread(consume, ())
    while not over.is_open:
        rest()
    assert taken == [[1], [2], [3]]


def test_a_worker_may_consume() -> None:
    with one_worker():
        work = greendata.run(lambda: [df.height for df in greendata.batches(ROWS.lazy(), chunk_size=2)])
        assert work.get() == [2, 1]


def test_it_is_an_arrow_stream() -> None:
    stream = greendata.batches(pl.LazyFrame({"a": range(10)}), chunk_size=3)
    assert_frame_equal(pl.DataFrame(stream), pl.DataFrame({"a": range(10)}))
    assert list(stream) == []


def test_the_arrow_stream_is_complete_or_refused() -> None:
    stream = greendata.batches(pl.LazyFrame({"a": range(10)}), chunk_size=3)
    next(stream)
    with pytest.raises(BatchesSpent, match="already been started or closed"):
        pl.DataFrame(stream)
    assert sum(df.height for df in stream) == 7
    with pytest.raises(BatchesSpent):
        stream.__arrow_c_stream__()
