"""`Fetcher`: sends one request to one URL, and returns what came of it, whatever the server does.

A hop is a single request: redirects are not followed, because each belongs to a host with rules, delays and a budget of
its own. Every connection goes to an address that was checked (`greendata.http.connect`). A limit that is reached ends
the hop with what has arrived so far. Each way to fail has a name.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Literal, get_args

from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from greendata.crawl.urls import Url
from greendata.errors import BadArgument, UrlRefused
from greendata.http.address_policy import AddressPolicy
from greendata.http.dns import NO_NAME, LookupFailed
from greendata.http.encodings import ACCEPTED, Decoder, Identity, decoder_of
from greendata.http.keep_alive import HubConnection, KeptConnections
from greendata.http.timed_socket import request_deadline
from greendata.hub.closing import Closing
from greendata.hub.pacing import breathe
from greendata.pool import pool
from greendata.pool.job import bypassing_queue_limit

__all__ = ("Fetcher", "HOP_ERRORS", "HTML", "Hop", "HopError", "Limits")

HopError = Literal[
    "AddressRefused",
    "BadResponse",
    "BodyTooLarge",
    "CertificateInvalid",
    "ConnectionFailed",
    "LookupFailed",
    "NameNotFound",
    "Timeout",
    "TlsFailed",
    "UnknownEncoding",
    "WrongContentType",
]
HOP_ERRORS: tuple[HopError, ...] = get_args(HopError)

HTML = ("text/html", "application/xhtml+xml")  # the media types of pages

_CHUNK = 64 * 1024  # bytes read at once
_BREATH = 128 * 1024  # bytes read before the hub runs again; they take less than a millisecond
# Bytes of a body above which it is decompressed in the pool. That costs 30 percent more CPU time, but while many
# pages arrive, the longest block of the hub falls to a third.
_LARGE = 64 * 1024
_DISCARD = 32 * 1024  # bytes of an unwanted body that are read so that the connection can be kept
_CLOSED = (ConnectionError, ssl.SSLEOFError)
_MOVED = (301, 302, 303, 307, 308)
_VISIBLE = re.compile(r"[\x20-\x7e]+")  # what a User-Agent may consist of


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one hop. Whichever is reached first ends it with what has arrived.

    Attributes:
        max_bytes: of the body, both as it is sent and decompressed.
        timeout: seconds for the whole hop, from the lookup of the name to the last byte.
        connect_timeout: seconds for the lookup, the connection and the handshake.
        silence: seconds without a byte.
        content_types: the media types whose bodies are read, in lower case; None for all. A response without a type is
            read.
    """

    max_bytes: int = 10 * 1024**2
    timeout: float = 60.0
    connect_timeout: float = 10.0
    silence: float = 20.0
    content_types: tuple[str, ...] | None = HTML


@dataclass(slots=True)
class Hop:
    """The outcome of one request. If there was no response, `status` is None and `error` says why.

    Attributes:
        url: the URL that was requested, in canonical form.
        status: the HTTP status, or None without a response. A status of 400 or more is not an error.
        headers: the headers of the response, with names in lower case; values of one name are joined with commas, but
            of several content types the last one counts.
        body: the body, decompressed. Empty for a redirect, for status 204, 205 and 304, and if its type is not wanted.
        truncated: True if the body is incomplete: it was cut short, it is broken, or a limit ended it.
        seconds: how long the hop took.
        location: the target of a redirect as the server wrote it, usually relative to `url`; None if there is none.
        error: the name of what went wrong, or None.
        message: what went wrong in words, or None.
    """

    url: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncated: bool = False
    seconds: float = 0.0
    location: str | None = None
    error: HopError | None = None
    message: str | None = None

    @property
    def content_type(self) -> str:
        """The media type of the response in lower case, without parameters; empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Fetcher(Closing):
    """Send single requests over guarded connections, which it keeps for each host. A context manager.

    Call it in the greenlets of one thread; they wait in gevent, whether or not the process is patched. It does not
    limit how many run at once: that is the scheduler's task.

    Args:
        user_agent: the value of the User-Agent header, which tells the owner of a site whom to ask.
        allow_private: True for every address, or a list of addresses and networks to allow besides the public ones.
        certificates: the path of a file with certificates of authorities to trust, in PEM; None for those that
            browsers trust.

    Raises:
        BadArgument: *user_agent* is empty or has characters that are not visible ASCII, *allow_private* is neither, or
            *certificates* is not a file.

    Example:
        >>> from greendata.crawl.urls import parse_url
        >>> with Fetcher("example-bot (bot@example.com)") as fetcher:
        ...     hop = fetcher.fetch_hop(parse_url("http://127.0.0.1:8080/"))
        >>> hop.status, hop.error, hop.message
        (None, 'AddressRefused', 'its address 127.0.0.1 is not public')
    """

    def __init__(
        self,
        user_agent: str,
        *,
        allow_private: bool | Iterable[str] = False,
        certificates: str | None = None,
    ) -> None:
        if not isinstance(user_agent, str) or not _VISIBLE.fullmatch(user_agent.strip()):
            raise BadArgument("user_agent", user_agent, "a name for your crawler, and where to reach you, in ASCII")
        if certificates is not None and not Path(certificates).is_file():
            raise BadArgument("certificates", certificates, "the path of a file with certificates in PEM")
        self._headers = {
            "User-Agent": user_agent.strip(),
            "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
            "Accept-Encoding": ACCEPTED,
        }
        self._connections = KeptConnections(AddressPolicy(allow_private), certificates=certificates)

    @property
    def connections_made(self) -> int:
        """The number of connections that were made, or attempted."""
        return self._connections.made

    def close(self) -> None:
        """Close the idle connections. Those in use are closed when their hop ends."""
        self._connections.close()

    def fetch_hop(self, url: Url, *, headers: Mapping[str, str] | None = None, limits: Limits = Limits()) -> Hop:
        """Send a GET request for *url*, and return its outcome. No redirect is followed.

        Failures of the server and the network are in the `Hop`. Only exceptions that others throw into the calling
        greenlet, such as `gevent.Timeout`, are raised. A kept connection that the server has closed meanwhile is
        replaced once.

        Args:
            url: the URL.
            headers: further headers of this request, for example If-None-Match.
            limits: the limits of this hop.
        """
        hop = Hop(url.href)
        begun = monotonic()
        sent = {**self._headers, **headers} if headers else self._headers
        token = request_deadline.set((begun + limits.timeout, limits.silence))
        try:
            self._fetch(url, sent, limits, hop)
        except (OSError, HTTPException, HTTPError, UrlRefused) as error:
            hop.error, hop.message = _named(error)
        finally:
            request_deadline.reset(token)
            hop.seconds = monotonic() - begun
        return hop

    def _fetch(self, url: Url, headers: dict[str, str], limits: Limits, hop: Hop) -> None:
        connection, response = self._respond(url, headers, limits)
        is_reusable = False
        try:
            _read_head(response, hop)
            is_reusable = _read_body(response, limits, hop) and not response.will_close
        finally:
            response.close()
            if is_reusable:
                self._connections.put(connection)
            else:
                connection.close()

    def _respond(self, url: Url, headers: dict[str, str], limits: Limits) -> tuple[HubConnection, HTTPResponse]:
        """Return a response with its headers, and the connection that it came over."""
        is_second = False
        while True:
            connection = self._connections.take(url.origin, url.scheme, url.host, url.port, fresh=is_second)
            connection.timeout = limits.connect_timeout
            try:
                return connection, connection.get(url.path, headers)
            except BaseException as error:
                connection.close()
                is_second = connection.has_served and isinstance(error, _CLOSED)  # while it was idle
                if not is_second:
                    raise


def _read_head(response: HTTPResponse, hop: Hop) -> None:
    hop.status = response.status
    for name, value in response.headers.items():
        key = name.lower()
        is_list = key in hop.headers and key != "content-type"  # of which the last one counts, as in browsers
        hop.headers[key] = f"{hop.headers[key]}, {value}" if is_list else value
    if response.status in _MOVED:
        target = response.headers.get("Location")
        hop.location = None if target is None else _as_text(target)


def _read_body(response: HTTPResponse, limits: Limits, hop: Hop) -> bool:
    """Read what is wanted of the body into *hop*; return True if the connection can be kept."""
    if hop.location is not None:
        return _discard(response)
    wanted = limits.content_types
    if wanted is not None and hop.content_type and hop.content_type not in wanted:
        if hop.status is not None and 200 <= hop.status < 300:
            hop.error, hop.message = "WrongContentType", f"its type is {hop.content_type}"
        return _discard(response)
    decoder = decoder_of(hop.headers.get("content-encoding", ""))
    if decoder is None:
        hop.error = "UnknownEncoding"
        hop.message = f"it is encoded with {hop.headers['content-encoding']}, which was not asked for"
        return _discard(response)
    return _read_decoded(response, decoder, limits, hop)


def _read_decoded(response: HTTPResponse, decoder: Decoder, limits: Limits, hop: Hop) -> bool:
    body = BytesIO()  # it grows without a copy of the whole, which would hold the GIL
    received = 0
    length = response.length
    is_packed = not isinstance(decoder, Identity)
    try:
        while received != length and (chunk := response.read1(_CHUNK)):
            received += len(chunk)
            if is_packed:
                _decode(decoder.decode(chunk), body, limits.max_bytes)
            else:
                body.write(chunk)
            if max(body.tell(), received) > limits.max_bytes:
                hop.error, hop.message = "BodyTooLarge", f"it has more than {limits.max_bytes} bytes"
                break
            if received // _BREATH > (received - len(chunk)) // _BREATH:
                breathe()
    except TimeoutError:
        hop.error, hop.message = "Timeout", "the body was not complete in time"
    except (OSError, HTTPException):
        hop.truncated = True
    body.truncate(limits.max_bytes)
    hop.body = body.getvalue()
    is_whole = hop.error is None and not hop.truncated and (length is None or received == length)
    hop.truncated = not is_whole or (received > 0 and not decoder.is_complete)
    return is_whole


def _decode(pieces: Iterator[bytes], body: BytesIO, limit: int) -> None:
    """Append decoded *pieces* to *body* until it has more than *limit* bytes.

    The pieces of a large body are decompressed in the pool. On the hub, the slices of many bodies would follow each
    other and block it for tens of milliseconds.
    """
    most = min(limit + 1, _LARGE)
    while body.tell() < most:
        piece = next(pieces, None)
        if piece is None:
            return
        body.write(piece)
    if body.tell() <= limit:
        bypassing_queue_limit(partial(pool.call, _write, pieces, body, limit))


def _write(pieces: Iterator[bytes], body: BytesIO, limit: int) -> None:
    for piece in pieces:
        body.write(piece)
        if body.tell() > limit:
            return


def _discard(response: HTTPResponse) -> bool:
    """Read a short body that is not wanted; return True if that was all of it."""
    left = _DISCARD
    if (response.length or 0) > left:
        return False
    try:
        while left > 0 and response.length != 0:
            chunk = response.read1(left)
            if not chunk:
                return response.length in (None, 0)
            left -= len(chunk)
    except (OSError, HTTPException):
        return False
    return left > 0


def _as_text(value: str) -> str:
    """Return a header's value, which http.client reads as Latin-1, as UTF-8 if it is that."""
    raw = value.encode("latin-1", "replace")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return value


def _named(error: Exception) -> tuple[HopError, str]:
    """Return the name of what went wrong, and a text."""
    name = next(name for kind, name in _NAMES if isinstance(error, kind))
    inner = (error.__cause__ or error) if isinstance(error, HTTPError) else error
    if isinstance(inner, LookupFailed) and inner.errno in NO_NAME:
        name = "NameNotFound"
    reason = next((found for field in _REASONS if (found := getattr(inner, field, None))), None)
    return name, str(reason or inner or type(inner).__name__)


# By the class of the error, subclasses first.
_NAMES: tuple[tuple[type[Exception], HopError], ...] = (
    (UrlRefused, "AddressRefused"),
    (NameResolutionError, "LookupFailed"),
    (NewConnectionError, "ConnectionFailed"),
    (ConnectTimeoutError, "Timeout"),
    (TimeoutError, "Timeout"),
    (ssl.SSLCertVerificationError, "CertificateInvalid"),
    (ssl.SSLError, "TlsFailed"),
    (OSError, "ConnectionFailed"),
    (HTTPException, "BadResponse"),
    (HTTPError, "BadResponse"),
)
_REASONS = ("verify_message", "strerror", "reason")  # attributes that hold a text better than the error's own
