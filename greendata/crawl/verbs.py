"""The two stages of the crawler: `fetch` for URLs that are known, and `crawl` for those that are found."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints, overload

import gevent
import polars as pl
from gevent.event import Event
from pydantic import BaseModel

from greendata.crawl.crawler import Crawler, Options, PageTask
from greendata.crawl.dataset import Dataset
from greendata.crawl.frontier import Frontier
from greendata.crawl.html import MAX_TEXT
from greendata.crawl.keeper import Keeper, Store, url_of
from greendata.crawl.page import Page, PageColumns
from greendata.crawl.parsing import Extract, Finished, Follow, Parser, Reading
from greendata.crawl.stats import CrawlCounters, CrawlStats
from greendata.crawl.urls import Scope, ScopeRule, Url
from greendata.errors import BadArgument, BadChoice, BadTimeout, BadUrl
from greendata.errors.notes import note
from greendata.errors.plural import counted
from greendata.http.request_headers import checked_headers
from greendata.hub.checks import check_function, checked_count, is_number, naming_arguments
from greendata.hub.deadline import seconds_of
from greendata.hub.pacing import breathing, paced
from greendata.pipelines.channel import Channel, clock
from greendata.pipelines.element import Item, Placeholder
from greendata.pipelines.operators import as_stage
from greendata.pipelines.progress import bar_class
from greendata.pipelines.run import Flow, Run, Windows
from greendata.pipelines.stage import Partial, Stage

__all__ = ("CrawlStage", "FetchStage", "PageStage", "crawl", "fetch")

MAXSIZE = 100  # pages that may wait for the next stage
HELD = 2_000  # URLs of `fetch` in memory: of several hosts, so that some are due while others wait
PER_HOST = 2  # requests to a host at one time; browsers make six
DELAY = 0.25  # seconds between two requests to a host: a visitor's browser asks faster
WORKERS = 100  # requests at one time: with more, one process parses no faster
MAX_BYTES = 8 << 20  # decoded bytes of a page; the median is 30 kB
TIMEOUT = 30.0  # seconds for one request with its body
RETRIES = 2  # after the first attempt
MAX_WAIT = 120.0  # seconds
DRAW = 0.2  # seconds between two updates of the progress bar

On = Literal["native", "process"]

# Headers that belong to the crawler: robots.txt is read under the name that is sent, and what is received is decoded.
_OWNED = ("accept-encoding", "connection", "content-length", "host", "transfer-encoding", "user-agent")
# Headers that the crawler sends unless the caller does, under its own spelling of their names.
_SENT = {name.lower(): name for name in ("Accept", "If-Modified-Since", "If-None-Match")}


class PageStage(Stage[Page]):
    """A stage that fetches pages. Make one with `fetch` or `crawl`."""

    def __init__(
        self,
        label: str,
        maxsize: int,
        sources: tuple[Stage[Any], ...],
        options: Options,
        reading: Reading,
        on: On,
        progress: str | None,
    ) -> None:
        super().__init__(label, maxsize, sources)
        self._options = options
        self._reading = reading
        self._on = on
        self._progress = progress
        self._named = ""  # where the crawl begins, for `greendata.observe`
        self._counters: CrawlCounters | None = None  # of the run that began last
        if progress is not None:
            bar_class()  # raises ImportError now and not during the run

    def stats(self) -> CrawlStats:
        """Return the counters of the run that began last, also after its end. Safe from any thread.

        Example:
            >>> fetch(["https://example.com/"], user_agent="docs (docs@example.com)").stats().pages
            0
        """
        return (self._counters or CrawlCounters()).stats()

    def summary(self) -> pl.DataFrame:
        """Return the pages of the run that began last by host, status and class of error, the most pages first.

        The columns are host (String), status (UInt16, null without a response), error (String, null without one), pages
        and bytes (UInt64), and seconds (Float64), the sum of the last requests'. Safe from any thread.

        Example:
            >>> fetch([], user_agent="docs (docs@example.com)").summary().columns
            ['host', 'status', 'error', 'pages', 'bytes', 'seconds']
        """
        return (self._counters or CrawlCounters()).summary()

    def _begin(self, run: Run) -> tuple[Parser, CrawlCounters]:
        counters = self._counters = CrawlCounters()
        counters.begin(self._named or self.label)
        if self._progress is not None:
            run.spawn(_draw, counters, self._progress)
        return Parser(self._reading, self._on), counters

    def _end_with(self, run: Run, crawler: Crawler, counters: CrawlCounters) -> None:
        """Have everything closed when all greenlets of the run have ended."""

        def closing() -> Iterator[Item]:
            try:
                yield 0, None
            finally:
                counters.end()
                crawler.close()

        opened = closing()
        next(opened)
        run.keep(opened)


class FetchStage(PageStage):
    """Fetch the URLs of its source."""

    @property
    def expected(self) -> int | None:
        """The number of URLs of the source, or None if it is not known."""
        return self.sources[0].expected

    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return the pages, as they are finished."""
        channel = run.channel(self.maxsize)
        self.feed(run, channel, windows)
        return Flow(channel.drain(), False)

    def feed(self, run: Run, channel: Channel, windows: Windows) -> None:
        """Have the pages put into *channel*."""
        inbox = run.channel(self.maxsize)
        channel.join()
        run.push(self.sources[0], inbox, windows)
        parser, counters = self._begin(run)
        change = Event()

        def deliver(task: PageTask, finished: Finished) -> None:
            channel.put((task.key, finished.page))

        crawler = Crawler(run, self._options, parser, counters, deliver=deliver, notify=change.set)
        self._end_with(run, crawler, counters)
        run.spawn(self._take_in, run, inbox, channel, crawler, counters, change)

    def _take_in(
        self, run: Run, inbox: Channel, channel: Channel, crawler: Crawler, counters: CrawlCounters, change: Event
    ) -> None:
        """Add the URLs of the source, a bounded number at a time, and end the run when all are pages."""
        keeps_placeholders = bool(run.downstream_window(self))
        for index, value in inbox.drain():
            if isinstance(value, Placeholder):
                if keeps_placeholders:
                    channel.put((index, value))
                continue
            _wait_until(change, lambda: crawler.scheduler.queued < HELD)
            try:
                url = url_of(value)
            except BadUrl as bad:
                page = Page(url=str(value), error="BadUrl", message=str(bad))
                counters.finished(page, "")
                channel.put((index, page))
            except BadArgument as error:
                note(error, f"raised by {self.label} over element {index}")
                raise
            else:
                crawler.add(PageTask(url, index))
            if clock() >= run.yield_timer.due:
                run.yield_timer.yield_now()
        _wait_until(change, lambda: crawler.is_at_rest)
        crawler.end()
        channel.leave()


class CrawlStage(PageStage):
    """Crawls from its seeds."""

    def __init__(self, *arguments: Any, make_keeper: Callable[..., Keeper], follows: bool, named: str) -> None:
        super().__init__(*arguments)
        self._named = named
        self._make_keeper = make_keeper
        self._follows = follows

    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return the pages, numbered as they are finished."""
        channel = run.channel(self.maxsize)
        channel.join()
        parser, counters = self._begin(run)
        keeper = self._make_keeper(channel=channel, counters=counters)
        crawler = keeper.crawler = Crawler(
            run,
            self._options,
            parser,
            counters,
            deliver=keeper.deliver,
            notify=keeper.notify,
            found=keeper.found,
        )
        crawler.follows = self._follows
        self._end_with(run, crawler, counters)
        run.spawn(keeper.run)
        return Flow(channel.drain(), True)


@overload
def fetch(
    urls: Iterable[str | Url],
    *,
    user_agent: str,
    headers: Mapping[str, str] | None = None,
    allow_private: bool | Iterable[str] = False,
    extract: Extract | None = None,
    per_host: int = PER_HOST,
    delay: float = DELAY,
    workers: int = WORKERS,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    retries: int = RETRIES,
    max_wait: float = MAX_WAIT,
    on: On = "native",
    progress: str | bool | None = None,
    maxsize: int = MAXSIZE,
) -> FetchStage: ...
@overload
def fetch(
    urls: None = None,
    *,
    user_agent: str,
    headers: Mapping[str, str] | None = None,
    allow_private: bool | Iterable[str] = False,
    extract: Extract | None = None,
    per_host: int = PER_HOST,
    delay: float = DELAY,
    workers: int = WORKERS,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    retries: int = RETRIES,
    max_wait: float = MAX_WAIT,
    on: On = "native",
    progress: str | bool | None = None,
    maxsize: int = MAXSIZE,
) -> Partial[FetchStage]: ...
@naming_arguments
def fetch(
    urls: Iterable[str | Url] | None = None,
    *,
    user_agent: str,
    headers: Mapping[str, str] | None = None,
    allow_private: bool | Iterable[str] = False,
    extract: Extract | None = None,
    per_host: int = PER_HOST,
    delay: float = DELAY,
    workers: int = WORKERS,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    retries: int = RETRIES,
    max_wait: float = MAX_WAIT,
    on: On = "native",
    progress: str | bool | None = None,
    maxsize: int = MAXSIZE,
) -> Any:
    """Return a stage that politely fetches *urls* and yields one `Page` for each of them, as they are finished.

    Nothing is fetched before the stage is iterated, and each iteration fetches everything again. No URL raises an
    error: what happened to it is in `Page.status` and `Page.error`. A URL that is given twice is fetched twice. For
    pages in the order of *urls*, append ``| stages.ordered()``.

    The robots.txt of each host is obeyed, and so are the delays that a host asks for (Crawl-delay, Retry-After). Only
    public addresses are connected to, also after redirects. Redirects are followed under the rules of the host to
    which they lead.

    Args:
        urls: a stage or an iterable of URLs; without it a `Partial` is returned, for ``urls | fetch(user_agent=...)``.
        user_agent: who is asking: a name, and where to reach you, as in "shopbot/1.0 (bots@example.com)".
        headers: further headers, without User-Agent. They are sent to the host of each URL, but not to others that it
            redirects to.
        allow_private: True for every address, or a list of addresses and networks to allow besides the public ones.
        extract: called with each `ParsedPage` of a 2xx response, off the hub; the pydantic model that it returns is
            `Page.item`. If it raises, the page has the error "ExtractFailed".
        per_host: requests to one host at one time.
        delay: seconds between two requests to one host, >= 0. A Crawl-delay can make it longer.
        workers: requests at one time.
        timeout: seconds for one request, from the lookup of the name to the last byte.
        max_bytes: decoded bytes of a body. Of a longer one the beginning is kept, with the error "BodyTooLarge".
        retries: attempts after the first one, for errors of the network and statuses 408, 429 and 5xx.
        max_wait: seconds; a host that asks for a longer pause is asked again after that time.
        on: where pages are parsed and *extract* runs: "native" in the pool, "process" in a child process, for an
            *extract* that computes for long. Needs the extra ``process``.
        progress: show a progress bar: True, or the label of the bar. Needs the extra ``progress``.
        maxsize: pages that may wait for the next stage; 0 for no limit.

    Raises:
        AsyncFunction, BadArgument, BadChoice, BadTimeout, NotCallable, NotIterable, UnknownArgument: the arguments
            cannot be used.
        BadArgument: from the iteration; an element is not text.
        ImportError: a library of an extra is not installed.

    Example:
        >>> [page] = fetch(["http://127.0.0.1/"], user_agent="docs (docs@example.com)")
        >>> page.url, page.error, page.status
        ('http://127.0.0.1/', 'AddressRefused', None)
    """
    given = locals()
    options = _options(given)
    reading = Reading(_checked_extract(extract), follow=False, depth=None, max_text=MAX_TEXT)
    place, label = _place(on), _label("fetch", progress)

    def make(source: Any) -> FetchStage:
        return FetchStage("fetch", maxsize, (as_stage(source, maxsize),), options, reading, place, label)

    if isinstance(urls, str | bytes):
        raise BadArgument("urls", urls, "an iterable of URLs; put a single one into a list")
    return Partial(make) if urls is None else make(urls)


@naming_arguments
def crawl(
    seeds: str | Url | Iterable[str | Url],
    *,
    user_agent: str,
    follow: Follow = True,
    scope: ScopeRule = "site",
    depth: int | None = None,
    sitemaps: bool = False,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    again: bool = False,
    columns: Iterable[str] | None = None,
    extract: Extract | None = None,
    max_pages: int | None = None,
    headers: Mapping[str, str] | None = None,
    allow_private: bool | Iterable[str] = False,
    per_host: int = PER_HOST,
    delay: float = DELAY,
    workers: int = WORKERS,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    retries: int = RETRIES,
    max_wait: float = MAX_WAIT,
    on: On = "native",
    progress: str | bool | None = None,
    maxsize: int = MAXSIZE,
) -> CrawlStage:
    """Return a stage that politely crawls from *seeds* on and yields one `Page` for each URL that it finds.

    Nothing is fetched before the stage is iterated. With *out* every page is a row of a Parquet dataset before it is
    yielded, and ``crawl(...).run()`` is enough. ``polars.scan_parquet(out)`` reads the dataset at every moment. After a
    crash, also after ``kill -9``, the same call with ``resume=True`` continues: each URL is one row, and what was in
    progress is fetched again. Without *out* the URLs are in a temporary folder, which is removed at the end.

    The robots.txt of each host is obeyed, and so are the delays that a host asks for (Crawl-delay, Retry-After). Only
    public addresses are connected to, also after redirects. The other arguments are those of `fetch`.

    Args:
        seeds: the URL or URLs at which the crawl begins.
        user_agent: who is asking: a name, and where to reach you, as in "shopbot/1.0 (bots@example.com)".
        follow: True for the links that a page does not mark as ``nofollow``; False for none; or a function of a
            `ParsedPage`, called off the hub, that returns URLs.
        scope: which links and redirects are followed: "site" for the hosts of the seeds, without a leading ``www.``,
            and all names below them; "host" for exactly these hosts; "any"; a compiled pattern that is searched for in
            the URL; or a function of a `Url`.
        depth: how many links away from a seed a page may be; None for no limit.
        sitemaps: also begin at the pages in the sitemaps of the hosts: those that robots.txt names, else /sitemap.xml.
        out: the folder of the dataset; its parent must exist. Its state is kept beside it, in ``out`` + ".crawl".
        resume: continue the crawl that is in *out*; without one, begin it.
        again: like *resume*; but if that crawl has reached its end, fetch all of its URLs once more, into new rows. A
            page that has not changed, by its ETag or Last-Modified, is a row with status 304.
        columns: the fields of `Page` that the dataset keeps, in this order; None for all. Without "text" the text of
            pages is not made.
        extract: called with each `ParsedPage` of a 2xx response, off the hub; the pydantic model that it returns is
            `Page.item`. With *out* its return annotation must name the model. If it raises, the page has the error
            "ExtractFailed".
        max_pages: rows at which the crawl ends, those of earlier runs included; None for no limit. It can be resumed
            with a larger number.
        headers: further headers, without User-Agent. They are sent to the hosts of the seeds only.
        allow_private: True for every address, or a list of addresses and networks to allow besides the public ones.
        per_host: requests to one host at one time.
        delay: seconds between two requests to one host, >= 0. A Crawl-delay can make it longer.
        workers: requests at one time.
        timeout: seconds for one request, from the lookup of the name to the last byte.
        max_bytes: decoded bytes of a body. Of a longer one the beginning is kept, with the error "BodyTooLarge".
        retries: attempts after the first one, for errors of the network and statuses 408, 429 and 5xx.
        max_wait: seconds; a host that asks for a longer pause is asked again after that time.
        on: where pages are parsed and *extract* runs: "native" in the pool, "process" in a child process. Needs the
            extra ``process``.
        progress: show a progress bar: True, or the label of the bar. Needs the extra ``progress``.
        maxsize: pages that may wait for the next stage; 0 for no limit.

    Raises:
        AsyncFunction, BadArgument, BadChoice, BadTimeout, BadUrl, NotCallable, UnknownArgument: the arguments cannot be
            used.
        CrawlFolderRefused, CrawlMismatch, CrawlNotSaved, CrawlRunning: from the iteration; see `Dataset.open`.
        CrawlNotSaved: from the iteration; the disk is full, for example. The crawl can be resumed.
        ImportError: a library of an extra is not installed.

    Example:
        >>> pages = crawl("http://127.0.0.1/", user_agent="docs (docs@example.com)")
        >>> [page.error for page in pages], pages.stats().pages
        (['AddressRefused'], 1)
    """
    given = locals()
    options = _options(given)
    seeds = [seeds] if isinstance(seeds, str | Url) else seeds
    known = paced(url_of, seeds) if isinstance(seeds, list | tuple | set | frozenset) else []
    if not isinstance(seeds, Iterable) or isinstance(given["seeds"], bytes):
        raise BadArgument("seeds", seeds, "a URL, or an iterable of URLs")
    Scope(scope, ())
    if callable(scope):
        check_function(scope)
    _check_follow(follow)
    for name, count in (("depth", depth), ("max_pages", max_pages)):
        if count is not None:
            checked_count(name, count, least=0)
    if out is None and (resume or again or columns is not None):
        name = "resume" if resume else "again" if again else "columns"
        raise BadArgument(name, given[name], "given together with out=, the folder of the dataset")
    kept = None if columns is None else _columns_of(columns)
    page_columns = PageColumns([] if out is None else kept, _item_of(extract) if out is not None and extract else None)
    reading = Reading(
        _checked_extract(extract),
        follow=follow,
        depth=depth,
        max_text=MAX_TEXT if kept is None or "text" in kept else 0,
        item_error=None if out is None else page_columns.item_error,
    )
    settings = {"depth": str(depth), "scope": scope if isinstance(scope, str) else _shown(scope)}
    folder = None if out is None else _folder_of(out)
    make_keeper = partial(
        Keeper,
        partial(_open_store, folder, page_columns, settings, resume=resume, again=again),
        known or seeds,
        partial(Scope, scope),
        max_pages=max_pages,
        frame_of=page_columns.frame,
    )
    return CrawlStage(
        *("crawl", maxsize, (), options, reading, _place(on), _label("crawl", progress)),
        make_keeper=make_keeper,
        follows=follow is not False,
        named=_name_of(known),
    )


def _name_of(seeds: list[Url]) -> str:
    """Return a name for a crawl from *seeds*, with the hosts as far as they are known."""
    hosts = list(dict.fromkeys(seed.host for seed in breathing(seeds)))
    more = f" and {len(hosts) - 1} more" if len(hosts) > 1 else ""
    return f"crawl {hosts[0]}{more}" if hosts else "crawl"


def _columns_of(columns: Iterable[str]) -> list[str]:
    names = list(columns) if isinstance(columns, Iterable) and not isinstance(columns, str | bytes) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise BadArgument("columns", columns, "a list of fields of a Page, at least one")
    return names


def _folder_of(out: str | os.PathLike[str]) -> Path:
    path = os.fspath(out) if isinstance(out, os.PathLike) else out
    if not isinstance(path, str) or not path or "\0" in path:
        raise BadArgument("out", out, "the path of a folder")
    return Path(path)


def _open_store(
    out: Path | None, columns: PageColumns, settings: dict[str, str], *, resume: bool, again: bool
) -> Store:
    """Open the frontier and the dataset. Runs in the pool."""
    if out is None:
        return Store(Frontier.temporary(), None)
    dataset = Dataset.open(out, columns.schema, settings, resume=resume, again=again)
    return Store(dataset.frontier, dataset)


def _options(given: Mapping[str, Any]) -> Options:
    """Check the arguments that both stages have."""
    from greendata.crawl.fetcher import Fetcher  # here, because it imports ssl, which gevent may patch

    for name, least in (("per_host", 1), ("workers", 1), ("max_bytes", 1), ("retries", 0), ("maxsize", 0)):
        checked_count(name, given[name], least=least)
    for name in ("delay", "max_wait"):
        if not is_number(given[name], most=86_400.0):
            raise BadArgument(name, given[name], "seconds from 0 to 86400, which is a day")
    timeout = seconds_of(given["timeout"])
    if not timeout:
        raise BadTimeout(given["timeout"])
    allowed = given["allow_private"]
    options = Options(
        user_agent=given["user_agent"],
        headers=_headers_of(given["headers"]),
        allow_private=tuple(allowed) if isinstance(allowed, Iterable) and not isinstance(allowed, str) else allowed,
        per_host=given["per_host"],
        delay=float(given["delay"]),
        workers=given["workers"],
        retries=given["retries"],
        max_wait=float(given["max_wait"]),
        max_bytes=given["max_bytes"],
        timeout=timeout,
        sitemaps=bool(given.get("sitemaps")),
    )
    Fetcher(options.user_agent, allow_private=options.allow_private).close()  # checks both
    return options


def _headers_of(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of the caller, checked, with the names that the crawler gives to its own."""
    headers = checked_headers(given)
    if owned := [name for name in headers if name.lower() in _OWNED]:
        raise BadArgument("headers", owned[0], "headers that the crawler does not set itself (see also user_agent=)")
    return {_SENT.get(name.lower(), name): value for name, value in headers.items()}


def _place(on: On) -> On:
    if on not in get_args(On):
        raise BadChoice("on", on, get_args(On))
    if on == "process":
        try:
            import_module("cloudpickle")  # which sends functions of the program; now and not during the run
        except ImportError as missing:
            raise ImportError(
                "on='process' needs cloudpickle; install it with: pip install 'greendata[process]'"
            ) from missing
    return on


def _label(name: str, progress: object) -> str | None:
    if not isinstance(progress, str | bool | None):
        raise BadArgument("progress", progress, "True, False or the label of the bar")
    return name if progress is True else progress or None


def _checked_extract(extract: Extract | None) -> Extract | None:
    if extract is not None:
        check_function(extract)
    return extract


def _check_follow(follow: object) -> None:
    if not isinstance(follow, bool):
        check_function(follow)


def _item_of(extract: Extract) -> type[BaseModel]:
    """Return the model that *extract* returns, by its annotation."""
    check_function(extract)
    func: Any = extract
    while isinstance(func, partial):
        func = func.func
    expected = "a function whose return annotation is a pydantic model of its module, as in -> Product"
    try:
        named = get_type_hints(func if hasattr(func, "__code__") else type(func).__call__).get("return")
    except (NameError, AttributeError, TypeError) as error:  # the annotation cannot be evaluated there
        raise BadArgument("extract", extract, expected) from error
    models = [found for found in get_args(named) or (named,) if found is not NoneType]
    if len(models) == 1 and isinstance(models[0], type) and issubclass(models[0], BaseModel):
        return models[0]
    raise BadArgument("extract", extract, expected)


def _shown(scope: object) -> str:
    return f"pattern {scope.pattern}" if isinstance(scope, re.Pattern) else "a function"


def _wait_until(change: Event, is_true: Callable[[], bool]) -> None:
    while not is_true():
        change.clear()
        change.wait()


def _draw(counters: CrawlCounters, label: str) -> None:
    """Show the counters on a bar until the run ends."""
    with bar_class()(desc=label, unit=" pages") as bar:
        try:
            while True:
                gevent.sleep(DRAW)
                _update(bar, counters)
        finally:
            _update(bar, counters)


def _update(bar: Any, counters: CrawlCounters) -> None:
    stats = counters.stats()
    if stats.todo is not None:
        bar.total = stats.pages + stats.todo
    errors, waiting = counted(stats.failed, "error"), counted(stats.hosts_waiting, "host waits", "hosts wait")
    bar.set_postfix_str(f"{stats.bytes / 1e6:.1f} MB, {errors}, {waiting}", refresh=False)
    bar.update(stats.pages - bar.n)
    bar.refresh()
