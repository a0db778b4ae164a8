"""robots.txt, by RFC 9309: what a response means, and which URLs its rules allow.

The lines of the one group that applies are selected here, and protego matches URLs with them. So a file that names a
thousand crawlers costs no more memory than one that names ours, and what matching may cost has a limit. Usually it is
done on the hub, for each URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from typing import Literal

from greendata.crawl.urls import MAX_LENGTH, Url
from greendata.hub.pacing import GilReleaser

try:
    from protego import Protego
except ImportError as missing:
    raise ImportError("greendata.crawl needs protego; install it with: pip install 'greendata[crawl]'") from missing

__all__ = ("Access", "RobotsRules", "access_of", "parse_robots", "product_token")

EXPIRES = 24 * 3600.0  # seconds for which rules may be used (RFC 9309, section 2.4)
MAX_BYTES = 512 * 1024  # of a file that are read; the RFC asks for 500 KiB at least
MAX_REDIRECTS = 5  # that are followed, also to other hosts (section 2.3.1.2)
MAX_DELAY = 60.0  # seconds between two requests that a site may ask for: with more it would never be crawled
MAX_SITEMAPS = 1_000

# Of 4 231 files from real sites, none has more than 32 000 rules and 1 200 wildcards for one crawler, and no pattern is
# longer than 600 characters. With these limits the most expensive match takes 25 ms, for a URL of 8 000 characters.
MAX_RULES = 20_000
MAX_WILDCARDS = 1_200
MAX_LINE = 16_664  # bytes of a pattern that count; Google's parser has the same limit
# What a match takes, in nanoseconds: for each rule, for each wildcard, and that for each character of the URL.
_NS_RULE, _NS_WILDCARD, _NS_CHARACTER = 150, 700, 2.5
FAST = 500_000  # nanoseconds of a match that may be made on the hub

Access = Literal["rules", "allow", "disallow", "defer"]

# Spellings that RFC 9309 does not have, but files do.
_KEYS = {
    b"user-agent": b"user-agent",
    b"useragent": b"user-agent",
    b"user agent": b"user-agent",
    b"allow": b"allow",
    b"disallow": b"disallow",
    b"dissallow": b"disallow",
    b"dissalow": b"disallow",
    b"disalow": b"disallow",
    b"diasllow": b"disallow",
    b"disallaw": b"disallow",
    b"sitemap": b"sitemap",
    b"site-map": b"sitemap",
    b"crawl-delay": b"crawl-delay",
    b"crawldelay": b"crawl-delay",
}
_LINE = re.compile(rb"[^\r\n]+")
_TOKEN = re.compile(rb"\*(?=\s|$)|[A-Za-z_-]+")
_NOT_IN_URLS = re.compile(rb"[^\x21-\x7e]")
_COMPATIBLE = re.compile(r"Mozilla/.*?\bcompatible;\s*([A-Za-z_-]+)")
_FIRST_WORD = re.compile(r"[A-Za-z_-]*")


def access_of(status: int | None) -> Access:
    """Return what the response to a request for robots.txt means for all pages of that host.

    =====================================  ==========  =======================================
    2xx                                    "rules"     the body decides
    3xx, after five redirects              "allow"     there is no usable file (section 2.3.1.2)
    4xx                                    "allow"     there is no file (section 2.3.1.3)
    429                                    "defer"     the host is busy: ask again later
    5xx, any other number                  "disallow"  the site is in trouble (section 2.3.1.4)
    None: no response                      "disallow"  nothing is fetched
    =====================================  ==========  =======================================

    Args:
        status: the HTTP status after redirects, or None if there was no response.

    Example:
        >>> [access_of(status) for status in (200, 404, 429, 503, None)]
        ['rules', 'allow', 'defer', 'disallow', 'disallow']
    """
    if status == 429:
        return "defer"
    kinds: dict[int, Access] = {2: "rules", 3: "allow", 4: "allow"}
    return kinds.get((status or 0) // 100, "disallow")


def product_token(user_agent: str) -> str:
    """Return the name by which robots.txt files call the crawler that sends *user_agent*, in lower case.

    It is the first word, or the word after ``compatible;`` if the header begins as those of browsers do. Words consist
    of letters, ``_`` and ``-`` (section 2.2.1).

    Example:
        >>> product_token("ShopBot/1.0 (+https://example.com/bot)")
        'shopbot'
        >>> product_token("Mozilla/5.0 (compatible; ShopBot/1.0)")
        'shopbot'
    """
    compatible = _COMPATIBLE.match(user_agent)
    word = _FIRST_WORD.match(user_agent.strip())
    return (compatible[1] if compatible else word[0] if word else "").lower()


class RobotsRules:
    """The rules of one host for one crawler.

    Attributes:
        access: what the response meant; with "defer" ask again later.
        crawl_delay: seconds between two requests that the host asks for, at most `MAX_DELAY`; None if it asks for none.
        sitemaps: the URLs of sitemaps that the file names, as they stand there, at most `MAX_SITEMAPS`.

    Immutable; safe from any thread.
    """

    __slots__ = ("_rules", "_size", "access", "crawl_delay", "sitemaps")

    def __init__(
        self,
        access: Access,
        rules: Protego | None = None,
        crawl_delay: float | None = None,
        sitemaps: tuple[str, ...] = (),
        size: tuple[int, int] = (0, 0),
    ) -> None:
        self.access = access
        self.crawl_delay = crawl_delay
        self.sitemaps = sitemaps
        self._rules = rules
        self._size = size  # the number of rules, and of their wildcards

    def __repr__(self) -> str:
        return f"<RobotsRules {self.access}>"

    def is_fast(self, url: Url) -> bool:
        """Return True if `allows` takes so little time that it may be called on the hub."""
        rules, wildcards = self._size
        return rules * _NS_RULE + wildcards * (_NS_WILDCARD + len(url.path) * _NS_CHARACTER) < FAST

    def allows(self, url: Url) -> bool:
        """Return True if *url*, of the host of the rules, may be fetched. It may take milliseconds, see `is_fast`."""
        if self.access == "rules":
            return self._rules is None or self._rules.can_fetch(url.href, "*")
        return self.access == "allow" or url.path == "/robots.txt"


def parse_robots(status: int | None, body: bytes, user_agent: str) -> RobotsRules:
    r"""Return the rules of a host for the crawler that sends *user_agent*.

    The group with the crawler's name applies, or else that for ``*``. Every text is a file with rules, also one that
    the server calls HTML: lines that are not rules do not count.

    Args:
        status: the HTTP status after redirects, or None if there was no response.
        body: the decompressed body; only the first `MAX_BYTES` are read.
        user_agent: the header that the crawler sends, see `product_token`.

    Call on a worker: a usual file takes some 100 us, the worst 0.3 seconds.

    Example:
        >>> from greendata.crawl.urls import parse_url
        >>> rules = parse_robots(200, b"User-agent: *\nDisallow: /private", "shopbot/1.0")
        >>> rules.allows(parse_url("https://example.com/private/1")), rules.allows(parse_url("https://example.com/"))
        (False, True)
    """
    access = access_of(status)
    if access != "rules":
        return RobotsRules(access)
    file = _File(product_token(user_agent).encode())
    file.read(body[:MAX_BYTES])
    group = file.ours if file.has_ours else file.others
    return RobotsRules(access, group.compiled(), group.crawl_delay, tuple(file.sitemaps), group.size)


class _Group:
    """The rules for one name."""

    def __init__(self) -> None:
        self.crawl_delay: float | None = None
        self._rules: dict[bytes, None] = {}  # in order, each once
        self._wildcards = 0

    @property
    def size(self) -> tuple[int, int]:
        """The number of rules, and at least that of their wildcards."""
        return len(self._rules), min(self._wildcards, MAX_WILDCARDS)

    def add(self, key: bytes, value: bytes) -> None:
        """Add a line. A rule beyond the limits of matching disallows too much rather than too little."""
        if key == b"crawl-delay":
            self._delay(value)
            return
        pattern = _NOT_IN_URLS.sub(_escaped, re.sub(rb"\*+", b"*", value)[:MAX_LINE])
        self._wildcards += pattern.count(b"*")
        if self._wildcards > MAX_WILDCARDS and b"*" in pattern:
            if key == b"allow":
                return
            pattern = pattern.partition(b"*")[0] or b"/"
        if len(pattern) > MAX_LENGTH:  # no URL is as long
            if key == b"allow":
                return
            pattern = pattern[:MAX_LENGTH]
        if pattern and len(self._rules) < MAX_RULES:
            self._rules.setdefault(key + b": " + pattern)

    def compiled(self) -> Protego | None:
        """Return the rules, ready to match; None if there are none."""
        if not self._rules:
            return None
        rules = Protego.parse(b"\n".join((b"user-agent: *", *self._rules)).decode("ascii"))
        rules.can_fetch("https://example.com/", "*")  # protego prepares its tables at the first call
        return rules

    def _delay(self, value: bytes) -> None:
        try:
            delay = float(value)
        except ValueError:
            return
        if isfinite(delay) and delay >= 0:
            self.crawl_delay = min(MAX_DELAY, max(delay, self.crawl_delay or 0.0))


class _File:
    """Read the lines of a file, and keep those for one crawler."""

    def __init__(self, token: bytes) -> None:
        self.ours, self.others = _Group(), _Group()
        self.has_ours = False
        self.sitemaps: list[str] = []
        self._token = token
        self._named: list[_Group] = []  # those that the user-agent lines above name
        self._has_rules = False  # True after a rule: the next user-agent line begins another group

    def read(self, body: bytes) -> None:
        """Read the whole file, with pauses for the hub."""
        gil = GilReleaser()
        for key, value in _lines(body):
            if key == b"user-agent":
                self._name(value)
            elif key == b"sitemap":
                if value and len(value) <= MAX_LENGTH and len(self.sitemaps) < MAX_SITEMAPS:
                    self.sitemaps.append(value.decode("utf-8", "replace"))
            else:  # a delay is not a rule of the RFC, so it does not end the names of a group
                self._has_rules = self._has_rules or key != b"crawl-delay"
                for group in self._named:
                    group.add(key, value)
            gil.release_if_due()

    def _name(self, value: bytes) -> None:
        if self._has_rules:
            self._named, self._has_rules = [], False
        match = _TOKEN.match(value)
        token = b"" if match is None else match[0].lower()
        is_ours = token != b"" and token == self._token
        self.has_ours = self.has_ours or is_ours
        group = self.ours if is_ours else self.others
        if (is_ours or token == b"*") and group not in self._named:
            self._named.append(group)


def _escaped(byte: re.Match[bytes]) -> bytes:
    return b"%%%02X" % byte[0][0]


def _lines(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the lines of a file that mean something, as a known key and its value."""
    for line in _LINE.finditer(_in_utf8(body)):
        text = line[0].partition(b"#")[0].strip()
        key, colon, value = text.partition(b":")
        known = _KEYS.get(key.strip().lower())
        if known is None:  # a colon may be missing, and another be in the value
            key, _, value = text.partition(b" ")
            known = None if colon and not value else _KEYS.get(key.lower())
        if known is not None:
            yield known, value.strip()


def _in_utf8(body: bytes) -> bytes:
    """Return *body* in UTF-8 without its byte order mark, or what is left of one."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if body.startswith(mark):
            return body[2:].decode(encoding, "replace").encode()
    return body[len(re.match(rb"(?:\xef(?:\xbb\xbf?)?)?", body)[0]) :]  # type: ignore[index]
