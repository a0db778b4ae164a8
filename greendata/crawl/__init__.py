"""Crawl sites: fetch pages politely and safely, follow their links, and store them so that a crawl can be resumed.

    from greendata.crawl import crawl

    pages = crawl("https://example.com/", user_agent="examplebot/1.0 (bots@example.com)", out="pages")
    pages.run()
    print(pages.summary())

`Page.error` is None, or the name of what happened. A status such as 404 is not an error.

=====================================================  =====================================================
``BadUrl``                                             the URL cannot be fetched at all
``AddressRefused``                                     the host is at a private address
``NameNotFound``, ``LookupFailed``                     there is no such host; the name could not be looked up
``ConnectionFailed``, ``Timeout``                      no connection, or none that lasted; no response in time
``TlsFailed``, ``CertificateInvalid``                  the same for TLS
``BadResponse``, ``UnknownEncoding``                   a response that is not HTTP, or encoded in another way
``WrongContentType``, ``BodyTooLarge``                 a body that is not read, or of which the beginning is kept
``BadRedirect``, ``TooManyRedirects``, ``OutOfScope``  a redirect that is not followed
``RobotsDisallowed``, ``RobotsUnreachable``            robots.txt forbids it, or answers with status 429 or 5xx
``HostGivenUp``                                        the host did not respond several times in a row
``ParseFailed``, ``ExtractFailed``                     the page could not be read; a function of the caller raised
=====================================================  =====================================================

If robots.txt cannot be fetched because of the network, the pages of the host have the error of that attempt.

Needs the extra ``crawl``.
"""

from __future__ import annotations

from greendata.crawl.html import ParsedPage
from greendata.crawl.page import Page
from greendata.crawl.stats import CrawlStats
from greendata.crawl.urls import Url, parse_url
from greendata.crawl.verbs import CrawlStage, FetchStage, crawl, fetch

__all__ = ("CrawlStage", "CrawlStats", "FetchStage", "Page", "ParsedPage", "Url", "crawl", "fetch", "parse_url")
