"""Prometheus metrics, as prometheus-client's own parser reads them, in one process and in several."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

import greendata
from greendata import observe
from greendata.observe.counters import LABELS
from greendata.observe.histogram import BOUNDS
from greendata.observe.metrics import Metrics
from greendata.pool import job as jobs
from tests.conftest import Gate, run_python
from tests.support.natives import once_counted, until

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics(CollectorRegistry())
    yield made
    made.close()
    observe.stop()
    assert not jobs.listeners


def samples(metrics: Metrics) -> Samples:
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    return read(body.decode())


def read(text: str) -> Samples:
    families = parse(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def labels(**names: str) -> frozenset[tuple[str, str]]:
    return frozenset(names.items())


def broken() -> None:
    raise ValueError("a value of the data: secret")


def test_outcomes_waits_and_runs_by_label(metrics: Metrics) -> None:
    for func in (int, int, broken):
        once_counted(greendata.run(func, label="report"))
    found = samples(metrics)
    assert found["greendata_jobs_total", labels(label="report", outcome="done")] == 2
    assert found["greendata_jobs_total", labels(label="report", outcome="failed")] == 1
    for name in ("greendata_job_wait_seconds", "greendata_job_run_seconds"):
        assert found[f"{name}_count", labels(label="report")] == 3
        assert found[f"{name}_bucket", labels(label="report", le="+Inf")] == 3
        assert {dict(key[1])["le"] for key in found if key[0] == f"{name}_bucket"} == {*map(str, BOUNDS), "+Inf"}
    assert "secret" not in metrics.exposition()[0].decode()


def test_gauges_are_those_of_the_moment(metrics: Metrics, held: Gate) -> None:
    result = greendata.run(held)
    held.wait_arrived()
    assert samples(metrics)["greendata_jobs_running", labels()] == 1
    result.cancel()
    found = samples(metrics)
    assert (found["greendata_jobs_running", labels()], found["greendata_jobs_abandoned", labels()]) == (1, 1)
    assert found["greendata_jobs_queued", labels()] == 0
    assert found["greendata_pool_workers", labels()] >= 1
    assert found["greendata_hub_lag_seconds", labels()] >= 0
    held.open()
    until(lambda: samples(metrics)["greendata_jobs_running", labels()] == 0)


def test_a_rejected_submit_is_counted(metrics: Metrics) -> None:
    before = samples(metrics)["greendata_jobs_rejected_total", labels()]
    greendata.drain()
    with pytest.raises(greendata.PoolClosed):
        greendata.run(int)
    greendata.configure()
    assert samples(metrics)["greendata_jobs_rejected_total", labels()] == before + 1


def test_labels_are_bounded(metrics: Metrics) -> None:
    for result in [greendata.run(int, label=f"report of {chr(number)}") for number in range(300, 320 + LABELS)]:
        once_counted(result)
    found = samples(metrics)
    assert found["greendata_jobs_total", labels(label="other", outcome="done")] == 20
    assert sum(name == "greendata_jobs_total" for name, _ in found) == LABELS + 1


def test_metrics_are_written_without_a_request() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    greendata.run(int, label="report").get(timeout=10)
    until(lambda: registry.get_sample_value("greendata_jobs_total", {"label": "report", "outcome": "done"}) == 1)
    metrics.close()
    observe.stop()


def test_openmetrics_on_request(metrics: Metrics) -> None:
    once_counted(greendata.run(int, label='a "label"\n'))
    body, content_type = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert families["greendata_jobs"].samples[0].labels["label"] == 'a "label"\n'


def test_a_registry_holds_the_metrics_once_until_close() -> None:
    registry = CollectorRegistry()
    first = Metrics(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Metrics(registry)
    first.close()
    first.close()
    Metrics(registry).close()
    observe.stop()


WORKER = """
import os, signal, sys
import greendata
from greendata.observe.metrics import Metrics
from tests.support.natives import once_counted
metrics = Metrics()
for _ in range(int(sys.argv[1])):
    once_counted(greendata.run(int, label="report"))
print(metrics.exposition()[0].decode(), flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("end", "code"), [("killed", -signal.SIGKILL), ("ends", 0)])
def test_two_processes_are_one_in_multiprocess_mode(tmp_path: Path, end: str, code: int) -> None:
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    first = run_python(["-c", WORKER, "3", end], env=env)
    second = run_python(["-c", WORKER, "4", "ends"], env=env)
    assert (first.returncode, second.returncode) == (code, 0), first.stderr + second.stderr
    alone, together = read(first.stdout), read(second.stdout)
    done = "greendata_jobs_total", labels(label="report", outcome="done")
    assert (alone[done], together[done]) == (3, 7)
    assert together["greendata_job_run_seconds_count", labels(label="report")] == 7
    assert together["greendata_pool_workers", labels()] == 1  # of the process that still runs
    assert together["greendata_hub_lag_seconds", labels()] >= 0


def test_an_empty_file_of_a_killed_process_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "histogram_1.db").touch()
    finished = run_python(["-c", WORKER, "3", "ends"], env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    assert finished.returncode == 0, finished.stderr
    assert read(finished.stdout)["greendata_jobs_total", labels(label="report", outcome="done")] == 3


def test_each_forked_child_writes_its_own_metrics(tmp_path: Path) -> None:
    finished = run_python(
        """
        import os
        from gevent.monkey import get_original
        import greendata
        from greendata.observe.metrics import Metrics
        from tests.support.natives import once_counted
        metrics = Metrics()
        once_counted(greendata.run(int))
        metrics.exposition()
        pid = os.fork()
        once_counted(greendata.run(int, label="report"))
        if not pid:
            print(metrics.exposition()[0].decode(), flush=True)
            os._exit(0)
        get_original("os", "waitpid")(pid, 0)
        print("alone", metrics.exposition()[0].decode())
        """,
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
    )
    together, alone = map(read, finished.stdout.split("alone "))
    assert alone["greendata_jobs_total", labels(label="report", outcome="done")] == 2, finished.stderr
    assert together["greendata_pool_workers", labels()] == 2  # of both processes
    assert alone["greendata_pool_workers", labels()] == 1
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
