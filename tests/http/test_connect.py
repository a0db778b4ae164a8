"""No address that is not allowed is ever connected to: by the session, by the fetcher, at the first hop or a later one.

The servers are real and listen on loopback. Loopback is not public, so a test allows the address that stands for a
public one, and looks at the listening sockets of the others.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

import greendata
from greendata.crawl.fetcher import Fetcher, Limits
from greendata.crawl.urls import parse_url
from greendata.errors import BadUrl, FetchFailed, UrlRefused
from greendata.http.address_policy import AddressPolicy
from greendata.http.dns import resolver
from greendata.http.session import GuardedSession
from tests.conftest import PATCHED
from tests.support.rawservers import answer, serving

PUBLIC, OTHER = "127.0.0.1", "127.0.0.2"  # the first one is allowed, and stands for a public address
PAGE = answer(b"a page", "text/html")
Fetch = Callable[..., str]


def by_session(url: str, allow_private: Any = (PUBLIC,)) -> str:
    """Return the body of *url*, or the name of the error and its reason."""

    def work() -> str:
        try:
            with GuardedSession(allow_private=allow_private) as session, session.get(url, timeout=10) as found:
                return b"".join(found.chunks()).decode()
        except (UrlRefused, FetchFailed) as error:
            return f"{type(error).__name__}: {error.reason}"

    return work() if PATCHED else greendata.run(work).get()


def by_fetcher(url: str, allow_private: Any = (PUBLIC,)) -> str:
    with Fetcher("test-bot", allow_private=allow_private) as fetcher:
        try:
            hop = fetcher.fetch_hop(parse_url(url), limits=Limits(timeout=10))
            while hop.location is not None:
                hop = fetcher.fetch_hop(parse_url(hop.location, hop.url), limits=Limits(timeout=10))
        except BadUrl as error:
            return f"BadUrl: {error.reason}"
    return hop.body.decode() if hop.error is None else f"{hop.error}: {hop.message}"


REFUSED = {by_session: "UrlRefused", by_fetcher: "AddressRefused"}
FAILED = {by_session: "FetchFailed", by_fetcher: "ConnectionFailed"}

both_ways = pytest.mark.parametrize("fetch", [by_session, by_fetcher])


class Listener:
    """A listening socket that tells whether anybody has connected to it."""

    def __init__(self, host: str, family: int = socket.AF_INET) -> None:
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.bind((host, 0))
        self._socket.listen(5)
        self.port: int = self._socket.getsockname()[1]

    def saw_nobody(self) -> bool:
        """Return True if the first connection in the queue is one that is made now."""
        with socket.socket(self._socket.family, socket.SOCK_STREAM) as probe:
            probe.connect(self._socket.getsockname())
            accepted, peer = self._socket.accept()
            accepted.close()
            return bool(peer == probe.getsockname())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listening socket at an address that is not public."""
    with Listener(PUBLIC) as listener:
        yield listener


@pytest.fixture
def inner() -> Iterator[Listener]:
    """A listening socket at the address that is never allowed."""
    with Listener(OTHER) as listener:
        yield listener


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens."""
    with socket.socket() as bound:
        bound.bind((PUBLIC, 0))
        yield bound.getsockname()[1]


class Names:
    """Addresses of names, each list once and the last one from then on; it takes the place of the system's."""

    def __init__(self, **names: list[list[str]]) -> None:
        self._names = {name.replace("_", "."): found for name, found in names.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, *_: object) -> list[Any]:
        self.asked.append(host)
        found = self._names[host]
        addresses = found.pop(0) if len(found) > 1 else found[0]
        return [_row(address) for address in addresses]


def _row(address: str) -> Any:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, 6, "", (address, 0, 0, 0) if ":" in address else (address, 0))


# -- an open port cannot be told from a closed one -------------------------------------------------------------

FORMS = ["127.0.0.1", "localhost", "127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.", "[::1]"]
FORMS += ["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::]", "0.0.0.0", "0"]
FORMS += ["\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1", "LocalHost", "localhost."]


@both_ways
@pytest.mark.parametrize("host", FORMS)
def test_a_refused_address_is_not_connected_to(fetch: Fetch, host: str, listener: Listener, closed_port: int) -> None:
    outcomes = {
        fetch(f"{scheme}://{host}:{port}/", False)
        for scheme in ("http", "https")
        for port in (listener.port, closed_port)
    }
    assert len(outcomes) == 1
    assert outcomes.pop().startswith((REFUSED[fetch], "BadUrl", "FetchFailed: no response (NameResolutionError)"))
    assert listener.saw_nobody()


def test_the_same_over_ipv6() -> None:
    try:
        listener = Listener("::1", socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"there is no IPv6 on loopback: {error}")
    with listener:
        for fetch in (by_session, by_fetcher):
            outcomes = {fetch(f"http://[::1]:{port}/", False) for port in (listener.port, listener.port + 1)}
            assert outcomes == {f"{REFUSED[fetch]}: its address ::1 is not public"}
        assert listener.saw_nobody()


def test_the_readers_do_not_tell_open_ports_from_closed_ones(listener: Listener, closed_port: int) -> None:
    for read in (greendata.read_csv_url, greendata.read_ndjson_url, greendata.read_parquet_url):
        for port in (listener.port, closed_port):
            with pytest.raises(UrlRefused) as caught:
                read(f"http://127.0.0.1:{port}/a", timeout=10).get()
            assert caught.value.reason == "its address 127.0.0.1 is not public"
    assert listener.saw_nobody()


# -- names ----------------------------------------------------------------------------------------------------

PRIVATE = [
    "10.0.0.1",
    "169.254.169.254",
    "::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::808:808",
    "2002:a00:1::",
]
PRIVATE += ["2001:0:a00:1::f5ff:fffe", "fd00::1", "fe80::1", "100.64.0.1", "0.0.0.0", "255.255.255.255", "192.0.0.8"]


@both_ways
@pytest.mark.parametrize("address", PRIVATE)
def test_names_of_private_addresses(fetch: Fetch, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names(inner_test=[[address]]))
    assert fetch("http://inner.test/") == f"{REFUSED[fetch]}: its address {address} is not public"


@both_ways
def test_a_name_that_is_rebound(fetch: Fetch, inner: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name has an allowed address for the check, and would have another one for the connection."""
    names = Names(rebound_test=[[PUBLIC], [OTHER]])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    with serving({"/": PAGE}) as server:
        for _ in range(2):
            assert fetch(f"http://rebound.test:{server.port}/") == "a page"
        assert names.asked == ["rebound.test"]
        resolver.forget("rebound.test")  # as after its time in the cache
        for port in (inner.port, server.port):
            assert fetch(f"http://rebound.test:{port}/") == f"{REFUSED[fetch]}: its address {OTHER} is not public"
        assert inner.saw_nobody()
        assert [request.partition("\r\nHost: ")[2].split("\r")[0] for request in server.requests] == [
            f"rebound.test:{server.port}"
        ] * 2


@both_ways
@pytest.mark.parametrize("addresses", [[OTHER, PUBLIC], [PUBLIC, OTHER], [OTHER, "10.0.0.1", "::1", PUBLIC]])
def test_of_several_addresses_only_allowed_ones_are_tried(
    fetch: Fetch, addresses: list[str], inner: Listener, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names(mixed_test=[addresses]))
    with serving({"/": PAGE}) as server:
        assert fetch(f"http://mixed.test:{server.port}/") == "a page"
    for port in (inner.port, closed_port):
        assert fetch(f"http://mixed.test:{port}/").startswith(FAILED[fetch])  # nobody listens at the allowed address
    assert inner.saw_nobody()


@both_ways
def test_the_next_address_is_tried_where_one_refuses_the_connection(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names(two_test=[["127.0.0.3", PUBLIC]]))
    with serving({"/": PAGE}) as server:
        assert fetch(f"http://two.test:{server.port}/", ["127.0.0.3", PUBLIC]) == "a page"


@both_ways
def test_a_name_is_looked_up_again_if_no_connection_could_be_made(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(moved_test=[["127.0.0.3"], [PUBLIC]])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    with serving({"/": PAGE}) as server:
        url = f"http://moved.test:{server.port}/"
        assert fetch(url, ["127.0.0.3", PUBLIC]).startswith(FAILED[fetch])
        assert fetch(url, ["127.0.0.3", PUBLIC]) == "a page"


# -- later hops -------------------------------------------------------------------------------------------------

TARGETS = [
    "http://{other}:{port}/",
    "//{other}:{port}/",
    "http://0x7f.2:{port}/",
    "http://[::ffff:127.0.0.2]:{port}/",
    "http://inner.test:{port}/",
    "http://{other}:{port}\\@public.test/",
    "http:\\\\{other}:{port}/",
    "\\\\{other}:{port}/",
]


@both_ways
@pytest.mark.parametrize("target", TARGETS)
def test_a_redirect_to_an_address_that_is_not_allowed(
    fetch: Fetch, target: str, inner: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(inner_test=[[OTHER]], public_test=[[PUBLIC]])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    location = target.format(other=OTHER, port=inner.port)
    with serving({"/": answer(status="302 Found", Location=location)}) as outer:
        found = fetch(f"http://public.test:{outer.port}/")
    assert found.startswith((REFUSED[fetch], "BadUrl", "UrlRefused", "FetchFailed: the status is 404"))
    assert inner.saw_nobody()


def test_headers_do_not_go_to_a_host_that_another_parser_would_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """urllib finds the host ``good.test`` in the target, and requests ``evil.test``."""
    names = Names(good_test=[[PUBLIC]], evil_test=[[PUBLIC]])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    location = "http://evil.test:{port}\\@good.test:{port}/end"
    with serving(
        {"/": lambda: iter([answer(status="302 Found", Location=location.format(port=server.port))])}
    ) as server:

        def work() -> None:
            session = GuardedSession(allow_private=[PUBLIC], headers={"Authorization": "Bearer secret"})
            with session, pytest.raises(FetchFailed), session.get(f"http://good.test:{server.port}/"):
                pass

        work() if PATCHED else greendata.run(work).get()
        assert "secret" in server.requests[0]
        assert "Host: evil.test" in server.requests[1]
        assert "secret" not in server.requests[1]


# -- the policy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [*PRIVATE, "::127.0.0.1", "2001:db8::1", "ff02::1", "203.0.113.1", "198.18.0.1"])
def test_addresses_that_are_not_public(address: str) -> None:
    assert not AddressPolicy(allowed=False).allow(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::", "2a00::1"])
def test_addresses_that_are_public(address: str) -> None:
    assert AddressPolicy(allowed=False).allow(address)
