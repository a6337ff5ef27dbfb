"""Rules as documents."""

from __future__ import annotations

from collections import Counter

from hostlerd.firewall.model.fields import Fields
from hostlerd.firewall.model.known import ICMP_TYPES, ICMPV6_TYPES
from hostlerd.firewall.model.ruleset import (
    WITH_PORTS,
    Action,
    ConnectionState,
    Hook,
    Protocol,
    Rule,
    RuleLog,
    rule_id,
)

RULES_MOST = 10_000
# What one rule may list, so that it fits into one netlink message of a scratch namespace.
NETWORKS_MOST = 500
PORT_RANGES_MOST = 100
_NAMES_MOST = 16
# The year 9999 in seconds.
_TIME_MOST = 253_402_300_799
_RULE = frozenset(Rule.__dataclass_fields__)
_ADDRESSES = ("sources", "destinations")


def rules(d: Fields) -> tuple[Rule, ...]:
    """Read the rules of a ruleset."""
    found = tuple(_rule(item) for _, item in d.messages("rules", RULES_MOST))
    ids = Counter(rule_id(index, rule) for index, rule in enumerate(found))
    for index, rule in enumerate(found):
        name = rule_id(index, rule)
        if ids[name] > 1:
            d.fault(f"rules[{index}].id", f"{name} is not unique")
    return found


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
        source_ports=d.port_ranges("source_ports", PORT_RANGES_MOST),
        source_sets=d.words("source_sets", _NAMES_MOST),
        destination_sets=d.words("destination_sets", _NAMES_MOST),
        services=d.words("services", _NAMES_MOST),
        in_zone=d.word("in_zone"),
        out_zone=d.word("out_zone"),
        icmp_types=d.one_of("icmp_types", 32, ICMP_TYPES | ICMPV6_TYPES, "type of ICMP"),
        connection_states=d.choices("connection_states", ConnectionState, 5),
        limit=d.rate("limit"),
        log=_log(d),
        expire_time=d.number("expire_time", 0, _TIME_MOST),
    )
    _judge_protocol(d, rule)
    _judge_addresses(d, rule)
    _judge_links(d, rule, hook)
    _judge_rest(d, rule, hook)
    return rule


def _log(d: Fields) -> RuleLog | None:
    told = d.message("log")
    if told is None:
        return None
    told.refuse_unknown(frozenset({"rate"}))
    return RuleLog(told.rate("rate"))


def _judge_protocol(d: Fields, rule: Rule) -> None:
    for key in ("destination_ports", "source_ports"):
        if getattr(rule, key) and rule.protocol not in WITH_PORTS:
            d.fault(key, "needs the protocol tcp, udp or sctp")
    if rule.icmp_types and rule.protocol is not Protocol.ICMP:
        d.fault("icmp_types", "needs the protocol icmp")
    if rule.services and (rule.protocol or rule.destination_ports):
        d.fault("services", "stand instead of protocol and destination_ports")


def _judge_addresses(d: Fields, rule: Rule) -> None:
    versions = {getattr(rule, key)[0].version for key in _ADDRESSES if getattr(rule, key)}
    if len(versions) > 1:
        d.fault("destinations", "mixes IPv4 and IPv6 with sources")
    if rule.icmp_types and len(versions) == 1:
        known = ICMP_TYPES if versions == {4} else ICMPV6_TYPES
        for index, kind in enumerate(rule.icmp_types):
            if kind not in known:
                d.fault(f"icmp_types[{index}]", f"{kind} is no type of that family")


def _judge_links(d: Fields, rule: Rule, hook: Hook | None) -> None:
    for side, other in (("in", "output"), ("out", "input")):
        for key in (f"{side}_ifname", f"{side}_zone"):
            if getattr(rule, key) and hook is Hook(other):
                whose = "to the host itself" if other == "input" else "of the host itself"
                d.fault(key, f"has no meaning for packets {whose}")
        if getattr(rule, f"{side}_ifname") and getattr(rule, f"{side}_zone"):
            d.fault(f"{side}_zone", f"cannot stand beside {side}_ifname")


def _judge_rest(d: Fields, rule: Rule, hook: Hook | None) -> None:
    if rule.limit and rule.log and rule.log.rate:
        d.fault("log.rate", "cannot stand beside limit")
    if rule.limit and rule.action is Action.COUNT and not rule.log:
        d.fault("limit", "has no meaning where a rule only counts")
    # The kernel refuses nothing to a sender where a bridge forwards. Source: nft_reject_bridge.c.
    if hook is Hook.BRIDGE_FORWARD and rule.action is Action.REJECT:
        d.fault("action", "must not be reject for bridge_forward")
