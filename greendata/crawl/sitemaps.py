"""Sitemaps (https://www.sitemaps.org/protocol.html): lists of pages, as XML, text, or feeds."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from xml.parsers import expat

from greendata.crawl.urls import MAX_LENGTH, Url, parse_url
from greendata.errors import BadUrl, Malformed
from greendata.formats.guards.gunzip import GZIP, MEMBERS, inflate
from greendata.hub.pacing import GilReleaser

__all__ = ("Sitemap", "SitemapKind", "parse_sitemap")

MAX_BYTES = 50 << 20  # after decompression: the limit of the protocol
MAX_ENTRIES = 50_000  # of one sitemap, as the protocol allows
MAX_URLS = 1 << 25  # characters of all of them: relative to a long URL, those of a small file would be 400 MB

STEP = 1 << 14  # bytes that are parsed at once: the parser holds the GIL
_DEPTH = 64  # open elements
_TOKEN = 1 << 20  # bytes of a tag or a comment: expat reads it from its beginning on again with each step

SitemapKind = Literal["urlset", "index", "rss", "atom", "text"]

_KINDS: dict[str, SitemapKind] = {
    "urlset": "urlset",
    "sitemapindex": "index",
    "rss": "rss",
    "RDF": "rss",
    "feed": "atom",
}
_PAGES = {("url", "loc"), ("item", "link")}  # elements whose text is the URL of a page, and their parents
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}

# Every reference but those that XML itself defines becomes text: no entity that a file declares is ever expanded, and
# the "&" that many sitemaps forget to escape does no harm.
_REFERENCE = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)")
_REFERENCE_BYTES = 10  # of the longest reference that is kept


@dataclass(slots=True)
class Sitemap:
    """What a sitemap lists.

    Attributes:
        kind: what it is; None if it is not a sitemap.
        urls: pages, each once, in order.
        sitemaps: further sitemaps, if it is an index.
        truncated: True if a limit was reached or the file is damaged, so that there may be more than was read.
    """

    kind: SitemapKind | None = None
    urls: list[Url] = field(default_factory=list)
    sitemaps: list[Url] = field(default_factory=list)
    truncated: bool = False


def parse_sitemap(body: bytes, url: Url, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> Sitemap:
    """Return what the sitemap *body* lists.

    It is an XML sitemap, an index of sitemaps, an RSS or Atom feed, or text with one URL per line. It may be compressed
    with gzip, whatever its name says. What can be read of a damaged file is returned.

    Args:
        body: the body as received.
        url: where the sitemap is, to resolve its URLs.
        max_entries: how many URLs are read.
        max_bytes: how many decompressed bytes are read.

    Call on a worker: it pauses for the hub. Entities of XML are not expanded, and compressed data is read in steps.

    Example:
        >>> body = b"<urlset><url><loc>https://example.com/a</loc></url></urlset>"
        >>> parse_sitemap(body, parse_url("https://example.com/sitemap.xml")).urls
        [Url('https://example.com/a')]
    """
    entries = _Entries(url, max_entries)
    sitemap = entries.sitemap
    pieces = _Pieces(body, max_bytes)
    try:
        _read(entries, pieces)
    except (_Stop, expat.ExpatError, Malformed):
        sitemap.truncated = True
    sitemap.urls, sitemap.sitemaps = [*entries.urls.values()], [*entries.indexes.values()]
    return sitemap


class _Stop(Exception):
    """A limit was reached: it ends the parser, and is not seen outside."""


class _Pieces:
    """The decompressed bytes of a sitemap, a step at a time."""

    def __init__(self, body: bytes, max_bytes: int) -> None:
        steps = (body[at : at + STEP] for at in range(0, len(body), STEP))
        self._steps = inflate(steps, max_members=MEMBERS) if body.startswith(GZIP) else steps
        self._left = max_bytes

    def __iter__(self) -> Iterator[bytes]:
        """Yield at most `STEP` bytes at a time.

        Raises:
            _Stop: there are more bytes than the limit.
            Malformed: the compressed data is damaged.
        """
        for step in self._steps:
            for at in range(0, len(step), STEP):
                piece = step[at : at + STEP][: self._left]
                self._left -= len(piece)
                yield piece
                if not self._left:
                    raise _Stop


class _Entries:
    """The entries found so far, and the handlers of the XML parser."""

    def __init__(self, url: Url, max_entries: int) -> None:
        self.sitemap = Sitemap()
        self.urls: dict[str, Url] = {}
        self.indexes: dict[str, Url] = {}
        self._base = url
        self._left = max_entries
        self._url_text_left = MAX_URLS
        self._gil = GilReleaser()
        self._open: list[str] = []
        self._text: list[str] | None = None  # of the element that is being read, if it is a URL
        self._length = 0

    def add(self, text: str, found: dict[str, Url]) -> None:
        """Add a URL to *found*, unless it cannot be crawled. Pause for the hub."""
        self._gil.release_if_due()
        if not self._left:
            raise _Stop
        self._left -= 1
        try:
            url = parse_url(text, self._base)
        except BadUrl:
            return
        if url.href not in found:
            self._url_text_left -= len(url.href)
            if self._url_text_left < 0:
                raise _Stop
            found[url.href] = url

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Handle the beginning of an element."""
        self._gil.release_if_due()
        name = tag.rpartition(":")[2]
        parent = self._open[-1] if self._open else ""
        if not self._open:
            self.sitemap.kind = _KINDS.get(name)
        self._open.append(name)
        if len(self._open) > _DEPTH or self.sitemap.kind is None:
            raise _Stop
        if (parent, name) in _PAGES or (parent, name) == ("sitemap", "loc"):
            self._text, self._length = [], 0
        elif (parent, name) == ("entry", "link") and attributes.get("rel", "alternate") == "alternate":
            self.add(attributes.get("href", ""), self.urls)

    def data(self, text: str) -> None:
        """Handle text. In a CDATA section an escaped "&" is one that `_escaped` has escaped, or was meant as one."""
        if self._text is not None and self._length <= MAX_LENGTH:
            self._text.append(text)
            self._length += len(text)

    def end(self, _: str) -> None:
        """Handle the end of an element."""
        self._open.pop()
        if self._text is not None:
            text = "".join(self._text).replace("&amp;", "&").strip()
            self._text = None
            if text:
                self.add(text, self.indexes if self._open[-1:] == ["sitemap"] else self.urls)


def _read(entries: _Entries, pieces: Iterable[bytes]) -> None:
    pieces = iter(pieces)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= 4:  # as long as a byte order mark
            break
    encoding = next((name for mark, name in _UTF16.items() if head.startswith(mark)), None)
    if encoding is not None:
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        pieces = (decoder.decode(piece).encode() for piece in _chained(head[2:], pieces))
    else:
        pieces = _chained(head.removeprefix(codecs.BOM_UTF8), pieces)
    blank = b""
    for piece in pieces:
        blank = piece.lstrip()
        if blank:
            break
    if blank.startswith(b"<"):
        _read_xml(entries, _chained(blank, pieces), None if encoding is None else "utf-8")
    else:
        _read_text(entries, _chained(blank, pieces))


def _read_xml(entries: _Entries, pieces: Iterable[bytes], encoding: str | None) -> None:
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    parser.specified_attributes = True  # those that the file declares once, for all elements, would be made for each
    parser.StartElementHandler = entries.start
    parser.EndElementHandler = entries.end
    parser.CharacterDataHandler = entries.data
    fed = 0
    for piece in _escaped(pieces):
        parser.Parse(piece, False)
        fed += len(piece)
        if fed - parser.CurrentByteIndex > _TOKEN:
            raise _Stop
    parser.Parse(b"", True)


def _escaped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield *pieces* with every "&" escaped that does not begin a reference of XML itself."""
    kept = b""
    for piece in pieces:
        text = kept + piece
        at = text.rfind(b"&", -_REFERENCE_BYTES)
        kept = text[at:] if at >= 0 else b""
        yield _REFERENCE.sub(b"&amp;", text[:at] if at >= 0 else text)
    yield _REFERENCE.sub(b"&amp;", kept)


def _read_text(entries: _Entries, pieces: Iterable[bytes]) -> None:
    kept = b""
    for piece in pieces:
        *lines, kept = (kept + piece).split(b"\n")
        for line in lines:
            _add_line(entries, line)
        kept = kept[: MAX_LENGTH + 1]  # of a line that is too long for a URL
    _add_line(entries, kept)


def _add_line(entries: _Entries, line: bytes) -> None:
    text = line.decode("utf-8", "replace").strip()
    if "://" in text[:8]:
        entries.sitemap.kind = "text"
        entries.add(text, entries.urls)


def _chained(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
