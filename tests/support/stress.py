"""Stress tests of objects that gevent has patched: jobs, greenlets of two hubs and plain threads share them.

``python -m tests.support.stress Lock ""`` patches its process, makes greendata share, and lets many workers use a lock,
while the interpreter switches threads as often as it can. It prints how many workers finished. If one waits forever,
the process ends with a dump of all threads.
"""

from __future__ import annotations

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import concurrent.futures
import logging
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import gevent
import requests
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

import greendata
from greendata.hub import native

__all__ = ("SCENARIOS",)

JOBS, GREENLETS, ON_ANOTHER_HUB, PLAIN = 5, 4, 3, 2
WORKERS = JOBS + GREENLETS + ON_ANOTHER_HUB + PLAIN
ROUNDS = 200


_finished: list[str] = []  # what has finished: the scenario, then the hub of the other thread


def run_in_many_workers(work: Callable[[], object]) -> int:
    """Let all workers do *work* at once, and return how many finished. The hub of the caller runs meanwhile."""
    done: list[object] = []

    def worker() -> None:
        work()
        done.append(None)

    def another_hub() -> None:
        for _ in range(ON_ANOTHER_HUB):
            gevent.spawn(worker)
        while not _finished:  # threads that its greenlets started are its greenlets, and others may wait for them
            gevent.sleep(0.01)
        gevent.get_hub().destroy(destroy_loop=True)  # a loop that runs while the interpreter ends can crash it
        _finished.append("the hub")

    for start in [another_hub] + [worker] * PLAIN:
        native.start_thread(start, ())
    waits = [greendata.run(worker) for _ in range(JOBS)] + [gevent.spawn(worker) for _ in range(GREENLETS)]
    for wait in waits:
        wait.get()
    while len(done) < WORKERS:
        gevent.sleep(0.001)
    return len(done)


def exclusion(lock: Any) -> None:
    """Count under *lock*, with a switch between reading and writing."""
    total = [0]

    def count() -> None:
        for number in range(ROUNDS):
            with lock:
                before = total[0]
                if number % 7 == 0:
                    time.sleep(0)
                total[0] = before + 1

    workers = run_in_many_workers(count)
    assert total[0] == workers * ROUNDS


def passing_on(items: Any) -> None:
    """Put and get equally often; each item is received exactly once."""
    got: list[int] = []

    def both() -> None:
        for number in range(ROUNDS):
            items.put(number)
            got.append(items.get())

    workers = run_in_many_workers(both)
    assert sorted(got) == sorted(list(range(ROUNDS)) * workers)


def impatience() -> None:
    """Acquire with timeouts that pass while others hold the lock, and are killed or timed out while they wait."""
    lock = threading.Lock()

    def acquire() -> None:
        for number in range(ROUNDS):
            if lock.acquire(timeout=number % 3 * 0.0003):
                if number % 5 == 0:
                    time.sleep(0.0002)
                lock.release()

    def be_killed() -> None:
        while True:
            with gevent.Timeout(0.0005, False), lock:
                gevent.sleep(0)

    victims = [gevent.spawn(be_killed) for _ in range(5)]
    run_in_many_workers(acquire)
    gevent.killall(victims)
    assert lock.acquire(timeout=20)  # no killed worker still holds it
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(timeout=0.001)


def condition() -> None:
    """Meet at a barrier: all wait for the last one."""
    meeting = threading.Barrier(WORKERS)
    run_in_many_workers(lambda: [meeting.wait() for _ in range(ROUNDS // 10)])


def event() -> None:
    """Wait for events that are set by other workers."""
    events = [threading.Event() for _ in range(ROUNDS // 4)]
    numbers = iter(range(10**6))

    def wait_or_set() -> None:
        mine = next(numbers)
        for number, each in enumerate(events):
            if number % WORKERS == mine:
                each.set()
            assert each.wait()

    run_in_many_workers(wait_or_set)


def executor() -> None:
    """Share one executor, and make separate executors."""
    with concurrent.futures.ThreadPoolExecutor(3) as shared:

        def submit() -> None:
            assert [future.result() for future in [shared.submit(int, n) for n in range(20)]] == list(range(20))
            with concurrent.futures.ThreadPoolExecutor(2) as own:
                assert list(own.map(str, range(5))) == list("01234")

        run_in_many_workers(submit)


def thread() -> None:
    """Start and join threads, from greenlets and from native threads."""

    def start() -> None:
        for _ in range(ROUNDS // 20):
            threads = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(3)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
                assert not each.is_alive()

    run_in_many_workers(start)
    slow = greendata.run(lambda: started(threading.Thread(target=time.sleep, args=(0.05,)))).get()
    slow.join()
    assert not slow.is_alive()


def started(each: threading.Thread) -> threading.Thread:
    each.start()
    return each


def log() -> None:
    """Log through one handler."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: (time.sleep(0), lines.append(record.getMessage()))[1]  # type: ignore[method-assign]
    logger = logging.getLogger("stress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def write() -> None:
        for number in range(ROUNDS):
            logger.info("line %d", number)

    workers = run_in_many_workers(write)
    assert len(lines) == workers * ROUNDS


def connections() -> None:
    """Pass connections between greenlets, jobs and threads."""

    def echo(client: Any, _address: object) -> None:
        while data := client.recv(100):
            gevent.sleep(0)
            client.sendall(data)

    server = StreamServer(("127.0.0.1", 0), echo)
    server.start()
    idle: Any = queue.Queue()

    def talk() -> None:
        for number in range(ROUNDS // 4):
            if number % 10 == 0:
                idle.put(socket.create_connection(("localhost", server.server_port), timeout=20))
            connection = idle.get()
            connection.sendall(b"%d" % number)
            assert connection.recv(100) == b"%d" % number
            if number % 10 == 9:
                connection.close()
            else:
                idle.put(connection)

    run_in_many_workers(talk)
    server.stop()


def session() -> None:
    """Share one session of requests."""

    def answer(_environ: object, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    server = WSGIServer(("127.0.0.1", 0), answer, log=None)
    server.start()
    shared = requests.Session()

    def ask() -> None:
        for _ in range(ROUNDS // 20):
            assert shared.get(f"http://127.0.0.1:{server.server_port}/", timeout=20).text == "hello"

    run_in_many_workers(ask)
    shared.close()
    server.stop()


SCENARIOS: dict[str, Callable[[], object]] = {
    "Lock": lambda: exclusion(threading.Lock()),
    "RLock": lambda: exclusion(threading.RLock()),
    "Semaphore": lambda: exclusion(threading.BoundedSemaphore(1)),
    "Condition": condition,
    "Event": event,
    "Queue": lambda: passing_on(queue.Queue(WORKERS)),
    "PriorityQueue": lambda: passing_on(queue.PriorityQueue()),
    "SimpleQueue": lambda: passing_on(queue.SimpleQueue()),
    "timeouts and kills": impatience,
    "executors": executor,
    "threads": thread,
    "logging": log,
    "connections": connections,
    "requests.Session": session,
}


def main(scenario: str, has_hubs: str) -> None:
    """Run one scenario; with *has_hubs* every worker has a hub from an earlier job."""
    greendata.configure(max_workers=JOBS)
    meeting = threading.Barrier(JOBS)
    first = [greendata.run(lambda: (has_hubs and gevent.sleep(0), meeting.wait())) for _ in range(JOBS)]
    for each in first:
        each.get()
    sys.setswitchinterval(1e-6)
    SCENARIOS[scenario]()
    _finished.append("the scenario")
    while len(_finished) < 2:
        gevent.sleep(0.001)
    print("all")


if __name__ == "__main__":
    gevent.spawn(main, *sys.argv[1:]).get()
