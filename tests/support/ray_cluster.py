"""A Ray cluster on this machine: a head without CPUs, and nodes that tests kill. All are ended by process id.

Run as a program it is the keeper of one node: it starts ``ray start --block``, and ends what that has started when the
pipe at its stdin is closed, because the process that tests is gone, however it went.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.natives import until
from tests.support.processes import ROOT

__all__ = ("Cluster", "Node", "has_ended", "processes_of")

TOKEN = "t" * 40
_VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "100",  # a busy machine
    "PYTHONPATH": str(ROOT),
}
_STORE = 200_000_000  # bytes of the object store of a node


def processes_of(session: int) -> list[int]:
    """Return the ids of the processes that belong to a session and have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found


def has_ended(pid: int) -> bool:
    """True if the process has ended. Its parent may not have reaped it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def end(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Node:
    """One ``ray start --block``, in a session of its own that all its processes belong to."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir()
        self._log = folder / "start.log"
        with open(self._log, "wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.support.ray_cluster", *options, f"--temp-dir={folder}"],
                cwd=ROOT,
                env={**os.environ, **_VARIABLES},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.session = self._keeper.pid

    def wait_ready(self) -> str:
        """Wait until it runs, and return what it says."""
        until(lambda: "To terminate the Ray runtime" in self._log.read_text() or self._keeper.poll() is not None)
        assert self._keeper.poll() is None, self._log.read_text()
        return self._log.read_text()

    def kill(self) -> None:
        """End all its processes at once, as the end of a machine does."""
        while left := processes_of(self.session):
            end(left)
            self._keeper.poll()
        self._keeper.wait()
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()


class Cluster:
    """A head and *nodes* nodes with one CPU each, which accept drivers with the token in `environment`."""

    def __init__(self, nodes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # its sockets have paths of at most 107 bytes
        self.nodes: list[Node] = []
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        try:
            head = self._add("--head", "--port=0", "--num-cpus=0", "--include-dashboard=false")
            found = re.search(r"--address='(?P<address>[^']+)'", head.wait_ready())
            assert found is not None
            self.address = found["address"]
            for node in [self.add_node() for _ in range(nodes)]:
                node.wait_ready()
        except BaseException:
            self.end()
            raise

    def add_node(self) -> Node:
        """Start a node, which is not ready yet."""
        return self._add(f"--address={self.address}", "--num-cpus=1")

    def _add(self, *options: str) -> Node:
        self.nodes.append(Node(self.folder / str(len(self.nodes)), *options))
        return self.nodes[-1]

    def node_of(self, pid: int) -> Node:
        """Return the node that a process belongs to."""
        session = os.getsid(pid)
        return next(node for node in self.nodes if node.session == session)

    def end(self) -> None:
        """End all processes and remove their files."""
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: Any) -> None:
        self.end()


def _keep(options: list[str]) -> None:
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--include-log-monitor=false"]
    # Without this address Ray would listen on one that others reach: it takes 127.0.0.1 for "the usual one".
    places = ["--node-ip-address=127.0.0.2", "--min-worker-port=0", "--max-worker-port=0"]
    agent = ["--dashboard-agent-listen-port=0", f"--object-store-memory={_STORE}"]
    started = subprocess.Popen([*ray, *places, *agent, *options], stdin=subprocess.DEVNULL)
    while started.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    while others := [pid for pid in processes_of(os.getpid()) if pid != os.getpid()]:
        end(others)
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


if __name__ == "__main__":
    _keep(sys.argv[1:])
