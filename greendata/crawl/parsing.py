"""Turn what was fetched into pages: in the pool, or in child processes, never on the hub.

Everything that crosses to the job and back can be pickled, so both places run the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gevent import Timeout
from polars.exceptions import PanicException
from pydantic import BaseModel

from greendata.crawl.frontier import Link
from greendata.crawl.html import ParsedPage, parse_html
from greendata.crawl.page import Page, RobotsVerdict
from greendata.crawl.sitemaps import parse_sitemap
from greendata.crawl.urls import Scope, Url, parse_links
from greendata.engines.process import ProcessEngine
from greendata.errors import BadArgument, GreenDataError, NotSendable, WorkerDied
from greendata.errors.notes import text_of
from greendata.hub.closing import Closing
from greendata.hub.collector import deferred
from greendata.hub.pacing import GilReleaser, release_gil
from greendata.pool import pool
from greendata.pool.job import bypassing_queue_limit

if TYPE_CHECKING:
    from greendata.crawl.fetcher import Hop

__all__ = ("Extract", "Fetched", "Finished", "Follow", "Parser", "Reading", "left_out")

T = TypeVar("T")
Extract = Callable[[ParsedPage], BaseModel | None]
Follow = bool | Callable[[ParsedPage], Iterable[str | Url]]

# What a page, or a function of the caller, may raise: panics of Polars and timeouts of its own are among it.
_RAISED = (Exception, PanicException, Timeout)
_READ = ("text/html", "application/xhtml+xml", "text/plain", "")  # the media types of bodies that are parsed


class Fetched(NamedTuple):
    """A page whose last hop has ended.

    Attributes:
        asked: the URL of the row.
        url: the URL of the last hop.
        redirects: the URLs between the two.
        hop: the last hop.
        at: when the last hop began, in UTC; None if nothing was sent.
        depth: how many links away from a seed the page is.
        robots: what robots.txt of the last host said.
        scope: the scope of links; None if none are wanted.
    """

    asked: Url
    url: Url
    redirects: tuple[Url, ...]
    hop: Hop
    at: datetime | None
    depth: int
    robots: RobotsVerdict | None
    scope: Scope | None


class Finished(NamedTuple):
    """A page that is finished, and the links that the crawl follows from it."""

    page: Page
    links: list[Link]


@dataclass(frozen=True, slots=True)
class Reading:
    """How pages are read.

    Attributes:
        extract: makes the item of a page.
        follow: True for the links that the page does not mark as ``nofollow``; or a function that returns them.
        depth: the depth of pages whose links are not followed any more; None for no limit.
        max_text: characters of text that are kept; 0 if the text is not wanted.
        item_error: says why an item cannot be stored; None if items are not stored.
    """

    extract: Extract | None
    follow: Follow
    depth: int | None
    max_text: int
    item_error: Callable[[BaseModel | None], str | None] | None = None

    def read(self, fetched: list[Fetched]) -> list[Finished]:
        """Return the pages of *fetched*. Call on a worker; it pauses for the hub between pages."""
        finished = []
        for number, one in enumerate(fetched):
            if number:
                release_gil()
            finished.append(self._finish(one))
        return finished

    def unread(self, fetched: Fetched, error: Exception) -> Finished:
        """Return the page without the contents of its body, because the process that read it has ended with *error*."""
        fields = _fields_of(fetched)
        if fields["error"] is None:
            fields["error"], fields["message"] = "ParseFailed", f"{type(error).__name__}: {text_of(error)}"
        return Finished(Page(**fields), [])

    def _finish(self, fetched: Fetched) -> Finished:
        fields = _fields_of(fetched)
        links: list[Link] = []
        if fetched.hop.body and fetched.hop.content_type in _READ:
            links = self._read_body(fetched, fields)
        return Finished(Page(**fields), links)

    def _read_body(self, fetched: Fetched, fields: dict[str, Any]) -> list[Link]:
        """Add the contents of the body to *fields*, and return the links to follow. An error is stored in *fields*."""
        links: list[Link] = []
        error = "ParseFailed"
        try:
            page = self._parse(fetched, fields)
            error = "ExtractFailed"
            if fetched.scope is not None and (self.depth is None or fetched.depth < self.depth):
                links = self._links_of(page, fetched.scope, fetched.depth + 1)
            if self.extract is not None and _is_success(fetched.hop):
                fields["item"] = self._checked_item(self.extract(page))
        except _RAISED as raised:
            if fields["error"] is None:
                fields["error"], fields["message"] = error, f"{type(raised).__name__}: {text_of(raised)}"
        return links

    def _checked_item(self, item: object) -> BaseModel | None:
        """Return *item*, which *extract* has returned, if it is one and can be stored."""
        if item is not None and not isinstance(item, BaseModel):
            raise BadArgument("what extract= returns", item, "a pydantic model or None")
        reason = None if self.item_error is None else self.item_error(item)
        if reason is not None:
            raise ValueError(reason)
        return item

    def _parse(self, fetched: Fetched, fields: dict[str, Any]) -> ParsedPage:
        hop = fetched.hop
        with deferred():  # ten thousand links would lead to a full collection, which stops all threads for 50 ms
            page = parse_html(
                hop.body,
                hop.headers.get("content-type"),
                fetched.url,
                robots_tag=hop.headers.get("x-robots-tag"),
                max_text=self.max_text,
            )
        fields.update(
            charset=page.charset,
            charset_source=page.charset_source,
            title=page.title,
            description=page.description,
            canonical=None if page.canonical is None else page.canonical.href,
            text=page.text,
            links=[link.href for link in page.links],
            nofollow=page.nofollow,
            noindex=page.noindex,
            truncated=hop.truncated or page.truncated,
        )
        return page

    def _links_of(self, page: ParsedPage, scope: Scope, depth: int) -> list[Link]:
        found = parse_links(_texts_of(self.follow(page)), page.url) if callable(self.follow) else page.follow
        return [(url.href, url.origin, depth) for url in found if url in scope]


class Parser(Closing):
    """Run a `Reading` off the hub.

    Args:
        reading: how pages are read.
        on: "native" for the pool, "process" for one child process.
    """

    def __init__(self, reading: Reading, on: str) -> None:
        self._reading = reading
        self._engine = ProcessEngine(workers=1) if on == "process" else None

    def pages(self, fetched: list[Fetched]) -> list[Finished]:
        """Return the pages of *fetched*. The calling greenlet waits.

        A page that ends the child process, or whose item cannot be sent from there, fails alone.
        """
        if self._engine is None:
            return _in_pool(partial(self._reading.read, fetched))
        try:
            return bypassing_queue_limit(self._engine.call, self._reading.read, fetched)
        except NotSendable as error:
            bypassing_queue_limit(self._engine.call, self._reading.read, [])  # raises if it is not an item
            failed: Exception = error
        except (GreenDataError, OSError) as error:  # of the process
            if not isinstance(error, WorkerDied):
                raise
            failed = error
        except Exception as error:  # noqa: BLE001 - of an item's own methods for pickle; the row says it
            failed = error
        if len(fetched) > 1:
            return [finished for one in fetched for finished in self.pages([one])]
        if isinstance(failed, WorkerDied):
            return [self._reading.unread(fetched[0], failed)]
        read = replace(self._reading, extract=None).read
        [(page, links)] = bypassing_queue_limit(self._engine.call, read, fetched)
        failure = {"error": "ExtractFailed", "message": f"{type(failed).__name__}: {text_of(failed)}"}
        return [Finished(Page(**{**dict(page), **failure}), links)]

    def sitemap(self, hop: Hop, url: Url, scope: Scope | None) -> tuple[list[Url], list[Url], str | None]:
        """Return the pages within *scope* and the further sitemaps that a sitemap lists, and what *scope* raised."""
        return _in_pool(partial(_sitemap_of, hop.body, url, scope))

    def close(self) -> None:
        """End the child process."""
        if self._engine is not None:
            self._engine.close()


def _texts_of(found: Iterable[str | Url]) -> Iterator[str]:
    """Yield what *follow* has returned as texts. Refuse None, as of a link without href: its text would be a URL."""
    if isinstance(found, str | bytes) or not isinstance(found, Iterable):
        raise BadArgument("what follow= returns", found, "an iterable of URLs")
    for url in found:
        if not isinstance(url, str | Url):
            raise BadArgument("each URL that follow= returns", url, "text, or a Url")
        yield str(url)


def _fields_of(fetched: Fetched) -> dict[str, Any]:
    """Return the fields of the page that do not depend on the contents of its body."""
    hop = fetched.hop
    return {
        "url": fetched.asked.href,
        "final_url": fetched.url.href,
        "redirects": [url.href for url in fetched.redirects],
        "depth": fetched.depth,
        "status": hop.status,
        "fetched_at": fetched.at if hop.status is not None else None,
        "seconds": hop.seconds if fetched.at is not None else None,
        "robots": fetched.robots,
        "content_type": hop.headers.get("content-type"),
        "bytes": len(hop.body),
        "sha256": sha256(hop.body).hexdigest() if hop.body else None,
        "truncated": hop.truncated,
        "etag": hop.headers.get("etag"),
        "last_modified": hop.headers.get("last-modified"),
        "error": hop.error,
        "message": hop.message,
    }


def _in_pool(func: Callable[[], T]) -> T:
    return bypassing_queue_limit(pool.call, func)


def left_out(url: Url, raised: Exception) -> str:
    """Return a text that says why a URL of a sitemap is not crawled."""
    return f"greendata left out {url.href} of a sitemap: scope raised {type(raised).__name__}: {text_of(raised)}"


def _sitemap_of(body: bytes, url: Url, scope: Scope | None) -> tuple[list[Url], list[Url], str | None]:
    sitemap = parse_sitemap(body, url)
    if scope is None:
        return sitemap.urls, sitemap.sitemaps, None
    pages, why = [], None
    gil = GilReleaser()
    for found in sitemap.urls:
        try:
            if found in scope:
                pages.append(found)
        except Exception as raised:  # noqa: BLE001 - a warning says so; a page has a row for it
            why = why or left_out(found, raised)
        gil.release_if_due()
    return pages, sitemap.sitemaps, why


def _is_success(hop: Hop) -> bool:
    return hop.status is not None and 200 <= hop.status < 300 and hop.error is None
