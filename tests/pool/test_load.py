"""Five hundred concurrent clients, one worker with four threads and a queue of fifty: all responses are complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.load import Load, drive
from tests.support.service import serving, vitals

pytestmark = pytest.mark.once("unpatched")  # each test starts a process

CLIENTS = 500
REQUESTS = 3  # by each client
LOOKS = 100  # requests to /livez and to /readyz meanwhile
PATHS = ("/report", "/export", "/frames", "/brief", "/report")
GROWTH = 48  # MiB that allocators may keep after a load, if there was one before
ROUNDS = 4  # of the load: a leak grows in each round, an allocator's memory does not


def test_every_response_is_complete_and_nothing_is_left(tmp_path: Path) -> None:
    with serving(tmp_path, workers=4, queue=50) as service:
        load = Load(service.server.port, PATHS, clients=CLIENTS, requests=REQUESTS)
        drive(load)
        service.wait(running=0, queued=0)
        before = service.vitals()

        busy, alive = drive(load, Load(load.port, ["/livez", "/readyz"], clients=2, requests=LOOKS))
        assert busy.faults == {}
        assert busy.unexplained == 0, "a 503 without Retry-After"
        assert set(busy.by_status) <= {"200", "503", "504"}
        assert sum(busy.by_status.values()) == CLIENTS * REQUESTS
        assert {"200", "503"} <= set(busy.by_status), "that was no overload"
        assert alive.faults == {}
        assert alive.statuses["/livez"] == {"200": LOOKS}
        assert set(alive.statuses["/readyz"]) <= {"200", "503"}

        service.wait(running=0, queued=0, abandoned=0)
        service.wait_descriptors(before.descriptors)
        held = [before.memory, vitals(service.pid).memory]
        while held[-1] >= held[-2] + GROWTH and len(held) < ROUNDS:
            drive(load)
            service.wait(running=0, queued=0, abandoned=0)
            held.append(vitals(service.pid).memory)
        assert held[-1] < held[-2] + GROWTH, held
        assert service.ask("/readyz") == "ok\n"
        assert service.state()["pid"] == service.pid
        assert "Traceback" not in service.server.read_log()
