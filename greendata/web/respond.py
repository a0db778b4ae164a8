"""Frames as responses: in the format that the client asks for, streamed while the query runs.

The first chunk is made before the headers are sent, so an error before that sets the status. A later error leaves the
body unfinished, which clients of HTTP/1.1 notice; for clients of HTTP/1.0 the connection is reset. A slow reader
occupies no worker, and memory for only a few batches.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from errno import ECONNRESET
from typing import cast
from urllib.parse import quote

import polars as pl
from flask import Response, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.http import dump_options_header

from greendata.errors import ClientGone, JobCancelled, NotAcceptable, NotWritable
from greendata.formats.encoders import Chunks, encode
from greendata.formats.format import FORMATS, MEDIA_TYPES, SUFFIXES, Format
from greendata.formats.text_encode import unwritable
from greendata.hub.result import Result
from greendata.observe.running import REASON as CANCELLED_BY_OPERATOR
from greendata.pool.job import bypass_queue_limit
from greendata.web.client import reset_of
from greendata.web.negotiation import acceptable, is_for_excel, type_of
from greendata.web.scope import current_scope

__all__ = ("respond",)

Frames = pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]

COMPRESSED: tuple[Format, ...] = ("parquet",)  # already compressed: HTTP compression would cost time and save nothing
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]+")
LONGEST = 200  # characters of a file name


def respond(
    data: Frames | Result[pl.DataFrame] | Result[pl.LazyFrame],
    format: Format | None = None,
    *,
    filename: str | None = None,
    escape_formulas: bool = False,
    include_bom: bool = False,
) -> Response:
    r"""Return a response with the rows of *data*, as JSON, NDJSON, CSV, an Arrow stream or Parquet.

    Args:
        data: a frame, a query (it runs while its result is sent), frames of one schema, or a result of these.
        format: the format; None lets the client choose, see `greendata.web.negotiation`. If the client's first
            choice cannot store the columns (CSV cannot store lists), its next choice is used. For an iterable of
            frames, which can be read only once, there is no next choice.
        filename: the name under which a browser saves the response; the format's suffix is added if it has none. It
            may come from the client: characters that do not belong in a file's name are replaced.
        escape_formulas: in CSV, prevent spreadsheets from reading text as a formula.
        include_bom: in CSV, begin with a byte order mark, without which Excel assumes another encoding. A client that
            wants it asks for ``?excel``.

    Raises:
        FormatUnknown, NotAcceptable: the client's choice; the extension responds with 400 and 406.
        BadChoice: *format* is not a format.
        NotIterable, NotAFrame, NotWritable: *data* cannot be sent, or not in the given *format*.

    An error of the query before the first chunk is raised here. Call in a request.

    Example:
        >>> from flask import Flask
        >>> with Flask("service").test_request_context("/?format=csv"):
        ...     respond(pl.DataFrame({"a": [1, 2]})).get_data(as_text=True)
        'a\n1\n2\n'
    """
    source = data.get() if isinstance(data, Result) else data
    label = request.endpoint or "respond"

    options = {"escape_formulas": escape_formulas, "include_bom": include_bom or is_for_excel(request)}

    def stream_in(chosen: Format) -> _Stream:
        return _Stream(encode(source, chosen, **options, label=label), label)

    if format is None:
        chosen, stream = _first_that_can(stream_in, is_once=not isinstance(source, pl.DataFrame | pl.LazyFrame))
    else:
        chosen, stream = format, stream_in(format)
    headers = Headers({"X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"})
    if format is None:
        headers["Vary"] = "Accept"
    if chosen in COMPRESSED:
        headers["Cache-Control"] = "no-transform"
    if filename is not None:
        headers["Content-Disposition"] = _disposition(filename, SUFFIXES[chosen])
    return Response(stream, content_type=MEDIA_TYPES[chosen], headers=headers)


def _first_that_can(stream_in: Callable[[Format], _Stream], *, is_once: bool) -> tuple[Format, _Stream]:
    """Return the client's first choice that can store the columns, and the stream in that format."""
    refused: NotWritable | None = None
    for chosen in acceptable(request):
        try:
            return chosen, stream_in(chosen)
        except NotWritable as error:
            if error.format != chosen:  # raised by the service
                raise
            refused = refused or error
            if is_once:
                break
    assert refused is not None
    schema = pl.Schema(cast("dict[str, pl.DataType]", refused.columns))
    others = [type_of(name) for name in FORMATS if not unwritable(schema, name)]
    if not others:  # no choice of the client would help
        raise refused
    raise NotAcceptable(request.headers.get("Accept", ""), others, refused.what) from refused


class _Stream:
    """The chunks of a response, made in the context of the view even after it has returned."""

    def __init__(self, chunks: Chunks, label: str) -> None:
        self._chunks = chunks
        self._label = label
        self._context = copy_context()
        self._first: bytes | None = self._context.run(next, chunks, b"")
        self._context.run(bypass_queue_limit.set, True)  # also for the queries that *chunks* submits from here on
        self._reset = reset_of(request.environ)
        self._log = current_app.logger
        self._scope = current_scope()
        if self._scope is not None:
            self._scope.hold()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            return self._context.run(next, self._chunks)
        except StopIteration:
            raise
        except BaseException as error:
            if isinstance(error, JobCancelled) and self._scope is not None and self._scope.is_left:
                raise ClientGone(self._label) from error
            if self._reset is not None:
                self._reset()
            if isinstance(error, JobCancelled) and error.message == CANCELLED_BY_OPERATOR:
                self._log.warning("the response of %s is cut short: %s", self._label, error)
                raise ConnectionResetError(ECONNRESET, str(error)) from error  # servers only close the connection
            raise

    def close(self) -> None:
        """Stop the query. The server calls this at the end, after an error, and when the client has left."""
        self._chunks.close()
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.release()

    def __del__(self) -> None:  # the response was dropped before the server used it
        if hasattr(self, "_scope"):
            self.close()


def _disposition(filename: str, suffix: str) -> str:
    """Return the value of the header: RFC 6266, and RFC 8187 for names that are not ASCII."""
    name = _UNSAFE.sub("_", filename).strip(". ")[:LONGEST] or "data"
    if "." not in name:
        name += suffix
    if name.isascii():
        return dump_options_header("attachment", {"filename": name})
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()  # wide characters become plain ones
    stem, dot, ending = _UNSAFE.sub("_", plain).rpartition(".")
    plain = (stem.strip(". ") or "data") + dot + ending
    exact = quote(name, safe="!#$&+-.^_`|~", errors="replace")
    return dump_options_header("attachment", {"filename": plain, "filename*": f"UTF-8''{exact}"})
