"""A gunicorn worker for services that compute with Polars, and its parts as hooks for a worker class of your own.

    gunicorn -k greendata.web.gunicorn.GreenWorker service:app

It is gunicorn's gevent worker, with Polars patched and given its share of the cores. It does not start where
Polars would hang, and what runs when it is told to stop ends before gunicorn kills it. With another class, import
the hooks in ``gunicorn.conf.py``: ``from greendata.web.gunicorn import post_fork, post_worker_init, worker_int``.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import gevent

try:
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.ggevent import GeventWorker
except ImportError as missing:
    raise ImportError(
        "greendata.web.gunicorn needs gunicorn; install it with: pip install 'greendata[gunicorn]'"
    ) from missing

from greendata.errors import PolarsForked
from greendata.pool import pool
from greendata.query.patching.fork_guard import polars_has_run, polars_was_lost
from greendata.query.patching.patch import patch_polars
from greendata.query.patching.polars_threads import VARIABLE, limit_polars_threads, share_of_cores
from greendata.web import drain

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

__all__ = ("GreenWorker", "post_fork", "post_worker_init", "worker_int")

# Seconds before gunicorn's graceful_timeout at which queries are cancelled: up to one until gunicorn's loop sees that
# no request is left, one at the most for native calls to return as the process exits, and one to spare.
RESERVE = 3.0
EXIT_SHARE = 1 / 3  # of the reserve, for native calls


class GreenWorker(GeventWorker):
    """gunicorn's gevent worker for a service that uses Polars.

    - Polars is patched before the app is loaded: every execution yields to the hub.
    - ``POLARS_MAX_THREADS`` is this worker's share of the cores, if the environment does not set it.
    - A worker forked from a parent that had run a query would hang: it ends, the log says why, and gunicorn stops.
    - On SIGTERM, and at ``max_requests``, requests that are under way go on. Shortly before ``graceful_timeout``
      their queries are cancelled, and the log names them.

    Example:
        >>> from gunicorn.config import Config
        >>> config = Config()
        >>> config.set("worker_class", "greendata.web.gunicorn.GreenWorker")
        >>> config.worker_class is GreenWorker
        True
    """

    def init_process(self) -> None:
        """Make this process fit for Polars, and run the worker. gunicorn calls it after the fork."""
        post_fork(None, self)
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the app, with Polars patched before."""
        patch_polars()
        super().load_wsgi()

    def run(self) -> None:
        """Serve until told to stop."""
        post_worker_init(self)
        super().run()

    def notify(self) -> None:
        """Tell the parent that the worker is alive; begin to drain once it is to end, for whatever reason."""
        super().notify()
        if not self.alive:
            _begin(self)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """End at once, as gunicorn does on SIGINT and SIGQUIT, and name what was running."""
        gevent.spawn(worker_int, self)  # out of the signal handler, as gunicorn's own part is
        super().handle_quit(sig, frame)


def post_fork(server: object, worker: Worker) -> None:
    """Give Polars its share of the cores, and end a worker in which it would hang. gunicorn's hook of that name.

    Args:
        server: gunicorn's arbiter, which is not looked at.
        worker: the worker that has just been forked.

    Raises:
        SystemExit: the parent has run a query, as `PolarsForked` explains. The code is the one at which gunicorn
            stops instead of starting the next worker.
    """
    if polars_has_run() or polars_was_lost():
        worker.log.error("cannot serve: %s", PolarsForked())
        sys.exit(Arbiter.APP_LOAD_ERROR)
    named = worker.cfg.env.get(VARIABLE) or os.environ.get(VARIABLE)
    if named is None:
        count = share_of_cores(worker.cfg.workers)
        limit_polars_threads(count)
        worker.log.info("%s=%d: the share of one of %d workers", VARIABLE, count, worker.cfg.workers)
    else:
        worker.log.debug("%s=%s, from the environment", VARIABLE, named)


def post_worker_init(worker: Worker) -> None:
    """Patch Polars, and drain on SIGTERM. gunicorn's hook of that name, for a gevent worker."""
    patch_polars()
    settings = pool.shared.settings
    pool.configure(exit_timeout=min(settings.exit_timeout, _reserve(worker) * EXIT_SHARE))
    if signal.getsignal(signal.SIGTERM) != worker.handle_exit:
        return
    signal.signal(signal.SIGTERM, partial(_on_term, worker))
    signal.siginterrupt(signal.SIGTERM, False)


def worker_int(worker: Worker) -> None:
    """Cancel every query, and name it in the log. gunicorn's hook of that name, for SIGINT and SIGQUIT."""
    _tell(worker, drain.abandon())


def _on_term(worker: Worker, sig: int, frame: FrameType | None) -> None:
    worker.handle_exit(sig, frame)
    _begin(worker)


def _begin(worker: Any) -> None:
    drain.begin(max(0.0, worker.cfg.graceful_timeout - _reserve(worker)), partial(_tell, worker))


def _reserve(worker: Worker) -> float:
    seconds: float = worker.cfg.graceful_timeout
    return min(RESERVE, seconds / 2)


def _tell(worker: Worker, abandoned: drain.Abandoned) -> None:
    for state, labels in zip(("running", "queued"), abandoned, strict=True):
        if labels:
            worker.log.warning("worker %s ends and abandons %d %s: %s", worker.pid, len(labels), state, _list(labels))


def _list(labels: tuple[str, ...]) -> str:
    """The labels with their numbers: one line of the log, whatever the length of the queue."""
    return ", ".join(f"{label} x{labels.count(label)}" for label in dict.fromkeys(labels))
