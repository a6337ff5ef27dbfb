"""Pools: networks for namespaces, carved out of a configured range.

IPv4 networks are /30: the host's end has the first address, the namespace the second. IPv6 networks
are /64, or /126 where the pool itself is a /64 or smaller: the host's end has ::1, the namespace
::2. The lowest network that collides with nothing is taken, so equal hosts take equal networks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Any

from hostlerd.netns.errors import PoolExhausted
from hostlerd.netns.model.namespace import Address, Network

BUILT_IN = {"default": {"ipv4": "10.213.0.0/16", "ipv6": "fd48:6f73:746c::/48"}}
"""The pools of a host whose configuration names none."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A range to carve networks out of, for each family that it serves."""

    name: str
    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None

    def range(self, version: int) -> Network | None:
        """Answer the range of a family, 4 or 6; None if the pool has none."""
        return self.ipv4 if version == 4 else self.ipv6


def read_pools(config: Mapping[str, Any]) -> dict[str, Pool]:
    """Read the table `pools` of the domain's configuration; without one: `BUILT_IN`.

    Raises ValueError naming the key.
    """
    table = config.get("pools", BUILT_IN)
    if not isinstance(table, Mapping):
        raise ValueError("netns.pools must be a table")
    pools = {}
    for name, entry in table.items():
        key = f"netns.pools.{name}"
        if not isinstance(entry, Mapping) or not entry or not entry.keys() <= {"ipv4", "ipv6"}:
            raise ValueError(f"{key} must be a table of ipv4 and ipv6")
        ranges: dict[str, Any] = {
            family: _range(text, family, f"{key}.{family}") for family, text in entry.items()
        }
        pools[name] = Pool(name, ranges.get("ipv4"), ranges.get("ipv6"))
    return pools


def _range(text: object, family: str, key: str) -> Network:
    try:
        network = ip_network(str(text))
    except ValueError as e:
        raise ValueError(f"{key}: {e}") from e
    if f"ipv{network.version}" != family:
        raise ValueError(f"{key}: {network} is of the other family")
    if network.prefixlen > (30 if network.version == 4 else 126):
        raise ValueError(f"{key}: {network} has no room for a host and a namespace")
    return network


def network_prefixlen(pool: Network) -> int:
    """Answer the prefix length of the networks that are carved out of `pool`."""
    if pool.version == 4:
        return 30
    return 64 if pool.prefixlen < 64 else 126


class Taken:
    """Networks that are in use, and may not be given again.

    Kept as disjoint intervals in order, those that touch being one: both questions cost a
    bisection, and a pool that was given out from its start on is passed over in one step.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ends: dict[int, list[int]] = {4: [], 6: []}
        for network in networks:
            self.add(network)

    def add(self, network: Network) -> None:
        """Note that a network is in use."""
        starts, ends = self._starts[network.version], self._ends[network.version]
        first, last = int(network.network_address), int(network.broadcast_address)
        low, high = bisect_left(ends, first - 1), bisect_right(starts, last + 1)
        if low < high:
            first, last = min(first, starts[low]), max(last, ends[high - 1])
        starts[low:high], ends[low:high] = [first], [last]

    def end_of_overlap(self, network: Network) -> int | None:
        """Answer the last address in use of what overlaps with `network`; None if nothing does."""
        starts, ends = self._starts[network.version], self._ends[network.version]
        at = bisect_left(ends, int(network.network_address))
        if at < len(ends) and starts[at] <= int(network.broadcast_address):
            return ends[at]
        return None


def carve(pool: Pool, version: int, taken: Taken) -> tuple[Address, Address]:
    """Take the lowest free network; answer the host's address and the namespace's.

    The network is added to `taken`. Raises PoolExhausted.
    """
    within = pool.range(version)
    if within is None:
        raise PoolExhausted(f"pool {pool.name} has no IPv{version} range", pool=pool.name)
    prefixlen = network_prefixlen(within)
    size = 1 << (within.max_prefixlen - prefixlen)
    at, last = int(within.network_address), int(within.broadcast_address)
    while at + size - 1 <= last:
        network: Network = (
            IPv4Network((at, prefixlen)) if version == 4 else IPv6Network((at, prefixlen))
        )
        end = taken.end_of_overlap(network)
        if end is None:
            taken.add(network)
            return _member(network, 1), _member(network, 2)
        at = max(at + size, (end // size + 1) * size)
    raise PoolExhausted(
        f"pool {pool.name} ({within}) has no free /{prefixlen} left",
        pool=pool.name,
        range=within,
    )


def _member(network: Network, number: int) -> Address:
    return ip_interface(f"{network.network_address + number}/{network.prefixlen}")
