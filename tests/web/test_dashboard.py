"""The server side of the page: access, cancel requests, and security headers."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pytest
from flask import Flask, abort, redirect, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import greendata
from greendata import observe
from greendata.errors import BadSetting, DashboardOpen
from greendata.web.dashboard import pages
from greendata.web.dashboard.feed import Feed
from greendata.web.flask import GreenData
from tests.conftest import Gate
from tests.support.natives import once_counted

STATIC = Path(pages.__file__).with_name("static")
PATHS = ("/", "/events", "/stats.json", *(f"/static/{file.name}" for file in sorted(STATIC.iterdir())))
COOKIE, HEADER = "greendata-token", "X-Greendata-Token"


def make_app(auth: Callable[[], bool] | None = lambda: True, *, debug: bool = False) -> Flask:
    app = Flask("service")
    app.debug = debug
    app.config["GREENDATA_DASHBOARD"] = True
    GreenData(app, dashboard_auth=auth)
    return app


@pytest.fixture(autouse=True)
def _feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    """Use a separate feed that is always up to date, and stop observing after the test."""
    feed = Feed(0.0)
    monkeypatch.setattr(pages, "shared", feed)
    yield feed
    observe.stop()


@pytest.fixture
def client() -> FlaskClient:
    return make_app().test_client()


def get(client: FlaskClient, path: str) -> TestResponse:
    """Return the head of a response, and close the rest, which may be endless."""
    answer = client.get(f"/greendata{path}")
    answer.close()
    return answer


# -- who may see it ---------------------------------------------------------------------------------------------


def test_the_page_is_off_by_default() -> None:
    app = Flask("service")
    GreenData(app, dashboard_auth=lambda: True)
    assert app.config["GREENDATA_DASHBOARD"] is False
    assert app.test_client().get("/greendata/").status_code == 404
    app.test_client().get("/")
    assert observe.watch.current() is None


def test_without_access_control_the_page_is_refused_at_registration() -> None:
    with pytest.raises(DashboardOpen, match=r"^GREENDATA_DASHBOARD is on in 'service', .* pass GreenData") as caught:
        make_app(None)
    assert caught.value.app == "service"


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_the_switch_is_true_or_false(value: object) -> None:
    app = Flask("service")
    app.config["GREENDATA_DASHBOARD"] = value
    with pytest.raises(BadSetting, match="GREENDATA_DASHBOARD"):
        GreenData(app)


def test_only_debug_mode_needs_no_access_control() -> None:
    app = make_app(None, debug=True)
    assert app.test_client().get("/greendata/").status_code == 200
    app.debug = False
    assert app.test_client().get("/greendata/").status_code == 403


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("answer", [False, None, 1, "yes", redirect("/login")], ids=repr)
def test_every_url_requires_that_auth_returns_true(path: str, answer: object) -> None:
    client = make_app(lambda: answer).test_client()  # type: ignore[arg-type,return-value]
    assert get(client, path).status_code == 403
    assert client.post("/greendata/cancel/1").status_code == 403


def test_auth_sees_the_request_and_may_respond_itself() -> None:
    def auth() -> bool:
        if request.authorization is None:
            abort(401)
        return request.authorization.username == "ann"

    client = make_app(auth).test_client()
    assert client.get("/greendata/").status_code == 401
    assert client.get("/greendata/", auth=("bob", "")).status_code == 403
    assert client.get("/greendata/", auth=("ann", "")).status_code == 200


def test_an_auth_that_raises_denies_access() -> None:
    def auth() -> bool:
        raise LookupError("no users")

    assert get(make_app(auth).test_client(), "/stats.json").status_code == 500


# -- what the browser is told -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PATHS, "/static/none.js"])
def test_every_response_has_the_security_headers(client: FlaskClient, path: str) -> None:
    headers = get(client, path).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def test_responses_of_the_app_itself_are_unchanged(client: FlaskClient) -> None:
    assert "Content-Security-Policy" not in client.get("/").headers


class Links(HTMLParser):
    """Collect the references and the inline code of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [value for name, value in attrs if name in {"href", "src"} and value]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def test_the_page_loads_its_own_files_only(client: FlaskClient) -> None:
    links = Links()
    links.feed(client.get("/greendata/").text)
    assert links.inline == []
    for link in links.found:
        assert get(client, f"/{link}").status_code == 200


@pytest.mark.parametrize("file", sorted(STATIC.iterdir()), ids=lambda file: file.name)
def test_no_file_loads_from_another_host_or_inserts_markup(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"//[a-z]|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", text)


def test_the_page_works_under_a_prefix(client: FlaskClient) -> None:
    answer = client.get("/greendata/", environ_overrides={"SCRIPT_NAME": "/shop"})
    assert "; Path=/shop/greendata/;" in f"{answer.headers['Set-Cookie']};"


# -- the button -------------------------------------------------------------------------------------------------


@pytest.fixture
def job(held: Gate) -> Iterator[str]:
    """Return the id of a running job. A job that the test cancels runs until the end of its native call."""
    result = greendata.run(held, label="report")
    held.wait_arrived()
    (found,) = [running for running in observe.running() if running.worker == result.worker]  # others may be ending
    yield found.id
    end = result.end()
    held.open()
    end.get()


def is_abandoned(job: str) -> bool:
    """Return True if the job with that id was given up while its native call runs."""
    (found,) = [running for running in observe.running() if running.id == job]
    return found.abandoned


def token_of(client: FlaskClient) -> str:
    client.get("/greendata/")
    cookie = client.get_cookie(COOKIE, path="/greendata/")
    assert cookie is not None
    return cookie.value


def cancel(client: FlaskClient, job: str, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/greendata/cancel/{job}", headers=named).status_code


def test_the_button_cancels(client: FlaskClient, job: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert cancel(client, job, **{HEADER: token_of(client)}) == 204
    assert is_abandoned(job)
    assert caplog.messages == [f"dashboard: job {job} was cancelled"]
    assert cancel(client, job, **{HEADER: token_of(client)}) == 404  # it has an outcome


@pytest.mark.parametrize("shown", ["", "x", "A" * 43, "é" * 43])
def test_the_button_does_nothing_without_its_token(client: FlaskClient, job: str, shown: str) -> None:
    assert cancel(client, job, **{HEADER: shown}) == 403  # the page was not loaded
    token_of(client)
    assert cancel(client, job) == 403
    assert cancel(client, job, **{HEADER: shown}) == 403
    assert not is_abandoned(job)


def test_a_cookie_that_is_not_a_token_is_refused(client: FlaskClient, job: str) -> None:
    client.set_cookie(COOKIE, "guess", path="/greendata/")
    assert cancel(client, job, **{HEADER: "guess"}) == 403
    assert token_of(client) != "guess"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_other_sites_cannot_cancel(client: FlaskClient, job: str, site: str) -> None:
    assert cancel(client, job, **{HEADER: token_of(client), "Sec-Fetch-Site": site}) == 403
    assert cancel(client, job, **{HEADER: token_of(client), "Sec-Fetch-Site": "same-origin"}) == 204


def test_cancel_accepts_only_post(client: FlaskClient, job: str) -> None:
    assert get(client, f"/cancel/{job}").status_code == 405


def test_unknown_jobs_and_jobs_of_other_processes_are_distinguished(client: FlaskClient) -> None:
    token = token_of(client)
    assert cancel(client, f"{os.getpid()}.worker.7", **{HEADER: token}) == 404
    assert cancel(client, f"{os.getpid() + 1}.worker.7", **{HEADER: token}) == 409


def test_the_token_stays_in_its_browser_and_on_its_page(client: FlaskClient) -> None:
    token = token_of(client)
    assert token_of(client) == token  # other tabs use it
    assert token_of(make_app().test_client()) != token
    answer = client.get("/greendata/", base_url="https://localhost")
    attributes = answer.headers["Set-Cookie"].split("; ")[1:]
    assert sorted(attributes) == ["Path=/greendata/", "SameSite=Strict", "Secure"]


# -- what it shows ----------------------------------------------------------------------------------------------


def first_state(client: FlaskClient) -> dict[str, Any]:
    with client.get("/greendata/events") as answer:
        assert answer.mimetype == "text/event-stream"
        assert answer.headers["X-Accel-Buffering"] == "no"
        chunks = answer.iter_encoded()
        assert next(chunks) == b"retry: 500\n\n"
        name, _, data = next(chunks).partition(b": ")
        assert name == b"data"
        assert data.endswith(b"\n\n")
        found: dict[str, Any] = json.loads(data)
        return found


def test_the_stream_shows_what_runs(client: FlaskClient, held: Gate) -> None:
    result = greendata.run(held, label="<b>" + "x" * 300, key=("tenant", 7))
    held.wait_arrived()
    seen = first_state(client)
    assert seen["pid"] == os.getpid()
    assert seen["viewers"] == 1
    [job] = seen["jobs"]
    [running] = observe.running()
    assert job["id"] == running.id
    assert job["label"] == "<b>" + "x" * 197
    assert job["key"] == "('tenant', 7)"
    held.open()
    result.wait()


def fail(_: object = None) -> Any:
    raise ValueError("secret: cake of mine")


def test_the_stream_has_no_values_plans_or_texts_of_errors(client: FlaskClient) -> None:
    gevent.get_hub()  # a server of greenlets has one
    client.get("/")  # observation starts with the first request
    cards = pl.LazyFrame({"card": ["cake of mine"]}).filter(pl.col("card") == "cake of mine")
    greendata.collect(cards).get()
    greendata.collect(cards.map_batches(fail)).wait()
    once_counted(greendata.run(fail, label="report"))
    shown = json.dumps(first_state(client)) + client.get("/greendata/stats.json").text
    assert shown.count('"report"') >= 2
    assert "cake of mine" not in shown


def test_the_stream_has_texts_of_errors_on_request(client: FlaskClient) -> None:
    observe.start(keep_texts=True)  # the page would start without it
    once_counted(greendata.run(fail, label="report"))
    [failure] = first_state(client)["failures"]
    assert failure["text"] == "secret: cake of mine"


def test_the_snapshot_is_the_one_that_top_reads(client: FlaskClient) -> None:
    seen = client.get("/greendata/stats.json").get_json()
    assert seen["pid"] == os.getpid()
    assert seen.keys() == json.loads(observe.snapshot_json()).keys()


def test_the_number_of_viewers_is_limited(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "VIEWERS", 0)
    answer = client.get("/greendata/events")
    assert answer.status_code == 503
    assert answer.get_json(force=True)["title"] == "Too many viewers"
