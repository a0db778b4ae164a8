"""A real gunicorn on a loopback port, for as long as a `with` block lasts."""

__all__ = ("Server", "serving", "stop")

import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from examples.demo.figures import DemoError, Silence
from examples.demo.load import fetch

HOST = "127.0.0.1"
TOP = Path(__file__).parents[2]
SETTINGS = Path(__file__).with_name("gunicorn_conf.py")
APPS = ("examples", "tests")  # packages that have apps
BACKLOG = 128
POLL = 0.05  # seconds between two checks of a server that starts or stops
STOP_GRACE = 8.0  # seconds; above the graceful timeout in the settings file
TAIL = 15  # lines of a dead server's stderr that an error shows


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. Its files are removed when the `with` block is left."""

    host: str
    port: int
    process: subprocess.Popen[bytes]
    watched: Path
    stderr: Path

    def silences(self) -> tuple[Silence, ...]:
        """Return the silences written so far, without a line that is still being written."""
        whole = self.watched.read_text("ascii").rpartition("\n")[0].splitlines()
        moments = (line.split() for line in whole)
        return tuple(Silence(float(due), float(woke)) for due, woke in moments)

    def tail(self) -> str:
        """Return the end of the server's stderr."""
        return "\n".join(self.stderr.read_text("utf-8", "replace").splitlines()[-TAIL:])

    def check(self) -> None:
        """Raise DemoError if the server has died."""
        code = self.process.poll()
        if code is not None:
            raise DemoError(f"the server died with code {code}; its stderr ends with:\n{self.tail()}")


@contextmanager
def serving(
    app: str = "examples.legacy_app:app",
    *,
    env: Mapping[str, str] | None = None,
    port: int = 0,
    workers: int = 1,
    boot_timeout: float = 60.0,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Server]:
    """Serve `app` with `gunicorn -k gevent`, and stop it when the block is left.

    Args:
        app: module and name, as for gunicorn.
        env: variables in addition to this process's environment, without its GREENDATA_AUTOPATCH.
        port: a port on loopback; 0 for any free one.
        tick: called many times a second during waits; an error that it raises ends the wait.

    Raises:
        DemoError: gunicorn is missing, the port is taken, the server died or did not respond in time.
    """
    if importlib.util.find_spec("gunicorn") is None:
        raise DemoError("gunicorn is not installed here: `make demo` installs it, or `pip install -e .[web]`")
    with tempfile.TemporaryDirectory(prefix="demo-") as folder, listening(port) as listener:
        watched, stderr = Path(folder, "hub"), Path(folder, "stderr")
        watched.touch()
        for name in APPS:
            Path(folder, name).symlink_to(TOP / name)
        surroundings = {name: value for name, value in os.environ.items() if name != "GREENDATA_AUTOPATCH"}
        surroundings |= {"DEMO_HUB_WATCH": str(watched), "DEMO_OWNER": str(os.getpid()), **(env or {})}
        process = start(app, listener, folder=folder, env=surroundings, workers=workers, stderr=stderr)
        try:
            server = Server(HOST, listener.getsockname()[1], process, watched, stderr)
            listener.close()  # so that a dead server refuses connections
            wait_for_response(server, boot_timeout, tick)
            yield server
        finally:
            stop(process)


def listening(port: int) -> socket.socket:
    """Return a listening socket for the server to inherit: a port that was only found free could be taken by then."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise DemoError(f"port {port} of {HOST} is not free ({error}): give another, or 0 for any port") from error
    return listener


def start(
    app: str, listener: socket.socket, *, folder: str, env: Mapping[str, str], workers: int, stderr: Path
) -> subprocess.Popen[bytes]:
    """Start gunicorn in a new session: Ctrl-C in the terminal reaches the parent, which stops it.

    Its working directory is a folder that has the apps, but not greendata, which a plain server must not find.
    """
    options = ["-k", "gevent", "-w", str(workers), "-c", str(SETTINGS), "--bind", f"fd://{listener.fileno()}"]
    with stderr.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, app],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )


def wait_for_response(server: Server, timeout: float, tick: Callable[[], None]) -> None:
    deadline = time.monotonic() + timeout
    tick()
    while not responds(server):
        tick()
        server.check()
        if time.monotonic() > deadline:
            raise DemoError(f"the server did not respond within {timeout} seconds; its stderr:\n{server.tail()}")
        time.sleep(POLL)


def responds(server: Server) -> bool:
    try:
        return fetch(server.host, server.port, "/ping", timeout=1.0)[0] == http.client.OK
    except (OSError, http.client.HTTPException):  # refused, reset or timed out: not yet
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End `process` and its group: by SIGTERM, and by SIGKILL after some seconds or when interrupted here."""
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_GRACE)
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the remaining processes of the group that `process` leads."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()
