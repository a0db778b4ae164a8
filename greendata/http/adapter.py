"""Connections that check the address of their peer before they send a byte, and that have an absolute deadline.

A check of the host name, or of the addresses it resolves to, is not enough: the next lookup may return others (DNS
rebinding). So the address of the connected socket's peer is checked. A socket's timeout restarts with each byte, so a
server that sends bytes slowly could hold a connection forever; here each read gets the time left until the deadline.
"""

from __future__ import annotations

import io
import ipaddress
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from gevent import Timeout
from gevent.monkey import is_module_patched
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from greendata.errors import BadArgument, UrlRefused
from greendata.hub.contexts import contextmanager
from greendata.internals.urllib3 import CheckingConnection

if TYPE_CHECKING:
    import requests

__all__ = (
    "AddressPolicy",
    "GuardedAdapter",
    "request_deadline",
    "seconds_left",
)

# The request of this greenlet or thread: its deadline on time.monotonic's clock, and the seconds that a read may take.
request_deadline: ContextVar[tuple[float, float]] = ContextVar("greendata.fetch.request_deadline")

_SITE_LOCAL = ipaddress.ip_network("fec0::/10")  # formerly private networks, which Python considers global
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def seconds_left() -> float:
    """Return the seconds until the deadline of the request.

    Raises:
        TimeoutError: the deadline has passed.
    """
    left = request_deadline.get()[0] - monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


class AddressPolicy:
    """The addresses that may be connected to: public ones, and those in *allowed*.

    Args:
        allowed: True for every address, or a list of addresses and networks (``10.1.0.0/16``).

    Raises:
        BadArgument: *allowed* is neither.

    Example:
        >>> policy = AddressPolicy(["10.1.0.0/16"])
        >>> [policy.allow(ip) for ip in ("8.8.8.8", "10.1.2.3", "127.0.0.1", "::ffff:127.0.0.1")]
        [True, True, False, False]
    """

    def __init__(self, allowed: bool | Iterable[str]) -> None:  # noqa: FBT001 - the value of allow_private=
        self._all = allowed is True
        try:
            self._networks = () if isinstance(allowed, bool) else tuple(map(ipaddress.ip_network, allowed))
        except (TypeError, ValueError) as error:
            raise BadArgument("allow_private", allowed, "True, False, or addresses and networks") from error

    def allow(self, address: str) -> bool:
        """Return True if *address*, of a connected peer, is allowed."""
        if self._all:
            return True
        ip = _embedded_ipv4(ipaddress.ip_address(address.partition("%")[0]))
        if any(ip in network for network in self._networks):
            return True
        return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip in _SITE_LOCAL)


def _embedded_ipv4(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 address embeds, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)


class GuardedAdapter(HTTPAdapter):
    """The transport adapter of a session whose connections *policy* checks. Safe from any thread.

    It fails closed. Requests are sent and responses are read only over a socket whose peer was checked. The session
    never gets another response, whichever methods requests and urllib3 use to make a connection.
    """

    def __init__(self, policy: AddressPolicy) -> None:
        self._pools = {
            "http": _pool_of(HTTPConnectionPool, _GuardedConnection, policy),
            "https": _pool_of(HTTPSConnectionPool, _GuardedHTTPSConnection, policy),
        }
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Create the pool manager, with pools of guarded connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **_options: Any) -> NoReturn:
        """Raise, since a proxy connects to addresses that cannot be checked here.

        Raises:
            UrlRefused: always.
        """
        raise UrlRefused(proxy, "a proxy would connect to addresses that cannot be checked here")

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Build the response for the session, if it came over a guarded connection.

        Raises:
            UrlRefused: it came over another connection. Its body is not read.
        """
        if not getattr(resp, _CHECKED_ATTRIBUTE, False):
            resp.close()
            raise UrlRefused(str(req.url), _UNCHECKED)
        return super().build_response(req, resp)


class _GuardedConnection(CheckingConnection):
    policy: ClassVar[AddressPolicy]
    scheme: ClassVar[str] = "http"
    timeout: Any
    sock: Any

    def check_peer(self, sock: Any) -> None:
        address = str(sock.getpeername()[0])
        if not self.policy.allow(address):
            raise UrlRefused(self._url, f"its address {address} is not public")

    def connect(self) -> None:
        self.timeout = min(self.timeout or seconds_left(), seconds_left())
        with _deadline_timeout():
            super().connect()
        try:
            self.check_peer(self.sock)  # again: another version of urllib3 may connect in another way
        except BaseException:
            self.close()
            raise
        self.sock = _CheckedSocket(self.sock)

    def send(self, data: Any) -> None:
        if self.sock is None and self.auto_open:
            self.connect()
        self._refuse_unchecked()
        super().send(data)

    def getresponse(self) -> Any:
        self._refuse_unchecked()
        response = super().getresponse()
        setattr(response, _CHECKED_ATTRIBUTE, True)
        return response

    def _refuse_unchecked(self) -> None:
        if self.sock is not None and not isinstance(self.sock, _CheckedSocket):
            self.close()
            raise UrlRefused(self._url, _UNCHECKED)

    @property
    def _url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class _GuardedHTTPSConnection(_GuardedConnection, HTTPSConnection):
    scheme = "https"


def _pool_of(
    pool: type[HTTPConnectionPool], connection: type[_GuardedConnection], policy: AddressPolicy
) -> type[HTTPConnectionPool]:
    return type(pool.__name__, (pool,), {"ConnectionCls": type(connection.__name__, (connection,), {"policy": policy})})


_CHECKED_ATTRIBUTE = "greendata_peer_was_checked"  # of a response
_UNCHECKED = "the address that it was fetched from was not checked"


@contextmanager
def _deadline_timeout() -> Iterator[None]:
    """Limit the block to the deadline, with its name lookup, connection attempts and handshake, if sockets are patched.

    A socket's timeout restarts with each of these steps. Without gevent's patch, only the deadline of the job in the
    pool applies.
    """
    if not is_module_patched("socket"):
        yield
        return
    with Timeout(seconds_left(), TimeoutError("the deadline has passed")):
        yield


class _CheckedSocket:
    """A socket whose peer was checked. Its reads end at the deadline of the request, however slowly bytes arrive."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def makefile(self, mode: str, *_args: object, **_options: object) -> io.BufferedReader:
        """Return a reader, which http.client requests for each response."""
        return io.BufferedReader(_TimedReader(self._sock, self._sock.makefile(mode, buffering=0)))

    def sendall(self, data: Any) -> None:
        """Send all of *data* before the deadline."""
        self._sock.settimeout(seconds_left())
        self._sock.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: Any, raw: Any) -> None:
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(min(seconds_left(), request_deadline.get()[1]))
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
