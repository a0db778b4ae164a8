"""The body of a request as a frame: read up to a limit, by its Content-Type, and validated against a model."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import IO, cast

import polars as pl
from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wsgi import LimitedStream

from greendata.errors import BodyInvalid, BodyTooLarge, BodyUnsupported, FrameInvalid, Malformed
from greendata.errors.plural import counted
from greendata.formats.decoders import content_of, decode
from greendata.formats.format import Format
from greendata.formats.guards.gunzip import gunzip
from greendata.pool import pool
from greendata.pool.job import bypassing_queue_limit
from greendata.web.negotiation import BY_TYPE, bare

__all__ = ("MAX_BODY", "body")

MAX_BODY = 16 << 20  # bytes: some 100 000 rows of JSON, which take half a second of a core to check
CODINGS = {"identity": False, "gzip": True, "x-gzip": True}  # of a body, and whether it has to be decompressed


def body(model: type, *, max_bytes: int | None = None) -> pl.DataFrame:
    """Return the body of the current request in the schema of *model*, with values coerced by its rules.

    The ``Content-Type`` names the format: JSON (an array of rows or an object of columns), NDJSON, CSV with a header,
    an Arrow stream or Parquet. A body with ``Content-Encoding: gzip`` is decompressed. Other greenlets run while the
    body is read, decompressed and validated. ``request.get_data()`` and ``get_json()`` return the body as it was sent,
    before and after this call, for example to check a signature, or to log.

    Args:
        model: as for `greendata.validation.verbs.validate`.
        max_bytes: the limit in bytes, both compressed and decompressed; None uses ``GREENDATA_MAX_BODY``. Flask's
            ``MAX_CONTENT_LENGTH`` applies as well.

    Raises:
        BodyTooLarge, BodyUnsupported, Malformed, BodyInvalid: the extension responds with 413, 415, 400 and 422.

    Call in a request.

    Example:
        >>> from flask import Flask
        >>> from pydantic import BaseModel
        >>> class User(BaseModel):
        ...     id: int
        >>> with Flask("service").test_request_context("/", method="POST", json=[{"id": 1}]):
        ...     body(User).rows()
        [(1,)]
    """
    limit = cast(int, current_app.config.get("GREENDATA_MAX_BODY", MAX_BODY)) if max_bytes is None else max_bytes
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() not in CODINGS:
        raise BodyUnsupported("Content-Encoding", coding, CODINGS)
    is_gzip = CODINGS[coding.strip().lower()]
    found = _format_of(request.mimetype)
    if found is None:
        raise BodyUnsupported("Content-Type", bare(request.content_type or ""), [*BY_TYPE, "*/*+json"])
    if (request.content_length or 0) > limit:
        raise BodyTooLarge(limit)
    content = _content(found, limit)
    try:
        if not is_gzip:
            return decode(content, found, model=model, max_bytes=limit)
        content = pool.call(gunzip, content, limit)
        return bypassing_queue_limit(decode, content, found, model=model, max_bytes=limit)
    except FrameInvalid as invalid:
        raise BodyInvalid(invalid.failures) from invalid


def _format_of(media_type: str) -> Format | None:
    """Return the format that *media_type* names, or None. Types that end in ``+json`` are JSON (RFC 6839)."""
    return BY_TYPE.get(media_type, "json" if media_type.endswith("+json") else None)


def _content(format: Format, limit: int) -> bytes:
    """Return the whole body, even if it was read and cached before. `get_data` and the stream can read it again."""
    received = _Received(format, limit)
    try:
        content = content_of(received, limit)  # type: ignore[arg-type]  # it has the methods of a file that are used
    except BodyTooLarge:
        request.stream = cast(IO[bytes], LimitedStream(BytesIO(), 0, is_max=True))  # the rest is no body
        raise
    if content:
        request.stream = BytesIO(content)
        request.get_data()  # caches the body
        request.stream = BytesIO(content)
    else:
        with suppress(RequestEntityTooLarge):  # it was read before and not cached, up to Flask's limit
            content = request.get_data()
    if received.length is not None and received.length != len(content):
        raise Malformed(format, received.incomplete(len(content)))
    if len(content) > limit:
        raise BodyTooLarge(limit)
    return content


class _Received:
    """The incoming body. Faults of the client, or of the server that reads from it, raise errors of greendata.

    Args:
        format: the format that the request names.
        limit: the limit in bytes; Flask's may be lower.
    """

    def __init__(self, format: Format, limit: int) -> None:
        self.length = request.content_length  # None for a chunked body, in which missing chunks cannot be detected
        self._format = format
        self._limit = limit
        self._stream = request.stream
        self._count = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, or ``b""`` at the end."""
        left = size if self.length is None else self.length - self._count
        try:
            piece = self._stream.read(min(size, left))
        except RequestEntityTooLarge as error:  # raised at exactly Flask's limit, and when more is requested
            if not self._has_more():
                return b""
            raise BodyTooLarge(request.max_content_length or self._limit) from error
        except Exception as error:  # servers raise different errors for invalid chunks and for clients that left
            raise Malformed(self._format, self.incomplete(self._count)) from error
        self._count += len(piece)
        return piece

    def _has_more(self) -> bool:
        return bool(cast(IO[bytes], request.environ["wsgi.input"]).read(1))

    def incomplete(self, count: int) -> str:
        """Return the reason why the body is incomplete, of which *count* bytes were received."""
        count_text = f"{counted(count, 'byte')} of it" if self.length is None else f"{count} of its {self.length} bytes"
        return f"{count_text} received; it was cut short, or read before and not cached (get_data() caches it)"
