"""The extension: its registration, its configuration, and what queries inherit from their request."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import gevent
import polars as pl
import pytest
from flask import Flask, current_app, g, request
from werkzeug.local import LocalProxy

import greendata
from greendata.errors import BadSetting, BadTimeout
from greendata.hub.deadline import current_deadline
from greendata.pool.job import default_key
from greendata.web.flask import GreenData, keep
from greendata.web.scope import current_scope
from tests.conftest import Gate


def test_init_app_serves_several_apps_and_keeps_none() -> None:
    green = GreenData()
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        green.init_app(app)
        assert app.extensions["greendata"] is green
        assert app.config["GREENDATA_REQUEST_TIMEOUT"] is None
    known = weakref.ref(apps[0])
    del app
    apps.clear()
    gc.collect()
    assert known() is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("GREENDATA_REQUEST_TIMEOUT", -1, "GREENDATA_REQUEST_TIMEOUT must be None or a number of seconds >= 0, got -1"),
        (
            "GREENDATA_REQUEST_TIMEOUT",
            "2",
            "GREENDATA_REQUEST_TIMEOUT must be None or a number of seconds >= 0, got '2'",
        ),
        ("GREENDATA_MAX_BODY", 1.5, "GREENDATA_MAX_BODY must be a whole number of bytes >= 0, got 1.5"),
    ],
)
def test_a_bad_configuration_is_an_error_at_once(name: str, value: object, text: str) -> None:
    app = Flask("service")
    app.config[name] = value
    with pytest.raises(BadSetting) as caught:
        GreenData(app)
    assert str(caught.value) == text
    assert "greendata" not in app.extensions


def test_a_bad_deadline_is_an_error_at_once() -> None:
    with pytest.raises(BadTimeout):
        GreenData.deadline(-1)


def app_with(timeout: float | None, **options: Any) -> tuple[Flask, GreenData]:
    app = Flask("service")
    app.config["GREENDATA_REQUEST_TIMEOUT"] = timeout
    return app, GreenData(app, **options)


def test_each_request_has_its_deadline_and_a_view_its_own() -> None:
    app, green = app_with(50.0)

    def seconds_left() -> str:
        until = current_deadline()
        return "none" if until is None else str(round((until - greendata.hub.deadline.monotonic()) / 10))

    app.add_url_rule("/", "index", seconds_left)

    @app.get("/long")
    @green.deadline(100)
    def long() -> str:
        return seconds_left()

    @app.get("/endless")
    @green.deadline(None)
    def endless() -> str:
        return seconds_left()

    client = app.test_client()
    assert [client.get(path).text for path in ("/", "/long", "/endless", "/")] == ["5", "10", "none", "5"]
    assert current_deadline() is None
    assert current_scope() is None


def test_a_query_past_the_deadline_is_a_gateway_timeout(held: Gate) -> None:
    app, _ = app_with(0.01)
    app.add_url_rule("/", "index", lambda: str(greendata.run(held).get()))
    assert app.test_client().get("/").status_code == 504
    held.open()


def test_the_request_is_available_inside_its_jobs(held: Gate) -> None:
    app, _ = app_with(None)

    def look() -> tuple[str, str, int]:
        return current_app.name, request.args["who"], g.number

    @app.get("/")
    def index() -> list[object]:
        g.number = 42
        inside = pl.LazyFrame({"a": ["?"]}).map_batches(lambda df: df.with_columns(a=pl.lit(request.args["who"])))
        return [*greendata.run(look).get(), greendata.collect(inside).get()["a"].item()]

    assert app.test_client().get("/?who=me").get_json() == ["service", "me", 42, "me"]


def test_a_job_that_outlives_its_request_still_knows_it(held: Gate) -> None:
    app, _ = app_with(None)
    jobs: list[greendata.Result[str]] = []
    ended: list[object] = []
    app.teardown_request(ended.append)

    def slow() -> str:
        held()
        return f"{current_app.name} {request.args['who']}"

    @app.get("/")
    def index() -> str:
        jobs.append(keep(greendata.run(slow)))
        return "gone on"

    assert app.test_client().get("/?who=me").text == "gone on"
    assert ended == [None]
    held.open()
    assert jobs[0].get() == "service me"


def test_queries_left_behind_are_cancelled(held: Gate) -> None:
    app, _ = app_with(None)
    jobs: list[greendata.Result[object]] = []
    app.add_url_rule("/", "index", lambda: jobs.append(greendata.run(held)) or "gone on")
    assert app.test_client().get("/").text == "gone on"
    with pytest.raises(greendata.JobCancelled, match="the request is over"):
        jobs[0].get()
    held.open()


def test_requests_take_turns_by_their_key() -> None:
    app, _ = app_with(None, key=lambda: request.args.get("tenant"))
    app.add_url_rule("/", "index", lambda: f"{default_key.get()} {greendata.run(default_key.get).get()}")
    client = app.test_client()
    assert [client.get(path).text for path in ("/?tenant=a", "/", "/?tenant=b")] == ["a a", "None None", "b b"]
    assert default_key.get() is None


@pytest.mark.parametrize("nested", [False, True])
def test_keep_covers_gathered_results(held: Gate, nested: bool) -> None:  # noqa: FBT001
    app, _ = app_with(None)
    jobs: list[greendata.Result[Any]] = []

    @app.get("/")
    def index() -> str:
        gathered = greendata.gather(greendata.run(held, 1), gevent.spawn(int), greendata.run(held, 2))
        jobs.append(keep(greendata.gather(gathered) if nested else gathered))
        return "gone on"

    assert app.test_client().get("/").text == "gone on"
    held.open()
    assert jobs[0].get() == ([[1, 0, 2]] if nested else [1, 0, 2])


class Customer:
    """The object behind a proxy, identified by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Customer) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


def test_a_key_that_is_a_proxy_is_resolved_in_its_request(held: Gate) -> None:
    app = Flask("service")

    @app.before_request
    def log_in() -> None:
        g.customer = request.args.get("who") and Customer(request.args["who"])

    GreenData(app, key=lambda: LocalProxy(lambda: g.customer))
    app.add_url_rule("/", "index", lambda: f"{type(default_key.get()).__name__} {greendata.run(held, 1).get()}")
    held.open()
    answers = [app.test_client().get(path).text for path in ("/?who=anna", "/?who=anna", "/", "/?who=bert")]
    assert answers == ["Customer 1", "Customer 1", "NoneType 1", "Customer 1"]


def test_a_request_inside_a_request_has_its_own_scope() -> None:
    app, _ = app_with(None)
    app.add_url_rule("/inner", "inner", lambda: str(id(current_scope())))

    @app.get("/")
    def index() -> str:
        outer = current_scope()
        inner = app.test_client().get("/inner").text
        assert inner != str(id(outer))
        assert current_scope() is outer
        return "fine"

    assert app.test_client().get("/").text == "fine"


def test_status_on_the_command_line() -> None:
    app, _ = app_with(7.5)
    printed = app.test_cli_runner().invoke(args=["greendata", "status"])
    assert printed.exit_code == 0
    assert "GREENDATA_REQUEST_TIMEOUT  7.5" in printed.output
    assert "pool max_workers" in printed.output


def test_the_doctor_on_the_command_line() -> None:
    app, _ = app_with(None)
    printed = app.test_cli_runner().invoke(args=["greendata", "doctor", "--workers", "1"])
    assert printed.exit_code in (0, 1)
    assert "Polars patch" in printed.output


def test_top_on_the_command_line_reports_an_absent_server() -> None:
    app, _ = app_with(None)
    printed = app.test_cli_runner().invoke(args=["greendata", "top", "/nowhere.sock", "--once"])
    assert printed.exit_code == 1
    assert "/nowhere.sock" in printed.output
    args = ["greendata", "top", "http://127.0.0.1:1", "--header"]
    assert "no snapshot from http" in app.test_cli_runner().invoke(args=[*args, "X-Key: secret"]).output
    assert "header must be NAME:VALUE, got 'nonsense'" in app.test_cli_runner().invoke(args=[*args, "nonsense"]).output
