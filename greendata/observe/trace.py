"""Trace queries, the queue and hub lag in Chrome's format, for ui.perfetto.dev and chrome://tracing.

Each job is an async slice on the track of its worker, from submit to outcome. An inner slice shows the time on the
worker. The format is Google's "Trace Event Format":
docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from greendata.errors import BadArgument
from greendata.hub.contexts import contextmanager
from greendata.hub.pacing import paced, sliced
from greendata.hub.result import Result
from greendata.observe.lag import LagProbe
from greendata.observe.listeners import add_listener, remove_listener
from greendata.pool import pool
from greendata.pool.cleanup import run_to_completion
from greendata.pool.job import Job

__all__ = ("Trace", "trace")

JOBS = 50_000  # jobs that a trace keeps, the last ones: about 15 MB of memory and 25 MB of JSON
SAMPLES = 50_000  # samples of queue and lag that a trace keeps, the last ones: 40 minutes at 50 ms

Event = dict[str, Any]


class _Slice(NamedTuple):
    """A job; its times are in seconds on `time.monotonic`'s clock."""

    label: str
    status: str
    worker: str
    born: float
    began: float | None
    ended: float


class _Sample(NamedTuple):
    """The state of the hub and the queue at one moment."""

    at: float
    lag: float
    queued: int
    running: int


class Trace:
    """What a `trace` block has recorded so far.

    Attributes:
        path: the file that will be written.
        dropped: the number of jobs that were discarded because there were more than `JOBS`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dropped = 0  # hubs write
        self._slices: deque[_Slice] = deque(maxlen=JOBS)  # hubs append
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)  # hub's thread appends
        self._began = monotonic()
        self._probe = LagProbe()
        self._probe.on_tick(self._on_tick)

    def start(self) -> None:
        """Start recording. Call from the hub's thread."""
        self._probe.start()
        add_listener(self._on_finished)

    def stop(self) -> None:
        """Stop recording; the slices of jobs that still run end here. Call from the hub's thread."""
        remove_listener(self._on_finished)
        self._probe.close()
        for job, _, _ in pool.running_jobs():
            if not job.result.is_delivered:
                self._on_finished(job)

    def write(self) -> None:
        """Write the file, either complete or not at all. The hub keeps running meanwhile."""
        head = json.dumps({"displayTimeUnit": "ms", "otherData": {"jobs_dropped": self.dropped}})
        lines = paced(json.dumps, self.events())
        parts = sliced(lambda start, length: ",\n".join(lines[start : start + length]).encode(), len(lines))
        body = [f'{head[:-1]}, "traceEvents": [\n'.encode()]
        for part in parts:
            body += part, b",\n"
        body[-1] = b"\n]}\n"
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}-{id(self):x}.unfinished")
        run_to_completion(partial(_write_file, self.path, unfinished, body), label="write the trace").get()

    def events(self) -> Iterator[Event]:
        """Yield the events in the trace's format. Times are in microseconds since the start of the trace."""
        jobs, counts = self._slices.copy(), self._samples.copy()  # copies, because hubs still append
        workers = dict.fromkeys(each.worker for each in jobs)
        threads = {worker: number for number, worker in enumerate(workers, start=1)}
        pid = os.getpid()
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": "greendata"}}
        for worker, thread in threads.items():
            name = worker or "never began"
            yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": thread, "args": {"name": name}}
        slices = (self._slice(number, each, pid, threads[each.worker]) for number, each in enumerate(jobs))
        samples = (self._counters(sample, pid) for sample in counts)
        yield from chain.from_iterable(slices)
        yield from chain.from_iterable(samples)

    def _slice(self, number: int, job: _Slice, pid: int, thread: int) -> Iterator[Event]:
        where = {"cat": "query", "id": number, "pid": pid, "tid": thread}
        born, ended = self._time(job.born), self._time(job.ended)
        yield {"ph": "b", "name": job.label, "ts": born, **where, "args": {"status": job.status, "worker": job.worker}}
        if job.began is not None:
            yield {"ph": "b", "name": "run", "ts": self._time(job.began), **where}
            yield {"ph": "e", "name": "run", "ts": ended, **where}
        yield {"ph": "e", "name": job.label, "ts": ended, **where}

    def _counters(self, sample: _Sample, pid: int) -> Iterator[Event]:
        at = {"ph": "C", "pid": pid, "tid": 0, "ts": self._time(sample.at)}
        yield {**at, "name": "hub lag", "args": {"ms": round(sample.lag * 1000, 3)}}
        yield {**at, "name": "jobs", "args": {"running": sample.running, "queued": sample.queued}}

    def _time(self, at: float) -> float:
        return round(max(0.0, at - self._began) * 1e6, 1)

    def _on_finished(self, job: Job) -> None:
        if len(self._slices) == JOBS:
            self.dropped += 1  # one statement without a call: hubs of other threads count too
        self._slices.append(_slice_of(job.result, monotonic()))

    def _on_tick(self, lag: float) -> None:
        counts = pool.stats()
        self._samples.append(_Sample(monotonic(), lag, counts.queued, counts.running))


def _write_file(path: Path, unfinished: Path, body: list[bytes]) -> None:
    """Write *body* to the file *unfinished*, and rename it to *path*. Call from a native thread."""
    try:
        with unfinished.open("xb") as file:
            file.writelines(body)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _slice_of(result: Result[Any], now: float) -> _Slice:
    born, began, ended = result.times
    return _Slice(result.label, result.status.value, result.worker, born, began, ended or now)


@contextmanager
def trace(path: str | os.PathLike[str]) -> Iterator[Trace]:
    """Trace the jobs that finish inside the block, and this hub's lag, to a JSON file for Perfetto.

    The file is written at the end of the block, also after an error, and appears either complete or not at all. It
    contains labels, times and outcomes, but no data and no texts of errors. Call from the hub's thread.

    Args:
        path: the file; its folder must exist.

    Raises:
        BadArgument: the file cannot be written.

    Example:
        >>> import gevent, greendata, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with trace(folder + "/out.json") as seen:
        ...         result = greendata.run(sum, [1, 2], label="example")
        ...         while "example" not in {event["name"] for event in seen.events()}:
        ...             gevent.sleep(0.001)
        ...     sorted({e["ph"] for e in json.loads(Path(folder, "out.json").read_text())["traceEvents"]} & {"b", "e"})
        ['b', 'e']
    """
    file = Path(path)
    if file.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise BadArgument("path", str(path), "a file in an existing writable folder")
    recorded = Trace(file)
    recorded.start()
    try:
        yield recorded
    finally:
        recorded.stop()
        recorded.write()
