"""A server for tests with load and faults: `tests.support.load_app` under gunicorn, and the resources of its worker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.gates import rest
from tests.support.servers import Server

__all__ = ("Service", "Vitals", "forget_peak", "get", "serving", "vitals", "worker_of")

GREEN = ("-k", "greendata.web.gunicorn.GreenWorker")
SOURCE = "from tests.support.load_app import app\n"
STEADY = 20  # consecutive checks of a server with the same result


class Vitals(NamedTuple):
    """The resources of a process.

    Attributes:
        memory: resident, in MiB.
        peak: the most that ever was resident, or was since `forget_peak`, in MiB.
        descriptors: open files and sockets.
    """

    memory: float
    peak: float
    descriptors: int


def vitals(pid: int) -> Vitals:
    """Return the resources of process *pid*, as Linux reports them."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    memory, peak = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return Vitals(memory, peak, len(os.listdir(f"/proc/{pid}/fd")))


def forget_peak(pid: int) -> None:
    """Reset the memory peak of process *pid* (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def worker_of(server: Server) -> int:
    """Return the worker process, the only child of *server*, after a response."""
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])


def get(path: str) -> bytes:
    """Return a request for *path*, the only one on its connection."""
    return f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode()


@dataclass(frozen=True, slots=True)
class Service:
    """The server and its worker process."""

    server: Server
    pid: int

    def ask(self, path: str) -> str:
        """Return the body of a response, after the server has released the request."""
        return _body(self.server, path)

    def state(self) -> dict[str, Any]:
        """Return the state of the service, see `tests.support.load_app.state`."""
        found: dict[str, Any] = json.loads(self.ask("/state"))
        return found

    def wait(self, **wanted: int) -> None:
        """Wait until the state has these values."""
        while (found := self.state()) | wanted != found:
            rest()

    def wait_steady(self) -> None:
        """Wait until no jobs run or wait, and the number of finished jobs is stable."""
        looks: list[int] = []
        while len(looks) < STEADY:
            found = self.state()
            if found["running"] or found["queued"] or found["done"] not in (looks or [found["done"]]):
                looks.clear()
            looks.append(found["done"])
            rest()

    def vitals(self) -> Vitals:
        """Return the resources of the idle process, without descriptors that are open only briefly (/proc)."""
        looks = []
        for _ in range(STEADY):
            looks.append(vitals(self.pid))
            rest()
        return looks[-1]._replace(descriptors=min(look.descriptors for look in looks))

    def wait_descriptors(self, count: int) -> None:
        """Wait until *count* connections are open."""
        while vitals(self.pid).descriptors != count:
            rest()


@contextmanager
def serving(folder: Path, *, workers: int, queue: int) -> Iterator[Service]:
    """The service on one gunicorn worker, with so many threads in its pool and jobs in its queue."""
    env = {"GREENDATA_MAX_WORKERS": str(workers), "GREENDATA_MAX_QUEUE": str(queue)}
    server = Server(folder, SOURCE, [*GREEN, "--workers", "1", "--graceful-timeout", "2"], env)
    try:
        yield Service(server, json.loads(_body(server, "/state"))["pid"])
    finally:
        server.terminate()
        server.wait_end()


def _body(server: Server, path: str) -> str:
    with server.connected(get(path)) as connection:
        received = b"".join(iter(partial(connection.recv, 1 << 16), b""))  # until the server has closed its side
    return received.partition(b"\r\n\r\n")[2].decode()
