"""Matches and rules in nft's words. Source: nft(8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import collapse_addresses

from hostlerd.firewall.model.ruleset import Address, Network, PortRange, Protocol

# nft takes 128 bytes; a comment of ours that does not fit is cut, its label never.
_COMMENT_BYTES = 120
# Elements of one anonymous set: more do not fit into one netlink message of a scratch namespace.
_SET_ELEMENTS = 500

_PROTOCOLS = {
    Protocol.TCP: "meta l4proto tcp",
    Protocol.UDP: "meta l4proto udp",
    # nft knows "icmpv6" by itself; "ipv6-icmp" only on hosts that have /etc/protocols.
    Protocol.ICMP: "meta l4proto { icmp, icmpv6 }",
}
# By number: nft knows some of these names only on hosts that have /etc/protocols.
_NUMBERS = {
    Protocol.SCTP: 132,
    Protocol.ESP: 50,
    Protocol.AH: 51,
    Protocol.GRE: 47,
    Protocol.IGMP: 2,
    Protocol.VRRP: 112,
}


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """Where a forward leads."""

    address: Address
    protocol: str
    port: int


def words(*parts: str) -> str:
    """Join what is not empty."""
    return " ".join(p for p in parts if p)


def counted(match: str, verdict: str, label: str, comment: str = "") -> str:
    """Answer a rule with a counter that is found again by its label, RULESET/ID."""
    text = words(label, comment).encode()[:_COMMENT_BYTES].decode(errors="ignore")
    return words(match, "counter", verdict, f'comment "{text}"')


def family(version: int) -> str:
    """Answer nft's word for the header of an IP version."""
    return "ip" if version == 4 else "ip6"


def nfproto(version: int) -> str:
    """Match all packets of an IP version."""
    return f"meta nfproto ipv{version}"


def bridged(match: str) -> str:
    """Answer the same match for the bridge family, which has another word for the IP version."""
    return re.sub(r"meta nfproto ipv(4|6)", lambda f: f"meta protocol {family(int(f[1]))}", match)


def networks(field: str, listed: Sequence[Network]) -> str:
    """Match saddr or daddr against networks of one family; empty for none."""
    if not listed:
        return ""
    # Overlapping elements are an error to nft.
    least = list(collapse_addresses(listed)) if len(listed) > 1 else list(listed)  # type: ignore[type-var]
    version = least[0].version
    if least[0].prefixlen == 0:
        return nfproto(version)
    return f"{family(version)} {field} {one_of([str(n) for n in least])}"


def addresses(field: str, listed: Sequence[Address]) -> str:
    """Match saddr or daddr against addresses of one family; empty for none."""
    if not listed:
        return ""
    return f"{family(listed[0].version)} {field} {one_of([str(a) for a in listed])}"


def set_name(name: str, version: int) -> str:
    """Answer the name in the table of that family's part of an address set."""
    return f"{name}_{version}"


def protocol(
    kind: Protocol | None,
    ports: Sequence[PortRange] = (),
    source_ports: Sequence[PortRange] = (),
) -> str:
    """Match a protocol and its destination and source ports."""
    if kind is None:
        return ""
    if not ports and not source_ports:
        return _PROTOCOLS.get(kind) or f"meta l4proto {_NUMBERS[kind]}"
    return words(
        *(
            f"{kind.value} {field} {one_of([_span(*ports) for ports in _merged(listed)])}"
            for field, listed in (("dport", ports), ("sport", source_ports))
            if listed
        )
    )


def _span(first: int, last: int) -> str:
    return f"{first}-{last}" if first != last else str(first)


def one_of(elements: Sequence[str]) -> str:
    """Answer the only element, or an anonymous set of them."""
    return elements[0] if len(elements) == 1 else "{ " + ", ".join(elements) + " }"


def links(in_ifname: str, out_ifname: str) -> str:
    """Match links by name; they need not exist yet."""
    return words(
        f'iifname "{in_ifname}"' if in_ifname else "",
        f'oifname "{out_ifname}"' if out_ifname else "",
    )


def forwarded(targets: Iterable[Target]) -> Iterator[str]:
    """Match packets of connections that a forward leads to its target, piece by piece."""
    for version in (4, 6):
        listed = sorted({t for t in targets if t.address.version == version})
        for start in range(0, len(listed), _SET_ELEMENTS):
            piece = listed[start : start + _SET_ELEMENTS]
            elements = ", ".join(f"{t.address} . {t.protocol} . {t.port}" for t in piece)
            key = f"{family(version)} daddr . meta l4proto . th dport"
            yield f"ct status dnat {key} {{ {elements} }}"


def _merged(ports: Sequence[PortRange]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted((p.first, p.last) for p in ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged
