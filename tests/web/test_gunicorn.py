"""A real gunicorn with its gevent workers: preloading, several workers, and a service that keeps serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from greendata.query.patching.polars_threads import share_of_cores
from tests.support.gates import rest
from tests.support.processes import children_end
from tests.support.servers import ROUTED, Server

pytestmark = [children_end, pytest.mark.once("unpatched")]  # each test starts a process

# /held answers once /open was asked for, by the same worker, so one that stands still never answers it.
SERVICE = """
import os
import polars as pl
from tests.support.gates import Gate

{at_import}
gate = Gate()

def held():
    return pl.LazyFrame({{"a": [1, 2, 3]}}).map_batches(gate).collect().height

def opened():
    gate.wait_arrived()
    gate.open()
    return "open"

def total():
    return pl.DataFrame({{"a": [1, 2, 3]}}).filter(pl.col("a") > 1)["a"].sum()

ROUTES = {{"/ping": os.getpid, "/held": held, "/open": opened, "/total": total}}
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts gunicorn on a free port; it is stopped after the test."""
    started: list[Server] = []

    def start(*arguments: str, at_import: str = "", **env: str) -> Server:
        service = SERVICE.format(at_import=at_import) + ROUTED
        started.append(Server(tmp_path, service, ["-k", "gevent", *arguments], env))
        return started[-1]

    yield start
    for server in started:
        server.terminate()
        assert server.wait_end() == 0, server.read_log()


def test_preloading_with_a_query_is_reported_at_once(serve: Callable[..., Server]) -> None:
    server = serve("--preload", at_import="import greendata; pl.select(1)")
    assert server.ask("/ping") != str(server.process.pid)
    for path in ("/total", "/held"):
        answer = server.ask(path)
        assert answer.startswith("PolarsForked: this process was forked after its parent had run a Polars query")
        assert "do without gunicorn --preload" in answer


@pytest.mark.parametrize("autopatch", ["1", "0"])
def test_preloading_with_a_query_is_reported_if_only_the_worker_has_greendata(
    serve: Callable[..., Server], autopatch: str
) -> None:
    server = serve("--preload", at_import="pl.select(1)", GREENDATA_AUTOPATCH=autopatch)
    for path in ("/total", "/held"):
        assert server.ask(path).startswith("PolarsForked: this process was forked after its parent had run")
    assert server.read_log().count("this process was forked after its parent had run a Polars query") == 1


@pytest.mark.parametrize(
    ("at_import", "environment"),
    [
        ("import greendata; greendata.configure(on_fork='process'); pl.select(1)", {}),
        ("import greendata; pl.select(1)", {"GREENDATA_ON_FORK": "process"}),
        ("pl.select(1)", {"GREENDATA_ON_FORK": "process", "GREENDATA_AUTOPATCH": "1"}),
    ],
    ids=["configure", "variable", "only the worker has greendata"],
)
def test_after_preloading_with_a_query_the_queries_run_in_child_processes(
    serve: Callable[..., Server], at_import: str, environment: dict[str, str]
) -> None:
    server = serve("--preload", "--workers", "2", at_import=at_import, **environment)
    workers: set[str] = set()
    while len(workers) < 2:
        workers.add(server.ask("/ping"))
        assert server.ask("/total") == "5"
        rest()
    assert "forked" not in server.read_log()


WITH_FRAME = """
import os
import polars as pl
from flask import Flask

prices = pl.LazyFrame({"city": ["Rome", "Oslo"], "price": [3, 5]}).sort("city").collect()  # has two chunks
app = Flask("service")

@app.get("/threads")
def threads():
    return os.environ.get("POLARS_MAX_THREADS", "")

@app.get("/total")
def total():
    return str(prices.lazy().select(pl.col("price").sum()).collect().item())

@app.get("/rows")
def rows():
    return str(prices.filter(pl.col("price") < 5).rows() + prices.rows())
"""


@pytest.mark.parametrize("worker", ["gevent", "greendata.web.gunicorn.GreenWorker"])
def test_a_preloaded_frame_can_be_queried_in_child_processes(tmp_path: Path, worker: str) -> None:
    """With gevent's worker, greendata is first imported after the fork, and finds out at the first query."""
    env = {"GREENDATA_ON_FORK": "process", "GREENDATA_AUTOPATCH": "1", "POLARS_MAX_THREADS": ""}
    server = Server(tmp_path, WITH_FRAME, ["-k", worker, "--preload"], env)
    try:
        assert server.ask("/total") == "8"
        assert server.ask("/rows") == "[('Rome', 3), ('Oslo', 5), ('Rome', 3)]"
        assert server.ask("/threads") == ("" if worker == "gevent" else str(share_of_cores(1)))  # of the children
    finally:
        server.stop()
    assert "Traceback" not in server.read_log()


@pytest.mark.parametrize("worker", ["gevent", "greendata.web.gunicorn.GreenWorker"])
def test_preloading_with_a_schema_is_reported_too(tmp_path: Path, worker: str) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    service = SERVICE.format(at_import=f"pl.scan_parquet('{tmp_path}/a.parquet').collect_schema()") + ROUTED
    server = Server(tmp_path, service, ["-k", worker, "--preload"], {"GREENDATA_AUTOPATCH": "1"})
    told = "this process was forked after its parent had run a Polars query"
    try:
        if worker == "gevent":
            assert server.ask("/total").startswith(f"PolarsForked: {told}")
        server.wait_log(told)
    finally:
        server.stop()


def test_preloading_without_a_query_is_not_refused(serve: Callable[..., Server]) -> None:
    server = serve("--preload", "--workers", "2", GREENDATA_AUTOPATCH="1")
    workers: set[str] = set()
    while len(workers) < 2:
        workers.add(server.ask("/ping"))
        assert server.ask("/total") == "5"
        rest()
    assert "forked" not in server.read_log()


def test_preloading_without_a_query_works_in_every_worker(serve: Callable[..., Server]) -> None:
    server = serve("--preload", "--workers", "2", at_import="import greendata; greendata.patch_polars()")
    workers: set[str] = set()
    while len(workers) < 2:
        workers.add(server.ask("/ping"))
        assert server.ask("/total") == "5"
        rest()


def test_autopatch_keeps_a_worker_serving_while_polars_runs(serve: Callable[..., Server]) -> None:
    server = serve(GREENDATA_AUTOPATCH="1")
    first = server.ask("/ping")
    with server.asked("/held") as report:
        assert server.ask("/open") == "open"
        assert server.ask("/ping") == first
        assert report().read() == b"3"


def test_autopatch_with_preloading_works_if_no_query_was_run(serve: Callable[..., Server]) -> None:
    server = serve("--preload", at_import="import greendata", GREENDATA_AUTOPATCH="1")
    with server.asked("/held") as report:
        assert server.ask("/open") == "open"
        assert report().read() == b"3"


@pytest.mark.parametrize("worker", ["gevent", "greendata.web.gunicorn.GreenWorker"])
def test_two_first_requests_of_the_example_under_preload(tmp_path: Path, worker: str) -> None:
    env = {"GREENDATA_AUTOPATCH": "1", "SALES_DATA": str(tmp_path / "data"), "SALES_ROWS": "1000000"}
    server = Server(tmp_path, "from examples.flask_app import app\n", ["-k", worker, "--preload"], env)
    try:
        with server.asked("/report?top=1") as one, server.asked("/search?store=3&limit=1") as two:
            assert [one().status, two().status] == [200, 200]
    finally:
        server.terminate()
        assert server.wait_end() == 0, server.read_log()


def test_a_patch_at_the_head_of_the_configuration_makes_early_locks_green(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("from gevent import monkey\n\nmonkey.patch_all()\n", encoding="utf-8")
    service = """
import threading
import polars as pl
from greendata import doctor

making = threading.Lock()

def examined():
    return {found.name: str(found.verdict) for found in doctor.examine() if found.name in ("locks", "Polars patch")}

ROUTES = {"/doctor": examined, "/total": lambda: pl.DataFrame({"a": [1]}).filter(pl.col("a") > 0).height}
"""
    server = Server(tmp_path, service + ROUTED, ["-k", "gevent", "--preload"], {"GREENDATA_AUTOPATCH": "1"})
    try:
        assert server.ask("/doctor") == "{'locks': 'ok', 'Polars patch': 'ok'}"
        assert server.ask("/total") == "1"
    finally:
        server.terminate()
        assert server.wait_end() == 0, server.read_log()
