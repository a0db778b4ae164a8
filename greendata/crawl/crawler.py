"""`Crawler`: the greenlets of one run that take requests from the scheduler, send them, and finish pages.

    add ──► Scheduler ──► workers: robots, one hop, redirect or retry ──► parser: some pages in one job ──► deliver
               ▲                        │
               └── redirects, retries ──┘

A worker sends one hop at a time and never waits for a host: what has to wait goes back to the scheduler, and the worker
takes the next request. One timer of the hub wakes a worker when the next host is due. Every page that was added ends in
one call of *deliver*, whatever happens to it.

Everything here runs on the hub's thread. Pages are parsed in the pool, in one job at a time, so the Python code of a
parse competes with the hub for the GIL as one thread and not as many.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent.lock import Semaphore

from greendata.crawl.page import RobotsVerdict
from greendata.crawl.parsing import Fetched, Finished, Parser, left_out
from greendata.crawl.robots import EXPIRES, MAX_REDIRECTS, RobotsRules, parse_robots
from greendata.crawl.scheduler import Host, RequestOutcome, Scheduler
from greendata.crawl.stats import CrawlCounters
from greendata.crawl.urls import Scope, Url, parse_url
from greendata.errors import BadUrl
from greendata.errors.notes import text_of
from greendata.http.retry import retry_after_of
from greendata.pipelines.channel import Channel, Waiting, WaitQueue
from greendata.pipelines.run import Run
from greendata.pool import pool
from greendata.pool.job import bypassing_queue_limit

if TYPE_CHECKING:
    from greendata.crawl.fetcher import Hop, Limits

__all__ = ("Crawler", "FetchTask", "FileTask", "Options", "PageTask")

REDIRECTS = 10  # hops of a page; browsers follow 20, and chains of real sites have fewer than five
SITEMAPS = 50  # sitemaps of one host that are read
SITEMAP_LEVELS = 3  # indexes that may lead to a sitemap; the protocol allows one
SITEMAP_BYTES = 50 << 20  # bytes of one, as sent and decompressed: the limit of the protocol
SITEMAPS_AT_ONCE = 4  # sitemaps of all hosts together in memory: 200 MB at most
ROBOTS_BYTES = 512 * 1024  # of robots.txt that are read (RFC 9309 asks for 500 KiB)
UNREACHABLE_EXPIRES = 600.0  # seconds after which a robots.txt that could not be fetched is asked for again
PARSED_AT_ONCE = 8  # pages in one job: a job costs as much as a twentieth of a page
UNPARSED = 16  # fetched pages that are not delivered yet: at this number no worker takes another request

_THROTTLED = (429, 503)
_BROKEN = (408, 500, 502, 504)
_FINAL = ("AddressRefused", "CertificateInvalid", "NameNotFound")  # errors that another attempt does not change
_UNREACHABLE = ("ConnectionFailed", "LookupFailed", "NameNotFound", "Timeout", "TlsFailed", "CertificateInvalid")
_READABLE = ("BadRedirect", "BodyTooLarge", "TooManyRedirects")  # errors after which a robots.txt still applies


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings of a crawl that its workers use, see `greendata.crawl.verbs.crawl`."""

    user_agent: str
    headers: Mapping[str, str]
    allow_private: bool | Iterable[str]
    per_host: int
    delay: float
    workers: int
    retries: int
    max_wait: float
    max_bytes: int
    timeout: float
    sitemaps: bool = False


class FetchTask:
    """Something to fetch, perhaps in several hops.

    Attributes:
        url: of the next hop.
        redirects: the URLs before it.
        attempts: how often this hop was sent.
    """

    __slots__ = ("attempts", "redirects", "url")

    def __init__(self, url: Url) -> None:
        self.url = url
        self.redirects: list[Url] = []
        self.attempts = 0

    @property
    def origin(self) -> str:
        """The host of the next hop."""
        return self.url.origin

    @property
    def asked(self) -> Url:
        """The URL of the first hop."""
        return self.redirects[0] if self.redirects else self.url


class PageTask(FetchTask):
    """A page to fetch, which ends as one row.

    Attributes:
        key: what *deliver* needs to know whose page it is.
        depth: how many links away from a seed the page is.
        etag, last_modified: the validators of its last response, if there was one.
        robots: what robots.txt of the last host said.
    """

    __slots__ = ("depth", "etag", "key", "last_modified", "robots")

    def __init__(
        self, url: Url, key: Any, depth: int = 0, etag: str | None = None, last_modified: str | None = None
    ) -> None:
        super().__init__(url)
        self.key = key
        self.depth = depth
        self.etag = etag
        self.last_modified = last_modified
        self.robots: RobotsVerdict | None = None


class FileTask(FetchTask):
    """A robots.txt or a sitemap to fetch.

    Attributes:
        is_robots: which of the two.
        owner: the host whose file it is, whatever host it redirects to.
        level: how many indexes lead to this sitemap.
    """

    __slots__ = ("is_robots", "level", "owner")

    def __init__(self, url: Url, owner: str, *, is_robots: bool = False, level: int = 0) -> None:
        super().__init__(url)
        self.is_robots = is_robots
        self.owner = owner
        self.level = level


@dataclass(frozen=True, slots=True)
class _Permission:
    """What robots.txt of a host says, or why there is none.

    Attributes:
        rules: the rules; None if the file is still being fetched.
        expires: when to ask again, on the monotonic clock.
        error, message: why the file could not be fetched, if that forbids everything.
    """

    rules: RobotsRules | None
    expires: float
    error: str | None = None
    message: str | None = None


_ASKED = _Permission(None, math.inf)


class Crawler:
    """The workers and the parser of one run. Call from the hub's thread.

    Args:
        run: the run of the pipeline; its end ends the greenlets.
        options: the settings.
        parser: parses pages off the hub.
        counters: count what happens.
        deliver: called once for every page, by one greenlet; it may wait.
        notify: called when something has changed that the source of pages may wait for.
        found: called with the URLs of a sitemap, by one greenlet; it may wait.

    Attributes:
        scheduler: decides which request is next.
        scope: the URLs that redirects and links may lead to; None for all.
        trusted: the hosts that the headers of the caller are sent to; None for those of the URLs that were asked for.
        follows: whether links are wanted.
        pages: pages that were added and not delivered.
        files: robots.txt and sitemaps that were added and have not ended.
    """

    def __init__(
        self,
        run: Run,
        options: Options,
        parser: Parser,
        counters: CrawlCounters,
        *,
        deliver: Callable[[PageTask, Finished], object],
        notify: Callable[[], object],
        found: Callable[[list[Url]], object] | None = None,
    ) -> None:
        from greendata.crawl.fetcher import Fetcher, Limits  # here, because it imports ssl, which gevent may patch

        self.scheduler: Scheduler[FetchTask] = Scheduler(
            workers=options.workers,
            per_host=options.per_host,
            delay=options.delay,
            max_wait=options.max_wait,
            clock=monotonic,
        )
        counters.hosts = lambda: (self.scheduler.hosts_waiting, self.scheduler.hosts_given_up)
        self.scope: Scope | None = None
        self.trusted: set[str] | None = None
        self.follows = False
        self.pages = 0
        self.files = 0
        self._run = run
        self._options = options
        self._parser = parser
        self._counters = counters
        self._deliver = deliver
        self._notify = notify
        self._found = found
        self._fetcher = Fetcher(options.user_agent, allow_private=options.allow_private)
        page_limits = Limits(max_bytes=options.max_bytes, timeout=options.timeout)
        self._limits = {
            "page": page_limits,
            "robots": replace(page_limits, max_bytes=ROBOTS_BYTES, content_types=None),
            "sitemap": replace(page_limits, max_bytes=SITEMAP_BYTES, content_types=None),
        }
        self._sitemaps: dict[str, int] = {}  # the number of sitemaps that were added, by host
        self._open_sitemaps: set[FileTask] = set()  # that were sent and are not parsed
        self._postponed: deque[FileTask] = deque()  # sitemaps that wait until fewer are open
        self._matching = Semaphore()  # held while the rules of a robots.txt are matched off the hub
        self._has_warned = False  # of a scope that raises
        self._has_ended = False
        self._idle = _IdleWorkers(run.hub)
        self._timer = run.hub.loop.timer(0.0)
        self._timer_due = math.inf
        self._unparsed = 0  # what is in the channel, or being parsed or delivered
        self._fetched: Channel = run.channel(0)  # its length is limited by the workers, who stop at `UNPARSED`
        self._fetched.join(options.workers)
        for _ in range(options.workers):
            run.spawn(self._work)
        run.spawn(self._parse)

    # -- the source of pages -------------------------------------------------------------------------

    def add(self, task: PageTask) -> None:
        """Add a page to fetch."""
        self.pages += 1
        self._schedule(task)

    def add_sitemap(self, url: Url, owner: str, level: int = 0) -> None:
        """Add a sitemap to fetch, unless its host has had enough of them."""
        count = self._sitemaps.get(owner, 0)
        if count < SITEMAPS and level <= SITEMAP_LEVELS and self._is_in_scope(url):
            self._sitemaps[owner] = count + 1
            self.files += 1
            self._schedule(FileTask(url, owner, level=level))

    def end(self) -> None:
        """End the workers. Nothing must be in progress."""
        self._has_ended = True
        self._idle.wake_all()

    def close(self) -> None:
        """Close the connections and the timer, when all greenlets of the run have ended."""
        self._timer.close()
        self._fetcher.close()
        self._parser.close()

    @property
    def is_at_rest(self) -> bool:
        """True if no page and no file is in progress."""
        return not self.pages and not self.files

    # -- workers -------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (task := self._next()) is not None:
            self._serve(task)
        self._fetched.leave()

    def _next(self) -> FetchTask | None:
        """Wait for a request that may be sent now; return None at the end."""
        while not self._has_ended:
            task = math.inf if self._unparsed >= UNPARSED else self.scheduler.take()
            if self.scheduler.needs_refill:
                self._notify()
            if isinstance(task, FetchTask):
                self._idle.wake()  # there may be more
                return task
            if task is not None and task < math.inf:
                self._set_timer(task)
            self._idle.wait()
        return None

    def _set_timer(self, seconds: float) -> None:
        due = monotonic() + seconds
        if due < self._timer_due:
            self._timer_due = due
            self._timer.close()
            self._timer = self._run.hub.loop.timer(seconds)
            self._timer.start(self._on_timer, update=True)

    def _on_timer(self) -> None:
        self._timer_due = math.inf
        self._idle.wake()

    def _schedule(self, task: FetchTask) -> None:
        """Queue *task* at the host of its next hop, and have the robots.txt of that host fetched first."""
        is_robots = isinstance(task, FileTask) and task.is_robots
        if not is_robots:
            host = self.scheduler.host(task.origin)
            if host.robots is None:
                self._ask_robots(host, task.url)
        self.scheduler.add(task, urgent=is_robots)
        self._idle.wake()

    def _ask_robots(self, host: Host[FetchTask], url: Url) -> None:
        host.robots = _ASKED
        self.scheduler.hold(host.origin)
        self.files += 1
        self._schedule(FileTask(parse_url("/robots.txt", url), host.origin, is_robots=True))

    def _serve(self, task: FetchTask) -> None:
        """Send one hop of *task*, unless its host was given up or the robots.txt there forbids it."""
        host = self.scheduler.host(task.origin)
        if host.is_given_up:
            self.scheduler.done(task, RequestOutcome.UNSENT)
            self._refuse(task, "HostGivenUp", "the host did not respond several times in a row")
            return
        if not (isinstance(task, FileTask) and task.is_robots) and not self._may_send(task, host):
            return
        if isinstance(task, FileTask) and not task.is_robots:
            if len(self._open_sitemaps) >= SITEMAPS_AT_ONCE:
                self.scheduler.done(task, RequestOutcome.UNSENT)
                self._postponed.append(task)
                return
            self._open_sitemaps.add(task)
        task.attempts += 1
        at = datetime.now(UTC)
        self._counters.sent()
        try:
            hop = self._fetcher.fetch_hop(task.url, headers=self._headers_for(task), limits=self._limits_for(task))
        finally:
            self._counters.answered()
        if _is_broken_robots(task, hop):
            hop.error, hop.message = "BadResponse", "it was cut short, so rules may be missing"
        if self._is_retried(task, hop, at):
            self._release(task)
            return
        if hop.error is None and hop.location is not None:
            self._redirect(task, hop, at)
        else:
            self._end(task, hop, at)

    def _may_send(self, task: FetchTask, host: Host[FetchTask]) -> bool:
        """Return whether robots.txt of *host* allows *task*. If it does not, *task* ends, or waits for the file."""
        permission = host.robots
        if permission is None or permission.rules is None or monotonic() >= permission.expires:
            self.scheduler.done(task, RequestOutcome.UNSENT, retry=task)
            if permission is not _ASKED:
                self._ask_robots(host, task.url)
            return False
        is_allowed = self._allows(permission.rules, task.url)
        if isinstance(task, PageTask):
            task.robots = "unreachable" if permission.error else "allowed" if is_allowed else "disallowed"
        if not is_allowed:
            self.scheduler.done(task, RequestOutcome.UNSENT)
            message = permission.message or "robots.txt of the host does not allow this crawler to fetch it"
            self._refuse(task, permission.error or "RobotsDisallowed", message)
        return bool(is_allowed)

    def _allows(self, rules: RobotsRules, url: Url) -> bool:
        """Return what *rules* say. A slow match runs in the pool, one at a time."""
        if rules.is_fast(url):
            return rules.allows(url)
        with self._matching:
            return bypassing_queue_limit(pool.call, rules.allows, url)

    def _is_retried(self, task: FetchTask, hop: Hop, at: datetime) -> bool:
        """Tell the scheduler what *hop* says about its host. Return True if *task* is to be sent again."""
        outcome = _outcome_of(hop)
        retries = (
            outcome is not RequestOutcome.ANSWERED
            and hop.error not in _FINAL
            and task.attempts <= self._options.retries
        )
        self.scheduler.done(
            task,
            RequestOutcome.UNSENT if hop.error == "AddressRefused" else outcome,
            seconds=hop.seconds,
            retry_after=retry_after_of(hop.headers.get("retry-after"), at)
            if outcome is RequestOutcome.THROTTLED
            else None,
            retry=task if retries else None,
            urgent=retries and isinstance(task, FileTask) and task.is_robots,
        )
        return retries

    def _redirect(self, task: FetchTask, hop: Hop, at: datetime) -> None:
        """Queue the next hop of *task* at its own host, or end the task if that hop is not allowed."""
        assert hop.location is not None
        limit = MAX_REDIRECTS if isinstance(task, FileTask) else REDIRECTS
        error = message = None
        target = task.url
        try:
            target = parse_url(hop.location, task.url)
            if len(task.redirects) >= limit:
                error, message = "TooManyRedirects", f"more than {limit} redirects"
            elif isinstance(task, PageTask) and self.scope is not None and target not in self.scope:
                error, message = "OutOfScope", f"it redirects to {target.href}, which is not in the scope of the crawl"
        except BadUrl as bad:
            error, message = "BadRedirect", f"it redirects to a URL that cannot be used: {bad.reason}"
        except Exception as raised:  # noqa: BLE001 - a scope may be a function of the user; the row says what it raised
            error, message = "ExtractFailed", f"scope raised {type(raised).__name__}: {text_of(raised)}"
        if error is not None:
            hop.error, hop.message = error, message  # type: ignore[assignment]
            self._end(task, hop, at)
            return
        task.redirects.append(task.url)
        task.url = target
        task.attempts = 0
        self._release(task)
        self._schedule(task)

    def _headers_for(self, task: FetchTask) -> dict[str, str]:
        trusted = {task.asked.origin} if self.trusted is None else self.trusted
        headers = dict(self._options.headers) if task.origin in trusted else {}
        if isinstance(task, PageTask) and not task.redirects:
            if task.etag is not None:
                headers["If-None-Match"] = task.etag
            if task.last_modified is not None:
                headers["If-Modified-Since"] = task.last_modified
        return headers

    def _limits_for(self, task: FetchTask) -> Limits:
        if isinstance(task, FileTask):
            return self._limits["robots" if task.is_robots else "sitemap"]
        return self._limits["page"]

    def _release(self, task: FetchTask) -> None:
        """Start a postponed sitemap, if *task* is a sitemap that is no longer in memory."""
        if isinstance(task, FileTask) and not task.is_robots:
            self._open_sitemaps.discard(task)
            if self._postponed:
                self._schedule(self._postponed.popleft())

    # -- the end of a task ---------------------------------------------------------------------------

    def _refuse(self, task: FetchTask, error: str, message: str) -> None:
        """End *task* without having sent its hop."""
        from greendata.crawl.fetcher import Hop

        self._end(task, Hop(task.url.href, error=error, message=message), None)  # type: ignore[arg-type]

    def _end(self, task: FetchTask, hop: Hop, at: datetime | None) -> None:
        if isinstance(task, FileTask) and task.is_robots:
            self._end_robots(task, hop)
        else:
            self._unparsed += 1
            self._fetched.put((task, (hop, at)))

    def _end_robots(self, task: FileTask, hop: Hop) -> None:
        """Apply the robots.txt of a host, or its absence."""
        status = hop.status if hop.error is None or hop.error in _READABLE else None
        rules = bypassing_queue_limit(pool.call, parse_robots, status, hop.body, self._options.user_agent)
        now = monotonic()
        if rules.access in ("rules", "allow"):
            permission = _Permission(rules, now + EXPIRES)
        else:
            why = f"status {hop.status}" if status is not None else hop.message
            error = "RobotsUnreachable" if status is not None else hop.error
            message = f"robots.txt of the host could not be fetched ({why}), so nothing else may be"
            permission = _Permission(rules, now + UNREACHABLE_EXPIRES, error, message)
        self.scheduler.host(task.owner).robots = permission
        self.scheduler.set_delay(task.owner, rules.crawl_delay)
        self.scheduler.release(task.owner)
        self._idle.wake()
        if self._options.sitemaps and permission.error is None:
            self._add_sitemaps_of(task, rules.sitemaps or ("/sitemap.xml",))
        self.files -= 1
        self._notify()

    def _add_sitemaps_of(self, task: FileTask, sitemaps: Iterable[str]) -> None:
        for text in sitemaps:
            try:
                self.add_sitemap(parse_url(text, task.asked), task.owner)
            except BadUrl:
                continue

    def _parse(self) -> None:
        """Parse fetched pages and sitemaps, some at a time, and deliver them."""
        for first in self._fetched.drain():
            batch = [first]
            while self._fetched.items and len(batch) < PARSED_AT_ONCE:
                batch.append(self._fetched.items.popleft())
            pages = [(task, ended) for task, ended in batch if isinstance(task, PageTask)]
            for task, (hop, _) in batch:
                if isinstance(task, FileTask):
                    self._end_sitemap(task, hop)
            if pages:
                self._end_pages(pages)
            self._unparsed -= len(batch)
            del first, batch, pages
            self._idle.wake()
            self._notify()

    def _end_pages(self, pages: list[tuple[PageTask, tuple[Hop, datetime | None]]]) -> None:
        fetched = [
            Fetched(
                asked=task.asked,
                url=task.url,
                redirects=tuple(task.redirects[1:]),
                hop=hop,
                at=at,
                depth=task.depth,
                robots=task.robots,
                scope=self.scope if self.follows else None,
            )
            for task, (hop, at) in pages
        ]
        for (task, _), finished in zip(pages, self._parser.pages(fetched), strict=True):
            self._counters.finished(finished.page, task.origin)
            self._deliver(task, finished)
            self.pages -= 1

    def _is_in_scope(self, url: Url) -> bool:
        """Return whether a sitemap is in the scope. If the caller's function raises, the crawl continues without it."""
        try:
            return self.scope is None or url in self.scope
        except Exception as raised:  # noqa: BLE001 - a warning says so
            self._warn_of_scope(left_out(url, raised))
            return False

    def _warn_of_scope(self, text: str | None) -> None:
        if text is not None and not self._has_warned:
            self._has_warned = True
            warnings.warn_explicit(text, RuntimeWarning, "<crawl>", 1)  # it is about no line of code

    def _end_sitemap(self, task: FileTask, hop: Hop) -> None:
        if hop.status is not None and 200 <= hop.status < 300 and hop.body:
            urls, sitemaps, why = self._parser.sitemap(hop, task.url, self.scope)
            self._warn_of_scope(why)
            for url in sitemaps:
                self.add_sitemap(url, task.owner, task.level + 1)
            if self._found is not None and urls:
                self._found(urls)
        self._release(task)
        self.files -= 1


class _IdleWorkers(WaitQueue):
    """The workers that wait for a request. A wakeup while none waits has no effect."""

    def __init__(self, hub: Any) -> None:
        super().__init__(hub)
        self._waiting: Waiting = deque()

    def wait(self) -> None:
        """Wait until woken."""
        self._wait_in(self._waiting)

    def wake(self) -> None:
        """Wake the worker that waits longest, if there is one."""
        self._wake(self._waiting, 1)

    def wake_all(self) -> None:
        """Wake all of them."""
        self._wake(self._waiting, len(self._waiting))


def _is_broken_robots(task: FetchTask, hop: Hop) -> bool:
    """Return True for a robots.txt that was cut short. As in search engines, it is not used: rules may be missing."""
    is_robots = isinstance(task, FileTask) and task.is_robots
    return is_robots and hop.truncated and hop.error is None and hop.status is not None and 200 <= hop.status < 300


def _outcome_of(hop: Hop) -> RequestOutcome:
    if hop.error in _UNREACHABLE and hop.status is None:
        return RequestOutcome.UNREACHABLE
    if hop.status in _THROTTLED:
        return RequestOutcome.THROTTLED
    if hop.status in _BROKEN or hop.error == "BadResponse":
        return RequestOutcome.FAILED
    return RequestOutcome.ANSWERED
