"""`Fetcher` at real servers on loopback: what comes of one request, whatever the server does."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.pool import Pool

from greendata.crawl.fetcher import HOP_ERRORS, Fetcher, Hop, Limits
from greendata.crawl.urls import parse_url
from greendata.errors import BadArgument
from greendata.testing import Reply, Site
from tests.support.natives import TIMEOUTS
from tests.support.rawservers import Server, answer, drip, serving, serving_unasked
from tests.support.tls import CSV, serving_tls

UA = "test-bot (bot@example.com)"
LOOPBACK = ["127.0.0.0/8"]
PAGE = b"<h1>a page</h1>"


def hop(url: str, *, headers: Any = None, allow_private: Any = LOOPBACK, **limits: Any) -> Hop:
    """Return what comes of one request to *url*."""
    with Fetcher(UA, allow_private=allow_private) as fetcher:
        return fetcher.fetch_hop(parse_url(url), headers=headers, limits=Limits(**limits))


# -- what arrives ---------------------------------------------------------------------------------------------


def test_a_page() -> None:
    with Site({"/a?b=1": "<h1>ä</h1>"}) as site:
        found = hop(site.url("/a?b=1#c"), headers={"If-None-Match": '"1"'})
        asked = site.requests[0]
    assert (found.status, found.body, found.truncated, found.error) == (200, "<h1>ä</h1>".encode(), False, None)
    assert found.content_type == "text/html"
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.seconds > 0
    assert asked.headers["user-agent"] == UA
    assert asked.headers["if-none-match"] == '"1"'
    assert asked.headers["host"] == f"127.0.0.1:{site.port}"
    assert asked.headers["accept-encoding"].startswith("gzip, deflate")


def test_a_redirect_is_not_followed() -> None:
    with Site({"/": Reply(status=301, headers={"Location": "/b"}, body="moved"), "/b": "b"}) as site:
        found = hop(site.url("/"))
        assert (found.status, found.location, found.body, found.error) == (301, "/b", b"", None)
        assert [request.path for request in site.requests] == ["/"]


@pytest.mark.parametrize("written", ["/ä", "/%C3%A4"])
def test_a_redirect_whose_target_is_utf_8(written: str) -> None:
    page = b"HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: " + written.encode() + b"\r\n\r\n"
    with serving({"/": page}) as server:
        found = hop(server.url + "/")
    assert found.location == written
    assert found.location is not None
    assert parse_url(found.location, server.url).path == "/%C3%A4"


def test_a_status_is_not_an_error() -> None:
    pages = {"/gone": Reply(status=410, body="gone"), "/same": Reply(status=304), "/empty": Reply(status=204)}
    with Site(pages) as site:
        for path, status, body in (("/gone", 410, b"gone"), ("/same", 304, b""), ("/empty", 204, b"")):
            found = hop(site.url(path))
            assert (found.status, found.body, found.error, found.truncated) == (status, body, None, False)


def test_headers_that_come_twice_are_joined() -> None:
    page = answer(PAGE, "text/html").replace(b"Connection:", b"X-A: 1\r\nx-a: 2\r\nConnection:")
    with serving({"/": page}) as server:
        assert hop(server.url + "/").headers["x-a"] == "1, 2"


def test_of_two_content_types_the_last_one_counts() -> None:
    page = answer(PAGE, "text/html; charset=utf-8").replace(b"Connection:", b"content-type: text/plain\r\nConnection:")
    with serving({"/": page}) as server:
        found = hop(server.url + "/")
    assert (found.error, found.body, found.headers["content-type"]) == (None, PAGE, "text/html; charset=utf-8")


def test_chunked_and_unlimited_bodies() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nabcde\r\n3\r\nfgh\r\n0\r\nX-T: 1\r\n\r\n"
    with serving({"/c": chunked, "/u": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcdefgh"}) as server:
        for path in ("/c", "/u"):
            found = hop(server.url + path)
            assert (found.body, found.truncated, found.error) == (b"abcdefgh", False, None)


@pytest.mark.parametrize("coding", ["chunked ", "identity, chunked", "chunked\r\nTransfer-Encoding: chunked"])
def test_every_form_of_a_chunked_body(coding: str) -> None:
    page = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n8\r\nabcdefgh\r\n0\r\n\r\n"
    with serving({"/": page.encode()}) as server:
        found = hop(server.url + "/")
    assert (found.body, found.truncated, found.error) == (b"abcdefgh", False, None)


# -- what does not arrive ---------------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SHORT = {
    "length": answer(PAGE, "text/html", length=100),
    "chunk": CHUNKED + b"ff\r\n" + PAGE,
    "last chunk": CHUNKED + b"f\r\n" + PAGE + b"\r\n",
    "chunk size": CHUNKED + b"f\r\n" + PAGE + b"\r\nxyz\r\n",
    "negative size": CHUNKED + b"f\r\n" + PAGE + b"\r\n-5\r\nabcde\r\n0\r\n\r\n",
    "gzip": answer(gzip.compress(PAGE)[:-4], "text/html", Content_Encoding="gzip"),
}


@pytest.mark.parametrize("case", SHORT)
def test_a_body_that_is_cut_short_is_kept_and_said_to_be(case: str) -> None:
    with serving({"/": SHORT[case]}) as server:
        found = hop(server.url + "/")
    assert (found.status, found.body, found.truncated, found.error) == (200, PAGE, True, None)


def test_a_body_of_another_encoding() -> None:
    with serving({"/": answer(PAGE, "text/html", Content_Encoding="zstd")}) as server:
        found = hop(server.url + "/")
    assert (found.error, found.body) == ("UnknownEncoding", b"")


def test_a_body_of_another_type_is_not_read() -> None:
    pages = {
        "/pdf": Reply(body=bytes(10**6), content_type="application/pdf"),
        "/none": Reply(body="x", content_type=""),
    }
    with Site(pages) as site:
        found = hop(site.url("/pdf"))
        assert (found.status, found.body, found.error) == (200, b"", "WrongContentType")
        assert found.message == "its type is application/pdf"
        assert hop(site.url("/pdf"), content_types=None).body == bytes(10**6)
        assert hop(site.url("/pdf"), content_types=("application/pdf",)).error is None


@pytest.mark.parametrize("fault", ["close", "reset", "garbage", "reset body", "bad chunk", "short", "endless head"])
def test_faults_of_a_server(fault: Any) -> None:
    with Site({"/": Reply(body="<p>" * 1_000, fault=fault)}) as site:
        found = hop(site.url("/"), timeout=20.0)
    if fault in ("reset body", "bad chunk", "short"):
        assert (found.status, found.error, found.truncated) == (200, None, True)
    else:
        assert found.status is None
        assert found.error == ("ConnectionFailed" if fault in ("close", "reset") else "BadResponse")


def test_no_connection() -> None:
    with Site() as site:
        found = hop(site.refused_url)
    assert (found.status, found.error) == (None, "ConnectionFailed")
    assert found.message == "Connection refused"


# -- limits ---------------------------------------------------------------------------------------------------


def test_bodies_that_are_too_large_are_cut() -> None:
    pages = {
        "/endless": Reply(fault="endless"),
        "/bomb": Reply.bomb(50_000_000),
        "/announced": answer(PAGE, "text/html", length=10**12),
        "/fits": Reply(body=bytes(100_000)),
        "/large": Reply(body=bytes(100_001)),
    }
    with Site({path: page for path, page in pages.items() if isinstance(page, Reply)}) as site:
        for path in ("/endless", "/bomb", "/large"):
            found = hop(site.url(path), max_bytes=100_000)
            assert (len(found.body), found.truncated, found.error) == (100_000, True, "BodyTooLarge")
        assert hop(site.url("/fits"), max_bytes=100_000).error is None


@pytest.mark.parametrize("fault", ["silent", "slow head", "slow"])
def test_a_slow_server_meets_the_deadline(fault: Any) -> None:
    with Site({"/": Reply(body="<p>" * 1_000, fault=fault)}) as site:
        for timeout in TIMEOUTS:
            found = hop(site.url("/"), timeout=timeout)
            if found.body or fault != "slow":  # on a busy machine no part of the body arrives in a short time
                break
    assert (found.error, found.truncated) == ("Timeout", fault == "slow")
    assert ("<p>" * 1_000).encode().startswith(found.body)
    assert bool(found.body) is (fault == "slow")


def test_a_silent_server_meets_the_limit_of_silence() -> None:
    with Site({"/": Reply(fault="silent")}) as site:
        assert hop(site.url("/"), silence=0.1).error == "Timeout"


def test_a_slow_handshake_meets_the_deadline() -> None:
    with serving_unasked(drip(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xf0")) as server:
        assert hop(f"https://127.0.0.1:{server.port}/", timeout=0.3).error == "Timeout"


def test_headers_without_end_are_refused() -> None:
    pages = {
        "/many": b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 150 + b"\r\n",
        "/large": b"HTTP/1.1 200 OK\r\nX-A: " + b"1" * 60_000 + b"\r\nX-B: " + b"1" * 60_000 + b"\r\n\r\n",
        "/interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    }
    with serving(pages) as server:
        for path in pages:
            assert hop(server.url + path).error == "BadResponse"


# -- connections ------------------------------------------------------------------------------------------------


def test_connections_are_kept_by_host() -> None:
    """At most as many connections as a host has requests at once, however many hosts and pages there are."""
    hosts, pages, at_once = 40, 10, 2
    with (
        Site(lambda request: f"<p>{request.target}", hosts=hosts) as site,
        Fetcher(UA, allow_private=LOOPBACK) as fetcher,
    ):

        def crawl(host: int) -> None:
            def one(page: int) -> None:
                assert fetcher.fetch_hop(parse_url(site.url(f"/{page}", host=site.hosts[host]))).error is None

            Pool(at_once).map(one, range(pages))

        gevent.joinall([gevent.spawn(crawl, host) for host in range(hosts)], raise_error=True)
        assert len(site.requests) == hosts * pages
        assert site.connections() == fetcher.connections_made <= hosts * at_once
        fetcher.close()


def test_a_connection_that_the_server_has_closed_is_replaced() -> None:
    with (
        Site({"/": [Reply(body="a", fault="stale"), "b", "c"]}) as site,
        Fetcher(UA, allow_private=LOOPBACK) as fetcher,
    ):
        bodies = [fetcher.fetch_hop(parse_url(site.url("/"))).body for _ in range(3)]
        assert (bodies, site.connections()) == ([b"a", b"b", b"c"], 2)


def test_a_connection_after_an_unread_body() -> None:
    pages = {
        "/short": Reply(body=bytes(100), content_type="image/png"),
        "/long": Reply(body=bytes(10**6), content_type="image/png"),
        "/moved": Reply(status=302, headers={"Location": "/"}, body="moved"),
        "/": "page",
    }
    with Site(pages) as site, Fetcher(UA, allow_private=LOOPBACK) as fetcher:
        for path, connections in (("/short", 1), ("/", 1), ("/moved", 1), ("/", 1), ("/long", 1), ("/", 2)):
            fetcher.fetch_hop(parse_url(site.url(path)))
            assert site.connections() == connections


def test_a_killed_hop_leaves_no_connection(keeps_descriptors: Callable[[], AbstractContextManager[None]]) -> None:
    with Site({"/": "page"}) as site, Fetcher(UA, allow_private=LOOPBACK) as fetcher:
        url = parse_url(site.url("/"))
        fetcher.fetch_hop(url)
        fetcher.close()
        with keeps_descriptors(), site.hold("/") as hold:
            asking = gevent.spawn(fetcher.fetch_hop, url)
            hold.wait()
            asking.kill()
            with gevent.Timeout(0.1), pytest.raises(gevent.Timeout):
                fetcher.fetch_hop(url)


def test_a_connection_is_not_used_again_while_another_response_may_come() -> None:
    """Interim responses are skipped, and nobody gets the response to an earlier request."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"

    class KeepAlive(Server):
        def _answer(self, connection: Any) -> None:
            for number in range(3):
                while not connection.recv(4096).endswith(b"\r\n\r\n"):
                    pass
                body = b"page %d" % number
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body)
                for part in (early, early, head, body):
                    connection.sendall(part)

    server = KeepAlive("127.0.0.1", lambda _: iter(()))
    with Fetcher(UA, allow_private=LOOPBACK) as fetcher:
        found = [fetcher.fetch_hop(parse_url(server.url)).body for _ in range(3)]
        assert (found, fetcher.connections_made) == ([b"page 0", b"page 1", b"page 2"], 1)
    server.close()


def test_another_protocol() -> None:
    with serving({"/": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"}) as server:
        assert hop(server.url + "/").error == "BadResponse"


# -- TLS --------------------------------------------------------------------------------------------------------


def test_https(tmp_path: Path) -> None:
    with serving_tls(tmp_path, "127.0.0.1") as served:
        url = parse_url(served.url + "a")
        limits = Limits(content_types=None)
        with Fetcher(UA, allow_private=LOOPBACK, certificates=served.certificates) as fetcher:
            assert [fetcher.fetch_hop(url, limits=limits).body for _ in range(2)] == [CSV, CSV]
            assert fetcher.connections_made == 1
        refused = hop(served.url)
        assert (refused.error, refused.status) == ("CertificateInvalid", None)
        assert refused.message is not None
        assert "self-signed certificate" in refused.message
        assert served.asked == ["/a", "/a"]


def test_a_certificate_is_checked_for_the_name_and_not_for_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [row])
    with serving_tls(tmp_path, "127.0.0.1") as served:
        with Fetcher(UA, allow_private=LOOPBACK, certificates=served.certificates) as fetcher:
            found = fetcher.fetch_hop(parse_url(f"https://shop.test:{served.port}/"))
        assert found.error == "CertificateInvalid"
        assert found.message is not None
        assert "shop.test" in found.message
        assert (served.names, served.asked) == (["shop.test"], [])


def test_no_tls_at_the_other_end() -> None:
    with serving_unasked(lambda: iter([answer(PAGE, "text/html")])) as server:
        assert hop(f"https://127.0.0.1:{server.port}/").error == "TlsFailed"


# -- arguments ------------------------------------------------------------------------------------------------


def test_bad_arguments() -> None:
    for name in ("", " ", "a\r\nX: 1", "ä", None):
        with pytest.raises(BadArgument, match="user_agent must be a name for your crawler"):
            Fetcher(name)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="allow_private"):
        Fetcher(UA, allow_private=["localhost"])
    with pytest.raises(BadArgument, match="certificates must be the path of a file"):
        Fetcher(UA, certificates="/nowhere.pem")


def test_the_names_of_errors_are_sorted() -> None:
    assert list(HOP_ERRORS) == sorted(HOP_ERRORS)
