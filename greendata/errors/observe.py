"""Errors of the command line: the doctor, ``top``, and commands that need a checkout."""

from __future__ import annotations

from pathlib import Path

from greendata.errors.root import GreenDataError

__all__ = ("NoCheckout", "NoSnapshot", "NotASnapshot", "NotImportable", "without_secrets")


class NoSnapshot(GreenDataError, ConnectionError):
    """The address of a snapshot does not respond, or responds with an error.

    Attributes:
        address: the URL without its secrets, or the path of the socket.
        reason: what happened instead.
        is_denied: True if the server denies it to this client.

    Example:
        >>> print(NoSnapshot("http://localhost:8000/", "connection refused"))
        no snapshot from http://localhost:8000/: connection refused; check that the server runs with the greendata page
    """

    def __init__(self, address: str, reason: str, *, is_denied: bool = False) -> None:
        self.address = without_secrets(address)
        super().__init__(self.address, reason)
        self.reason = reason
        self.is_denied = is_denied

    def __str__(self) -> str:
        hint = (
            "pass what dashboard_auth expects: top --header NAME:VALUE, or a user and a password in the URL"
            if self.is_denied
            else "check that the server runs with the greendata page"
        )
        return f"no snapshot from {self.address}: {self.reason}; {hint}"


class NotASnapshot(GreenDataError, ValueError):
    """The response is not a snapshot of greendata.

    Attributes:
        address: the URL without its secrets, or the path of the socket.
        got: the beginning of the response.
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
    """The module to examine cannot be imported; ``__cause__`` is the error of its import.

    Attributes:
        module: its name.
        error: what its import raised.
    """

    def __init__(self, module: str, error: BaseException) -> None:
        super().__init__(module, error)
        self.module = module
        self.error = error

    def __str__(self) -> str:
        text = f"importing {self.module} raised {type(self.error).__name__}: {self.error}"
        if self.module.endswith(".py") or "/" in self.module:
            return f"{text}; give the name of a module, as in `import service`, not of a file: service, or service:app"
        return text


class NoCheckout(GreenDataError, FileNotFoundError):
    """The command needs a part of the source that an installed package does not have.

    Attributes:
        what: the part.
        where: the folder in which it is missing.
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
    """Return *address* without user, password and query, if it is a URL.

    Example:
        >>> without_secrets("https://ann:secret@example.com/stats.json?key=1"), without_secrets("/run/a@b.sock")
        ('https://example.com/stats.json', '/run/a@b.sock')
    """
    scheme, separator, rest = address.partition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0] if separator else address
