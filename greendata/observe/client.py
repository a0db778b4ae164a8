"""Fetch snapshots from another process, over HTTP on TCP or on a Unix socket."""

from __future__ import annotations

import json
import socket
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from greendata.errors import BadArgument, NoSnapshot, NotASnapshot
from greendata.errors.observe import without_secrets

__all__ = ("PATH", "fetch", "header_of")

PATH = "/greendata/stats.json"  # the default path of the snapshot on a server of greendata
TIMEOUT = 10.0  # seconds, for a server that does not respond
LIMIT = 4 * 2**20  # bytes that are read; a snapshot of 100 labels and 5 minutes has 60 KB
DENIED = (401, 403, 407)  # statuses of a server, or of a proxy, that does not know the client
SHAPE = {
    "at": float,
    "pid": int,
    "pool": dict,
    "queries": dict,
    "jobs": list,
    "queue": list,
    "by_label": list,
    "lag": dict,
    "history": list,
}

Snapshot = dict[str, Any]


def fetch(address: str, headers: Mapping[str, str] | None = None) -> Snapshot:
    """Return the current snapshot of a process, as made by `greendata.observe.snapshot_json`.

    Args:
        address: an http or https URL, or the path of a Unix socket. A URL without a path means `PATH`. A user and a
            password in the URL are sent as HTTP Basic authentication.
        headers: additional request headers.

    Raises:
        BadArgument: *address* is neither of them, or the headers cannot be sent.
        NoSnapshot: there is no response, or its status is an error.
        NotASnapshot: the response is not a snapshot.

    Example:
        >>> fetch("http://127.0.0.1:1/")
        Traceback (most recent call last):
        greendata.errors.observe.NoSnapshot: no snapshot from http://127.0.0.1:1/: Connection refused; ...
    """
    connection, path, own_headers = _connection(address)
    try:
        connection.request("GET", path, headers={"Accept": "application/json", **own_headers, **(headers or {})})
        response = connection.getresponse()
        body = response.read(LIMIT)
    except (OSError, HTTPException) as error:
        raise NoSnapshot(address, getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
    except ValueError as error:  # raised by http.client for a line break, or for text that is not Latin-1
        raise BadArgument("headers", sorted(headers or {}), "headers that HTTP can send") from error
    finally:
        connection.close()
    if response.status in DENIED:
        raise NoSnapshot(address, f"not allowed: it responds with {response.status} {response.reason}", is_denied=True)
    if response.status != 200:
        raise NoSnapshot(address, f"it responds with {response.status} {response.reason}")
    return _snapshot(address, body)


def header_of(text: str) -> tuple[str, str]:
    """Return the name and the value of a header that is given as ``NAME:VALUE`` on a command line.

    Raises:
        BadArgument: *text* is not in that form.

    Example:
        >>> header_of("X-Key: secret")
        ('X-Key', 'secret')
    """
    name, colon, value = text.partition(":")
    if not name.strip() or not colon:
        raise BadArgument("header", text, "NAME:VALUE")
    return name.strip(), value.strip()


def _snapshot(address: str, body: bytes) -> Snapshot:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise NotASnapshot(address, body[:40].decode("utf-8", "replace")) from error
    if not isinstance(found, dict) or not all(isinstance(found.get(name), kind) for name, kind in SHAPE.items()):
        raise NotASnapshot(address, body[:40].decode("utf-8", "replace"))
    return found


def _connection(address: str) -> tuple[HTTPConnection, str, dict[str, str]]:
    if address.startswith(("http://", "https://")):
        try:
            url = urlsplit(address)
            port = url.port
        except ValueError as error:
            raise BadArgument("address", without_secrets(address), "a URL") from error
        if not url.hostname:
            raise BadArgument("address", without_secrets(address), "a URL with a host")
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        path = url.path if url.path not in ("", "/") else PATH
        return kind(url.hostname, port, timeout=TIMEOUT), path + (f"?{url.query}" if url.query else ""), _basic(url)
    if Path(address).is_socket():
        return _UnixConnection(address), PATH, {}
    raise BadArgument(
        "address", without_secrets(address), "an http or https URL, or the path of an existing Unix socket"
    )


def _basic(url: Any) -> dict[str, str]:
    if url.username is None:
        return {}
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}


class _UnixConnection(HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
