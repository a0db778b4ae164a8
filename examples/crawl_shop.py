"""A crawler: follow the links of a shop, read the article of each page, and keep everything in a Parquet dataset.

`crawl` asks for robots.txt, keeps a delay between two requests to a host, refuses private addresses unless they are
allowed, and parses the pages off the hub. A page that cannot be fetched is a row with the reason. The crawl is
interrupted here and resumed. Every page is one row nevertheless, as it would be after ``kill -9``.
"""

# ruff: noqa: E402 - patching comes before the imports that it patches

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import tempfile
from pathlib import Path

import polars as pl
from pydantic import BaseModel

import greendata
from greendata.crawl import CrawlStage, ParsedPage, crawl
from greendata.testing import Reply, Request, Site

__all__ = ("Article", "crawl_shop", "main")

ARTICLES = 60


class Article(BaseModel):
    """An article that the shop sells."""

    name: str
    price: float


def main() -> None:
    """Crawl a shop in two runs, and print its prices by the first letter of the article."""
    with Site(shop, robots="User-agent: *\nDisallow: /basket\n") as site, tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "pages")
        crawl_shop(site.url("/0"), out, max_pages=20).run()
        print(f"{rows(out)} pages, and the crawl is interrupted")
        resumed = crawl_shop(site.url("/0"), out)
        resumed.run()
        print(f"{rows(out)} pages, {resumed.stats().pages} of them in the second run")
        print(resumed.summary().select("status", "error", "pages"))

        article = pl.col("item").struct
        priced = pl.scan_parquet(out).filter(pl.col("item").is_not_null())
        letters = priced.group_by(article.field("name").str.head(1).alias("letter"))
        summary = letters.agg(pl.len(), article.field("price").mean())
        print(greendata.collect(summary.sort("letter")).get(timeout=30))


def crawl_shop(url: str, out: Path, *, max_pages: int | None = None) -> CrawlStage:
    """Return the crawl of the shop at *url* into *out*, from its beginning or from where it was interrupted."""
    return crawl(
        url,
        user_agent="shopbot/1.0 (shopbot@example.com)",
        out=out,
        resume=True,
        columns=["url", "status", "error", "item"],
        extract=article_of,
        max_pages=max_pages,
        delay=0.01,  # of your own shop; the default of 0.25 seconds is for others'
        allow_private=["127.0.0.1"],  # because this shop is here
    )


def article_of(page: ParsedPage) -> Article | None:
    """Return the article of a page, or None if it has none."""
    name, price = (page.tree and page.tree.css_first(selector) for selector in ("h1", "output"))
    return Article(name=name.text(), price=float(price.text())) if name and price else None


def rows(out: Path) -> int:
    """Return the number of pages in the dataset."""
    return int(greendata.collect(pl.scan_parquet(out).select(pl.len())).get(timeout=30).item())


def shop(request: Request) -> Reply | str | None:
    """Return a page of the shop: it links to the next two, to a broken page, and to what robots may not see."""
    number = int(request.path.strip("/") or 0) if request.path.strip("/").isdigit() else ARTICLES + 1
    if number > ARTICLES:
        return Reply(status=404, body="<h1>gone</h1>")
    links = "".join(f'<a href="/{next_one}">more</a>' for next_one in (2 * number + 1, 2 * number + 2))
    links = links if 2 * number + 1 <= ARTICLES + 1 else ""
    name = f"{'ABC'[number % 3]}-{number}"
    return f'<h1>{name}</h1><output>{number * 1.5}</output>{links}<a href="/basket">basket</a>'


if __name__ == "__main__":
    main()
