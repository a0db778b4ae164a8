"""One snapshot a second: shared by all viewers, none without them; and viewers that leave, in a real gunicorn."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import monotonic

import gevent
import pytest

from greendata import observe
from greendata.internals.gevent import get_hub_if_exists
from greendata.observe.client import fetch
from greendata.web.dashboard import feed as feeds
from greendata.web.dashboard.feed import Feed
from tests.conftest import run_python
from tests.support.gates import rest
from tests.support.natives import in_a_plain_thread
from tests.support.servers import Server

LONG = 3600.0  # seconds, longer than any test


def never() -> bool:
    return False


def test_requests_within_a_second_get_the_same_bytes() -> None:
    feed = Feed(LONG)
    states = {feed.state() for _ in range(100)}
    snapshots = {feed.snapshot() for _ in range(100)}
    assert (len(states), len(snapshots), feed.made) == (1, 1, 1)


def test_viewers_share_the_snapshots() -> None:
    feed = Feed(LONG)
    streams = [feed.follow(never) for _ in range(10)]
    firsts = {b"".join(islice(stream, 2)) for stream in streams}
    assert len(firsts) == 1
    waiting = [gevent.spawn(next, stream) for stream in streams]  # for a very long second
    rest()
    assert not any(greenlet.ready() for greenlet in waiting)
    assert (feed.viewers, feed.made) == (10, 1)
    gevent.killall(waiting)
    assert feed.viewers == 0


def test_many_viewers_cost_one_snapshot_an_interval() -> None:
    feed = Feed(0.02)
    began = monotonic()
    watching = [gevent.spawn(lambda: list(islice(feed.follow(never), 11))) for _ in range(20)]
    gevent.joinall(watching, raise_error=True)
    seconds = monotonic() - began
    assert feed.made <= 1 + seconds / feed.interval
    assert all(len(greenlet.value) == 11 for greenlet in watching)  # the first line, and ten events
    assert feed.viewers == 0


def test_without_viewers_there_are_no_snapshots() -> None:
    feed = Feed(0.001)
    with closing(feed.follow(never)) as stream:
        list(islice(stream, 5))
    made = feed.made
    rest(0.02)
    assert (feed.made, feed.viewers) == (made, 0)


def test_a_stream_that_is_not_read_is_not_a_viewer() -> None:
    feed = Feed(LONG)
    stream = feed.follow(never)
    stream.close()
    assert (feed.viewers, feed.made) == (0, 0)


def test_a_stream_ends_when_the_server_does() -> None:
    feed = Feed(0.001)
    over: list[bool] = []
    stream = feed.follow(lambda: bool(over))
    assert len(list(islice(stream, 3))) == 3
    over.append(True)
    assert list(stream) == []
    assert feed.viewers == 0


def test_a_stream_ends_so_that_its_viewer_is_authorized_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "STREAM", 0.0)
    assert list(Feed().follow(never)) == [b"retry: 500\n\n"]


def test_in_a_plain_thread_it_makes_no_hub() -> None:
    def watch() -> tuple[int, object]:
        return len(list(islice(Feed(0.001).follow(never), 4))), get_hub_if_exists()

    assert in_a_plain_thread(watch) == (4, None)


def test_a_forked_child_starts_with_an_empty_feed() -> None:
    program = """
        import os
        from greendata.web.dashboard.feed import Feed
        feed = Feed(3600.0)
        stream = feed.follow(lambda: False)
        next(stream), next(stream)
        feed._lock.acquire()
        child = os.fork()
        if child == 0:
            feed.state()
            print(feed.viewers, feed.made, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """
    assert run_python(program).stdout == "0 1\n"


def test_seconds_of_the_past_are_rows() -> None:
    observer = observe.start()
    try:
        while not observer.history():
            rest()
        [row] = json.loads(Feed().state())["history"][-1:]
        age, lag, queued, running = row
        assert 0.0 <= age < 60.0
        assert lag == round(observer.history()[-1].lag * 1_000, 1)
        assert (queued, running) == (0, 0)
    finally:
        observe.stop()


# -- in a server ------------------------------------------------------------------------------------------------

SERVICE = """
from flask import Flask, request
from greendata.web.dashboard import feed, pages
from greendata.web.flask import GreenData

app = Flask("service")
app.config["GREENDATA_DASHBOARD"] = True
GreenData(app, dashboard_auth=lambda: request.authorization is not None and request.authorization.password == "open")
"""

# Pictures that are large and many, so that what the kernel buffers for a viewer is soon full.
HURRIED = """
import greendata
from greendata import observe

feed.shared.interval, pages.STALLED = 0.001, 0.2
observe.start(keep_texts=True)

def fail():
    raise ValueError("x" * 500)

@app.get("/fail")
def failing():
    for _ in range(10):
        greendata.run(fail).wait()
    return ""
"""
REQUEST = b"GET /greendata/events HTTP/1.1\r\nHost: x\r\nAuthorization: Basic eDpvcGVu\r\n\r\n"


def states(connection: socket.socket) -> Iterator[dict[str, int]]:
    """Yield the events of a viewer, which are the chunks of the transfer."""
    with connection.makefile("rb") as lines:
        for line in lines:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    worker, service = request.param
    started = Server(tmp_path, service, ["-k", worker, "--graceful-timeout", "20"], {})
    yield started
    started.terminate()
    assert started.wait_end() == 0


green = pytest.mark.parametrize("server", [("greendata.web.gunicorn.GreenWorker", SERVICE)], indirect=True, ids=[""])


@green
def test_viewers_that_leave_are_noticed(server: Server) -> None:
    with server.connected(REQUEST) as stays:
        seen = states(stays)
        with server.connected(REQUEST), server.connected(REQUEST):
            while next(seen)["viewers"] < 3:
                pass
        while next(seen)["viewers"] > 1:
            pass


@green
def test_top_reads_the_snapshot(server: Server) -> None:
    server.ask("/")  # the server is up, so viewers do not wait long
    assert fetch(f"http://x:open@127.0.0.1:{server.port}")["jobs"] == []


@green
def test_a_server_that_is_to_end_does_not_wait_for_viewers(server: Server) -> None:
    with server.connected(REQUEST) as viewer:
        seen = states(viewer)
        next(seen)
        server.terminate()
        assert len(list(seen)) < 20  # it ends
    assert server.wait_end() == 0
    assert "graceful timeout" not in server.read_log()


@pytest.mark.parametrize("server", [("gevent", SERVICE + HURRIED)], indirect=True, ids=[""])
def test_a_viewer_that_does_not_read_loses_its_place(server: Server) -> None:
    server.ask("/fail")
    with server.connected(REQUEST) as reads, socket.socket() as stalled:
        seen = states(reads)
        next(seen)  # it watches before the other connects, and so sees it, however soon that one is dropped
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", server.port))
        stalled.sendall(REQUEST)
        while next(seen)["viewers"] < 2:
            pass
        while next(seen)["viewers"] > 1:
            pass
