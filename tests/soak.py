"""``make soak``: all kinds of jobs from three hubs and three plain threads, for ten minutes or as long as it is told.

It ends with a summary. The exit code is 1 if a result was not settled exactly once and as its job demands, or if
memory, descriptors, threads or the collector are not as before.
"""

from __future__ import annotations

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import gc
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import polars as pl
from gevent.server import StreamServer
from greenlet import getcurrent

import greendata
from greendata.errors import DeadlineExceeded, JobAborted, JobCancelled
from greendata.hub import native
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.query.patching.fork_guard import POLARS_THREADS
from tests.support.gates import rest

SECONDS = 600.0  # without an argument
GREENLETS = 6  # for each hub
# What may be kept in the end: MiB of the allocator's and Polars', and threads of Polars' that have a worker's name, as
# nobody named them.
ALLOWED = {"memory": 64, "threads": 2}
NOT_OURS = (
    *POLARS_THREADS,
    "jemalloc",
    "greendata-watch",
)  # threads that Polars starts when it likes; a watch goes in a second
GUARD = 60.0  # seconds for any single result

POLARS = pl.LazyFrame({"a": range(1000)}).select(pl.col("a").sum())


@dataclass(frozen=True)
class Refused(Exception):
    """Refuses attributes."""

    code: int = 7


class Limit(Exception):
    """What the signal handler raises."""


def fail(kind: type[BaseException]) -> None:
    raise kind


def echo(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"hello")
        return connection.recv(5)


def kinds(port: int) -> dict[str, tuple[Callable[[], Any], tuple[Any, ...]]]:
    """How each kind is submitted, and what its outcomes may be: values, or types of errors."""
    late = (None, DeadlineExceeded)
    return {
        "value": (lambda: greendata.run(int, "3", key=random.randrange(5)), (3,)),
        "query": (lambda: greendata.collect(POLARS), (499_500,)),
        "frozen": (lambda: greendata.run(fail, Refused), (Refused,)),
        "error": (lambda: greendata.run(fail, ValueError), (ValueError,)),
        "exit": (lambda: greendata.run(fail, SystemExit), (JobAborted,)),
        "sleep": (lambda: greendata.run(gevent.sleep, 0.001), (None,)),
        "socket": (lambda: greendata.run(echo, port), (b"hello",)),
        "nested": (lambda: greendata.run(lambda: greendata.run(int, "3").get()), (3,)),
        "timeout": (lambda: greendata.run(native.sleep, 0.002, timeout=0.001), late),
        "cancel": (lambda: cancelled(greendata.run(native.sleep, 0.001)), (None, JobCancelled)),
    }


def cancelled(result: Any) -> Any:
    result.cancel()
    return result


class Soak:
    """The members at work, and what they have found."""

    def __init__(self, seconds: float, port: int) -> None:
        self.ends = monotonic() + seconds
        self.kinds = kinds(port)
        self.settled: Counter[str] = Counter()  # a summary: members add when they are done
        self.wrong: list[str] = []  # any thread appends
        self.left: list[object] = []  # one for each member that is not done; members pop

    def member(self) -> None:
        counts: Counter[str] = Counter()
        try:
            while monotonic() < self.ends and not self.wrong:
                name = random.choice(list(self.kinds))
                self.one(name)
                counts[name] += 1
        except BaseException as error:  # noqa: BLE001 - a soak tells of all that goes wrong
            self.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            self.settled.update(counts)
            self.left.pop()

    def one(self, name: str) -> None:
        submit, allowed = self.kinds[name]
        told: list[object] = []
        result = submit()
        has_hub = get_hub_if_exists() is not None
        if has_hub:
            result.rawlink(told.append)
        try:
            outcome = result.get(timeout=GUARD)
            outcome = outcome.item() if isinstance(outcome, pl.DataFrame) else outcome
        except Exception as error:  # noqa: BLE001 - it is judged here
            outcome = type(error)
        if outcome not in allowed:
            self.wrong.append(f"{name}: {outcome!r} from {result!r}")
        if has_hub:
            gevent.sleep(0)
            if len(told) != 1:
                self.wrong.append(f"{name} was told {len(told)} times")

    def interrupted(self) -> None:
        """Submits that a signal handler interrupts at any step, in the main thread."""
        target, hits, is_armed = getcurrent(), 0, False

        def on_alarm(*_: object) -> None:  # Python calls it when it likes, also after the timer was taken back
            if is_armed and getcurrent() is target:
                raise Limit

        before = signal.signal(signal.SIGALRM, on_alarm)
        try:
            while monotonic() < self.ends and not self.wrong:
                try:
                    is_armed = True
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-6, 2e-4))
                    for _ in range(20):
                        greendata.run(int)
                    is_armed = False
                except Limit:
                    hits += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
                greendata.run(int).get(timeout=GUARD)
                gevent.sleep(0.01)
        except BaseException as error:  # noqa: BLE001 - as above
            self.wrong.append(f"signals: {type(error).__name__}: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self.settled["signals"] += hits
            self.left.pop()

    def configure(self) -> None:
        while monotonic() < self.ends and not self.wrong:
            greendata.configure(max_workers=random.choice((1, 2, 4, 8)), stuck_after=random.choice((5.0, 600.0)))
            native.sleep(0.05)
        self.left.pop()

    def run(self) -> None:
        members = 3 * GREENLETS + 3 + 2
        self.left = [object()] * members
        callers = [greendata.Caller.new(f"soak-{number}") for number in range(2)]
        for caller in callers:
            for _ in range(GREENLETS):
                caller.call_soon(self.member)
        for _ in range(3):
            native.start_thread(self.member, ())
        native.start_thread(self.configure, ())
        for work in [self.member] * GREENLETS + [self.interrupted]:
            gevent.spawn(work)
        while self.left and monotonic() < self.ends + GUARD:
            gevent.sleep(0.1)
        if self.left:
            self.wrong.append(f"{len(self.left)} of {members} members stand still: {greendata.stats()}")
        for caller in callers:
            caller.stop().get(timeout=GUARD)


def vitals() -> dict[str, float]:
    """The process at rest, with one worker that has a hub."""
    greendata.configure(max_workers=1, stuck_after=600.0)
    greendata.run(gevent.sleep, 0).get(timeout=GUARD)
    ends = monotonic() + GUARD
    while (now := greendata.stats()).workers != 1 or now.running or now.queued or now.lost:
        if monotonic() > ends:
            break
        rest()
    for _ in range(100):  # threads and descriptors go a moment after that
        gc.collect()
        rest(0.01)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "memory": int(status["VmRSS"].split()[0]) / 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len([name for name in native.thread_names().values() if not name.startswith(NOT_OURS)]),
        "collector": gc.isenabled(),
        "expected": HubWaker.here(gevent.get_hub()).expected,
        "faults": greendata.stats().faults,
    }


def main(seconds: float) -> int:
    gevent.get_hub()
    server = StreamServer(("127.0.0.1", 0), lambda connection, _: connection.sendall(connection.recv(5)))
    server.start()
    warm = Soak(min(seconds / 4, 5.0), server.server_port)
    warm.run()
    before = vitals()
    soak = Soak(seconds, server.server_port)
    soak.run()
    after = vitals()
    wrong = warm.wrong + soak.wrong
    for name, value in after.items():
        if value > before[name] + ALLOWED.get(name, 0) or (name == "collector" and not value):
            wrong.append(f"{name}: {before[name]:g} before, {value:g} after")
    print(f"{sum(soak.settled.values())} results in {seconds:g} seconds: {dict(soak.settled)}")
    print(f"threads {sorted(native.thread_names().values())}")
    print(f"before {before}\nafter  {after}\n{greendata.stats()}")
    print("\n".join(wrong) or "all as it should be")
    server.stop()
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
