"""Two pages for those who watch a server: is it alive, and may it be sent requests?"""

from __future__ import annotations

from flask import Blueprint, Response

from greendata.errors.plural import counted
from greendata.observe.watch import current
from greendata.pool import pool
from greendata.web import drain
from greendata.web.problems import problem

__all__ = ("health",)

LAG = 1.0  # seconds of hub lag at which no more requests are wanted: those that are here wait longer than that
LAG_WITHIN = 5.0  # seconds that are looked back at


def health(name: str = "health") -> Blueprint:
    """A blueprint with ``/livez`` and ``/readyz``, for ``app.register_blueprint(health())``.

    ``/livez`` is 200 while the hub turns; it asks the pool for nothing. ``/readyz`` is 503, with the reason, while
    the queue is full, the process drains, or the hub lags by a second (known after `greendata.observe.start`).

    Args:
        name: of the blueprint; two of one app need two.

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
    return _unstored(Response("ok\n", mimetype="text/plain"))


def _readyz() -> Response:
    reason = _reason()
    if reason is None:
        return _unstored(Response("ok\n", mimetype="text/plain"))
    return _unstored(problem(503, "Not ready", reason))


def _unstored(answer: Response) -> Response:
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _reason() -> str | None:
    """Why no more requests are wanted; None if they are."""
    if drain.is_draining() or pool.shared.is_closed:
        return "the process drains"
    queued, bound = pool.stats().queued, pool.shared.settings.max_queue
    if queued >= bound:
        return f"the queue is full: {counted(queued, 'job waits', 'jobs wait')}"
    observer = current()
    lag = 0.0 if observer is None else observer.probe.worst(LAG_WITHIN)
    return f"the hub lags by {lag:.1f} seconds" if lag >= LAG else None
