"""The adapter with which a session of requests makes guarded connections."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NoReturn

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from greendata.errors import UrlRefused
from greendata.http.address_policy import AddressPolicy
from greendata.http.connections import UNCHECKED, GuardedConnection

if TYPE_CHECKING:
    import requests

__all__ = ("GuardedAdapter",)

HOSTS = 1_000  # whose connections are kept; with requests' default of ten, a crawl over more hosts reuses none
_CHECKED_ATTRIBUTE = "greendata_peer_was_checked"  # of a response


class GuardedAdapter(HTTPAdapter):
    """The transport adapter of a session whose connections *policy* checks. Safe from any thread.

    It fails closed. Requests are sent and responses are read only over a socket whose peer was checked. The session
    never gets another response, whichever methods requests and urllib3 use to make a connection.
    """

    def __init__(self, policy: AddressPolicy) -> None:
        self._pools = {
            "http": _pool_of(HTTPConnectionPool, _SessionConnection, policy),
            "https": _pool_of(HTTPSConnectionPool, _SessionHTTPSConnection, policy),
        }
        super().__init__(pool_connections=HOSTS, max_retries=0)

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
            raise UrlRefused(str(req.url), UNCHECKED)
        return super().build_response(req, resp)


class _SessionConnection(GuardedConnection):
    """A guarded connection over a socket of the process: gevent's if it has patched them."""

    @staticmethod
    def make_socket(family: int, kind: int) -> Any:
        return socket.socket(family, kind)

    def getresponse(self) -> Any:
        response = super().getresponse()
        setattr(response, _CHECKED_ATTRIBUTE, True)
        return response


class _SessionHTTPSConnection(_SessionConnection, HTTPSConnection):
    scheme = "https"


def _pool_of(
    pool: type[HTTPConnectionPool], connection: type[_SessionConnection], policy: AddressPolicy
) -> type[HTTPConnectionPool]:
    return type(pool.__name__, (pool,), {"ConnectionCls": type(connection.__name__, (connection,), {"policy": policy})})
