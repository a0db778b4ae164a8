"""The worker class and its hooks in a real gunicorn: how a worker begins, serves and ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from greendata.errors.plural import counted
from greendata.query.patching.polars_threads import available_cores
from tests.support.gates import rest
from tests.support.processes import children_end, run_python
from tests.support.servers import ROUTED, Pipe, Server

pytestmark = [children_end, pytest.mark.once("patched")]  # each test starts a process

# /held and /stuck wait natively at a pipe that the test opens; /held is plain Polars.
SERVICE = """
import os
import greendata
import polars as pl
{at_import}

def read(*_):
    with open("gate", "rb") as gate:
        gate.read()
    return pl.DataFrame({{"a": [1, 2, 3]}})

def held():
    return pl.LazyFrame({{"a": [1, 2, 3]}}).map_batches(read).collect().height

def stuck():
    return greendata.run(read, label="a stuck report").get().height

def threads():
    return os.environ["POLARS_MAX_THREADS"], pl.thread_pool_size()

ROUTES = {{"/ping": os.getpid, "/held": held, "/stuck": stuck, "/threads": threads}}
"""

HOOKS = """
import os
import signal
from greendata.web import gunicorn
from greendata.web.gunicorn import post_worker_init, worker_int

def post_fork(server, worker):
    gunicorn.post_fork(server, worker)
    if worker.age == 1 and "STOP_FIRST" in os.environ:
        os.kill(os.getpid(), getattr(signal, os.environ["STOP_FIRST"]))

def worker_exit(server, worker):
    worker.log.info("the exit hook has run")
"""

CLASS = ("-k", "greendata.web.gunicorn.GreenWorker")
WAYS = [pytest.param(CLASS, id="class"), pytest.param(("-k", "gevent"), id="hooks")]

Serve = Callable[..., Server]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Pipe]:
    """The pipe at which a held request waits."""
    pipe = Pipe(tmp_path / "gate")
    yield pipe
    pipe.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return a function that starts gunicorn on a free port; it is stopped after the test."""
    started: list[Server] = []
    (tmp_path / "gunicorn.conf.py").write_text(HOOKS, encoding="utf-8")

    def start(*arguments: str, at_import: str = "", **env: str) -> Server:
        service = SERVICE.format(at_import=at_import) + ROUTED
        started.append(Server(tmp_path, service, arguments, {"POLARS_MAX_THREADS": "2"} | env))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_serves_while_plain_polars_runs(serve: Serve, gate: Pipe, way: tuple[str, ...]) -> None:
    server = serve(*way, "--log-level", "info")
    first = server.ask("/ping")
    with server.asked("/held") as report:
        gate.wait_arrived()
        assert server.ask("/ping") == first
        gate.open()
        assert report().read() == b"3"


def test_three_workers_share_the_cores(serve: Serve) -> None:
    server = serve(*CLASS, "--workers", "3", "--log-level", "info", "--preload")
    assert server.ask("/threads") == "('2', 2)"
    workers: set[str] = set()
    while len(workers) < 3:
        workers.add(server.ask("/ping"))


def test_the_share_is_set_where_the_environment_says_nothing(tmp_path: Path) -> None:
    finished = run_python(
        """
        import os, polars, greendata
        from greendata.query.patching.polars_threads import limit_polars_threads
        assert limit_polars_threads(5)
        print(os.environ["POLARS_MAX_THREADS"], polars.thread_pool_size())
        del os.environ["POLARS_MAX_THREADS"]
        print(limit_polars_threads(3), polars.thread_pool_size())
        """,
        env={"POLARS_MAX_THREADS": None},
    )
    assert (finished.stdout, finished.stderr) == ("5 5\nFalse 5\n", "")


@pytest.mark.parametrize("way", WAYS)
def test_preloading_with_a_query_stops_gunicorn_and_says_why(serve: Serve, way: tuple[str, ...]) -> None:
    server = serve(*way, "--preload", "--workers", "3", at_import="pl.select(1)")
    assert server.wait_end() in (4, 1)  # 1 if a second worker ends while gunicorn stops for the first
    assert "cannot serve: this process was forked after its parent had run a Polars query" in server.read_log()
    assert "App failed to load" in server.read_log()


@pytest.mark.parametrize("way", WAYS)
def test_preloading_without_a_query_works(serve: Serve, gate: Pipe, way: tuple[str, ...]) -> None:
    server = serve(*way, "--preload")
    with server.asked("/held") as report:
        gate.open()
        assert report().read() == b"3"


@pytest.mark.parametrize("way", WAYS)
def test_sigterm_lets_a_query_finish(serve: Serve, gate: Pipe, way: tuple[str, ...]) -> None:
    server = serve(*way)
    with server.asked("/held") as report:
        gate.wait_arrived()
        server.terminate()
        gate.open()
        assert report().read() == b"3"
    assert server.wait_end() == 0
    assert "cancels" not in server.read_log()


@pytest.mark.parametrize("way", WAYS)
def test_unfinished_queries_are_cancelled_and_named(serve: Serve, gate: Pipe, way: tuple[str, ...]) -> None:
    server = serve(*way, "--graceful-timeout", "6", "--log-level", "info")
    with server.asked("/stuck") as report:
        gate.wait_arrived()
        server.terminate()
        assert report().read().startswith(b"JobCancelled: a stuck report was cancelled while it ran")
    assert server.wait_end() == 0
    log = server.read_log()
    assert "cancels 1 running: a stuck report x1" in log
    assert "the exit hook has run" in log  # so gunicorn did not kill the worker
    assert "SIGKILL" not in log


@pytest.mark.parametrize("way", WAYS)
def test_a_quick_end_names_the_running_queries(serve: Serve, gate: Pipe, way: tuple[str, ...]) -> None:
    server = serve(*way)
    with server.asked("/stuck"):
        gate.wait_arrived()
        server.process.send_signal(signal.SIGINT)
        assert server.wait_end() == 0
    assert "cancels 1 running: a stuck report x1" in server.read_log()


def test_a_worker_that_had_its_requests_finishes_the_last_ones(serve: Serve, gate: Pipe) -> None:
    server = serve(*CLASS, "--max-requests", "2", "--log-level", "info")
    with server.asked("/held") as report:
        gate.wait_arrived()
        first = server.ask("/ping")
        server.wait_log("Autorestarting worker")
        gate.open()
        assert report().read() == b"3"
    while (later := server.ask("/ping")) == first:
        pass
    assert later != first


@pytest.mark.parametrize("number", ["SIGTERM", "SIGQUIT", "SIGINT"])
def test_a_worker_that_is_asked_to_end_before_it_is_ready_ends(serve: Serve, number: str) -> None:
    server = serve("-k", "gevent", "--log-level", "info", STOP_FIRST=number)
    first, second = server.ask("/ping"), server.read_log().split("Booting worker with pid: ")[-1].split()[0]
    assert first == second
    assert server.read_log().count("Booting worker") == 2
    assert "ERROR" not in server.read_log()


def test_a_worker_that_is_killed_mid_query_is_replaced(serve: Serve, gate: Pipe) -> None:
    server = serve(*CLASS)
    first = int(server.ask("/ping"))
    with server.asked("/held") as report:
        gate.wait_arrived()
        os.kill(first, signal.SIGKILL)
        with pytest.raises((HTTPException, ConnectionError)):
            report()
    assert int(server.ask("/ping")) != first


# -- the number of threads, and the gauges of workers that have ended ---------------------------------------------


def test_the_log_says_what_the_number_of_threads_comes_from(serve: Serve) -> None:
    server = serve(*CLASS, "--workers", "3", "--log-level", "info", POLARS_MAX_THREADS="")
    cores = available_cores()
    expected = f"POLARS_MAX_THREADS={max(2, cores // 3)}: {counted(cores, 'core')}, 3 workers, at least 2 each"
    server.wait_log(expected)
    workers: set[str] = set()
    while len(workers) < 3:  # until then gunicorn may lose the signal that ends them
        workers.add(server.ask("/ping"))


METRICS = """
import os
from prometheus_client import CollectorRegistry, multiprocess
from greendata.observe.metrics import Metrics

metrics = []

def count():
    metrics[:] = metrics or [Metrics()]
    metrics[0].exposition()
    return os.getpid()

ROUTES = {"/count": count}
"""
MINE = """
from greendata.web.gunicorn import child_exit, post_worker_init
"""
THEIRS = """
def child_exit(server, worker):
    worker.log.info("their hook saw the end of %s", worker.pid)
"""


@pytest.mark.parametrize(
    ("way", "hooks"), [(CLASS, THEIRS), (CLASS, MINE), (("-k", "gevent"), MINE)], ids=["class", "both", "hook"]
)
def test_the_gauges_of_a_killed_worker_are_removed(tmp_path: Path, way: tuple[str, ...], hooks: str) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(hooks, encoding="utf-8")
    folder = tmp_path / "metrics"
    folder.mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "POLARS_MAX_THREADS": "2"}
    server = Server(tmp_path, METRICS + ROUTED, [*way, "--log-level", "info"], env)
    try:
        first = int(server.ask("/count"))
        assert list(folder.glob(f"gauge_live*_{first}.db"))
        os.kill(first, signal.SIGKILL)
        while list(folder.glob(f"gauge_live*_{first}.db")):
            rest(0.01)
        assert list(folder.glob(f"counter_{first}.db"))  # what it has counted stays
        assert (f"their hook saw the end of {first}" in server.read_log()) == (hooks is THEIRS)
        assert "could not be removed" not in server.read_log()
        assert int(server.ask("/count")) != first  # until it answers, gunicorn may lose the signal that ends it
    finally:
        server.stop()
