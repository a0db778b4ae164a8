"""HTTP servers on loopback that send given bytes, also invalid ones, from native threads."""

from __future__ import annotations

import _socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from gevent.monkey import get_original

from tests.support.gates import rest

__all__ = ("Server", "answer", "drip", "serving", "serving_unasked")

_start_thread: Any = get_original("_thread", "start_new_thread")
_sleep: Any = get_original("time", "sleep")


class Server:
    """A listening server. Attributes: ``url`` up to the path, ``port``, and the ``requests`` it got, as text."""

    def __init__(self, host: str, respond: Callable[[str], Iterator[bytes]]) -> None:
        self.requests: list[str] = []
        self._open: set[Any] = set()  # connections; the listener adds each one, and its thread removes it
        self._respond = respond
        self._listener: Any = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)  # the C class, which is not patched
        self._listener.bind((host, 0))
        self._listener.listen(50)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        _start_thread(self._serve, ())

    def close(self) -> None:
        self._listener.shutdown(_socket.SHUT_RDWR)
        self._listener.close()
        self.wait_idle()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                number, _ = self._listener._accept()
                connection = _socket.socket(fileno=number)
                self._open.add(connection)
                _start_thread(self._talk, (connection,))

    def wait_idle(self) -> None:
        """Wait until every connection is closed."""
        while self._open:
            rest()

    def _talk(self, connection: Any) -> None:
        try:
            with suppress(OSError), closing(connection):  # the client has left
                self._answer(connection)
        finally:
            self._open.discard(connection)

    def _answer(self, connection: Any) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            if not (piece := connection.recv(4096)):
                return
            request += piece
        self.requests.append(request.decode())
        for piece in self._respond(request.split(b" ", 2)[1].decode()):
            connection.sendall(piece)


def answer(
    body: bytes = b"", content_type: str = "text/csv", status: str = "200 OK", length: int | None = None, **headers: str
) -> bytes:
    """Return a complete response as bytes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def serving(pages: dict[str, bytes | Callable[[], Iterator[bytes]]], host: str = "127.0.0.1") -> Iterator[Server]:
    """Run a server whose paths respond with bytes, or with the chunks that a function yields."""

    def respond(path: str) -> Iterator[bytes]:
        page = pages.get(path.partition("?")[0], answer(status="404 Not Found"))
        yield from iter([page]) if isinstance(page, bytes) else page()

    server = Server(host, respond)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def serving_unasked(page: Callable[[], Iterator[bytes]]) -> Iterator[Server]:
    """Run a server that responds to each connection before a request arrives."""

    class Hasty(Server):
        def _answer(self, connection: Any) -> None:
            for piece in page():
                connection.sendall(piece)

    server = Hasty("127.0.0.1", lambda _: page())
    try:
        yield server
    finally:
        server.close()


def drip(begin: bytes) -> Callable[[], Iterator[bytes]]:
    """Yield *begin*, and then a byte every 20 ms, forever."""

    def dripping() -> Iterator[bytes]:
        yield begin
        while True:
            _sleep(0.02)
            yield b"1"

    return dripping
