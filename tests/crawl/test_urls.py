"""URLs: one canonical form, what is refused, the scope of a crawl.

`CRAWL_FILES` names a folder with the WHATWG's `urltestdata.json`, whose cases are then run as well.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greendata.crawl.urls import BLOCKED_PORTS, MAX_LENGTH, Scope, _site, parse_links, parse_url
from greendata.errors import BadChoice, BadUrl

pytestmark = pytest.mark.once("patched")  # no thread and no hub takes part

BASE = "https://example.com/shop/shoes?page=2#top"

# What stands in a page, and where it leads from `BASE`.
LINKS = {
    "relative": ("red", "https://example.com/shop/red"),
    "from the root": ("/a", "https://example.com/a"),
    "up": ("../a", "https://example.com/a"),
    "up too far": ("../../../a", "https://example.com/a"),
    "dots in the middle": ("/a/./b/../c", "https://example.com/a/c"),
    "encoded dots": ("/a/%2e%2E/c", "https://example.com/c"),
    "another host": ("//other.example/a", "https://other.example/a"),
    "another scheme": ("http://example.com", "http://example.com/"),
    "a scheme without slashes": ("https:a", "https://example.com/shop/a"),
    "another scheme without slashes": ("http:a", "http://a/"),
    "many slashes": ("http:////a/b", "http://a/b"),
    "only a query": ("?page=3", "https://example.com/shop/shoes?page=3"),
    "an empty query": ("?", "https://example.com/shop/shoes?"),
    "empty": ("", "https://example.com/shop/shoes?page=2"),
    "only a fragment": ("#a", "https://example.com/shop/shoes?page=2"),
    "a fragment": ("/a#b?c", "https://example.com/a"),
    "white space around": (" \t\r\n/a \x0c\x00", "https://example.com/a"),
    "line ends within": ("/a\n/b\tc\rd", "https://example.com/a/bcd"),
    "white space within": ("/a b", "https://example.com/a%20b"),
    "control characters": ("/a\x01\x7f", "https://example.com/a%01%7F"),
    "backslashes": ("\\\\other.example\\a\\b?c\\d", "https://other.example/a/b?c\\d"),
    "a backslash before the host's end": ("http://a.example\\@b.example/", "http://a.example/@b.example/"),
    "upper case": ("HTTPS://EXAMPLE.COM/A", "https://example.com/A"),
    "the default port": ("https://example.com:443/a", "https://example.com/a"),
    "the default port with zeros": ("http://example.com:0080/a", "http://example.com/a"),
    "no port after a colon": ("https://example.com:/a", "https://example.com/a"),
    "another port": ("https://example.com:8443/a", "https://example.com:8443/a"),
    "a trailing dot": ("https://example.com./a", "https://example.com/a"),
    "a trailing dot and a port": ("https://example.com.:8443/", "https://example.com:8443/"),
    "an international name": ("https://BÜCHER.example/ä?ö=ü", "https://xn--bcher-kva.example/%C3%A4?%C3%B6=%C3%BC"),
    "full-width characters": ("https://\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45.com/", "https://example.com/"),
    "an ideographic dot": ("https://example\u3002com/", "https://example.com/"),
    "an encoded host": ("https://ex%61mple.com/", "https://example.com/"),
    "a soft hyphen": ("https://exam\u00adple.com/", "https://example.com/"),
    "an address as one number": ("http://2130706433/", "http://127.0.0.1/"),
    "an address in hexadecimal": ("http://0x7f.1/", "http://127.0.0.1/"),
    "an address in octal": ("http://0177.0.0.01/", "http://127.0.0.1/"),
    "an address with a dot": ("http://127.0.0.1./", "http://127.0.0.1/"),
    "an IPv6 address": ("http://[0:0::0:1]:8080/a", "http://[::1]:8080/a"),
    "a mapped address": ("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
    "the case of encoding": ("/%c3%a4?%c3", "https://example.com/%C3%A4?%C3"),
    "encoded without need": ("/%7Eann/%41%2d%5f", "https://example.com/~ann/A-_"),
    "encoded with need": ("/a%2fb%3Fc%23d%25e", "https://example.com/a%2Fb%3Fc%23d%25e"),
    "an encoded percent sign": ("/%2541", "https://example.com/%2541"),
    "not encoded at all": ("/100%/%%34%31/%4", "https://example.com/100%/%%34%31/%4"),
    "a lone surrogate": ("/a?b=\ud800", None),
    "user and password": ("https://ann:secret@example.com/", None),
    "a user": ("https://ann@example.com/", None),
    "a user that looks like a host": ("https://example.com@evil.example/", None),
    "an encoded user": ("https://example.com%40@evil.example/", None),
    "no user before the sign": ("https://@example.com/", "https://example.com/"),
    "javascript": ("javascript:alert(1)", None),
    "javascript with a line end": ("java\nscript:alert(1)", None),
    "data": ("data:text/html,<a href=/x>", None),
    "mail": ("mailto:ann@example.com", None),
    "a telephone": ("tel:+1234", None),
    "a file": ("file:///etc/passwd", None),
    "FTP": ("ftp://example.com/", None),
    "a socket": ("ws://example.com/", None),
    "no host": ("https://", None),
    "a space in the host": ("https://exa mple.com/", None),
    "an encoded slash in the host": ("https://example.com%2fa/", None),
    "an empty label": ("https://example..com/", None),
    "only a dot": ("https://./", None),
    "two trailing dots": ("https://example.com../", None),
    "a long label": (f"https://{'a' * 64}.example/", None),
    "a long name": (f"https://{'a.' * 127}example/", None),
    "an open bracket": ("http://[::1/", None),
    "a zone": ("http://[fe80::1%25eth0]/", None),
    "an address out of range": ("http://256.0.0.1/", None),
    "a port out of range": ("http://example.com:65536/", None),
    "a port that is no number": ("http://example.com:8a/", None),
    "port 0": ("http://example.com:0/", None),
    "the port of mail": ("http://example.com:25/", None),
    "the port of Redis is not blocked": ("http://example.com:6379/", "http://example.com:6379/"),
}


@pytest.mark.parametrize(("text", "expected"), LINKS.values(), ids=LINKS.keys())
def test_where_a_link_leads(text: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(BadUrl):
            parse_url(text, BASE)
        assert parse_links([text], BASE) == []
    else:
        url = parse_url(text, BASE)
        assert url.href == expected
        again = parse_url(url.href)
        assert again == url
        assert (again.scheme, again.host, again.port, again.path) == (url.scheme, url.host, url.port, url.path)


def test_the_parts_of_a_url() -> None:
    url = parse_url("http://[2001:DB8::1]/a?b#c")
    assert (url.scheme, url.host, url.port, url.path) == ("http", "2001:db8::1", 80, "/a?b")
    assert url.origin == "http://[2001:db8::1]:80"
    assert str(url) == url.href == "http://[2001:db8::1]/a?b"
    assert repr(url) == "Url('http://[2001:db8::1]/a?b')"
    other = parse_url("https://Example.com:8443")
    assert (other.host, other.port, other.path, other.origin) == ("example.com", 8443, "/", "https://example.com:8443")
    assert pickle.loads(pickle.dumps(other)) == other
    assert {other, parse_url("https://example.com:8443/")} == {other}
    assert other != other.href


REASONS = {
    "shop/shoes?token=1": "shop/shoes cannot be used: it has no scheme; write the whole URL, as in https://example.com/",
    "example.com": "example.com cannot be used: it has no scheme; write the whole URL, as in https://example.com/",
    "mailto:ann@example.com": "the URL cannot be used: its scheme is mailto, and only http and https are fetched",
    "http://ann:secret@example.com/a": "http://example.com/a cannot be used: it has a user name or password; pass "
    "credentials as headers",
    "http://example.com:22/": "http://example.com:22/ cannot be used: port 22 belongs to a service other than HTTP",
    "http://a..b/": "http://a..b/ cannot be used: its host has an empty or a very long part, so it cannot be a name",
    "http://[::1": "the URL cannot be used: it is not a URL by the WHATWG standard",
    "http://a/?"
    + "ä" * 2_000: "http://a/ cannot be used: it has 12010 characters when it is encoded, the limit is 8192",
    "http://a/?" + "a" * 9_000: "http://a/ cannot be used: it has 9010 characters, the limit is 8192",
}


@pytest.mark.parametrize(("text", "message"), REASONS.items(), ids=range(len(REASONS)))
def test_why_a_text_is_not_a_url(text: str, message: str) -> None:
    with pytest.raises(BadUrl) as caught:
        parse_url(text)
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)
    assert "secret" not in repr(caught.value.__cause__)


def test_a_long_host_is_refused_and_not_kept() -> None:
    kept = _site.cache_info().currsize
    for number in range(3):
        with pytest.raises(BadUrl, match="has a user name"):
            parse_url(f"https://{number}{'u' * 1_000}@a.example/")
        with pytest.raises(BadUrl, match="a very long part"):
            parse_url(f"https://{number}{'.a' * 1_000}/")
    assert _site.cache_info().currsize == kept


def test_the_length_of_a_url() -> None:
    longest = "https://example.com/" + "a" * (MAX_LENGTH - 20)
    assert len(parse_url(longest).href) == MAX_LENGTH
    with pytest.raises(BadUrl):
        parse_url(longest + "a")


@pytest.mark.parametrize("port", sorted(BLOCKED_PORTS))
def test_ports_of_other_services(port: int) -> None:
    with pytest.raises(BadUrl):
        parse_url(f"http://example.com:{port}/")
    with pytest.raises(BadUrl):
        parse_url(f"http://127.0.0.1:000{port}/")


@given(st.text(max_size=60), st.sampled_from([None, "http://a.example/b/c?d", "https://[::1]:8080"]))
def test_any_text_is_a_url_in_its_last_form_or_refused(text: str, base: str | None) -> None:
    try:
        url = parse_url(text, base)
    except BadUrl:
        return
    check_agreement(url.href)


@given(st.lists(st.sampled_from([*"%0123456789aAfFzZ./\\?#@:[]", "%2e", "%25", "%41", "\t", "é"]), max_size=25))
def test_any_path_is_normalised_once(parts: list[str]) -> None:
    try:
        url = parse_url("http://a.example/" + "".join(parts))
    except BadUrl:
        return
    check_agreement(url.href)


@given(st.text("/.a?=&~-_%#:@ \n\t\\", max_size=12))
def test_a_link_that_is_kept_leads_where_the_parser_does(text: str) -> None:
    """Of a page that is a `Url`, links from the root are kept by their text; with the page as text they are not."""
    for page in ("https://example.com/", "http://[::1]:8080/b/c?d"):
        assert parse_links([text], parse_url(page)) == parse_links([text], page)


def check_agreement(href: str) -> None:
    """Parsed again, the URL is the same; and other parsers see the same host, which they would connect to."""
    url = parse_url(href)
    assert url.href == href
    assert href.isascii()
    assert not re.search(r"[\x00-\x20\x7f#]", href)
    parts = urlsplit(href)
    assert (parts.scheme, parts.hostname, parts.username) == (url.scheme, url.host, None)
    assert (parts.port or {"http": 80, "https": 443}[url.scheme]) == url.port


def test_links_are_unique_and_in_order_and_not_the_page_itself() -> None:
    texts = ["/b", "#c", "/a", "/b#d", "", "?", "?q", "HTTPS://EXAMPLE.com/p", "mailto:x", "//[", "/a/../b"]
    links = parse_links(texts, parse_url("https://example.com/p"))
    assert [link.path for link in links] == ["/b", "/a", "/p?", "/p?q"]


def test_scopes() -> None:
    seeds = [parse_url("https://www.example.com/a"), parse_url("http://127.0.0.1:8000/")]
    hosts = Scope("host", seeds)
    assert parse_url("http://www.example.com:8080/b") in hosts
    assert parse_url("https://127.0.0.1/b") in hosts
    assert parse_url("https://example.com/") not in hosts
    sites = Scope("site", seeds)
    for inside in ("https://example.com/", "https://www.example.com/", "https://a.b.example.com/", "http://127.0.0.1/"):
        assert parse_url(inside) in sites
    for outside in (
        "https://notexample.com/",
        "https://com/",
        "https://example.com.evil.example/",
        "http://1.127.0.0.1.x/",
    ):
        assert parse_url(outside) not in sites
    assert parse_url("https://other.example/") in Scope("any", seeds)
    assert parse_url("https://a.example/shop/1") in Scope(re.compile(r"/shop/\d"), seeds)
    assert parse_url("https://a.example/shop/x") not in Scope(re.compile(r"/shop/\d"), seeds)
    assert parse_url("https://a.example/shop/x") in Scope(lambda url: url.path.startswith("/shop"), seeds)
    assert parse_url("https://a.example/") not in Scope("site", [])


def test_a_scope_that_is_none() -> None:
    for wrong in ("hosts", 3, None):
        with pytest.raises(
            BadChoice, match="scope must be 'host', 'site', 'any', 'a compiled pattern' or 'a function'"
        ):
            Scope(wrong, [])  # type: ignore[arg-type]


# The WHATWG's own cases. By choice, greendata refuses and normalises more than the standard, see `parse_url`.
INVALID_PUNYCODE = re.compile("(^|[./])xn--(pokxncvks)?([./]|$)", re.IGNORECASE)  # which ada accepts; no DNS name


def expected_of(case: dict[str, Any]) -> str | None:
    """Return what `parse_url` should make of a case: a URL, or None if it should be refused."""
    href = "" if case.get("failure") else case["href"].partition("#")[0]
    if not href.startswith(("http://", "https://")):
        return None
    parts = urlsplit(href)
    if "@" in parts.netloc or parts.port in BLOCKED_PORTS or not all(parts.netloc.partition(":")[0].split(".")):
        return None
    if re.search("%(?![0-9A-Fa-f]{2})", href):
        return re.sub("%[0-9A-Fa-f]{2}", lambda byte: byte[0].upper(), href)
    return re.sub("%[0-9A-Fa-f]{2}", normalised, href)


def normalised(byte: re.Match[str]) -> str:
    character = unquote(byte[0], "latin-1")
    return character if re.fullmatch("[A-Za-z0-9._~-]", character) else byte[0].upper()


def test_the_whatwgs_own_cases() -> None:
    folder = os.environ.get("CRAWL_FILES")
    if folder is None:
        pytest.skip("CRAWL_FILES names no folder with the WHATWG's urltestdata.json")
    cases = [case for case in json.loads((Path(folder) / "urltestdata.json").read_text()) if isinstance(case, dict)]
    wrong = [case for case in cases if made_of(case) != expected_of(case)]
    print(f"{len(cases) - len(wrong)} of {len(cases)} cases are as expected")
    assert [case["input"] for case in wrong if not INVALID_PUNYCODE.search(case["input"])] == []
    assert len(cases) > 800


def made_of(case: dict[str, Any]) -> str | None:
    base = case["base"] if case.get("base") != "about:blank" else None
    try:
        return parse_url(case["input"], base).href
    except BadUrl:
        return None
