"""URLs, parsed once: scope, robots.txt and the fetch all use the same `Url`.

Two parsers that disagree about a URL are a security hole: one checks a host, and the other connects to another one. ada
parses every URL as browsers do (https://url.spec.whatwg.org), and every part that greendata uses is part of its result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

from greendata.errors import BadChoice, BadUrl

try:
    from ada_url import join_url, normalize_url
except ImportError as missing:
    raise ImportError("greendata.crawl needs ada-url; install it with: pip install 'greendata[crawl]'") from missing

__all__ = ("Scope", "ScopeRule", "Url", "parse_links", "parse_url")

MAX_LENGTH = 8_192  # characters of a URL, before and after parsing; few servers take a longer request line
DEFAULT_PORTS = {"http": 80, "https": 443}

# Ports of other services, which browsers block (https://fetch.spec.whatwg.org/#port-blocking): what a crawler sends
# there could be taken for mail or for a command. Port 0 cannot be connected to.
BLOCKED_PORTS = frozenset(
    {
        *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104),
        *(109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515),
        *(526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049),
        *(3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    }
)
_LABEL, _NAME = 63, 253  # characters of a label and of a name in the DNS (RFC 1035)

_SHORT = 500  # characters of a link or an authority that is kept: the same navigation is on every page of a site
_HOST_FOLLOWS = ("/", "\\", "\t", "\n", "\r")  # after a slash: the link may be to another host
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

ScopeRule = Literal["host", "site", "any"] | re.Pattern[str] | Callable[["Url"], bool]


class Url:
    """An HTTP URL in canonical form. URLs are equal if their `href` is.

    Attributes:
        href: the whole URL, without a fragment.
        scheme: ``"http"`` or ``"https"``.
        host: the host in lower case, in ASCII, without a trailing dot; an IPv6 address without its brackets.
        port: the port, also where the URL does not show it.
        origin: ``scheme://host:port``, with the port in any case; the key of everything that counts by host.
        path: the path and the query, as in the first line of a request.

    Immutable; safe from any thread.

    Example:
        >>> url = parse_url("HTTP://Example.COM.:80/a/../b?q=1#top")
        >>> url.href, url.origin, url.path
        ('http://example.com/b?q=1', 'http://example.com:80', '/b?q=1')
    """

    __slots__ = ("_site", "href", "path")

    def __init__(self, site: _Site, path: str) -> None:
        self._site = site
        self.path = path
        self.href = site.root + path

    @property
    def scheme(self) -> str:
        """The scheme: ``"http"`` or ``"https"``."""
        return self._site.scheme

    @property
    def host(self) -> str:
        """The host in lower case and ASCII, without a trailing dot or brackets."""
        return self._site.host

    @property
    def port(self) -> int:
        """The port, also where the URL does not show it."""
        return self._site.port

    @property
    def origin(self) -> str:
        """The key of the host: ``scheme://host:port``, with the port in any case."""
        return self._site.origin

    def __repr__(self) -> str:
        return f"Url({self.href!r})"

    def __str__(self) -> str:
        return self.href

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and other.href == self.href

    def __hash__(self) -> int:
        return hash(self.href)

    def __reduce__(self) -> tuple[Callable[[str], Url], tuple[str]]:
        return _unpickled, (self.href,)


def parse_url(text: str, base: Url | str | None = None) -> Url:
    """Return *text*, a URL or a link on the page *base*, as a `Url`.

    It is parsed by the WHATWG standard, as in a browser: white space around it, tabs and line ends are dropped, a
    backslash is a slash, names are converted to ASCII, dots in the path are resolved. Beyond that, the fragment and the
    trailing dot of the host are dropped, because neither changes what is fetched from where, and percent-encoding is
    normalised by RFC 3986: ``%7e`` is ``~``, ``%c3`` is ``%C3``.

    Args:
        text: the URL, or a reference relative to *base*.
        base: the absolute URL of the page on which *text* was found.

    Raises:
        BadUrl: it is not a URL, its scheme is not HTTP, it has a user name or password, its host cannot be a name or an
            address, its port belongs to another service, or it has more than `MAX_LENGTH` characters.

    Safe from any thread.

    Example:
        >>> parse_url("../b?q=1", "https://example.com/x/y/z").href
        'https://example.com/x/b?q=1'
        >>> parse_url("mailto:ann@example.com")
        Traceback (most recent call last):
        greendata.errors.fetch.BadUrl: the URL cannot be used: its scheme is mailto, and only http and https are fetched
    """
    if isinstance(base, Url) and len(text) <= _SHORT and text[:1] == "/" and text[1:2] not in _HOST_FOLLOWS:
        return _link_within(base._site, text)
    if len(text) > MAX_LENGTH:
        raise BadUrl(text, f"it has {len(text)} characters, the limit is {MAX_LENGTH}")
    try:
        href = normalize_url(text) if base is None else join_url(str(base), text)
    except ValueError as error:
        raise BadUrl(text, _reason(text, base)) from error
    return _from_href(href, text)


def parse_links(texts: Iterable[str], base: Url | str) -> list[Url]:
    """Return the links *texts* of the page *base* as URLs: each once, in order, without those that `parse_url` refuses.

    A link to the page itself is left out, as are its fragments. One link takes some 3 us of Python: with thousands of
    them, call it in slices.

    Example:
        >>> parse_links(["/a", "#top", "javascript:void(0)", "/a#b", " //other.example "], "https://example.com/")
        [Url('https://example.com/a'), Url('https://other.example/')]
    """
    here = str(base).partition("#")[0]
    found: dict[str, Url] = {}
    for text in texts:
        try:
            url = parse_url(text, here)
        except BadUrl:
            continue
        if url.href != here:
            found.setdefault(url.href, url)
    return [*found.values()]


class Scope:
    """The URLs that a crawl follows: ``url in Scope(rule, seeds)``.

    Args:
        rule: ``"host"`` for the hosts of the seeds, whatever their scheme and port; ``"site"`` for these, without a
            leading ``www.``, and all names below them; ``"any"``; a compiled pattern that is searched for in the
            `Url.href`; or a function of a `Url`.
        seeds: the URLs at which the crawl begins.

    Raises:
        BadChoice: *rule* is none of these.

    Example:
        >>> seeds = [parse_url("https://www.example.com/")]
        >>> shop = parse_url("https://shop.example.com/")
        >>> shop in Scope("host", seeds), shop in Scope("site", seeds), shop in Scope(re.compile("/shop/"), seeds)
        (False, True, False)
    """

    def __init__(self, rule: ScopeRule, seeds: Iterable[Url]) -> None:
        self._accepts: Callable[[Url], object]
        if rule == "any":
            self._accepts = _anything
        elif rule == "host":
            hosts = frozenset(seed.host for seed in seeds)
            self._accepts = lambda url: url.host in hosts
        elif rule == "site":
            sites = frozenset(seed.host.removeprefix("www.") for seed in seeds)
            self._accepts = lambda url: _is_below(url.host, sites)
        elif isinstance(rule, re.Pattern):
            search = rule.search
            self._accepts = lambda url: search(url.href)
        elif callable(rule):
            self._accepts = rule
        else:
            raise BadChoice("scope", rule, ("host", "site", "any", "a compiled pattern", "a function"))

    def __contains__(self, url: Url) -> bool:
        return bool(self._accepts(url))


class _Site(NamedTuple):
    """The parts of a URL that all pages of a site share."""

    scheme: str
    host: str
    port: int
    origin: str
    root: str  # what stands before the path


def _from_href(href: str, text: str) -> Url:
    """Return the `Url` of *href*, which ada has parsed: every HTTP URL has an authority and a path there."""
    scheme, _, rest = href.partition(":")
    authority, _, path = rest[2:].partition("#")[0].partition("/")
    if scheme not in DEFAULT_PORTS:
        raise BadUrl(text, f"its scheme is {scheme}, and only http and https are fetched")
    site = _site(scheme, authority) if len(authority) <= _SHORT else _site.__wrapped__(scheme, authority)
    if isinstance(site, str):
        raise BadUrl(text, site)
    url = Url(site, "/" + (_normalised(path) if "%" in path else path))
    if len(url.href) > MAX_LENGTH:
        raise BadUrl(text, f"it has {len(url.href)} characters when it is encoded, the limit is {MAX_LENGTH}")
    return url


# Any thread calls the two functions below; at worst, two threads parse the same text.
@lru_cache(maxsize=1 << 14)  # the links of a page are to few sites, and those of the next page to the same
def _site(scheme: str, authority: str) -> _Site | str:
    """Return the site of a URL's *authority*, as ada writes it, or why it cannot be fetched from."""
    if "@" in authority:
        return "it has a user name or password; pass credentials as headers"
    if authority.startswith("["):
        host, _, digits = authority[1:].partition("]")
        name, digits = f"[{host}]", digits[1:]
    else:
        host, _, digits = authority.partition(":")
        name = host = host.removesuffix(".")
        if not all(0 < len(label) <= _LABEL for label in host.split(".")) or len(host) > _NAME:
            return "its host has an empty or a very long part, so it cannot be a name"
    port = int(digits) if digits else DEFAULT_PORTS[scheme]
    if port in BLOCKED_PORTS:
        return f"port {port} belongs to a service other than HTTP"
    origin = f"{scheme}://{name}:{port}"
    return _Site(scheme, host, port, origin, f"{scheme}://{name}" if port == DEFAULT_PORTS[scheme] else origin)


@lru_cache(maxsize=1 << 13)
def _link_within(site: _Site, text: str) -> Url:
    return parse_url(text, site.root)


def _unpickled(href: str) -> Url:
    return _from_href(href, href)


def _normalised(path: str) -> str:
    """Return *path* with each percent-encoded byte in the one form that RFC 3986, section 6.2.2, gives it.

    If a "%" encodes nothing, no byte is decoded: with the "%" before it, it could become an encoded byte.
    """
    if _NO_ESCAPE.search(path):
        return _ESCAPE.sub(lambda escape: escape[0].upper(), path)
    return _ESCAPE.sub(_decoded, path)


def _decoded(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def _reason(text: str, base: Url | str | None) -> str:
    if base is None and not re.match(r"[\x00-\x20]*[A-Za-z][A-Za-z0-9+.-]*:", text):
        return "it has no scheme; write the whole URL, as in https://example.com/"
    return "it is not a URL by the WHATWG standard"


def _anything(url: Url) -> bool:
    return True


def _is_below(host: str, sites: frozenset[str]) -> bool:
    while host not in sites:
        host = host.partition(".")[2]
        if not host:
            return False
    return True
