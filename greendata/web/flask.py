"""The Flask extension: deadlines, cancellation, streamed responses and validated bodies for the views of a service.

    green = GreenData(app)

    @app.get("/report")
    def report():
        return respond(pl.scan_parquet("sales.parquet").group_by("store").len())

Keys in the app's config:

    GREENDATA_REQUEST_TIMEOUT   seconds for the queries of a request, or None
    GREENDATA_MAX_BODY          bytes of a request's body
    GREENDATA_DASHBOARD         True for the page at /greendata/
    GREENDATA_DASHBOARD_PATHS   True to show the paths of requests on it; paths may contain data
    GREENDATA_MAX_WORKERS, GREENDATA_MAX_QUEUE, GREENDATA_NICE, GREENDATA_STUCK_AFTER, GREENDATA_EXIT_TIMEOUT
                                settings of the pool, see `greendata.pool.settings.Settings`
    GREENDATA_ENGINE            where queries run: "threads", "process", "process:workers=2,memory_limit=512MiB",
                                "module:factory" or an engine, see `greendata.query.choice`
    GREENDATA_ON_FORK           "process" to run queries in child processes if the process was forked after a query
    GREENDATA_ISOLATE           True, or "memory_limit=512MiB,timeout=10", to read bodies in child processes, see
                                `greendata.formats.isolation`

A ``GREENDATA_*`` key of another name gives a warning when the extension is registered. So does a process in which
Polars is not patched, once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

try:
    from flask import Flask, Request, Response, current_app, got_request_exception, request, request_started
    from flask.globals import app_ctx, request_ctx
    from werkzeug.local import LocalProxy
except ImportError as missing:
    raise ImportError("greendata.web.flask needs Flask; install it with: pip install 'greendata[flask]'") from missing

from greendata.errors import GreenDataError
from greendata.hub.deadline import seconds_of
from greendata.web.body import body
from greendata.web.client import socket_of
from greendata.web.config import apply_config, warn_unless_patched
from greendata.web.dashboard import dashboard
from greendata.web.health import health
from greendata.web.problems import response_to
from greendata.web.respond import respond
from greendata.web.scope import RequestScope, current_scope, keep
from greendata.web.shell import commands

__all__ = ("GreenData", "body", "health", "keep", "respond")

V = TypeVar("V", bound=Callable[..., object])

INTERNAL_SERVER_ERROR, GATEWAY_TIMEOUT = 500, 504

_MARK = "greendata_seconds"  # the deadline of a view; functools.wraps copies it through other decorators


class GreenData:
    """Give the requests of one or several apps a deadline, and cancel their queries at the end of the request.

    Every query of a request, through a verb or a plain ``lf.collect()`` under the patch, is cancelled when the time of
    the request is over, when the request ends, and when its client leaves; `keep` exempts a query from the last two.
    The app and ``request`` are available inside jobs, because a job has a copy of its submitter's context. Teardown
    functions run when the view is over, even if jobs continue, so these can no longer use what teardown closes (a
    session).

    Errors of greendata become responses, see `greendata.web.problems`: 503 for a full pool, and for a query that an
    operator has cancelled; 504 for an exceeded deadline, which it names; 507 for a query that needs more memory than
    its engine allows; 4xx for errors that the client can correct. A handler of the app, for the class of the error or
    for `GreenDataError`, takes precedence.

    Args:
        app: as for `init_app`.
        key: called in each request; requests of different keys take turns at the pool (a tenant, a route).
        dashboard_auth: called in each request to the page; only if it returns True may the client watch and cancel.

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
        """Register the extension with *app*. No reference to *app* is kept.

        Raises:
            BadSetting: a ``GREENDATA_*`` value of the configuration is invalid.
            DashboardOpen: the page is on, without a *dashboard_auth* and not in debug mode.
        """
        apply_config(app)
        warn_unless_patched(app)
        if app.config["GREENDATA_DASHBOARD"]:
            app.register_blueprint(dashboard(self._dashboard_auth))
        app.extensions["greendata"] = self
        request_started.connect(self._enter, app)  # before all functions of before_request, which may have queries
        app.before_request(self._take_turns)
        app.teardown_request(_on_request_end)
        app.teardown_appcontext(_on_context_end)
        got_request_exception.connect(_on_unhandled, app)
        app.after_request(_respond_to_unhandled)
        app.cli.add_command(commands)
        if GreenDataError not in app.error_handler_spec[None][None]:
            app.register_error_handler(GreenDataError, _handle)

    @staticmethod
    def deadline(seconds: float | None) -> Callable[[V], V]:
        """Return a decorator that limits a view's queries to *seconds* instead of the app's timeout; None: no limit.

        Raises:
            BadTimeout: *seconds* is negative or not a number.

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

    def _enter(self, app: Flask, **_: object) -> None:
        current: Request = request._get_current_object()  # type: ignore[attr-defined]  # each access to a proxy takes 1 us
        contexts = (request_ctx._get_current_object(), app_ctx._get_current_object())  # type: ignore[attr-defined]
        scope = RequestScope(socket_of(current.environ), contexts)
        seconds, limit = _limit_of(app, current)
        scope.enter(seconds=seconds, limit=limit)
        if current.endpoint is not None:
            scope.name_queries(current.endpoint)
        if app.config["GREENDATA_DASHBOARD_PATHS"]:
            scope.show_origin(f"{current.method} {current.path}")
        warn_unless_patched(app, current.environ)

    def _take_turns(self) -> None:
        scope = None if self._key is None else _scope_of(request_ctx)
        if scope is None or self._key is None:
            return
        key: Any = self._key()
        if isinstance(key, LocalProxy):  # `current_user`, say, has another value on a worker and in other requests
            key = key._get_current_object()
        if key is not None:
            scope.take_turns(key)


def _limit_of(app: Flask, current: Request) -> tuple[float | None, str]:
    """Return the deadline of the requested view, and its name.

    It is that of the view's method, class or function; otherwise the app's.
    """
    rule = current.url_rule
    view = None if rule is None else app.view_functions.get(rule.endpoint)
    kind = getattr(view, "view_class", None)  # flask.views, and libraries that build on it
    method = getattr(kind, current.method.lower(), None)
    if method is None and current.method == "HEAD":
        method = getattr(kind, "get", None)
    for marked in (method, kind, view):
        if hasattr(marked, _MARK):
            return cast("float | None", getattr(marked, _MARK)), "the deadline of this view"
    if rule is not None and rule.websocket:  # its view runs as long as the connection
        return None, ""
    return cast("float | None", app.config["GREENDATA_REQUEST_TIMEOUT"]), "GREENDATA_REQUEST_TIMEOUT"


def _on_request_end(_error: BaseException | None) -> None:
    if (scope := _scope_of(request_ctx)) is not None:
        scope.leave()


def _on_context_end(_error: BaseException | None) -> None:
    """Leave the scope if `_on_request_end` was not called, because another teardown function raised."""
    if (scope := _scope_of(app_ctx)) is not None:
        scope.leave()


def _handle(error: GreenDataError) -> Response:
    """Return the response to *error*. Log it if the client cannot correct it, and report a 504 to Flask's listeners.

    A full pool is not reported: services like Sentry listen for failures, and their work for each one would add to a
    load that is already too high.
    """
    response = response_to(error)
    if response.status_code >= INTERNAL_SERVER_ERROR:
        text = "%d for %s %r: %s"
        current_app.logger.warning(text, response.status_code, request.method, request.path, error)
    scope = _scope_of(request_ctx)
    if response.status_code == GATEWAY_TIMEOUT and (scope is None or scope.unhandled is not error):
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        got_request_exception.send(app, _async_wrapper=app.ensure_sync, exception=error)
    return response


def _on_unhandled(_app: Flask, exception: BaseException, **_: object) -> None:
    if (scope := _scope_of(request_ctx)) is not None:
        scope.unhandled = exception


def _respond_to_unhandled(response: Response) -> Response:
    """Restore the response to an error of greendata that an extension has turned into a 500, bypassing the handlers.

    Flask-RESTful and Flask-RESTX do so with every exception of their resources that is not one of werkzeug's.
    """
    if response.status_code != INTERNAL_SERVER_ERROR:
        return response
    scope = _scope_of(request_ctx)
    error = None if scope is None else scope.unhandled
    if not isinstance(error, GreenDataError):
        return response
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        # Flask's own method: an extension may have replaced that of the app.
        restored = app.make_response(type(app).handle_user_exception(app, error))
    except Exception as raised:
        if raised is not error:
            raise
        return response  # an error of the service
    kept = [(name, value) for name, value in response.headers if not name.startswith("Content-")]
    restored.headers.extend((name, value) for name, value in kept if name not in restored.headers)  # cookies, origins
    return restored


def _scope_of(context: Any) -> RequestScope | None:
    """Return the current scope if it belongs to *context*, a proxy, and not to an outer request; else None."""
    scope = current_scope()
    return scope if scope is not None and scope.is_of(context._get_current_object()) else None
