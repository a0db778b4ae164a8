"""Crawl sites: fetch pages politely and safely, follow their links, and store them so that a crawl can be resumed.

    from greendata.crawl import crawl

    pages = crawl("https://example.com/", user_agent="examplebot/1.0 (bots@example.com)", out="pages")
    pages.run()
    print(pages.summary())

Needs the extra ``crawl``.
"""

from __future__ import annotations

from greendata.crawl.html import ParsedPage
from greendata.crawl.page import Page
from greendata.crawl.stats import CrawlStats
from greendata.crawl.urls import Url, parse_url
from greendata.crawl.verbs import CrawlStage, FetchStage, crawl, fetch

__all__ = ("CrawlStage", "CrawlStats", "FetchStage", "Page", "ParsedPage", "Url", "crawl", "fetch", "parse_url")
