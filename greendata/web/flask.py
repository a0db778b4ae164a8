"""The Flask extension: deadlines, cancellation, streamed answers and checked bodies for the views of a service.

    green = GreenData(app)

    @app.get("/report")
    def report():
        return respond(pl.scan_parquet("sales.parquet").group_by("store").len())

Configuration: ``GREENDATA_REQUEST_TIMEOUT`` (seconds for the queries of a request, or None), ``GREENDATA_MAX_BODY``
(bytes of a request's body) and ``GREENDATA_DASHBOARD`` (True for the page at ``/greendata/``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

try:
    from flask import Flask, Request, current_app, request
except ImportError as missing:
    raise ImportError("greendata.web.flask needs Flask; install it with: pip install 'greendata[flask]'") from missing

from greendata.errors import BadSetting, GreenDataError
from greendata.hub.deadline import seconds_of
from greendata.web.body import MAX_BODY, body
from greendata.web.dashboard import dashboard
from greendata.web.health import health
from greendata.web.problems import answer_to
from greendata.web.respond import respond
from greendata.web.scope import Scope, current_scope, keep, socket_of
from greendata.web.shell import commands

__all__ = ("GreenData", "body", "health", "keep", "respond")

V = TypeVar("V", bound=Callable[..., object])

_MARK = "greendata_seconds"  # a view's own deadline; functools.wraps carries it through other decorators


class GreenData:
    """Requests with a deadline and an end, for an app or for several.

    Every query of a request, a verb or plain ``lf.collect()`` under the patch, is given up when the request's time is
    over, when it ends, and when its client leaves; `keep` exempts one. The app and ``request`` are there inside
    jobs: a job has a copy of its submitter's context. Teardown functions run when the view is over, jobs or not,
    so what they close (a session) is no longer of use to a job that goes on.

    Errors of greendata become answers, see `greendata.web.problems`: 503 for a full pool, 504 for an exceeded
    deadline, 4xx for what the client can mend. A handler of the app's own, for the class of the error or for
    `GreenDataError`, comes first.

    Args:
        app: as for `init_app`.
        key: called in each request; requests of different keys take turns at the pool (a tenant, a route).
        dashboard_auth: called in each request to the page; those of whom it says True may watch and cancel.

    Example:
        >>> from flask import Flask
        >>> app = Flask("service")
        >>> green = GreenData(app)
        >>> app.extensions["greendata"] is green
        True
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        key: Callable[[], Hashable] | None = None,
        dashboard_auth: Callable[[], bool] | None = None,
    ) -> None:
        self._key = key
        self._dashboard_auth = dashboard_auth
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Prepare *app*, which is not kept.

        Raises:
            BadSetting: a ``GREENDATA_*`` value of its configuration that cannot be used.
            DashboardOpen: the page is asked for, without a *dashboard_auth* and not in debug mode.
        """
        app.config.setdefault("GREENDATA_DASHBOARD", False)
        app.config.setdefault("GREENDATA_REQUEST_TIMEOUT", None)
        app.config.setdefault("GREENDATA_MAX_BODY", MAX_BODY)
        _check(app)
        if app.config["GREENDATA_DASHBOARD"]:
            app.register_blueprint(dashboard(self._dashboard_auth))
        app.extensions["greendata"] = self
        app.before_request(self._enter)
        app.teardown_request(_leave)
        app.cli.add_command(commands)
        if GreenDataError not in app.error_handler_spec[None][None]:
            app.register_error_handler(GreenDataError, answer_to)

    @staticmethod
    def deadline(seconds: float | None) -> Callable[[V], V]:
        """A decorator that gives a view's queries *seconds*, None for no end, in place of the app's timeout.

        Raises:
            BadTimeout: *seconds* is negative or no number.

        Example:
            >>> from flask import Flask
            >>> app = Flask("service")
            >>> @app.get("/export")
            ... @GreenData(app).deadline(60)
            ... def export():
            ...     return "all of it"
        """
        seconds_of(seconds)

        def mark(view: V) -> V:
            setattr(view, _MARK, seconds)
            return view

        return mark

    def _enter(self) -> None:
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the proxies take 1 us a look
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        view = app.view_functions.get(asked.endpoint or "")
        seconds = getattr(view, _MARK, app.config["GREENDATA_REQUEST_TIMEOUT"])
        scope = Scope(socket_of(asked.environ))
        scope.enter(seconds=seconds, key=None if self._key is None else self._key())


def _leave(_error: BaseException | None) -> None:
    scope = current_scope()
    if scope is not None:
        scope.leave()
        if not scope.is_held:
            scope.end()


def _check(app: Flask) -> None:
    seconds, size = app.config["GREENDATA_REQUEST_TIMEOUT"], app.config["GREENDATA_MAX_BODY"]
    if not isinstance(app.config["GREENDATA_DASHBOARD"], bool):
        raise BadSetting("GREENDATA_DASHBOARD", app.config["GREENDATA_DASHBOARD"], "True or False")
    try:
        seconds_of(seconds)
    except ValueError as error:
        raise BadSetting("GREENDATA_REQUEST_TIMEOUT", seconds, "None or a number of seconds >= 0") from error
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise BadSetting("GREENDATA_MAX_BODY", size, "a whole number of bytes >= 0")
