"""Parse HTML into what a crawler needs: title, text, links. All limits are there because pages can be hostile.

lexbor parses like a browser and without the GIL, and finds the links of the largest page in a few milliseconds. Two
things cost it quadratic time: elements nested deeply, and an element with thousands of attributes. A body is cut before
them, see `_cut_before_costly`. Only the text needs a walk in Python, which visits each node once, with pauses.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from greendata.crawl.charset import CharsetSource, Decoded, decode_html
from greendata.crawl.urls import MAX_LENGTH, Url, parse_url
from greendata.errors import BadUrl
from greendata.hub.pacing import GilReleaser

try:
    from selectolax.lexbor import LexborHTMLParser
except ImportError as missing:
    raise ImportError("greendata.crawl needs selectolax; install it with: pip install 'greendata[crawl]'") from missing

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

__all__ = ("MAX_LINKS", "MAX_TEXT", "ParsedPage", "parse_html")

MAX_HTML = 2 << 20  # bytes of a page that are parsed; search engines stop there too
MAX_TAGS = 50_000  # "<" in a page: each is up to four nodes, and a selector over them holds the GIL for up to 5 ms
MAX_LINKS = 10_000  # by default
MAX_LINK_TEXT = 1 << 21  # characters of all links of a page: with a long base, ten thousand of 10 bytes would be 80 MB
MAX_TEXT = 1 << 20  # characters, by default
MAX_HEADING = 2_000  # characters of the title and the description

_FEW_TAGS = 10_000  # "<" in a page: however they nest, lexbor takes 0.4 seconds at most
_FEW_ATTRIBUTES = 50_000  # of an element: lexbor takes eight seconds at most
_MAX_DEPTH = 1_000  # open elements of a page with more; browsers flatten at 512
_MAX_ATTRIBUTES = 1_000  # of an element
_LONG_TAG = 2 * _MAX_ATTRIBUTES  # characters, which that many attributes have at least
_NODES = 32  # nodes of a loop between two looks at the clock

_HTML = frozenset({"text/html", "application/xhtml+xml", "application/xml", "text/xml", ""})
# An attribute, a tag and a comment, exactly as the standard's tokenizer reads them. Otherwise one of the two could see
# elements where the other sees an attribute or a comment. Only a quote after "=" begins a quoted value.
_BLANK = rb"[ \t\n\f\r]"
_ATTRIBUTE_TEXT = (
    rb"[^ \t\n\f\r/>][^ \t\n\f\r/>=]*+(?:%b*+=%b*+(?:\"[^\"]*+\"|'[^']*+'|[^ \t\n\f\r>\"'][^ \t\n\f\r>]*+)?+)?+"
    % (_BLANK, _BLANK)
)
_ATTRIBUTE = re.compile(_ATTRIBUTE_TEXT)
_TAG = re.compile(
    rb"<(?:(/?)([a-z][^ \t\n\f\r/>]*+)((?:[ \t\n\f\r/]++|%b)*+)|!--(?:-?>|.*?(?:--!?>|\Z)))" % _ATTRIBUTE_TEXT,
    re.IGNORECASE | re.DOTALL,
)
_RAW_NAMES = (b"iframe", b"noembed", b"noframes", b"script", b"style", b"textarea", b"title", b"xmp")
_RAW = {name: re.compile(b"</" + name, re.IGNORECASE) for name in _RAW_NAMES}  # what is inside them is text

_FLAT_NAMES = """
area base br col colgroup dd dt embed hr img input li link meta optgroup option p param source tbody td tfoot th thead
tr track wbr
"""
_BLOCK_NAMES = """
address article aside blockquote body br caption dd details dialog div dl dt fieldset figcaption figure footer form h1
h2 h3 h4 h5 h6 header hr legend li main menu nav ol optgroup option p pre section summary table tbody td tfoot th thead
tr ul
"""
# They have no content, or the next of their kind closes them: they do not nest.
_FLAT = frozenset(_FLAT_NAMES.encode().split())
_WITHOUT_TEXT = frozenset({"script", "style", "title"})
_OF_INTEREST = "a[href],area[href],base,link,meta,title"
_BLOCKS = frozenset(_BLOCK_NAMES.split())  # before and after them the text of a page has a line end
# A number of seconds, a semicolon, comma or space, and where the page leads to, often after "url=".
_REFRESH = re.compile(
    r"""\s*+[\d.]*+\s*+(?:[;,]|(?<=\s))\s*+(?:url\s*+=\s*+)?+(["']?)(.*)""",
    re.IGNORECASE | re.DOTALL,
)

# Directives of X-Robots-Tag that have a value. Another word before a colon is the name of a crawler.
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


@dataclass(slots=True)
class ParsedPage:
    """What a page says. `extract=` of a crawl is a function of it.

    Attributes:
        url: the page.
        tree: the parsed document of selectolax, for ``tree.css("h1")``; None for plain text.
        title: the text of the title, at most `MAX_HEADING` characters.
        description: what ``<meta name=description>`` says, or None.
        canonical: the URL that the page names as its canonical one.
        refresh: the URL that the page sends browsers to with ``<meta http-equiv=refresh>``; `links` has it as well.
        text: the text that the page shows, one line per block, without scripts and styles.
        links: the pages that it links to, each once, in order, without itself.
        follow: those of `links` that the page does not mark as ``nofollow``.
        nofollow: True if the page asks robots not to follow any of its links; then `follow` is empty.
        noindex: True if the page asks robots not to show it in search results.
        charset: the charset, see `greendata.crawl.charset.Decoded`.
        charset_source: how the charset was found.
        truncated: True if a limit was reached, so that there is more than was parsed.
    """

    url: Url
    tree: LexborHTMLParser | None
    charset: str
    charset_source: CharsetSource
    title: str | None = None
    description: str | None = None
    canonical: Url | None = None
    refresh: Url | None = None
    text: str = ""
    links: list[Url] = field(default_factory=list)
    follow: list[Url] = field(default_factory=list)
    nofollow: bool = False
    noindex: bool = False
    truncated: bool = False


def parse_html(
    body: bytes,
    content_type: str | None,
    url: Url,
    *,
    robots_tag: str | None = None,
    max_links: int = MAX_LINKS,
    max_text: int = MAX_TEXT,
) -> ParsedPage:
    """Return what the page *body* says.

    Every sequence of bytes is a page, as in a browser. A body of another type than HTML or XML is plain text.

    Args:
        body: the decompressed body; of more than 2 MiB only the beginning is parsed.
        content_type: the header ``Content-Type``, if there was one.
        url: where the page is, to resolve its links.
        robots_tag: the header ``X-Robots-Tag``, if there was one.
        max_links: how many links are kept.
        max_text: how many characters of text are kept; 0 saves the time for it.

    Call on a worker. A page of 100 kB takes about a millisecond; Python's part of it pauses for the hub.

    Example:
        >>> shop = parse_url("https://example.com/")
        >>> page = parse_html(b"<title>Shop</title><p>All <a href=/a>shoes</a>", "text/html", shop)
        >>> page.title, page.text, page.links
        ('Shop', 'All shoes', [Url('https://example.com/a')])
    """
    start = body[:MAX_HTML]
    decoded = decode_html(start, content_type)
    is_html = (content_type or "").partition(";")[0].strip().lower() in _HTML
    html, is_cut = _cut_before_costly(_in_utf_8(start, decoded)) if is_html else (b"", False)
    page = ParsedPage(url, LexborHTMLParser(html) if is_html else None, decoded.charset, decoded.source)
    page.truncated = is_cut or len(body) > MAX_HTML
    pieces = [decoded.text[: max_text + 1]]
    anchors: list[tuple[str, bool]] = []
    base = url
    if page.tree is not None:
        reader = _Reader(page, max_text)
        reader.read(page.tree)
        pieces, anchors, base = reader.pieces, reader.anchors, reader.base
    _add_text(page, "".join(pieces), max_text)
    _apply_directives(page, robots_tag)
    _add_links(page, anchors, base, max_links)
    return page


class _Reader:
    """Read a document: first what lexbor finds by its selectors, then the text, in one walk over all nodes."""

    def __init__(self, page: ParsedPage, max_text: int) -> None:
        self.page = page
        self.base = page.url
        self.pieces: list[str] = ["\n"]
        self.anchors: list[tuple[str, bool]] = []  # the href of each link, and whether it may be followed
        self._canonical: str | None = None
        self._has_base = False
        self._text_left = max_text
        self._gil = GilReleaser()
        self._handlers: dict[str, Callable[[LexborNode], None]] = {
            "a": self._read_link,
            "area": self._read_link,
            "base": self._read_base,
            "link": self._read_canonical,
            "meta": self._read_meta,
            "title": self._read_title,
        }

    def read(self, tree: LexborHTMLParser) -> None:
        """Read the document, with pauses for the hub."""
        if tree.root is None:
            return
        for number, node in enumerate(tree.css(_OF_INTEREST)):
            if not number % _NODES:
                self._gil.release_if_due()
            self._handlers[node.tag or ""](node)
        if self._canonical is not None:
            self.page.canonical = _link(self._canonical, self.base)
        if self._text_left > 0:
            self._read_texts(tree.root)

    def _read_texts(self, root: LexborNode) -> None:
        pieces, is_hidden = self.pieces, False
        for number, node in enumerate(root.traverse(include_text=True)):
            if not number % _NODES:
                self._gil.release_if_due()
            tag = node.tag
            if tag == "-text":
                if not is_hidden:
                    self._read_text(node)
                is_hidden = False
            elif tag in _BLOCKS:
                if pieces[-1] != "\n":
                    pieces.append("\n")
            elif tag in _WITHOUT_TEXT:
                is_hidden = node.child is not None  # it is a text

    def _read_text(self, node: LexborNode) -> None:
        """Add a text, and before it the line end of a block that has just ended."""
        pieces = self.pieces
        if self._text_left < 0:
            self.page.truncated = True
            return
        if pieces[-1] != "\n":
            before = node.prev
            if before is not None and before.tag in _BLOCKS:
                pieces.append("\n")
        text = node.text_content or ""
        if not text.isspace():
            pieces.append(text.replace("\n", " "))
        elif pieces[-1] != "\n":
            pieces.append(" ")
        self._text_left -= len(text)

    def _read_link(self, node: LexborNode) -> None:
        attributes = node.attrs
        href = attributes.get("href")
        if href is not None:
            rel = attributes.get("rel")
            self.anchors.append((href, rel is None or "nofollow" not in rel.lower().split()))

    def _read_title(self, node: LexborNode) -> None:
        parent = node.parent
        if self.page.title is None and (parent is None or parent.tag != "svg"):
            self.page.title = _heading(node.text())

    def _read_base(self, node: LexborNode) -> None:
        href = node.attrs.get("href")
        if href is not None and not self._has_base:
            self._has_base = True
            self.base = _link(href, self.base) or self.base

    def _read_canonical(self, node: LexborNode) -> None:
        if self._canonical is None and "canonical" in (node.attrs.get("rel") or "").lower().split():
            self._canonical = node.attrs.get("href")

    def _read_meta(self, node: LexborNode) -> None:
        name = (node.attrs.get("name") or "").strip().lower()
        content = node.attrs.get("content") or ""
        if name == "description":
            self.page.description = self.page.description or _heading(content)
        elif name == "robots":
            _apply_directives(self.page, content)
        elif (node.attrs.get("http-equiv") or "").strip().lower() == "refresh":
            self._read_refresh(content)

    def _read_refresh(self, content: str) -> None:
        match = _REFRESH.match(content[: 2 * MAX_LENGTH])
        if self.page.refresh is None and match is not None:
            target = match[2].partition(match[1])[0] if match[1] else match[2]
            self.page.refresh = _link(target, self.base) if target.strip() else None
            self.anchors.append((target, self.page.refresh is not None))


def _add_text(page: ParsedPage, text: str, max_text: int) -> None:
    if page.tree is not None:
        text = "\n".join(filter(None, map(_single_spaced, text.split("\n"))))
    if len(text) > max_text > 0:
        page.truncated = True
    page.text = text[:max_text]


def _single_spaced(line: str) -> str:
    """Return *line* with a space for each run of white space, and none at its ends."""
    if line.isprintable() and "  " not in line:  # which takes half the time of splitting it
        return line.strip()
    return " ".join(line.split())


def _add_links(page: ParsedPage, anchors: Iterable[tuple[str, bool]], base: Url, max_links: int) -> None:
    gil = GilReleaser()
    found: dict[str, Url] = {}
    followed: dict[str, Url] = {}
    left = MAX_LINK_TEXT
    for href, may_follow in dict.fromkeys(anchors):
        link = _link(href, base)
        if link is not None and link.href != page.url.href:
            if link.href not in found:
                left -= len(link.href)
                if len(found) >= max_links or left < 0:
                    page.truncated = True
                    break
            link = found.setdefault(link.href, link)
            if may_follow:
                followed[link.href] = link
        gil.release_if_due()
    page.links = [*found.values()]
    page.follow = [] if page.nofollow else [*followed.values()]


def _link(href: str, base: Url) -> Url | None:
    try:
        return parse_url(href, base)
    except BadUrl:
        return None


def _heading(text: str) -> str | None:
    return " ".join(text[: 4 * MAX_HEADING].split())[:MAX_HEADING] or None


def _apply_directives(page: ParsedPage, directives: str | None) -> None:
    """Apply the robots directives of a page or of its header, except those for one crawler that is named."""
    for directive in (directives or "").lower().split(","):
        name, colon, _ = (part.strip() for part in directive.partition(":"))
        if colon and name not in _WITH_VALUE:
            return
        page.nofollow = page.nofollow or name in {"nofollow", "none"}
        page.noindex = page.noindex or name in {"noindex", "none"}


def _in_utf_8(body: bytes, decoded: Decoded) -> bytes:
    """Return the text of *body*, which was *decoded*, in UTF-8; usually it is that already."""
    if decoded.charset == "utf-8" and "\N{REPLACEMENT CHARACTER}" not in decoded.text:
        return body.removeprefix(BOM_UTF8)
    return decoded.text.encode()


def _cut_before_costly(html: bytes) -> tuple[bytes, bool]:
    """Return *html* up to markup that would take lexbor very long, and whether something was cut off."""
    is_cut = False
    tags = html.count(b"<")
    if tags > MAX_TAGS:
        rest = html.split(b"<", MAX_TAGS)[-1]
        html, is_cut = html[: len(html) - len(rest) - 1], True
    if tags <= _FEW_TAGS and _most_attributes(html) <= _FEW_ATTRIBUTES:
        return html, is_cut
    end = _costly_at(html)
    return html[:end], is_cut or end < len(html)


def _most_attributes(html: bytes) -> int:
    """Return an upper limit of the attributes of an element of *html*, which white space or quotes separate."""
    most = len(html) // 3
    return most if most <= _FEW_ATTRIBUTES else len(html) - len(html.translate(None, b" \t\n\f\r/\"'"))


def _costly_at(html: bytes) -> int:
    """Return the offset of the first element that is nested too deeply or has too many attributes, or the length."""
    gil = GilReleaser()
    opened: Counter[bytes] = Counter()  # elements that are open, by name: an end tag that closes none does not count
    depth, at = 0, 0
    while (tag := _TAG.search(html, at)) is not None:
        at = tag.end()
        name = (tag[2] or b"").lower()
        if tag[1]:
            if opened[name]:
                opened[name] -= 1
                depth -= 1
        elif name and name not in _FLAT:
            opened[name] += 1
            depth += 1
            if name in _RAW and not (opened[b"svg"] or opened[b"math"]):  # where it would be an element like others
                close = _RAW[name].search(html, at)
                at = len(html) if close is None else close.start()
        if depth > _MAX_DEPTH or _has_too_many_attributes(tag[3] or b""):
            return tag.start()
        gil.release_if_due()
    return len(html)


def _has_too_many_attributes(text: bytes) -> bool:
    if len(text) <= _LONG_TAG:
        return False
    counted = islice(_ATTRIBUTE.finditer(text), _MAX_ATTRIBUTES + 1)  # a list of all would hold the GIL for 25 ms
    return sum(1 for _ in counted) > _MAX_ATTRIBUTES
