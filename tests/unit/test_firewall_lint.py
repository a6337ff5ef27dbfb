"""What is worth a look in rulesets, and what would shut out the caller."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from firewall_generated import NAMES_GIVEN, patient, rulesets
from hypothesis import given

from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import EVERYWHERE
from hostlerd.firewall.plan import lint, reach

CALLER = ip_address("192.0.2.7")
MANAGEMENT = (ip_network("192.0.2.0/24"),)
ELSEWHERE = (ip_network("198.51.100.0/24"),)
DROP = {"hook": "input", "action": "drop"}
ACCEPT = {"hook": "input", "action": "accept"}
HOSTLER = {"protocol": "tcp", "destination_ports": [{"first": 7443}]}


SHADOWED = ("RULE_SHADOWED", "ruleset.rules[1]")
FROM_PORT = {"protocol": "tcp", "source_ports": [{"first": 7}]}


def port(first: int, last: int | None = None) -> dict[str, Any]:
    return {"protocol": "tcp", "destination_ports": [{"first": first, "last": last or first}]}


def ruleset(*rules: dict[str, Any], **fields: Any) -> Ruleset:
    return parse({"name": "web", "rules": list(rules), **fields})


def codes(*rules: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    one = ruleset(*rules, **fields)
    return [(f.code, f.field) for f in lint.findings({"ruleset": one}, [one])]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{**ACCEPT, **port(80)}] * 2, [("RULE_DUPLICATE", "ruleset.rules[1]")]),
        (
            [{**ACCEPT, **port(80)}, {**DROP, **port(80)}],
            [("RULE_SHADOWED", "ruleset.rules[1]")],
        ),
        (
            [{**DROP, "sources": ["10.0.0.0/8"]}, {**ACCEPT, "sources": ["10.1.0.0/16"]}],
            [("RULE_SHADOWED", "ruleset.rules[1]")],
        ),
        ([DROP, {**ACCEPT, **port(80)}], [("RULE_SHADOWED", "ruleset.rules[1]")]),
        ([{**DROP, "sources": ["10.1.0.0/16"]}, {**ACCEPT, "sources": ["10.0.0.0/8"]}], []),
        ([{**DROP, "limit": {"packets": 5}}, {**ACCEPT, **port(80)}], []),
        ([{**DROP, "expire_time": 4_000_000_000}, {**ACCEPT, **port(80)}], []),
        ([{"hook": "input", "action": "count"}, {**ACCEPT, **port(80)}], []),
        ([DROP, {"hook": "forward", "action": "accept"}], []),
        # An earlier rule about something else covers nothing.
        ([{**DROP, **port(80)}, {**ACCEPT, **port(81)}], []),
        ([{**DROP, **port(80, 90)}, {**ACCEPT, **port(85, 95)}], []),
        ([{**DROP, **port(80, 90)}, {**ACCEPT, **port(85)}], [SHADOWED]),
        ([{**DROP, **port(80, 90)}, {**ACCEPT, "protocol": "tcp"}], []),
        ([{**DROP, **FROM_PORT}, {**ACCEPT, "protocol": "tcp"}], []),
        ([{**DROP, **FROM_PORT}, {**ACCEPT, **FROM_PORT, **port(80)}], [SHADOWED]),
        ([{**DROP, "protocol": "udp"}, {**ACCEPT, **port(80)}], []),
        ([{**DROP, "protocol": "tcp"}, {**ACCEPT, **port(80)}], [SHADOWED]),
        ([{**DROP, "in_ifname": "a"}, {**ACCEPT, **port(80), "in_ifname": "b"}], []),
        ([{**DROP, "in_ifname": "a"}, {**ACCEPT, **port(80)}], []),
        ([{**DROP, "in_ifname": "a"}, {**ACCEPT, **port(80), "in_ifname": "a"}], [SHADOWED]),
        ([{**DROP, "connection_states": ["new"]}, {**ACCEPT, **port(80)}], []),
        ([{**DROP, "sources": ["10.0.0.0/8"]}, {**ACCEPT, "destinations": ["10.1.0.0/16"]}], []),
        ([{**ACCEPT, **port(22)}], [("MANAGEMENT_PORT_OPEN", "ruleset.rules[0]")]),
        ([{**ACCEPT, "services": ["ssh"]}], [("MANAGEMENT_PORT_OPEN", "ruleset.rules[0]")]),
        ([{**ACCEPT, "services": ["ssh"], "sources": ["10.0.0.0/8"]}], []),
        ([{**ACCEPT, **port(22), "in_ifname": "lan0"}], []),
        (
            [{**ACCEPT, "connection_states": ["established"]}],
            [("RULE_UNREACHABLE", "ruleset.rules[0]")],
        ),
        ([{**ACCEPT, "connection_states": ["established", "new"]}], []),
    ],
)
def test_findings(rules: list[dict[str, Any]], expected: list[tuple[str, str]]) -> None:
    assert codes(*rules) == expected


SETS = [{"name": name, "elements": ["192.0.2.1"]} for name in ("one", "two")]
UDP = {"protocol": "udp"}
OPEN_PORTS = {**UDP, "destination_ports": [{"first": 1000, "last": 1999}]}
FROM_PORTS = {**UDP, "source_ports": [{"first": 1000, "last": 1999}]}


@pytest.mark.parametrize(
    ("wide", "within", "beyond"),
    [
        (
            OPEN_PORTS,
            {"destination_ports": [{"first": 1000}, {"first": 1500, "last": 1999}]},
            {"destination_ports": [{"first": 1000}, {"first": 1500, "last": 2000}]},
        ),
        (FROM_PORTS, {"source_ports": [{"first": 1999}]}, {"source_ports": [{"first": 999}]}),
        (OPEN_PORTS, {}, {"destination_ports": []}),
        (UDP, {}, {"protocol": "tcp"}),
        (UDP, {"sources": ["10.0.0.0/8"]}, {"protocol": ""}),
        ({"sources": ["10.0.0.0/8"]}, {"sources": ["10.255.0.0/16"]}, {"sources": ["11.0.0.0/8"]}),
        ({"sources": ["10.0.0.0/8"]}, {}, {"sources": ["10.0.0.0/7"]}),
        ({"sources": ["10.0.0.0/8"]}, {**UDP}, {"sources": []}),
        ({"sources": ["::/0"]}, {"sources": ["fd00::/8"]}, {"sources": ["10.0.0.0/8"]}),
        (
            {"destinations": ["10.0.0.0/8", "12.0.0.0/8"]},
            {"destinations": ["12.1.0.0/16", "10.1.0.0/16"]},
            {"destinations": ["12.1.0.0/16", "11.1.0.0/16"]},
        ),
        ({"source_sets": ["one", "two"]}, {"source_sets": ["two"]}, {"source_sets": []}),
        ({"destination_sets": ["one"]}, {}, {"destination_sets": ["one", "two"]}),
        ({"in_ifname": "lan0"}, {**UDP}, {"in_ifname": "lan1"}),
        ({"in_ifname": "lan0"}, {}, {"in_ifname": ""}),
        ({"services": ["ssh", "dns"]}, {"services": ["dns"]}, {"services": ["dns", "ntp"]}),
        (
            {"connection_states": ["new", "invalid"]},
            {"connection_states": ["new"]},
            {"connection_states": ["new", "established"]},
        ),
    ],
)
def test_a_rule_that_matches_all_of_a_later_ones_packets_shadows_it(
    wide: dict[str, Any], within: dict[str, Any], beyond: dict[str, Any]
) -> None:
    for narrow, expected in ((within, ["RULE_SHADOWED"]), (beyond, [])):
        # The limit keeps it from being a twin, which is found in another way.
        rules = [{**DROP, **wide}, {**ACCEPT, **wide, **narrow, "limit": {"packets": 5}}]
        assert [code for code, _ in codes(*rules, address_sets=SETS)] == expected


def test_an_empty_set_matches_nothing() -> None:
    rule = {**ACCEPT, "source_sets": ["nobody"]}
    found = codes(rule, address_sets=[{"name": "nobody"}])
    assert found == [("SET_EMPTY", "ruleset.rules[0]")]
    assert codes(rule, address_sets=[{"name": "nobody", "dynamic": True}]) == []


def test_rules_of_other_rulesets_shadow_but_are_not_found() -> None:
    base = parse({"name": "base", "priority": 1, "rules": [DROP, DROP]})
    web = parse({"name": "web", "priority": 2, "rules": [{**ACCEPT, **port(80)}]})
    found = lint.findings({"rulesets[0]": web}, [web, base])
    assert [(f.code, f.rule, f.field) for f in found] == [
        ("RULE_SHADOWED", "web/rule-1", "rulesets[0].rules[0]")
    ]


def test_findings_are_bounded() -> None:
    found = lint.findings({"r": (one := ruleset(*[DROP] * 1000))}, [one])
    assert len(found) == lint.FINDINGS_MOST + 1
    assert found[-1].code == "MORE_FINDINGS"


@patient
@given(rulesets(), rulesets())
def test_no_ruleset_breaks_the_look(one: Ruleset, other: Ruleset) -> None:
    for finding in lint.findings({"ruleset": one}, [one, other, NAMES_GIVEN]):
        assert finding.field.startswith("ruleset")
        assert not finding.refused
    reach.refused({"ruleset": one}, [other], [one, other], MANAGEMENT, CALLER)


def shut(
    one: Ruleset, management: Any = MANAGEMENT, before: tuple[Ruleset, ...] = ()
) -> list[tuple[str, str]]:
    found = reach.refused({"ruleset": one}, before, [one], management, CALLER)
    assert all(f.refused for f in found)
    return [(f.code, f.rule) for f in found]


@pytest.mark.parametrize(
    ("one", "management", "expected"),
    [
        (ruleset({**DROP, **HOSTLER}), MANAGEMENT, [("MANAGEMENT_CLOSED", "web/rule-1")]),
        (
            ruleset({**DROP, "sources": ["192.0.2.0/28"]}),
            MANAGEMENT,
            [("CALLER_CUT_OFF", "web/rule-1")],
        ),
        (ruleset({**DROP, "sources": ["192.0.2.0/28"], **port(22)}), MANAGEMENT, []),
        (ruleset({**DROP, "sources": ["192.0.2.128/28"]}), MANAGEMENT, []),
        # Everything else is dropped: Hostler's ports stay open to the management networks.
        (ruleset(DROP), MANAGEMENT, []),
        (ruleset(input_policy="drop"), MANAGEMENT, []),
        (ruleset(DROP), ELSEWHERE, [("CALLER_CUT_OFF", "")]),
        (ruleset(input_policy="drop"), ELSEWHERE, [("CALLER_CUT_OFF", "")]),
        (
            ruleset({**ACCEPT, **HOSTLER, "sources": ["192.0.2.7/32"]}, input_policy="drop"),
            ELSEWHERE,
            [],
        ),
        (
            ruleset({**ACCEPT, **HOSTLER, "in_ifname": "lan0"}, input_policy="drop"),
            ELSEWHERE,
            [("CALLER_CUT_OFF", "")],
        ),
    ],
)
def test_what_shuts_out_the_caller(
    one: Ruleset, management: Any, expected: list[tuple[str, str]]
) -> None:
    assert shut(one, management) == expected


def test_who_is_shut_out_already_is_not_kept_from_changes() -> None:
    closed = ruleset(input_policy="drop")
    assert shut(closed, ELSEWHERE, before=(closed,)) == []


def test_forced_rules_are_asked_before_the_way_in() -> None:
    one = ruleset({**DROP, **HOSTLER})
    found = reach.refused({"ruleset": one}, (), [one], MANAGEMENT, CALLER)
    forced = reach.closing(one, found)
    assert forced.closes_management
    assert not reach.is_open([forced], MANAGEMENT, CALLER)
    assert reach.is_open([one], MANAGEMENT, CALLER)
    assert reach.closing(one, ()) is one


@pytest.mark.parametrize(
    ("before", "after", "touches"),
    [
        ([], [ruleset({**ACCEPT, **port(80)})], False),
        ([], [ruleset({**ACCEPT, **port(7443)})], True),
        ([], [ruleset({**DROP, "sources": ["203.0.113.0/24"]})], False),
        ([], [ruleset({**DROP, "sources": ["192.0.2.0/24"]})], True),
        ([], [ruleset(input_policy="drop")], True),
        ([ruleset(input_policy="drop")], [], True),
        ([], [ruleset({"hook": "forward", "action": "drop"})], False),
        ([], [ruleset({"hook": "output", "action": "drop"})], True),
        ([ruleset(DROP)], [ruleset(DROP, {**ACCEPT, **port(80)})], False),
    ],
)
def test_what_touches_the_caller(
    before: list[Ruleset], after: list[Ruleset], touches: bool
) -> None:
    assert reach.touches(before, after, CALLER) is touches
    assert reach.touches(before, after, None) is False


def test_a_local_caller_is_not_shut_out_by_an_address() -> None:
    one = ruleset({**DROP, "sources": ["192.0.2.0/24"]}, input_policy="drop")
    assert reach.refused({"ruleset": one}, (), [one], EVERYWHERE, None) == ()
