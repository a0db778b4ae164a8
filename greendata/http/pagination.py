"""`paginate`: the pages of an API, one after the other, into one frame.

The rows of each page are cut from its text without being parsed. At the end all of them are parsed together: so the
columns, and their types, are those of all rows, and no value depends on the page that it came on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from io import BytesIO
from itertools import count
from time import monotonic
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote_plus, urljoin, urlsplit, urlunsplit

import gevent
import polars as pl
from gevent.monkey import is_module_patched

from greendata.errors import (
    AnswerBroken,
    AnswerTooLarge,
    BadArgument,
    BadTimeout,
    FetchFailed,
    FetchTimeout,
    Malformed,
    PagesEndless,
    UrlRefused,
    WrongContentType,
)
from greendata.formats.decoders import decode
from greendata.formats.json.partition import lines_of
from greendata.formats.json.rows import member_of, rows_of
from greendata.http.limits import MAX_BYTES, TIMEOUT
from greendata.http.request_headers import checked_headers
from greendata.http.retry import RETRIED, back_off, retry_after_of
from greendata.http.session import GuardedSession, check_url, origin_of
from greendata.hub import native
from greendata.hub.checks import check_function, checked_count
from greendata.hub.deadline import deadline, seconds_of
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import pool, workers
from greendata.pool.job import bypassing_queue_limit
from greendata.pool.operation import operation
from greendata.pool.stopping import is_given_up, stopped_by
from greendata.query.chunked_text import bytes_of
from greendata.tasks.caller import Caller

__all__ = ("ApiPage", "Next", "Path", "paginate")

MAX_PAGES = 1_000
SHOWN = 50  # characters of a value that an error shows
ATTEMPTS = 5  # for one page
MAX_WAIT = 60.0  # seconds that a server may ask to wait
_JSON = ("application/json", "application/x-ndjson")  # as an error names what was expected
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")

_NOTHING = ("null", "false", '""')  # in the body, in the place of the next page
_URL = "a place or a function with a URL, or None after the last page"
_SURROGATE = re.compile("[\ud800-\udfff]")
# A link of a header: its URL, which some servers send without the brackets; and each parameter after it.
_LINK = re.compile(r"[\s,]*(?:<(.*?)>(?=\s*(?:[;,]|$))|([^\s<>;,]+))", re.DOTALL)
_PARAMETER = re.compile(r'\s*;\s*([^\s=;,"]*+)(?:\s*=\s*("(?:[^"\\]|\\.)*+"|[^\s;,]*+))?', re.DOTALL)

T = TypeVar("T")

Path: TypeAlias = "str | Sequence[str]"
Next: TypeAlias = "str | Sequence[str] | Mapping[str, Path | int] | Callable[[ApiPage], str | None]"


class ApiPage(NamedTuple):
    """A page that has arrived, for the function that finds the next one.

    Attributes:
        url: its URL, after redirects.
        number: how many pages came before it.
        headers: the headers of the response, with case-insensitive names.
        body: its bytes, decompressed.
        rows: how many rows it has.
    """

    url: str
    number: int
    headers: Mapping[str, str]
    body: bytes
    rows: int

    def member(self, path: Path) -> Any:
        """Return the value at *path*, the names of members within members: ``"meta.next"`` or ``["meta", "next"]``.

        It is None if there is no such member.

        Raises:
            Malformed: the body is not JSON.

        Example:
            >>> page = ApiPage("http://a/", 0, {}, b'{"items": [], "meta": {"next": "b"}}', 0)
            >>> page.member("meta.next"), page.member("meta.last")
            ('b', None)
        """
        text = _text_at(self.body, _names(path))
        return None if text is None else json.loads(text)


def paginate(
    session: GuardedSession,
    url: str,
    *,
    next: Next = "link",
    rows: Path | None = None,
    model: type | None = None,
    headers: Mapping[str, str] | None = None,
    max_pages: int = MAX_PAGES,
    max_bytes: int = MAX_BYTES,
    max_wait: float = MAX_WAIT,
    attempts: int = ATTEMPTS,
    timeout: float = 10 * TIMEOUT,
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Fetch *url* and the pages that follow it, and return the JSON rows of all of them as one frame.

    Each page is requested when the one before has arrived. If a request fails in a way that may be temporary
    (no response, one that is cut short, status 429, 500, 502, 503 or 504), it is sent again after a pause: as long as
    the server asks in Retry-After, otherwise 1 second, doubled with each failure up to 60, with jitter. The pauses are
    spent in a greenlet if the calling thread has a hub.

    Args:
        session: sends the requests. Its headers, such as credentials, are sent to the host of *url* only.
        url: the URL of the first page.
        next: where the URL of the next page is. ``"link"``: in the Link header, with ``rel="next"`` (RFC 8288). Another
            string, or a list of names: in the body, at this path, such as ``"links.next"``.
            ``{"cursor": "meta.next"}``: the query parameter ``cursor`` is set to the value at this path of the body. In
            these three cases a page is the last one if the place is absent, null, false or empty. ``{"page": 1}``: the
            query parameter ``page`` is a number, that of *url* is 1, and it grows by one until a page has no rows. A
            function: it is given the `ApiPage` and returns a URL, which may be relative, or None after the last page.
        rows: the path of the array of rows in the body, such as ``"data.items"``; None if the body is the array, or has
            one row per line.
        model: a pydantic model that the rows must satisfy, as in `greendata.formats.decoders.decode`.
        headers: further headers of every request.
        max_pages: the limit of pages.
        max_bytes: the limit of all pages together, in bytes after decompression.
        max_wait: the limit of a pause for which a server asks, in seconds.
        attempts: how often a page is requested at most.
        timeout: the deadline in seconds for all pages, with their pauses, and the frame.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the work in errors and statistics.

    Raises:
        BadArgument, BadTimeout, NotCallable, AsyncFunction: at the call.
        FetchFailed, FetchTimeout, AnswerBroken, UrlRefused, WrongContentType: from the result: a page cannot be
            fetched, after the last attempt. The server asks for a longer pause than *max_wait*, or the next page is at
            another host.
        AnswerTooLarge: from the result: there are more than *max_bytes*.
        PagesEndless: from the result: there are more than *max_pages*, or a page comes for the second time.
        Malformed: from the result: a page is not JSON, has no array at *rows*, or no text or number where a query
            parameter is.
        FrameInvalid: from the result: *model* rejects rows. They are counted over all pages.
        Exception: from the result: what a function as *next* raises.

    Example:
        >>> from greendata import GuardedSession
        >>> with GuardedSession(headers={"Authorization": "Bearer ..."}) as session:
        ...     pages = paginate(session, "http://127.0.0.1/orders", rows="items", next={"cursor": "next"})
        ...     pages.get(timeout=30)
        Traceback (most recent call last):
        greendata.errors.fetch.UrlRefused: http://127.0.0.1:80 is refused: its address 127.0.0.1 is not public...
    """
    seconds, pause = seconds_of(timeout), seconds_of(max_wait)
    if seconds is None or pause is None:
        raise BadTimeout(timeout if seconds is None else max_wait)
    if not isinstance(session, GuardedSession):
        raise BadArgument("session", session, "a greendata.GuardedSession, which checks every address")
    check_url(str(url))
    label = label or "paginate"
    pages = _Pages(
        session=session,
        first=str(url),
        find_next=_finder(next),
        rows=_names(rows, "rows"),
        headers=checked_headers(headers),
        max_pages=checked_count("max_pages", max_pages),
        max_bytes=checked_count("max_bytes", max_bytes),
        attempts=checked_count("attempts", attempts),
        max_wait=pause,
        until=monotonic() + seconds,
    )
    work = partial(_read, pages, model, label)
    if get_hub_if_exists() is None or workers.is_inline_thread():
        return pool.submit(work, timeout=seconds, key=key, label=label)
    with deadline(seconds):
        call = Caller.current().call_soon(work)
    call.label = label
    return call


def _read(pages: _Pages, model: type | None, label: str) -> pl.DataFrame:
    with operation(label):
        texts = [*pages.fetch_all()]
        lines = _pooled(_lines, texts)
        del texts
        return bypassing_queue_limit(decode, lines, "ndjson", model=model, max_bytes=len(lines))


@dataclass(kw_only=True)
class _Pages:
    """One walk from page to page. Used by one greenlet."""

    session: GuardedSession
    first: str
    find_next: Callable[[ApiPage], object]
    rows: tuple[str, ...]
    headers: dict[str, str]
    max_pages: int
    max_bytes: int
    attempts: int
    max_wait: float
    until: float  # on time.monotonic's clock

    def fetch_all(self) -> Iterator[pl.Series]:
        """Yield the texts of the rows of each page."""
        url, last, left = self.first, b"", self.max_bytes
        seen = {_digest(url.encode())}  # as digests, because a cursor may be long
        for number in range(self.max_pages):
            if is_given_up():
                return
            response = self._fetch_patiently(url, left)
            left -= len(response.body)
            texts, digest = _pooled(_texts_and_digest, response, self.rows)
            page = ApiPage(response.url, number, response.headers, response.body, texts.len())
            if page.rows and digest == last:
                raise PagesEndless(self.first, f"page {number + 1} is the same as the one before it")
            last = digest
            yield texts
            following = self.find_next(page)
            if following is None or following == "":
                return
            url = self._checked(following, page)
            if (digest := _digest(url.encode())) in seen:
                raise PagesEndless(self.first, f"page {number + 1} leads back to a page that was read before")
            seen.add(digest)
        raise PagesEndless(self.first, f"there are more than {self.max_pages}; raise max_pages if that is expected")

    def _checked(self, following: object, page: ApiPage) -> str:
        """Return the URL of the next page, which is at the host of the first one."""
        if not isinstance(following, str):
            raise BadArgument("next", following, _URL)
        try:
            url = urljoin(page.url, following)
        except ValueError as error:
            raise UrlRefused(page.url, "its next page has an invalid URL") from error
        check_url(url)
        if origin_of(url) != origin_of(self.first):
            raise UrlRefused(url, "the next page is at another host, which would get the headers of the session")
        return url

    def _fetch_patiently(self, url: str, left: int) -> _PageResponse:
        """Return the response for a page, after several attempts if necessary."""
        for attempt in count(1):
            asked = None
            try:
                response = self._fetch(url, left) if is_module_patched("socket") else _pooled(self._fetch, url, left)
                if response.status not in RETRIED:
                    return response
                asked = retry_after_of(response.headers.get("Retry-After"), datetime.now(UTC))
                failed: Exception = FetchFailed(response.url, f"the status is {response.status}", response.status)
                if asked is not None and asked > self.max_wait:
                    reason = (
                        f"the status is {response.status}, and it asks for a pause of {asked:g} seconds; raise max_wait"
                    )
                    raise FetchFailed(response.url, reason, response.status)
            except (FetchTimeout, AnswerBroken) as error:
                failed = error
            except FetchFailed as error:
                if error.status is not None:
                    raise
                failed = error
            pause = back_off(attempt) if asked is None else asked
            if attempt == self.attempts or monotonic() + pause >= self.until:
                raise failed
            _sleep(pause)
        raise AssertionError("count() does not end")

    def _fetch(self, url: str, left: int) -> _PageResponse:
        seconds = max(0.0, min(TIMEOUT, self.until - monotonic()))
        statuses = (200, *RETRIED)
        get = partial(self.session.get, url, timeout=seconds, headers=self.headers, statuses=statuses)
        try:
            with get(max_bytes=left) as found:
                body = BytesIO()  # it grows without a copy of the whole, which would hold the GIL
                if found.status not in RETRIED:
                    body.writelines(found.chunks())
                return _PageResponse(found.url, found.status, found.headers, body.getvalue())
        except AnswerTooLarge as error:
            raise AnswerTooLarge(self.first, self.max_bytes) from error


class _PageResponse(NamedTuple):
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def _pooled(func: Callable[..., T], *args: Any) -> T:
    """Call *func* in the pool, past the queue limit, for work that has begun."""
    return bypassing_queue_limit(partial(pool.call, func, *args))


def _sleep(seconds: float) -> None:
    """Wait, in a greenlet if there is a hub."""
    if get_hub_if_exists() is not None:
        gevent.sleep(seconds)
        return
    woken = native.allocate_lock()
    woken.acquire()
    with stopped_by(woken.release):
        woken.acquire(timeout=seconds)


# -- in the pool ----------------------------------------------------------------------------------------------


def _texts_and_digest(response: _PageResponse, path: tuple[str, ...]) -> tuple[pl.Series, bytes]:
    return _texts(response, path), _digest(response.body)


def _texts(response: _PageResponse, path: tuple[str, ...]) -> pl.Series:
    """Return the texts of the rows of a page."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and kind not in (*_LINES, "text/plain") and not kind.endswith("json"):
        raise WrongContentType(response.url, kind, _JSON)
    if kind in _LINES:
        return rows_of(response.body, "ndjson")
    if not path:
        return rows_of(response.body, "json")
    text = _text_at(response.body, path)
    if text is None or not text.startswith((b"[", b"null")):
        raise Malformed("json", f"there is no array at {'.'.join(path)!r}")
    return rows_of(b"[]" if text == b"null" else text, "json")


def _text_at(body: bytes, path: Sequence[str]) -> bytes | None:
    """Return the text of the value at *path*, or None."""
    text: bytes | None = None
    for name in path:
        if text is not None and not text.startswith(b"{"):
            return None
        text = member_of(body if text is None else text, name)
        if text is None:
            return None
    return text


def _lines(texts: list[pl.Series]) -> bytes:
    """Return rows as NDJSON."""
    whole = pl.concat(texts) if texts else pl.Series(dtype=pl.String)
    return bytes_of(lines + b"\n" for _, _, lines in lines_of(whole))


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


# -- the next page --------------------------------------------------------------------------------------------


def _finder(next: Next) -> Callable[[ApiPage], object]:
    """Return the function that finds the URL of the next page."""
    if next == "link":
        return _linked
    if isinstance(next, str | Sequence):
        path = _names(next, "next")
        return lambda page: _pooled(_place, page.body, path)
    if not isinstance(next, Mapping):
        check_function(next)
        return next
    numbers = {name: first for name, first in next.items() if isinstance(first, int)}
    paths = {name: _names(path, "next") for name, path in next.items() if not isinstance(path, int)}
    if not next or len(numbers) > 1 or not all(isinstance(name, str) for name in next):
        raise BadArgument("next", next, "query parameters with the paths of their values, or one with a page number")

    def find(page: ApiPage) -> str | None:
        values = {name: _pooled(partial(_place, numbers=True), page.body, path) for name, path in paths.items()}
        if None in values.values() or (numbers and not page.rows):
            return None
        values |= {name: str(first + page.number + 1) for name, first in numbers.items()}
        return _with_parameters(page.url, values)

    return find


def _linked(page: ApiPage) -> str | None:
    """Return the URL in the Link header with the relation "next"."""
    for url, parameters in _links(page.headers.get("Link", "")):
        if "next" in parameters.get("rel", "").lower().split():
            return url
    return None


def _links(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the URL and the parameters of each link in a header (RFC 8288). Of a repeated parameter the first counts.

    The parser of requests loses what follows a ``;`` in a URL, or a parameter whose value has one: so a page that
    follows would be lost.
    """
    at = 0
    while link := _LINK.match(header, at):
        at = link.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, at):
            at = parameter.end()
            parameters.setdefault(parameter[1].lower(), (parameter[2] or "").strip("'\""))
        yield link[1] or link[2] or "", parameters


def _place(body: bytes, path: tuple[str, ...], *, numbers: bool = False) -> str | None:
    """Return the text in the body that leads to the next page, or None if there is none. Call on a worker.

    Args:
        numbers: accept a number, and return it as it is written: a float would lose digits of a cursor.

    Raises:
        Malformed: there is something else; BadArgument, if that cannot be a URL.
    """
    found = _text_at(body, path)
    text = None if found is None else str(found, "utf-8")
    if text is None or text in _NOTHING:
        return None
    if text.startswith('"') and not _SURROGATE.search(value := json.loads(text)):
        return str(value)
    if not numbers:
        raise BadArgument("next", text[:SHOWN], _URL)
    if text[0] not in "-0123456789":
        raise Malformed("json", f"expected text or a number at {'.'.join(path)!r}, got {text[:SHOWN]}")
    return text


def _with_parameters(url: str, values: Mapping[str, str | None]) -> str:
    """Return *url* with query parameters set; the others stay as they are written."""
    parts = urlsplit(url)
    kept = [part for part in parts.query.split("&") if part and unquote_plus(part.partition("=")[0]) not in values]
    added = [f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in values.items()]
    return urlunsplit(parts._replace(query="&".join(kept + added), fragment=""))


def _names(path: Path | None, argument: str = "path") -> tuple[str, ...]:
    """Return the names in *path*."""
    names = tuple(path.split(".")) if isinstance(path, str) else tuple(path or ())
    if (path is not None and not names) or not all(isinstance(name, str) and name for name in names):
        raise BadArgument(argument, path, 'a path such as "data.items", or a list of names')
    return names
