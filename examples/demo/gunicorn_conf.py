"""The gunicorn settings of the demo, and its measurement of a worker's hub from outside the app.

A greenlet sleeps a millisecond at a time and notes how late it wakes. gunicorn runs this file by its path, in the
arbiter, before gevent patches anything: it imports the standard library and gevent alone.
"""

__all__ = ("post_worker_init",)

import os
import signal
import time
from collections.abc import Iterable

import gevent

control_socket_disable = True  # it would leave a socket in the user's home folder
graceful_timeout = 5
loglevel = "warning"

TICK = 0.001  # seconds
BUCKET = 0.01  # seconds; only the longest silence of each is kept
FLUSH = 0.25  # seconds between two writes of the file


def post_worker_init(worker: object) -> None:
    """Start the measurement in the worker, after patching and loading the app, before it serves."""
    if os.environ.get("GREENDATA_AUTOPATCH") == "1":
        from greendata.monkey import is_polars_patched

        if not is_polars_patched():
            raise RuntimeError("GREENDATA_AUTOPATCH=1 has not patched Polars: is greendata's entry point installed?")
    path = os.environ.get("DEMO_HUB_WATCH")
    if path:
        gevent.spawn(watch, path, int(os.environ["DEMO_OWNER"]))


def watch(path: str, owner: int) -> None:
    """Append `due woke` to the file at `path`, a line for each bucket of time, for as long as `owner` lives."""
    with open(path, "a", encoding="ascii") as lines:
        while alive(owner):
            for due, woke in longest_silences(FLUSH):
                lines.write(f"{due:.6f} {woke:.6f}\n")
            lines.flush()
    os.kill(os.getppid(), signal.SIGTERM)  # no other process is left to stop the arbiter


def longest_silences(seconds: float) -> Iterable[tuple[float, float]]:
    """Yield the longest silence of each bucket of time, for `seconds`."""
    longest: dict[float, tuple[float, float]] = {}
    end = time.monotonic() + seconds
    woke = 0.0
    while woke < end:
        due = time.monotonic() + TICK
        gevent.sleep(TICK)
        woke = time.monotonic()
        bucket = woke // BUCKET
        if bucket not in longest or woke - due > longest[bucket][1] - longest[bucket][0]:
            longest[bucket] = (min(due, woke), woke)
    return longest.values()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs as another user
        return True
    return True
