"""Faults around a server: it is killed, or clients send nothing, read nothing, or disconnect all at once."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import polars as pl
import pytest

from tests.support.servers import GUARD
from tests.support.service import Service, forget_peak, get, serving, vitals

pytestmark = pytest.mark.once("unpatched")  # each test starts a process

WORKERS, QUEUE = 2, 50
MANY = 40  # clients
LONG, GROUP = 4_000_000, 20_000  # rows of a long response (110 MB, as text 170 MB) and of a batch
READERS = 3  # slow readers
FEW_BATCHES = 150  # MiB that all slow readers together may use, allocator overhead included; less than one response

Serve = Callable[..., AbstractContextManager[Service]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    return partial(serving, tmp_path, workers=WORKERS, queue=QUEUE)


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file with many rows in many groups."""
    path = tmp_path_factory.mktemp("long") / "rows.parquet"
    numbers = pl.int_range(LONG, eager=True)
    pl.DataFrame({"id": numbers, "text": numbers.hash().cast(pl.String)}).write_parquet(path, row_group_size=GROUP)
    return path


def test_a_killed_server_worker_fails_its_own_requests_only(serve: Serve) -> None:
    with serve() as service, ExitStack() as stack:
        answers = [stack.enter_context(service.server.asked("/held")) for _ in range(MANY)]
        service.wait(arrived=WORKERS, queued=MANY - WORKERS)
        os.kill(service.pid, signal.SIGKILL)
        for answer in answers:
            with pytest.raises((HTTPException, ConnectionError)):
                answer()
        assert service.ask("/report").startswith("[")
        now = service.state()
        assert now["pid"] != service.pid
        assert (now["running"], now["queued"]) == (0, 0)


def silent(_number: int) -> bytes:
    return b""


def half_a_head(number: int) -> bytes:
    return get("/report")[: 10 + number]


def half_a_body(_number: int) -> bytes:
    head = b"POST /rows HTTP/1.1\r\nHost: here\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n"
    return head + b'{"a": 1}\n{"a'


@pytest.mark.parametrize("said", [silent, half_a_head, half_a_body])
def test_incomplete_requests_occupy_no_worker_and_leave_nothing(serve: Serve, said: Callable[[int], bytes]) -> None:
    with serve() as service:
        service.ask("/report")
        before = service.vitals().descriptors
        with ExitStack() as stack:
            for number in range(MANY):
                stack.enter_context(service.server.connected(said(number)))
            service.wait_descriptors(before + MANY)
            service.wait_steady()  # sends requests to the server
            assert service.ask("/report").startswith("[")
        service.wait_descriptors(before)
        assert service.state()["pid"] == service.pid
        assert "Traceback" not in service.server.read_log()


def test_slow_readers_occupy_no_worker_and_little_memory(serve: Serve, long_file: Path) -> None:
    with serve() as service, ExitStack() as stack:
        service.ask("/report")
        before = service.vitals()
        forget_peak(service.pid)
        readers = [stack.enter_context(reader(service, f"/long?path={long_file}")) for _ in range(READERS)]
        assert [answer.status for answer in readers] == [200] * READERS
        service.wait_steady()
        assert service.ask("/report").startswith("[")
        assert vitals(service.pid).peak < before.memory + FEW_BATCHES

        assert rows_of(readers.pop()) == LONG
        assert vitals(service.pid).peak < before.memory + FEW_BATCHES
        stack.close()
        service.wait(running=0, queued=0)
        service.wait_descriptors(before.descriptors)


def test_jobs_of_clients_that_disconnect_are_cancelled(serve: Serve) -> None:
    with serve() as service:
        before = service.vitals().descriptors
        with ExitStack() as stack:
            for _ in range(MANY):
                stack.enter_context(service.server.connected(get("/held")))
            service.wait(arrived=WORKERS, queued=MANY - WORKERS)
        service.wait(cancelled=MANY - WORKERS, queued=0, abandoned=WORKERS)
        outcomes = service.state()["outcomes"]
        assert len(outcomes) == MANY
        assert all(text.startswith("JobCancelled: held was cancelled") for text in outcomes)
        assert all(text.endswith("the client left") for text in outcomes)

        assert service.ask("/open") == "open"
        service.wait(cancelled=MANY, running=0, abandoned=0)
        service.wait_descriptors(before)
        assert service.ask("/held") == "1"


@contextmanager
def reader(service: Service, path: str) -> Iterator[HTTPResponse]:
    """Yield a response whose head was read. The receive buffer is small."""
    with socket.socket() as connection, closing(HTTPConnection("127.0.0.1")) as client:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        connection.settimeout(GUARD)
        connection.connect(("127.0.0.1", service.server.port))
        client.sock = connection
        client.request("GET", path)
        yield client.getresponse()


def rows_of(answer: HTTPResponse) -> int:
    """Return the number of lines of a streamed response, which must be complete."""
    count = 0
    while piece := answer.read(1 << 20):
        count += piece.count(b"\n")
    return count
