"""Pages: title, text, links and what they tell robots, from markup of every kind; and what hostile pages cost."""

from __future__ import annotations

import gc
import pickle
import tracemalloc
from datetime import UTC, datetime

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

import greendata
from greendata.crawl.fetcher import Hop
from greendata.crawl.html import MAX_HEADING, MAX_HTML, MAX_LINK_TEXT, MAX_TAGS, ParsedPage, _costly_at, parse_html
from greendata.crawl.parsing import Fetched, Reading
from greendata.crawl.urls import parse_url

HERE = parse_url("https://example.com/shop/shoes")


def parsed(html: str | bytes, content_type: str | None = "text/html; charset=utf-8", **options: object) -> ParsedPage:
    body = html if isinstance(html, bytes) else html.encode()
    return parse_html(body, content_type, HERE, **options)  # type: ignore[arg-type]


def hrefs(html: str) -> list[str]:
    return [link.href.removeprefix("https://example.com") for link in parsed(html).links]


TEXTS = {
    "blocks": ("<p>a<p>b<div>c</div>d", "a\nb\nc\nd"),
    "inline elements": ("<p>J<b>oh</b>n <i>Doe</i>", "John Doe"),
    "white space": ("<p>  a \n\t b&nbsp;c\r\n </p>", "a b c"),
    "breaks": ("a<br>b<br/>c<hr>d", "a\nb\nc\nd"),
    "lists and tables": ("<ul><li>a<li>b</ul><table><tr><td>c<td>d<tr><td>e</table>", "a\nb\nc\nd\ne"),
    "space between inline elements": ("<p><b>a</b> <b>b</b>\n<b>c</b>", "a b c"),
    "scripts and styles": ("<script>x<b></script><style>p{}</style>a<script></script>b", "ab"),
    "text after an empty script": ("<p>a<script></script>b</p>", "ab"),
    "the title": ("<title>x</title><body>a", "a"),
    "noscript": ("<noscript><p>Without scripts</noscript>", "Without scripts"),
    "a template": ("<template><p>x</template>a", "a"),
    "a comment": ("a<!-- x -->b", "ab"),
    "references": ("&lt;&amp;&eacute;&#x41;&#65&bogus;&#0;&#xD800;", "<&éAA&bogus;\ufffd\ufffd"),
    "no markup": ("a < b & c", "a < b & c"),
    "broken markup": ("<p<b>a</p</b>c<<i>d", "ac<d"),
    "unclosed": ("<div><p><b>a<div>b<table>c", "a\nbc"),
    "a NUL": ("<p>a\0b", "ab"),
    "nothing": ("", ""),
    "only white space": (" \n ", ""),
}


@pytest.mark.parametrize(("html", "text"), TEXTS.values(), ids=TEXTS.keys())
def test_the_text_of_a_page(html: str, text: str) -> None:
    assert parsed(html).text == text


HEADS = {
    "a title": ("<title> Red\n shoes </title>", "Red shoes"),
    "two titles": ("<title>a</title><title>b</title>", "a"),
    "an empty title": ("<title></title><title>b</title>", "b"),
    "a title in the body": ("<body><title>a</title>", "a"),
    "the title of a picture": ("<body><svg><title>x</title></svg>", None),
    "references in a title": ("<title>a &amp; b <i>c</i></title>", "a & b <i>c</i>"),
    "none": ("<h1>a</h1>", None),
    "a long title": (f"<title>{'a ' * 5_000}</title>", ("a " * MAX_HEADING)[:MAX_HEADING]),
}


@pytest.mark.parametrize(("html", "title"), HEADS.values(), ids=HEADS.keys())
def test_the_title_of_a_page(html: str, title: str | None) -> None:
    assert parsed(html).title == title


def test_the_description() -> None:
    assert parsed("<META NAME=Description CONTENT='a\n b'><meta name=description content=c>").description == "a b"
    assert parsed("<meta name=description><meta property=og:description content=x>").description is None


LINKS = {
    "in order, each once": ("<a href=/b></a><a href=/a></a><a href=/b#x></a>", ["/b", "/a"]),
    "areas": ("<map><area href=/a></map>", ["/a"]),
    "without href": ("<a name=x></a><a href></a><a href=''></a><a href='#x'></a>", []),
    "the page itself": ("<a href=shoes></a><a href='https://example.com/shop/shoes#x'></a>", []),
    "other schemes": ("<a href=mailto:x></a><a href='javascript:x'></a><a href=data:,x></a><a href=tel:1></a>", []),
    "white space": ("<a href=' /a\n '></a>", ["/a"]),
    "backslashes": (r"<a href='\\example.com\a'></a>", ["/a"]),
    "references": ("<a href='/a?b=1&amp;c=2&d=3'></a>", ["/a?b=1&c=2&d=3"]),
    "a base": ("<base href=/b/><a href=a></a>", ["/b/a"]),
    "a base that is relative": ("<base href=b/><a href=a></a>", ["/shop/b/a"]),
    "the first base": ("<base target=x><base href=/b/><base href=/c/><a href=a></a>", ["/b/a"]),
    "a base after links": ("<a href=a></a><base href=/b/>", ["/b/a"]),
    "a base without sense": ("<base href='javascript:x'><a href=a></a>", ["/shop/a"]),
    "an empty link and a base": ("<base href=/b/><a href=''></a>", ["/b/"]),
    "nested links": ("<a href=/a>x<a href=/b>y</a></a>", ["/a", "/b"]),
    "in a comment or script": ("<!-- <a href=/a> --><script>'<a href=/b>'</script>", []),
    "in noscript": ("<noscript><a href=/a></a></noscript>", ["/a"]),
    "a refresh": ("<meta http-equiv=refresh content='5; url=/a'>", ["/a"]),
    "in upper case": ("<A HREF=/a></A>", ["/a"]),
    "the first of two attributes": ("<a href=/a href=/b></a>", ["/a"]),
    "a picture's": ("<svg><a href=/a></a></svg>", ["/a"]),
}


@pytest.mark.parametrize(("html", "links"), LINKS.values(), ids=LINKS.keys())
def test_the_links_of_a_page(html: str, links: list[str]) -> None:
    assert hrefs(html) == links


REFRESHES = {
    "0;url=/a": "/a",
    "5; URL = '/a' x": "/a",
    '5;url="/a': "/a",
    "0 , /a": "/a",
    "0.5 /a": "/a",
    "; url=/a": "/a",
    "5": None,
    "5;": None,
    "5; url=": None,
    "": None,
    "soon; url=/a": None,
    "0; url=javascript:x": None,
}


@pytest.mark.parametrize(("content", "target"), REFRESHES.items())
def test_where_a_refresh_leads(content: str, target: str | None) -> None:
    page = parsed(f"<meta http-equiv=Refresh content='{content}'>".replace("'/a'", "&#39;/a&#39;"))
    assert (page.refresh and page.refresh.path) == target
    assert [link.path for link in page.links] == ([] if target is None else [target])


def test_the_canonical_url() -> None:
    assert (
        str(parsed("<link rel='x Canonical' href='/a#b'><link rel=canonical href=/c>").canonical)
        == "https://example.com/a"
    )
    assert str(parsed("<link rel=canonical href=a><base href=/b/>").canonical) == "https://example.com/b/a"
    assert (
        str(parsed("<head><noscript><img></noscript><link rel=canonical href=/a>").canonical) == "https://example.com/a"
    )
    for none in ("<link rel=canonical>", "<link rel=canonical href='javascript:x'>", "<link rel=stylesheet href=/a>"):
        assert parsed(none).canonical is None


DIRECTIVES = {
    "none": ("", None, "follow index"),
    "nofollow": ("nofollow", None, "nofollow index"),
    "noindex": ("NoIndex", None, "follow noindex"),
    "both": ("noindex , nofollow", None, "nofollow noindex"),
    "both in a word": ("none", None, "nofollow noindex"),
    "others": ("index, follow, all, noarchive, max-snippet:20", None, "follow index"),
    "in the header": ("", "noindex, nofollow", "nofollow noindex"),
    "in both": ("noindex", "nofollow", "nofollow noindex"),
    "for another crawler": ("", "otherbot: noindex, nofollow", "follow index"),
    "with a value before": ("", "unavailable_after: 25 Jun 2010, noindex", "follow noindex"),
}


@pytest.mark.parametrize(("content", "header", "expected"), DIRECTIVES.values(), ids=DIRECTIVES.keys())
def test_what_a_page_tells_robots(content: str, header: str | None, expected: str) -> None:
    page = parsed(f"<a href=/a></a><meta name=Robots content='{content}'>", robots_tag=header)
    assert f"{'nofollow' if page.nofollow else 'follow'} {'noindex' if page.noindex else 'index'}" == expected
    assert [link.path for link in page.links] == ["/a"]
    assert [link.path for link in page.follow] == ([] if page.nofollow else ["/a"])


def test_links_that_are_not_to_be_followed() -> None:
    page = parsed(
        "<a href=/a rel=nofollow></a><a href=/b rel='ugc NoFollow'></a><a href=/c rel=nofollower></a>"
        "<a href=/d rel=nofollow></a><a href=/d></a>"
    )
    assert [link.path for link in page.links] == ["/a", "/b", "/c", "/d"]
    assert [link.path for link in page.follow] == ["/c", "/d"]


def test_types_of_content() -> None:
    html = "<title>x</title><p>a"
    for is_html in (None, "", "text/html", "Application/XHTML+XML; charset=utf-8", "application/xml"):
        assert parsed(html, is_html).title == "x"
    plain = parsed("<title>x</title>\n a  b\n", "text/plain")
    assert (plain.title, plain.tree, plain.links, plain.text) == (None, None, [], "<title>x</title>\n a  b\n")


def test_a_page_for_extract_has_its_scripts() -> None:
    page = parsed("<script type=application/ld+json>{}</script><h1>a</h1>")
    assert page.tree is not None
    assert page.tree.css_first("script").text() == "{}"
    assert [node.text() for node in page.tree.css("h1")] == ["a"]


def test_limits() -> None:
    many = "".join(f"<a href=/{number}>x</a>" for number in range(10))
    page = parsed(many, max_links=3)
    assert ([link.path for link in page.links], page.truncated) == (["/0", "/1", "/2"], True)
    assert not parsed(many, max_links=10).truncated
    base = f"<base href='/{'a' * 8_000}/'>"
    page = parsed(base + "".join(f"<area href={number}>" for number in range(1_000)))
    assert (sum(len(link.href) for link in page.links) <= MAX_LINK_TEXT, page.truncated) == (True, True)
    assert len(page.links) > 250
    assert not parsed(base + "".join(f"<area href={number}>" for number in range(250))).truncated
    assert (parsed("<p>abcdef", max_text=3).text, parsed("<p>abcdef", max_text=3).truncated) == ("abc", True)
    assert not parsed("<p>abc", max_text=3).truncated
    assert (parsed("<p>abc", max_text=0).text, parsed("<p>abc", max_text=0).truncated) == ("", False)
    assert (parsed("abcdef", "text/plain", max_text=3).text, parsed("abc", "text/plain", max_text=3).truncated) == (
        "abc",
        False,
    )
    page = parsed(f"<p>a{' ' * 100}</p><p>b", max_text=50)
    assert (page.text, page.truncated) == ("a", True)
    assert parsed(b"x" * (MAX_HTML + 1)).truncated
    assert len(parsed(b"x" * (MAX_HTML + 1), max_text=MAX_HTML * 2).text) == MAX_HTML
    page = parsed("<p>a" + "<br>" * MAX_TAGS + "<p>b")
    assert (page.text, page.truncated) == ("a", True)


SIZE = 1 << 20
HOSTILE = {
    "nested blocks": "<div>" * (SIZE // 5),
    "nested formatting": "<b><i>" * (SIZE // 6),
    "nested and closed": ("<div>" * 3_000 + "</div>" * 3_000) * 30,
    "nested and closed in comments": "<div><!--</div>-->" * (SIZE // 18),
    "nested in a comment that is over": "<!-->" + "<div>" * (SIZE // 5) + "-->",
    "nested in a style that is none": "<svg><style>" + "<div>" * (SIZE // 5),
    "nested with foreign ends": "<div></span></b></div2>" * (SIZE // 23),
    "nested beside a quote": '<p =">' + "<div>" * (SIZE // 5) + '">',
    "nested beside two signs": '<p a= =">' + "<div>" * (SIZE // 5) + '">',
    "nested beside a stray quote": '<p a="""">' + "<div>" * (SIZE // 5) + '">',
    "nested beside a vertical tab": '<p a=\x0b">' + "<div>" * (SIZE // 5) + '">',
    "nested tables": "<table><td>" * (SIZE // 11),
    "nested pictures": "<svg><g>" * (SIZE // 8),
    "links in links": "<a href=x>" * (SIZE // 10),
    "misnested": "<b><p></b>" * (SIZE // 10),
    "attributes": "<p " + " ".join(f"a{number}" for number in range(SIZE // 8)) + ">",
    "attributes with brackets": "<p " + " ".join(f'a{number}="<"' for number in range(SIZE // 12)) + ">",
    "attributes with other brackets": "<p " + " ".join(f'a{number}=">"' for number in range(SIZE // 12)) + ">",
    "an attribute": "<p title='" + "x" * SIZE + "'>",
    "open tags": "<a " * (SIZE // 3),
    "open quotes": '<a "' * (SIZE // 4),
    "brackets": "<" * SIZE,
    "references": "&amp;" * (SIZE // 5),
    "NULs": "\0" * SIZE,
    "a refresh": "<meta http-equiv=refresh content='" + " " * SIZE + "'>",
    "a script": "<script>" + "<div>" * (SIZE // 5),
    "a title": "<title>" + "<div>" * (SIZE // 5),
}


@pytest.mark.parametrize("html", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_hub_turns_while_a_hostile_page_is_parsed(html: str) -> None:
    """A worker parses it again and again, until a timer of the hub has run."""
    rung: list[bool] = []

    def parse() -> int:
        links = len(parsed(html).links)
        while not rung:
            links = len(parsed(html).links)
        return links

    parsing = greendata.run(parse)
    gevent.spawn_later(0.001, rung.append, True)
    assert parsing.get(timeout=120) <= 1


def test_no_more_attributes_are_counted_than_an_element_may_have() -> None:
    """A list of all of them would hold the GIL for as long as it takes to make it: 25 ms."""
    html = b"<a " + b"".join(b"a%d=1 " % number for number in range(100_000)) + b">"
    tracemalloc.start()
    try:
        assert _costly_at(html) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(html)


def test_a_sound_page_of_any_size_is_not_cut() -> None:
    row = "<div class='row'><p>text<br><a href='/a?b=1'>link</a><img src=x></p><ul><li>a<li>b</ul></div>\n"
    row += """<a href="/a"">stray</a><b it's>quotes</b><i a='"'>and</i> <u b=c"d>more</u>\n"""
    script = "<script>for (i=0;i<b.length;i++) { a = '<div ' + x + ' y z '; }" + "x = 1; " * 5_000 + "</script>"
    data = "<p title='" + "x y z " * 5_000 + "'>" + "<img alt='a>b' src='data:image/png;base64," + "A" * 40_000 + "'>"
    page = parsed(f"<body>{row * 1_000}{script}{data}{row * 1_000}<p>the end")
    assert page.text.endswith("the end")
    assert not page.truncated


@given(
    st.lists(
        st.sampled_from(
            [
                "<a href=",
                "/x",
                '"',
                "'",
                ">",
                "<",
                "</",
                "<p>",
                "<!--",
                "-->",
                "<svg>",
                "<title>",
                "é",
                "\0",
                "&",
                "#",
                " ",
            ]
        ),
        max_size=40,
    )
)
def test_any_markup_is_a_page(parts: list[str]) -> None:
    page = parsed("".join(parts))
    page.text.encode()
    assert {link.href for link in page.follow} <= {link.href for link in page.links}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_page(body: bytes) -> None:
    assert parsed(body, None).charset


def test_links_can_be_sent_to_another_process() -> None:
    links = parsed("<a href=/a></a><a href=//b.example></a>").links
    assert pickle.loads(pickle.dumps(links)) == links


def test_a_page_of_many_links_leads_to_one_collection_of_young_garbage() -> None:
    """A full one would stop all threads for as long as it takes to visit every object of the process."""
    url = parse_url("https://example.com/")
    hop = Hop(url.href, status=200, body=b"".join(b"<a href=/%d>x</a>" % number for number in range(9_000)))
    fetched = Fetched(url, url, (), hop, datetime.now(UTC), 0, "allowed", None)
    begun: list[int] = []

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            begun.append(info["generation"])

    gc.collect()
    gc.callbacks.append(count)
    try:
        [(page, _)] = Reading(None, follow=True, depth=None, max_text=0).read([fetched])
    finally:
        gc.callbacks.remove(count)
    assert len(page.links) == 9_000
    assert 2 not in begun
    assert begun.count(1) == 1
