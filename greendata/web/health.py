"""Liveness and readiness: two pages for load balancers and orchestrators."""

from __future__ import annotations

from flask import Blueprint, Response

from greendata.errors.plural import counted
from greendata.observe.watch import current
from greendata.pool import pool
from greendata.web import drain
from greendata.web.problems import problem

__all__ = ("health",)

LAG = 1.0  # seconds of hub lag from which the process is not ready: the requests it has wait longer than that
LAG_WITHIN = 5.0  # seconds before now in which the worst lag counts


def health(name: str = "health") -> Blueprint:
    """Return a blueprint with ``/livez`` and ``/readyz``, for ``app.register_blueprint(health())``.

    ``/livez`` is 200 while the hub runs; it does not use the pool. ``/readyz`` is 503, with the reason, while
    the queue is full, the process is shutting down, or the hub lags by a second (measured after
    `greendata.observe.start`).

    Args:
        name: the name of the blueprint; two blueprints in one app need two names.

    Example:
        >>> from flask import Flask
        >>> app = Flask("service")
        >>> app.register_blueprint(health(), url_prefix="/health")
        >>> app.test_client().get("/health/livez").status
        '200 OK'
    """
    pages = Blueprint(name, __name__)
    pages.add_url_rule("/livez", "livez", _livez)
    pages.add_url_rule("/readyz", "readyz", _readyz)
    return pages


def _livez() -> Response:
    return _uncached(Response("ok\n", mimetype="text/plain"))


def _readyz() -> Response:
    reason = _reason()
    if reason is None:
        return _uncached(Response("ok\n", mimetype="text/plain"))
    return _uncached(problem(503, "Not ready", reason))


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response


def _reason() -> str | None:
    """Return why the process is not ready, or None if it is."""
    if drain.is_draining() or pool.shared.is_closed:
        return "the process is shutting down"
    queued, bound = pool.stats().queued, pool.shared.settings.max_queue
    if queued >= bound:
        return f"the queue is full: {counted(queued, 'job is', 'jobs are')} waiting"
    observer = current()
    lag = 0.0 if observer is None else observer.probe.worst(LAG_WITHIN)
    return f"the hub lags by {lag:.1f} seconds" if lag >= LAG else None
