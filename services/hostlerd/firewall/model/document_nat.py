"""What rewrites addresses, as documents."""

from __future__ import annotations

from hostlerd.firewall.model.document_rule import NETWORKS_MOST
from hostlerd.firewall.model.fields import PORT_MAX, Fields
from hostlerd.firewall.model.ruleset import (
    HOSTLER_PORTS,
    Address,
    Forward,
    Masquerade,
    Protocol,
    Redirect,
    SourceNat,
)

FORWARDS_MOST = 10_000
MASQUERADES_MOST = 1000
SOURCE_NATS_MOST = 1000
REDIRECTS_MOST = 1000
# How many forwards of one port may share it by their sources or addresses; they are compared in
# pairs.
SAME_PORT_MOST = 100
_FORWARD, _MASQUERADE, _SOURCE_NAT, _REDIRECT = (
    frozenset(kind.__dataclass_fields__) for kind in (Forward, Masquerade, SourceNat, Redirect)
)


def masquerades(d: Fields) -> tuple[Masquerade, ...]:
    """Read the networks that leave under the address of the uplink."""
    found: dict[Masquerade, int] = {}
    for index, item in d.messages("masquerades", MASQUERADES_MOST):
        masquerade = _masquerade(item)
        if masquerade is None:
            continue
        first = found.setdefault(masquerade, index)
        if first != index:
            d.fault(f"masquerades[{index}]", f"is the same as masquerades[{first}]")
    return tuple(found)


def forwards(d: Fields) -> tuple[Forward, ...]:
    """Read the ports that lead to another address."""
    found: list[Forward] = []
    seen: dict[tuple[int, Protocol, int], list[tuple[int, Forward]]] = {}
    for index, item in d.messages("forwards", FORWARDS_MOST):
        forward = _forward(item)
        if forward is None:
            continue
        found.append(forward)
        others = seen.setdefault(port_key(forward), [])
        words = f"{forward.protocol.value} {forward.port}"
        taken = next((i for i, other in others if collide(forward, other)), None)
        if taken is not None:
            d.fault(f"forwards[{index}].port", f"{words} is already forwarded by forwards[{taken}]")
        if len(others) == SAME_PORT_MOST:
            d.fault(f"forwards[{index}].port", f"{words} has over {SAME_PORT_MOST} forwards")
        if len(others) < SAME_PORT_MOST:
            others.append((index, forward))
    return tuple(found)


def _masquerade(d: Fields) -> Masquerade | None:
    d.refuse_unknown(_MASQUERADE)
    source, uplink = d.network("source"), d.ifname("uplink")
    if source is None:
        return None
    if source.is_multicast or source.is_loopback:
        d.fault("source", "must not be a multicast or loopback network")
    if source.prefixlen == 0 and not uplink:
        d.fault("uplink", f"must be given, since {source} leaves by every link")
    return Masquerade(source, uplink)


def _forward(d: Fields) -> Forward | None:
    """Read a forward; None if anything is wrong with it."""
    faults_before = d.fault_count
    d.refuse_unknown(_FORWARD)
    protocol = d.choice("protocol", Protocol)
    if protocol not in (Protocol.TCP, Protocol.UDP):
        d.fault("protocol", "must be tcp or udp")
    port = d.number("port", 1, PORT_MAX)
    if protocol is Protocol.TCP and HOSTLER_PORTS[0] <= port <= HOSTLER_PORTS[1]:
        d.fault("port", f"{port} is a port of Hostler itself")
    target = d.address("target_address")
    addresses = d.addresses("addresses", NETWORKS_MOST)
    sources = d.networks("sources", NETWORKS_MOST)
    target_port = d.number("target_port", 0, PORT_MAX)
    in_ifname = d.ifname("in_ifname")
    for index, address in enumerate(addresses):
        if not _is_host_like(address):
            d.fault(f"addresses[{index}]", f"{address} cannot be forwarded from")
    if target is not None and not _is_host_like(target):
        d.fault("target_address", f"{target} cannot be forwarded to")
    for key, listed in (("addresses", addresses), ("sources", sources)):
        if target is not None and listed and listed[0].version != target.version:
            d.fault(key, "mixes IPv4 and IPv6 with target_address")
    if target is None or protocol is None or d.fault_count > faults_before:
        return None
    return Forward(protocol, port, target, target_port, addresses, sources, in_ifname)


def source_nats(d: Fields) -> tuple[SourceNat, ...]:
    """Read the sources that are rewritten to a given address."""
    found: dict[SourceNat, int] = {}
    for index, item in d.messages("source_nats", SOURCE_NATS_MOST):
        nat = _source_nat(item)
        if nat is not None and found.setdefault(nat, index) != index:
            d.fault(f"source_nats[{index}]", f"is the same as source_nats[{found[nat]}]")
    return tuple(found)


def _source_nat(d: Fields) -> SourceNat | None:
    d.refuse_unknown(_SOURCE_NAT)
    source, to, uplink = d.network("source"), d.address("to_address"), d.ifname("uplink")
    destinations = d.networks("destinations", NETWORKS_MOST)
    if source is None or to is None:
        return None
    if not _is_host_like(to):
        d.fault("to_address", f"{to} cannot be a source")
    if source.is_multicast or source.is_loopback:
        d.fault("source", "must not be a multicast or loopback network")
    if to.version != source.version:
        d.fault("to_address", "mixes IPv4 and IPv6 with source")
    if destinations and destinations[0].version != source.version:
        d.fault("destinations", "mixes IPv4 and IPv6 with source")
    if source.prefixlen == 0 and not uplink and not destinations:
        d.fault("uplink", f"must be given, since {source} leaves by every link")
    return SourceNat(source, to, uplink, destinations)


def redirects(d: Fields) -> tuple[Redirect, ...]:
    """Read the ports that lead to another port of the host."""
    found: list[Redirect] = []
    seen: dict[tuple[object, ...], int] = {}
    for index, item in d.messages("redirects", REDIRECTS_MOST):
        redirect = _redirect(item)
        if redirect is None:
            continue
        found.append(redirect)
        key = (redirect.protocol, redirect.port, redirect.in_ifname, redirect.sources)
        first = seen.setdefault(key, index)
        if first != index:
            d.fault(f"redirects[{index}]", f"is about the same packets as redirects[{first}]")
    return tuple(found)


def _redirect(d: Fields) -> Redirect | None:
    d.refuse_unknown(_REDIRECT)
    protocol = d.choice("protocol", Protocol)
    if protocol not in (Protocol.TCP, Protocol.UDP):
        d.fault("protocol", "must be tcp or udp")
        return None
    port, to_port = d.number("port", 1, PORT_MAX), d.number("to_port", 1, PORT_MAX)
    if protocol is Protocol.TCP and HOSTLER_PORTS[0] <= port <= HOSTLER_PORTS[1]:
        d.fault("port", f"{port} is a port of Hostler itself")
    if port == to_port:
        d.fault("to_port", "is the port that was asked for")
    sources = d.networks("sources", NETWORKS_MOST)
    return Redirect(protocol, port, to_port, d.ifname("in_ifname"), sources)


def _is_host_like(address: Address) -> bool:
    """Whether packets for it are routed to some host: no group, no loopback, no link's own."""
    mapped = address.version == 6 and address.ipv4_mapped is not None
    special = address.is_multicast or address.is_loopback or address.is_unspecified
    broadcast = address.version == 4 and int(address) == 0xFFFFFFFF
    return not (mapped or special or broadcast or address.is_link_local)


def port_key(forward: Forward) -> tuple[int, Protocol, int]:
    """Answer what two forwards must share to collide: family, protocol and port."""
    return forward.target_address.version, forward.protocol, forward.port


def collide(one: Forward, other: Forward) -> bool:
    """Whether some packet would be both forwards' own. Both have the same `port_key`."""
    if one.in_ifname and other.in_ifname and one.in_ifname != other.in_ifname:
        return False
    shared = not one.addresses or not other.addresses or set(one.addresses) & set(other.addresses)
    if not shared:
        return False
    if not one.sources or not other.sources:
        return True
    # mypy cannot know that networks of one port_key are of one family.
    return any(a.overlaps(b) for a in one.sources for b in other.sources)
