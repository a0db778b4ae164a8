"""What `greendata.observe` sees, for Prometheus. Needs the extra ``metrics`` (prometheus-client).

Names follow OpenTelemetry's for pools (used, pending, wait time, use time), with the unit at their end. They are
ordinary metrics, so that prometheus-client's multiprocess mode works: each gunicorn worker writes its own files, any
of them answers for all. Gauges of workers that are gone are left out: it takes no hook of gunicorn's.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import gevent

from greendata.observe.histogram import BOUNDS
from greendata.observe.record import Labels, hear, unhear
from greendata.observe.watch import Second, start
from greendata.pool import pool
from greendata.pool.job import Job

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import Metric
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise ImportError(
        "greendata.observe.metrics needs prometheus-client; install it with: pip install 'greendata[metrics]'"
    ) from missing

__all__ = ("Metrics",)


class _Home(NamedTuple):
    """A job that came home."""

    label: str
    outcome: str
    waited: float  # seconds
    ran: float | None  # seconds; None if it never began


class Metrics:
    """The metrics of this process, in a registry, from now until `close`. It observes: see `greendata.observe.start`.

    ========================================  =========  ==================================================
    ``greendata_jobs_total``                  counter    jobs that came home, by ``label`` and ``outcome``
    ``greendata_jobs_rejected_total``         counter    submits that got `PoolFull` or `PoolClosed`
    ``greendata_jobs_running``                gauge      jobs on workers, abandoned ones included
    ``greendata_jobs_queued``                 gauge      jobs that wait
    ``greendata_jobs_abandoned``              gauge      running jobs whose result is settled
    ``greendata_pool_workers``                gauge      native threads
    ``greendata_hub_lag_seconds``             gauge      the worst lag of the last second; of all processes, the worst
    ``greendata_job_wait_seconds``            histogram  from submit to begin, by ``label``
    ``greendata_job_run_seconds``             histogram  from begin to outcome, by ``label``
    ========================================  =========  ==================================================

    Call from the thread of the hub that is observed.

    Raises:
        ValueError: the registry has them already; prometheus-client's own.

    Example:
        >>> metrics = Metrics(CollectorRegistry())
        >>> body, content_type = metrics.exposition()
        >>> b"greendata_jobs_running 0.0" in body, content_type.startswith("text/plain")
        (True, True)
        >>> metrics.close()
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._labels = Labels()  # the flushing greenlet's
        self._waiting: deque[_Home] = deque()  # hubs append, a greenlet pops
        self._is_due = False  # that greenlet is on its way; hubs set it, it clears it
        self._rejected = 0  # as counted so far; the greenlet's
        self._lag = 0.0  # seconds; hub's thread only
        self._make()
        self._observer = start()
        self._observer.on_second(self._on_second)
        hear(self._on_home)
        self._set_gauges()

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The text that Prometheus reads, of all processes in multiprocess mode, and its content type.

        Args:
            accept: the request's Accept header; OpenMetrics is spoken where it is asked for.
        """
        self._flush()
        self._set_gauges()
        registry = self._registry
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            _forget_the_dead(Path(folder))
            registry = CollectorRegistry()
            registry.register(_Processes(Path(folder)))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def close(self) -> None:
        """Count no more, and leave the registry. Idempotent."""
        unhear(self._on_home)
        self._observer.off_second(self._on_second)
        while self._made:
            self._registry.unregister(self._made.pop())

    def _make(self) -> None:
        registry = self._registry
        self._jobs = Counter("greendata_jobs", "Jobs that came home", ["label", "outcome"], registry=registry)
        self._rejections = Counter("greendata_jobs_rejected", "Submits that were turned away", registry=registry)
        self._waits = _histogram("greendata_job_wait_seconds", "From submit to begin", registry)
        self._runs = _histogram("greendata_job_run_seconds", "From begin to outcome", registry)
        self._running = _gauge("greendata_jobs_running", "Jobs on workers, abandoned ones included", registry)
        self._queued = _gauge("greendata_jobs_queued", "Jobs that wait", registry)
        self._abandoned = _gauge("greendata_jobs_abandoned", "Running jobs whose result is settled", registry)
        self._workers = _gauge("greendata_pool_workers", "Native threads", registry)
        self._lags = Gauge(
            "greendata_hub_lag_seconds",
            "The worst lag of the hub in the last second",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._made = [
            *(self._jobs, self._rejections, self._waits, self._runs),
            *(self._running, self._queued, self._abandoned, self._workers, self._lags),
        ]

    # -- the hub itself: it may not wait, and prometheus-client takes locks ---------------------------------

    def _on_home(self, job: Job) -> None:
        result = job.result
        ran = None if result.times[1] is None else result.run_seconds
        self._waiting.append(_Home(result.label, result.status.value, result.queued_seconds, ran))
        if not self._is_due:
            self._is_due = True
            gevent.spawn(self._flush)

    def _on_second(self, second: Second) -> None:
        self._lag = second.lag
        gevent.spawn(self._set_gauges)

    # -- a greenlet -----------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._is_due = False
        while self._waiting:
            with suppress(IndexError):  # another greenlet flushes too, and took the last one
                home = self._waiting.popleft()
                label = self._labels.of(home.label)
                self._jobs.labels(label, home.outcome).inc()
                self._waits.labels(label).observe(home.waited)
                if home.ran is not None:
                    self._runs.labels(label).observe(home.ran)

    def _set_gauges(self) -> None:
        now = pool.stats()
        self._running.set(now.running)
        self._queued.set(now.queued)
        self._abandoned.set(now.abandoned)
        self._workers.set(now.workers)
        self._lags.set(self._lag)
        counted, self._rejected = self._rejected, now.rejected  # before the call: another greenlet may come in it
        self._rejections.inc(max(0, now.rejected - counted))  # a forked child's pool begins at 0


class _Processes(Collector):
    """What the processes that share a folder have counted, together.

    A process makes a file before it gives it a size. One that is killed in between leaves an empty file for good, which
    prometheus-client's own collector fails at.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in self._folder.glob("*.db") if _is_filled(file)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
        return merged


def _is_filled(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # the gauge of a process that ended just now
        return False


def _forget_the_dead(folder: Path) -> None:
    """Remove the gauges of processes that are gone: one that was killed could not do so itself."""
    if os.name != "posix":  # elsewhere the signal 0 is none
        return
    for pid in {file.stem.rpartition("_")[2] for file in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # another process removes them just now
                mark_process_dead(int(pid))  # type: ignore[no-untyped-call]
        except (ValueError, OverflowError, PermissionError):  # another name; another user's process
            continue


def _histogram(name: str, text: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, ["label"], registry=registry, buckets=BOUNDS)


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, text, registry=registry, multiprocess_mode="livesum")
