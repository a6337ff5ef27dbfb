"""Elements of address sets: addresses, networks and ranges, as spans of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    ip_network,
    summarize_address_range,
)

_LONGEST_TEXT = 2 * 45 + 1
_EXAMPLE = "must be an address, a network or a range, such as 192.0.2.1-192.0.2.9"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Addresses of one family from first to last, both included, as numbers."""

    version: int
    first: int
    last: int

    @property
    def nft(self) -> str:
        """The span in nft's words: an address, a network, or a range."""
        address = IPv4Address if self.version == 4 else IPv6Address
        first = address(self.first)
        if self.first == self.last:
            return str(first)
        size = self.last - self.first + 1
        if size & (size - 1) == 0 and self.first % size == 0:
            bits = 32 if self.version == 4 else 128
            return f"{first}/{bits - size.bit_length() + 1}"
        return f"{first}-{address(self.last)}"

    def networks(self) -> Iterator[str]:
        """The span as networks, for what knows no ranges."""
        address = IPv4Address if self.version == 4 else IPv6Address
        yield from map(str, summarize_address_range(address(self.first), address(self.last)))


def read_span(text: object) -> Span:
    """Read an element. Raises ValueError that says what is wrong with it."""
    # "%" is a scope id, which the ipaddress module takes without looking at what is in it.
    if not isinstance(text, str) or not text or len(text) > _LONGEST_TEXT or "%" in text:
        raise ValueError(_EXAMPLE)
    try:
        if "/" in text:
            return _network(text)
        if "-" in text:
            return _range(text)
        one = ip_address(text)
    except ValueError as e:
        raise ValueError(str(e) if "must" in str(e) or "host bits" in str(e) else _EXAMPLE) from e
    return Span(one.version, int(one), int(one))


def merged(spans: Iterable[Span]) -> list[Span]:
    """Answer the same addresses in as few spans as can be, in order."""
    found: list[Span] = []
    for span in sorted(spans):
        before = found[-1] if found else None
        if before and before.version == span.version and span.first <= before.last + 1:
            if span.last > before.last:
                found[-1] = Span(span.version, before.first, span.last)
        else:
            found.append(span)
    return found


def _network(text: str) -> Span:
    network = ip_network(text, strict=False)
    address, _, _ = text.partition("/")
    if ip_address(address) != network.network_address:
        raise ValueError(f"has host bits set; the network is {network}")
    return Span(network.version, int(network.network_address), int(network.broadcast_address))


def _range(text: str) -> Span:
    low, _, high = text.partition("-")
    first, last = ip_address(low), ip_address(high)
    if first.version != last.version:
        raise ValueError("must be a range of one family")
    if int(last) < int(first):
        raise ValueError("must be a range whose first address is not after the last")
    return Span(first.version, int(first), int(last))
