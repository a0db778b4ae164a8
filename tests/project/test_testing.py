"""`greendata.testing.Site`: what it answers, what goes wrong when it is asked to, and what it records of a client."""

from __future__ import annotations

import _socket
import gzip
import http.client
import pickle
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import gevent
import pytest

import greendata
from greendata import testing
from greendata.errors import BadArgument, BadChoice
from greendata.hub import native
from greendata.testing import Reply, Request, Site
from tests.conftest import PATCHED
from tests.support.natives import until


def ask(site: Site, *paths: str, host: int = 0, method: str = "GET", **headers: str) -> list[tuple[int, bytes]]:
    """Ask for each path in turn over one connection, from here if gevent has patched the sockets, else in the pool."""

    def work() -> list[tuple[int, bytes]]:
        with connected(site, host) as connection:
            return [answer(connection, path, method, headers) for path in paths]

    return work() if PATCHED else greendata.run(work).get()


@contextmanager
def connected(site: Site, host: int = 0) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(site.hosts[host], site.port)
    try:
        yield connection
    finally:
        connection.close()


def answer(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in (headers or {}).items()})
    response = connection.getresponse()
    return response.status, response.read()


def raw(site: Site, path: str = "/", *, most: int = 1 << 20) -> bytes:
    """Return what the site sends until it ends the connection, or the first *most* bytes, or more."""

    def work() -> bytes:
        with native_socket() as stream:
            stream.connect((site.hosts[0], site.port))
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = b""
            while len(received) < most and (piece := stream.recv(1 << 16)):
                received += piece
            return received

    return greendata.run(work).get()


@contextmanager
def native_socket() -> Iterator[Any]:
    """A socket that gevent has not patched: only in the pool may it wait."""
    stream = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        yield stream
    finally:
        stream.close()


# -- pages ------------------------------------------------------------------------------------------------


def test_pages_by_path_query_and_address() -> None:
    pages = {"/": "start", "/a": b"\xff", "/a?page=2": "two", "127.0.0.2/a": "other", "/gone": 410, "/none": None}
    with Site(pages, hosts=2) as site:
        assert ask(site, "/", "/a", "/a?page=2", "/a?page=3", "/gone", "/none", "/unknown") == [
            (200, b"start"),
            (200, b"\xff"),
            (200, b"two"),
            (200, b"\xff"),
            (410, b""),
            (404, b"<h1>not found</h1>"),
            (404, b"<h1>not found</h1>"),
        ]
        assert ask(site, "/a", "/", host=1) == [(200, b"other"), (200, b"start")]


def test_pages_from_a_function_and_in_turn() -> None:
    turns = [Reply(status=503, headers={"Retry-After": "1"}), "now", lambda request: request.query]
    with Site(lambda request: turns if request.path == "/turns" else None) as site:
        asked = ask(site, "/turns", "/turns?1", "/turns?2", "/turns?3", "/other")
    assert asked[:4] == [(503, b""), (200, b"now"), (200, b"2"), (200, b"3")]
    assert asked[4][0] == 404


def test_robots_are_those_of_every_host() -> None:
    with Site({"/": "x"}, robots="User-agent: *\nDisallow: /private", hosts=2) as site:
        assert [ask(site, "/robots.txt", host=number)[0][1][:13] for number in (0, 1)] == [b"User-agent: *"] * 2
        assert b"Content-Type: text/plain" in raw(site, "/robots.txt", most=1)
    with Site(robots=503) as site:
        assert ask(site, "/robots.txt") == [(503, b"")]


def test_an_unchanged_page_is_a_304() -> None:
    pages = {
        "/tag": Reply(body="text", etag='"1"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT"),
        "/date": Reply(body="text", last_modified="Mon, 01 Jan 2024 00:00:00 GMT"),
    }
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    with Site(pages) as site:
        assert ask(site, "/tag", "/date") == [(200, b"text")] * 2
        assert ask(site, "/tag", If_None_Match='"1"') == [(304, b"")]
        assert ask(site, "/tag", If_None_Match='"2"', If_Modified_Since=date) == [(200, b"text")]
        assert ask(site, "/tag", "/date", If_Modified_Since=date) == [(304, b"")] * 2
        assert ask(site, "/date", If_None_Match='"1"') == [(200, b"text")]


def test_a_head_and_a_post() -> None:
    body = b"x" * 200_000

    def post(site: Site) -> bytes:
        with connected(site) as connection:
            connection.request("POST", "/", body=body)
            return connection.getresponse().read()

    with Site(lambda request: request.body or "page") as site:
        assert ask(site, "/", "/", method="HEAD") == [(200, b"")] * 2
        assert (post(site) if PATCHED else greendata.run(post, site).get()) == body
        assert [request.method for request in site.requests] == ["HEAD", "HEAD", "POST"]


def test_sitemaps_redirects_and_bombs() -> None:
    assert Reply.sitemap(["http://x/a?b=1&c=2"]).body.count("&amp;") == 1  # type: ignore[arg-type]
    assert "<sitemapindex" in str(Reply.sitemap([], index=True).body)
    assert (Reply.redirect("/b", 308).status, Reply.redirect("/b").headers) == (308, {"Location": "/b"})
    assert zlib.decompress(Reply.bomb(1 << 20).body, wbits=31) == bytes(1 << 20)  # type: ignore[arg-type]
    assert gzip.decompress(Reply.bomb(100_001).body) == bytes(100_001)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Site({"a": "x"}), BadArgument, r"pages\['a'\] must be a page by its path"),
        (lambda: Site({"/": 1.5}), BadArgument, r"pages\['/'\] must be a page"),  # type: ignore[dict-item]
        (lambda: Site({1: "x"}), BadArgument, r"pages\[1\] must be a page by its path"),  # type: ignore[dict-item]
        (lambda: Site(["x"]), BadArgument, "pages must be a dict of pages"),  # type: ignore[arg-type]
        (lambda: Site({"/": []}), BadArgument, r"pages\['/'\] must be a page"),
        (lambda: Site(hosts=0), BadArgument, "hosts must be a whole number from 1"),
        (lambda: Site(delay=-1), BadArgument, "delay must be a number of seconds >= 0, got -1"),
        (lambda: Reply(body=None), BadArgument, "body must be text or bytes, got None"),  # type: ignore[arg-type]
        (lambda: Reply(status=20), BadArgument, "status must be a whole number from 200 to 999, got 20"),
        (lambda: Reply(pause=-1), BadArgument, "pause must be a number of seconds >= 0, got -1"),
        (lambda: Reply(fault="no"), BadChoice, "fault must be 'bad chunk'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_a_host_that_the_site_does_not_have_is_an_error_and_no_count_of_nothing() -> None:
    with Site(hosts=2) as site:
        assert site.url("/a", host="127.0.0.2") == f"http://127.0.0.2:{site.port}/a"
        with pytest.raises(BadArgument, match=r"host must be None or an address of the site, 127.0.0.1 to 127.0.0.2"):
            site.count("/a", host="localhost")
        for ask_for in (site.most_at_once, site.in_flight, site.connections, site.gaps):
            with pytest.raises(BadArgument, match="host must be"):
                ask_for("127.0.0.3")
        with pytest.raises(BadArgument, match="host must be"):
            site.hold(host="127.0.0.3")
        with pytest.raises(BadArgument, match="host must be"):
            site.url(host="127.0.0.3")
        with pytest.raises(BadArgument, match="path must be a path that begins with a slash, got 'a'"):
            site.url("a")


def test_what_a_function_raises_is_a_500_and_raised_by_the_block() -> None:
    def wrong(request: Request) -> Any:
        return 1.5 if request.path == "/type" else 1 // 0

    with pytest.raises(ZeroDivisionError), Site(wrong) as site:
        assert [status for status, _ in ask(site, "/", "/type")] == [500, 500]
    with pytest.raises(BadArgument, match="page must be text"), Site(wrong) as site:
        assert ask(site, "/type")[0][0] == 500


def test_a_page_that_cannot_be_sent_is_a_500_and_the_site_goes_on() -> None:
    with pytest.raises(UnicodeEncodeError), Site({"/": "\ud800", "/a": "a"}) as site:
        assert [status for status, _ in ask(site, "/", "/a")] == [500, 200]


@pytest.mark.parametrize("length", [b"abc", b"-5", b""])
def test_a_client_that_sends_nonsense_ends_no_site(length: bytes) -> None:
    with Site({"/": "x"}) as site:
        with socket.create_connection((site.hosts[0], site.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        assert ask(site, "/")[0][0] == 200


# -- faults -----------------------------------------------------------------------------------------------


def test_connections_that_end_without_an_answer() -> None:
    with Site({"/close": Reply(fault="close"), "/reset": Reply(fault="reset")}) as site:
        assert raw(site, "/close") == b""
        with pytest.raises(ConnectionResetError):
            raw(site, "/reset")
        with pytest.raises(ConnectionRefusedError):
            greendata.run(connect, site.refused_url).get()
        assert site.open_connections() == 0


def connect(url: str) -> None:
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    with native_socket() as stream:
        stream.connect((host, int(port)))


def test_answers_that_do_not_arrive_whole() -> None:
    faults: tuple[Any, ...] = ("short", "bad chunk", "garbage", "slow", "slow head", "stale")
    pages = {f"/{fault.replace(' ', '-')}": Reply(body="0123456789", fault=fault, pause=0.0) for fault in faults}
    with Site(pages, keep_alive=False) as site:
        assert raw(site, "/short").endswith(b"Content-Length: 10\r\nConnection: close\r\n\r\n01234")
        assert raw(site, "/bad-chunk").endswith(b"\r\n\r\n5\r\n01234\r\nno number\r\n")
        assert raw(site, "/garbage").startswith(b"\x00\xff no HTTP")
        for path in ("/slow", "/slow-head", "/stale"):
            assert raw(site, path).endswith(b"\r\n\r\n0123456789")
    with Site(pages) as site:
        assert b"Connection" not in raw(site, "/stale")
        assert site.open_connections() == 0


def test_a_reset_in_the_body() -> None:
    with Site({"/": Reply(body=b"x" * 100, fault="reset body")}) as site, pytest.raises(ConnectionResetError):
        raw(site)


@pytest.mark.parametrize("fault", ["endless", "endless head"])
def test_answers_that_never_end_go_on_until_the_client_leaves(fault: Any) -> None:
    with Site({"/": Reply(fault=fault)}) as site:
        assert len(raw(site, most=3 << 20)) >= 3 << 20
        site.wait_idle()
        assert site.open_connections() == 0


def test_a_silent_site_is_silent_until_its_end() -> None:
    with Site({"/": Reply(fault="silent")}) as site:
        asked = greendata.run(raw, site)
        site.wait_for(1)
        assert site.in_flight() == 1
        assert not asked.ready()
    assert asked.get() == b""


def test_every_fault_is_there() -> None:
    assert set(testing._FAULTY) | {"close", "reset", "stale"} == set(testing.FAULTS)


# -- records ----------------------------------------------------------------------------------------------


def test_connections_are_kept_and_counted() -> None:
    with Site({"/": "x"}, hosts=2) as site:
        ask(site, "/", "/", "/")
        ask(site, "/", host=1)
        assert [request.connection for request in site.requests] == [1, 1, 1, 2]
        assert (site.connections(), site.connections("127.0.0.1"), site.connections("127.0.0.2")) == (2, 1, 1)
        assert (site.count(host="127.0.0.1"), len(site.gaps("127.0.0.1")), site.gaps("127.0.0.2")) == (3, 2, [])
        assert all(gap >= 0 for gap in site.gaps())
    with Site({"/": "x"}, keep_alive=False) as site:
        ask(site, "/", "/")
        assert site.connections() == 2


def test_requests_at_once_are_counted_by_host() -> None:
    with Site({"/": "x"}, hosts=2) as site, site.hold() as hold:
        asked = [greendata.run(raw, site, most=1) for _ in range(2)]
        hold.wait(2)
        other = greendata.run(raw_of, site, 1)
        hold.wait(3)
        assert (site.in_flight(), site.in_flight("127.0.0.1"), hold.waiting) == (3, 2, 3)
        hold.open()
        assert b"200 OK" in asked[0].get() + asked[1].get() + other.get()
        site.wait_idle()
        assert (site.most_at_once(), site.most_at_once("127.0.0.1"), site.most_at_once("127.0.0.2")) == (3, 2, 1)
        assert sorted(request.at_once for request in site.asked(host="127.0.0.1")) == [1, 2]


def raw_of(site: Site, host: int) -> bytes:
    with native_socket() as stream:
        stream.connect((site.hosts[host], site.port))
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
        received: bytes = stream.recv(1 << 16)
        return received


def test_only_what_is_asked_for_is_held() -> None:
    with Site({"/a": "a", "/b": "b"}) as site:
        hold = site.hold("/a", host="127.0.0.1")
        assert b"200 OK" in raw(site, "/b", most=1)
        asked = greendata.run(raw, site, "/a", most=1)
        hold.wait()
        hold.open()
        assert b"200 OK" in asked.get()
        assert b"200 OK" in raw(site, "/a", most=1)


def test_a_client_that_leaves_is_no_longer_in_flight() -> None:
    with Site({"/": "x"}) as site, site.hold() as hold:
        with native_socket() as stream:
            stream.connect((site.hosts[0], site.port))
            stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
            hold.wait()
        site.wait_idle()
        assert site.in_flight() == 0
    assert site.most_at_once() == 1


def test_a_delay_occupies_nothing_and_delays_no_other_answer() -> None:
    with Site({"/late": Reply(body="x", delay=3600), "/": "y"}, delay=0.001) as site:
        late = greendata.run(raw, site, "/late")
        site.wait_for(1, "/late")
        assert b"200 OK" in raw(site, most=1)
        assert not late.ready()
    assert late.get() == b""


def test_waiting_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "GUARD", 0.0)
    site = Site()
    with pytest.raises(TimeoutError, match="0 of 1 requests came within 0 seconds"):
        site.wait_for(1)
    with pytest.raises(TimeoutError, match="0 requests of 2 waited within 0 seconds"):
        site.hold().wait(2)
    monkeypatch.undo()
    site.close()


# -- the end ----------------------------------------------------------------------------------------------


def test_nothing_is_left(keeps_descriptors: Callable[[], AbstractContextManager[None]]) -> None:
    def visit() -> None:
        with Site({"/": "x"}, hosts=3) as site:
            gevent.joinall([greendata.run(raw_of, site, number) for number in range(3)], raise_error=True)
        site.close()
        assert repr(site) == "<Site closed: 3 requests, 0 in flight>"

    visit()
    with keeps_descriptors():
        visit()
    until(lambda: "gd-site" not in native.thread_names().values())  # the thread ends a moment after its last line


def test_a_site_is_not_pickled() -> None:
    with Site() as site, pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(site)


def test_it_answers_while_the_hub_is_blocked() -> None:
    with Site({"/": "x"}) as site, native_socket() as stream:
        stream.connect((site.hosts[0], site.port))  # in this thread: the hub cannot run
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.1 200 OK")
