"""The blueprint of the dashboard: the page, its event stream, its snapshot, and the cancel request.

    /greendata/                 the page
    /greendata/events           the state of the process once a second, as server-sent events
    /greendata/stats.json       `greendata.observe.snapshot_json`, which ``python -m greendata top`` reads
    /greendata/cancel/ID        POST: cancel a running or waiting job

Each response shows only the process that sends it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from flask import Blueprint, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from gevent.socket import socket as GreenSocket

from greendata import observe
from greendata.errors import DashboardOpen
from greendata.hub.contexts import contextmanager
from greendata.internals.gevent import get_hub_if_exists
from greendata.observe.watch import current
from greendata.web import drain
from greendata.web.client import socket_of
from greendata.web.dashboard.access import Auth, has_token, is_authorized, set_security_headers, set_token
from greendata.web.dashboard.feed import shared
from greendata.web.problems import problem

__all__ = ("dashboard",)

PREFIX = "/greendata"
PAGE = Path(__file__).with_name("static") / "page.html"
VIEWERS = 50  # streams at once: each occupies a connection of the server
STALLED = 30.0  # seconds in which a viewer must receive an event


def dashboard(auth: Auth | None) -> Blueprint:
    """Return the blueprint of the page, for apps in debug mode or with *auth*.

    The process is observed from the first request that a greenlet of such an app handles.

    Args:
        auth: called in each request to the page; only if it returns True may the client see the page and cancel. It
            may also ``abort`` with another response, for example 401.

    Raises:
        DashboardOpen: at registration, without *auth* and if the app is not in debug mode.

    Example:
        >>> from flask import Flask
        >>> app = Flask("service")
        >>> app.register_blueprint(dashboard(lambda: True))
        >>> app.url_map.bind("localhost").match("/greendata/")
        ('greendata.page', {})
    """
    pages = Blueprint("greendata", __name__, url_prefix=PREFIX, static_folder="static", static_url_path="/static")
    pages.add_url_rule("/", "page", _page)
    pages.add_url_rule("/events", "events", _events)
    pages.add_url_rule("/stats.json", "stats", _stats)
    pages.add_url_rule("/cancel/<job_id>", "cancel", _cancel, methods=["POST"])

    def check(state: BlueprintSetupState) -> None:
        if auth is None and not state.app.debug:
            raise DashboardOpen(state.app.name)

    pages.record(check)
    pages.before_app_request(_observe)
    pages.before_request(lambda: None if is_authorized(auth) else problem(403, "Access to this page is denied"))
    pages.after_request(set_security_headers)
    return pages


def _observe() -> None:
    if current() is None and get_hub_if_exists() is not None:
        observe.start()


def _page() -> Response:
    return set_token(Response(PAGE.read_bytes(), mimetype="text/html"))


def _stats() -> Response:
    return Response(shared.snapshot(), mimetype="application/json")


def _events() -> Response:
    if shared.viewers >= VIEWERS:
        return problem(503, "Too many viewers", f"{VIEWERS} streams are open")
    events = Response(_stream(socket_of(request.environ)), mimetype="text/event-stream")
    events.headers["X-Accel-Buffering"] = "no"  # otherwise nginx buffers the events
    return events


def _stream(client: GreenSocket | None) -> Iterator[bytes]:
    """Yield the stream with a timeout on sends, so that a client that vanished does not keep its greenlet."""
    with _send_timeout(client), closing(shared.follow(drain.is_draining)) as events:
        yield from events


@contextmanager
def _send_timeout(client: GreenSocket | None) -> Iterator[None]:
    if client is None:
        yield
        return
    before = client.gettimeout()
    client.settimeout(STALLED)
    try:
        yield
    finally:
        client.settimeout(before)


def _cancel(job_id: str) -> Response:
    if not has_token():
        return problem(403, "The request did not come from the page", "reload the page")
    if job_id.partition(".")[0] != str(os.getpid()):
        return problem(409, "Another process responded", f"this is {os.getpid()}")
    if not observe.cancel(job_id):
        return problem(404, "No such job runs here")
    current_app.logger.info("dashboard: job %s was cancelled", job_id)
    return Response(status=204)
