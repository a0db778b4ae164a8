"""The absolute deadline of a request, and sockets that keep it.

A socket's timeout restarts with each byte, so a server that sends bytes slowly could hold a connection forever. Here
each step of a request gets the time that is left until its deadline. Headers are limited in size as well: http.client
would read 100 of 64 kB each, and interim responses without end.

A server that sends bytes fast could hold the hub: gevent's sockets do not switch to it as long as there is something to
read, such as chunks of one byte, or trailers without end. So reading pauses for other greenlets.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextvars import ContextVar
from http.client import HTTPException
from socket import MSG_PEEK
from time import monotonic
from typing import Any

from gevent import Timeout
from gevent.monkey import is_module_patched

from greendata.hub.contexts import contextmanager
from greendata.hub.pacing import BUDGET, breathe
from greendata.internals.gevent import get_hub_if_exists, get_native_socket

__all__ = ("MAX_HEADERS", "TimedSocket", "limited_to", "request_deadline", "seconds_left")

PASSED = "the deadline has passed"
NEGATIVE = "the size of a chunk is negative"
_BUFFER = 8 * 1024  # bytes that a reader asks for; by default that is more than MAX_HEADERS since Python 3.14
MAX_HEADERS = 64 * 1024  # bytes before the body; browsers allow 256 kB, and servers send less than 8 kB

# The request of this greenlet or thread: its deadline on time.monotonic's clock, and the seconds that a read may take.
request_deadline: ContextVar[tuple[float, float]] = ContextVar("greendata.fetch.request_deadline")


def seconds_left() -> float:
    """Return the seconds until the deadline of the request.

    Raises:
        TimeoutError: the deadline has passed.
    """
    left = request_deadline.get()[0] - monotonic()
    if left <= 0:
        raise TimeoutError(PASSED)
    return left


@contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Limit the block, with its connection attempts and handshake, if it waits in a hub.

    A socket's timeout restarts with each of these steps. In a thread without a hub, only the deadline of the job in the
    pool applies.
    """
    if get_hub_if_exists() is None and not is_module_patched("socket"):
        yield
        return
    with Timeout(seconds, TimeoutError("the time for the connection is over")):
        yield


class TimedSocket:
    """A connected socket whose reads end at the deadline of the request, however slowly bytes arrive."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._reader: _TimedReader | None = None  # of the current response

    def makefile(self, mode: str, *_args: object, **_options: object) -> io.BufferedReader:
        """Return a reader, which http.client requests for each response."""
        self._reader = _TimedReader(self._sock, self._sock.makefile(mode, buffering=0))
        return _BoundedReader(self._reader, _BUFFER)

    def end_headers(self) -> None:
        """Stop limiting what is read, because the headers of the response are complete."""
        if self._reader is not None:
            self._reader.left = None
            self._reader = None

    @property
    def is_quiet(self) -> bool:
        """True if there is nothing to read, not even the end of the connection. For sockets of gevent."""
        try:
            get_native_socket(self._sock).recv(1, MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def sendall(self, data: Any) -> None:
        """Send all of *data* before the deadline."""
        self._sock.settimeout(seconds_left())
        self._sock.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _BoundedReader(io.BufferedReader):
    """A reader that never reads until the end: http.client does so for a chunk whose size is -1."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise HTTPException(NEGATIVE)
        return super().read(size)

    def read1(self, size: int = -1, /) -> bytes:
        if size < 0:
            raise HTTPException(NEGATIVE)
        return super().read1(size)


class _TimedReader(io.RawIOBase):
    """The bytes from a socket, until the deadline of the request in whose context it is made. Used by one greenlet."""

    def __init__(self, sock: Any, raw: Any) -> None:
        self._sock = sock
        self._raw = raw
        self._until, self._silence = request_deadline.get()
        self._next_pause = monotonic() + BUDGET
        self.left: int | None = MAX_HEADERS  # bytes until the headers have to be complete, or None once they are

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.left is not None and self.left <= 0:
            raise HTTPException(f"the headers have more than {MAX_HEADERS} bytes")
        if (begun := monotonic()) >= self._next_pause:
            breathe()
            begun = monotonic()
            self._next_pause = begun + BUDGET
        if begun >= self._until:
            raise TimeoutError(PASSED)
        self._sock.settimeout(min(self._until - begun, self._silence))
        count: int | None = self._raw.readinto(buffer)
        if (ended := monotonic()) - begun >= BUDGET:  # it has waited, while other greenlets ran
            self._next_pause = ended + BUDGET
        if self.left is not None:
            self.left -= count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
