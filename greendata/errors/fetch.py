"""Errors of reading from a URL. No text contains user names, passwords or query strings."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from greendata.errors.plural import counted
from greendata.errors.root import GreenDataError

__all__ = ("AnswerBroken", "AnswerTooLarge", "FetchFailed", "FetchTimeout", "UrlRefused", "WrongContentType")


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


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:  # not a URL, so any part of it may be a secret
        return "the URL"
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme and host else "the URL"
