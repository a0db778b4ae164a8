"""The body of a request as a frame: read up to a limit, by its Content-Type, and validated against a model."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import IO, Any, NamedTuple, cast

import polars as pl
from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wsgi import LimitedStream

from greendata.errors import BodyInvalid, BodyTooLarge, BodyUnsupported, FrameInvalid
from greendata.formats.csv_options import CsvOptions, NullValues
from greendata.formats.decoders import content_of, decode
from greendata.formats.format import Format
from greendata.formats.guards.gunzip import GZIP, MEMBERS, gunzip
from greendata.pool import pool
from greendata.pool.job import bypassing_queue_limit
from greendata.web.negotiation import BY_TYPE, bare
from greendata.web.received import Received
from greendata.web.uploads import uploaded

__all__ = ("MAX_BODY", "body")

NAME = 100  # characters of a client's name in an error
MAX_BODY = 16 << 20  # bytes: some 100 000 rows of JSON, which take half a second of a core to check
CHARSETS = ("utf-8", "utf-16", "iso-8859-1", "windows-1252", "gb18030")  # some of those that a client may name
CODINGS = {"identity": False, "gzip": True, "x-gzip": True}  # of a body, and whether it has to be decompressed

_TSV = "text/tab-separated-values"
_MULTIPART = "multipart/form-data"
_TYPES = (*BY_TYPE, "*/*+json", _TSV, _MULTIPART)  # of bodies
_VAGUE = (  # types that browsers send for files that they do not know; the file's name says more
    "",
    "application/gzip",
    "application/octet-stream",
    "application/vnd.ms-excel",
    "application/x-gzip",
    "text/plain",
)
_SUFFIXES: dict[str, Format] = {
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
    "ndjson": "ndjson",
    "jsonl": "ndjson",
    "arrows": "arrow",
    "parquet": "parquet",
}
# The encodings that a client may name: text in use, with decoders that take time in proportion to its length. Other
# names are not even looked up: Python would remember each of them.
_CHARSET = re.compile(
    r"(us-)?ascii|utf-?(8|16|32)|utf-(16|32)[bl]e|iso-8859-[0-9]{1,2}|latin-?1|(windows-|cp)125[0-8]|koi8-[ru]"
    r"|gb18030|gbk|gb2312|big5|euc-kr",
    re.IGNORECASE,
)


class _Content(NamedTuple):
    """What a body, or a file in it, contains, and what the client says about it."""

    content: bytes
    format: Format
    is_tsv: bool
    charset: str | None
    is_begun: bool  # a job has been admitted for this body, so the next is not refused


def body(
    model: type,
    *,
    max_bytes: int | None = None,
    part: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    has_header: bool = True,
    null_values: NullValues | None = None,
    comment_prefix: str | None = None,
    skip_rows: int = 0,
    rename_duplicates: bool = False,
    isolate: bool | None = None,
) -> pl.DataFrame:
    """Return the body of the current request in the schema of *model*, with values coerced by its rules.

    The ``Content-Type`` names the format: JSON (an array of rows or an object of columns), NDJSON, CSV, TSV, an Arrow
    stream or Parquet. A body with ``Content-Encoding: gzip`` is decompressed. In a form with files
    (``multipart/form-data``) the body is its only file; its own type names the format, or the suffix of its name if
    that type is vague, and ``.gz`` is decompressed.

    Other greenlets run while the body is read, decompressed and validated. ``request.get_data()`` and ``get_json()``
    return the body as it was sent, before and after this call, for example to check a signature, or to log;
    ``request.form`` and ``request.files`` have the other parts of a form.

    Args:
        model: as for `greendata.validation.verbs.validate`.
        max_bytes: the limit in bytes of the whole body, and of what is decompressed; None uses ``GREENDATA_MAX_BODY``.
            Flask's ``MAX_CONTENT_LENGTH`` applies as well.
        part: the name of the field of a form that has the file; None if the form has only one file.
        separator: CSV: see `greendata.formats.decoders.decode`, as for what follows; None for a tab in TSV, else a
            comma.
        encoding: CSV: None for the ``charset`` that the client names, or else UTF-8.
        has_header: CSV: whether the first record has the names of the columns.
        null_values: CSV: what stands for null besides an empty field.
        comment_prefix: CSV: lines that begin with it are ignored.
        skip_rows: CSV: how many records before the header are ignored.
        rename_duplicates: CSV: rename columns of one name as Polars does.
        isolate: parse in a child process, see `greendata.formats.isolation`; None uses ``GREENDATA_ISOLATE``.

    Raises:
        BodyTooLarge, BodyUnsupported, Malformed, BodyInvalid: the extension responds with 413, 415, 400 and 422.
        TooCostly: a child needs too much memory or time to parse it: 413.
        BadArgument: an option of CSV is invalid, whatever the body is.

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
    csv = CsvOptions(
        separator="," if separator is None else separator,
        encoding="utf8" if encoding is None else encoding,
        has_header=has_header,
        null_values=null_values,
        comment_prefix=comment_prefix,
        skip_rows=skip_rows,
        rename_duplicates=rename_duplicates,
    )
    limit = cast(int, current_app.config.get("GREENDATA_MAX_BODY", MAX_BODY)) if max_bytes is None else max_bytes
    found = _file(part, limit) if request.mimetype == _MULTIPART else _whole_body(limit)
    options: dict[str, Any] = {}
    if found.format == "csv":
        if separator is None and found.is_tsv:
            csv = replace(csv, separator="\t")
        if encoding is None and found.charset is not None:
            csv = replace(csv, encoding=_encoding(found.charset))
        options = csv.as_arguments()
    try:
        work = partial(decode, found.content, found.format, model=model, max_bytes=limit, isolate=isolate, **options)
        return bypassing_queue_limit(work) if found.is_begun else work()
    except FrameInvalid as invalid:
        raise BodyInvalid(invalid.failures) from invalid


def _whole_body(limit: int) -> _Content:
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() not in CODINGS:
        raise BodyUnsupported("Content-Encoding", coding, CODINGS)
    found = _format_of(request.mimetype)
    if found is None:
        raise BodyUnsupported("Content-Type", bare(request.content_type or ""), _TYPES)
    if (request.content_length or 0) > limit:
        raise BodyTooLarge(limit)
    content = _received(found, limit)
    is_gzip = CODINGS[coding.strip().lower()]
    if is_gzip:
        content = pool.call(gunzip, content, limit)
    return _Content(content, found, request.mimetype == _TSV, request.mimetype_params.get("charset"), is_gzip)


def _file(part: str | None, limit: int) -> _Content:
    """Return the content of a file in a form."""
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise BodyUnsupported("Content-Encoding", coding, ("identity",))
    if (request.content_length or 0) > limit:
        raise BodyTooLarge(limit)
    file = uploaded(part, limit)
    stem, _, suffix = (file.filename or "").lower().rpartition(".")
    if suffix == "gz":
        suffix = stem.rpartition(".")[2]
    is_vague = file.mimetype in _VAGUE
    found = _SUFFIXES.get(suffix) if is_vague else _format_of(file.mimetype)
    if found is None:
        raise BodyUnsupported(
            f"Content-Type of {(file.filename or '')[:NAME]!r}", bare(file.content_type or ""), _TYPES
        )
    file.stream.seek(0)  # the view may have read it
    content = content_of(file.stream, limit)
    file.stream.seek(0)
    is_gzip = content.startswith(GZIP) and found != "parquet"
    if is_gzip:
        content = pool.call(gunzip, content, limit, max_members=MEMBERS)
    is_tsv = suffix == "tsv" if is_vague else file.mimetype == _TSV
    return _Content(content, found, is_tsv, file.mimetype_params.get("charset"), is_gzip)


def _format_of(media_type: str) -> Format | None:
    """Return the format that *media_type* names, or None. Types that end in ``+json`` are JSON (RFC 6839)."""
    if media_type == _TSV:
        return "csv"
    return BY_TYPE.get(media_type, "json" if media_type.endswith("+json") else None)


def _encoding(charset: str) -> str:
    """Return the encoding that a client names. ASCII is UTF-8, which many send under this name.

    Raises:
        BodyUnsupported: it is none of those that a client may name.
    """
    try:
        if _CHARSET.fullmatch(charset):
            name = codecs.lookup(charset).name
            return "utf8" if name == "ascii" else name
    except LookupError as error:  # ISO-8859-99
        raise BodyUnsupported("Content-Type", f"charset={charset}", CHARSETS) from error
    raise BodyUnsupported("Content-Type", f"charset={charset[:NAME]}", CHARSETS)


def _received(format: Format, limit: int) -> bytes:
    """Return the whole body, even if it was read and cached before. `get_data` and the stream can read it again."""
    received = Received(request.stream, format, limit)
    try:
        content = content_of(received, limit)  # type: ignore[arg-type]  # it has the methods of a file that are used
    except BodyTooLarge:
        request.stream = cast(IO[bytes], LimitedStream(BytesIO(), 0, is_max=True))  # the rest is not part of the body
        raise
    if content:
        request.stream = BytesIO(content)
        request.get_data()  # caches the body
        request.stream = BytesIO(content)
    else:
        with suppress(RequestEntityTooLarge):  # it was read before and not cached, up to Flask's limit
            content = request.get_data()
    received.check_complete(len(content))
    if len(content) > limit:
        raise BodyTooLarge(limit)
    return content
