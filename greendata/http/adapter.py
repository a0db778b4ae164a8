"""Connections to checked addresses only, and the adapter with which a session of requests makes them.

`greendata.http.connect` resolves the name, checks its addresses, and connects to one that was checked. As a second
guard, the address of the connected socket's peer is checked before a byte is sent, whichever way urllib3 connected it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from greendata.errors import UrlRefused
from greendata.http.address_policy import AddressPolicy
from greendata.http.connect import connect
from greendata.http.timed_socket import TimedSocket, limited_by_deadline, seconds_left
from greendata.internals.urllib3 import CheckingConnection

if TYPE_CHECKING:
    import requests

__all__ = ("GuardedAdapter",)

_CHECKED_ATTRIBUTE = "greendata_peer_was_checked"  # of a response
_UNCHECKED = "the address that it was fetched from was not checked"


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

    def open_socket(self, host: str, timeout: Any) -> Any:
        seconds = seconds_left() if timeout is None else min(timeout, seconds_left())
        options = self.socket_options or ()
        return connect(
            host.strip("[]"), self.port, self.policy, url=self._url, timeout=seconds, options=options
        )

    def check_peer(self, sock: Any) -> None:
        address = str(sock.getpeername()[0])
        if not self.policy.allow(address):
            raise UrlRefused(self._url, f"its address {address} is not public")

    def connect(self) -> None:
        self.timeout = min(self.timeout or seconds_left(), seconds_left())
        with limited_by_deadline():
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


class _CheckedSocket(TimedSocket):
    """A socket whose peer was checked."""
