"""Who has which address: finds what collides between namespaces, and between them and the host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from hostlerd.netns.model.namespace import (
    Address,
    Gateway,
    Interface,
    Macvlan,
    Namespace,
    Network,
)
from hostlerd.netns.model.parse import Faults
from hostlerd.netns.model.seen import Host


@dataclass(frozen=True, slots=True)
class Claim:
    """An address that somebody has or wants.

    `segment` names the link layer it lives on: addresses of one segment share their network.
    `routed` tells whether the host takes part in it, so that its network must be the only one of
    its kind. `field` is the path in the request; empty for what is there already.
    """

    address: Address
    owner: str
    segment: str
    routed: bool
    field: str = ""


def claims_of(namespace: Namespace, field: str = "") -> Iterator[Claim]:
    """Answer the claims of a namespace; with `field` those of a request."""
    for at, interface in enumerate(namespace.interfaces):
        segment, routed = _segment(namespace, interface)
        path = f"{field}.interfaces[{at}]" if field else ""
        for number, address in enumerate(interface.host_addresses):
            where = f"{path}.veth.host_addresses[{number}]" if field else ""
            yield Claim(address, namespace.name, segment, routed, where)
        for number, address in enumerate(interface.addresses):
            where = f"{path}.addresses[{number}]" if field else ""
            yield Claim(address, namespace.name, segment, routed, where)


def _segment(namespace: Namespace, interface: Interface) -> tuple[str, bool]:
    link = interface.link
    if isinstance(link, Macvlan):
        return f"on {link.parent}", False
    if link.bridge:
        return f"on {link.bridge}", False
    return f"veth {namespace.name}/{interface.name}", True


def claims_of_host(host: Host, own_ifnames: Collection[str]) -> Iterator[Claim]:
    """Answer what the host has, its ends of namespaces left out: their records claim those."""
    for link in host.links.values():
        if link.name not in own_ifnames and link.kind != "loopback":
            for address in link.addresses:
                yield Claim(address, f"the host's {link.name}", f"on {link.name}", True)


def check_claims(claims: Iterable[Claim], faults: Faults) -> None:
    """Note every claim of the request whose address or network somebody else has."""
    everything = list(claims)
    faulty = _same_address(everything, faults)
    _same_network([c for c in everything if c not in faulty], faults)


def _collide(one: Claim, other: Claim) -> bool:
    """Tell whether two claims of one address exclude each other.

    Links that meet nowhere may use the same addresses.
    """
    return one.segment == other.segment or one.routed or other.routed


def _same_address(claims: list[Claim], faults: Faults) -> set[Claim]:
    by_ip: dict[Gateway, list[Claim]] = defaultdict(list)
    for claim in claims:
        by_ip[claim.address.ip].append(claim)
    faulty: set[Claim] = set()
    for same in by_ip.values():
        for claim in same:
            other = next((c for c in same if c.owner != claim.owner and _collide(c, claim)), None)
            if claim.field and other:
                faulty.add(claim)
                faults.add(claim.field, f"{claim.address.ip} belongs to {_name(other)} already")
    return faulty


def _name(claim: Claim) -> str:
    return f"{claim.owner} ({claim.field})" if claim.field else claim.owner


def _same_network(claims: list[Claim], faults: Faults) -> None:
    """Note overlaps of networks on different segments.

    Networks are nested or disjoint, so in order of their first address a stack holds those that
    the next one lies in.
    """
    groups: dict[tuple[Network, str], list[Claim]] = defaultdict(list)
    for claim in claims:
        groups[claim.address.network, claim.segment].append(claim)
    ordered = sorted(
        groups,
        key=lambda g: (g[0].version, int(g[0].network_address), g[0].prefixlen, g[1]),
    )
    stack: list[tuple[Network, str]] = []
    told: set[str] = set()
    for group in ordered:
        network, segment = group
        while stack and not _covers(stack[-1][0], network):
            stack.pop()
        for outer in stack:
            if outer[1] != segment:
                _tell(groups[outer], groups[group], told, faults)
        stack.append(group)


def _covers(outer: Network, inner: Network) -> bool:
    return (
        outer.version == inner.version
        and outer.network_address <= inner.network_address  # type: ignore[operator]
        and outer.broadcast_address >= inner.broadcast_address  # type: ignore[operator]
    )


def _tell(outer: list[Claim], inner: list[Claim], told: set[str], faults: Faults) -> None:
    if not (outer[0].routed or inner[0].routed):
        return
    for mine, theirs in ((inner, outer), (outer, inner)):
        for claim in mine:
            if claim.field and claim.field not in told and claim.owner != theirs[0].owner:
                told.add(claim.field)
                faults.add(
                    claim.field,
                    f"{claim.address.network} overlaps with {theirs[0].address.network} "
                    f"of {_name(theirs[0])}",
                )
