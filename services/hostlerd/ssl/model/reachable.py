"""Which addresses this host may scan."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Target:
    """What is scanned: `address` is the one that was asked for, `host` without the port."""

    asked: str
    host: str
    port: int


def parse_target(asked: str) -> Target:
    """Read HOST:PORT, an IPv6 address in brackets. Raises ValueError, in words for the caller."""
    host, colon, port = asked.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("must be HOST:PORT")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if bracketed or ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("must be HOST:PORT, an IPv6 address in brackets") from None
        if not bracketed:
            raise ValueError("must have its IPv6 address in brackets")
    elif not host or len(host) > 253 or not host.isascii() or not host.isprintable():
        raise ValueError("must be HOST:PORT")
    return Target(asked, host, int(port))


def read_networks(configured: object) -> tuple[Network, ...]:
    """Read `scan_networks`. Raises ValueError, in words."""
    if not isinstance(configured, list) or not all(isinstance(each, str) for each in configured):
        raise ValueError("must be a list of networks")
    return tuple(ipaddress.ip_network(each) for each in configured)


def forbidden(
    addresses: Sequence[str], own: Collection[Address], networks: Sequence[Network]
) -> str:
    """The first address that this host may not scan; empty if it may scan all of them."""
    for each in addresses:
        address = ipaddress.ip_address(each.partition("%")[0])
        plain = getattr(address, "ipv4_mapped", None) or address
        permitted = (
            plain.is_loopback or plain in own or any(plain in network for network in networks)
        )
        if not permitted:
            return each
    return ""
