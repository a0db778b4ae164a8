"""robots.txt, by RFC 9309: what a response means, and which URLs its rules allow."""

from __future__ import annotations

from typing import Literal

from greendata.crawl.urls import Url

try:
    from protego import Protego
except ImportError as missing:
    raise ImportError("greendata.crawl needs protego; install it with: pip install 'greendata[crawl]'") from missing

__all__ = ("Access", "RobotsRules", "access_of", "parse_robots")

EXPIRES = 24 * 3600.0  # seconds for which rules may be used (RFC 9309, section 2.4)
MAX_BYTES = 512 * 1024  # of a file that are read; the RFC asks for 500 KiB at least
MAX_REDIRECTS = 5  # that are followed, also to other hosts (section 2.3.1.2)
MAX_DELAY = 60.0  # seconds between two requests that a site may ask for: with more it would never be crawled
MAX_SITEMAPS = 1_000

Access = Literal["rules", "allow", "disallow", "defer"]


def access_of(status: int | None) -> Access:
    """Return what the response to a request for robots.txt means for all pages of that host.

    =====================================  ==========  =======================================
    2xx                                    "rules"     the body decides
    3xx, after five redirects              "allow"     there is no usable file (section 2.3.1.2)
    4xx                                    "allow"     there is no file (section 2.3.1.3)
    429                                    "defer"     the host is busy: ask again later
    5xx, any other number                  "disallow"  the site is in trouble (section 2.3.1.4)
    None: no connection, no answer         "disallow"  likewise
    =====================================  ==========  =======================================

    Args:
        status: the HTTP status after redirects, or None if there was no response.

    Example:
        >>> [access_of(status) for status in (200, 404, 429, 503, None)]
        ['rules', 'allow', 'defer', 'disallow', 'disallow']
    """
    if status is None:
        return "disallow"
    if status == 429:
        return "defer"
    return {2: "rules", 3: "allow", 4: "allow"}.get(status // 100, "disallow")  # type: ignore[return-value]


class RobotsRules:
    """The rules of one host for one user agent.

    Attributes:
        access: what the response meant; with "defer" ask again later.
        crawl_delay: seconds between two requests that the host asks for, at most `MAX_DELAY`; None if it asks for none.
        sitemaps: the URLs of sitemaps that the file names, as they stand there.

    Immutable; safe from any thread.
    """

    __slots__ = ("_rules", "_user_agent", "access", "crawl_delay", "sitemaps")

    def __init__(self, access: Access, rules: Protego | None = None, user_agent: str = "") -> None:
        self.access = access
        self.crawl_delay: float | None = None
        self.sitemaps: tuple[str, ...] = ()
        self._rules = rules
        self._user_agent = user_agent
        if rules is not None:
            delay = rules.crawl_delay(user_agent)
            self.crawl_delay = None if delay is None else min(delay, MAX_DELAY)
            self.sitemaps = tuple(rules.sitemaps)[:MAX_SITEMAPS]

    def allows(self, url: Url) -> bool:
        """Return True if *url*, of the host of these rules, may be fetched."""
        if url.path == "/robots.txt":
            return True
        if self._rules is not None:
            return self._rules.can_fetch(url.href, self._user_agent)
        return self.access == "allow"


def parse_robots(status: int | None, body: bytes, user_agent: str, *, content_type: str | None = None) -> RobotsRules:
    r"""Return the rules of a host for *user_agent*.

    Args:
        status: the HTTP status after redirects, or None if there was no response.
        body: the decompressed body; only `MAX_BYTES` are read.
        user_agent: the header that the crawler sends; its product token counts, as in ``shopbot/1.0 (+https://...)``.
        content_type: the header ``Content-Type``, if there was one.

    Call on a worker.

    Example:
        >>> from greendata.crawl.urls import parse_url
        >>> rules = parse_robots(200, b"User-agent: *\nDisallow: /private", "shopbot/1.0")
        >>> rules.allows(parse_url("https://example.com/private/1")), rules.allows(parse_url("https://example.com/"))
        (False, True)
    """
    access = access_of(status)
    if access != "rules":
        return RobotsRules(access)
    text = body[:MAX_BYTES].decode("utf-8-sig", "replace")
    return RobotsRules(access, Protego.parse(text), user_agent)
