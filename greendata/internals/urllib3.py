"""The private name of urllib3 that greendata uses.

There is no public hook between the connection of a socket and the TLS handshake. A urllib3 without this name is still
safe: `greendata.http.adapter` checks each socket again before it sends a request or reads a response.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from urllib3.connection import HTTPConnection

__all__ = ("CheckingConnection",)


class CheckingConnection(HTTPConnection):
    """A connection that checks the peer of its socket before the first byte is sent."""

    @abstractmethod
    def check_peer(self, sock: Any) -> None:
        """Raise if the peer of the connected *sock* is not allowed."""

    def _new_conn(self) -> Any:
        sock = super()._new_conn()
        try:
            self.check_peer(sock)
        except BaseException:
            sock.close()
            raise
        return sock
