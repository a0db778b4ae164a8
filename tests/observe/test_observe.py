"""The statistics of finished jobs, the running jobs and their ids, and the snapshot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import gevent
import pytest

import greendata
from greendata import observe
from greendata.errors import BadArgument, JobCancelled
from greendata.observe.counters import FAILURES, LABELS
from greendata.observe.histogram import BOUNDS, Durations
from greendata.pool import job as jobs
from tests.conftest import Gate, run_python
from tests.support.frames import one_worker
from tests.support.natives import Native, once_counted, until


@pytest.fixture(autouse=True)
def observed() -> Iterator[observe.Observer]:
    yield observe.start()
    observe.stop()
    assert not jobs.listeners


def broken() -> None:
    raise ValueError("a value of the data: cake of mine")


def test_every_outcome_is_counted(held: Gate) -> None:
    once_counted(greendata.run(int, label="report")).get()
    with pytest.raises(ValueError, match="cake of mine"):
        once_counted(greendata.run(broken, label="report")).get()
    running = greendata.run(held, label="report")
    held.wait_arrived()
    counters = observe.stats().labels["report"]
    assert (counters.done, counters.failed, counters.cancelled) == (1, 1, 0)
    running.cancel()
    until(lambda: observe.stats().labels["report"].cancelled)  # the hub is notified in its next iteration
    counters = observe.stats().labels["report"]
    assert counters.waits.count == counters.runs.count == 3
    held.open()


def test_a_job_that_never_began_has_waited_and_not_run(held: Gate) -> None:
    with one_worker():
        holders = [greendata.run(held) for _ in range(observe.stats().pool.workers or 1)]
        held.wait_arrived(1)
        greendata.run(int, label="never").cancel()
        until(lambda: "never" in observe.stats().labels)
        held.open()
        gevent.joinall(holders)
    never = observe.stats().labels["never"]
    assert (never.cancelled, never.waits.count, never.runs.count) == (1, 1, 0)


def test_the_totals_are_the_sums_over_the_labels() -> None:
    for label in ("a", "a", "b"):
        once_counted(greendata.run(int, label=label))
    stats = observe.stats()
    assert stats.runs.count == stats.waits.count == 3
    assert stats.runs.total == pytest.approx(sum(counters.runs.total for counters in stats.labels.values()))


def test_labels_are_bounded() -> None:
    for result in [greendata.run(int, label=f"report of {chr(number)}") for number in range(300, 320 + LABELS)]:
        once_counted(result)
    labels = observe.stats().labels
    assert len(labels) == LABELS + 1
    assert labels["other"].done == 20


def test_the_last_failures_are_kept_without_any_data() -> None:
    for number in range(FAILURES + 3):
        once_counted(greendata.run(broken, label=f"report {number}"))
    failures = observe.stats().failures
    assert len(failures) == FAILURES
    assert (failures[0].label, failures[0].error, failures[0].text) == (f"report {FAILURES + 2}", "ValueError", None)
    assert "cake of mine" not in observe.snapshot_json()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_texts_of_errors_are_kept_on_request() -> None:
    observe.stop()
    observe.start(keep_texts=True)

    def mute() -> None:
        raise Mute

    for func in (broken, mute):
        once_counted(greendata.run(func))
    assert [failure.text for failure in observe.stats().failures] == [
        "(its text raised RuntimeError)",
        "a value of the data: cake of mine",
    ]


def test_a_running_job_is_listed_and_cancelled_by_its_id(held: Gate) -> None:
    result = greendata.run(held, key="tenant 7", label="report")
    held.wait_arrived()
    (job,) = observe.running()
    assert (job.label, job.key, job.worker, job.abandoned) == ("report", "tenant 7", job.id.split(".")[1], False)
    assert job.seconds >= 0.0
    assert not observe.cancel(job.id + "0")
    assert observe.cancel(job.id)
    assert not observe.cancel(job.id)
    with pytest.raises(JobCancelled, match="by its id"):
        result.get(timeout=10)
    assert observe.running()[0].abandoned
    held.open()
    until(lambda: not observe.running())


def test_an_id_belongs_to_one_job_only(make_gate: Callable[[], Gate]) -> None:
    ids = set()
    with one_worker():
        for _ in range(3):
            gate = make_gate()
            result = greendata.run(gate)
            gate.wait_arrived()
            ids.add(observe.running()[0].id)
            gate.open()
            result.get(timeout=10)
            until(lambda: not observe.running())
    assert len(ids) == 3


def test_jobs_of_threads_without_a_hub_are_counted_by_the_pool_only() -> None:
    done = observe.stats().pool.done
    assert Native(lambda: greendata.run(int, label="plain").get(timeout=10)).join() == 0
    inside = greendata.run(lambda: greendata.run(int, label="inline").get(), label="outside")
    assert once_counted(inside).get() == 0
    until(lambda: observe.stats().pool.done >= done + 2)  # the inline job is part of the enclosing job
    stats = observe.stats()
    assert stats.pool.done == done + 2
    assert stats.labels.keys() == {"outside"}


def test_the_snapshot_is_json_with_the_same_names(held: Gate) -> None:
    result = greendata.run(held, key=("tenant", 7), label="report")
    held.wait_arrived()
    until(lambda: observe.stats().history)
    found = json.loads(observe.snapshot_json())
    assert found["pool"]["running"] == 1
    assert [(job["label"], job["key"]) for job in found["jobs"]] == [("report", "('tenant', 7)")]
    assert found["history"][0].keys() == {"at", "lag", "queued", "running"}
    assert found["bounds"] == list(BOUNDS)
    assert json.loads(observe.snapshot_json(seconds=0))["history"] == []
    held.open()
    result.get(timeout=10)


def test_starting_twice_changes_nothing_and_stopping_discards(observed: observe.Observer) -> None:
    once_counted(greendata.run(int, label="report"))
    assert observe.start(keep_texts=True) is observed
    assert "report" in observe.stats().labels
    observe.stop()
    observe.stop()
    assert observe.stats().labels == {}
    once_counted(greendata.run(int, label="report"))
    assert observe.stats().labels == {}


def test_an_interval_out_of_bounds_starts_nothing() -> None:
    observe.stop()
    with pytest.raises(BadArgument, match=r"seconds from 0\.01 to 0\.05, got 1$"):
        observe.start(interval=1)
    assert not jobs.listeners


def test_each_second_is_reported(observed: observe.Observer) -> None:
    reported: list[observe.Second] = []
    observed.on_second(reported.append)
    until(lambda: reported)
    observed.off_second(reported.append)
    assert reported[-1] in observe.stats().history


def test_quantiles_are_bounds() -> None:
    durations = Durations([0.0005] * 90 + [0.3] * 9 + [100.0])
    histogram = durations.histogram()
    assert [histogram.quantile(share) for share in (0.5, 0.9, 0.95, 1.0)] == [0.001, 0.001, 0.5, float("inf")]
    assert histogram.mean == pytest.approx((0.0005 * 90 + 0.3 * 9 + 100) / 100)
    assert (Durations().histogram().quantile(0.5), Durations().histogram().mean) == (0.0, 0.0)


def test_a_forked_child_starts_with_empty_counters() -> None:
    finished = run_python(
        """
        import os
        import greendata
        from gevent.monkey import get_original
        from greendata import observe
        from tests.support.natives import once_counted
        observe.start()
        once_counted(greendata.run(int, label="parent"))
        pid = os.fork()
        once_counted(greendata.run(int, label="child" if not pid else "parent"))
        if pid:
            get_original("os", "waitpid")(pid, 0)
        print({label: counters.done for label, counters in observe.stats().labels.items()}, flush=True)
        if not pid:
            os._exit(0)
        """
    )
    assert finished.stdout.splitlines() == ["{'child': 1}", "{'parent': 2}"], finished.stderr


def test_observing_does_not_keep_the_process() -> None:
    finished = run_python(
        """
        import gevent, greendata
        greendata.observe.start()
        print(gevent.wait(timeout=None))
        """
    )
    assert (finished.returncode, finished.stdout) == (0, "True\n"), finished.stderr
