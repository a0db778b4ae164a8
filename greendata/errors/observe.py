"""What goes wrong where somebody looks at a process from outside."""

from __future__ import annotations

from pathlib import Path

from greendata.errors.root import GreenDataError

__all__ = ("NoCheckout", "NoSnapshot", "NotASnapshot", "NotImportable", "without_secrets")


class NoSnapshot(GreenDataError, ConnectionError):
    """The address of a snapshot does not answer, or not with one.

    Attributes:
        address: the URL without its secrets, or the path of the socket.
        reason: what happened instead.

    Example:
        >>> print(NoSnapshot("http://localhost:8000/", "connection refused"))
        no snapshot from http://localhost:8000/: connection refused; check that the server runs with the greendata page
    """

    def __init__(self, address: str, reason: str) -> None:
        self.address = without_secrets(address)
        super().__init__(self.address, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"no snapshot from {self.address}: {self.reason}; check that the server runs with the greendata page"


class NotASnapshot(GreenDataError, ValueError):
    """Something answered, with something else than a snapshot of greendata.

    Attributes:
        address: the URL without its secrets, or the path of the socket.
        got: how the answer begins.
    """

    def __init__(self, address: str, got: str) -> None:
        self.address = without_secrets(address)
        super().__init__(self.address, got)
        self.got = got

    def __str__(self) -> str:
        return (
            f"{self.address} did not return a snapshot of greendata, got {self.got!r}; "
            "give the URL of its stats.json, for example http://localhost:8000/greendata/stats.json"
        )


class NotImportable(GreenDataError, ImportError):
    """The module that shall be examined cannot be imported; the cause is its own error.

    Attributes:
        module: its name.
        error: what its import raised.
    """

    def __init__(self, module: str, error: BaseException) -> None:
        super().__init__(module, error)
        self.module = module
        self.error = error

    def __str__(self) -> str:
        return f"importing {self.module} raised {type(self.error).__name__}: {self.error}"


class NoCheckout(GreenDataError, FileNotFoundError):
    """A part that only a checkout of the source has was asked of an installed package.

    Attributes:
        what: the part.
        where: the folder it was looked for in.
    """

    def __init__(self, what: str, where: Path) -> None:
        super().__init__(what, where)
        self.what = what
        self.where = where

    def __str__(self) -> str:
        return (
            f"{self.what} is part of greendata's source and not of the installed package: "
            f"it is not in {self.where}; get the source, and run `make {self.what}` in it"
        )


def without_secrets(address: str) -> str:
    """*address* without user, password and query, if it is a URL.

    Example:
        >>> without_secrets("https://ann:secret@example.com/stats.json?key=1"), without_secrets("/run/a@b.sock")
        ('https://example.com/stats.json', '/run/a@b.sock')
    """
    scheme, separator, rest = address.partition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0] if separator else address
