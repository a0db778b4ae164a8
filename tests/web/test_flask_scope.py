"""Requests that end before their queries, in a real gunicorn: clients that leave, deadlines, streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from http.client import IncompleteRead
from pathlib import Path

import pytest

from tests.support.servers import Pipe, Server

pytestmark = pytest.mark.once("unpatched")  # each test starts a process

# Every view waits natively at a pipe that the test opens, except /state, which returns the outcomes of the others.
SERVICE = """
import gevent
import greendata
import polars as pl
from flask import Flask, g, jsonify, request
from greendata import observe
from greendata.web.flask import GreenData, health, keep, respond

app = Flask("service")
green = GreenData(app, key=lambda: request.args.get("tenant"))
app.register_blueprint(health())
outcomes = []

def read(name, *_):
    with open(name, "rb") as gate:
        gate.read()
    return pl.DataFrame({"a": [1, 2, 3]})

def noted(call):
    try:
        outcomes.append(f"{call()} rows")
    except Exception as error:
        outcomes.append(f"{type(error).__name__}: {error}")
        raise

@app.get("/plain")
def plain():
    noted(lambda: pl.LazyFrame({"a": [1]}).map_batches(lambda df: read("gate")).collect().height)
    return "done"

@app.post("/posted")
def posted():
    noted(lambda: greendata.run(read, "gate").get().height)
    return request.get_data()

@app.get("/verb")
def verb():
    noted(lambda: greendata.run(read, "gate", label="report").get().height)
    return "done"

@app.get("/grouped")
def grouped():
    members = []
    try:
        with greendata.Group(adopt=True), greendata.Group(adopt=True) as group:
            members += greendata.run(read, "gate"), group.run(read, "gate"), group.spawn(gevent.sleep, 3600)
    finally:
        outcomes.append(" | ".join(f"{member.exception}" for member in members))
    return "done"

@app.get("/again")
def again():
    try:
        greendata.run(read, "gate").get()
    except greendata.JobCancelled:
        noted(lambda: greendata.run(read, "gate").get().height)
    return "done"

@app.get("/brief")
@green.deadline(0.05)
def brief():
    noted(lambda: pl.LazyFrame({"a": [1]}).map_batches(lambda df: read("gate")).collect().height)
    return "done"

@app.get("/left")
def left():
    outcomes.append(greendata.run(read, "gate"))
    outcomes.append(keep(greendata.run(read, "other")))
    return "done"

@app.get("/stream")
def stream():
    def frames():
        yield pl.DataFrame({"a": [1, 2]})
        noted(lambda: greendata.run(read, "gate").get().height)
        yield pl.DataFrame({"a": [3]})
    return respond(frames(), "ndjson")

@app.get("/broken")
def broken():
    def frames():
        yield pl.DataFrame({"a": [1, 2]})
        raise ValueError("too late")
    return respond(frames(), "ndjson")

@app.get("/cancel")
def cancel():
    return str(sum(observe.cancel(job.id) for job in observe.running()))

@app.get("/state")
def state():
    said = [item if isinstance(item, str) else f"{item.status} {item.exception}" for item in outcomes]
    return jsonify(outcomes=said, running=greendata.stats().running)
"""

WORKERS = ["greendata.web.gunicorn.GreenWorker", "gunicorn.workers.ggevent.GeventPyWSGIWorker"]
HOOKS = "from greendata.web.gunicorn import post_worker_init\n"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "gate")
    yield pipe
    pipe.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "other")
    yield pipe
    pipe.close()


@pytest.fixture(params=WORKERS, ids=["gunicorn", "pywsgi"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Run the service on gunicorn's HTTP server and on gevent's."""
    (tmp_path / "gunicorn.conf.py").write_text(HOOKS, encoding="utf-8")
    started = Server(tmp_path, SERVICE, ["-k", request.param, "--graceful-timeout", "6"], {})
    yield started
    started.stop()


def outcome(server: Server) -> str:
    """Wait until a request has noted its outcome, and return it."""
    while not (found := json.loads(server.ask("/state"))["outcomes"]):
        pass
    return str(found[0])


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


@pytest.mark.parametrize("path", ["/plain", "/verb", "/again", "/plain?tenant=a"])
def test_a_client_that_leaves_ends_what_its_view_waits_for(server: Server, gate: Pipe, path: str) -> None:
    with server.connected(get(path)):
        gate.wait_arrived()
    assert outcome(server).startswith("JobCancelled: ")
    assert outcome(server).endswith("the client left")
    gate.open()


def test_a_client_that_leaves_ends_the_members_of_a_group(server: Server, gate: Pipe) -> None:
    with server.connected(get("/grouped")):
        gate.wait_arrived()
    assert [why.endswith("the client left") for why in outcome(server).split(" | ")] == [True] * 3
    gate.open()


def test_a_client_that_stays_gets_its_response(server: Server, gate: Pipe) -> None:
    with server.asked("/plain") as answer:
        gate.open()
        assert answer().read() == b"done"
    assert outcome(server) == "3 rows"


def test_the_next_request_on_the_connection_is_not_a_disconnect(server: Server, gate: Pipe) -> None:
    with server.connected(get("/verb")) as client:
        gate.wait_arrived()
        client.sendall(get("/state"))
        assert "running" in server.ask("/state")
        gate.open()
        client.settimeout(30)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
    assert outcome(server) == "3 rows"


def test_an_unread_body_is_not_a_disconnect(server: Server, gate: Pipe) -> None:
    request = b"POST /posted HTTP/1.1\r\nHost: here\r\nContent-Length: 200000\r\nConnection: close\r\n\r\n"
    with server.connected(request) as client:
        gate.wait_arrived()
        client.sendall(b"x" * 100_000)
        assert "running" in server.ask("/state")
        gate.open()
        client.sendall(b"x" * 100_000)
        received = b""
        while piece := client.recv(1 << 16):
            received += piece
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert received.endswith(b"x" * 100_000)


def test_a_request_that_is_out_of_time_cancels_its_query(server: Server, gate: Pipe) -> None:
    with server.asked("/brief") as answer:
        response = answer()
        assert response.status == 504
        assert response.headers["Content-Type"] == "application/problem+json"
    assert outcome(server).startswith("DeadlineExceeded: ")
    while json.loads(server.ask("/state"))["running"]:  # on a busy machine the query may start late
        gate.let_pass()


@pytest.mark.usefixtures("gate")
def test_queries_of_a_finished_view_are_cancelled_unless_kept(server: Server, other: Pipe) -> None:
    assert server.ask("/left") == "done"
    first, second = json.loads(server.ask("/state"))["outcomes"]
    assert first.endswith("the request is over")
    assert second.startswith(("queued", "running"))
    other.open()
    while not json.loads(server.ask("/state"))["outcomes"][1].startswith("done"):
        pass


def test_a_client_that_leaves_a_stream_ends_it(server: Server, gate: Pipe) -> None:
    with server.connected(get("/stream")) as client:
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        gate.wait_arrived()
    assert outcome(server).endswith("the client left")
    gate.open()
    assert "Traceback" not in server.read_log()


def test_a_stream_that_an_operator_cancels_is_cut_short_without_a_traceback(server: Server, gate: Pipe) -> None:
    with server.asked("/stream") as answer:
        response = answer()
        assert response.status == 200
        gate.wait_arrived()
        assert server.ask("/cancel") == "1"
        with pytest.raises((IncompleteRead, ConnectionError)):
            response.read()
    gate.open()
    server.wait_log("the response of stream is cut short: read was cancelled while it ran")
    assert "Traceback" not in server.read_log()


def test_a_late_error_leaves_the_body_unfinished(server: Server) -> None:
    with server.asked("/broken") as answer:
        response = answer()
        assert response.status == 200
        with pytest.raises((IncompleteRead, ConnectionError)):
            response.read()
    server.wait_log("too late")


def old(path: str) -> bytes:
    """Send a request as nginx does to upstream servers by default."""
    return f"GET {path} HTTP/1.0\r\nHost: here\r\nConnection: close\r\n\r\n".encode()


def test_a_late_error_resets_an_http_1_0_connection(server: Server) -> None:
    with server.connected(old("/broken")) as client, pytest.raises(ConnectionResetError):
        b"".join(iter(partial(client.recv, 1 << 16), b""))
    server.wait_log("ValueError: too late")
    assert "Bad file descriptor" not in server.read_log()


def test_a_complete_response_ends_normally_in_http_1_0(server: Server, gate: Pipe) -> None:
    with server.connected(old("/stream")) as client:
        gate.open()
        received = b"".join(iter(partial(client.recv, 1 << 16), b""))
    assert received.endswith(b'\r\n\r\n{"a":1}\n{"a":2}\n{"a":3}\n')


def test_a_worker_that_drains_is_alive_and_not_ready(server: Server, gate: Pipe) -> None:
    with server.asked("/verb") as answer:
        gate.wait_arrived()
        assert server.ask("/readyz") == "ok\n"
        server.terminate()
        response = answer()
        assert (response.status, response.headers["Content-Type"]) == (503, "application/problem+json")
        assert int(response.headers["Retry-After"]) >= 1
    assert server.wait_end() == 0
    assert "cancels 1 running: report x1" in server.read_log()
