"""Queries of a real gunicorn that run in child processes: what ends them, and what does not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest

from tests.formats.test_isolation import shared_prefixes
from tests.support.natives import until
from tests.support.servers import ROUTED, Server

pytestmark = pytest.mark.once("unpatched")  # each test starts a process

LEGACY = """
import gevent
import os
import polars as pl
from tests.support.child_tasks import allocate, held_query, process_ids

def throw_once_held(view):
    while not os.path.exists("held"):
        gevent.sleep(0.01)
    view.throw(gevent.Timeout(1))

def timed():
    gevent.spawn(throw_once_held, gevent.getcurrent())
    try:
        held_query("held").collect()
    except gevent.Timeout:
        return "timed out"

def greedy():
    grow = pl.col("a").map_batches(lambda s: s + allocate(1 << 20, 400))
    return pl.LazyFrame({"a": [1]}).select(grow).collect().item()

ROUTES = {
    "/ping": lambda: "pong",
    "/places": lambda: process_ids().collect().item() == os.getpid(),
    "/eager": lambda: pl.DataFrame({"a": [3]}).select(pl.col("a").map_batches(lambda s: s * 0 + os.getpid())).item()
        == os.getpid(),
    "/timed": timed,
    "/greedy": greedy,
}
"""

FLASK = """
import os
from flask import Flask
from greendata.web.flask import GreenData, respond
from tests.support.child_tasks import held_query, process_ids

app = Flask("service")
GreenData(app)

@app.get("/held")
def held():
    return str(held_query("held").collect().height)

@app.get("/streamed")
def streamed():
    return respond(held_query("streamed"))

@app.get("/pid")
def pid():
    return str(process_ids().collect().item())

@app.get("/short")
@GreenData.deadline(0.2)
def short():
    return str(held_query("short").collect().height)
"""


UPLOADS = """
import os
from flask import Flask
from pydantic import BaseModel
from greendata.web.flask import GreenData, body

class Row(BaseModel):
    a: str

app = Flask("service")
GreenData(app)

@app.post("/rows")
def rows():
    return str(body(Row).height)

@app.get("/pid")
def pid():
    return str(os.getpid())
"""


@pytest.fixture
def legacy(tmp_path: Path) -> Iterator[Server]:
    """A service that knows nothing of greendata."""
    env = {"GREENDATA_AUTOPATCH": "1", "GREENDATA_ENGINE": "process:workers=1,memory_limit=300MiB"}
    server = Server(tmp_path, LEGACY + ROUTED, ["-k", "gevent"], env)
    yield server
    server.terminate()
    assert server.wait_end() == 0, server.read_log()


@pytest.fixture
def flask(tmp_path: Path) -> Iterator[Server]:
    env = {"GREENDATA_AUTOPATCH": "1", "GREENDATA_ENGINE": "process:workers=1"}
    server = Server(tmp_path, FLASK, ["-k", "gevent"], env)
    yield server
    server.terminate()
    assert server.wait_end() == 0, server.read_log()


def pid_in(path: Path) -> int:
    until(path.exists)
    return int(path.read_text())


def wait_gone(pid: int) -> None:
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_the_environment_alone_moves_the_queries_of_a_service(legacy: Server) -> None:
    assert legacy.ask("/places") == "False"
    assert legacy.ask("/eager") == "True"


@pytest.mark.parametrize("arguments", [["-k", "gevent", "--preload"], ["-k", "gthread"]], ids=" ".join)
def test_other_ways_to_serve(tmp_path: Path, arguments: list[str]) -> None:
    head = "import greendata; greendata.patch_polars()\n" if "gthread" in arguments else ""
    env = {"GREENDATA_AUTOPATCH": "1", "GREENDATA_ENGINE": "process:workers=1"}
    server = Server(tmp_path, head + LEGACY + ROUTED, arguments, env)
    try:
        assert [server.ask("/places"), server.ask("/eager")] == ["False", "True"]
    finally:
        server.terminate()
        assert server.wait_end() == 0, server.read_log()


def test_a_timeout_of_gevent_ends_the_child(legacy: Server) -> None:
    assert legacy.ask("/timed") == "timed out"
    wait_gone(pid_in(legacy.log.parent / "held"))
    assert legacy.ask("/places") == "False"


def test_a_query_over_the_limit_fails_alone(legacy: Server) -> None:
    assert legacy.ask("/greedy").startswith("MemoryLimitExceeded: the query needed more than 314572800 bytes of memory")
    assert legacy.ask("/places") == "False"


@pytest.mark.parametrize("name", ["held", "streamed"])
def test_a_client_that_leaves_ends_the_child(flask: Server, name: str) -> None:
    with flask.connected(f"GET /{name} HTTP/1.1\r\nHost: here\r\n\r\n".encode()):
        pid = pid_in(flask.log.parent / name)
    wait_gone(pid)
    assert int(flask.ask("/pid")) != pid


def test_a_deadline_ends_the_child(flask: Server) -> None:
    with closing(HTTPConnection("127.0.0.1", flask.port, timeout=60)) as connection:
        connection.request("GET", "/short")
        assert connection.getresponse().status == 504
    path = flask.log.parent / "short"
    if path.exists():  # the child had begun before the deadline
        wait_gone(int(path.read_text()))


def test_a_killed_server_leaves_no_child(flask: Server) -> None:
    with flask.connected(b"GET /held HTTP/1.1\r\nHost: here\r\n\r\n"):
        pid = pid_in(flask.log.parent / "held")
        worker = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGKILL)
        wait_gone(pid)


def post(server: Server, content: bytes) -> tuple[int, str]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", "/rows", content, {"Content-Type": "application/vnd.apache.parquet"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_a_hostile_body_is_an_error_of_its_request(tmp_path: Path) -> None:
    env = {"GREENDATA_AUTOPATCH": "1", "GREENDATA_ISOLATE": "workers=1,memory_limit=150MiB"}
    server = Server(tmp_path, UPLOADS, ["-k", "gevent"], env)
    try:
        pid = server.ask("/pid")
        status, text = post(server, shared_prefixes(["x" * (1 << 20) + str(number) for number in range(250)]))
        assert (status, "takes more than 157286400 bytes of memory" in text) == (413, True)
        file = BytesIO()
        pl.DataFrame({"a": ["x", "y"]}).write_parquet(file)
        assert post(server, file.getvalue()) == (200, "2")
        assert post(server, file.getvalue()[:-1])[0] == 400
        assert server.ask("/pid") == pid
    finally:
        server.terminate()
        assert server.wait_end() == 0, server.read_log()
