"""What counts as one query: several jobs may be one, greendata's own jobs are none, and labels are bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import polars as pl
import pytest
from pydantic import BaseModel

import greendata
from greendata import observe
from greendata.errors import FrameInvalid, JobCancelled
from greendata.observe import listeners
from greendata.observe.counters import LABELS, Labels
from greendata.pool import job as jobs
from greendata.pool import operation as operations
from greendata.pool.cleanup import run_to_completion
from greendata.pool.operation import Operation, operation
from tests.conftest import Gate
from tests.support.frames import one_worker
from tests.support.natives import in_a_plain_thread, once_counted, until


class Row(BaseModel):
    a: int


LAZY = pl.LazyFrame({"a": range(100)})
EAGER = LAZY.collect()


@pytest.fixture(autouse=True)
def observed() -> Iterator[observe.Observer]:
    gevent.get_hub()
    yield observe.start()
    observe.stop()
    assert not jobs.listeners
    assert not operations.listeners


def outcomes() -> dict[str, tuple[int, int, int]]:
    """Return the numbers of queries that were done, failed and cancelled, by label."""
    return {label: (found.done, found.failed, found.cancelled) for label, found in observe.stats().labels.items()}


def stream() -> None:
    with greendata.batches(LAZY, chunk_size=10, label="query") as batches:
        assert sum(batch.height for batch in batches) == 100


ONE = {
    "a verb": lambda: once_counted(greendata.collect(LAZY, label="query")).get(),
    "a stream": stream,
    "a query that is sent": lambda: b"".join(greendata.encode(LAZY, "csv", label="query")),
    "a body with a model": lambda: greendata.decode(b'[{"a": 1}]', "json", model=Row, label="query"),
    "a body with a schema": lambda: greendata.decode(b"a\n1\n", "csv", model=Row, label="query"),
}


@pytest.mark.parametrize("query", ONE.values(), ids=ONE)
def test_a_query_counts_once_whatever_number_of_jobs_it_has(query: Callable[[], object]) -> None:
    query()
    until(lambda: outcomes() == {"query": (1, 0, 0)})
    counters = observe.stats().labels["query"]
    assert counters.waits.count == counters.runs.count == 1
    assert observe.stats().queries.done == 1


def test_verbs_of_several_steps_count_once() -> None:
    greendata.validate(EAGER, Row)
    assert outcomes() == {"validate": (1, 0, 0)}
    greendata.filter_valid(EAGER, Row)
    assert outcomes()["filter_valid"] == (1, 0, 0)
    assert observe.stats().queries.internal_jobs >= 2


def test_a_typed_frame_counts_its_query_and_not_the_checks_of_its_rows() -> None:
    rows = greendata.Frame[Row].from_frame(EAGER).filter(pl.col("a") > 1).collect()
    assert len(rows) == 98
    assert sum(done for done, _, _ in outcomes().values()) == 1


def test_writing_a_frame_that_exists_is_not_a_query() -> None:
    b"".join(greendata.encode(EAGER, "csv"))
    b"".join(greendata.encode([EAGER, EAGER], "csv"))
    run_to_completion(int, label="close").get()
    until(lambda: observe.stats().queries.internal_jobs >= 4)
    assert outcomes() == {}


def test_input_that_is_refused_is_not_a_failure_of_the_service() -> None:
    with pytest.raises(FrameInvalid):
        greendata.decode(b'[{"a": "x"}]', "json", model=Row)
    assert outcomes() == {"decode json": (1, 0, 0)}
    assert observe.stats().failures == ()


def test_a_stream_that_fails_is_one_failure() -> None:
    broken = LAZY.with_columns(pl.col("a").map_batches(lambda column: 1 // 0, return_dtype=pl.Int64))
    with pytest.raises(Exception, match=r"(?i)division"):
        list(greendata.batches(broken, label="query"))
    assert outcomes() == {"query": (0, 1, 0)}
    (failure,) = observe.stats().failures
    assert failure.label == "query"


def test_a_stream_that_is_left_is_cancelled() -> None:
    with greendata.batches(LAZY, chunk_size=10, label="query") as batches:
        next(batches)
    assert outcomes() == {"query": (0, 0, 1)}
    batches.close()
    assert outcomes() == {"query": (0, 0, 1)}


def test_a_stream_that_never_began_is_not_counted() -> None:
    greendata.batches(LAZY, label="query").close()
    assert outcomes() == {}


def test_the_part_of_a_stream_that_runs_has_the_name_and_the_age_of_the_stream(held: Gate) -> None:
    query = LAZY.with_columns(pl.col("a").map_batches(held, return_dtype=pl.Int64))
    batches = greendata.batches(query, label="query")

    def read() -> None:
        with pytest.raises(JobCancelled, match="by an operator, by its id"):
            next(batches)

    reading = gevent.spawn(read)
    held.wait_arrived()
    (job,) = observe.running()
    assert (job.label, job.internal, job.stops) == ("query", False, True)
    assert observe.stats().queries.running == 1
    assert observe.cancel(job.id)
    reading.get()
    held.open()
    assert outcomes() == {"query": (0, 0, 1)}


def test_jobs_that_wait_are_listed_and_cancelled_by_their_id(held: Gate) -> None:
    with one_worker():
        first = greendata.run(held, label="first")
        held.wait_arrived()
        second = greendata.run(int, label="second", key="tenant 7")
        (job,) = observe.queued()
        assert (job.label, job.key, job.internal) == ("second", "tenant 7", False)
        assert job.seconds >= 0.0
        assert observe.stats().queries.queued == 1
        assert observe.cancel(job.id)
        assert not observe.cancel(job.id)
        with pytest.raises(JobCancelled, match="before it began"):
            second.get()
        held.open()
        first.wait()


def test_the_id_of_a_job_that_waited_is_valid_when_it_runs(held: Gate, make_gate: Callable[[], Gate]) -> None:
    other = make_gate()
    with one_worker():
        first, second = greendata.run(held), greendata.run(other)
        held.wait_arrived()
        (job,) = observe.queued()
        held.open()
        other.wait_arrived()
        assert observe.cancel(job.id)
        assert second.cancelled()
        other.open()
        first.wait()


def test_listeners_of_a_plain_thread_hear_of_no_operation() -> None:
    """Jobs of a thread without a hub are not recorded, and so neither is a query that consists of them."""
    in_a_plain_thread(lambda: greendata.validate(EAGER, Row))
    assert outcomes() == {}


def test_an_operation_around_another_is_the_query() -> None:
    with operation("outer"):
        greendata.validate(EAGER, Row)
        once_counted(greendata.collect(LAZY)).get()
    assert outcomes() == {"outer": (1, 0, 0)}


def test_an_operation_ends_once() -> None:
    heard: list[object] = []
    listeners.add_query_listener(heard.append)
    found = Operation("query")
    with found.parts():
        once_counted(greendata.run(int)).get()
    found.finish(ValueError())
    found.finish()
    listeners.remove_query_listener(heard.append)
    assert [getattr(query, "status", None) for query in heard] == [None, "failed"]


UNBOUNDED = {
    "export 8412": "export *",
    "user/7c9e6679-7425-40de-944b-e07fc1f90ae7/sales": "user/*/sales",
    "job deadbeef01": "job *",
    "2026-11-29": "*-*-*",
    "tenant_12": "tenant_*",
    "order20261129": "order*",
    "q1": "q1",
    "api.v2.report": "api.v2.report",
    "read_csv": "read_csv",
    "facade": "facade",
    "defaced": "defaced",
}


@pytest.mark.parametrize(("label", "name"), UNBOUNDED.items())
def test_identifiers_in_labels_are_folded(label: str, name: str) -> None:
    assert Labels().of(label) == name


def test_labels_with_identifiers_leave_room_for_others() -> None:
    labels = Labels()
    assert {labels.of(f"export {number}") for number in range(10_000)} == {"export *"}
    assert labels.of("report") == "report"
    assert len({labels.of(f"of {chr(number)}") for number in range(300, 1_000)}) == LABELS - 2 + 1


LONG = "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter) SELECT max(n) FROM counter"


def test_a_statement_stops_when_it_is_cancelled_and_a_query_of_polars_does_not(held: Gate) -> None:
    query = greendata.run(held)
    held.wait_arrived()
    (job,) = observe.running()
    assert not job.stops
    held.open()
    query.get()
    statement = greendata.read_sql(LONG, "sqlite://")  # it would never end
    until(lambda: [job for job in observe.running() if job.label == "read_sql"])
    (job,) = [job for job in observe.running() if job.label == "read_sql"]
    assert job.stops
    end = statement.end()
    assert observe.cancel(job.id)
    end.get()
