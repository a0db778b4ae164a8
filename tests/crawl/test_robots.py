"""robots.txt: what a response means, which group applies, which URLs its rules allow, and what hostile files cost.

The table `RULES` has the facts of RFC 9309 and of Google's published tests. Where greendata and Google's parser differ
on purpose, the reason stands beside the row in `DIFFERENT`. `CRAWL_FILES` names a folder with Google's own
`robots_test.cc`, whose assertions are then run as well.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

import greendata
from greendata.crawl.robots import (
    MAX_BYTES,
    MAX_DELAY,
    MAX_SITEMAPS,
    RobotsRules,
    access_of,
    parse_robots,
    product_token,
)
from greendata.crawl.urls import parse_url
from greendata.errors import BadUrl


def allowed(file: str | bytes, path: str, user_agent: str = "shopbot/1.0") -> bool:
    body = file if isinstance(file, bytes) else file.encode()
    return parse_robots(200, body, user_agent).allows(parse_url(f"https://example.com{path}"))


@pytest.mark.parametrize(
    ("statuses", "access"),
    [
        ([200, 203, 206, 299], "rules"),
        ([300, 301, 302, 304, 307, 308], "allow"),
        ([400, 401, 403, 404, 410, 418, 451, 499], "allow"),
        ([429], "defer"),
        ([500, 502, 503, 504, 520, 599], "disallow"),
        ([None, 0, 100, 199, 600, 999], "disallow"),
    ],
)
def test_the_table_of_statuses(statuses: list[int | None], access: str) -> None:
    for status in statuses:
        rules = parse_robots(status, b"user-agent: *\nallow: /a\ndisallow: /", "shopbot")
        assert access_of(status) == rules.access == access
        if access != "rules":  # the body does not count
            assert rules.allows(parse_url("https://example.com/a")) is (access == "allow")
            assert rules.allows(parse_url("https://example.com/b")) is (access == "allow")


@pytest.mark.parametrize(
    ("user_agent", "token"),
    [
        ("shopbot", "shopbot"),
        ("ShopBot/1.0 (+https://example.com/bot)", "shopbot"),
        ("Shop_Bot-x/2", "shop_bot-x"),
        (" shopbot ", "shopbot"),
        ("shop bot", "shop"),
        ("Mozilla/5.0 (compatible; ShopBot/1.0; +https://example.com/)", "shopbot"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "mozilla"),
        ("1bot", ""),
        ("", ""),
    ],
)
def test_the_name_of_a_crawler(user_agent: str, token: str) -> None:
    assert product_token(user_agent) == token


# Which group applies: the file, and whether /a, /b and /c are allowed.
GROUPS = {
    "no file": ("", "yes yes yes"),
    "none for us": ("user-agent: other\ndisallow: /", "yes yes yes"),
    "ours before all": ("user-agent: *\ndisallow: /\n\nuser-agent: shopbot\ndisallow: /a", "no yes yes"),
    "ours, whatever the order": ("user-agent: shopbot\ndisallow: /a\n\nuser-agent: *\ndisallow: /", "no yes yes"),
    "ours, without rules": ("user-agent: *\ndisallow: /\nuser-agent: shopbot\n", "yes yes yes"),
    "all, if none is ours": ("user-agent: other\ndisallow: /a\nuser-agent: *\ndisallow: /b", "yes no yes"),
    "case does not matter": ("USER-AGENT: ShopBot\nDISALLOW: /a", "no yes yes"),
    "a name with a version": ("user-agent: shopbot/2.1\ndisallow: /a", "no yes yes"),
    "a name with a second word": ("user-agent: shopbot images\ndisallow: /a", "no yes yes"),
    "a longer name is another": ("user-agent: shopbot-images\ndisallow: /a", "yes yes yes"),
    "a part of the name is another": ("user-agent: shop\ndisallow: /a\nuser-agent: bot\ndisallow: /b", "yes yes yes"),
    "two names, one group": ("user-agent: other\nuser-agent: shopbot\ndisallow: /a", "no yes yes"),
    "one name, two groups": (
        "user-agent: shopbot\ndisallow: /a\nuser-agent: other\ndisallow: /\nuser-agent: shopbot\ndisallow: /b",
        "no no yes",
    ),
    "a sitemap does not end the names": (
        "user-agent: shopbot\nsitemap: https://x/\nuser-agent: x\ndisallow: /a",
        "no yes yes",
    ),
    "an unknown line does not end them": ("user-agent: shopbot\nfoo: bar\nuser-agent: x\ndisallow: /a", "no yes yes"),
    "a delay does not end them": ("user-agent: shopbot\ncrawl-delay: 1\nuser-agent: x\ndisallow: /a", "no yes yes"),
    "an empty rule ends them": ("user-agent: shopbot\ndisallow:\nuser-agent: x\ndisallow: /a", "yes yes yes"),
    "rules before a name": ("disallow: /a\nuser-agent: shopbot\ndisallow: /b", "yes no yes"),
    "an empty name ends a group": ("user-agent: shopbot\ndisallow: /a\nuser-agent:\ndisallow: /b", "no yes yes"),
    "a star with more": ("user-agent: *bot\ndisallow: /a", "yes yes yes"),
    "a star with words": ("user-agent: * # all\ndisallow: /a", "no yes yes"),
    "blank lines within a group": ("user-agent: shopbot\n\n\ndisallow: /a\n\ndisallow: /b", "no no yes"),
}


@pytest.mark.parametrize(("file", "expected"), GROUPS.values(), ids=GROUPS.keys())
def test_which_group_applies(file: str, expected: str) -> None:
    assert ["yes" if allowed(file, path) else "no" for path in ("/a", "/b", "/c")] == expected.split()


# Lines of a group, paths that they allow, and paths that they do not.
RULES = {
    "nothing": ("disallow:\nallow:", "/ /a", ""),
    "all": ("disallow: /", "/robots.txt", "/ /a /robots.txtx /a/robots.txt"),
    "a prefix": (
        "disallow: /fish",
        "/ /Fish.asp /catfish /?id=fish",
        "/fish /fish.html /fish/salmon /fishheads /fish?id=1",
    ),
    "a prefix with a star": ("disallow: /fish*", "/Fish /catfish", "/fish /fish.html /fish/salmon /fish?id=1"),
    "a folder": ("disallow: /fish/", "/fish /fish.html /Fish/", "/fish/ /fish/?id=1 /fish/salmon.htm"),
    "a star": (
        "disallow: /*.php",
        "/ /php /windows.PHP /a?php",
        "/index.php /a/b.php /b.php?x /x.php/ /?f=x.php/ //a.php.htm",
    ),
    "a star and an end": ("disallow: /*.php$", "/a.php?x /a.php/ /a.php5 /aphpa /windows.PHP", "/a.php /a/b.php"),
    "a star in the middle": ("disallow: /fish*.php", "/Fish.PHP /fis.php", "/fish.php /fishheads/catfish.php?x"),
    "stars in a row": ("disallow: /a**b***c", "/ab", "/abc /axbxc"),
    "an end": ("disallow: /a$", "/ /a/ /ab /a?b", "/a"),
    "the start page": ("allow: /$\ndisallow: /", "/", "/a /?a"),
    "an end that is none": ("disallow: /a$b", "/a /ab", "/a$b /a$bc"),
    "the longest wins": ("disallow: /x/page.html\nallow: /x/", "/x/ /x/page", "/x/page.html"),
    "the longest wins, whatever its order": ("allow: /x/page.html\ndisallow: /x/", "/x/page.html", "/x/ /x/page"),
    "the longest wins, with a star": ("allow: /page\ndisallow: /*.html", "/page /page.htm", "/page.html /a.html"),
    "allow wins of two equal ones": ("disallow: /a\nallow: /a", "/a /ab", ""),
    "a slash more": ("disallow: /x\nallow: /x/", "/x/ /x/a", "/x /xa"),
    "one folder of all": ("allow: /p\ndisallow: /", "/page", "/a"),
    "the page of a folder": ("allow: /a/index.html\ndisallow: /", "/a/ /a/index.html", "/a/index.htm /b"),
    "a comment": ("disallow: /a#b\n# disallow: /c", "/ /c", "/a /ab"),
    "no colon": ("disallow /a\nallow /a/b", "/ /a/b", "/a /a/c"),
    "spaces": ("  disallow  :   /a  ", "/", "/a"),
    "tabs": ("\tdisallow:\t/a\t", "/", "/a"),
    "misspelt": ("dissallow: /a\ndisalow: /b\ndiasllow: /c\ndisallaw: /d\ndissalow: /e", "/", "/a /b /c /d /e"),
    "not a path": ("disallow: a\ndisallow: .php", "/ /a /b.php", ""),
    "encoded": ("disallow: /caf%c3%a9", "/caf", "/café /caf%C3%A9 /caf%c3%a9s"),
    "not encoded": ("disallow: /café", "/caf", "/café /caf%C3%A9 /caf%c3%a9s"),
    "encoded without need": ("disallow: /%62%61%7A", "/ba", "/baz /%62az"),
    "an encoded slash": ("disallow: /a%2fb", "/a/b", "/a%2Fb /a%2fb/c"),
    "a query": ("disallow: /*?sort=\nallow: /a?sort=", "/b?x=1 /a?sort=1", "/b?sort=1"),
    "a URL in a query": ("disallow: /\nallow: /a?u=http://x?y&z", "/a?u=http://x?y&z", "/a?u=http://x?y"),
    "a star that matches nothing": (
        "allow: /foo/*/qux\ndisallow: /foo/bar/quz",
        "/foo/quz /foo/bar/qux",
        "/foo/bar/quz",
    ),
}


@pytest.mark.parametrize(("lines", "yes", "no"), RULES.values(), ids=RULES.keys())
def test_what_rules_allow(lines: str, yes: str, no: str) -> None:
    file = f"user-agent: *\n{lines}"
    assert [path for path in yes.split() if not allowed(file, path)] == []
    assert [path for path in no.split() if allowed(file, path)] == []


# Bytes at the beginning, ends of lines, encodings.
FILES = {
    "DOS": b"user-agent: *\r\ndisallow: /a\r\n",
    "Mac": b"user-agent: *\rdisallow: /a\r",
    "mixed": b"user-agent: *\r\n\rdisallow: /a",
    "a byte order mark": b"\xef\xbb\xbfuser-agent: *\ndisallow: /a",
    "two bytes of one": b"\xef\xbbuser-agent: *\ndisallow: /a",
    "one byte of one": b"\xefuser-agent: *\ndisallow: /a",
    "UTF-16": "\ufeffuser-agent: *\ndisallow: /a".encode("utf-16-le"),
    "UTF-16 of the other kind": "\ufeffuser-agent: *\ndisallow: /a".encode("utf-16-be"),
    "blank lines before": b"\n\n \nuser-agent: *\ndisallow: /a",
    "rules after garbage": b"\x00\xff\xfe:\n::\n:\nuser-agent: *\nx\ndisallow: /a",
    "a vertical tab, which is no end of a line": b"user-agent: *\ndisallow: /a\ndisallow: /x\x0bdisallow: /b",
    "the same in Latin-1": "user-agent: *\ndisallow: /a\ndisallow: /\x85disallow: /b".encode("latin-1"),
    "rules in a file that is called HTML": b"user-agent: *\ndisallow: /a\n<p>disallow: /b</p>",
}


@pytest.mark.parametrize("body", FILES.values(), ids=FILES.keys())
def test_bytes_of_files(body: bytes) -> None:
    assert [allowed(body, path) for path in ("/a", "/b")] == [False, True]


def test_a_page_instead_of_a_file_allows_all() -> None:
    page = b"<!DOCTYPE html>\n<html><body>\n<p>User-agent: *</p>\n<p>Disallow: /</p>\n</body></html>"
    assert allowed(page, "/a")


def test_bytes_that_are_not_utf_8_match_the_same_bytes() -> None:
    file = b"user-agent: *\ndisallow: /caf\xe9"
    assert [allowed(file, path) for path in ("/caf%E9", "/caf%e9s", "/caf%E8x", "/caf")][:2] == [False, False]
    assert allowed(file, "/caf")


@pytest.mark.parametrize(
    ("lines", "delay"),
    [
        ("crawl-delay: 2", 2.0),
        ("crawl-delay: 0.5", 0.5),
        ("crawl-delay: 0", 0.0),
        ("crawl-delay: 1\ncrawl-delay: 3\ncrawl-delay: 2", 3.0),
        ("crawl-delay: 1e9", MAX_DELAY),
        ("crawl-delay: inf", None),
        ("crawl-delay: nan", None),
        ("crawl-delay: -1", None),
        ("crawl-delay: soon", None),
        ("crawl-delay:", None),
        ("disallow: /", None),
    ],
)
def test_delays(lines: str, delay: float | None) -> None:
    assert parse_robots(200, f"user-agent: shopbot\n{lines}".encode(), "shopbot").crawl_delay == delay
    assert parse_robots(200, f"user-agent: other\n{lines}".encode(), "shopbot").crawl_delay is None


def test_a_delay_holds_for_the_crawlers_named_before_it() -> None:
    file = b"user-agent: slow\ncrawl-delay: 9\nuser-agent: *\ncrawl-delay: 1\ndisallow: /a"
    assert [parse_robots(200, file, name).crawl_delay for name in ("slow", "shopbot")] == [9.0, 1.0]


def test_sitemaps_stand_anywhere() -> None:
    file = b"""
    Sitemap: https://example.com/1.xml
    user-agent: other
    disallow: /
    SITEMAP:https://example.com/2.xml?a=1#x
    site-map: /3.xml
    sitemap https://example.com/4.xml
    sitemap:
    """
    rules = parse_robots(200, file, "shopbot")
    assert rules.sitemaps == (
        "https://example.com/1.xml",
        "https://example.com/2.xml?a=1",
        "/3.xml",
        "https://example.com/4.xml",
    )
    assert rules.allows(parse_url("https://example.com/a"))


def test_what_is_beyond_the_limit_is_not_read() -> None:
    head = b"user-agent: *\ndisallow: /a\n"
    filling = b"#" * (MAX_BYTES - len(head) - 1) + b"\n"
    assert not allowed(head + filling + b"disallow: /b", "/a")
    assert allowed(head + filling + b"disallow: /b", "/b")
    many = b"sitemap: https://example.com/%d\n" * (MAX_SITEMAPS + 5)
    assert len(parse_robots(200, many, "shopbot").sitemaps) == MAX_SITEMAPS


def test_what_is_too_expensive_to_match_disallows_more_rather_than_less() -> None:
    stars = "".join(f"disallow: /{number}*x\nallow: /{number}*y\n" for number in range(1_000, 3_000))
    file = f"user-agent: *\n{stars}"
    assert [allowed(file, f"/1000{end}") for end in ("x", "y", "z")] == [False, True, True]
    assert [allowed(file, f"/2999{end}") for end in ("x", "y", "z")] == [False, False, False]


KILO = 512 * 1024
HOSTILE = {
    "names": b"user-agent: *\n" * (KILO // 14) + b"disallow: /a\n",
    "prefixes": b"user-agent: *\n" + b"".join(b"disallow:/%x\n" % number for number in range(40_000)),
    "allowed": b"user-agent: *\n" + b"".join(b"allow:/%x$\n" % number for number in range(40_000)),
    "wildcards": b"user-agent: *\n" + b"".join(b"allow:/*%x*b$\n" % number for number in range(40_000)),
    "stars": b"user-agent: *\ndisallow: /" + b"*a" * (KILO // 2),
    "a long line": b"user-agent: *\ndisallow: /" + b"a" * KILO,
    "bytes": bytes(range(256)) * (KILO // 256),
    "nothing": bytes(KILO),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_hub_turns_while_a_hostile_file_is_read(body: bytes) -> None:
    """A worker reads it again and again, until a timer of the hub has run."""
    rung: list[bool] = []

    def read() -> RobotsRules:
        rules = parse_robots(200, body, "shopbot")
        while not rung:
            rules = parse_robots(200, body, "shopbot")
        return rules

    reading = greendata.run(read)
    gevent.spawn_later(0.001, rung.append, True)
    rules = reading.get(timeout=60)
    assert rules.allows(parse_url("https://example.com/" + "ab/" * 2_000)) in {True, False}


def test_what_matching_costs_is_known_before() -> None:
    usual = "user-agent: *\n" + "".join(f"disallow: /{number}/*.pdf$\n" for number in range(100))
    many = "user-agent: *\n" + "".join(f"disallow: /{number}\n" for number in range(20_000))
    stars = "user-agent: *\n" + "".join(f"disallow: /*aaaa{number}$\n" for number in range(1_200))
    short, long = (parse_url("https://example.com/" + "a" * length) for length in (60, 8_000))
    fast = [
        parse_robots(200, file.encode(), "shopbot").is_fast(url)
        for file, url in ((usual, short), (usual, long), (many, short), (stars, short), (stars, long))
    ]
    assert fast == [True, False, False, False, False]
    assert parse_robots(404, b"", "shopbot").is_fast(long)


PARTS = [
    "user-agent",
    ":",
    " ",
    "*",
    "\n",
    "disallow",
    "allow",
    "/",
    "$",
    "%",
    "%41",
    "?",
    "#",
    "\r",
    "é",
    "\0",
    "crawl-delay",
]


@given(
    st.lists(
        st.sampled_from([*PARTS, "1e400", "-", "sitemap", "http://[", "index.html", "shopbot", "\x85"]), max_size=40
    )
)
def test_any_text_is_a_file(parts: list[str]) -> None:
    rules = parse_robots(200, ("user-agent: *\n" + "".join(parts)).encode(), "shopbot")
    for text in ("http://a.example/", "http://[::1]:8080//a?b=%41$", "https://a.example/%zz[x];y'\"?"):
        assert rules.allows(parse_url(text)) in {True, False}
    assert rules.crawl_delay is None or 0 <= rules.crawl_delay <= MAX_DELAY


@given(st.binary(max_size=200))
def test_any_bytes_are_a_file(body: bytes) -> None:
    assert parse_robots(200, body, "shopbot").allows(parse_url("https://example.com/robots.txt"))


# Google's own assertions: those that do not hold here, and why.
DIFFERENT = {
    "there is no URL": lambda row: row.url == "",
    "a URL is no longer than 8192 characters": lambda row: len(row.url) > 8_192,
    "a User-Agent header has more than a name; its first word is the name": lambda row: " " in row.user_agent,
    "a URL is always encoded, so it matches what it stands for": lambda row: not row.url.isascii(),
    "RFC 9309 has %62 for b match, and Google's test says not to rely on it": lambda row: "%62%61%7A" in row.file,
}


class Row(NamedTuple):
    """One assertion of Google's tests."""

    file: str
    user_agent: str
    url: str
    is_allowed: bool


_STRING = r'"(?:[^"\\]|\\.)*"'
_STATEMENT = re.compile(
    rf"(?:absl::string_view|std::string) (\w+) =\s*((?:{_STRING}\s*)+);"
    rf"|EXPECT_(TRUE|FALSE)\(\s*IsUserAgentAllowed\(([^;]*)\)\);",
    re.DOTALL,
)


def google_rows(source: str) -> Iterator[Row]:
    source = re.sub(r"^\s*//.*$", "", source, flags=re.MULTILINE)
    values: dict[str, str] = {}
    for name, text, expected, arguments in _STATEMENT.findall(source):
        if name:
            values[name] = "".join(map(ast.literal_eval, re.findall(_STRING, text)))
        elif "StrCat" not in arguments and "longline" not in arguments:  # lengths, which test_what_is_beyond covers
            found = re.findall(rf"{_STRING}|\w+", arguments)
            file, user_agent, url = (ast.literal_eval(part) if part[0] == '"' else values[part] for part in found)
            yield Row(file, user_agent, url, expected == "TRUE")


def test_googles_own_assertions(record_property: pytest.RecordProperty) -> None:
    folder = os.environ.get("CRAWL_FILES")
    if folder is None:
        pytest.skip("CRAWL_FILES names no folder with Google's robots_test.cc")
    rows = [*google_rows((Path(folder) / "robots_test.cc").read_text(encoding="utf-8"))]
    wrong = [row for row in rows if not holds(row)]
    unexplained = [row for row in wrong if not any(differs(row) for differs in DIFFERENT.values())]
    print(f"{len(rows) - len(wrong)} of {len(rows)} assertions hold, {len(wrong)} differ on purpose")
    assert unexplained == []
    assert len(rows) >= 130


def holds(row: Row) -> bool:
    try:
        url = parse_url(row.url)
    except BadUrl:
        return False
    return parse_robots(200, row.file.encode(), row.user_agent).allows(url) is row.is_allowed
