"""Rulesets as documents: what callers send and what is saved, read with all faults at once.

A document has the fields of the Ruleset message by their names there; enumerations are words in
lower case ("drop", "tcp", "input"), absent and empty are the same.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields
from enum import Enum
from typing import Any

from hostlerd.firewall.model.fields import PORT_MAX, Fields
from hostlerd.firewall.model.ruleset import (
    HOSTLER_PORTS,
    Action,
    Address,
    Forward,
    Hook,
    Masquerade,
    Network,
    PortRange,
    Protocol,
    Rule,
    Ruleset,
    rule_id,
)
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import canonical

PRIORITY_MAX = 1000
RULES_MOST = 10_000
FORWARDS_MOST = 10_000
MASQUERADES_MOST = 1000
ISOLATED_MOST = 1000
# What one rule may list, so that it fits into one netlink message of a scratch namespace.
NETWORKS_MOST = 500
PORT_RANGES_MOST = 100
# How many forwards of one port may share it by their sources or addresses; they are compared in
# pairs.
SAME_PORT_MOST = 100


def parse(document: object, path: str = "ruleset") -> Ruleset:
    """Read a document. Raises InvalidRequest with every fault in it, by paths below `path`."""
    faults: list[Violation] = []
    ruleset = _ruleset(Fields(document, path, faults))
    if faults:
        raise InvalidRequest.of(faults)
    return ruleset


def dump(ruleset: Ruleset) -> str:
    """Write a ruleset as the JSON text that `parse` reads back as the same ruleset.

    Equal rulesets make equal texts: etags are made of them.
    """
    return json.dumps(to_document(ruleset), sort_keys=True, separators=(",", ":"))


def to_document(value: Any) -> dict[str, Any]:
    """Answer the document of a ruleset or of a part of it, without its empty fields."""
    filled = ((f.name, getattr(value, f.name)) for f in fields(value))
    return {name: _plain(v) for name, v in filled if v or isinstance(v, Enum)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (Rule, Masquerade, Forward, PortRange)):
        return to_document(value)
    return canonical(value)


def _names(kind: type[Any]) -> frozenset[str]:
    return frozenset(f.name for f in fields(kind))


_RULESET, _RULE, _FORWARD = _names(Ruleset), _names(Rule), _names(Forward)
_MASQUERADE = _names(Masquerade)


def _ruleset(d: Fields) -> Ruleset:
    d.refuse_unknown(_RULESET)
    return Ruleset(
        name=d.name("name"),
        priority=d.number("priority", 0, PRIORITY_MAX),
        input_policy=d.choice("input_policy", Action),
        forward_policy=d.choice("forward_policy", Action),
        rules=_rules(d),
        masquerades=_masquerades(d),
        forwards=_forwards(d),
        isolated_networks=_isolated(d),
        persistent=d.flag("persistent"),
    )


def _isolated(d: Fields) -> tuple[Network, ...]:
    """Isolated networks may be of both families, unlike what one rule lists."""
    found: dict[Network, None] = {}
    for index, item in enumerate(d.items("isolated_networks", ISOLATED_MOST)):
        one = Fields({"at": item}, d.path(f"isolated_networks[{index}]"), [])
        network = one.network("at")
        key = f"isolated_networks[{index}]"
        if network is None:
            d.fault(key, one.first_fault())
        elif network.prefixlen == 0:
            d.fault(key, "is everything; nothing can be isolated from it")
        elif network in found:
            d.fault(key, f"{network} is listed twice")
        else:
            found[network] = None
    return tuple(found)


def _rules(d: Fields) -> tuple[Rule, ...]:
    rules = tuple(_rule(item) for _, item in d.messages("rules", RULES_MOST))
    ids = Counter(rule_id(index, rule) for index, rule in enumerate(rules))
    for index, rule in enumerate(rules):
        name = rule_id(index, rule)
        if ids[name] > 1:
            d.fault(f"rules[{index}].id", f"{name} is not unique")
    return rules


def _masquerades(d: Fields) -> tuple[Masquerade, ...]:
    found: dict[Masquerade, int] = {}
    for index, item in d.messages("masquerades", MASQUERADES_MOST):
        masquerade = _masquerade(item)
        if masquerade is None:
            continue
        first = found.setdefault(masquerade, index)
        if first != index:
            d.fault(f"masquerades[{index}]", f"is the same as masquerades[{first}]")
    return tuple(found)


def _forwards(d: Fields) -> tuple[Forward, ...]:
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


def _rule(d: Fields) -> Rule:
    d.refuse_unknown(_RULE)
    hook, action = d.needed_choice("hook", Hook), d.needed_choice("action", Action)
    rule = Rule(
        hook=hook or Hook.INPUT,
        action=action or Action.DROP,
        id=d.id("id"),
        protocol=d.choice("protocol", Protocol),
        sources=d.networks("sources", NETWORKS_MOST),
        destinations=d.networks("destinations", NETWORKS_MOST),
        destination_ports=d.port_ranges("destination_ports", PORT_RANGES_MOST),
        in_ifname=d.ifname("in_ifname"),
        out_ifname=d.ifname("out_ifname"),
        comment=d.comment("comment"),
    )
    if rule.destination_ports and rule.protocol not in (Protocol.TCP, Protocol.UDP):
        d.fault("destination_ports", "needs the protocol tcp or udp")
    if rule.out_ifname and hook is Hook.INPUT:
        d.fault("out_ifname", "has no meaning for packets to the host itself")
    if rule.sources and rule.destinations:
        if rule.sources[0].version != rule.destinations[0].version:
            d.fault("destinations", "mixes IPv4 and IPv6 with sources")
    return rule


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
    return Forward(protocol, port, target, target_port, addresses, sources)


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
    shared = not one.addresses or not other.addresses or set(one.addresses) & set(other.addresses)
    if not shared:
        return False
    if not one.sources or not other.sources:
        return True
    # mypy cannot know that networks of one port_key are of one family.
    return any(a.overlaps(b) for a in one.sources for b in other.sources)
