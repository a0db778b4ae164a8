"""The load: clients in native threads of a separate process, each sending the next request after a response.

`drive` runs the load; `drive_elsewhere` runs it in a child process.
"""

__all__ = ("drive", "drive_elsewhere", "fetch")

import dataclasses
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.demo.figures import DemoError, Load, Outcome, Span

TOP = Path(__file__).parents[2]
RESPONSE_TIMEOUT = 60.0  # seconds; the load measures blocked servers, and fails for dead ones
PROGRESS = 0.1  # seconds between two checks of the clients


class Client:
    """One client: a connection, a thread, and the spans of its requests. Only its own thread appends to `spans`."""

    def __init__(self, number: int, path: str, pause: float) -> None:
        self.number = number
        self.path = path
        self.pause = pause
        self.spans: list[Span] = []
        self.failure: Exception | None = None

    def run(self, host: str, port: int, end: float) -> None:
        try:
            while time.monotonic() < end:
                self.spans.append(self.ask(host, port))
                time.sleep(self.pause)
        except (OSError, http.client.HTTPException) as error:
            self.failure = error

    def ask(self, host: str, port: int) -> Span:
        """Send one request on a new connection, as a proxy does.

        On a kept connection the next request can arrive before a blocking server has looked at other clients.
        """
        began = time.monotonic()
        status, body = fetch(host, port, self.path)
        ended = time.monotonic()
        if status != http.client.OK:
            raise http.client.HTTPException(f"{self.path} responded with {status}: {body[:200]!r}")
        return Span(self.number, began, ended)


def drive(load: Load, *, host: str, port: int, tick: Callable[[], None] = lambda: None) -> Outcome:
    """Run `load` on a server from threads of this process, and return the outcome.

    Args:
        tick: called many times a second meanwhile; what it raises ends the call; the clients end later, by themselves.

    Raises:
        DemoError: a client was refused or cut off, or a response was not 200.
    """
    reporters = [Client(number, load.report_path, 0.0) for number in range(load.report_clients)]
    pingers = [Client(number, load.ping_path, load.ping_pause) for number in range(load.ping_clients)]
    clients = reporters + pingers
    began = time.monotonic() + load.warmup
    ended = began + load.seconds
    threads = [threading.Thread(target=client.run, args=(host, port, ended), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(PROGRESS)
        raise_failure(clients)
        tick()
    raise_failure(clients)
    return Outcome(began, ended, touching(began, ended, pingers), touching(began, ended, reporters))


def raise_failure(clients: list[Client]) -> None:
    for client in clients:
        if client.failure is not None:
            raise DemoError(f"a client failed: {client.failure!r}") from client.failure


def fetch(host: str, port: int, path: str, *, timeout: float = RESPONSE_TIMEOUT) -> tuple[int, bytes]:
    """Return status and body of a GET; raise OSError or HTTPException without a response."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def touching(began: float, ended: float, clients: list[Client]) -> tuple[Span, ...]:
    """Return the spans that overlap the window, including those that outlast it, as on a blocked server."""
    return tuple(span for client in clients for span in client.spans if span.ended > began and span.began < ended)


def drive_elsewhere(load: Load, *, host: str, port: int, tick: Callable[[], None] = lambda: None) -> Outcome:
    """Run `load` from a child process, so that clients and server do not share one interpreter.

    Args:
        tick: called many times a second meanwhile; what it raises ends the load.

    Raises:
        DemoError: as `drive` does.
    """
    order = json.dumps({"load": dataclasses.asdict(load), "host": host, "port": port})
    with subprocess.Popen(
        [sys.executable, "-m", "examples.demo.elsewhere", order],
        cwd=TOP,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in the terminal reaches its parent, which ends it
    ) as child:
        try:
            output, errors = output_of(child, tick)
        finally:
            child.kill()
    if child.returncode != 0:
        raise DemoError(errors.strip() or f"the load ended with code {child.returncode}")
    return outcome_of(json.loads(output))


def output_of(child: subprocess.Popen[str], tick: Callable[[], None]) -> tuple[str, str]:
    while True:
        try:
            return child.communicate(timeout=PROGRESS)
        except subprocess.TimeoutExpired:  # nothing read so far is lost
            tick()


def outcome_of(fields: dict[str, Any]) -> Outcome:
    pings, reports = (tuple(Span(**span) for span in fields[kind]) for kind in ("pings", "reports"))
    return Outcome(fields["began"], fields["ended"], pings, reports)
