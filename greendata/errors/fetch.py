"""Errors of reading from a URL, and of crawls. No text contains user names, passwords or query strings."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike, fspath
from urllib.parse import urlsplit

from greendata.errors.notes import shortened
from greendata.errors.plural import counted
from greendata.errors.root import SHOWN, GreenDataError

__all__ = (
    "AnswerBroken",
    "AnswerTooLarge",
    "BadUrl",
    "CrawlFolderRefused",
    "CrawlMismatch",
    "CrawlNotSaved",
    "CrawlRunning",
    "FetchFailed",
    "FetchTimeout",
    "PagesEndless",
    "UrlRefused",
    "WrongContentType",
)


class FetchFailed(GreenDataError, RuntimeError):
    """There was no usable response: no connection, a broken one, or a status other than 200.

    Attributes:
        url: the URL after redirects, without its secrets.
        reason: why.
        status: the status of the response, or None without one.

    Example:
        >>> print(FetchFailed("https://ann:secret@example.com/a?token=1", "the status is 404", 404))
        https://example.com/a could not be fetched: the status is 404
    """

    def __init__(self, url: str, reason: str, status: int | None = None) -> None:
        self.url = _without_secrets(url)
        super().__init__(self.url, reason, status)
        self.reason = reason
        self.status = status

    def __str__(self) -> str:
        return f"{self.url} could not be fetched: {self.reason}"


class FetchTimeout(GreenDataError, TimeoutError):
    """The response was not complete in time.

    Attributes:
        url: the URL after redirects, without its secrets.
        seconds: the limit for the whole transfer.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self.url = _without_secrets(url)
        super().__init__(self.url, seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.url} was not fetched within {counted(self.seconds, 'second')}"


class UrlRefused(GreenDataError, ValueError):
    """A URL, or one that it redirects to, is not allowed: its scheme, its address, or too many redirects.

    Attributes:
        url: the URL, without its secrets.
        reason: why.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = _without_secrets(url)
        super().__init__(self.url, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.url} is refused: {self.reason}"


class BadUrl(GreenDataError, ValueError):
    """A text is not a URL that a crawler can fetch, see `greendata.crawl.urls.parse_url`.

    Attributes:
        url: the text, without its secrets.
        reason: why.

    Example:
        >>> print(BadUrl("shop/index.html?token=1", "it has no scheme"))
        shop/index.html cannot be used: it has no scheme
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = _without_secrets(url, _relative(url))
        super().__init__(self.url, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.url} cannot be used: {self.reason}"


class PagesEndless(GreenDataError, ValueError):
    """The pages of an API do not end: there are more than allowed, or one comes for the second time.

    Attributes:
        url: the URL of the first page, without its secrets.
        reason: why.

    Example:
        >>> print(PagesEndless("https://example.com/orders?token=1", "page 3 is the same as the one before it"))
        the pages of https://example.com/orders do not end: page 3 is the same as the one before it
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = _without_secrets(url)
        super().__init__(self.url, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the pages of {self.url} do not end: {self.reason}"


class AnswerTooLarge(GreenDataError, ValueError):
    """A response is larger than allowed, as received or after decompression.

    Attributes:
        url: the URL, without its secrets.
        max_bytes: the limit.
    """

    def __init__(self, url: str, max_bytes: int) -> None:
        self.url = _without_secrets(url)
        super().__init__(self.url, max_bytes)
        self.max_bytes = max_bytes

    def __str__(self) -> str:
        return f"{self.url} is larger than {counted(self.max_bytes, 'byte')}; raise max_bytes if that is expected"


class AnswerBroken(GreenDataError, ValueError):
    """A response was incomplete, or cannot be decompressed.

    Attributes:
        url: the URL, without its secrets.
        reason: what is wrong.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = _without_secrets(url)
        super().__init__(self.url, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the response from {self.url} is broken: {self.reason}; try again"


class WrongContentType(GreenDataError, ValueError):
    """A response has another media type than expected, for example an HTML page.

    Attributes:
        url: the URL, without its secrets.
        got: the media type of the response.
        expected: the accepted media types.
    """

    def __init__(self, url: str, got: str, expected: Iterable[str]) -> None:
        self.url = _without_secrets(url)
        self.expected = tuple(sorted(expected))
        super().__init__(self.url, got, self.expected)
        self.got = got

    def __str__(self) -> str:
        return f"{self.url} is of type {self.got}, expected one of {', '.join(self.expected)}"


class CrawlFolderRefused(GreenDataError, ValueError):
    """The folder for a crawl's dataset, or a file in it, cannot be used.

    Attributes:
        path: the folder or the file.
        reason: why, and what to do.

    Example:
        >>> print(CrawlFolderRefused("pages", "it is a file; give the path of a folder"))
        no crawl into pages: it is a file; give the path of a folder
    """

    def __init__(self, path: str | PathLike[str], reason: str) -> None:
        self.path = fspath(path)
        super().__init__(self.path, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"no crawl into {self.path}: {self.reason}"


class CrawlMismatch(GreenDataError, ValueError):
    """A crawl cannot be resumed with these arguments, because it was begun with others.

    Attributes:
        path: the folder of the dataset.
        name: the argument.
        begun_with: its value in the crawl that was begun, as text.
        got: its value now, as text.

    Example:
        >>> print(CrawlMismatch("pages", "depth", "3", "5"))
        the crawl into pages was begun with depth '3', got '5'; resume it with the same, or crawl into another folder
    """

    def __init__(self, path: str | PathLike[str], name: str, begun_with: str, got: str) -> None:
        self.path = fspath(path)
        super().__init__(self.path, name, begun_with, got)
        self.name = name
        self.begun_with = begun_with
        self.got = got

    def __str__(self) -> str:
        return (
            f"the crawl into {self.path} was begun with {self.name} {shortened(self.begun_with)}, "
            f"got {shortened(self.got)}; resume it with the same, or crawl into another folder"
        )


class CrawlNotSaved(GreenDataError, OSError):
    """A crawl's pages or its frontier could not be stored; ``__cause__`` says why.

    What was stored before is whole. The pages in question are fetched again when the crawl is resumed.

    Attributes:
        path: the file or folder.
        reason: the text of the system or of SQLite.

    Example:
        >>> print(CrawlNotSaved("pages.crawl/part", "No space left on device"))
        pages.crawl/part could not be written: No space left on device; mend that, and resume the crawl
    """

    def __init__(self, path: str | PathLike[str], reason: str) -> None:
        self.path = fspath(path)
        super().__init__(self.path, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} could not be written: {self.reason}; mend that, and resume the crawl"


class CrawlRunning(GreenDataError, RuntimeError):
    """Another process, or another part of this one, is crawling into the folder.

    Attributes:
        path: the folder of the dataset.
        pid: the number of that process, or None if it is unknown.

    Example:
        >>> print(CrawlRunning("pages", 4711))
        process 4711 is crawling into pages; wait for its end or stop it, or crawl into another folder
    """

    def __init__(self, path: str | PathLike[str], pid: int | None) -> None:
        self.path = fspath(path)
        super().__init__(self.path, pid)
        self.pid = pid

    def __str__(self) -> str:
        who = "another process" if self.pid is None else f"process {self.pid}"
        return f"{who} is crawling into {self.path}; wait for its end or stop it, or crawl into another folder"


def _without_secrets(url: str, otherwise: str = "the URL") -> str:
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:  # not a URL, so any part of it may be a secret
        return "the URL"
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme and host else otherwise


def _relative(text: str) -> str:
    """Return a text that is not an absolute URL up to its query, if that can be read and has no secrets."""
    path = text.partition("#")[0].partition("?")[0]
    is_plain = path.isascii() and path.isprintable() and not {*path} & {*":@\\ "}
    return path if is_plain and 0 < len(path) <= SHOWN else "the URL"
