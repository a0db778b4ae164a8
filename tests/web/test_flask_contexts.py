"""Contexts inside a request: which of them ends its queries, and which deadline applies."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from contextvars import copy_context
from typing import Any

import gevent
import polars as pl
import pytest
from flask import Flask, Response, copy_current_request_context, request, stream_with_context, url_for
from flask.views import MethodView
from gevent.socket import socket as GreenSocket

import greendata
from greendata.hub.deadline import current_deadline
from greendata.pool.job import default_key
from greendata.web.flask import GreenData, keep, respond
from greendata.web.scope import RequestScope, current_scope
from tests.conftest import Gate
from tests.support.gates import rest


def app_with(timeout: float | None = 50.0, **options: Any) -> Flask:
    app = Flask("service")
    app.config["GREENDATA_REQUEST_TIMEOUT"] = timeout
    GreenData(app, **options)
    return app


def tens_left() -> str:
    until = current_deadline()
    return "none" if until is None else str(round((until - greendata.hub.deadline.monotonic()) / 10))


def url_of_another_host(app: Flask) -> None:
    with app.test_request_context("/other", base_url="http://elsewhere"):
        assert url_for("index", _external=True) == "http://elsewhere/"


def copied_in_place(_: Flask) -> None:
    assert copy_current_request_context(lambda: request.path)() == "/"


def app_context(app: Flask) -> None:
    with app.app_context():
        pass


def app_context_inside(app: Flask) -> None:
    with app.test_request_context("/other"), app.app_context():
        pass


def context_of_another_app(_: Flask) -> None:
    with app_with(1.0).test_request_context("/"):
        pass


def request_to_itself(app: Flask) -> None:
    assert app.test_client().get("/other").text == "other"


def preprocessed(app: Flask) -> None:
    with app.test_request_context("/other"):
        app.preprocess_request()


def stream_inside(app: Flask) -> None:
    assert app.test_client().get("/streamed").text == "/streamed"


def failing_request_inside(app: Flask) -> None:
    app.test_client().get("/nowhere")


NESTED = [
    url_of_another_host,
    copied_in_place,
    app_context,
    app_context_inside,
    context_of_another_app,
    request_to_itself,
    preprocessed,
    stream_inside,
    failing_request_inside,
]


@pytest.mark.parametrize("nested", NESTED)
def test_a_context_inside_a_request_ends_neither_its_queries_nor_its_deadline(
    held: Gate, nested: Callable[[Flask], None]
) -> None:
    app = app_with(key=lambda: request.path)
    app.add_url_rule("/other", "other", lambda: "other")
    app.add_url_rule("/streamed", "streamed", lambda: Response(stream_with_context(iter([request.path]))))

    @app.get("/")
    def index() -> str:
        result = greendata.run(held, "its rows")
        scope = current_scope()
        nested(app)
        assert current_scope() is scope
        held.open()
        return f"{result.get()} {default_key.get()} {tens_left()} {greendata.run(tens_left).get()}"

    assert app.test_client().get("/").text == "its rows / 5 5"
    assert (current_scope(), current_deadline(), default_key.get()) == (None, None, None)


def test_a_copied_context_in_a_greenlet_ends_nothing(held: Gate) -> None:
    app = app_with()

    @app.get("/")
    def index() -> str:
        result = greendata.run(held, "its rows")
        greenlet = gevent.Greenlet(copy_current_request_context(lambda: request.path))
        greenlet.gr_context = copy_context()
        greenlet.start()
        assert greenlet.get() == "/"
        held.open()
        return str(result.get())

    assert app.test_client().get("/").text == "its rows"


def test_a_context_around_the_app_holds_no_scope() -> None:
    app = app_with()
    app.add_url_rule("/", "index", tens_left)
    with app.app_context():
        assert app.test_client().get("/").text == "5"
        assert (current_scope(), current_deadline()) == (None, None)


def test_a_teardown_function_that_fails_leaves_the_next_request_its_own_scope(held: Gate) -> None:
    app = app_with()
    jobs: list[greendata.Result[object]] = []

    @app.teardown_request
    def fail(_: object) -> None:
        if request.path == "/":
            raise ConnectionError("the session cannot be closed")

    app.add_url_rule("/", "index", lambda: jobs.append(greendata.run(held)) or "left behind")
    app.add_url_rule("/next", "next", lambda: str(current_scope() is None))
    with pytest.raises(ConnectionError):
        app.test_client().get("/")
    assert (current_scope(), current_deadline()) == (None, None)
    with pytest.raises(greendata.JobCancelled, match="the request is over"):
        jobs[0].get()
    held.open()


def test_before_request_functions_have_the_deadline_too() -> None:
    app = Flask("service")
    app.config["GREENDATA_REQUEST_TIMEOUT"] = 50.0
    seen: list[str] = []

    @app.before_request
    def load_user() -> None:
        seen.append(tens_left())

    GreenData(app)
    app.add_url_rule("/", "index", lambda: "fine")
    app.before_request(lambda: ("not today", 403))
    assert app.test_client().get("/").status_code == 403
    assert seen == ["5"]
    assert (current_scope(), current_deadline()) == (None, None)


def test_a_dropped_response_cancels_no_other_query(held: Gate) -> None:
    app = app_with()

    @app.get("/")
    def index() -> Response:
        result = greendata.run(held, 42)
        respond(pl.DataFrame({"a": [1]}), "csv")
        gc.collect()
        held.open()
        return respond(pl.DataFrame({"a": [result.get()]}), "csv")

    assert app.test_client().get("/").text == "a\n42\n"


def test_the_first_of_two_streams_that_ends_does_not_end_the_other(held: Gate) -> None:
    app = app_with()

    def second() -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"a": [1]})
        yield pl.DataFrame({"a": [greendata.run(held, 42).get()]})

    @app.get("/")
    def index() -> Response:
        first, answer = respond(pl.DataFrame({"b": [1]}), "csv"), respond(second(), "csv")
        answer.call_on_close(held.open)
        answer.headers["X-First"] = first.get_data(as_text=True).replace("\n", " ")
        first.close()
        held.open()
        return answer

    answer = app.test_client().get("/")
    assert (answer.headers["X-First"].strip(), answer.text) == ("b 1", "a\n1\n42\n")


class Report(MethodView):
    """Views with different deadlines, and one without."""

    @GreenData.deadline(100)
    def get(self) -> str:
        return tens_left()

    def post(self) -> str:
        return tens_left()


@GreenData.deadline(200)
class Marked(MethodView):
    """A view with one deadline for all methods."""

    def get(self) -> str:
        return tens_left()


def test_views_that_are_classes_have_the_deadlines_of_their_methods() -> None:
    app = app_with()
    app.add_url_rule("/report", view_func=Report.as_view("report"))
    app.add_url_rule("/marked", view_func=Marked.as_view("marked"))
    client = app.test_client()
    assert client.get("/report").text == "10"
    assert client.post("/report").text == "5"
    assert client.get("/marked").text == "20"


def test_a_websocket_has_no_deadline_unless_its_view_has_one() -> None:
    app = app_with()
    said: list[str] = []
    app.add_url_rule("/talk", "talk", lambda: said.append(tens_left()) or "", websocket=True)
    app.add_url_rule("/brief", "brief", GreenData.deadline(100)(lambda: said.append(tens_left()) or ""), websocket=True)
    app.add_url_rule("/plain", "plain", lambda: said.append(tens_left()) or "")
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    for path in ("/talk", "/brief", "/plain"):
        app.test_client().get(path, headers=upgrade)
    assert said == ["none", "10"]  # the header alone does not remove the deadline
    assert app.test_client().get("/plain").text == ""
    assert said[2:] == ["5"]


@contextmanager
def client_of(
    scope_of: Callable[[GreenSocket], RequestScope],
) -> Iterator[tuple[RequestScope, socket.socket, GreenSocket]]:
    """Return a scope that watches a client, the client's socket, and the server's end of it."""
    with closing(GreenSocket(*_kinds())) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with closing(GreenSocket(*_kinds())) as client:
            client.connect(listener.getsockname())
            with closing(listener.accept()[0]) as served:
                yield scope_of(served), client, served


def _kinds() -> tuple[int, int]:
    return socket.AF_INET, socket.SOCK_STREAM


def test_a_scope_that_ends_in_a_worker_stops_looking_on_its_own_hub(held: Gate) -> None:
    with client_of(RequestScope) as (scope, client, _):
        scope.enter(seconds=None)
        watch = scope._watch
        pending = greendata.run(held)
        assert watch is not None
        assert watch._watcher is not None
        keep(greendata.run(scope.end)).get()
        assert pending.cancelled()
        while watch._watcher is not None:
            rest()
        scope.leave()
        client.close()
        rest()
        assert not scope.is_left
    held.open()


def test_a_server_that_closes_the_connection_is_not_a_disconnect(held: Gate) -> None:
    with client_of(RequestScope) as (scope, client, served):
        scope.enter(seconds=None)
        pending = greendata.run(held, 1)
        assert scope._watch is not None
        served.close()
        scope._watch._on_readable()
        assert not scope.is_left
        held.open()
        assert pending.get() == 1
        scope.leave()
        assert client.recv(1) == b""


def test_a_connection_that_is_closed_already_is_not_looked_at(held: Gate) -> None:
    with client_of(RequestScope) as (scope, _, served):
        served.close()
        scope.enter(seconds=None)
        held.open()
        assert greendata.run(held, 1).get() == 1  # a websocket that took over the connection may have closed it
        scope.leave()
