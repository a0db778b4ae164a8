"""A response whose body begins and ends where RFC 9112 says. That of http.client does so for usual headers only."""

from __future__ import annotations

from http.client import NO_CONTENT, NOT_MODIFIED, SWITCHING_PROTOCOLS, HTTPException, HTTPResponse
from typing import Any

__all__ = ("FramedResponse",)

FINAL = 200  # the lowest status of a response that is not followed by another one


class FramedResponse(HTTPResponse):
    """A response of http.client. Interim ones before it, such as status 103 (early hints), are skipped.

    Its `chunked` is right for every form of the header, where http.client would return the sizes of the chunks as a
    part of the body.
    """

    chunked: bool
    chunk_left: int | None
    headers: Any
    msg: Any

    def begin(self) -> None:
        """Read the status and the headers.

        Raises:
            HTTPException: it is not a response, or it is encoded or continued in a way that was not asked for.
        """
        super().begin()
        while self.status < FINAL:
            if self.status == SWITCHING_PROTOCOLS:
                raise HTTPException("it switches to another protocol, which was not asked for")
            self.headers = self.msg = None  # so that it begins again
            super().begin()
        if values := self.headers.get_all("Transfer-Encoding"):
            self._frame(", ".join(values))

    def _frame(self, coding: str) -> None:
        names = {name.strip().lower() for name in coding.split(",")} - {"", "identity"}
        if names - {"chunked"}:
            raise HTTPException(f"its transfer encoding {coding!r} is not supported")
        if names and not self.chunked:  # "identity, chunked", or a space after it
            self.chunked, self.chunk_left, self.length = True, None, None
        if self.status in (NO_CONTENT, NOT_MODIFIED):  # they have no body, whatever they say
            self.chunked, self.length = False, 0
