"""Connections that are kept for the next request to their host, all in the greenlets of one thread.

urllib3's own pools are not used. They close their connections in finalizers, which take a patched lock at any moment at
which the garbage collector runs (github.com/gevent/gevent/issues/1957); they keep those of few hosts; and each costs a
queue with two locks. The connections here wait in gevent, whether or not it has patched the process.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from time import monotonic
from typing import Any

import certifi
import gevent.socket
import gevent.ssl
from urllib3.connection import HTTPSConnection

from greendata.http.address_policy import AddressPolicy
from greendata.http.connections import GuardedConnection
from greendata.hub.closing import Closing
from greendata.pool import pool
from greendata.pool.job import bypassing_queue_limit

__all__ = ("HubConnection", "HubTLSConnection", "KeptConnections")

IDLE = 20.0  # seconds that a connection is kept; servers close them after 5 to 75 seconds
KEPT = 256  # idle connections; each is a file descriptor here and at the server


class HubConnection(GuardedConnection):
    """A guarded connection that waits in the hub of the calling thread.

    Attributes:
        origin: ``scheme://host:port``.
        has_served: True once a response was read from it.
    """

    origin = ""
    has_served = False

    @staticmethod
    def make_socket(family: int, kind: int) -> Any:
        """Return a new socket of gevent."""
        return gevent.socket.socket(family, kind)

    def get(self, path: str, headers: dict[str, str]) -> HTTPResponse:
        """Send a GET request, and return the response with its body unread.

        The response is that of http.client: urllib3's own costs 40 microseconds more.

        Raises:
            UrlRefused: no address of the host is allowed.
            HTTPException, HTTPError, OSError: there is no response.
        """
        self.putrequest("GET", path, skip_accept_encoding=True)
        for name, value in headers.items():
            self.putheader(name, value)
        self.endheaders()
        self._refuse_unchecked()
        sock = self.sock
        response = HTTPConnection.getresponse(self)
        sock.end_headers()
        return response

    @property
    def is_alive(self) -> bool:
        """False if the server has closed the connection, or has sent something unasked."""
        return bool(self.sock.is_quiet)


class HubTLSConnection(HubConnection, HTTPSConnection):
    """The same over TLS."""

    scheme = "https"


class KeptConnections(Closing):
    """Guarded connections for the greenlets of one thread; idle ones are kept, by origin. Call from that thread.

    No timer closes them: those that have been idle for `IDLE` seconds are closed when the next one is put here, and all
    of them by `close`.

    Args:
        policy: checks the address of each connection.
        certificates: the path of a file with certificates of authorities to trust, in PEM; None for those that
            browsers trust.

    Attributes:
        made: the number of connections that were made.
    """

    def __init__(self, policy: AddressPolicy, *, certificates: str | None = None) -> None:
        self.made = 0
        self._certificates = certificates
        self._plain: type[HubConnection] = type("HubConnection", (HubConnection,), {"policy": policy})
        self._tls: type[HubTLSConnection] = type("HubTLSConnection", (HubTLSConnection,), {"policy": policy})
        self._context: Any = None  # of all TLS connections; made with the first
        self._idle: dict[str, list[HubConnection]] = {}  # by origin; the last one was used last
        self._since: OrderedDict[HubConnection, float] = OrderedDict()  # all of them, by the time of their last use
        self._is_closed = False

    def take(self, origin: str, scheme: str, host: str, port: int, *, fresh: bool = False) -> HubConnection:
        """Return an idle connection to *origin*, or a new one that is not connected yet.

        Args:
            fresh: return a new one in any case.
        """
        kept = None if fresh else self._idle.get(origin)
        while kept:
            connection = kept[-1]
            self._remove(connection)
            if connection.is_alive:
                return connection
            connection.close()
        self.made += 1
        connection = (
            self._tls(host, port, ssl_context=self._tls_context()) if scheme == "https" else self._plain(host, port)
        )
        connection.origin = origin
        return connection

    def put(self, connection: HubConnection) -> None:
        """Keep *connection*, whose last response was read to its end, for the next request to its origin."""
        if self._is_closed or connection.sock is None:
            connection.close()
            return
        connection.has_served = True
        self._idle.setdefault(connection.origin, []).append(connection)
        now = self._since[connection] = monotonic()
        while len(self._since) > KEPT or next(iter(self._since.values())) < now - IDLE:
            oldest = next(iter(self._since))
            self._remove(oldest)
            oldest.close()

    def close(self) -> None:
        """Close the idle connections, and each of the others when its request has ended."""
        self._is_closed = True
        while self._since:
            connection = next(iter(self._since))
            self._remove(connection)
            connection.close()

    def _remove(self, connection: HubConnection) -> None:
        del self._since[connection]
        kept = self._idle[connection.origin]
        kept.remove(connection)
        if not kept:
            del self._idle[connection.origin]

    def _tls_context(self) -> Any:
        if self._context is None:  # two greenlets may both make one, and either serves
            make = partial(pool.call, _tls_context, self._certificates or certifi.where())
            self._context = bypassing_queue_limit(make)
        return self._context


def _tls_context(certificates: str) -> Any:
    """Return a context for TLS connections of gevent. It reads 150 certificates, which takes 15 ms."""
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = gevent.ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(certificates)
    return context
