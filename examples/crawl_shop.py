"""A crawler: follow the links from one page, a few pages at a time, and collect the contents in one frame.

`GuardedSession` fetches untrusted pages: it limits the time and the size of each, and refuses private addresses unless
they are allowed. A page that cannot be fetched becomes a row of the frame, and does not end the crawl.
"""

# ruff: noqa: E402 - patching comes before the imports that it patches

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urljoin

import gevent
import polars as pl
from gevent.pywsgi import WSGIServer

import greendata
from greendata.http.session import GuardedSession

__all__ = ("crawl", "main")

ARTICLES = 60
AT_ONCE = 8
MAX_PAGES = 500
MAX_BYTES = 1 << 20  # in one page


class Page(NamedTuple):
    """The contents of a page."""

    url: str
    title: str | None
    price: float | None
    links: list[str]
    error: str | None


def main() -> None:
    """Crawl a shop, and print its prices by the first letter of the article."""
    with WSGIServer(("127.0.0.1", 0), shop, log=None) as server:
        server.start()
        found = crawl(f"http://127.0.0.1:{server.server_port}/", allow_private=["127.0.0.1"])
        priced = found.lazy().drop_nulls("price")
        summary = priced.group_by(pl.col("title").str.head(1).alias("letter")).agg(pl.len(), pl.col("price").mean())
        broken = found.drop_nulls("error")
        print(f"{found.height} pages, {broken.height} of them broken: {broken['error'].str.split(': ').list.last()[0]}")
        print(greendata.collect(summary.sort("letter")).get(timeout=30))


def crawl(start: str, *, allow_private: Iterable[str] = ()) -> pl.DataFrame:
    """Return every page that is reachable from *start*, sorted by URL: ``url, title, price, error``."""
    pages: list[Page] = []
    known, fresh = {start}, [start]
    with GuardedSession(allow_private=allow_private) as session, greendata.Group(timeout=60, label="crawl") as group:
        while fresh:
            fetches = (group.spawn(fetch, session, url) for url in fresh[: MAX_PAGES - len(pages)])
            arrived = [page.get() for page in greendata.as_completed(fetches, max_concurrent=AT_ONCE)]
            pages += arrived
            fresh = sorted({link for page in arrived for link in page.links} - known)
            known.update(fresh)
    rows = [(page.url, page.title, page.price, page.error) for page in pages]
    schema = {"url": pl.String, "title": pl.String, "price": pl.Float64, "error": pl.String}
    return pl.DataFrame(rows, schema, orient="row").sort("url")


def fetch(session: GuardedSession, url: str) -> Page:
    """Return the page at *url*, or a page with the error."""
    try:
        with session.get(url, timeout=10, max_bytes=MAX_BYTES, accept=["text/html"]) as answer:
            text = b"".join(answer.chunks()).decode(errors="replace")
    except greendata.GreenDataError as error:
        return Page(url, None, None, [], str(error))
    reader = Reader()
    reader.feed(text)
    return Page(url, reader.title, reader.price, [urljoin(url, link) for link in reader.links], None)


class Reader(HTMLParser):
    """Title, price and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.title: str | None = None
        self.price: float | None = None
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]

    def handle_data(self, data: str) -> None:
        if self._within == "h1":
            self.title = data
        elif self._within == "output":
            self.price = float(data)
        self._within = ""


def shop(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Serve the shop: a slow WSGI application. Pages link to the next ones, and one link is broken."""
    gevent.sleep(0.01)
    number = int(environ["PATH_INFO"].strip("/") or 0)
    if number > ARTICLES:
        start_response("404 Not Found", [("Content-Type", "text/html")])
        return [b"<h1>gone</h1>"]
    links = "".join(f'<a href="/{next_one}">more</a>' for next_one in (2 * number + 1, 2 * number + 2))
    links = links if 2 * number + 1 <= ARTICLES + 1 else ""
    name = f"{'ABC'[number % 3]}-{number}"
    start_response("200 OK", [("Content-Type", "text/html")])
    return [f"<h1>{name}</h1><output>{number * 1.5}</output>{links}".encode()]


if __name__ == "__main__":
    main()
