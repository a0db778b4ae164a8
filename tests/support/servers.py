"""A real gunicorn on loopback, and pipes at which its native jobs wait, for tests of whole servers."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from gevent.monkey import get_original
from gunicorn.config import make_settings

from tests.support.gates import rest
from tests.support.processes import ROOT

__all__ = ("GUARD", "ROUTED", "Pipe", "Server")

_close = get_original("os", "close")  # gevent's version waits for the next loop of a hub, which may be late
# The control socket would be left in the home folder of the user; gunicorn 23 has none.
NO_CONTROL = ["--no-control-socket"] if "control_socket_disable" in make_settings() else []
GUARD = 60.0  # seconds for one response, and for a server to start or stop

# A service, appended to a module with ROUTES: paths, and functions that return the response.
ROUTED = """
def app(environ, start_response):
    try:
        status, answer = "200 OK", str(ROUTES[environ["PATH_INFO"]]())
    except Exception as error:
        status, answer = "500 Internal Server Error", f"{type(error).__name__}: {error}"
    start_response(status, [("Content-Type", "text/plain")])
    return [answer.encode()]
"""


class Pipe:
    """A named pipe: a job of another process that reads it is held until the test opens it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end: int | None = None

    def wait_arrived(self) -> None:
        """Wait until a job reads."""
        while self._end is None:
            try:
                self._end = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                rest()

    def open(self) -> None:
        """Let the readers continue."""
        self.wait_arrived()
        self.close()

    def let_pass(self) -> None:
        """Let the current readers continue, if there are any."""
        _close(os.open(self.path, os.O_RDWR))

    def close(self) -> None:
        """Close this end, if it is open."""
        if self._end is not None:
            _close(self._end)
            self._end = None


class Server:
    """A running gunicorn, which serves ``app`` of the source text *service*.

    Args:
        folder: where the service and the log go.
        service: a module's source.
        arguments: gunicorn's, the worker class among them.
        env: more of the environment; nothing of ``GREENDATA_*`` is inherited.
        python: the interpreter.
    """

    def __init__(
        self,
        folder: Path,
        service: str,
        arguments: Sequence[str],
        env: dict[str, str],
        *,
        python: str | Path = sys.executable,
    ) -> None:
        (folder / "service.py").write_text(service, encoding="utf-8")
        self.log = folder / "gunicorn.log"
        with socket.create_server(("127.0.0.1", 0)) as listener, self.log.open("wb") as log:
            self.port = listener.getsockname()[1]
            command = [str(python), "-m", "gunicorn", "-b", f"fd://{listener.fileno()}", "--chdir", str(folder)]
            command += ["--pythonpath", str(ROOT), *NO_CONTROL, *arguments, "service:app"]
            inherited = {name: value for name, value in os.environ.items() if not name.startswith("GREENDATA_")}
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=inherited | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
            )

    def ask(self, path: str, **headers: str) -> str:
        """Return the response of the server; fail after the guard."""
        with self.asked(path, **headers) as answer:
            return answer().read().decode()

    @contextmanager
    def asked(self, path: str, **headers: str) -> Iterator[Callable[[], HTTPResponse]]:
        """Send a request, and yield a function that waits for the response."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=GUARD)) as connection:
            connection.request("GET", path, headers={"Connection": "close", **headers})
            yield connection.getresponse

    @contextmanager
    def connected(self, request: bytes) -> Iterator[socket.socket]:
        """Open a plain connection, and send *request* on it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=GUARD) as connection:
            connection.sendall(request)
            yield connection

    def read_log(self) -> str:
        """Return the log of the server so far."""
        return self.log.read_text(encoding="utf-8")

    def wait_log(self, text: str) -> None:
        """Wait until the log has *text*, or the server has ended."""
        while text not in self.read_log() and self.process.poll() is None:
            rest(0.01)
        assert text in self.read_log()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Kill the server."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.wait_end()

    def wait_end(self) -> int:
        """Wait for the end, and return the exit code; kill the server after the guard."""
        try:
            return self.process.wait(GUARD)
        finally:
            self.process.kill()
