"""The counters of a crawl, and how they are shown: a summary frame, a progress bar, lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import polars as pl

from greendata.observe.running import RunningCrawl, add_crawl, remove_crawl

if TYPE_CHECKING:
    from greendata.crawl.page import Page

__all__ = ("CrawlCounters", "CrawlStats", "SUMMARY")

HOSTS = 10_000  # hosts with separate counters; all others are counted together
OTHER = "other"
RATE_SECONDS = 5.0  # over which pages a second are averaged

SUMMARY = {
    "host": pl.String,
    "status": pl.UInt16,
    "error": pl.String,
    "pages": pl.UInt64,
    "bytes": pl.UInt64,
    "seconds": pl.Float64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlStats:
    """The counters of a crawl at one moment. They begin at 0 with each run, also with one that is resumed.

    Attributes:
        pages: rows that are finished.
        bytes: decoded bytes of their bodies.
        requests: requests that were sent, with redirects, retries, robots.txt and sitemaps.
        statuses: the number of pages by HTTP status.
        errors: the number of pages by class of error.
        in_flight: requests that wait for a response.
        hosts_waiting: hosts that have URLs and wait for their time.
        hosts_given_up: hosts that were given up because they did not respond.
        todo: URLs that are known and not done; None where that is not known, as in `fetch`.
        done: rows of the dataset, those of earlier runs included; those of this run without a dataset.
        seconds: since the beginning, until the end.
        pages_per_second: of the last few seconds; of the whole run when it has ended.
        has_ended: True after the end of the run.
    """

    pages: int
    bytes: int
    requests: int
    statuses: dict[int, int]
    errors: dict[str, int]
    in_flight: int
    hosts_waiting: int
    hosts_given_up: int
    todo: int | None
    done: int
    seconds: float
    pages_per_second: float
    has_ended: bool

    @property
    def failed(self) -> int:
        """The number of pages with an error."""
        return sum(self.errors.values())


class CrawlCounters:
    """Count what one run does. The greenlets of the hub write; any thread may read."""

    def __init__(self) -> None:
        self.pages = 0
        self.bytes = 0
        self.requests = 0
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.in_flight = 0
        self.hosts: Callable[[], tuple[int, int]] = _no_hosts  # that wait and were given up; set by the crawler
        self.urls: Callable[[], tuple[int | None, int]] | None = None  # to do and done, set by the keeper
        self._groups: dict[tuple[str, int | None, str | None], list[float]] = {}  # pages, bytes, seconds
        self._hosts: set[str] = set()
        self._label = ""
        self._begun = monotonic()
        self._ended: float | None = None
        self._rate_at = self._begun  # a moment of the last few seconds, and the pages then
        self._rate_pages = 0
        self._rate = 0.0

    def sent(self) -> None:
        """Count a request that is sent now."""
        self.requests += 1
        self.in_flight += 1

    def answered(self) -> None:
        """Count the end of a request, whatever it was."""
        self.in_flight -= 1

    def finished(self, page: Page, origin: str) -> None:
        """Count a page that is finished."""
        self.pages += 1
        self.bytes += page.bytes
        if page.status is not None:
            self.statuses[page.status] += 1
        if page.error is not None:
            self.errors[page.error] += 1
        if origin not in self._hosts:
            if len(self._hosts) < HOSTS:
                self._hosts.add(origin)
            else:
                origin = OTHER
        group = self._groups.setdefault((origin, page.status, page.error), [0, 0, 0.0])
        group[0] += 1
        group[1] += page.bytes
        group[2] += page.seconds or 0.0

    def begin(self, label: str) -> None:
        """Let `greendata.observe` show the run until `end`."""
        self._label = label
        add_crawl(self.running)

    def end(self) -> None:
        """Stop the clock of the run, and keep its last numbers without what they were read from."""
        if self._ended is None:
            self._ended = monotonic()
            remove_crawl(self.running)
            hosts, urls = self.hosts(), None if self.urls is None else self.urls()
            self.hosts = lambda: hosts
            self.urls = None if urls is None else lambda: urls

    def running(self) -> RunningCrawl:
        """Return what `greendata.observe` shows of the run."""
        now = self.stats()
        return RunningCrawl(
            label=self._label,
            pages=now.pages,
            failed=now.failed,
            bytes=now.bytes,
            requests=now.requests,
            in_flight=now.in_flight,
            hosts_waiting=now.hosts_waiting,
            todo=now.todo,
            pages_per_second=now.pages_per_second,
            seconds=now.seconds,
        )

    def stats(self) -> CrawlStats:
        """Return the counters now."""
        hosts_waiting, hosts_given_up = self.hosts()
        todo, done = (None, self.pages) if self.urls is None else self.urls()
        seconds = (self._ended or monotonic()) - self._begun
        return CrawlStats(
            pages=self.pages,
            bytes=self.bytes,
            requests=self.requests,
            statuses=dict(sorted(self.statuses.items())),
            errors=dict(self.errors.most_common()),
            in_flight=self.in_flight,
            hosts_waiting=hosts_waiting,
            hosts_given_up=hosts_given_up,
            todo=todo,
            done=done,
            seconds=seconds,
            pages_per_second=self._pages_per_second(seconds),
            has_ended=self._ended is not None,
        )

    def summary(self) -> pl.DataFrame:
        """Return the finished pages of this run by host, status and class of error, the most pages first."""
        rows = [
            (host, status, error, *map(int, numbers[:2]), numbers[2])
            for (host, status, error), numbers in [*self._groups.items()]  # at once: the hub may add some meanwhile
        ]
        frame = pl.DataFrame(rows, schema=SUMMARY, orient="row")
        return frame.sort(["pages", "host", "status", "error"], descending=[True, False, False, False])

    def _pages_per_second(self, seconds: float) -> float:
        if self._ended is not None or seconds < RATE_SECONDS:
            return self.pages / max(seconds, 1e-3)
        now = monotonic()
        if now - self._rate_at >= RATE_SECONDS:
            self._rate = (self.pages - self._rate_pages) / (now - self._rate_at)
            self._rate_at, self._rate_pages = now, self.pages
        return self._rate


def _no_hosts() -> tuple[int, int]:
    return 0, 0
