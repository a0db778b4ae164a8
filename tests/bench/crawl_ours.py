"""Our side of the crawls: each measurement is a program of its own, patched by gevent as a crawler is.

Usage: ``python -m tests.bench.crawl_ours WHAT FOLDER URL...``; it tells its figures as JSON.
"""

from __future__ import annotations

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import os
import resource
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import requests
from gevent.pool import Pool
from requests.adapters import HTTPAdapter

from examples.demo.figures import quantile
from greendata.crawl import crawl
from greendata.crawl.fetcher import Fetcher
from greendata.crawl.urls import parse_url
from tests.bench.apart import tell
from tests.bench.heavy import Ticker

__all__ = ("figures_of",)

AT_ONCE = 16  # requests, as the others have
USER_AGENT = "bench/1.0 (+http://127.0.0.1/)"
LOOPBACK = ["127.0.0.0/8"]
COLUMNS = ("url", "status", "title", "description", "canonical", "links", "sha256")  # as the others store
ENTRIES = 1_000_000  # URLs in the frontier
BATCH = 10_000  # of them in one transaction
EARLY, LATE = 10_000, 100_000  # pages after which memory is measured


def measured(work: Callable[[], int]) -> dict[str, float]:
    begun = time.process_time(), time.perf_counter()
    pages = work()
    return {"cpu": time.process_time() - begun[0], "wall": time.perf_counter() - begun[1], "pages": pages}


def ticks(folder: str, *urls: str) -> dict[str, float]:
    """The hub's tick while pages of known URLs are fetched, parsed with their texts, and written."""
    with Ticker() as intervals:
        figures = measured(lambda: crawled(folder, *urls, depth=0, per_host=AT_ONCE, workers=AT_ONCE))
    return {**figures, "tick": quantile(intervals, 0.99), "longest": max(intervals)}


def listed(folder: str, *urls: str) -> dict[str, float]:
    """Pages whose URLs are known, into a dataset that can be resumed."""
    return measured(lambda: crawled(folder, *urls, depth=0, per_host=AT_ONCE, workers=AT_ONCE, columns=COLUMNS))


def followed(folder: str, *urls: str) -> dict[str, float]:
    """Pages that are found by their links."""
    return measured(lambda: crawled(folder, *urls, per_host=AT_ONCE, workers=AT_ONCE, columns=COLUMNS))


def hosts(folder: str, *urls: str) -> dict[str, float]:
    """Pages of many hosts, with the default number of connections to each."""
    return measured(lambda: crawled(folder, *urls, depth=0))


def crawled(folder: str, *urls: str, **options: Any) -> int:
    out = Path(folder, "pages")
    options = {"user_agent": USER_AGENT, "delay": 0, "allow_private": LOOPBACK, "out": out, **options}
    for _ in crawl(urls, **options):
        pass
    return count(out / "*.parquet")


def count(files: Path) -> int:
    return int(pl.scan_parquet(files).select(pl.len()).collect().item())


def hops(_folder: str, *urls: str) -> dict[str, float]:
    """Requests alone, a hundred at a time."""
    parsed = [parse_url(url) for url in urls]
    with Fetcher(USER_AGENT, allow_private=LOOPBACK) as fetcher:
        return measured(lambda: sum(hop.status == 200 for hop in Pool(100).imap_unordered(fetcher.fetch_hop, parsed)))


def sessions(_folder: str, *urls: str) -> dict[str, float]:
    """The same with requests."""
    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    session.mount("http://", HTTPAdapter(pool_maxsize=100))

    def fetch(url: str) -> bool:
        answer = session.get(url, timeout=30)
        return bool(answer.content) and answer.status_code == 200

    return measured(lambda: sum(Pool(100).imap_unordered(fetch, urls)))


def memory(folder: str, *urls: str) -> dict[str, float]:
    """A crawl whose frontier grows to a million URLs: MiB that the process has after `EARLY` and after `LATE` pages."""
    found = {}
    pages = crawl(
        urls, user_agent=USER_AGENT, delay=0, per_host=AT_ONCE, workers=AT_ONCE, allow_private=LOOPBACK, out=folder
    )
    for number, _ in enumerate(islice(pages, LATE), 1):
        if number in (EARLY, LATE):
            found[str(number)] = resident()
    return {**found, "most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def frontier(folder: str) -> dict[str, Any]:
    """A million URLs into the frontier, out of it again, and done: seconds for each tenth."""
    from greendata.crawl.frontier import Done, Frontier

    database = Frontier(Path(folder, "frontier.sqlite"))
    origins = [f"https://host{number}.example:443" for number in range(100)]

    def link(number: int) -> tuple[str, str, int]:
        origin = origins[number % len(origins)]
        return f"{origin[:-4]}/articles/2024/{number}/some-longer-title-of-an-article", origin, 3

    seconds = []
    last = dict.fromkeys(origins, 0)
    for tenth in range(10):
        begun = time.process_time()
        for batch in range(ENTRIES // 10 // BATCH):
            first = (tenth * (ENTRIES // 10 // BATCH) + batch) * BATCH
            database.add(map(link, range(first, first + BATCH)))
            windows = database.windows([(origin, last[origin], BATCH // len(origins)) for origin in origins])
            last.update({origin: window[-1].id for origin, window in zip(origins, windows, strict=True) if window})
            database.commit([Done(entry.id) for window in windows for entry in window])
        seconds.append(time.process_time() - begun)
    counts = database.counts()
    database.close()
    return {"seconds": seconds, "done": counts.done, "todo": counts.todo, "most": resident()}


KINDS = (listed, followed, ticks, hosts, hops, sessions, memory, frontier)


def figures_of(what: str, folder: str, *urls: str) -> Any:
    """Return the figures of one measurement, run in this process."""
    return {kind.__name__: kind for kind in KINDS}[what](folder, *urls)


if __name__ == "__main__":
    gevent.get_hub()
    tell(figures_of(*sys.argv[1:]))
