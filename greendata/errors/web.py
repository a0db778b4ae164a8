"""Errors of requests: unknown formats, invalid bodies, clients that left, a page without access control."""

from __future__ import annotations

from collections.abc import Iterable
from errno import ECONNRESET
from typing import TYPE_CHECKING

from greendata.errors.plural import counted
from greendata.errors.root import GreenDataError

if TYPE_CHECKING:
    import polars as pl

__all__ = (
    "BodyInvalid",
    "BodyUnsupported",
    "ClientGone",
    "DashboardOpen",
    "FormatUnknown",
    "NotAcceptable",
)


class ClientGone(GreenDataError, ConnectionResetError):
    """The client left while its response was being computed. Servers only close the connection.

    Example:
        >>> ClientGone("export").errno == ECONNRESET
        True
    """

    def __init__(self, label: str) -> None:
        super().__init__(ECONNRESET, label)
        self.label = label

    def __str__(self) -> str:
        return f"the client disconnected before {self.label} had finished"


class FormatUnknown(GreenDataError, ValueError):
    """``?format=`` names an unknown format: respond with 400.

    Attributes:
        name: the unknown name.
        available: the known formats.

    Example:
        >>> print(FormatUnknown("xml", ["csv", "json"]))
        format: got 'xml', expected one of csv, json
    """

    def __init__(self, name: str, available: Iterable[str]) -> None:
        self.name = name
        self.available = tuple(available)
        super().__init__(name, self.available)

    def __str__(self) -> str:
        return f"format: got {self.name!r}, expected one of {', '.join(self.available)}"


class NotAcceptable(GreenDataError, ValueError):
    """The client accepts none of the media types that are available for these rows: respond with 406.

    Attributes:
        accept: the ``Accept`` header of the client.
        available: the available media types.
        reason: why the requested format cannot hold the rows; "" if the format is unknown.

    Example:
        >>> print(NotAcceptable("image/png", ["text/csv"]))
        Accept: got 'image/png', expected one of text/csv
        >>> print(NotAcceptable("text/csv", ["application/json"], "csv cannot store column a"))
        csv cannot store column a; expected one of application/json
    """

    def __init__(self, accept: str, available: Iterable[str], reason: str = "") -> None:
        self.accept = accept
        self.available = tuple(available)
        self.reason = reason
        super().__init__(accept, self.available, reason)

    def __str__(self) -> str:
        if self.reason:
            return f"{self.reason}; expected one of {', '.join(self.available)}"
        return f"Accept: got {self.accept!r}, expected one of {', '.join(self.available)}"


class BodyUnsupported(GreenDataError, ValueError):
    """A request's body has an unsupported media type or content coding: respond with 415.

    Attributes:
        header: the header that names it.
        value: the value of the header.
        available: the supported values.

    Example:
        >>> print(BodyUnsupported("Content-Type", "text/html", ["text/csv"]))
        Content-Type: got 'text/html', expected one of text/csv
    """

    def __init__(self, header: str, value: str, available: Iterable[str]) -> None:
        self.header = header
        self.value = value
        self.available = tuple(available)
        super().__init__(header, value, self.available)

    def __str__(self) -> str:
        return f"{self.header}: got {self.value!r}, expected one of {', '.join(self.available)}"


class BodyInvalid(GreenDataError, ValueError):
    """A request's body is invalid for its model: respond with 422. ``__cause__`` is the `FrameInvalid`.

    Attributes:
        failures: one row for each failure, as in `FrameInvalid`.
    """

    def __init__(self, failures: pl.DataFrame) -> None:
        super().__init__(failures.height)
        self.failures = failures

    def __str__(self) -> str:
        return f"the body breaks {counted(self.failures.height, 'rule')} of its model"


class DashboardOpen(GreenDataError, RuntimeError):
    """The page at ``/greendata/`` is on, and nothing restricts access to it.

    Attributes:
        app: the name of the app.

    Example:
        >>> print(DashboardOpen("shop"))
        GREENDATA_DASHBOARD is on in 'shop', which is not in debug mode and has no dashboard_auth; pass \
GreenData(dashboard_auth=...) a function that returns True for users who may watch and cancel
    """

    def __init__(self, app: str) -> None:
        super().__init__(app)
        self.app = app

    def __str__(self) -> str:
        return (
            f"GREENDATA_DASHBOARD is on in {self.app!r}, which is not in debug mode and has no dashboard_auth; "
            "pass GreenData(dashboard_auth=...) a function that returns True for users who may watch and cancel"
        )
