"""What rules use by name, NAT of all sorts, and fragments: each fault is named with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hostlerd.firewall.model.document import dump, parse, parse_all
from hostlerd.firewall.model.elements import merged, read_span
from hostlerd.firewall.model.packet_log import read_prefix, statement
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.runtime.errors import InvalidRequest


def faults(**fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        parse({"name": "web", **fields})
    return {v.field.removeprefix("ruleset."): v.description for v in refused.value.violations}


def taken(**fields: Any) -> Ruleset:
    ruleset = parse({"name": "web", **fields})
    assert parse(json.loads(dump(ruleset))) == ruleset
    return ruleset


def fragment(text: object, **more: Any) -> dict[str, Any]:
    return {"id": "own", "place": "input_before", "nft_rules": text, **more}


PORT = {"protocol": "tcp", "ports": {"first": 80}}
NAT = {"source": "10.0.0.0/24", "to_address": "192.0.2.1"}
REDIRECT = {"protocol": "tcp", "port": 80, "to_port": 8080}
RULE = {"hook": "input", "action": "accept"}


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"address_sets": [{"name": ""}]}, "address_sets[0].name", "1 to 24"),
        ({"address_sets": [{"name": "Upper"}]}, "address_sets[0].name", "1 to 24"),
        ({"address_sets": [{"name": "a" * 25}]}, "address_sets[0].name", "1 to 24"),
        ({"address_sets": [{"name": "a"}] * 2}, "address_sets[1].name", "not unique"),
        ({"address_sets": [{"name": "a", "size": 1}]}, "address_sets[0].size", "not a field"),
        (
            {"address_sets": [{"name": "a", "elements": ["10.0.0.0/8", "x"]}]},
            "address_sets[0].elements[1]",
            "must be an address",
        ),
        (
            {"address_sets": [{"name": "a", "elements": ["10.0.0.7/8"]}]},
            "address_sets[0].elements[0]",
            "host bits set; the network is 10.0.0.0/8",
        ),
        (
            {"address_sets": [{"name": "a", "elements": ["10.0.0.9-10.0.0.1"]}]},
            "address_sets[0].elements[0]",
            "not after the last",
        ),
        (
            {"address_sets": [{"name": "a", "elements": ["10.0.0.9-fd00::1"]}]},
            "address_sets[0].elements[0]",
            "one family",
        ),
        (
            {"address_sets": [{"name": "a", "dynamic": True, "elements": ["10.0.0.1"]}]},
            "address_sets[0].elements",
            "must be empty in a dynamic set",
        ),
        (
            {"address_sets": [{"name": "a", "elements": ["10.0.0.1"] * 262_145}]},
            "address_sets[0].elements",
            "at most 262144",
        ),
        ({"zones": [{"name": "lan"}]}, "zones[0].ifnames", "must name links"),
        ({"zones": [{"name": "lan", "ifnames": ["a b"]}]}, "zones[0].ifnames[0]", "link's name"),
        ({"zones": [{"name": "lan", "ifnames": ["*"]}]}, "zones[0].ifnames[0]", "link's name"),
        (
            {"zones": [{"name": "lan", "ifnames": ["eth*", "eth0"]}]},
            "zones[0].ifnames[1]",
            "covered by eth*",
        ),
        ({"zones": [{"name": "lan", "ifnames": ["a", "a"]}]}, "zones[0].ifnames[1]", "twice"),
        ({"services": [{"name": "app"}]}, "services[0].ports", "must be given"),
        (
            {"services": [{"name": "app", "ports": [{"protocol": "icmp", "ports": {"first": 1}}]}]},
            "services[0].ports[0].protocol",
            "tcp, udp or sctp",
        ),
        (
            {"services": [{"name": "app", "ports": [{"protocol": "tcp"}]}]},
            "services[0].ports[0].ports",
            "must be given",
        ),
        ({"helpers": [{"helper": "x"}]}, "helpers[0].helper", "must be one of"),
        (
            {"helpers": [{"helper": "ftp", "protocol": "udp", "port": 21}]},
            "helpers[0].protocol",
            "ftp speaks tcp",
        ),
        (
            {"helpers": [{"helper": "ftp", "protocol": "tcp", "port": 21}] * 2},
            "helpers[1]",
            "twice",
        ),
        ({"flowtables": [{"name": "f"}]}, "flowtables[0].ifnames", "must name links"),
        ({"flowtables": [{"name": "f", "ifnames": ["e*"]}]}, "flowtables[0].ifnames", "whole name"),
        ({"source_nats": [{**NAT, "to_address": "fd00::1"}]}, "source_nats[0].to_address", "mixes"),
        ({"source_nats": [{**NAT, "to_address": "x"}]}, "source_nats[0].to_address", "address"),
        (
            {"source_nats": [{**NAT, "to_address": "224.0.0.1"}]},
            "source_nats[0].to_address",
            "cannot be a source",
        ),
        ({"source_nats": [{**NAT, "source": "127.0.0.0/8"}]}, "source_nats[0].source", "loopback"),
        (
            {"source_nats": [{**NAT, "destinations": ["fd00::/8"]}]},
            "source_nats[0].destinations",
            "mixes",
        ),
        (
            {"source_nats": [{**NAT, "source": "0.0.0.0/0"}]},
            "source_nats[0].uplink",
            "must be given",
        ),
        ({"source_nats": [NAT, NAT]}, "source_nats[1]", "the same as"),
        ({"redirects": [{**REDIRECT, "protocol": "icmp"}]}, "redirects[0].protocol", "tcp or udp"),
        ({"redirects": [{**REDIRECT, "port": 0}]}, "redirects[0].port", "from 1 to 65535"),
        ({"redirects": [{**REDIRECT, "port": 7443}]}, "redirects[0].port", "Hostler itself"),
        ({"redirects": [{**REDIRECT, "to_port": 80}]}, "redirects[0].to_port", "asked for"),
        ({"redirects": [REDIRECT, REDIRECT]}, "redirects[1]", "the same packets"),
        ({"fragments": [fragment("")]}, "fragments[0].nft_rules", "must be rules"),
        ({"fragments": [fragment("accept", id="")]}, "fragments[0].id", "must be given"),
        ({"fragments": [fragment("accept", place="")]}, "fragments[0].place", "must be given"),
        ({"fragments": [fragment("accept")] * 2}, "fragments[1].id", "not unique"),
        ({"fragments": [fragment("accept; drop")]}, "fragments[0].nft_rules", "no rule needs"),
        ({"fragments": [fragment("accept # x")]}, "fragments[0].nft_rules", "no rule needs"),
        ({"fragments": [fragment("ip saddr $x")]}, "fragments[0].nft_rules", "no rule needs"),
        (
            {"fragments": [fragment("accept\ninclude x")]},
            "fragments[0].nft_rules",
            "line 2: begins",
        ),
        ({"fragments": [fragment("chain x {")]}, "fragments[0].nft_rules", "begins no rule"),
        ({"fragments": [fragment("type filter hook input")]}, "fragments[0].nft_rules", "begins"),
        ({"fragments": [fragment("accept }")]}, "fragments[0].nft_rules", "braces"),
        ({"fragments": [fragment("tcp dport { 1")]}, "fragments[0].nft_rules", "braces"),
        ({"fragments": [fragment("} table ip x {")]}, "fragments[0].nft_rules", "braces"),
        ({"fragments": [fragment('log prefix "a')]}, "fragments[0].nft_rules", "not closed"),
        ({"fragments": [fragment('accept comment "a"')]}, "fragments[0].nft_rules", "a comment"),
        ({"fragments": [fragment("ct helper x {")]}, "fragments[0].nft_rules", "begins"),
        ({"input_policy": "count"}, "input_policy", "must be one of accept, drop, reject"),
        ({"bridge_policy": "reject"}, "bridge_policy", "accept or drop"),
        ({"bridge_filtering": "on"}, "bridge_filtering", "bypass, routed"),
    ],
)
def test_faults_of_a_ruleset(fields: dict[str, Any], path: str, words: str) -> None:
    assert words in faults(**fields)[path]


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"services": ["ssh"], "protocol": "tcp"}, "services", "instead of"),
        ({"services": ["ssh", "ssh"]}, "services[1]", "twice"),
        ({"services": ["S!"]}, "services[0]", "1 to 24"),
        ({"source_ports": [{"first": 1}]}, "source_ports", "needs the protocol"),
        ({"icmp_types": ["echo-request"]}, "icmp_types", "needs the protocol icmp"),
        ({"protocol": "icmp", "icmp_types": ["pong"]}, "icmp_types[0]", "no type of ICMP"),
        (
            {"protocol": "icmp", "icmp_types": ["nd-redirect"], "sources": ["10.0.0.0/8"]},
            "icmp_types[0]",
            "no type of that family",
        ),
        ({"in_ifname": "a", "in_zone": "lan"}, "in_zone", "cannot stand beside"),
        ({"out_zone": "lan"}, "out_zone", "no meaning"),
        ({"hook": "output", "in_zone": "lan"}, "in_zone", "no meaning"),
        ({"connection_states": ["old"]}, "connection_states[0]", "must be one of"),
        ({"connection_states": [7]}, "connection_states[0]", "must be one of"),
        ({"limit": {"packets": 0}}, "limit.packets", "from 1 to"),
        ({"limit": {"packets": 1, "unit": "day"}}, "limit.unit", "second, minute, hour"),
        ({"limit": {"packets": 1, "x": 1}}, "limit.x", "not a field"),
        ({"limit": 7}, "limit", "table of fields"),
        ({"limit": {"packets": 1}, "log": {"rate": {"packets": 1}}}, "log.rate", "beside limit"),
        ({"action": "count", "limit": {"packets": 1}}, "limit", "only counts"),
        ({"log": {"prefix": "x"}}, "log.prefix", "not a field"),
        ({"hook": "bridge_forward", "action": "reject"}, "action", "must not be reject"),
        ({"expire_time": -1}, "expire_time", "from 0 to"),
        ({"comment": "x" * 70}, "comment", "has 70 characters"),
        ({"id": "fragment-x"}, "id", "must not begin with"),
        ({"sources": ["10.0.0.0/8"], "destinations": ["fd00::/8"]}, "destinations", "mixes"),
    ],
)
def test_faults_of_a_rule(fields: dict[str, Any], path: str, words: str) -> None:
    assert words in faults(rules=[{**RULE, **fields}])[f"rules[0].{path}"]


def test_all_faults_are_told_at_once() -> None:
    found = faults(
        rules=[{**RULE, "services": ["S!"]}, {"hook": "x"}],
        zones=[{"name": "lan"}],
        address_sets=[{"name": "a", "elements": ["x", "y"]}],
    )
    assert set(found) == {
        "rules[0].services[0]",
        "rules[1].hook",
        "rules[1].action",
        "zones[0].ifnames",
        "address_sets[0].elements[0]",
        "address_sets[0].elements[1]",
    }


def test_many_documents_are_read_at_once() -> None:
    found = parse_all([{"name": "a"}, {"name": "b"}], ["c"])
    assert {path: r.name for path, r in found.items()} == {"rulesets[0]": "a", "rulesets[1]": "b"}
    with pytest.raises(InvalidRequest) as refused:
        parse_all([{"name": "a"}, {"name": "a"}, {"name": "B"}], ["a", "!"])
    assert {v.field for v in refused.value.violations} == {
        "rulesets[1].name",
        "rulesets[2].name",
        "delete_names[0]",
        "delete_names[1]",
    }
    for documents, gone in (([], []), ([{"name": "a"}] * 101, []), ([], ["a"] * 101)):
        with pytest.raises(InvalidRequest):
            parse_all(documents, gone)


def test_what_is_right_is_taken() -> None:
    one = taken(
        address_sets=[
            {"name": "a", "elements": ["10.0.0.0/9", "10.128.0.0/9", "fd00::1", "10.0.0.7"]},
            {"name": "b", "dynamic": True, "comment": "later"},
        ],
        zones=[{"name": "lan", "ifnames": ["eth*", "wg0"]}],
        services=[{"name": "app", "ports": [PORT, PORT]}],
        helpers=[{"helper": "sip", "protocol": "udp", "port": 5060, "sources": ["10.0.0.0/8"]}],
        flowtables=[{"name": "ft", "ifnames": ["eth0", "eth1"]}],
        source_nats=[{**NAT, "destinations": ["192.0.2.0/24"]}],
        redirects=[REDIRECT],
        fragments=[fragment("  ct state invalid drop\n\n meta l4proto { 1, 2 } accept ")],
        output_policy="reject",
        bridge_policy="drop",
        bridge_filtering="routed",
    )
    assert one.address_sets[0].elements == ("10.0.0.0/8", "fd00::1")
    assert one.services[0].ports == (one.services[0].ports[0],)
    assert one.fragments[0].nft_rules == "ct state invalid drop\nmeta l4proto { 1, 2 } accept"
    assert one.next_end is None


def test_spans_are_as_few_as_can_be() -> None:
    texts = ["10.0.0.0-10.0.0.127", "10.0.0.128/25", "10.0.1.1", "fd00::/127", "fd00::2"]
    assert [s.nft for s in merged(map(read_span, texts))] == [
        "10.0.0.0/24",
        "10.0.1.1",
        "fd00::-fd00::2",
    ]
    assert list(read_span("10.0.0.1-10.0.0.4").networks()) == [
        "10.0.0.1/32",
        "10.0.0.2/31",
        "10.0.0.4/32",
    ]
    for bad in (None, "", "x", "1.2.3.4%eth0", "1.2.3.4/33", "a" * 200):
        with pytest.raises(ValueError, match="must be an address"):
            read_span(bad)


def test_the_prefix_of_a_log_names_rule_and_action() -> None:
    assert 'log prefix "web/ssh drop" group 7441' in statement("web/ssh", "drop")
    assert statement("a/b", "drop", "5/second burst 5 packets").startswith("limit rate 5/second")
    assert read_prefix("web/ssh drop") == ("web/ssh", "drop")
    assert read_prefix("somebody else's") == ("somebody", "else's")
    assert read_prefix("") == ("", "")
