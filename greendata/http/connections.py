"""Connections to checked addresses only, whatever sends requests over them.

`greendata.http.connect` resolves the name, checks its addresses, and connects to one that was checked. As a second
guard, the address of the connected socket's peer is checked before a byte is sent, whichever way urllib3 connected it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from greendata.errors import UrlRefused
from greendata.http.address_policy import AddressPolicy
from greendata.http.connect import connect
from greendata.http.framed_response import FramedResponse
from greendata.http.timed_socket import TimedSocket, limited_to, seconds_left
from greendata.internals.urllib3 import CheckingConnection

__all__ = ("GuardedConnection", "UNCHECKED")

UNCHECKED = "the address that it was fetched from was not checked"


class GuardedConnection(CheckingConnection):
    """A connection of urllib3 whose addresses `policy` checks, and whose steps end at the deadline of the request.

    It fails closed: a request is sent, and a response read, only over a socket whose peer was checked.
    """

    policy: ClassVar[AddressPolicy]
    response_class = FramedResponse
    scheme: ClassVar[str] = "http"
    timeout: Any
    sock: Any

    @staticmethod
    @abstractmethod
    def make_socket(family: int, kind: int) -> Any:
        """Return a new socket."""

    def open_socket(self, host: str, timeout: Any) -> Any:
        """Return a socket that is connected to a checked address of *host*."""
        return connect(
            host.strip("[]"),
            self.port,
            self.policy,
            url=self._url,
            timeout=seconds_left() if timeout is None else min(timeout, seconds_left()),
            options=self.socket_options or (),
            make_socket=self.make_socket,
        )

    def check_peer(self, sock: Any) -> None:
        """Raise if the peer of the connected *sock* is not allowed.

        Raises:
            UrlRefused: it is not.
        """
        address = str(sock.getpeername()[0])
        if not self.policy.allow(address):
            raise UrlRefused(self._url, f"its address {address} is not public")

    def connect(self) -> None:
        """Connect to the host.

        Raises:
            UrlRefused: none of its addresses is allowed, or the peer is not.
        """
        self.timeout = min(self.timeout or seconds_left(), seconds_left())
        with limited_to(self.timeout):
            super().connect()
        try:
            self.check_peer(self.sock)  # again: another version of urllib3 may connect in another way
        except BaseException:
            self.close()
            raise
        self.sock = _CheckedSocket(self.sock)

    def send(self, data: Any) -> None:
        """Send *data* over a checked socket.

        Raises:
            UrlRefused: the peer of the socket was not checked, or is not allowed.
        """
        if self.sock is None and self.auto_open:
            self.connect()
        self._refuse_unchecked()
        super().send(data)

    def getresponse(self) -> Any:
        """Return the response, read from a checked socket.

        Raises:
            UrlRefused: the peer of the socket was not checked.
        """
        self._refuse_unchecked()
        sock = self.sock
        response = super().getresponse()
        if sock is not None:
            sock.end_headers()
        return response

    def _refuse_unchecked(self) -> None:
        if self.sock is not None and not isinstance(self.sock, _CheckedSocket):
            self.close()
            raise UrlRefused(self._url, UNCHECKED)

    @property
    def _url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class _CheckedSocket(TimedSocket):
    """A socket whose peer was checked."""
