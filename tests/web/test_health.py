"""The liveness and readiness pages."""

from __future__ import annotations

import re
from collections.abc import Iterator

import gevent
import pytest
from flask import Flask
from flask.testing import FlaskClient

import greendata
from greendata import observe
from greendata.pool import pool
from greendata.web import drain
from greendata.web.flask import GreenData, health
from tests.conftest import Gate
from tests.support.gates import rest
from tests.support.natives import until


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    app = Flask("service")
    GreenData(app)
    app.register_blueprint(health())
    settings = pool.shared.settings
    yield app.test_client()
    drain.reset()
    greendata.configure(max_workers=settings.max_workers, max_queue=settings.max_queue)


def reason(client: FlaskClient) -> str:
    answer = client.get("/readyz")
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.get("/livez").status_code == 200
    return "" if answer.status_code == 200 else f"{answer.status_code} {answer.get_json(force=True)['detail']}"


def test_health_checks_are_off_by_default() -> None:
    app = Flask("service")
    GreenData(app)
    assert app.test_client().get("/livez").status_code == 404


def test_an_idle_server_is_ready(client: FlaskClient) -> None:
    assert reason(client) == ""


def test_a_full_queue_is_not_ready(client: FlaskClient, held: Gate) -> None:
    greendata.configure(max_workers=1, max_queue=1)
    jobs = [greendata.run(held)]
    held.wait_arrived()
    jobs.append(greendata.run(held))
    assert reason(client) == "503 the queue is full: 1 job is waiting"
    held.open()
    greendata.gather(*jobs).get()
    assert reason(client) == ""


def test_a_process_that_drains_is_not_ready(client: FlaskClient) -> None:
    drain.begin(60.0, print)
    assert reason(client) == "503 the process is shutting down"
    drain.reset()
    assert reason(client) == ""
    greendata.drain(0)
    assert reason(client) == "503 the process is shutting down"


def test_a_hub_that_lags_is_not_ready(client: FlaskClient) -> None:
    observer = observe.start(interval=0.01)
    try:
        until(observer.probe.samples)
        until(lambda: reason(client) == "")  # on a busy machine it may have lagged already
        told: list[str] = []
        observer.probe.on_tick(lambda lag: told.append(reason(client)) if lag >= 1.0 else None)
        _sleep_natively(1.1)
        until(lambda: told)
        assert re.match(r"503 the hub lags by [1-9]\d*\.", told[0])
    finally:
        observe.stop()


def test_livez_does_not_use_the_pool(client: FlaskClient) -> None:
    greendata.drain(0)
    before = pool.stats()
    assert client.get("/livez").text == "ok\n"
    assert pool.stats() == before


def test_abandoned_jobs_are_named(held: Gate) -> None:
    settings = pool.shared.settings
    greendata.configure(max_workers=1)
    running, queued = greendata.run(held, label="report"), greendata.run(held, label="export")
    held.wait_arrived()
    told: list[drain.Abandoned] = []
    drain.begin(0.0, told.append)
    drain.begin(60.0, print)
    until(lambda: told)
    assert told == [drain.Abandoned(running=("report",), queued=("export",))]
    for result in (running, queued):
        with pytest.raises(greendata.JobCancelled, match="the server is shutting down"):
            result.get()
    held.open()
    while pool.stats().running:
        rest()
    drain.reset()
    greendata.configure(max_workers=settings.max_workers)


def _sleep_natively(seconds: float) -> None:
    """Block the hub."""
    gevent.monkey.get_original("time", "sleep")(seconds)
