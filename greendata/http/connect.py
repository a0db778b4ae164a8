"""Connect to a host: resolve its name, check its addresses, and only then connect, to an address that was checked.

Checking a name and then connecting to it is not enough: the next lookup may return another address (DNS rebinding). And
connecting before checking tells a stranger which ports of a private network are open. Here a refused address is never
connected to, so the outcome is the same whether a port of it is open, closed or filtered.

If only some addresses of a name are allowed, only those are tried. That is as safe as refusing the name, because an
address that is not allowed is not connected to in either case, and names with a public and a private address are common
in networks whose servers have both.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from greendata.errors import UrlRefused
from greendata.http.address_policy import AddressPolicy
from greendata.http.dns import Address, resolver

__all__ = ("connect",)

ATTEMPTS = 4  # addresses that are tried; a stranger's name may have thousands


def connect(
    host: str,
    port: int,
    policy: AddressPolicy,
    *,
    url: str,
    timeout: float,
    options: Iterable[tuple[int, int, int | bytes]] = (),
    make_socket: Callable[[int, int], Any] = socket.socket,
) -> Any:
    """Return a socket that is connected to an address of *host* that *policy* allows.

    Args:
        host: a name, or an address in any form that the system knows, without brackets.
        port: the port.
        policy: checks the addresses.
        url: the URL for errors.
        timeout: seconds for the lookup and all attempts together. If one address does not respond, there is time left
            for the next.
        options: options of the socket, set before it connects.
        make_socket: makes a socket of a family and a kind.

    Raises:
        UrlRefused: no address is allowed. Nothing was connected to.
        LookupFailed: the host has no address, or its lookup failed.
        TimeoutError: no address responded in time.
        OSError: no address could be connected to; the error is that of the last attempt.
    """
    ends = monotonic() + timeout
    addresses = resolver.resolve(host, timeout)
    allowed = [address for address in addresses if policy.allow(address.ip)][:ATTEMPTS]
    if not allowed:
        raise UrlRefused(url, f"its address {addresses[0].ip} is not public")
    last: OSError = TimeoutError("the time was over before a connection was attempted")
    try:
        while allowed and (left := ends - monotonic()) > 0:
            address, share = allowed.pop(0), left / (len(allowed) + 1)
            try:
                return _attempt(address, port, share, options, make_socket)
            except OSError as error:
                last = error
        resolver.forget(host)  # the next lookup may find other addresses
        raise last
    finally:
        del last  # its traceback refers to this frame


def _attempt(
    address: Address,
    port: int,
    timeout: float,
    options: Iterable[tuple[int, int, int | bytes]],
    make_socket: Callable[[int, int], Any],
) -> Any:
    sock = make_socket(address.family, socket.SOCK_STREAM)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.settimeout(timeout)
        sock.connect(address.at_port(port))
    except BaseException:
        sock.close()
        raise
    return sock
