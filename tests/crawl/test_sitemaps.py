"""Sitemaps: XML, indexes, feeds and text, compressed or not, damaged, hostile."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

import greendata
from greendata.crawl.sitemaps import MAX_ENTRIES, STEP, Sitemap, parse_sitemap
from greendata.crawl.urls import parse_url

HERE = parse_url("https://example.com/maps/sitemap.xml")


def parsed(body: str | bytes, **options: int) -> Sitemap:
    return parse_sitemap(body if isinstance(body, bytes) else body.encode(), HERE, **options)


def shown(sitemap: Sitemap) -> str:
    urls = " ".join(url.href.removeprefix("https://example.com") for url in sitemap.urls)
    further = " ".join(url.href.removeprefix("https://example.com") for url in sitemap.sitemaps)
    return f"{sitemap.kind}: {urls}|{further}{' truncated' if sitemap.truncated else ''}"


ONE = "<urlset><url><loc>https://example.com/a</loc></url></urlset>"
FILES = {
    "pages": (ONE, "urlset: /a|"),
    "a declaration and names": (
        (
            '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
            "<url><loc>/a</loc><lastmod>2024-01-01</lastmod></url>\n<url><priority>1</priority><loc>/b</loc></url></urlset>"
        ),
        "urlset: /a /b|",
    ),
    "prefixes": ("<s:urlset xmlns:s='x'><s:url><s:loc>/a</s:loc></s:url></s:urlset>", "urlset: /a|"),
    "a prefix that is not declared": ("<urlset><url><loc>/a</loc><x:y/></url></urlset>", "urlset: /a|"),
    "pictures and languages": (
        (
            "<urlset><url><loc>/a</loc><image:image><image:loc>/b</image:loc></image:image>"
            "<xhtml:link rel='alternate' href='/c'/></url></urlset>"
        ),
        "urlset: /a|",
    ),
    "an index": ("<sitemapindex><sitemap><loc>/a.xml</loc></sitemap></sitemapindex>", "index: |/a.xml"),
    "RSS": (
        "<rss version='2.0'><channel><link>/no</link><item><link>/a</link><guid>/b</guid></item></channel></rss>",
        "rss: /a|",
    ),
    "the first RSS": ("<rdf:RDF><channel><link>/no</link></channel><item><link>/a</link></item></rdf:RDF>", "rss: /a|"),
    "Atom": (
        (
            "<feed><link href='/no'/><entry><link href='/a'/><link rel='self' href='/no'/>"
            "<link rel='alternate' href='/b'/><link/></entry></feed>"
        ),
        "atom: /a /b /maps/sitemap.xml|",
    ),
    "text": (
        "https://example.com/a\r\n  https://example.com/b \n\nexample.com/no\nhttps://example.com/c",
        "text: /a /b /c|",
    ),
    "text with a mark": (b"\xef\xbb\xbfhttps://example.com/a\n", "text: /a|"),
    "white space and references": (
        "<urlset><url><loc>\n /a?b=1&amp;c=2&#38;d&#x26;e \n</loc></url></urlset>",
        "urlset: /a?b=1&c=2&d&e|",
    ),
    "an ampersand that is not escaped": (
        "<urlset><url><loc>/a?b=1&c=2&d</loc></url></urlset>",
        "urlset: /a?b=1&c=2&d|",
    ),
    "one that is escaped twice": ("<urlset><url><loc>/a?b&amp;amp;c</loc></url></urlset>", "urlset: /a?b&c|"),
    "a CDATA section": ("<urlset><url><loc><![CDATA[/a?b=1&c=2]]></loc></url></urlset>", "urlset: /a?b=1&c=2|"),
    "a comment": (
        "<urlset><!-- <url><loc>/b</loc></url> --><url><loc>/a<!-- x --></loc></url></urlset>",
        "urlset: /a|",
    ),
    "an empty entry": ("<urlset><url><loc></loc></url><url><loc>/a</loc></url><url/></urlset>", "urlset: /a|"),
    "an entry twice": ("<urlset><url><loc>/a</loc></url><url><loc>/a#b</loc></url></urlset>", "urlset: /a|"),
    "what cannot be crawled": (
        "<urlset><url><loc>mailto:x</loc></url><url><loc>/a</loc></url></urlset>",
        "urlset: /a|",
    ),
    "letters that are not ASCII": ("<urlset><url><loc>/ä</loc></url></urlset>", "urlset: /%C3%A4|"),
    "Latin-1": (
        b"<?xml version='1.0' encoding='iso-8859-1'?>" + "<urlset><url><loc>/ä</loc></url></urlset>".encode("latin-1"),
        "urlset: /%C3%A4|",
    ),
    "UTF-16": (f"\ufeff{ONE}".encode("utf-16-le"), "urlset: /a|"),
    "the other UTF-16": (f"\ufeff<?xml version='1.0' encoding='utf-16'?>{ONE}".encode("utf-16-be"), "urlset: /a|"),
    "white space before": ("\n\n <?xml version='1.0'?>" + ONE, "urlset: /a|"),
    "a declaration of a type": ("<!DOCTYPE urlset SYSTEM 'https://example.com/x.dtd'>" + ONE, "urlset: /a|"),
    "cut short": ("<urlset><url><loc>/a</loc></url><url><loc>/b", "urlset: /a| truncated"),
    "tags that do not match": ("<urlset><url><loc>/a</loc></url></x>", "urlset: /a| truncated"),
    "something after the end": (f"{ONE}<urlset>", "urlset: /a| truncated"),
    "a page": ("<!DOCTYPE html><html><body><a href=/a>x</a></html>", "None: | truncated"),
    "nothing": ("", "None: |"),
    "white space": (" \n ", "None: |"),
    "other text": ("User-agent: *\nDisallow: /", "None: |"),
    "bytes": (bytes(range(256)), "None: |"),
}


@pytest.mark.parametrize(("body", "expected"), FILES.values(), ids=FILES.keys())
def test_what_a_sitemap_lists(body: str | bytes, expected: str) -> None:
    content = body if isinstance(body, bytes) else body.encode()
    assert shown(parsed(content)) == expected
    assert shown(parsed(gzip.compress(content))) == expected
    half = len(content) // 2
    assert shown(parsed(gzip.compress(content[:half]) + gzip.compress(content[half:]))) == expected


def test_a_damaged_compression_lists_what_could_be_read() -> None:
    many = "<urlset>" + "".join(f"<url><loc>/{number}</loc></url>" for number in range(5_000)) + "</urlset>"
    whole = gzip.compress(many.encode())
    cut = parsed(whole[: len(whole) // 2])
    assert cut.truncated
    assert 0 < len(cut.urls) < 5_000
    trailing = parsed(whole + b"\0" * 100)
    assert (len(trailing.urls), trailing.truncated) == (5_000, True)
    assert parsed(b"\x1f\x8b" + b"x" * 100).truncated


def test_entities_are_not_expanded() -> None:
    lol = "".join(f"<!ENTITY l{number + 1} '{f'&l{number};' * 10}'>" for number in range(20))
    bomb = f"<!DOCTYPE urlset [<!ENTITY l0 'lol'>{lol}<!ENTITY f SYSTEM 'file:///etc/passwd'><!ENTITY % p SYSTEM 'x'>]>"
    sitemap = parsed(f"{bomb}<urlset><url><loc>/a?&l20;</loc></url><url><loc>/&f;</loc></url></urlset>")
    assert shown(sitemap) == "urlset: /a?&l20; /&f;|"
    attribute = parsed(f"{bomb}<feed><entry><link href='/a?&l20;'/></entry></feed>")
    assert shown(attribute) == "atom: /a?&amp;l20;|" or shown(attribute) == "atom: /a?&l20;|"


def test_limits() -> None:
    many = "<urlset>" + "".join(f"<url><loc>/{number}</loc></url>" for number in range(20)) + "</urlset>"
    assert shown(parsed(many, max_entries=2)) == "urlset: /0 /1| truncated"
    assert not parsed(many, max_entries=20).truncated
    lines = "".join(f"https://example.com/{number}\n" for number in range(20))
    assert shown(parsed(lines, max_entries=2)) == "text: /0 /1| truncated"
    assert shown(parsed(many, max_bytes=40)) == "urlset: /0| truncated"
    assert parsed(many, max_bytes=len(many) + 1).urls == parsed(many).urls
    deep = parsed("<urlset>" + "<a>" * 100)
    assert (deep.truncated, deep.urls) == (True, [])


def test_urls_that_are_relative_to_a_long_one_have_a_limit() -> None:
    here = parse_url("https://example.com/" + "a" * 8_000 + "/")
    body = "<urlset>" + "".join(f"<url><loc>{number}</loc></url>" for number in range(5_000)) + "</urlset>"
    sitemap = parse_sitemap(body.encode(), here)
    assert sitemap.truncated
    assert 4_100 < len(sitemap.urls) < 4_200


@pytest.mark.parametrize(
    "body",
    [
        b"<urlset><url><loc>" + b"/" * (1 << 20) + b"</loc></url><url><loc>/a</loc></url></urlset>",
        b"<urlset><url><loc>" + b"&" * (1 << 20) + b"</loc></url><url><loc>/a</loc></url></urlset>",
        b"https://example.com/" + b"x" * (1 << 20) + b"\nhttps://example.com/a",
    ],
    ids=["XML", "references", "text"],
)
def test_a_long_entry_is_left_out(body: bytes) -> None:
    assert [url.path for url in parsed(body).urls] == ["/a"]


@pytest.mark.parametrize(
    "token",
    ["<!--%s-->", "<url a='%s'/>", "<url%s/>", "<?a %s?>"],
    ids=["comment", "attribute", "name", "instruction"],
)
def test_a_tag_without_end_ends_the_sitemap(token: str) -> None:
    """Otherwise 50 MB of it would be parsed for a minute, because each step begins at its beginning."""
    before = "<urlset><url><loc>/a</loc></url>"
    assert shown(parsed(before + token % ("x" * (2 << 20)) + "</urlset>")) == "urlset: /a| truncated"
    assert shown(parsed(before + token % ("x" * (1 << 19)) + "</urlset>")) == "urlset: /a|"


def test_what_a_file_declares_for_all_elements_is_not_made_for_each() -> None:
    declared = "<!DOCTYPE feed [<!ATTLIST link rel CDATA 'self'>]>"
    assert shown(parsed(f"{declared}<feed><entry><link href='/a'/></entry></feed>")) == "atom: /a|"


def test_a_bomb_is_read_up_to_the_limit() -> None:
    """A thousandfold compression: memory stays in proportion to what is compressed, and to a step."""
    zeros = gzip.compress(b"<urlset>" + b" " * (20 << 20))
    members = gzip.compress(b"") * 70_000
    tracemalloc.start()
    try:
        assert parsed(zeros, max_bytes=10 << 20).truncated
        assert parsed(members).truncated
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


def test_references_are_found_across_steps() -> None:
    for shift in range(STEP - 12, STEP + 2):
        head = "<urlset><url><loc>/"
        body = (
            head
            + "a" * 10
            + "</loc></url>"
            + " " * (shift - len(head) - 22 - 19)
            + "<url><loc>/b?c&amp;d&e</loc></url></urlset>"
        )
        assert [url.path for url in parsed(body).urls] == ["/aaaaaaaaaa", "/b?c&d&e"]


def test_the_hub_turns_while_a_sitemap_is_read() -> None:
    """A worker reads it again and again, until a timer of the hub has run."""
    body = gzip.compress(
        b"<urlset>"
        + b"".join(b"<url><loc>/%d</loc></url>" % number for number in range(MAX_ENTRIES // 10))
        + b"</urlset>"
    )
    rung: list[bool] = []

    def read() -> int:
        count = len(parsed(body).urls)
        while not rung:
            count = len(parsed(body).urls)
        return count

    reading = greendata.run(read)
    gevent.spawn_later(0.001, rung.append, True)
    assert reading.get(timeout=60) == MAX_ENTRIES // 10


@given(
    st.lists(
        st.sampled_from(
            ["<urlset>", "<url>", "<loc>", "</loc>", "/a", "&", "&amp;", "]]>", "<![CDATA[", "<!--", "\0", "é"]
        )
    ),
    st.booleans(),
)
def test_any_text_is_read(parts: list[str], is_compressed: bool) -> None:  # noqa: FBT001 - hypothesis passes it
    body = "".join(parts).encode()
    parsed(zlib.compress(body, wbits=31) if is_compressed else body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read(body: bytes) -> None:
    parsed(body)
    parsed(b"\x1f\x8b" + body)
