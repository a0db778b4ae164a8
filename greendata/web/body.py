"""The body of a request as a frame: read within a limit, by its Content-Type, and held against a model."""

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
from greendata.web.negotiation import BY_TYPE, bare

__all__ = ("MAX_BODY", "body")

MAX_BODY = 16 << 20  # bytes: some 100 000 rows of JSON, which take half a second of a core to check


def body(model: type, *, max_bytes: int | None = None) -> pl.DataFrame:
    """The body of the request at hand, in the schema of *model* and with values as it coerces them.

    The ``Content-Type`` says what it is: JSON (an array of rows or an object of columns), NDJSON, CSV with a header,
    an Arrow stream or Parquet. Reading and checking leave the hub to others. ``request.get_data()`` and ``get_json()``
    have it before and after: to check a signature, or to log.

    Args:
        model: what `greendata.validation.verbs.validate` takes.
        max_bytes: the limit; None takes ``GREENDATA_MAX_BODY``. Flask's ``MAX_CONTENT_LENGTH`` holds as well.

    Raises:
        BodyTooLarge, BodyUnsupported, Malformed, BodyInvalid: the extension answers 413, 415, 400 and 422.

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
    if coding.strip().lower() != "identity":
        raise BodyUnsupported("Content-Encoding", coding, ("identity",))
    found = BY_TYPE.get(request.mimetype)
    if found is None:
        raise BodyUnsupported("Content-Type", bare(request.content_type or ""), BY_TYPE)
    if (request.content_length or 0) > limit:
        raise BodyTooLarge(limit)
    try:
        return decode(_content(found, limit), found, model=model, max_bytes=limit)
    except FrameInvalid as invalid:
        raise BodyInvalid(invalid.failures) from invalid


def _content(format: Format, limit: int) -> bytes:
    """All of the body, also where it was read and kept before; `get_data` and the stream have it after this, too."""
    received = _Received(format, limit)
    try:
        content = content_of(received, limit)  # type: ignore[arg-type]  # of a file it has what is asked for
    except BodyTooLarge:
        request.stream = cast(IO[bytes], LimitedStream(BytesIO(), 0, is_max=True))  # nobody takes the rest for a body
        raise
    if content:
        request.stream = BytesIO(content)
        request.get_data()  # which keeps what it reads
        request.stream = BytesIO(content)
    else:
        with suppress(RequestEntityTooLarge):  # read before and not kept, up to Flask's limit
            content = request.get_data()
    if received.length is not None and received.length != len(content):
        raise Malformed(format, received.what_came(len(content)))
    if len(content) > limit:
        raise BodyTooLarge(limit)
    return content


class _Received:
    """The body as it comes in. What the client, or the server that reads for it, does wrong is an error of ours.

    Args:
        format: what the body is said to be.
        limit: in bytes; Flask's may be lower.
    """

    def __init__(self, format: Format, limit: int) -> None:
        self.length = request.content_length  # None where it comes in chunks: then nothing tells that some are missing
        self._format = format
        self._limit = limit
        self._stream = request.stream
        self._count = 0

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end."""
        left = size if self.length is None else self.length - self._count
        try:
            piece = self._stream.read(min(size, left))
        except RequestEntityTooLarge as error:  # at Flask's limit exactly, or when more than that is asked for
            if not self._has_more():
                return b""
            raise BodyTooLarge(request.max_content_length or self._limit) from error
        except Exception as error:  # each server has errors of its own, for chunks that lie and for clients that leave
            raise Malformed(self._format, self.what_came(self._count)) from error
        self._count += len(piece)
        return piece

    def _has_more(self) -> bool:
        return bool(cast(IO[bytes], request.environ["wsgi.input"]).read(1))

    def what_came(self, count: int) -> str:
        """Why the body is none, where *count* bytes of it can be had."""
        came = f"{counted(count, 'byte')} of it" if self.length is None else f"{count} of its {self.length} bytes"
        return f"{came} came; it was cut short, or read before and not kept (as get_data() keeps it)"
