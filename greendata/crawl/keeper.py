"""`Keeper`: the greenlet of a crawl that reads the frontier and stores finished pages.

    frontier on disk ──windows──► Scheduler ... Crawler ──deliver──► batch ──commit──► dataset, frontier ──► channel

It is the only one that uses the disk, in one job of the pool at a time, and it never leaves a job alone: if it is
killed, it waits for the job first. So there is one writer, and a crawl that is closed at any moment can be resumed.
Pages are put into the channel after they are stored; where nothing is stored, after their links are.

A URL is leased from when it is read from the frontier until its row is committed. Leases are in memory only: after a
crash, what was leased is pending again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from itertools import chain, islice
from time import monotonic
from typing import NamedTuple, TypeVar

import polars as pl
from gevent.event import Event

from greendata.crawl.crawler import Crawler, PageTask
from greendata.crawl.dataset import Dataset
from greendata.crawl.frontier import Done, Entry, Frontier, Link
from greendata.crawl.page import Page
from greendata.crawl.parsing import Finished
from greendata.crawl.stats import CrawlCounters
from greendata.crawl.urls import Scope, Url, parse_url
from greendata.errors import BadArgument, BadUrl, CrawlNotSaved
from greendata.errors.notes import note, shown
from greendata.errors.plural import counted
from greendata.hub.pacing import breathing, paced
from greendata.pipelines.channel import Channel
from greendata.pool.cleanup import run_to_completion, run_uninterrupted

__all__ = ("Keeper", "Store", "url_of")

COMMIT_ROWS = 64  # finished pages at which they are committed; a commit of 100 takes 8 ms
COMMIT_SECONDS = 1.0  # after which fewer pages are committed, too
UNCOMMITTED = 84  # the most finished pages that are not committed: with 16 that are parsed, a crash loses 100
WAITING_LINKS = 50_000  # links of sitemaps that wait for a commit
HOSTS = 2_000  # hosts in memory at one time: at one page a second each, more than one process fetches
ORIGINS = 256  # origins that are read from the frontier at once
SEARCHES = 3  # searches for hosts that are not in memory; the first must find those that are left
SEEDS = 1_000  # seeds that are added to the frontier at once

NOT_MODIFIED = 304

T = TypeVar("T")


class Store(NamedTuple):
    """Where a crawl keeps its state: with a dataset in its folder, or without one in a temporary folder."""

    frontier: Frontier
    dataset: Dataset | None

    def commit(self, rows: pl.DataFrame, done: list[Done], links: Iterable[Link]) -> set[str]:
        """Store *rows*, what is done, and new links; return the origins that have new links."""
        if self.dataset is None:
            return self.frontier.commit(done, links)
        return self.dataset.commit(rows, done, links)

    def close(self, *, is_finished: bool) -> None:
        """Close everything."""
        if self.dataset is None:
            self.frontier.close()
        else:
            self.dataset.close(is_finished=is_finished)


class Keeper:
    """Read the frontier for *crawler*, and store what it delivers.

    Args:
        open_store: opens the store; called in the pool.
        seeds: the URLs at which the crawl begins.
        scope_of: makes the scope of the URLs of the seeds, one for each host.
        max_pages: rows of the dataset at which the crawl ends; None for no limit.
        frame_of: makes the rows of the dataset, in the pool.
        channel: for the finished pages.
        counters: count what happens.

    Attributes:
        crawler: fetches what is leased. It is set once, before the greenlets start.
    """

    crawler: Crawler

    def __init__(
        self,
        open_store: Callable[[], Store],
        seeds: Iterable[str | Url],
        scope_of: Callable[[Iterable[Url]], Scope],
        *,
        max_pages: int | None,
        frame_of: Callable[[list[Page]], pl.DataFrame],
        channel: Channel,
        counters: CrawlCounters,
    ) -> None:
        self._open_store = open_store
        self._seeds = seeds
        self._scope_of = scope_of
        self._max_pages = max_pages
        self._frame_of = frame_of
        self._channel = channel
        self._counters = counters
        self._store: Store  # from the beginning of `run` on
        self._leased: set[int] = set()  # the numbers of URLs from their window until their commit
        self._batch: list[tuple[Entry, Finished]] = []  # finished, and not being committed
        self._batch_since = 0.0
        self._uncommitted = 0  # finished, perhaps being committed
        self._links: list[Link] = []  # of sitemaps
        self._yielded = 0
        self._after = ""  # the last host that was read from the frontier
        self._may_have_origins = True  # there may be hosts in the frontier that are not in memory
        self._searches = 0  # for hosts that are not in memory, since the last URL was leased
        self._wake = Event()
        self._committed = Event()

    # -- called by the crawler -----------------------------------------------------------------------

    def notify(self) -> None:
        """Wake the keeper: a host may need more URLs, or something has ended. Never waits."""
        self._wake.set()

    def deliver(self, task: PageTask, finished: Finished) -> None:
        """Take a finished page; wait while too many are not committed."""
        self._finish(task.key, finished)
        if self._uncommitted >= UNCOMMITTED:
            self._wait_for_commit()

    def found(self, urls: list[Url]) -> None:
        """Take the URLs of a sitemap; wait while too many are not committed."""
        self._links.extend((url.href, url.origin, 0) for url in urls)
        self._wake.set()
        if len(self._links) >= WAITING_LINKS:
            self._wait_for_commit()

    def _finish(self, entry: Entry, finished: Finished) -> None:
        if not self._batch:
            self._batch_since = monotonic()
        self._batch.append((entry, finished))
        self._uncommitted += 1
        if self._is_commit_due() or len(self._batch) == 1:
            self._wake.set()

    def _wait_for_commit(self) -> None:
        self._committed.clear()
        self._committed.wait()

    # -- the greenlet --------------------------------------------------------------------------------

    def run(self) -> None:
        """Crawl to the end, or until killed."""
        self._open()
        try:
            self._warn_of_repairs()
            self._seed()
            while True:
                self._refill()
                if self._is_commit_due():
                    self._commit()
                elif self._is_at_end():
                    break
                else:
                    self._wait()
            is_finished = not self._store.frontier.counts().todo
        except BaseException as error:
            self._close_after(error)
            raise
        _uninterrupted(partial(self._store.close, is_finished=is_finished))
        self.crawler.end()
        self._channel.leave()

    def _open(self) -> None:
        opened: list[Store] = []
        try:
            _uninterrupted(lambda: opened.append(self._open_store()))
        except BaseException:  # this greenlet was killed meanwhile
            for store in opened:
                _uninterrupted(partial(store.close, is_finished=False))
            raise
        self._store = opened[0]
        self._counters.urls = self._store.frontier.counts

    def _warn_of_repairs(self) -> None:
        dataset = self._store.dataset
        if dataset is not None and (text := dataset.repairs.text()):
            text = f"greendata repaired the crawl into {dataset.folder}: {text}"
            warnings.warn_explicit(text, RuntimeWarning, "<crawl>", 1)  # it is about no line of code

    def _wait(self) -> None:
        """Wait until something has changed, or until a commit is due."""
        left = self._batch_since + COMMIT_SECONDS - monotonic() if self._batch else None
        self._wake.wait(left)
        self._wake.clear()

    def _is_at_end(self) -> bool:
        if not self.crawler.is_at_rest or self._batch or self._links or self._wake.is_set():
            return False
        if self._left() <= 0 or not self._store.frontier.counts().todo:
            return True
        assert self._searches < SEARCHES, "the frontier has URLs to do, and returns none of them"
        self._searches += 1
        self._may_have_origins = True  # what is left is on a host that is not in memory
        self._wake.set()
        return False

    def _left(self) -> float:
        """Return the number of pages that may still be leased."""
        if self._max_pages is None:
            return math.inf
        return self._max_pages - self._store.frontier.counts().done - len(self._leased)

    def _seed(self) -> None:
        """Add the seeds to the frontier, or compare them with those that were added before the crawl was resumed."""
        dataset = self._store.dataset
        is_seeded = dataset is not None and _uninterrupted(lambda: dataset.is_seeded)
        hosts: dict[str, Url] = {}
        number = digest = 0
        seeds = iter(self._seeds)
        while given := list(islice(seeds, SEEDS)):
            urls = paced(url_of, given)
            for url in urls:
                hosts.setdefault(url.origin, url)
            number += len(urls)
            digest += sum(paced(_digest_of, urls))
            if not is_seeded:
                _uninterrupted(partial(self._store.frontier.add, [(url.href, url.origin, 0) for url in urls]))
        self.crawler.trusted = {*hosts}
        self.crawler.scope = self._scope_of(breathing(hosts.values()))
        if dataset is not None:
            _uninterrupted(partial(dataset.set_seeded, f"{counted(number, 'URL')} (digest {digest % (1 << 64):016x})"))

    # -- from the frontier ---------------------------------------------------------------------------

    def _refill(self) -> None:
        """Lease what the scheduler asks for."""
        scheduler, frontier = self.crawler.scheduler, self._store.frontier
        while True:
            if self._may_have_origins and scheduler.hosts_in_memory < HOSTS:
                self._read_origins()
            wanted = scheduler.wanted() if self._left() > 0 else []
            if not wanted:
                return
            asked = [(origin, scheduler.host(origin).cursor, count) for origin, count in wanted]
            windows = _uninterrupted(partial(frontier.windows, asked))
            for (origin, _, count), entries in breathing(zip(asked, windows, strict=True)):
                self._lease(origin, count, entries)

    def _read_origins(self) -> None:
        scheduler = self.crawler.scheduler
        origins = _uninterrupted(partial(self._store.frontier.origins, self._after, ORIGINS))
        for origin in origins:
            scheduler.expect(origin)
        is_last = len(origins) < ORIGINS
        self._after = "" if is_last else origins[-1]
        self._may_have_origins = not is_last

    def _lease(self, origin: str, count: int, entries: list[Entry]) -> None:
        scheduler = self.crawler.scheduler
        left = self._left()
        if len(entries) < count:
            scheduler.exhausted(origin)
        if len(entries) > left:
            entries = entries[: int(left)]
            scheduler.expect(origin)
        if entries:
            scheduler.host(origin).cursor = entries[-1].id
        fresh = [entry for entry in entries if entry.id not in self._leased]
        if not fresh and len(entries) == count:
            scheduler.expect(origin)  # the host was forgotten while these were not committed: look after them
        for entry in fresh:
            self._searches = 0
            self._leased.add(entry.id)
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        try:
            url = parse_url(entry.href)
        except BadUrl as bad:  # an earlier version has accepted it
            page = Page(url=entry.href, depth=entry.depth, error="BadUrl", message=str(bad))
            self._counters.finished(page, "")
            self._finish(entry, Finished(page, []))
        else:
            self.crawler.add(PageTask(url, entry, entry.depth, entry.etag, entry.last_modified))

    # -- into the store ------------------------------------------------------------------------------

    def _is_commit_due(self) -> bool:
        if not self._batch and not self._links:
            return False
        return (
            len(self._batch) >= COMMIT_ROWS
            or len(self._links) > 0
            or self.crawler.is_at_rest
            or monotonic() >= self._batch_since + COMMIT_SECONDS
        )

    def _commit(self) -> None:
        """Store what is finished, wake its hosts, and put the pages into the channel."""
        batch, links = self._batch, self._links
        self._batch, self._links = [], []
        woken = _uninterrupted(partial(self._store_rows, batch, links))
        self._uncommitted -= len(batch)
        self._leased.difference_update(entry.id for entry, _ in batch)
        self._committed.set()
        scheduler = self.crawler.scheduler
        for origin in woken:
            if scheduler.hosts_in_memory < HOSTS or scheduler.knows(origin):
                scheduler.expect(origin)
            else:
                self._may_have_origins = True
        for _, finished in batch:
            self._channel.put((self._yielded, finished.page))
            self._yielded += 1

    def _store_rows(self, batch: list[tuple[Entry, Finished]], links: list[Link]) -> set[str]:
        """Commit *batch* and *links*. Runs in the pool."""
        rows = self._frame_of([finished.page for _, finished in batch])
        done = [_done(entry, finished.page) for entry, finished in batch]
        return self._store.commit(rows, done, chain(links, *(finished.links for _, finished in batch)))

    def _close_after(self, error: BaseException) -> None:
        """Store what is finished, if that is possible, and close the store."""
        try:
            if not isinstance(error, CrawlNotSaved) and self._batch:
                _uninterrupted(partial(self._store_rows, self._batch, self._links))
        except Exception as second:  # noqa: BLE001 - the first error is raised
            note(error, f"the last pages were not stored: {shown(second)}")
        try:
            _uninterrupted(partial(self._store.close, is_finished=False))
        except Exception as second:  # noqa: BLE001 - the first error is raised
            note(error, f"the dataset was not closed: {shown(second)}")


def url_of(value: object) -> Url:
    """Return a URL that is given as text, or parsed already.

    Raises:
        BadArgument: it is neither.
        BadUrl: it cannot be fetched.
    """
    if isinstance(value, Url):
        return value
    if not isinstance(value, str):
        raise BadArgument("each URL", value, "text")
    return parse_url(value)


def _done(entry: Entry, page: Page) -> Done:
    """Return what to send with the next request: the validators of this response, or those that led to a 304."""
    if page.final_url != page.url:
        return Done(entry.id)  # they are those of another URL
    if page.status == NOT_MODIFIED:
        return Done(entry.id, page.etag or entry.etag, page.last_modified or entry.last_modified)
    return Done(entry.id, page.etag, page.last_modified)


def _digest_of(url: Url) -> int:
    """Return a number that stands for *url*. The sum for many does not depend on their order, as in a set."""
    return int.from_bytes(blake2b(url.href.encode(), digest_size=8).digest(), "big")


def _uninterrupted(func: Callable[[], T]) -> T:
    """Call *func* in the pool, even a closed one, without a deadline, and wait even while being killed."""
    returned: list[T] = []
    run_uninterrupted(lambda: returned.append(run_to_completion(func, label="crawl").get()))
    return returned[0]
