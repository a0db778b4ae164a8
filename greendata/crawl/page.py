"""`Page`: the record of one URL, and the columns that a dataset of pages has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, SerializeAsAny, create_model

from greendata.crawl.charset import CharsetSource
from greendata.errors import BadChoice
from greendata.hub.pacing import release_gil
from greendata.schema.codecs import Column, EncodeError, series_of
from greendata.schema.fields import columns_of

__all__ = ("PAGE_ERRORS", "Page", "PageColumns", "RobotsVerdict")

SLICE = 1 << 20  # characters of pages that become columns at once: Polars holds the GIL, for two milliseconds

RobotsVerdict = Literal["allowed", "disallowed", "unreachable"]

# The names that `Page.error` has, and what each means.
PAGE_ERRORS = {
    "BadUrl": "the text is not a URL that can be fetched",
    "RobotsDisallowed": "robots.txt of the host forbids it",
    "RobotsUnreachable": "robots.txt could not be read, so nothing may be fetched from the host",
    "HostGivenUp": "the host did not respond several times in a row",
    "AddressRefused": "the host has an address that is not public",
    "NameNotFound": "the host has no address",
    "LookupFailed": "the address of the host could not be looked up",
    "ConnectionFailed": "there was no connection, or it broke before there was a response",
    "TlsFailed": "the encrypted connection could not be made",
    "CertificateInvalid": "the certificate of the host is not valid",
    "Timeout": "the response was not complete in time",
    "BadResponse": "the response is not valid HTTP",
    "BadRedirect": "it redirects to what is not a URL that can be fetched",
    "TooManyRedirects": "it redirects too often",
    "OutOfScope": "it redirects to a page that is not in the scope of the crawl",
    "WrongContentType": "the body is of a type that is not wanted, and was not read",
    "UnknownEncoding": "the body is compressed in a way that is not known",
    "BodyTooLarge": "the body is larger than allowed; its beginning was used",
    "ParseFailed": "the body could not be parsed",
    "ExtractFailed": "extract= or follow= raised, or returned something that cannot be stored",
}


def _unicode(text: str) -> str:
    """Return *text* as it can be stored: lone surrogates, which come from undecodable bytes, are escaped."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


Text = Annotated[str, AfterValidator(_unicode)]


class _Fields(BaseModel):
    """The fields that every dataset of pages can have."""

    model_config = ConfigDict(frozen=True)

    url: Text
    final_url: str | None = None
    redirects: list[str] = []
    depth: int = 0
    status: int | None = None
    fetched_at: AwareDatetime | None = None
    seconds: float | None = None
    robots: Annotated[RobotsVerdict | None, pl.String] = None
    content_type: Text | None = None
    charset: str | None = None
    charset_source: Annotated[CharsetSource | None, pl.String] = None
    title: str | None = None
    description: str | None = None
    canonical: str | None = None
    text: str | None = None
    links: list[str] = []
    nofollow: bool = False
    noindex: bool = False
    bytes: int = 0
    sha256: str | None = None
    truncated: bool = False
    etag: Text | None = None
    last_modified: Text | None = None
    error: str | None = None
    message: Text | None = None


class Page(_Fields):
    """One URL of a crawl and its outcome. Every URL ends as exactly one page.

    A status is not an error: a page that does not exist is a row with the status 404 and no error. `error` says why
    there is no response, or why its body is not used.

    In a dataset texts are String, whole numbers Int64, truth values Boolean, and lists List(String); `seconds` is
    Float64, `fetched_at` Datetime("us", "UTC"), and `item` a Struct of the columns of its model.

    Attributes:
        url: the URL as it was asked for, in canonical form.
        final_url: the URL of the last response, after redirects.
        redirects: the URLs in between, in order.
        depth: links between a seed and this URL; 0 for a seed.
        status: the HTTP status; None without a response. 304 is a page that has not changed since the last crawl.
        fetched_at: when the last request was sent, in UTC; None without a response.
        seconds: how long the last request took.
        robots: what robots.txt said: "allowed", "disallowed", or "unreachable", which disallows as well.
        content_type: the header of the response.
        charset: the standard's name of the charset.
        charset_source: how the charset was found.
        title: the text of the title.
        description: the page's own description, as in search results.
        canonical: the URL that the page names as its canonical one.
        text: the text of the page, one line per block.
        links: the pages that it links to.
        nofollow: True if the page asks robots not to follow its links.
        noindex: True if the page asks robots not to index it.
        bytes: bytes of the decompressed body.
        sha256: the digest of the decompressed body, in hexadecimal.
        truncated: True if the body was cut short, or a limit left something out.
        etag: the header of the response, for the next crawl.
        last_modified: the response's ``Last-Modified`` header.
        error: what went wrong, one of `PAGE_ERRORS`; None if nothing did.
        message: what went wrong, in words.
        item: what `extract=` returned.

    Example:
        >>> page = Page(url="https://example.com/", status=404)
        >>> page.status, page.links
        (404, [])
    """

    item: SerializeAsAny[BaseModel] | None = None


class PageColumns:
    """The columns of a dataset of pages.

    Args:
        columns: the names of the fields of `Page` that are kept, in this order; None for all.
        item: the model that `extract=` returns; its fields are those of the struct column ``item``.

    Raises:
        BadChoice: a name is not a field.

    Attributes:
        schema: the names and dtypes of the columns.

    Example:
        >>> dict(PageColumns(["url", "status"]).schema)
        {'url': String, 'status': Int64}
    """

    def __init__(self, columns: Iterable[str] | None = None, item: type[BaseModel] | None = None) -> None:
        made: dict[str, Column] = {column.name: column for column in columns_of(_Fields)}
        if item is not None:
            annotation: Any = item | None
            made |= {column.name: column for column in columns_of(create_model("Row", item=(annotation, None)))}
        names = [*made] if columns is None else [*columns]
        for name in names:
            if name not in made:
                raise BadChoice("columns", name, made)
        self._item = item
        self._columns = [made[name] for name in names]
        self.schema = pl.Schema({column.name: column.codec.dtype for column in self._columns})

    def item_error(self, item: BaseModel | None) -> str | None:
        """Return why *item*, which `extract=` has returned, cannot be stored, or None if it can.

        Example:
            >>> PageColumns().item_error(Page(url="https://example.com/"))
            'extract returned a Page, which its annotation does not name; write -> Page'
        """
        if item is None:
            return None
        if self._item is None:
            name = type(item).__name__
            return f"extract returned a {name}, which its annotation does not name; write -> {name}"
        if not isinstance(item, self._item):
            return f"extract returned a {type(item).__name__}, expected {self._item.__name__}"
        for column in self._columns:
            if column.name == "item":
                try:
                    series_of([column.codec.encode(item)], column.codec.dtype)
                except (EncodeError, TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
                    return f"the item does not fit its columns: {error}"
        return None

    def frame(self, pages: Sequence[Page]) -> pl.DataFrame:
        """Return *pages* as a frame with `schema`. Call on a worker.

        Example:
            >>> PageColumns(["url", "status"]).frame([Page(url="https://example.com/", status=404)]).rows()
            [('https://example.com/', 404)]
        """
        frames: list[pl.DataFrame] = []
        for some in _slices(pages):
            if frames:
                release_gil()
            columns = {column.name: _series(column, some) for column in self._columns}
            frames.append(pl.DataFrame(columns, schema=self.schema))
        return pl.concat(frames, rechunk=True) if len(frames) > 1 else frames[0]


def _slices(pages: Sequence[Page]) -> Iterator[Sequence[Page]]:
    """Yield *pages* in slices of about `SLICE` characters; one that is empty if there are none."""
    begin = size = 0
    for number, page in enumerate(pages, 1):
        size += len(page.text or "") + sum(map(len, page.links))
        if size >= SLICE:
            yield pages[begin:number]
            begin, size = number, 0
    if begin < len(pages) or not pages:
        yield pages[begin:]


def _series(column: Column, pages: Sequence[Page]) -> pl.Series:
    if column.name == "item":
        return series_of([column.codec.encode(page.item) for page in pages], column.codec.dtype)
    return pl.Series([getattr(page, column.field) for page in pages], dtype=column.codec.dtype)
