"""The guarded HTTP session, with which greendata fetches untrusted URLs.

It ignores proxies, netrc and environment variables. It blocks as requests does: call it in a greenlet if gevent has
patched the sockets, and in the pool if not. `greendata.read_csv_url` and the similar functions choose by that rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from time import monotonic
from typing import Any
from urllib.parse import urljoin

import requests
from requests.cookies import RequestsCookieJar
from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import RequestException, Timeout
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.util import parse_url

from greendata.errors import (
    AnswerBroken,
    AnswerTooLarge,
    BadArgument,
    BadTimeout,
    FetchFailed,
    FetchTimeout,
    Malformed,
    UrlRefused,
    WrongContentType,
)
from greendata.errors.plural import counted
from greendata.formats.guards.gunzip import inflate
from greendata.http.adapter import GuardedAdapter
from greendata.http.address_policy import AddressPolicy
from greendata.http.limits import MAX_BYTES, TIMEOUT
from greendata.http.request_headers import checked_headers
from greendata.http.timed_socket import request_deadline, seconds_left
from greendata.hub.checks import is_count
from greendata.hub.closing import Closing
from greendata.hub.contexts import contextmanager
from greendata.hub.deadline import seconds_of
from greendata.hub.pacing import breathing

__all__ = ("GuardedSession", "Response", "check_url", "origin_of")

CONNECT = 10.0  # seconds to connect
SILENCE = 30.0  # seconds without a byte
REDIRECTS = 5
_LENGTH = re.compile("[0-9]{1,18}")  # a Content-Length; anything else is ignored, as by http.client
_CHUNK = 64 * 1024  # bytes read at once
_MOVED = (301, 302, 303, 307, 308)
_HARMLESS = ("accept", "accept-language", "user-agent")  # headers that may be sent to another host after a redirect


class Response:
    """The response to one request, open for reading.

    Attributes:
        url: the URL after redirects.
        status: 200, or another status that the request allowed.
        headers: the headers of the response, with case-insensitive names.
    """

    def __init__(self, response: requests.Response, request: _Request, max_bytes: int) -> None:
        self.url = request.url
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._raw: Any = response.raw
        self._request = request
        self._max_bytes = max_bytes

    def chunks(self) -> Iterator[bytes]:
        """Yield the decompressed body in chunks of at most 128 kB. Other greenlets run in between.

        Raises:
            AnswerTooLarge, AnswerBroken, FetchTimeout: the body cannot be read completely.
        """
        size = 0
        for chunk in breathing(self._decoded_chunks()):  # a few bytes of gzip may be very many
            size += len(chunk)
            if size > self._max_bytes:
                raise AnswerTooLarge(self.url, self._max_bytes)
            yield chunk

    def _raw_chunks(self) -> Iterator[bytes]:
        announced = self.headers.get("Content-Length", "")
        length = int(announced) if _LENGTH.fullmatch(announced) and "Transfer-Encoding" not in self.headers else None
        if (length or 0) > self._max_bytes:
            raise AnswerTooLarge(self.url, self._max_bytes)
        size = 0
        while chunk := self._read():
            size += len(chunk)
            if size > self._max_bytes:
                raise AnswerTooLarge(self.url, self._max_bytes)
            yield chunk
        if length is not None and size != length:
            raise AnswerBroken(self.url, f"it ends after {size} of {counted(length, 'byte')}")

    def _read(self) -> bytes:
        with self._request.translating_errors():
            chunk: bytes = self._raw.read(_CHUNK, decode_content=False)
        return chunk

    def _decoded_chunks(self) -> Iterator[bytes]:
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("identity", ""):
            yield from self._raw_chunks()
            return
        if encoding not in ("gzip", "x-gzip"):
            raise AnswerBroken(self.url, f"it is encoded with {encoding}, but the request accepts gzip only")
        try:
            yield from inflate(self._raw_chunks())
        except Malformed as error:
            raise AnswerBroken(self.url, f"its gzip data is malformed: {error.reason}") from error


class GuardedSession(Closing):
    """An HTTP session for untrusted URLs, and a context manager that closes its connections.

    Every request has a total deadline and a limit of bytes. A name is looked up, its addresses are checked, and only
    then does the session connect to one of them. It never connects to an address that is not public: the error is the
    same whether a port there is open or closed. If a name has public and other addresses, the public ones are tried.
    Schemes other than http and https are errors. The number of redirects is limited, and each is checked in the same
    way. Headers, such as credentials, are not sent to another host that a redirect leads to. Cookies that a server sets
    are sent while its redirects are followed, and then forgotten: no request sends those of another.

    Connections are kept for the next request to their host, and closed by `close`. Many greenlets may use a session.
    Without gevent's patch, one job of the pool may use it at a time.

    Args:
        allow_private: True for every address, or a list of addresses and networks to allow besides the public ones.
        headers: sent with every request to the host of its URL.

    Raises:
        BadArgument: *allow_private* is neither, or a header cannot be sent.

    Example:
        >>> with GuardedSession() as session, session.get("http://127.0.0.1:1/") as response:
        ...     b"".join(response.chunks())
        Traceback (most recent call last):
        greendata.errors.fetch.UrlRefused: http://127.0.0.1:1 is refused: its address 127.0.0.1 is not public
    """

    def __init__(
        self, *, allow_private: bool | Iterable[str] = False, headers: Mapping[str, str] | None = None
    ) -> None:
        self._headers = checked_headers(headers)
        self._session = _Session()
        self._session.trust_env = False
        self._session.headers["Accept-Encoding"] = "gzip"
        adapter = GuardedAdapter(AddressPolicy(allow_private))
        self._session.adapters.clear()
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        """Close the idle connections."""
        self._session.close()

    @contextmanager
    def get(
        self,
        url: str,
        *,
        timeout: float | None = TIMEOUT,
        max_bytes: int = MAX_BYTES,
        accept: Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        statuses: Iterable[int] = (200,),
    ) -> Iterator[Response]:
        """Send a GET request for *url*. The block reads the response, and its end closes or keeps the connection.

        Args:
            timeout: seconds for the whole request: redirects, headers and the complete body.
            max_bytes: the limit of the body, both compressed and decompressed.
            accept: media types. A response of another type is an error; one without a type is accepted. Empty
                accepts all.
            headers: further headers for the host of *url*.
            statuses: the statuses that are not errors.

        Raises:
            UrlRefused, FetchFailed, FetchTimeout, WrongContentType: there is no usable response.
            AnswerTooLarge, AnswerBroken, FetchTimeout: in the block, while the body is read. Other errors of the block
                pass unchanged.
            BadTimeout, BadArgument: at once.
        """
        seconds = seconds_of(timeout)
        if seconds is None:
            raise BadTimeout(timeout)
        if not is_count(max_bytes, least=0):
            raise BadArgument("max_bytes", max_bytes, "a whole number of bytes >= 0")
        more = checked_headers(headers)
        token = request_deadline.set((monotonic() + seconds, SILENCE))
        request = _Request(self._session, url, {**self._headers, **more}, seconds)
        try:
            with request.translating_errors():
                response = request.send()
            try:
                yield _checked_response(response, request, max_bytes, tuple(accept), tuple(statuses))
            finally:
                response.close()
        finally:
            request_deadline.reset(token)

    def __repr__(self) -> str:
        return f"<GuardedSession at {id(self):#x}>"


class _Session(requests.Session):
    """A session that leaves redirects to `_Request`. requests would parse their targets even without following them."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: `_Request` follows redirects."""


class _Request:
    """One request with its redirects."""

    def __init__(self, session: requests.Session, url: str, headers: dict[str, str], seconds: float) -> None:
        self.url = url
        self._session = copy(session)
        self._session.cookies = RequestsCookieJar()  # those of a shared one would grow, and reveal other requests
        self._headers = headers
        self._seconds = seconds
        self._begun = monotonic()

    def send(self) -> requests.Response:
        for _ in range(REDIRECTS + 1):
            check_url(self.url)
            response = self._session.get(
                self.url,
                headers=self._headers,
                stream=True,
                allow_redirects=False,
                timeout=(min(CONNECT, seconds_left()), min(SILENCE, seconds_left())),
            )
            target = response.headers.get("Location")
            if response.status_code not in _MOVED or target is None:
                return response
            response.close()
            self._follow(target)
        raise UrlRefused(self.url, f"more than {REDIRECTS} redirects lead here")

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Turn errors of the libraries below into greendata's. Code of the caller must not run in the block."""
        try:
            yield
        except (TimeoutError, Timeout, ReadTimeoutError) as error:
            raise FetchTimeout(self.url, self._timeout_used()) from error
        except (RequestException, HTTPError) as error:
            if _is_timeout(error):
                raise FetchTimeout(self.url, self._timeout_used()) from error
            if isinstance(error, NoConnection) or (isinstance(error, RequestException) and not _is_truncated(error)):
                raise FetchFailed(self.url, f"no response ({_reason(error)})") from error
            raise AnswerBroken(self.url, f"it is cut short or garbled ({_reason(error)})") from error

    def _timeout_used(self) -> float:
        """Return the total timeout, or the time until a connection or a byte failed to arrive."""
        return min(self._seconds, round(monotonic() - self._begun, 1))

    def _follow(self, target: str) -> None:
        try:
            target = urljoin(self.url, target.encode("latin-1").decode(errors="replace"))
            leaves = origin_of(self.url) != origin_of(target)
        except ValueError as error:
            raise UrlRefused(self.url, "it redirects to an invalid URL") from error
        if leaves:
            self._headers = {name: value for name, value in self._headers.items() if name.lower() in _HARMLESS}
        self.url = target


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of *url* as requests will see them.

    Another parser may find another host, for example after a backslash, and the headers of one would go to the other.

    Raises:
        ValueError: it is not a URL.

    Example:
        >>> origin_of("http://Example.com/a")
        ('http', 'example.com', 80)
    """
    parts = parse_url(url)
    scheme = parts.scheme or ""
    return scheme, parts.host, parts.port or {"http": 80, "https": 443}.get(scheme)


def check_url(url: str) -> None:
    """Raise if *url* is not an HTTP URL with a host.

    Raises:
        UrlRefused: it is not.

    Example:
        >>> check_url("ftp://example.com/")
        Traceback (most recent call last):
        greendata.errors.fetch.UrlRefused: ftp://example.com/ is refused: expected http or https and a host, got the \
scheme 'ftp'
    """
    try:
        scheme, host, _ = origin_of(url)
    except ValueError as error:
        raise UrlRefused(url, "it is not a valid URL") from error
    if scheme not in ("http", "https") or not host:
        raise UrlRefused(url, f"expected http or https and a host, got the scheme {scheme!r}")


def _checked_response(
    response: requests.Response, request: _Request, max_bytes: int, accept: tuple[str, ...], statuses: tuple[int, ...]
) -> Response:
    if response.status_code not in statuses:
        raise FetchFailed(request.url, f"the status is {response.status_code}", response.status_code)
    got = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if accept and got and got not in accept:
        raise WrongContentType(request.url, got, accept)
    return Response(response, request, max_bytes)


def _is_timeout(error: BaseException) -> bool:
    parts = [error, error.__cause__, error.__context__, *error.args]
    return any(isinstance(part, TimeoutError) for part in parts)


def _is_truncated(error: BaseException) -> bool:
    return any(isinstance(part, ProtocolError) for part in (error, *error.args))


def _reason(error: BaseException) -> str:
    inner = getattr(error.args[0], "reason", None) if error.args else None
    return type(inner or error).__name__
