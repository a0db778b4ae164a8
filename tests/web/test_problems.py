"""Errors as responses: the status and text of each, and the precedence of handlers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import polars as pl
import pytest
from flask import Flask, Response, got_request_exception
from gevent.event import AsyncResult
from werkzeug.test import TestResponse

import greendata
from greendata import errors, observe
from greendata.schema.failures import failures_of
from greendata.web.drain import REASON
from greendata.web.flask import GreenData
from tests.conftest import Gate


def app_that_raises(
    make: Callable[[], Exception], *, handled: type[Exception] | None = None, first: bool = False
) -> Flask:
    app = Flask("service")
    if not first:
        GreenData(app)
    if handled is not None:
        app.register_error_handler(handled, lambda error: (f"mine: {type(error).__name__}", 418))
    if first:
        GreenData(app)

    @app.get("/")
    def index() -> str:
        raise make()

    return app


ANSWERS = [
    (lambda: errors.PoolFull(50, 50), 503, "The server is busy"),
    (errors.PoolClosed, 503, "The server is shutting down"),
    (lambda: errors.JobCancelled("report", running=True, message=REASON), 503, "The server is shutting down"),
    (lambda: errors.DeadlineExceeded("report", 2.0, running=True), 504, "The response took too long"),
    (lambda: errors.ResultTimeout(AsyncResult(), 2.0), 504, "The response took too long"),
    (lambda: errors.MemoryLimitExceeded(1 << 30, -9, ""), 507, "The query needs more memory than this server allows"),
    (lambda: errors.FormatUnknown("xml", ["csv"]), 400, "Unknown format"),
    (lambda: errors.Malformed("csv", "no header"), 400, "The body cannot be read"),
    (lambda: errors.NotAcceptable("image/png", ["text/csv"]), 406, "No available format is acceptable to the client"),
    (lambda: errors.BodyTooLarge(10), 413, "The body is too large"),
    (lambda: errors.BodyUnsupported("Content-Type", "a/b", []), 415, "The type of the body is not supported"),
    (lambda: errors.BodyInvalid(pl.DataFrame({"row": [1]})), 422, "The data is invalid"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "status", "title"), ANSWERS, ids=lambda value: value if isinstance(value, int) else ""
)
def test_each_error_has_its_response(make: Callable[[], Exception], status: int, title: str) -> None:
    answer = app_that_raises(make).test_client().get("/")
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    problem = answer.get_json(force=True)
    assert (problem["status"], problem["title"], problem["type"]) == (status, title, "about:blank")
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_rejected_clients_retry_at_different_times() -> None:
    client = app_that_raises(lambda: errors.PoolFull(50, 50)).test_client()
    waits = {int(client.get("/").headers["Retry-After"]) for _ in range(100)}
    assert len(waits) > 1
    assert waits <= set(range(2, 7))


@pytest.mark.parametrize(
    "make",
    [
        errors.PolarsForked,
        lambda: errors.JobCancelled("report", running=False),
        lambda: errors.JobAborted("report", SystemExit(3)),
        lambda: errors.FrameInvalid("Secret", 1, failures_of([(0, "a", "secret", "int_parsing", "no number")])),
    ],
    ids=lambda make: type(make()).__name__,
)
def test_errors_of_the_service_are_internal_server_errors(make: Callable[[], Exception]) -> None:
    answer = app_that_raises(make).test_client().get("/")
    assert answer.status_code == 500
    assert "ecret" not in answer.text


def test_internal_details_are_not_sent() -> None:
    answer = app_that_raises(lambda: errors.DeadlineExceeded("secret_report", 2.0, running=True)).test_client().get("/")
    assert "secret_report" not in answer.text


class TenantFull(errors.PoolFull):
    """A service's subclass of PoolFull."""


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("handled", [errors.PoolFull, errors.GreenDataError, TenantFull])
def test_a_handler_of_the_app_comes_first(handled: type[Exception], first: bool) -> None:  # noqa: FBT001
    client = app_that_raises(lambda: TenantFull(1, 1), handled=handled, first=first).test_client()
    assert (client.get("/").status_code, client.get("/").text) == (418, "mine: TenantFull")


def test_a_subclass_without_a_handler_has_its_parents_response() -> None:
    assert app_that_raises(lambda: TenantFull(1, 1)).test_client().get("/").status_code == 503


@pytest.fixture
def told() -> Iterator[list[BaseException]]:
    """Collect the errors that Flask's signal reports."""
    heard: list[BaseException] = []

    def hear(_: Flask, exception: BaseException, **__: object) -> None:
        heard.append(exception)

    with got_request_exception.connected_to(hear):
        yield heard


@pytest.mark.parametrize(
    ("make", "status", "title"), ANSWERS, ids=lambda value: value if isinstance(value, int) else ""
)
def test_server_errors_are_logged_and_a_timeout_is_reported_to_flask(
    make: Callable[[], Exception],
    status: int,
    title: str,
    told: list[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert title in app_that_raises(make).test_client().get("/").text
    assert [type(error) for error in told] == ([type(make())] if status == 504 else [])
    lines = [record.getMessage() for record in caplog.records if record.name == "service"]
    if status < 500:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(f"{status} for GET '/': ")
        assert "\n" not in line


def test_a_path_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = app_that_raises(errors.PoolClosed)
    app.add_url_rule("/<path:rest>", "any", lambda rest: app.view_functions["index"]())
    assert app.test_client().get("/a%0D504 for all").status_code == 503
    assert "\r" not in caplog.records[0].getMessage()


def test_a_handled_error_is_not_reported_twice(told: list[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    make = partial(errors.DeadlineExceeded, "report", 2.0, running=True)
    app_that_raises(make, handled=errors.DeadlineExceeded).test_client().get("/")
    assert (told, caplog.records) == ([], [])


def swallowing(app: Flask, resource: Callable[[], object]) -> None:
    """Turn all exceptions of a view into a 500 without the handlers of the app, as Flask-RESTful and Flask-RESTX do."""

    def handle(error: Exception) -> tuple[str, int, dict[str, str]]:
        got_request_exception.send(app, exception=error)
        return "{}", 500, {"X-Api": "1", "Content-Type": "application/json"}

    app.handle_user_exception = handle  # type: ignore[method-assign]
    app.add_url_rule("/of", "index", resource)  # type: ignore[arg-type]


def with_flask_restful(app: Flask, resource: Callable[[], object]) -> None:
    library = pytest.importorskip("flask_restful", reason="Flask-RESTful is not installed")
    kind = type("Resourceful", (library.Resource,), {"get": lambda _: resource()})
    library.Api(app).add_resource(kind, "/of")


def with_flask_restx(app: Flask, resource: Callable[[], object]) -> None:
    library = pytest.importorskip("flask_restx", reason="Flask-RESTX is not installed")
    kind = type("Resourceful", (library.Resource,), {"get": lambda _: resource()})
    library.Api(app, doc=False).add_resource(kind, "/of")


EXTENSIONS = [swallowing, with_flask_restful, with_flask_restx]


def asked(
    extend: Callable[[Flask, Callable[[], object]], None],
    make: Callable[[], Exception],
    *,
    first: bool,
    handled: type[Exception] | None = None,
) -> TestResponse:
    """Return the response of a resource that raises, in an app with such an extension."""

    def resource() -> object:
        raise make()

    app = Flask("service")
    app.logger = logging.getLogger("disabled")  # that of the name "service" belongs to other apps too
    app.logger.disabled = True
    if first:
        GreenData(app)
    app.after_request(cross_origin)
    if handled is not None:
        app.register_error_handler(handled, lambda error: (f"mine: {type(error).__name__}", 418))
    extend(app, resource)
    if not first:
        GreenData(app)
    return app.test_client().get("/of")


def cross_origin(answer: Response) -> Response:
    answer.headers["Access-Control-Allow-Origin"] = "*"
    answer.set_cookie("seen", "1")
    return answer


@pytest.mark.filterwarnings("ignore")  # of these extensions
@pytest.mark.parametrize("extend", EXTENSIONS)
@pytest.mark.parametrize("first", [False, True])
def test_an_extension_that_turns_errors_into_500_keeps_our_responses(
    extend: Callable[[Flask, Callable[[], object]], None],
    first: bool,  # noqa: FBT001
    told: list[BaseException],
) -> None:
    for make, status, title in ANSWERS:
        told.clear()
        answer = asked(extend, make, first=first)
        assert (answer.status_code, answer.get_json(force=True)["title"]) == (status, title)
        assert answer.content_type == "application/problem+json"
        assert ("Retry-After" in answer.headers) == (status == 503)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers.getlist("Set-Cookie") == ["seen=1; Path=/"]
        assert [type(error) for error in told] == [type(make())]  # reported by the extension, and only once
    assert asked(extend, lambda: TenantFull(1, 1), first=first, handled=errors.PoolFull).text == "mine: TenantFull"
    for fault in (errors.PolarsForked(), ValueError("theirs"), errors.JobAborted("report", SystemExit(3))):
        assert asked(extend, lambda fault=fault: fault, first=first).status_code == 500  # type: ignore[misc]


def test_the_text_of_client_gone() -> None:
    gone = errors.ClientGone("export")
    assert isinstance(gone, ConnectionResetError)
    assert str(gone) == "the client disconnected before export had finished"
    assert "1 rule of" in str(errors.BodyInvalid(pl.DataFrame({"row": [1]})))


# -- limits of time -----------------------------------------------------------------------------------------------


def test_a_504_names_the_limit_and_its_length() -> None:
    app = Flask("service")
    app.config["GREENDATA_REQUEST_TIMEOUT"] = 0.25
    green = GreenData(app)
    late = errors.DeadlineExceeded

    def raises(error: Exception) -> None:
        raise error

    views: dict[str, Callable[[], None]] = {
        "app": lambda: raises(late("a", 0.25, running=True, in_block=True)),
        "view": green.deadline(0.5)(lambda: raises(late("a", 0.5, running=True, in_block=True))),
        "query": lambda: raises(late("a", 0.125, running=False)),
        "block": lambda: raises(late("a", 0.125, running=False, in_block=True)),
        "wait": lambda: raises(errors.ResultTimeout(AsyncResult(), 2.0)),
        "now": lambda: raises(errors.ResultTimeout(AsyncResult(), None)),
    }
    for name, view in views.items():
        app.add_url_rule(f"/{name}", name, view)
    answers = {name: app.test_client().get(f"/{name}").get_json(force=True) for name in views}
    details = {name: answer["detail"] for name, answer in answers.items()}
    assert details == {
        "app": "there was no result within 0.25 seconds; the limit is GREENDATA_REQUEST_TIMEOUT",
        "view": "there was no result within 0.5 seconds; the limit is the deadline of this view",
        "query": "there was no result within 0.125 seconds; the limit is the query's own timeout",
        "block": "there was no result within 0.125 seconds; the limit is a greendata.deadline block of the view",
        "wait": "there was no result within 2 seconds; the limit is the wait of the view, get(timeout=)",
        "now": "there is no result yet, and the view does not wait for it",
    }
    assert {answer["status"] for answer in answers.values()} == {504}
    assert answers["app"]["seconds"] == 0.25


def test_the_deadline_of_a_request_is_the_number_that_was_given() -> None:
    app = Flask("service")
    app.config["GREENDATA_REQUEST_TIMEOUT"] = 0.02
    GreenData(app)
    gate = Gate()
    app.add_url_rule("/", "index", lambda: greendata.run(gate).get())
    answer = app.test_client().get("/")
    gate.open()
    assert answer.get_json(force=True)["detail"].startswith(
        "there was no result within 0.02 seconds; the limit is GREEN"
    )


def test_a_query_that_an_operator_cancels_is_a_503_with_the_reason(
    held: Gate, caplog: pytest.LogCaptureFixture, told: list[BaseException]
) -> None:
    app = Flask("service")
    GreenData(app)
    app.add_url_rule("/", "index", lambda: greendata.run(held, label="secret_report").get())
    gevent.get_hub()
    asking = gevent.spawn(app.test_client().get, "/")
    held.wait_arrived()
    (job,) = [job for job in observe.running() if job.label == "secret_report"]
    assert observe.cancel(job.id)
    answer = asking.get()
    held.open()
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    problem = answer.get_json(force=True)
    assert (problem["title"], problem["detail"]) == (
        "The query was cancelled",
        "an operator of this server has cancelled it",
    )
    assert "Retry-After" not in answer.headers  # it would be cancelled again
    (record,) = [record for record in caplog.records if record.name == "service"]
    assert record.getMessage().startswith("503 for GET '/': secret_report was cancelled while it ran")
    assert record.exc_info is None
    assert told == []
