"""`AddressPolicy`: which addresses a session may connect to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from greendata.errors import BadArgument

__all__ = ("AddressPolicy",)

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Networks that are not public and that Python, at least in some of the supported versions, considers global.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "fec0::/10",  # formerly private
            "64:ff9b:1::/48",  # NAT64 of a network itself (RFC 8215), which may lead into it
            "192.0.0.0/24",  # protocols of the IETF
            "168.63.129.16/32",  # Azure's: there each machine gets its configuration from it
            "3fff::/20",  # documentation
            "5f00::/16",  # segment routing
        ),
    )
)


class AddressPolicy:
    """The addresses that may be connected to: public ones, and those in *allowed*.

    Args:
        allowed: True for every address, or a list of addresses and networks (``10.1.0.0/16``).

    Raises:
        BadArgument: *allowed* is neither.

    Example:
        >>> policy = AddressPolicy(["10.1.0.0/16"])
        >>> [policy.allow(ip) for ip in ("8.8.8.8", "10.1.2.3", "127.0.0.1", "::ffff:127.0.0.1")]
        [True, True, False, False]
    """

    def __init__(self, allowed: bool | Iterable[str]) -> None:  # noqa: FBT001 - the value of allow_private=
        self._all = allowed is True
        try:
            self._networks = () if isinstance(allowed, bool) else tuple(map(ipaddress.ip_network, allowed))
        except (TypeError, ValueError) as error:
            raise BadArgument("allow_private", allowed, "True, False, or addresses and networks") from error

    def allow(self, address: str) -> bool:
        """Return True if *address*, of a connected peer, is allowed."""
        if self._all:
            return True
        ip = _embedded_ipv4(ipaddress.ip_address(address.partition("%")[0]))
        if any(ip in network for network in self._networks):
            return True
        return ip.is_global and not (ip.is_multicast or ip.is_reserved or any(ip in network for network in _NOT_PUBLIC))


def _embedded_ipv4(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 address embeds, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
