"""Many concurrent HTTP clients, as greenlets of a separate process, and the outcome of every request.

`drive` starts the process. A client requests its paths in turn, each on a new connection, and reads to the end. A
response counts only if it is complete: of the declared length, or with its last chunk.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from time import monotonic

import gevent
from gevent import socket

from tests.support.processes import ROOT

__all__ = ("Load", "Outcome", "drive")

PIECE = 1 << 18  # bytes in one read
SPREAD = 1.0  # seconds over which the start of clients with pauses is spread


@dataclass(frozen=True, slots=True)
class Load:
    """The clients of one load: their path, number and rate.

    Attributes:
        port: of the server, on loopback.
        paths: asked for in turn, each client beginning with another one.
        clients: at once.
        requests: of one client at most.
        seconds: after which no more requests are begun.
        pause: seconds between two requests of a client.
        heeds_retry_after: a client that is turned away waits as long as the answer asks for.
        guard: seconds until a request counts as hung.
    """

    port: int
    paths: Sequence[str]
    clients: int = 500
    requests: int = 1_000_000
    seconds: float = 60.0
    pause: float = 0.0
    heeds_retry_after: bool = False
    guard: float = 60.0


@dataclass(slots=True)
class Outcome:
    """The responses and failures that the clients saw.

    Attributes:
        statuses: how often each path had each status: ``{"/report": {"200": 10}}``.
        faults: requests without a whole answer, as text, with how often each happened.
        unexplained: answers of 503 without ``Retry-After``.
        received: bytes of all bodies, with what frames them.
        spans: of each whole answer, by path, when the client set out and when it had it all, on the machine's clock.
    """

    statuses: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    unexplained: int = 0
    received: int = 0
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @property
    def by_status(self) -> dict[str, int]:
        """Return the number of responses with each status, over all paths."""
        total: Counter[str] = Counter()
        for counts in self.statuses.values():
            total.update(counts)
        return dict(sorted(total.items()))


def drive(*loads: Load) -> list[Outcome]:
    """Run *loads* at the same time, each in a separate process."""
    command = [sys.executable, "-m", __name__]
    started: list[subprocess.Popen[str]] = []
    try:
        for load in loads:
            order = [*command, json.dumps(asdict(load))]
            started.append(subprocess.Popen(order, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        patience = max(load.seconds + load.guard for load in loads) + 30.0
        return [Outcome(**json.loads(process.communicate(timeout=patience)[0])) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


class Clients:
    """The greenlets of one load. All write into one outcome."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.outcome = Outcome()
        self._ends = monotonic() + load.seconds

    def run(self) -> Outcome:
        """Send requests until all are sent."""
        gevent.joinall([gevent.spawn(self._ask_all, number) for number in range(self.load.clients)], raise_error=True)
        return self.outcome

    def _ask_all(self, number: int) -> None:
        load = self.load
        if load.pause or load.heeds_retry_after:
            gevent.sleep(SPREAD * number / load.clients)
        for turn in range(load.requests):
            if monotonic() >= self._ends:
                return
            pause = self._ask(load.paths[(number + turn) % len(load.paths)])
            gevent.sleep(max(0.0, min(pause, self._ends - monotonic())))

    def _ask(self, path: str) -> float:
        """Send one request, and return the seconds to wait after it."""
        begun = monotonic()
        try:
            with gevent.Timeout(self.load.guard, TimeoutError("no whole answer in time")):
                head, length, is_whole = fetch(self.load.port, path)
        except OSError as error:
            return self._fault(f"{path}: {type(error).__name__}: {error}")
        status = head.split(b" ", 2)[1].decode() if head else "none"
        if not is_whole:
            return self._fault(f"{path}: an answer of status {status} is not whole")
        self.outcome.received += length
        counts = self.outcome.statuses.setdefault(path, {})
        counts[status] = counts.get(status, 0) + 1
        self.outcome.spans.setdefault(path, []).append((begun, monotonic()))
        return self._retry_after(head) if status == "503" else self.load.pause

    def _fault(self, text: str) -> float:
        self.outcome.faults[text] = self.outcome.faults.get(text, 0) + 1
        return self.load.pause

    def _retry_after(self, head: bytes) -> float:
        found = header(head, b"retry-after")
        self.outcome.unexplained += found is None
        return float(found) if found is not None and self.load.heeds_retry_after else self.load.pause


def fetch(port: int, path: str) -> tuple[bytes, int, bool]:
    """Return the head of the response to a GET, the length of its body, and whether it is complete. Drop the body."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            if not (piece := connection.recv(PIECE)):
                return b"", 0, False
            received += piece
        head, _, last = received.partition(b"\r\n\r\n")
        length = len(last)
        while piece := connection.recv(PIECE):
            length += len(piece)
            last = piece[-5:] if len(piece) >= 5 else (last + piece)[-5:]
    said = header(head, b"content-length")
    return head, length, last.endswith(b"0\r\n\r\n") if said is None else length == int(said)


def header(head: bytes, name: bytes) -> bytes | None:
    """Return the value of a header, or None."""
    for line in head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.strip().lower() == name:
            return value.strip()
    return None


if __name__ == "__main__":
    print(json.dumps(asdict(Clients(Load(**json.loads(sys.argv[1]))).run())))
