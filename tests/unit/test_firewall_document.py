"""What callers may send, and how all that is wrong with it is told at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from firewall_generated import patient, rulesets
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.firewall.model.document import dump, load, parse
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import EVERYWHERE
from hostlerd.firewall.plan.table import compile_table
from hostlerd.runtime.errors import Code, InvalidRequest

RULE: dict[str, Any] = {"hook": "forward", "action": "drop"}
FORWARD: dict[str, Any] = {"protocol": "tcp", "port": 80, "target_address": "10.0.0.2"}


def faults(document: object) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        parse(document)
    assert refused.value.code is Code.INVALID_ARGUMENT
    return {v.field.removeprefix("ruleset."): v.description for v in refused.value.violations}


def faults_of(**fields: Any) -> dict[str, str]:
    return faults({"name": "web", **fields})


@patient
@given(rulesets())
def test_what_is_dumped_is_parsed_as_the_same(ruleset: Ruleset) -> None:
    assert parse(json.loads(dump(ruleset))) == ruleset


def test_what_was_dumped_lately_is_not_read_again() -> None:
    mine, other = Ruleset("web", priority=1), Ruleset("web", priority=2)
    dumped, foreign = dump(mine), dump(other).replace('"priority":2', '"priority":3')
    assert load("".join(list(dumped))) is mine
    assert load(foreign) == Ruleset("web", priority=3)
    with pytest.raises(InvalidRequest):
        load(dumped.replace("web", "WEB"))
    with pytest.raises(ValueError, match="Expecting"):
        load(dumped[:-1])


def test_empty_fields_are_as_absent_ones() -> None:
    empty = {"rules": [], "priority": 0, "input_policy": "", "persistent": False}
    assert parse({"name": "web", **empty}) == Ruleset("web")


@pytest.mark.parametrize("name", ["", "-a", "9a", "A", "a" * 33, "a b", 'a"', "ü", "a\n", "../a"])
def test_names(name: str) -> None:
    assert "1 to 32 of a-z" in faults({"name": name})["name"]


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"priority": 1001}, "priority", "from 0 to 1000"),
        ({"priority": -1}, "priority", "from 0 to 1000"),
        ({"priority": True}, "priority", "from 0 to 1000"),
        ({"input_policy": "pass"}, "input_policy", "one of accept, drop, reject"),
        ({"rules": {}}, "rules", "must be a list"),
        ({"rules": [1]}, "rules[0]", "must be a table"),
        ({"rules": [RULE] * 10_001}, "rules", "at most 10000"),
        ({"speed": 1}, "speed", "not a field"),
        ({"persistent": 1}, "persistent", "true or false"),
        ({"isolated_networks": ["10.0.0.1/24"]}, "isolated_networks[0]", "10.0.0.0/24"),
        ({"isolated_networks": ["0.0.0.0/0"]}, "isolated_networks[0]", "everything"),
        ({"isolated_networks": ["fd00::/64", "fd00::/64"]}, "isolated_networks[1]", "twice"),
    ],
)
def test_fields_of_a_ruleset(fields: dict[str, Any], path: str, words: str) -> None:
    assert words in faults_of(**fields)[path]


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"hook": ""}, "hook", "must be given"),
        ({"hook": "prerouting"}, "hook", "one of input, forward, output, bridge_forward"),
        ({"action": ""}, "action", "must be given"),
        ({"protocol": "dccp"}, "protocol", "one of tcp, udp, icmp"),
        ({"sources": ["10.0.0.0/24", "fd00::/64"]}, "sources[1]", "mixes"),
        ({"sources": ["10.0.0.0/33"]}, "sources[0]", "must be a network"),
        ({"sources": ["10.0.0.7/24"]}, "sources[0]", "host bits set; the network is 10.0.0.0/24"),
        ({"sources": [7]}, "sources[0]", "must be a network"),
        ({"sources": ['fe80::1%"; drop/128']}, "sources[0]", "must be a network"),
        ({"sources": ["10.0.0.0/8"] * 2}, "sources[1]", "twice"),
        ({"sources": ["10.0.0.0/8"], "destinations": ["fd00::/8"]}, "destinations", "mixes"),
        ({"destination_ports": [{"first": 22}]}, "destination_ports", "needs the protocol"),
        ({"protocol": "icmp", "destination_ports": [{"first": 2}]}, "destination_ports", "needs"),
        (
            {"protocol": "tcp", "destination_ports": [{"first": 90, "last": 80}]},
            "destination_ports[0].last",
            "not be less than first, which is 90",
        ),
        (
            {"protocol": "tcp", "destination_ports": [{"first": 0}]},
            "destination_ports[0].first",
            "from 1 to 65535",
        ),
        (
            {"protocol": "tcp", "destination_ports": [{"first": 1, "last": 65536}]},
            "destination_ports[0].last",
            "from 0 to 65535",
        ),
        ({"in_ifname": 'eth0" accept'}, "in_ifname", "1 to 15"),
        ({"in_ifname": "eth*"}, "in_ifname", "1 to 15"),
        ({"out_ifname": "abcdefghijklmnop"}, "out_ifname", "1 to 15"),
        ({"hook": "input", "out_ifname": "eth0"}, "out_ifname", "no meaning"),
        ({"comment": "c" * 65}, "comment", "at most 64"),
        ({"comment": 'a" drop'}, "comment", "printable"),
        ({"comment": "a\n}"}, "comment", "printable"),
        ({"comment": "a\\"}, "comment", "printable"),
        ({"id": "forward-tcp-80"}, "id", "must not begin with"),
        ({"id": "a b"}, "id", "1 to 32"),
    ],
)
def test_fields_of_a_rule(fields: dict[str, Any], path: str, words: str) -> None:
    assert words in faults_of(rules=[{**RULE, **fields}])[f"rules[0].{path}"]


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"protocol": "icmp"}, "protocol", "tcp or udp"),
        ({"protocol": ""}, "protocol", "tcp or udp"),
        ({"port": 0}, "port", "from 1 to 65535"),
        ({"port": 70000}, "port", "from 1 to 65535"),
        ({"port": 7443}, "port", "of Hostler itself"),
        ({"target_port": 65536}, "target_port", "from 0 to 65535"),
        ({"target_address": "web"}, "target_address", "must be an address"),
        ({"target_address": "127.0.0.1"}, "target_address", "cannot be forwarded to"),
        ({"target_address": "224.0.0.1"}, "target_address", "cannot be forwarded to"),
        ({"target_address": "fe80::1%eth0"}, "target_address", "must be an address"),
        ({"target_address": "::ffff:10.0.0.2"}, "target_address", "cannot be forwarded to"),
        ({"addresses": ["fd00::1"]}, "addresses", "mixes"),
        ({"addresses": ["127.0.0.1"]}, "addresses[0]", "cannot be forwarded from"),
        ({"sources": ["fd00::/8"]}, "sources", "mixes"),
    ],
)
def test_fields_of_a_forward(fields: dict[str, Any], path: str, words: str) -> None:
    assert words in faults_of(forwards=[{**FORWARD, **fields}])[f"forwards[0].{path}"]


@pytest.mark.parametrize(
    ("masquerade", "path", "words"),
    [
        ({}, "source", "must be a network"),
        ({"source": "10.0.0.1/24"}, "source", "host bits"),
        ({"source": "0.0.0.0/0"}, "uplink", "must be given"),
        ({"source": "ff00::/8"}, "source", "multicast"),
        ({"source": "10.0.0.0/8", "uplink": "a/b"}, "uplink", "1 to 15"),
    ],
)
def test_fields_of_a_masquerade(masquerade: dict[str, Any], path: str, words: str) -> None:
    assert words in faults_of(masquerades=[masquerade])[f"masquerades[0].{path}"]


def test_all_faults_are_told_with_their_own_places() -> None:
    found = faults(
        {
            "name": "Web",
            "rules": [RULE, {**RULE, "id": "rule-1"}, {**RULE, "comment": "\0"}],
            "masquerades": [{}, {"source": "10.0.0.0/8"}, {"source": "10.0.0.0/8"}],
            "forwards": [{**FORWARD, "port": 0}, FORWARD, {**FORWARD, "target_port": 81}],
        }
    )
    assert set(found) == {
        "name",
        "rules[0].id",
        "rules[1].id",
        "rules[2].comment",
        "masquerades[0].source",
        "masquerades[2]",
        "forwards[0].port",
        "forwards[2].port",
    }
    assert found["masquerades[2]"] == "is the same as masquerades[1]"
    assert found["forwards[2].port"] == "tcp 80 is already forwarded by forwards[1]"


@pytest.mark.parametrize(
    "other",
    [
        {"port": 81},
        {"protocol": "udp"},
        {"target_address": "fd00::2"},
        {"addresses": ["10.0.0.9"], "sources": ["10.0.1.0/24"]},
    ],
)
def test_forwards_that_share_no_packet_may_stand_together(other: dict[str, Any]) -> None:
    one = {**FORWARD, "sources": ["10.0.0.0/24"]}
    assert len(parse({"name": "web", "forwards": [one, {**FORWARD, **other}]}).forwards) == 2


def test_many_forwards_of_one_port_are_refused() -> None:
    forwards = [{**FORWARD, "sources": [f"10.{i}.0.0/16"]} for i in range(101)]
    assert "over 100" in faults_of(forwards=forwards)["forwards[100].port"]


@patient
@given(st.text(max_size=40), st.sampled_from(["comment", "id", "in_ifname", "out_ifname"]))
def test_nothing_breaks_out_of_its_place_in_the_text(value: str, field: str) -> None:
    """Whatever text is let through, it stays within one rule, and within its quotes."""
    plain = compile_table([parse({"name": "web", "rules": [RULE]})], EVERYWHERE)
    try:
        ruleset = parse({"name": "web", "rules": [{**RULE, field: value}]})
    except InvalidRequest:
        return
    text = compile_table([ruleset], EVERYWHERE)
    assert text.count("\n") == plain.count("\n")
    assert text.count('"') == plain.count('"') + (2 if value and "ifname" in field else 0)
    assert not any(c in text.replace("\t", "").replace("\n", "") for c in "\\\0\r\v\f")
