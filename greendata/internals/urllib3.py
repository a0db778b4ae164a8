"""The private name of urllib3 that greendata depends on.

Nothing public comes between the moment a socket is connected and a TLS handshake. A urllib3 that does without this
name is no danger: `greendata.http.adapter` looks at each socket again before it sends a request or reads an answer.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from urllib3.connection import HTTPConnection

__all__ = ("CheckingConnection",)


class CheckingConnection(HTTPConnection):
    """A connection that looks at the peer of its socket before the first byte is sent."""

    @abstractmethod
    def check_peer(self, sock: Any) -> None:
        """Raise if the peer of the connected *sock* may not be talked to."""

    def _new_conn(self) -> Any:
        sock = super()._new_conn()
        try:
            self.check_peer(sock)
        except BaseException:
            sock.close()
            raise
        return sock
