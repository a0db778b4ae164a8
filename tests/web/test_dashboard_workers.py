"""Cancel requests with three workers of a real gunicorn: a query is cancelled in any worker."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.gates import rest
from tests.support.processes import children_end
from tests.support.servers import GUARD, Pipe, Server

pytestmark = [children_end, pytest.mark.once("patched")]  # each test starts a process

WORKERS = 3
TOKEN = "x" * 43
SERVICE = """
import os
import greendata
from flask import Flask
from greendata.web.flask import GreenData

app = Flask("service")
app.config["GREENDATA_DASHBOARD"] = True
GreenData(app, dashboard_auth=lambda: True)

def read(name):
    with open(name, "rb") as gate:
        gate.read()

@app.get("/held")
def held():
    try:
        greendata.run(read, "gate", label="report").get()
    except greendata.JobCancelled:
        return f"cancelled in {os.getpid()}"
    return "done"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    arguments = ["-k", "greendata.web.gunicorn.GreenWorker", "-w", str(WORKERS), "--graceful-timeout", "2"]
    arguments += ["--timeout", "300"]  # gunicorn kills workers that do not respond for longer, even stopped ones
    started = Server(tmp_path, SERVICE, arguments, {})
    yield started
    started.stop()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "gate")
    yield pipe
    pipe.close()


def press(server: Server, job: str) -> int:
    """Return the status of a cancel request on one connection."""
    headers = {"Connection": "close", "Cookie": f"greendata-token={TOKEN}", "X-Greendata-Token": TOKEN}
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=GUARD)) as connection:
        connection.request("POST", f"/greendata/cancel/{job}", headers=headers)
        return connection.getresponse().status


def workers_of(server: Server) -> list[int]:
    """Return the processes of the workers, once all have logged that they boot."""
    while server.read_log().count("Booting worker") < WORKERS:
        rest()
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in children.read_text(encoding="utf-8").split()]


@contextmanager
def alone(worker: int, workers: list[int]) -> Iterator[None]:
    """Stop the other workers inside the block, so that *worker* gets all new connections."""
    others = [pid for pid in workers if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "T":
            rest()
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def test_the_button_reaches_the_query_in_whichever_worker_it_runs(server: Server, gate: Pipe) -> None:
    workers = workers_of(server)
    jobs: dict[int, str] = {}
    with ExitStack() as block:
        answers = {}
        for worker in workers:
            with alone(worker, workers):
                answers[worker] = block.enter_context(server.asked("/held"))
                while not (running := json.loads(server.ask("/greendata/stats.json"))["jobs"]):
                    rest()
            jobs[worker] = running[0]["id"]
        for worker, other in zip(workers, workers[1:] + workers[:1], strict=True):
            with alone(other, workers):
                assert press(server, jobs[worker]) == 409  # the page tries again
            with alone(worker, workers):
                assert press(server, jobs[worker]) == 204
            assert answers[worker]().read().decode() == f"cancelled in {worker}"
    gate.open()
