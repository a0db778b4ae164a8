"""The guard against addresses that are not public, when urllib3 and requests make connections in other ways.

Each test removes a hook that the guard uses. The guard may then reject a harmless response, but it never reads a body
over a connection whose peer was not checked.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests.adapters
import urllib3.connection
from urllib3.util.retry import Retry

import greendata
from greendata.errors import GreenDataError, UrlRefused
from greendata.http import adapter
from greendata.http.session import GuardedSession
from tests.conftest import PATCHED
from tests.support.gates import rest
from tests.support.rawservers import Server, answer, serving
from tests.support.tls import serving_tls

CSV = b"a,b\n1,2\n"
INNER = "127.0.0.2"  # not allowed below, unlike 127.0.0.1


def reading(
    url: str, *, prepare: Callable[[Any], object] = bool, allow_private: Any = ("127.0.0.1",), times: int = 1
) -> list[bytes]:
    """Return the bodies of *url*, fetched over one session that *prepare* has changed."""

    def work() -> list[bytes]:
        bodies = []
        with GuardedSession(allow_private=allow_private) as session:
            prepare(session._session)
            for _ in range(times):
                with session.get(url, timeout=5) as found:
                    bodies.append(b"".join(found.chunks()))
        return bodies

    return work() if PATCHED else greendata.run(work).get()


@pytest.fixture
def hookless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make urllib3 connect without its private methods."""

    def connect(self: Any) -> None:
        self.sock = socket.create_connection((self.host, self.port))

    def connect_tls(self: Any) -> None:
        connect(self)
        context = ssl.create_default_context(cafile=self.ca_certs)
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
        self.is_verified = True

    monkeypatch.setattr(urllib3.connection.HTTPConnection, "connect", connect)
    monkeypatch.setattr(urllib3.connection.HTTPSConnection, "connect", connect_tls)
    monkeypatch.setattr(urllib3.connection.HTTPConnection, "_new_conn", None)


# -- the private method is not called ---------------------------------------------------------------------


@pytest.mark.usefixtures("hookless")
def test_another_way_to_connect() -> None:
    with serving({"/": answer(CSV)}) as server:
        assert reading(server.url + "/") == [CSV]
        with pytest.raises(UrlRefused, match=r"its address 127\.0\.0\.1 is not public"):
            reading(server.url + "/", allow_private=False)
        assert len(server.requests) == 1


@pytest.mark.parametrize("is_hookless", [False, True])
def test_https(tmp_path: Path, request: pytest.FixtureRequest, *, is_hookless: bool) -> None:
    if is_hookless:
        request.getfixturevalue("hookless")
    with serving_tls(tmp_path, INNER) as served:
        with pytest.raises(UrlRefused, match=r"https://127\.0\.0\.2:\d+ is refused: its address 127\.0\.0\.2 is not"):
            reading(served.url, prepare=served.trust)
        assert served.asked == []
        assert reading(served.url, prepare=served.trust, allow_private=[INNER], times=2) == [CSV, CSV]


@pytest.mark.usefixtures("hookless")
def test_no_byte_of_a_handshake_goes_to_a_peer_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """urllib3 has connected in its own way, to an address that was not checked before."""
    received: list[bytes] = []

    class Listening(Server):
        def _answer(self, connection: Any) -> None:
            received.append(connection.recv(1))

    def connect_only(self: Any) -> None:
        self.sock = socket.create_connection((self.host, self.port))

    monkeypatch.setattr(urllib3.connection.HTTPSConnection, "connect", connect_only)
    server = Listening("127.0.0.1", lambda _: iter(()))
    with pytest.raises(UrlRefused, match="is not public"):
        reading(f"https://127.0.0.1:{server.port}/", allow_private=False)
    while not received:
        rest()
    server.close()
    assert received == [b""]


@pytest.mark.usefixtures("hookless")
def test_a_redirect() -> None:
    with serving({"/": answer(CSV)}, host=INNER) as inner:
        with serving({"/": answer(status="302 Found", Location=inner.url + "/")}) as outer:
            with pytest.raises(UrlRefused, match=r"its address 127\.0\.0\.2 is not public"):
                reading(outer.url + "/")
            assert len(outer.requests) == 1
        assert inner.requests == []


def test_a_second_try_that_reaches_another_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checked server closes the connection; urllib3 retries, and the name now resolves to another address."""
    with serving({"/": answer(CSV)}, host=INNER) as inner, serving({"/": lambda: iter(())}) as outer:
        targets = [(INNER, inner.port), ("127.0.0.1", outer.port)]

        def connect(self: Any) -> None:
            self.sock = socket.create_connection(targets.pop())

        def try_again(session: Any) -> None:
            session.adapters["http://"].max_retries = Retry(3, backoff_factor=0)

        monkeypatch.setattr(urllib3.connection.HTTPConnection, "connect", connect)
        with pytest.raises(UrlRefused, match=r"its address 127\.0\.0\.2 is not public"):
            reading(outer.url + "/", prepare=try_again)
        assert (len(outer.requests), inner.requests, targets) == (1, [], [])


# -- reused connections -----------------------------------------------------------------------------------


def test_a_connection_that_is_kept_is_still_a_checked_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    connect = adapter._SessionConnection.connect
    monkeypatch.setattr(adapter._SessionConnection, "connect", lambda self: made.append(self) or connect(self))
    with serving_tls(tmp_path, "127.0.0.1") as served:
        assert reading(served.url, prepare=served.trust, times=3) == [CSV] * 3
    assert len(made) == 1


def test_a_connection_that_gets_another_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    request = urllib3.connection.HTTPConnection.request
    with serving({"/": answer(CSV)}, host=INNER) as inner:

        def elsewhere(self: Any, *args: Any, **options: Any) -> None:
            self.sock = socket.create_connection((INNER, inner.port))
            request(self, *args, **options)

        monkeypatch.setattr(urllib3.connection.HTTPConnection, "request", elsewhere)
        with pytest.raises(UrlRefused, match="the address that it was fetched from was not checked"):
            reading(inner.url.replace(INNER, "127.0.0.1") + "/")
        assert inner.requests == []


def test_a_request_that_bypasses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request has been sent already, but its response is not read."""
    with serving({"/": answer(CSV)}, host=INNER) as inner:

        def past(self: Any) -> None:
            self.sock = socket.create_connection((INNER, inner.port))
            self.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")

        monkeypatch.setattr(urllib3.connection.HTTPConnection, "endheaders", past)
        with pytest.raises(UrlRefused, match="was not checked"):
            reading(inner.url + "/")


# -- other connections ------------------------------------------------------------------------------------


def test_pools_that_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(*_args: object, **_options: object) -> Any:
        return urllib3.HTTPConnectionPool(INNER, inner.port)

    for name in ("get_connection", "get_connection_with_tls_context"):
        monkeypatch.setattr(requests.adapters.HTTPAdapter, name, plain, raising=False)
    with serving({"/": answer(CSV)}, host=INNER) as inner:
        with pytest.raises(UrlRefused, match="was not checked"):
            reading(inner.url + "/")
        with pytest.raises(UrlRefused, match="was not checked"):
            reading(inner.url + "/", allow_private=[INNER])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy(scheme: str) -> None:
    with serving({"/": answer(CSV)}) as proxy:
        with pytest.raises(GreenDataError, match="a proxy would connect to addresses that cannot be checked here"):
            reading(f"{scheme}://example.com/", prepare=lambda session: session.proxies.update({scheme: proxy.url}))
        assert proxy.requests == []
