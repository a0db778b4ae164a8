"""The body of a request as a frame: read within a limit, by its Content-Type, and held against a model."""

from __future__ import annotations

from typing import cast

import polars as pl
from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge

from greendata.errors import BodyInvalid, BodyTooLarge, BodyUnsupported, FrameInvalid
from greendata.frames.decoders import decode
from greendata.web.negotiation import BY_TYPE, bare

__all__ = ("MAX_BODY", "body")

MAX_BODY = 16 << 20  # bytes: some 100 000 rows of JSON, which take half a second of a core to check


def body(model: type, *, max_bytes: int | None = None) -> pl.DataFrame:
    """The body of the request at hand, in the schema of *model* and with values as it coerces them.

    The ``Content-Type`` says what it is: JSON (an array of rows or an object of columns), NDJSON, CSV with a header,
    an Arrow stream or Parquet. Reading and checking leave the hub to others.

    Args:
        model: what `greendata.frames.validation.validate` takes.
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
        return decode(request.stream, found, model=model, max_bytes=limit)
    except FrameInvalid as invalid:
        raise BodyInvalid(invalid.failures) from invalid
    except RequestEntityTooLarge as error:
        raise BodyTooLarge(cast(int, request.max_content_length)) from error
