"""Functions that tests run in child processes."""

from __future__ import annotations

import _socket
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl

from greendata.engines.child import DONE, FAILED, packed_error
from greendata.engines.messages import close_all, receive, send
from greendata.engines.ray_cluster.program import CANCELLED, FRAME

__all__ = (
    "abort",
    "allocate",
    "allocate_and_hold",
    "close_socket_and_hold",
    "exit_with",
    "fail",
    "flags",
    "gated_query",
    "held_query",
    "hold",
    "hold_the_gil",
    "import_path",
    "process_ids",
    "serve_many",
    "spill",
    "start_and_hold",
    "variables",
    "write_to_socket",
    "write_to_stderr",
    "write_to_stderr_and_hold",
)


def hold(path: str) -> None:
    """Write the process id to *path*, and do not return. A test ends the process."""
    _write_pid(path, os.getpid())
    while True:
        time.sleep(60)


def held_query(path: str) -> pl.LazyFrame:
    """Return a query that holds, see `hold`, with the GIL of its process released."""

    def wait(series: pl.Series) -> Any:
        hold(path)
        return series

    return pl.LazyFrame({"a": [1]}).select(pl.col("a").map_batches(wait, return_dtype=pl.Int64))


def gated_query(folder: str) -> pl.LazyFrame:
    """Return a query that makes an empty file with its process id as the name in *folder*, and waits for one "open"."""

    def wait(series: pl.Series) -> Any:
        Path(folder, str(os.getpid())).touch()
        while not Path(folder, "open").exists():
            time.sleep(0.01)
        return series

    return pl.LazyFrame({"a": [1]}).select(pl.col("a").map_batches(wait, return_dtype=pl.Int64))


def exit_with(status: int) -> None:
    """End the process without any clean-up."""
    sys.stderr.write("the last words\n")
    sys.stderr.flush()
    os._exit(status)


def abort() -> None:
    """End the process as a crash in native code does."""
    os.kill(os.getpid(), signal.SIGSEGV)


class Unruly(Exception):
    """An error that cannot be pickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("unruly")
        self.lock = (lambda: a + b).__code__


def fail() -> None:
    """Raise an error that cannot be pickled."""
    raise Unruly(1, 2)


def allocate(step: int, steps: int) -> int:
    """Hold *steps* pieces of *step* bytes of memory that is written to."""
    pieces = [b"x" * step for _ in range(steps)]
    return sum(map(len, pieces))


def allocate_and_hold(step: int, steps: int) -> None:
    """Do the same, and do not return."""
    pieces = [b"x" * step for _ in range(steps)]
    while pieces:
        time.sleep(60)


def write_to_stderr(size: int) -> None:
    """Write *size* bytes."""
    sys.stderr.write("e" * size)
    sys.stderr.flush()


def write_to_stderr_and_hold(size: int, path: str) -> None:
    """Write *size* bytes, then hold."""
    write_to_stderr(size)
    hold(path)


def process_ids() -> pl.LazyFrame:
    """Return a query whose one value is the id of the process that runs it."""
    return pl.LazyFrame({"pid": [0]}).select(pl.col("pid").map_batches(_process_id, return_dtype=pl.Int64))


def _process_id(series: pl.Series) -> Any:
    return series + os.getpid()


def hold_the_gil(path: str) -> None:
    """Write the process id to *path*, and stay in native code that never releases the GIL."""
    _write_pid(path, os.getpid())
    re.match(r"(a+)+$", "a" * 60 + "b")


def start_and_hold(path: str) -> None:
    """Start a process, write its id to *path*, and do not return."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    _write_pid(path, process.pid)
    process.wait()


def close_socket_and_hold(path: str) -> None:
    """Write the process id to *path*, close the socket to the engine, and do not return."""
    _write_pid(path, os.getpid())
    os.close(3)
    while True:
        time.sleep(60)


def write_to_socket(text: bytes) -> None:
    """Write *text* to the socket to the engine, and do not return."""
    os.write(3, text)
    while True:
        time.sleep(60)


def spill() -> str:
    """Do as Polars does when it moves data out of memory; return the folder."""
    folder = Path(os.environ["POLARS_OOC_SPILL_DIR"])
    own = folder / str(os.getpid())
    own.mkdir(parents=True)
    (own / "spill-1.ipc").write_bytes(b"data")
    return str(folder)


def flags() -> tuple[object, ...]:
    """Return how the interpreter was started."""
    return tuple(sys.flags), sorted(sys._xoptions.items()), sys.warnoptions


def import_path() -> list[str]:
    """Return where modules are looked for."""
    return sys.path


def variables() -> list[str]:
    """Return the names of greendata's environment variables."""
    return [name for name in os.environ if name.startswith("GREENDATA_")]


def _write_pid(path: str, pid: int) -> None:
    part = Path(f"{path}.part")
    part.write_text(str(pid))
    part.rename(path)


def serve_many(sock: _socket.socket, how: str = "ready") -> None:
    """Answer requests as the driver of a cluster does."""
    if how == "never ready":
        time.sleep(600)
    if how == "refused":
        send(sock, (FAILED, 0, packed_error(PermissionError("not you"))))
        return
    send(sock, (DONE, 0, None))
    while True:
        (word, number, *arguments), files = receive(sock, is_one_of_many=True)
        if word == "cancel":
            send(sock, (CANCELLED, number, None))
        elif arguments[0] in ("echo", "file"):
            send(sock, (FRAME, number, arguments[1] if len(arguments) > 1 else None), files)
            close_all(files)
            send(sock, (DONE, number, None))
        elif arguments[0] == "garbage":
            sock.send(b"garbage")
        elif arguments[0] == "exit":
            os._exit(3)
