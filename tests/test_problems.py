"""Errors as answers: the status of each, what the client is told, and whose handler comes first."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
from flask import Flask
from gevent.event import AsyncResult

from greendata import errors
from greendata.frames.verdicts import failures_of
from greendata.web.drain import REASON
from greendata.web.flask import GreenData


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
    (lambda: errors.DeadlineExceeded("report", 2.0, running=True), 504, "The answer took too long"),
    (lambda: errors.ResultTimeout(AsyncResult(), 2.0), 504, "The answer took too long"),
    (lambda: errors.FormatUnknown("xml", ["csv"]), 400, "There is no such format"),
    (lambda: errors.Malformed("csv", "no header"), 400, "The body cannot be read"),
    (lambda: errors.NotAcceptable("image/png", ["text/csv"]), 406, "There is no format that the client accepts"),
    (lambda: errors.BodyTooLarge(10), 413, "The body is too large"),
    (lambda: errors.BodyUnsupported("Content-Type", "a/b", []), 415, "The body is of a kind that is not read here"),
    (lambda: errors.BodyInvalid(pl.DataFrame({"row": [1]})), 422, "The data is invalid"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "status", "title"), ANSWERS, ids=lambda value: value if isinstance(value, int) else ""
)
def test_each_error_has_its_answer(make: Callable[[], Exception], status: int, title: str) -> None:
    answer = app_that_raises(make).test_client().get("/")
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    problem = answer.get_json(force=True)
    assert (problem["status"], problem["title"], problem["type"]) == (status, title, "about:blank")
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_clients_that_were_turned_away_spread_out() -> None:
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
def test_faults_of_the_service_stay_its_own(make: Callable[[], Exception]) -> None:
    answer = app_that_raises(make).test_client().get("/")
    assert answer.status_code == 500
    assert "ecret" not in answer.text


def test_what_went_wrong_inside_is_not_told() -> None:
    answer = app_that_raises(lambda: errors.DeadlineExceeded("secret_report", 2.0, running=True)).test_client().get("/")
    assert "secret_report" not in answer.text


class TenantFull(errors.PoolFull):
    """A service's own kind of a full pool."""


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("handled", [errors.PoolFull, errors.GreenDataError, TenantFull])
def test_a_handler_of_the_app_comes_first(handled: type[Exception], first: bool) -> None:  # noqa: FBT001
    client = app_that_raises(lambda: TenantFull(1, 1), handled=handled, first=first).test_client()
    assert (client.get("/").status_code, client.get("/").text) == (418, "mine: TenantFull")


def test_a_subclass_without_a_handler_has_its_parents_answer() -> None:
    assert app_that_raises(lambda: TenantFull(1, 1)).test_client().get("/").status_code == 503


def test_client_gone_says_so() -> None:
    gone = errors.ClientGone("export")
    assert isinstance(gone, ConnectionResetError)
    assert str(gone) == "the client left before export was over"
    assert "1 rule of" in str(errors.BodyInvalid(pl.DataFrame({"row": [1]})))
