"""The same crawl by others: each is run in a process of its own, and tells the seconds of CPU that it took.

Usage: ``python -P crawl_peers.py PEER HOW FOLDER URL...``, where HOW is ``follow`` or ``list``. Of every page: title,
description, canonical URL, links and the digest of its bytes. All have 16 requests in flight. Scrapy and Crawlee
ask for robots.txt, and follow the links on the host if they are told to. They are not installed beside greendata, so
this file imports nothing of it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

AT_ONCE = 16
USER_AGENT = "bench/1.0 (+http://127.0.0.1/)"


def scrapy(urls: list[str], folder: str, *, follows: bool) -> dict[str, float]:
    """Scrapy, with an item pipeline that writes JSON lines."""
    import scrapy
    from scrapy.crawler import CrawlerProcess

    class Lines:
        def open_spider(self) -> None:
            self.file = Path(folder, "pages.jsonl").open("w", encoding="utf-8")  # noqa: SIM115 - the spider closes it

        def process_item(self, item: Any) -> Any:
            self.file.write(json.dumps(item) + "\n")
            return item

        def close_spider(self) -> None:
            self.file.close()

    class Spider(scrapy.Spider):  # type: ignore[misc]
        name = "bench"
        allowed_domains = (urlsplit(urls[0]).hostname,)
        start_urls = urls

        def parse(self, response: Any) -> Any:
            links = [response.urljoin(href) for href in response.css("a::attr(href)").getall()]
            yield {
                "url": response.url,
                "status": response.status,
                "title": response.css("title::text").get(),
                "description": response.css("meta[name=description]::attr(content)").get(),
                "canonical": response.css("link[rel=canonical]::attr(href)").get(),
                "links": links,
                "sha256": hashlib.sha256(response.body).hexdigest(),
            }
            if follows:
                for link in links:
                    yield scrapy.Request(link)

    settings = {
        "CONCURRENT_REQUESTS": AT_ONCE,
        "CONCURRENT_REQUESTS_PER_DOMAIN": AT_ONCE,
        "DOWNLOAD_DELAY": 0,
        "ITEM_PIPELINES": {Lines: 1},
        "LOG_LEVEL": "ERROR",
        "ROBOTSTXT_OBEY": True,
        "TELNETCONSOLE_ENABLED": False,
        "USER_AGENT": USER_AGENT,
    }
    process = CrawlerProcess(settings)
    begun = time.process_time(), time.perf_counter()
    process.crawl(Spider)
    process.start()
    return _told(begun, len(Path(folder, "pages.jsonl").read_text(encoding="utf-8").splitlines()))


def crawlee(urls: list[str], folder: str, *, follows: bool) -> dict[str, float]:
    """Crawlee with Parsel, into its own dataset."""
    import asyncio
    import logging

    from crawlee import ConcurrencySettings
    from crawlee.configuration import Configuration
    from crawlee.crawlers import ParselCrawler, ParselCrawlingContext

    stored = 0

    async def run() -> None:
        crawler = ParselCrawler(
            concurrency_settings=ConcurrencySettings(
                min_concurrency=AT_ONCE, desired_concurrency=AT_ONCE, max_concurrency=AT_ONCE
            ),
            configuration=Configuration(storage_dir=folder, purge_on_start=True),
            configure_logging=False,
            respect_robots_txt_file=True,
        )

        @crawler.router.default_handler  # type: ignore[untyped-decorator]
        async def handle(context: ParselCrawlingContext) -> None:
            nonlocal stored
            selector = context.selector
            body = await context.http_response.read()
            await context.push_data(
                {
                    "url": context.request.url,
                    "status": context.http_response.status_code,
                    "title": selector.css("title::text").get(),
                    "description": selector.css("meta[name=description]::attr(content)").get(),
                    "canonical": selector.css("link[rel=canonical]::attr(href)").get(),
                    "links": [urljoin(context.request.url, href) for href in selector.css("a::attr(href)").getall()],
                    "sha256": hashlib.sha256(body).hexdigest(),
                }
            )
            stored += 1
            if follows:
                await context.enqueue_links()

        await crawler.run(urls)

    logging.disable(logging.WARNING)
    begun = time.process_time(), time.perf_counter()
    asyncio.run(run())
    return _told(begun, stored)


def requests(urls: list[str], folder: str, *, follows: bool) -> dict[str, float]:
    """What people write today: requests in a gevent pool, selectolax, a set of URLs, and a file at the end."""
    from gevent import monkey

    monkey.patch_all()
    import polars as pl
    import requests
    from gevent.pool import Pool
    from gevent.queue import Empty, Queue
    from requests.adapters import HTTPAdapter
    from selectolax.lexbor import LexborHTMLParser

    rows: list[dict[str, Any]] = []
    fresh: Queue[str] = Queue()
    known = set(urls)
    host = urlsplit(urls[0]).netloc
    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    session.mount("http://", HTTPAdapter(pool_maxsize=AT_ONCE))
    pool = Pool(AT_ONCE)

    def attribute(tree: LexborHTMLParser, selector: str, name: str) -> str | None:
        found = tree.css_first(selector)
        return found.attributes.get(name) if found else None

    def fetch(url: str) -> None:
        answer = session.get(url, timeout=30)
        tree = LexborHTMLParser(answer.text)  # decoded by the charset of the header, as the others do
        links = [urljoin(url, href) for node in tree.css("a[href]") if (href := node.attributes.get("href"))]
        title = tree.css_first("title")
        rows.append(
            {
                "url": url,
                "status": answer.status_code,
                "title": title.text() if title else None,
                "description": attribute(tree, "meta[name=description]", "content"),
                "canonical": attribute(tree, "link[rel=canonical]", "href"),
                "links": links,
                "sha256": hashlib.sha256(answer.content).hexdigest(),
            }
        )
        for link in links if follows else ():
            if link not in known and urlsplit(link).netloc == host:
                known.add(link)
                fresh.put(link)

    begun = time.process_time(), time.perf_counter()
    for url in urls:
        fresh.put(url)
    while True:
        try:
            pool.spawn(fetch, fresh.get(block=pool.free_count() < AT_ONCE, timeout=1))
        except Empty:
            if pool.free_count() == AT_ONCE:
                break
    pl.DataFrame(rows).write_parquet(Path(folder, "pages.parquet"))
    return _told(begun, len(rows))


def _told(begun: tuple[float, float], pages: int) -> dict[str, float]:
    cpu, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]
    return {"cpu": cpu, "wall": wall, "pages": pages}


if __name__ == "__main__":
    peer, how, place, *starts = sys.argv[1:]
    print(json.dumps(globals()[peer](starts, place, follows=how == "follow")))
