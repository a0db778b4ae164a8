"""The guarded session with misbehaving servers on loopback: requests end, bodies are limited, nothing leaks."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from time import monotonic
from typing import Any

import gevent
import pytest
import requests
import urllib3

import greendata
from greendata.errors import (
    AnswerBroken,
    AnswerTooLarge,
    BadArgument,
    BadTimeout,
    FetchFailed,
    FetchTimeout,
    UrlRefused,
    WrongContentType,
)
from greendata.http.address_policy import AddressPolicy
from greendata.http.session import REDIRECTS, GuardedSession
from greendata.http.timed_socket import TimedSocket, request_deadline
from greendata.testing import Site
from tests.conftest import PATCHED
from tests.support.natives import TIMEOUTS
from tests.support.rawservers import answer, drip, serving, serving_unasked

LOOPBACK = ("127.0.0.1",)
CSV = b"a,b\n1,2\n"


def fetch(url: str, *, allow_private: Any = LOOPBACK, **options: Any) -> bytes:
    """Return the body of *url*, fetched in this greenlet if gevent has patched the sockets, else in the pool."""

    def work() -> bytes:
        with GuardedSession(allow_private=allow_private) as session, session.get(url, **options) as found:
            return b"".join(found.chunks())

    return work() if PATCHED else greendata.run(work).get()


# -- bodies -------------------------------------------------------------------------------------------


def test_the_body_is_complete() -> None:
    body = bytes(range(256)) * 4_000
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:10], body[10:])) + b"0\r\n\r\n"
    pages = {
        "/plain": answer(body),
        "/gzip": answer(gzip.compress(body), Content_Encoding="gzip"),
        "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        "/until-close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body,
        "/empty": answer(),
    }
    with serving(pages) as server:
        for path in ("/plain", "/gzip", "/chunked", "/until-close"):
            assert fetch(server.url + path) == body
        assert fetch(server.url + "/empty") == b""


CODINGS = ["chunked", "Chunked", "chunked ", "chunked,", "identity, chunked", "chunked\r\nTransfer-Encoding: chunked"]


@pytest.mark.parametrize("coding", CODINGS)
def test_the_sizes_of_chunks_are_not_part_of_the_body(coding: str) -> None:
    page = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n8\r\n{CSV.decode()}\r\n0\r\n\r\n"
    with serving({"/": page.encode()}) as server:
        assert fetch(server.url + "/") == CSV


def test_a_transfer_encoding_that_was_not_asked_for() -> None:
    with serving({"/": answer(CSV, Transfer_Encoding="gzip, chunked")}) as server, pytest.raises(FetchFailed):
        fetch(server.url + "/")


@pytest.mark.parametrize("status", ["304 Not Modified", "204 No Content"])
def test_a_response_without_a_body_that_is_said_to_be_chunked(status: str) -> None:
    page = f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with serving({"/": page}) as server:
        assert fetch(server.url + "/", statuses=(204, 304)) == b""


def test_interim_responses_are_skipped() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    with serving({"/": early + early + answer(CSV)}) as server:
        assert fetch(server.url + "/") == CSV


def test_another_greenlet_may_read_the_body() -> None:
    """The deadline is that of the request, although a new greenlet has none of its context."""
    pages = {"/": answer(CSV), "/slow": drip(answer(CSV, length=10**6))}
    with serving(pages) as server, GuardedSession(allow_private=LOOPBACK) as session:
        with session.get(server.url + "/") as found:
            assert gevent.spawn(lambda: b"".join(found.chunks())).get() == CSV

        def read_slowly(timeout: float) -> bool:
            """Return True if the headers arrived in time. The body does not."""
            errors: list[BaseException] = []

            def read(found: Any) -> None:
                with pytest.raises(FetchTimeout) as caught:
                    b"".join(found.chunks())
                errors.append(caught.value)

            with suppress(FetchTimeout), session.get(server.url + "/slow", timeout=timeout) as found:
                gevent.spawn(read, found).get()
            return bool(errors)

        assert any(map(read_slowly, TIMEOUTS))


def test_the_response_has_its_final_url() -> None:
    pages = {"/a": answer(status="302 Found", Location="/b?x=1"), "/b": answer(CSV, X_Shop="7")}

    def work(url: str) -> tuple[str, int, str | None]:
        with GuardedSession(allow_private=LOOPBACK) as session, session.get(url) as found:
            return found.url, found.status, found.headers.get("x-shop")

    with serving(pages) as server:
        found = work(server.url + "/a") if PATCHED else greendata.run(work, server.url + "/a").get()
        assert found == (server.url + "/b?x=1", 200, "7")


# -- addresses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "168.63.129.16",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fec0::a9fe:a9fe",
        "::127.0.0.1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not AddressPolicy(allowed=False).allow(address)
    assert AddressPolicy(allowed=True).allow(address)


def test_addresses_that_are_public_or_named() -> None:
    assert AddressPolicy(allowed=False).allow("8.8.8.8")
    assert AddressPolicy(allowed=False).allow("2606:4700:4700::1111")
    assert AddressPolicy(["127.0.0.0/8", "::1"]).allow("::ffff:127.0.0.1")
    assert not AddressPolicy(["127.0.0.1"]).allow("127.0.0.2")
    for wrong in ("127.0.0.1", ["localhost"], ["127.0.0.1/8"], 3):
        with pytest.raises(BadArgument, match="allow_private must be"):
            GuardedSession(allow_private=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]"])
def test_loopback_is_refused_under_any_name_before_a_byte_is_sent(host: str) -> None:
    with serving({"/": answer(CSV)}) as server:
        with pytest.raises((UrlRefused, FetchFailed)) as caught:
            fetch(f"http://{host}:{server.port}/", allow_private=False)
        if host in ("127.0.0.1", "localhost"):
            assert isinstance(caught.value, UrlRefused)
            assert "its address 127.0.0.1 is not public" in str(caught.value)
        assert server.requests == []


def test_a_redirect_to_an_address_that_is_not_allowed() -> None:
    with serving({"/": answer(CSV)}, host="127.0.0.2") as inner:
        with serving({"/": answer(status="302 Found", Location=inner.url + "/")}) as outer:
            with pytest.raises(UrlRefused, match=r"its address 127\.0\.0\.2 is not public"):
                fetch(outer.url + "/")
            assert fetch(outer.url + "/", allow_private=["127.0.0.0/8"]) == CSV
        assert len(inner.requests) == 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://x/", "http://", "http://[::1"])
def test_a_redirect_to_another_scheme(target: str) -> None:
    page = answer(status="301 Moved Permanently", Location=target)
    with serving({"/": page}) as server, pytest.raises(UrlRefused):
        fetch(server.url + "/")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.com/", "example.com", "", "http://", "http://[::1"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(UrlRefused):
        fetch(url)


def test_the_number_of_redirects_is_limited() -> None:
    pages: dict[str, Any] = {"/loop": answer(status="302 Found", Location="/loop")}
    pages |= {f"/{step}": answer(status="307 Temporary Redirect", Location=f"/{step - 1}") for step in range(1, 9)}
    with serving(pages | {"/0": answer(CSV)}) as server:
        assert fetch(f"{server.url}/{REDIRECTS}") == CSV
        for path in ("/loop", f"/{REDIRECTS + 1}"):
            with pytest.raises(UrlRefused, match=f"more than {REDIRECTS} redirects"):
                fetch(server.url + path)


def test_credentials_are_not_sent_to_another_host() -> None:
    headers = {"Authorization": "Bearer secret", "X-Api-Key": "secret", "Cookie": "a=secret", "Accept": "text/csv"}
    both = ["127.0.0.0/8"]
    with serving({"/": answer(CSV)}, host="127.0.0.2") as other:
        pages = {
            "/away": answer(status="302 Found", Location=other.url + "/"),
            "/here": answer(status="302 Found", Location="/end"),
            "/end": answer(CSV),
        }
        with serving(pages) as server:
            for path in ("/away", "/here"):
                assert fetch(server.url + path, headers=headers, allow_private=both) == CSV
            assert fetch(server.url.replace("//", "//ann:secret@") + "/away", allow_private=both) == CSV
            assert all("secret" in request for request in server.requests[:-1])
    assert "Accept: text/csv" in other.requests[0]
    assert not [request for request in other.requests if "secret" in request or "Authorization" in request]


def test_cookies_belong_to_one_request() -> None:
    """Those of a session would be sent with the requests of others, and a server could let them grow."""
    pages = {
        "/": answer(status="302 Found", Location="/in", Set_Cookie="visitor=1; Path=/"),
        "/in": answer(CSV, Set_Cookie="seen=1; Path=/"),
    }
    with serving(pages) as server, GuardedSession(allow_private=LOOPBACK) as session:

        def read() -> None:
            for path in ("/", "/in"):
                with session.get(server.url + path) as found:
                    b"".join(found.chunks())

        read() if PATCHED else greendata.run(read).get()
        assert [request.partition("Cookie: ")[2].strip() for request in server.requests] == ["", "visitor=1", ""]


def test_proxies_and_netrc_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"/": answer(CSV)}) as server, serving({}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert fetch(server.url + "/") == CSV
        assert proxy.requests == []


def test_connections_are_kept_for_many_hosts() -> None:
    hosts, rounds = 15, 3  # requests itself keeps those of ten

    def work(site: Site) -> None:
        with GuardedSession(allow_private=["127.0.0.0/8"]) as session:
            for host in [*range(hosts)] * rounds:
                with session.get(site.url(host=site.hosts[host])) as found:
                    assert b"".join(found.chunks()) == b"page"

    with Site({"/": "page"}, hosts=hosts) as site:
        work(site) if PATCHED else greendata.run(work, site).get()
        assert (len(site.requests), site.connections()) == (hosts * rounds, hosts)


# -- limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        answer(CSV, length=10**6),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["status", "headers", "body", "chunk", "chunk size"],
)
def test_a_server_that_sends_slowly_meets_the_deadline(begin: bytes) -> None:
    expected = r"was not fetched within 0\.3 seconds"
    with serving({"/": drip(begin)}) as server, pytest.raises(FetchTimeout, match=expected):
        fetch(server.url + "/", timeout=0.3)


def test_a_slow_handshake_meets_the_deadline() -> None:
    """A TLS record of 16 kB arrives byte by byte, each before its timeout."""
    record = drip(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xf0")
    expected = r"was not fetched within 0\.3 seconds"
    with serving_unasked(record) as server, pytest.raises(FetchTimeout, match=expected):
        fetch(f"https://127.0.0.1:{server.port}/", timeout=0.3)


def test_a_deadline_that_has_passed_already() -> None:
    with serving({"/": answer(CSV)}) as server:
        with pytest.raises(FetchTimeout):
            fetch(server.url + "/", timeout=0)
        assert server.requests == []


def test_bodies_that_are_too_large() -> None:
    def endless() -> Any:
        yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        while True:
            yield bytes(100_000)

    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    pages = {
        "/announced": answer(CSV, length=10**12),
        "/endless": endless,
        "/bomb": answer(bomb, Content_Encoding="gzip"),
        "/fits": answer(bytes(100_000)),
    }
    with serving(pages) as server:
        for path in ("/announced", "/endless", "/bomb"):
            with pytest.raises(AnswerTooLarge, match="is larger than 100000 bytes; raise max_bytes"):
                fetch(server.url + path, max_bytes=100_000)
        assert len(fetch(server.url + "/fits", max_bytes=100_000)) == 100_000
        with pytest.raises(AnswerTooLarge):
            fetch(server.url + "/fits", max_bytes=99_999)


@pytest.mark.parametrize("length", ["\xb2", "9" * 5_000, "-1", "x"])
def test_an_invalid_content_length(length: str) -> None:
    """``int`` rejects the first two: a digit that is not decimal, and more digits than its limit."""
    page = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n".encode("latin-1") + CSV
    with serving({"/": page}) as server:
        assert fetch(server.url + "/") == CSV


class _Flood:
    """A socket that always has something to read."""

    def makefile(self, *_args: object, **_options: object) -> io.RawIOBase:
        return _FloodFile()

    def settimeout(self, _seconds: float) -> None: ...


class _FloodFile(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return len(buffer)


def test_the_hub_runs_while_bytes_arrive_without_a_pause() -> None:
    token = request_deadline.set((monotonic() + 10, 10))
    socket = TimedSocket(_Flood())
    reader = socket.makefile("rb")
    socket.end_headers()
    request_deadline.reset(token)
    others = gevent.spawn(lambda: None)
    with closing(reader):
        while not others.ready():
            reader.read(1_000)  # a loop that never pauses ends at the deadline


def test_the_hub_runs_while_a_body_is_decompressed() -> None:
    """All of the compressed body has arrived with its first part."""
    bomb = gzip.compress(bytes(50_000_000))
    with (
        serving({"/": answer(bomb, Content_Encoding="gzip")}) as server,
        GuardedSession(allow_private=LOOPBACK) as session,
        session.get(server.url + "/") as found,
    ):
        chunks = found.chunks()
        next(chunks)
        others = gevent.spawn(lambda: None)
        assert any(others.ready() for _ in chunks)


# -- broken responses ---------------------------------------------------------------------------------------


def test_bodies_that_are_cut_short_or_garbled() -> None:
    packed = gzip.compress(CSV * 1_000)
    pages = {
        "/length": answer(CSV, length=100),
        "/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
        "/no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "/chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
        "/gzip": answer(packed[:-9], Content_Encoding="gzip"),
        "/no gzip": answer(CSV, Content_Encoding="gzip"),
        "/more": answer(packed + b"more", Content_Encoding="gzip"),
        "/zstd": answer(CSV, Content_Encoding="zstd"),
        "/deflate": answer(zlib.compress(CSV), Content_Encoding="deflate"),
    }
    with serving({path.replace(" ", "-"): page for path, page in pages.items()}) as server:
        for path in pages:
            with pytest.raises(AnswerBroken, match="is broken: "):
                fetch(server.url + path.replace(" ", "-"))


@pytest.mark.parametrize("size", ["-1", "-5"])
def test_a_chunk_of_a_negative_size(size: str) -> None:
    """http.client would read all that arrives, forever and into memory, and the limit of the body would not apply."""
    page = drip(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n".encode())
    with serving({"/": page}) as server, pytest.raises(AnswerBroken):
        fetch(server.url + "/", timeout=5)


@pytest.mark.parametrize("got", ["text/html", "text/html; charset=utf-8", "TEXT/HTML", "application/json"])
def test_another_content_type(got: str) -> None:
    with serving(
        {"/": answer(CSV, got), "/none": answer(CSV, ""), "/csv": answer(CSV, "Text/CSV; header=present")}
    ) as s:
        with pytest.raises(WrongContentType, match="expected one of text/csv"):
            fetch(s.url + "/", accept=["text/csv"])
        for path in ("/none", "/csv"):
            assert fetch(s.url + path, accept=["text/csv"]) == CSV


def test_other_statuses() -> None:
    with serving({"/gone": answer(status="410 Gone"), "/moved": answer(status="302 Found")}) as server:
        for path, status in (("/gone", 410), ("/moved", 302), ("/none", 404)):
            with pytest.raises(FetchFailed, match=f"the status is {status}") as caught:
                fetch(server.url + path)
            assert caught.value.status == status
        assert fetch(server.url + "/none", statuses=[200, 404]) == b""


def test_no_response() -> None:
    with serving({"/": b"", "/garbage": b"SSH-2.0-OpenSSH\r\n\r\n"}) as server:
        for path in ("/", "/garbage"):
            with pytest.raises(FetchFailed, match="no response"):
                fetch(server.url + path)
    with pytest.raises(FetchFailed, match="no response"):
        fetch(server.url + "/")


def test_no_text_contains_secrets() -> None:
    with serving({}) as server, pytest.raises(FetchFailed) as caught:
        fetch(server.url.replace("//", "//ann:secret@") + "/a?token=secret#secret")
    assert str(caught.value) == f"{server.url}/a could not be fetched: the status is 404"
    assert "secret" not in repr(caught.value)


def test_arguments_that_cannot_be_used() -> None:
    with GuardedSession() as session:
        for timeout in (None, -1, "2"):
            with pytest.raises(BadTimeout), session.get("http://127.0.0.1:1/", timeout=timeout):  # type: ignore[arg-type]
                pass
        for limit in (-1, 1.5, True):
            with pytest.raises(BadArgument), session.get("http://127.0.0.1:1/", max_bytes=limit):  # type: ignore[arg-type]
                pass


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Authorization": "Bearer secret\n"}, r"headers\['Authorization'\] must be one line .* got '\\n'"),
        ({"Authorization": " secret"}, r"headers\['Authorization'\] must be .* without spaces around it, got ' '"),
        ({"X-Name": "secret\u20ac"}, "must be one line of characters in Latin-1, .* got '\u20ac'"),
        ({"X-Name": "secret\r\nX-Other: 1"}, "must be one line"),
        ({"X-Count": 1}, r"headers\['X-Count'\] must be text"),
        ({"X Name": "secret"}, "headers must be .* got 'X Name'"),
        ({1: "secret"}, "headers must be a dict of the names"),
        ("X: secret", "headers must be a dict of names and values"),
    ],
)
def test_headers_that_cannot_be_sent(headers: Any, text: str) -> None:
    """They are errors of the call, not of the server, which would be asked again and again."""
    url = "http://127.0.0.1:1/"
    with GuardedSession() as session:
        calls: list[Callable[[], object]] = [
            lambda: GuardedSession(headers=headers),
            lambda: session.get(url, headers=headers).__enter__(),
            lambda: greendata.paginate(session, url, headers=headers),
            lambda: greendata.read_csv_url(url, headers=headers),
        ]
        for call in calls:
            with pytest.raises(BadArgument, match=text) as caught:
                call()
            assert "secret" not in str(caught.value)


def test_no_descriptors_are_left(keeps_descriptors: Callable[[], AbstractContextManager[None]]) -> None:
    pages = {"/": answer(CSV), "/cut": answer(CSV, length=100), "/slow": drip(answer(b"", length=10))}
    with serving(pages) as server:
        fetch(server.url + "/")
        server.wait_idle()
        with keeps_descriptors():
            fetch(server.url + "/")
            for path, options in (("/cut", {}), ("/slow", {"timeout": 0.1}), ("/", {"allow_private": False})):
                with pytest.raises(greendata.GreenDataError):
                    fetch(server.url + path, **options)


# -- errors of the block --------------------------------------------------------------------------------


OWN = (
    TimeoutError("the caller's"),
    requests.ConnectionError("the caller's"),
    requests.Timeout("the caller's"),
    urllib3.exceptions.ProtocolError("the caller's"),
    urllib3.exceptions.ReadTimeoutError(None, None, "the caller's"),  # type: ignore[arg-type]
    zlib.error("the caller's"),
)


@pytest.mark.parametrize("error", OWN, ids=[type(error).__name__ for error in OWN])
@pytest.mark.parametrize("packing", [{}, {"Content_Encoding": "gzip"}])
def test_an_error_of_the_block_is_raised_unchanged(error: Exception, packing: dict[str, str]) -> None:
    page = answer(gzip.compress(CSV) if packing else CSV, **packing)

    def work(url: str) -> Exception | None:
        try:
            with GuardedSession(allow_private=LOOPBACK) as session, session.get(url) as found:
                for _ in found.chunks():
                    raise error
        except Exception as raised:  # noqa: BLE001 - it is looked at
            return raised
        return None

    with serving({"/": page}) as server:
        assert (work(server.url) if PATCHED else greendata.run(work, server.url).get()) is error
