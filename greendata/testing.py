"""A web site on loopback for tests of crawlers and clients: pages, delays, faults, and a record of the requests.

The site runs in one native thread of its own, whatever gevent has patched: it answers while the caller's hub is busy or
blocked, and it observes a client from outside. It counts requests, connections, and requests in flight at each host,
and keeps the time of each.

    with Site({"/": "<a href=/a>a</a>", "/a": Reply(status=503, headers={"Retry-After": "1"})}) as site:
        crawl_it(site.url("/"))
        assert site.most_at_once() <= 2
"""

from __future__ import annotations

import _socket
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from html import escape
from http import HTTPStatus
from itertools import count, pairwise
from time import monotonic
from typing import Any, Literal, Never, Self, TypeAlias, get_args

from gevent.hub import sleep
from gevent.monkey import get_original

from greendata.errors import BadArgument, BadChoice
from greendata.hub import native
from greendata.hub.checks import is_count, is_number
from greendata.internals.gevent import get_hub_if_exists

__all__ = ("Hold", "Reply", "Request", "Site")

Fault: TypeAlias = Literal[
    "bad chunk",
    "close",
    "endless",
    "endless head",
    "garbage",
    "reset",
    "reset body",
    "short",
    "silent",
    "slow",
    "slow head",
    "stale",
]
FAULTS: tuple[str, ...] = get_args(Fault)
GUARD = 60.0  # seconds that `Site.wait_for`, `Hold.wait` and `Site.close` wait

_READ, _WRITE = 1, 2  # selectors.EVENT_READ and EVENT_WRITE
_RECEIVED = 1 << 16  # bytes of one recv
_MAX_HEAD = 1 << 20  # bytes of a request's head and body
_PIECE = 1 << 16  # bytes of an endless body that are sent at once
_BACKLOG = 1024  # connections that wait to be accepted
_RST = struct.pack("ii", 1, 0)  # SO_LINGER: a close sends a reset
_TYPES = {"txt": "text/plain; charset=utf-8", "xml": "application/xml", "json": "application/json"}
_HTML = "text/html; charset=utf-8"

_selector: Any = get_original("selectors", "DefaultSelector")


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A request that the site has received. Read it from any thread.

    Attributes:
        method: ``GET``, ``HEAD`` or another.
        host: the address that the client has connected to, ``127.0.0.1`` for the first host of a site.
        target: path and query as they were sent.
        at: when the head of the request was complete, in seconds of `time.monotonic`.
        connection: the number of the connection: requests of the same connection have the same number.
        at_once: how many requests at this host were in flight then, this one included.
        head: the bytes of the request line and the headers.
        body: the bytes of the body.

    Example:
        >>> from urllib.request import urlopen
        >>> with Site({"/a": "<h1>a</h1>"}) as site:
        ...     _ = urlopen(site.url("/a?page=2")).read()
        >>> request = site.requests[0]
        >>> request.method, request.path, request.query, request.at_once
        ('GET', '/a', 'page=2', 1)
        >>> request.headers["connection"]
        'close'
    """

    method: str
    host: str
    target: str
    at: float
    connection: int
    at_once: int
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """The target without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first ``?``, or ""."""
        return self.target.partition("?")[2]

    @property
    def headers(self) -> dict[str, str]:
        """The headers, by names in lower case. Of equal names the last one counts."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reply:
    """The response to a request.

    Args:
        body: text is sent as UTF-8.
        status: the status code.
        headers: more headers, or other values of those that the site sends.
        content_type: by default that of the path's ending (``txt``, ``xml``, ``json``), else HTML.
        etag: a request with the same ``If-None-Match`` gets status 304.
        last_modified: a date as HTTP writes it; a request with the same ``If-Modified-Since`` gets status 304.
        delay: seconds until the response begins.
        pause: seconds between two bytes of the faults ``slow`` and ``slow head``.
        fault: what goes wrong:

            - ``close`` or ``reset``: the connection ends without a response.
            - ``silent``: no response comes, and the connection stays open.
            - ``garbage``: the response is not HTTP.
            - ``short`` or ``reset body``: the connection ends after half of the body.
            - ``bad chunk``: the body is chunked, and the length of the second chunk is not a number.
            - ``slow`` or ``slow head``: the body, or all of it, comes byte by byte.
            - ``endless`` or ``endless head``: the body, or the headers, never end.
            - ``stale``: the connection is closed after the response, which says that it stays open.

    Raises:
        BadArgument: *body* is neither text nor bytes; *status*, *delay* or *pause* is not a number, or out of range.
        BadChoice: there is no such fault.

    Example:
        >>> Reply(body="gone", status=410).status
        410
        >>> Reply(fault="slowly")
        Traceback (most recent call last):
        greendata.errors.arguments.BadChoice: fault must be 'bad chunk', 'close', ... or 'stale', got 'slowly'
    """

    body: str | bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    delay: float = 0.0
    pause: float = 0.02
    fault: Fault | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.body, str | bytes):
            raise BadArgument("body", self.body, "text or bytes")
        if not is_count(self.status, least=200) or self.status > 999:
            raise BadArgument("status", self.status, "a whole number from 200 to 999")
        for name, value in (("delay", self.delay), ("pause", self.pause)):
            if not is_number(value):
                raise BadArgument(name, value, "a number of seconds >= 0")
        if self.fault is not None and self.fault not in FAULTS:
            raise BadChoice("fault", self.fault, FAULTS)

    @classmethod
    def redirect(cls, location: str, status: int = 302) -> Self:
        """Return a redirect to *location*, which may be relative.

        Example:
            >>> Reply.redirect("/b").headers
            {'Location': '/b'}
        """
        return cls(status=status, headers={"Location": location})

    @classmethod
    def sitemap(cls, urls: Iterable[str], *, index: bool = False) -> Self:
        """Return a sitemap of *urls*, or an index of sitemaps.

        Example:
            >>> Reply.sitemap(["http://127.0.0.1/a"]).content_type
            'application/xml'
        """
        outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
        entries = "".join(f"<{inner}><loc>{escape(url)}</loc></{inner}>" for url in urls)
        body = f'<{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</{outer}>'
        return cls(body='<?xml version="1.0" encoding="UTF-8"?>' + body, content_type="application/xml")

    @classmethod
    def bomb(cls, size: int = 1 << 28, *, content_type: str = _HTML) -> Self:
        """Return *size* bytes of zeros, which are sent as gzip of a thousandth of that.

        Example:
            >>> len(Reply.bomb(1 << 20).body) < 2000
            True
        """
        packer = zlib.compressobj(wbits=31)
        zeros = bytes(_PIECE)
        parts = [packer.compress(zeros[: size - sent]) for sent in range(0, size, _PIECE)]
        body = b"".join([*parts, packer.flush()])
        return cls(body=body, content_type=content_type, headers={"Content-Encoding": "gzip"})


# A page: a response, a status, None (status 404), responses in turn, of which the last one is repeated, or a function.
Page: TypeAlias = "str | bytes | int | Reply | list[Any] | Callable[[Request], Any] | None"


class Hold:
    """Requests that wait in the site until `open`. `Site.hold` makes it. Safe from any thread.

    Example:
        >>> from urllib.request import urlopen
        >>> import greendata
        >>> with Site({"/": "late"}) as site, site.hold("/") as hold:
        ...     answer = greendata.run(lambda: urlopen(site.url("/")).read())
        ...     hold.wait()
        ...     answered = answer.ready()
        ...     hold.open()
        ...     answered, answer.get()
        (False, b'late')
    """

    __slots__ = ("_host", "_is_open", "_path", "_post", "_waiting")

    def __init__(self, post: Callable[[Callable[[], object]], None], path: str | None, host: str | None) -> None:
        self._post = post
        self._path = path
        self._host = host
        self._waiting: list[Callable[[], object]] = []  # only the site's thread changes it
        self._is_open = False  # only the site's thread sets it

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return len(self._waiting)

    def wait(self, count: int = 1) -> None:
        """Return once *count* requests wait. In a thread with a hub the other greenlets run meanwhile.

        Raises:
            TimeoutError: there were fewer for a minute.
        """
        _wait(lambda: self.waiting >= count, lambda: f"{self.waiting} requests of {count} waited")

    def open(self) -> None:
        """Let the waiting requests continue, and let later ones pass."""
        self._post(self._open)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def _open(self) -> None:
        self._is_open = True
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer()

    def _holds(self, request: Request) -> bool:
        return (
            not self._is_open
            and (self._path is None or self._path in (request.path, request.target))
            and (self._host is None or self._host == request.host)
        )


class Site:
    """A site on loopback, in a native thread of its own. Use it as a context manager.

    Args:
        pages: pages by path (``"/a"``), by path with query (``"/a?page=2"``), or by address and path
            (``"127.0.0.2/a"``); or a function of the `Request` that returns a page, which the site's thread calls, and
            which must not wait. A page is text, bytes, a `Reply`, a status, None (status 404), a function of the
            request, or a list of these: the responses in turn, of which the last one is repeated.
        robots: the page ``/robots.txt`` of every host.
        hosts: how many addresses the site listens at, from ``127.0.0.1`` on, all at the same port.
        delay: seconds until each response begins, in addition to `Reply.delay`.
        keep_alive: False closes each connection after its response.

    Attributes:
        hosts: the addresses.
        port: the port of all of them.
        requests: every `Request`, in the order of arrival.

    Raises:
        BadArgument: *pages*, *hosts* or *delay* cannot be used.
        OSError: an address cannot be bound: on macOS, those after the first have to be added to ``lo0``.
        Exception: at the end of the block, the first that a function of a page has raised. The response had status 500.

    Safe from any thread, patched or not. The site ends with its block, and its thread with it.

    Example:
        >>> from urllib.request import urlopen
        >>> def numbers(request):
        ...     return f"<h1>{request.query}</h1>" if request.path == "/number" else None
        >>> with Site(numbers, hosts=2) as site:
        ...     urlopen(site.url("/number?7", host="127.0.0.2")).read(), site.hosts
        (b'<h1>7</h1>', ('127.0.0.1', '127.0.0.2'))
        >>> site.count("/number"), site.count(host="127.0.0.1"), site.connections()
        (1, 0, 1)
    """

    def __init__(
        self,
        pages: Mapping[str, Any] | Callable[[Request], Any] | None = None,  # Any: checkers infer dict[str, object]
        *,
        robots: Any = None,
        hosts: int = 1,
        delay: float = 0.0,
        keep_alive: bool = True,
    ) -> None:
        if not is_count(hosts) or hosts > 1 << 16:
            raise BadArgument("hosts", hosts, "a whole number from 1 to 65536")
        if not is_number(delay):
            raise BadArgument("delay", delay, "a number of seconds >= 0")
        pages = {} if pages is None else pages
        if isinstance(pages, Mapping):
            for key, page in pages.items():
                if not isinstance(key, str) or "/" not in key or not _is_page(page):
                    raise BadArgument(f"pages[{key!r}]", page, "a page by its path, see greendata.testing.Site")
        elif not callable(pages):
            raise BadArgument("pages", pages, "a dict of pages by path, or a function of a request")
        self.hosts = tuple(f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(1, hosts + 1))
        self.requests: list[Request] = []  # the site's thread appends; any thread reads
        self._pages = pages
        self._robots = robots
        self._delay = delay
        self._keep_alive = keep_alive
        self._turns: dict[int, Iterator[Page]] = {}  # of pages that are lists
        self._holds: list[Hold] = []  # any thread appends
        self._in_flight = dict.fromkeys(self.hosts, 0)  # of each host; the site's thread counts
        self._most = dict.fromkeys(self.hosts, 0)
        self._most_of_all = 0
        self._accepted = dict.fromkeys(self.hosts, 0)
        self._errors: list[BaseException] = []  # the site's thread appends
        self._commands: deque[Callable[[], object]] = deque()  # any thread appends; the site's thread calls them
        self._connections: dict[int, _Connection] = {}  # by descriptor; the site's thread alone
        self._timers: list[tuple[float, int, Callable[[], object]]] = []  # the site's thread alone
        self._numbers = count()
        self._is_closing = False  # the site's thread sets it
        self._is_over = False  # the site's thread sets it, as its last step
        self._listeners = _listeners(self.hosts)
        self.port: int = self._listeners[0].getsockname()[1]
        self._refusing = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        self._refusing.bind((self.hosts[0], 0))  # and never listens
        self._wake, self._waker = _socket.socketpair()
        self._waker.setblocking(False)
        native.start_thread(self._run, ())

    def url(self, path: str = "/", *, host: str | None = None) -> str:
        """Return the URL of *path* at *host*, one of `hosts`; None for the first. An empty path gives the origin.

        Raises:
            BadArgument: *path* does not begin with a slash, or *host* is not an address of the site.
        """
        if path and not path.startswith("/"):
            raise BadArgument("path", path, "a path that begins with a slash")
        return f"http://{self._known(host) or self.hosts[0]}:{self.port}{path}"

    @property
    def refused_url(self) -> str:
        """A URL at which every connection is refused, as long as the site exists."""
        host, port = self._refusing.getsockname()
        return f"http://{host}:{port}/"

    def hold(self, path: str | None = None, *, host: str | None = None) -> Hold:
        """Hold the next requests for *path* (None: for all) at *host* (None: at all) until `Hold.open` is called.

        Raises:
            BadArgument: *host* is not an address of the site. So do all methods that take one.
        """
        hold = Hold(self._post, path, self._known(host))
        self._holds.append(hold)
        return hold

    def asked(self, path: str | None = None, *, host: str | None = None) -> list[Request]:
        """Return the requests for *path*, with or without its query, and at *host*, in the order of arrival."""
        self._known(host)
        return [
            found
            for found in tuple(self.requests)
            if (path is None or path in (found.path, found.target)) and (host is None or host == found.host)
        ]

    def count(self, path: str | None = None, *, host: str | None = None) -> int:
        """Return the number of requests for *path* and at *host*."""
        return len(self.asked(path, host=host))

    def gaps(self, host: str | None = None) -> list[float]:
        """Return the seconds from each request at *host* to the next one.

        Example:
            >>> with Site() as site:
            ...     site.gaps()
            []
        """
        return [after.at - before.at for before, after in pairwise(self.asked(host=host))]

    def most_at_once(self, host: str | None = None) -> int:
        """Return the largest number of requests that were in flight at one moment, at *host* or together."""
        return self._most_of_all if (known := self._known(host)) is None else self._most[known]

    def in_flight(self, host: str | None = None) -> int:
        """Return how many requests are being answered or held now."""
        return sum(self._in_flight.values()) if (known := self._known(host)) is None else self._in_flight[known]

    def connections(self, host: str | None = None) -> int:
        """Return how many connections were accepted, at *host* or together."""
        return sum(self._accepted.values()) if (known := self._known(host)) is None else self._accepted[known]

    def open_connections(self) -> int:
        """Return how many connections are open now."""
        return len(self._connections)

    def wait_for(self, count: int, path: str | None = None, *, host: str | None = None) -> None:
        """Return once *count* requests have arrived. In a thread with a hub the other greenlets run meanwhile.

        Raises:
            TimeoutError: there were fewer for a minute.
        """
        came = partial(self.count, path, host=host)
        _wait(lambda: came() >= count, lambda: f"{came()} of {count} requests came")

    def wait_idle(self) -> None:
        """Return once no request is in flight. In a thread with a hub the other greenlets run meanwhile.

        Raises:
            TimeoutError: there were some for a minute.
        """
        _wait(lambda: not self.in_flight(), lambda: f"{self.in_flight()} requests did not end")

    def close(self) -> None:
        """End the site: close every connection, also of requests that are held, and end its thread. Idempotent.

        Raises:
            TimeoutError: a function of a page has not returned for a minute.
        """
        self._post(self._stop)
        _wait(lambda: self._is_over, lambda: "a function of a page did not return, nor did the site end")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None and self._errors:
            raise self._errors[0]

    def __reduce__(self) -> Never:
        raise TypeError("cannot pickle a Site: its server runs in this process")

    def __repr__(self) -> str:
        state = "closed" if self._is_over else f"{self.url()}"
        return f"<Site {state}: {len(self.requests)} requests, {self.in_flight()} in flight>"

    def _known(self, host: str | None) -> str | None:
        if host is not None and host not in self._accepted:
            raise BadArgument("host", host, f"None or an address of the site, {self.hosts[0]} to {self.hosts[-1]}")
        return host

    # -- the site's thread ------------------------------------------------------------------------------------

    def _post(self, command: Callable[[], object]) -> None:
        """Have the site's thread call *command*. Safe from any thread; after the end it does nothing."""
        self._commands.append(command)
        with suppress(OSError):  # closed: the site is over; or full: it is awake
            self._waker.send(b"\0")

    def _stop(self) -> None:
        self._is_closing = True

    def _run(self) -> None:
        native.name_this_thread("gd-site")
        self._selector = _selector()
        try:
            self._selector.register(self._wake, _READ, self._obey)
            for host, listener in zip(self.hosts, self._listeners, strict=True):
                self._selector.register(listener, _READ, partial(self._accept, listener, host))
            while not self._is_closing:
                self._turn()
        except BaseException as error:  # noqa: BLE001 - the block raises it
            self._errors.append(error)
        finally:
            for connection in tuple(self._connections.values()):
                self._drop(connection)
            for stream in (*self._listeners, self._refusing, self._wake, self._waker):
                stream.close()
            self._selector.close()
            self._is_over = True

    def _turn(self) -> None:
        """Wait for events and timers, and serve them."""
        timeout = max(0.0, self._timers[0][0] - monotonic()) if self._timers else None
        for key, events in self._selector.select(timeout):
            if isinstance(key.data, _Connection):
                if key.data.is_open and events & _READ:
                    self._read(key.data)
                if key.data.is_open and events & _WRITE:
                    self._write(key.data)
            else:
                key.data()
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            heappop(self._timers)[2]()

    def _obey(self) -> None:
        self._wake.recv(_RECEIVED)
        while self._commands:
            self._commands.popleft()()

    def _later(self, seconds: float, action: Callable[[], object]) -> None:
        heappush(self._timers, (monotonic() + seconds, next(self._numbers), action))

    def _accept(self, listener: Any, host: str) -> None:
        with suppress(BlockingIOError, ConnectionError):
            while True:
                descriptor, _ = listener._accept()
                stream = _socket.socket(fileno=descriptor)
                stream.setblocking(False)
                stream.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                self._accepted[host] += 1
                connection = _Connection(stream, host, self.connections())
                self._connections[descriptor] = connection
                self._selector.register(descriptor, _READ, connection)

    def _read(self, connection: _Connection) -> None:
        try:
            received = connection.stream.recv(_RECEIVED)
        except BlockingIOError:
            return
        except OSError:  # the client has reset the connection
            received = b""
        if not received or len(connection.received) > _MAX_HEAD:
            self._drop(connection)
        else:
            connection.received += received
            self._next(connection)

    def _next(self, connection: _Connection) -> None:
        """Respond to the next request of *connection*, if it has arrived and the response before it has ended."""
        parsed = None if connection.request else _parse(connection.received)
        if parsed is None:
            return
        method, target, head, body, length = parsed
        del connection.received[:length]
        host = connection.host
        self._in_flight[host] += 1
        at_once = self._in_flight[host]
        self._most[host] = max(self._most[host], at_once)
        self._most_of_all = max(self._most_of_all, self.in_flight())
        request = Request(method, host, target, monotonic(), connection.number, at_once, head, body)
        connection.request = request
        self.requests.append(request)
        for hold in tuple(self._holds):
            if hold._holds(request):
                hold._waiting.append(partial(self._answer, connection, request))
                return
        self._answer(connection, request)

    def _answer(self, connection: _Connection, request: Request) -> None:
        keeps = self._keep_alive and b"\r\nconnection: close" not in request.head.lower()
        try:
            reply = _reply(self._page(request), request, self._turn_of)
            pieces = _pieces(reply, request, keeps=keeps)
        except Exception as error:  # noqa: BLE001 - the block raises it
            self._errors.append(error)
            reply = Reply(status=500, content_type="text/plain", body="a page of the site has raised an error")
            pieces = _pieces(reply, request, keeps=keeps)
        begin = partial(self._begin, connection, request, reply, pieces, keeps=keeps)
        seconds = self._delay + reply.delay
        if seconds:
            self._later(seconds, begin)
        else:
            begin()

    def _begin(
        self, connection: _Connection, request: Request, reply: Reply, pieces: Iterator[bytes | float], *, keeps: bool
    ) -> None:
        if not connection.is_open or connection.request is not request:  # the client has left
            return
        if reply.fault in ("close", "reset"):
            self._drop(connection, resets=reply.fault == "reset")
            return
        connection.pieces = pieces
        connection.keeps = keeps and reply.fault not in ("short", "reset body", "bad chunk", "garbage", "stale")
        connection.resets = reply.fault == "reset body"
        self._write(connection)

    def _write(self, connection: _Connection) -> None:
        """Send what is to be sent, up to the next pause, or as much as the connection takes."""
        try:
            while True:
                if not connection.unsent:
                    piece = next(connection.pieces, None)
                    if piece is None:
                        self._finish(connection)
                        return
                    if isinstance(piece, float):
                        self._watch(connection, _READ)
                        self._later(piece, partial(self._resume, connection, connection.request))
                        return
                    connection.unsent = memoryview(piece)
                connection.unsent = connection.unsent[connection.stream.send(connection.unsent) :]
                if connection.unsent:
                    break
        except BlockingIOError:
            self._watch(connection, _READ | _WRITE)
        except OSError:  # the client has left
            self._drop(connection)
        else:
            self._watch(connection, _READ | _WRITE)

    def _resume(self, connection: _Connection, request: Request | None) -> None:
        if connection.is_open and connection.request is request:
            self._write(connection)

    def _finish(self, connection: _Connection) -> None:
        if not connection.keeps:
            self._drop(connection, resets=connection.resets)
            return
        self._watch(connection, _READ)
        self._settle(connection)
        self._next(connection)

    def _settle(self, connection: _Connection) -> None:
        if connection.request is not None:
            self._in_flight[connection.host] -= 1
            connection.request = None

    def _watch(self, connection: _Connection, events: int) -> None:
        if connection.events != events:
            connection.events = events
            self._selector.modify(connection.descriptor, events, connection)

    def _drop(self, connection: _Connection, *, resets: bool = False) -> None:
        connection.is_open = False
        del self._connections[connection.descriptor]  # before the request ends, which other threads wait for
        self._settle(connection)
        self._selector.unregister(connection.descriptor)
        if resets:
            connection.stream.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RST)
        connection.stream.close()

    def _page(self, request: Request) -> Any:
        if self._robots is not None and request.path == "/robots.txt":
            return self._robots
        if callable(self._pages):
            return self._pages(request)
        for key in (request.host + request.target, request.host + request.path, request.target, request.path):
            if key in self._pages:
                return self._pages[key]
        return None

    def _turn_of(self, pages: list[Page]) -> Page:
        """Return the next page of the list; the last one again and again."""
        turns = self._turns.setdefault(id(pages), _in_turn(pages))  # the list lives as long as the site's pages
        return next(turns)


class _Connection:
    """A connection of the site. Only the site's thread uses it."""

    __slots__ = (
        "descriptor",
        "events",
        "host",
        "is_open",
        "keeps",
        "number",
        "pieces",
        "received",
        "request",
        "resets",
        "stream",
        "unsent",
    )

    def __init__(self, stream: Any, host: str, number: int) -> None:
        self.stream = stream
        self.descriptor: int = stream.fileno()
        self.host = host
        self.number = number
        self.received = bytearray()
        self.request: Request | None = None  # the one that gets a response now
        self.pieces: Iterator[bytes | float] = iter(())  # of the response; a number is a pause in seconds
        self.unsent: Any = b""
        self.events = _READ
        self.keeps = True  # the connection stays open after the response
        self.resets = False  # it ends with a reset
        self.is_open = True


def _listeners(hosts: tuple[str, ...]) -> list[Any]:
    """Return sockets that listen at the same port of each host."""
    for _ in range(20):
        listeners: list[Any] = []
        port = 0
        try:
            for host in hosts:
                listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
                listeners.append(listener)
                listener.bind((host, port))
                listener.listen(_BACKLOG)
                listener.setblocking(False)
                port = listener.getsockname()[1]
        except OSError as error:
            failure = error
            for listener in listeners:
                listener.close()
            if len(listeners) == 1:  # no port at all is free
                break
        else:
            return listeners
    raise failure


def _parse(received: bytearray) -> tuple[str, str, bytes, bytes, int] | None:
    """Return method, target, head, body and length of the first request, or None if it is not complete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[: end + 2])
    length = end + 4
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    marker = head.lower().find(b"\r\ncontent-length:")
    if marker >= 0:
        digits = head[marker + 17 :].split(b"\r\n", 1)[0].strip()
        length += int(digits) if digits.isdigit() else 0  # a client may send anything
        if len(received) < length:
            return None
    body = bytes(received[end + 4 : length])
    return words[0], words[1] if len(words) > 1 else "", head, body, length


def _is_page(page: object) -> bool:
    if isinstance(page, list):
        return bool(page) and all(_is_page(each) for each in page)
    return page is None or callable(page) or isinstance(page, str | bytes | Reply) or is_count(page, least=200)


def _in_turn(pages: list[Page]) -> Iterator[Page]:
    yield from pages
    while True:
        yield pages[-1]


def _reply(page: Page, request: Request, turn_of: Callable[[list[Page]], Page]) -> Reply:
    """Return the response that *page* stands for."""
    while callable(page) or isinstance(page, list):
        page = turn_of(page) if isinstance(page, list) else page(request)
    if not _is_page(page):
        raise BadArgument("page", page, "text, bytes, a Reply, a status, None, a function or a list of pages")
    match page:
        case Reply():
            return page
        case None:
            return Reply(status=404, body="<h1>not found</h1>")
        case int():
            return Reply(status=page)
        case _:
            return Reply(body=page)


def _pieces(reply: Reply, request: Request, *, keeps: bool) -> Iterator[bytes | float]:
    """Return the response: bytes, and pauses in seconds."""
    body = reply.body.encode() if isinstance(reply.body, str) else reply.body
    status = 304 if reply.status == 200 and _is_known(reply, request) else reply.status
    head = _head(reply, request, status, len(body), keeps=keeps)
    if reply.fault in (None, "stale", "close", "reset"):
        has_body = request.method != "HEAD" and status not in (204, 304)
        return iter((head + body if has_body else head,))
    return _FAULTY[reply.fault](head, body, reply.pause)


def _is_known(reply: Reply, request: Request) -> bool:
    """Return True if the client has this response already. An ETag takes precedence over a date (RFC 9110)."""
    if reply.etag is None and reply.last_modified is None:
        return False
    sent = request.headers
    if (known := sent.get("if-none-match")) is not None:
        return reply.etag is not None and reply.etag in known
    return reply.last_modified is not None and reply.last_modified == sent.get("if-modified-since")


def _silent(_head: bytes, _body: bytes, _pause: float) -> Iterator[bytes | float]:
    while True:
        yield 3600.0


def _garbage(_head: bytes, _body: bytes, _pause: float) -> Iterator[bytes | float]:
    yield b"\x00\xff no HTTP at all\n" * 20


def _half(head: bytes, body: bytes, pause: float) -> Iterator[bytes | float]:
    yield head + body[: len(body) // 2]
    yield pause  # the client reads the half: the reset may overtake it


def _byte_by_byte(head: bytes, body: bytes, pause: float) -> Iterator[bytes | float]:
    for number in range(len(body)):
        yield head + body[number : number + 1]
        yield pause
        head = b""


def _endless_head(head: bytes, _body: bytes, _pause: float) -> Iterator[bytes | float]:
    yield head[:-2]
    while True:
        yield b"X-Again: %s\r\n" % (b"a" * 80) * 100


def _endless(head: bytes, body: bytes, _pause: float) -> Iterator[bytes | float]:
    yield head
    body = body or b"<p>and so on</p>\n"
    chunk = body * max(1, _PIECE // len(body))
    while True:
        yield b"%x\r\n%s\r\n" % (len(chunk), chunk)


def _bad_chunk(head: bytes, body: bytes, _pause: float) -> Iterator[bytes | float]:
    half = body[: len(body) // 2] or b"half"
    yield head + b"%x\r\n%s\r\nno number\r\n" % (len(half), half)


_FAULTY: dict[str, Callable[[bytes, bytes, float], Iterator[bytes | float]]] = {
    "bad chunk": _bad_chunk,
    "endless": _endless,
    "endless head": _endless_head,
    "garbage": _garbage,
    "reset body": _half,
    "short": _half,
    "silent": _silent,
    "slow": _byte_by_byte,
    "slow head": lambda head, body, pause: _byte_by_byte(b"", head + body, pause),
}


def _head(reply: Reply, request: Request, status: int, length: int, *, keeps: bool) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    ending = request.path.rpartition(".")[2]
    headers = {"Content-Type": reply.content_type or _TYPES.get(ending, _HTML)}
    if reply.fault in ("endless", "bad chunk"):
        headers["Transfer-Encoding"] = "chunked"
    elif status not in (204, 304):
        headers["Content-Length"] = str(length)
    if reply.etag:
        headers["ETag"] = reply.etag
    if reply.last_modified:
        headers["Last-Modified"] = reply.last_modified
    if not keeps:
        headers["Connection"] = "close"
    headers.update(reply.headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {phrase}\r\n{lines}\r\n".encode("latin-1", "replace")


def _wait(is_so: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    end = monotonic() + GUARD
    while not is_so():
        if monotonic() > end:
            raise TimeoutError(f"{otherwise()} within {GUARD:g} seconds")
        if get_hub_if_exists() is None:
            native.sleep(0.001)
        else:
            sleep(0.001)
