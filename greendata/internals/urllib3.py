"""The private names of urllib3 that greendata uses.

There is no public hook for the way in which a connection makes its socket, nor one between the connection of the socket
and the TLS handshake. A urllib3 without these names is still safe: `greendata.http.adapter` checks each socket again
before it sends a request or reads a response.
"""

from __future__ import annotations

import socket
import sys
from abc import abstractmethod
from typing import Any

from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

__all__ = ("CheckingConnection",)


class CheckingConnection(HTTPConnection):
    """A connection whose socket `make_socket` connects, and whose peer is checked before the first byte is sent."""

    @abstractmethod
    def open_socket(self, host: str, timeout: Any) -> Any:
        """Return a socket that is connected to *host*, which may have brackets or a dot at its end."""

    @abstractmethod
    def check_peer(self, sock: Any) -> None:
        """Raise if the peer of the connected *sock* is not allowed."""

    def _new_conn(self) -> Any:
        try:
            sock = self.open_socket(self._dns_host, self.timeout)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection to {self.host} in time: {error}") from error
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection could be made: {error}") from error
        try:
            self.check_peer(sock)
        except BaseException:
            sock.close()
            raise
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock
