"""A gunicorn worker for services that use Polars, and hooks for other gevent workers.

    gunicorn -k greendata.web.gunicorn.GreenWorker service:app

It is gunicorn's gevent worker, with Polars patched and limited to its share of the cores. It does not start if Polars
would hang, and running requests end before gunicorn kills a worker that was asked to stop. With another class, import
the hooks in ``gunicorn.conf.py``:

    from greendata.web.gunicorn import child_exit, post_fork, post_worker_init, worker_int
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
from greendata.errors.plural import counted
from greendata.pool import pool
from greendata.query.patching.fork_guard import polars_has_run, polars_was_lost
from greendata.query.patching.patch import patch_polars
from greendata.query.patching.polars_threads import (
    FEWEST,
    VARIABLE,
    available_cores,
    limit_polars_threads,
    share_of_cores,
)
from greendata.web import drain

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

__all__ = ("GreenWorker", "child_exit", "post_fork", "post_worker_init", "worker_int")

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the variable of prometheus-client's multiprocess mode

# Seconds before gunicorn's graceful_timeout at which queries are cancelled: up to one second until gunicorn's loop sees
# that no request is left, at most one for native calls to return at exit, and one in reserve.
RESERVE = 3.0
EXIT_SHARE = 1 / 3  # the share of the reserve for native calls


class GreenWorker(GeventWorker):
    """gunicorn's gevent worker for a service that uses Polars.

    - Polars is patched before the app is loaded: every execution yields to the hub.
    - ``POLARS_MAX_THREADS`` is this worker's share of the cores, if the environment does not set it.
    - A worker forked from a parent that had run a query would hang. It exits, the log says why, and gunicorn stops,
      unless the setting ``on_fork`` has its queries run in child processes.
    - With prometheus-client's multiprocess mode, the gauges of a worker that has ended are removed.
    - On SIGTERM, and at ``max_requests``, running requests continue. Shortly before ``graceful_timeout`` their queries
      are cancelled, and the log names them.

    Example:
        >>> from gunicorn.config import Config
        >>> config = Config()
        >>> config.set("worker_class", "greendata.web.gunicorn.GreenWorker")
        >>> config.worker_class is GreenWorker
        True
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # gunicorn makes the worker in its own process, before the fork, where it calls the hook after the worker's end.
        super().__init__(*args, **kwargs)
        _call_at_child_exit(self.cfg)

    def init_process(self) -> None:
        """Prepare this process for Polars, and run the worker. gunicorn calls this after the fork."""
        post_fork(None, self)
        super().init_process()

    def load_wsgi(self) -> None:
        """Patch Polars, and load the app."""
        patch_polars()
        super().load_wsgi()

    def run(self) -> None:
        """Serve until asked to stop."""
        post_worker_init(self)
        super().run()

    def notify(self) -> None:
        """Notify the parent that the worker is alive; begin to drain when the worker is to end, for any reason."""
        super().notify()
        if not self.alive:
            _begin(self)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """End at once, as gunicorn does on SIGINT and SIGQUIT, and log the running queries."""
        gevent.spawn(worker_int, self)  # outside the signal handler, as in gunicorn
        super().handle_quit(sig, frame)


def post_fork(server: object, worker: Worker) -> None:
    """Limit Polars to its share of the cores, and exit if it would hang. gunicorn's hook of that name.

    A worker that is asked to end before gunicorn has prepared it for signals ends at once.

    Args:
        server: gunicorn's arbiter; not used.
        worker: the worker that was just forked.

    Raises:
        SystemExit: the parent has run a query, see `PolarsForked`, and ``on_fork`` is not "process". The code makes
            gunicorn stop instead of starting another worker.
    """
    # The handlers of the parent are in place until gunicorn sets those of the worker. They only record the signal for
    # the parent's loop, which does not run here: gunicorn would wait for this worker until `graceful_timeout`.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, _exit)
    if polars_has_run() or polars_was_lost():
        if pool.shared.settings.on_fork != "process":
            worker.log.error("cannot serve: %s", PolarsForked())
            sys.exit(Arbiter.APP_LOAD_ERROR)
        worker.log.info("forked after a Polars query: queries run in child processes (on_fork)")
    named = worker.cfg.env.get(VARIABLE) or os.environ.get(VARIABLE)
    if not named:
        count = share_of_cores(worker.cfg.workers)
        if not limit_polars_threads(count):
            os.environ[VARIABLE] = str(count)  # for the child processes that run the queries
        cores, workers = counted(available_cores(), "core"), counted(worker.cfg.workers, "worker")
        worker.log.info("%s=%d: %s, %s, at least %d each", VARIABLE, count, cores, workers, FEWEST)
    else:
        worker.log.debug("%s=%s, from the environment", VARIABLE, named)


def _exit(sig: int, frame: FrameType | None) -> None:
    sys.exit()


def child_exit(server: object, worker: Worker) -> None:
    """Remove the gauges of a worker that has ended, in prometheus-client's multiprocess mode. gunicorn's hook.

    Without it, gauges keep the last values of a worker that was killed. With `GreenWorker` the hook is not needed.

    Args:
        server: gunicorn's arbiter, in whose process this runs; not used.
        worker: the worker that has ended.
    """
    folder = worker.cfg.env.get(METRICS_FOLDER) or os.environ.get(METRICS_FOLDER)
    if folder is None:
        return
    try:
        from greendata.observe.metrics import remove_gauges  # requires the extra `metrics`

        remove_gauges(int(worker.pid), folder)
    except (ImportError, OSError) as error:  # an error would end gunicorn
        worker.log.warning("the gauges of worker %s could not be removed: %s", worker.pid, error)


def _call_at_child_exit(cfg: Any) -> None:
    """Have gunicorn call `child_exit` too, before the hook of that name in its configuration. Idempotent."""
    hook = cfg.child_exit
    if hook is child_exit or getattr(hook, "func", None) is _both_hooks:
        return
    cfg.set("child_exit", partial(_both_hooks, hook))


def _both_hooks(hook: Any, server: object, worker: Worker) -> None:
    child_exit(server, worker)
    hook(server, worker)


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
    """Cancel every query, and log its label. gunicorn's hook of that name, for SIGINT and SIGQUIT."""
    _log_abandoned(worker, drain.abandon())


def _on_term(worker: Worker, sig: int, frame: FrameType | None) -> None:
    worker.handle_exit(sig, frame)
    _begin(worker)


def _begin(worker: Any) -> None:
    drain.begin(max(0.0, worker.cfg.graceful_timeout - _reserve(worker)), partial(_log_abandoned, worker))


def _reserve(worker: Worker) -> float:
    seconds: float = worker.cfg.graceful_timeout
    return min(RESERVE, seconds / 2)


def _log_abandoned(worker: Worker, abandoned: drain.Abandoned) -> None:
    for state, labels in zip(("running", "queued"), abandoned, strict=True):
        if labels:
            worker.log.warning("worker %s ends and cancels %d %s: %s", worker.pid, len(labels), state, _list(labels))


def _list(labels: tuple[str, ...]) -> str:
    """Return the labels with their counts, so that a long queue is one line of the log."""
    return ", ".join(f"{label} x{labels.count(label)}" for label in dict.fromkeys(labels))
