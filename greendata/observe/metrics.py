"""Export what `greendata.observe` records to Prometheus. Needs the extra ``metrics`` (prometheus-client).

The names follow OpenTelemetry's for pools (used, pending, wait time, use time), with the unit at the end. They are
ordinary metrics, so prometheus-client's multiprocess mode works: each gunicorn worker writes files, and any worker
responds for all of them. The gauges of a worker that has ended are removed by `greendata.web.gunicorn.GreenWorker`.
With another worker class, import the hook in ``gunicorn.conf.py``: ``from greendata.web.gunicorn import child_exit``.
Without gunicorn, `Metrics.exposition` removes those of processes of this machine that have ended.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import gevent

from greendata.internals.gevent import get_hub_if_exists
from greendata.observe.counters import Labels
from greendata.observe.histogram import BOUNDS
from greendata.observe.listeners import FinishedQuery, add_query_listener, remove_query_listener
from greendata.observe.running import crawl_totals, crawls
from greendata.observe.watch import Second, start
from greendata.pool import pool
from greendata.pool.workers import is_inline_thread

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

__all__ = ("Metrics", "remove_gauges")

_CRAWL_COUNTERS = {  # in the order of `CrawlTotals`
    "pages": "Pages that crawls have finished",
    "failed_pages": "Those of them that have an error",
    "bytes": "Decoded bytes of their bodies",
    "requests": "Requests that crawls have sent",
}


class Metrics:
    """The metrics of this process in a registry, until `close`. Calls `greendata.observe.start`.

    ========================================  =========  ==================================================
    ``greendata_jobs_total``                  counter    finished queries, by ``label`` and ``outcome``
    ``greendata_internal_jobs_total``         counter    jobs that are parts of a query, or greendata's own
    ``greendata_jobs_rejected_total``         counter    submits that raised `PoolFull` or `PoolClosed`
    ``greendata_jobs_running``                gauge      jobs on workers, abandoned ones included
    ``greendata_jobs_queued``                 gauge      jobs in the queue
    ``greendata_jobs_abandoned``              gauge      running jobs whose result is settled
    ``greendata_pool_workers``                gauge      native threads
    ``greendata_hub_lag_seconds``             gauge      the worst lag of the last second, of all processes
    ``greendata_job_wait_seconds``            histogram  from submit to begin, by ``label``
    ``greendata_job_run_seconds``             histogram  on workers, by ``label``
    ``greendata_crawl_pages_total``           counter    pages that crawls have finished
    ``greendata_crawl_failed_pages_total``    counter    those of them that have an error
    ``greendata_crawl_bytes_total``           counter    decoded bytes of their bodies
    ``greendata_crawl_requests_total``        counter    requests that crawls have sent
    ``greendata_crawl_in_flight``             gauge      requests of crawls that wait for a response
    ``greendata_crawl_hosts_waiting``         gauge      hosts of crawls that wait for their time
    ========================================  =========  ==================================================

    A query counts once, also if it has several jobs, as a stream and a validation have. The gauges count all jobs,
    because each occupies a worker. ``label`` has a bounded number of values: identifiers in labels become ``*``, see
    `greendata.observe.counters.Labels`.

    Call from the thread of the hub that is observed.

    Raises:
        ValueError: the registry has these metrics already (raised by prometheus-client).

    Example:
        >>> metrics = Metrics(CollectorRegistry())
        >>> body, content_type = metrics.exposition()
        >>> b"greendata_jobs_running 0.0" in body, content_type.startswith("text/plain")
        (True, True)
        >>> metrics.close()
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._labels = Labels()  # used by the flushing greenlet only
        self._waiting: deque[FinishedQuery] = deque()  # any thread appends, a greenlet pops
        self._internal = 0  # not counted so far: any thread adds without a call in between, a greenlet subtracts
        self._is_due = False  # a flushing greenlet was spawned; hubs set this, the greenlet clears it
        self._rejected = 0  # counted so far; used by greenlets only
        self._lag = 0.0  # seconds; hub's thread only
        self._crawled = crawl_totals()  # counted so far; used by greenlets only
        self._make()
        self._observer = start()
        self._observer.on_second(self._on_second)
        add_query_listener(self._on_finished)
        self._set_gauges()

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text for Prometheus and its content type. In multiprocess mode it covers all processes.

        Args:
            accept: the request's Accept header; if it asks for OpenMetrics, that format is returned.
        """
        self._flush()
        self._set_gauges()
        registry = self._registry
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            _remove_dead_processes(Path(folder))
            registry = CollectorRegistry()
            registry.register(_Processes(Path(folder)))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def close(self) -> None:
        """Stop counting, and remove the metrics from the registry. Idempotent."""
        remove_query_listener(self._on_finished)
        self._observer.off_second(self._on_second)
        while self._made:
            self._registry.unregister(self._made.pop())

    def _make(self) -> None:
        registry = self._registry
        self._jobs = Counter("greendata_jobs", "Finished queries", ["label", "outcome"], registry=registry)
        self._internal_jobs = Counter("greendata_internal_jobs", "Parts of queries, and own jobs", registry=registry)
        self._rejections = Counter("greendata_jobs_rejected", "Submits that were rejected", registry=registry)
        self._waits = _histogram("greendata_job_wait_seconds", "From submit to begin", registry)
        self._runs = _histogram("greendata_job_run_seconds", "On workers", registry)
        self._running = _gauge("greendata_jobs_running", "Jobs on workers, abandoned ones included", registry)
        self._queued = _gauge("greendata_jobs_queued", "Jobs in the queue", registry)
        self._abandoned = _gauge("greendata_jobs_abandoned", "Running jobs whose result is settled", registry)
        self._workers = _gauge("greendata_pool_workers", "Native threads", registry)
        self._lags = Gauge(
            "greendata_hub_lag_seconds",
            "The worst lag of the hub in the last second",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._crawl_counters = [
            Counter(f"greendata_crawl_{name}", text, registry=registry) for name, text in _CRAWL_COUNTERS.items()
        ]
        self._crawl_in_flight = _gauge("greendata_crawl_in_flight", "Requests of crawls in flight", registry)
        self._crawl_hosts = _gauge("greendata_crawl_hosts_waiting", "Hosts that wait for their time", registry)
        self._made = [
            *(*self._crawl_counters, self._crawl_in_flight, self._crawl_hosts),
            *(self._jobs, self._internal_jobs, self._rejections, self._waits, self._runs),
            *(self._running, self._queued, self._abandoned, self._workers, self._lags),
        ]

    # -- called in a hub itself, or on a worker, which must not wait; prometheus-client takes locks -----------

    def _on_finished(self, query: FinishedQuery | None) -> None:
        if query is None:
            self._internal += 1
        else:
            self._waiting.append(query._replace(error=None))  # it would keep frames alive
        if not self._is_due and get_hub_if_exists() is not None and not is_inline_thread():  # else the next second
            self._is_due = True
            gevent.spawn(self._flush)

    def _on_second(self, second: Second) -> None:
        self._lag = second.lag
        gevent.spawn(self._flush)
        gevent.spawn(self._set_gauges)

    # -- a greenlet -----------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._is_due = False
        internal, self._internal = self._internal, 0  # no call in between
        self._internal_jobs.inc(internal)
        while self._waiting:
            with suppress(IndexError):  # another greenlet flushes too, and has taken the last one
                finished = self._waiting.popleft()
                label = self._labels.of(finished.label)
                self._jobs.labels(label, finished.status.value).inc()
                self._waits.labels(label).observe(finished.waited)
                if finished.ran is not None:
                    self._runs.labels(label).observe(finished.ran)

    def _set_gauges(self) -> None:
        now = pool.stats()
        self._running.set(now.running)
        self._queued.set(now.queued)
        self._abandoned.set(now.abandoned)
        self._workers.set(now.workers)
        self._lags.set(self._lag)
        counted, self._rejected = self._rejected, now.rejected  # before the call: another greenlet may run during it
        self._rejections.inc(max(0, now.rejected - counted))  # the pool of a forked child starts at 0
        running = crawls()
        self._crawl_in_flight.set(sum(crawl.in_flight for crawl in running))
        self._crawl_hosts.set(sum(crawl.hosts_waiting for crawl in running))
        totals = crawl_totals()
        crawled, self._crawled = self._crawled, totals
        for counter, before, after in zip(self._crawl_counters, crawled, totals, strict=True):
            counter.inc(max(0, after - before))


class _Processes(Collector):
    """Merge the metrics of all processes that share a folder.

    A process creates a file before it gives it a size. A process that is killed in between leaves an empty file, which
    makes prometheus-client's collector fail.
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
    except FileNotFoundError:  # the gauge of a process that has just ended
        return False


def remove_gauges(pid: int, folder: str) -> None:
    """Remove the gauges of a process that has ended from the *folder* of prometheus-client's multiprocess mode.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "gauge_livesum_7.db").touch()
        ...     remove_gauges(7, folder)
        ...     list(Path(folder).iterdir())
        []
    """
    with suppress(FileNotFoundError):  # another process has removed them
        mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


def _remove_dead_processes(folder: Path) -> None:
    """Remove the gauges of processes that have ended: a process that was killed could not do it."""
    if os.name != "posix":  # on other systems, signal 0 does not exist
        return
    for pid in {file.stem.rpartition("_")[2] for file in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            remove_gauges(int(pid), str(folder))
        except (ValueError, OverflowError, PermissionError):  # not a process id; another user's process
            continue


def _histogram(name: str, text: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, ["label"], registry=registry, buckets=BOUNDS)


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, text, registry=registry, multiprocess_mode="livesum")
