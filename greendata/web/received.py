"""The incoming body of a request. Faults of the client, or of the server that reads it, raise errors of greendata."""

from __future__ import annotations

from time import perf_counter
from typing import IO, cast

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from greendata.errors import BodyTooLarge, Malformed
from greendata.errors.plural import counted
from greendata.hub.pacing import BUDGET, breathe

__all__ = ("Received",)

# To read of a chunked body without a pause. A server parses each chunk in Python: so many chunks of a byte take 5 ms.
CHUNKED_BYTES = 1 << 10


class Received:
    """The incoming body of the current request, as a binary file.

    Args:
        stream: Flask's stream of the body.
        format: the name of the format that the request names.
        limit: the limit in bytes; Flask's may be lower.

    Attributes:
        length: the length that the client has announced, or None.
        is_over: True once the end has been read.
    """

    def __init__(self, stream: IO[bytes], format: str, limit: int) -> None:
        self.length = request.content_length  # None for a chunked body, in which missing chunks cannot be detected
        self.is_over = False
        self._format = format
        self._limit = limit
        self._stream = stream
        self._count = 0
        self._next_pause = perf_counter() + BUDGET

    def read(self, size: int) -> bytes:
        """Return the next bytes, or ``b""`` at the end.

        Raises:
            BodyTooLarge: the body is larger than Flask's limit.
            Malformed: the body is cut short, or has invalid chunks.
        """
        left = CHUNKED_BYTES if self.length is None else self.length - self._count
        try:
            piece = self._stream.read(min(size, left))
        except RequestEntityTooLarge as error:  # raised at exactly Flask's limit, and when more is requested
            if not self._has_more():
                return b""
            raise BodyTooLarge(request.max_content_length or self._limit) from error
        except Exception as error:  # servers raise different errors for invalid chunks and for clients that left
            raise Malformed(self._format, self.incomplete(self._count)) from error
        self._count += len(piece)
        self.is_over = not piece
        return piece

    def read_some(self, size: int) -> bytes:
        """Return the next bytes, for a reader that neither counts them nor lets other greenlets run.

        Raises:
            BodyTooLarge, Malformed: as `read`; also if the body is larger than the limit.
        """
        if perf_counter() >= self._next_pause:
            breathe()
            self._next_pause = perf_counter() + BUDGET
        piece = self.read(size)
        if self._count > self._limit:
            raise BodyTooLarge(self._limit)
        return piece

    def check_complete(self, count: int | None = None) -> None:
        """Raise Malformed if *count* bytes, those that were read if None, are fewer than the client has announced."""
        count = self._count if count is None else count
        if self.length is not None and self.length != count:
            raise Malformed(self._format, self.incomplete(count))

    def _has_more(self) -> bool:
        return bool(cast(IO[bytes], request.environ["wsgi.input"]).read(1))

    def incomplete(self, count: int) -> str:
        """Return the reason why the body is incomplete, of which *count* bytes were received."""
        count_text = f"{counted(count, 'byte')} of it" if self.length is None else f"{count} of its {self.length} bytes"
        return f"{count_text} received; it was cut short, or read before and not cached (get_data() caches it)"
