"""Five hundred clients for half a minute on one worker with four threads and a queue of fifty.

A client that gets 503 waits as long as the response asks, as urllib3 does. The client of ``/livez`` is a separate
process.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from examples.demo.figures import quantile
from tests.bench.rows import Row
from tests.support.load import Load, Outcome, drive
from tests.support.service import Service, serving, vitals

__all__ = ("rows",)

PATHS = ("/report", "/export", "/frames", "/brief", "/report")
SECONDS = 30.0
WARM = 5.0  # seconds of the same load before: threads, and what allocators keep of a first time
IDLE = 5.0  # seconds without it
PAUSE = 0.005  # seconds between two looks
GROWTH = 48.0  # MiB that allocators may keep


def rows() -> list[Row]:
    """``/livez`` under load against idle, what was answered, and what is left of it."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), workers=4, queue=50) as service:
        port = service.server.port
        looks = [Load(port, ["/livez"], clients=1, seconds=seconds, pause=PAUSE) for seconds in (IDLE, SECONDS)]
        drive(Load(port, PATHS, seconds=WARM, heeds_retry_after=True))
        service.wait(running=0, queued=0)
        before = vitals(service.pid)
        (idle,) = drive(looks[0])
        busy, alive = drive(Load(port, PATHS, seconds=SECONDS, heeds_retry_after=True), looks[1])
        return [*_answers(busy, alive, idle), *_left(service, before.memory, before.descriptors)]


def _answers(busy: Outcome, alive: Outcome, idle: Outcome) -> list[Row]:
    p99 = [quantile([end - begin for begin, end in seen.spans["/livez"]], 0.99) for seen in (alive, idle)]
    shown = [f"{seconds * 1e3:.1f} ms" for seconds in p99]
    counts = ", ".join(f"{count} x {status}" for status, count in busy.by_status.items())
    others = sum(count for status, count in busy.by_status.items() if status not in ("200", "503", "504"))
    faults = sum(busy.faults.values()) + sum(alive.faults.values()) + busy.unexplained + others
    return [
        Row("500 clients: /livez p99, against idle", *shown, p99[0] / p99[1], "x", 5.0),
        Row(f"500 clients: requests without a proper answer, of {counts}", str(faults), "", faults, "", 0.0),
    ]


def _left(service: Service, memory: float, descriptors: int) -> list[Row]:
    service.wait(running=0, queued=0, abandoned=0)
    service.wait_descriptors(descriptors)
    after = vitals(service.pid)
    held = [f"{after.memory:.0f} MiB", f"{memory:.0f} MiB"]
    opened = [str(after.descriptors), str(descriptors)]
    return [
        Row("500 clients: memory after, against before", *held, after.memory - memory, " MiB", GROWTH),
        Row("500 clients: descriptors after, against before", *opened, after.descriptors - descriptors, "", 0.0),
    ]
