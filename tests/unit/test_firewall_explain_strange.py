"""Explaining never fails and never guesses, whatever tables and routes others have."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostlerd.firewall.model.explain import Explanation, Packet, Route, RouteRule, Routes, Verdict
from hostlerd.firewall.plan import explain_tables
from hostlerd.firewall.plan.explain_walk import explain

V4 = ["10.0.0.1", "10.0.0.2", "10.1.0.2", "192.0.2.9", "224.0.0.1", "127.0.0.1"]
V6 = ["fd00::1", "fd00::2", "ff02::1", "::1"]
LINKS = ["", "lo", "a0", "b0", "wg0"]
SOME = st.sampled_from

payloads = st.builds(
    lambda p, f: {"payload": {"protocol": p, "field": f}},
    SOME(["ip", "ip6", "tcp", "udp", "th", "icmp", "icmpv6", "ether", "sctp", "vlan"]),
    SOME(
        ["saddr", "daddr", "sport", "dport", "type", "code", "protocol", "nexthdr", "ttl", "flags"]
    ),
)
metas = SOME(
    ["iifname", "oifname", "l4proto", "nfproto", "protocol", "mark", "iif", "oif", "time", "skuid"]
).map(lambda key: {"meta": {"key": key}})
cts = SOME(["state", "status", "mark", "direction", "expiration", "zone"]).map(
    lambda key: {"ct": {"key": key}}
)
fibs = st.builds(
    lambda r, f: {"fib": {"result": r, "flags": f}},
    SOME(["type", "oif", "oifname"]),
    SOME([["daddr"], "daddr", ["saddr", "iif"], ["daddr", "oif"], ["mark"]]),
)
simple = payloads | metas | cts | fibs | SOME([{"socket": {"key": "mark"}}, {"rt": {"key": "mtu"}}])
scalars = (
    SOME([*V4, *V6, "a0", "wg*", "*", "tcp", "icmp", "ipv6-icmp", "new", "established", "dnat"])
    | SOME(
        ["local", "unicast", "ip", "ipv6", "echo-request", "syn", "nonsense", "a\\*", True, False]
    )
    | st.integers(-1, 70000)
)
values = st.recursive(
    scalars
    | SOME([{"prefix": {"addr": "10.0.0.0", "len": 8}}, {"range": ["10.0.0.1", "10.0.0.9"]}])
    | SOME([{"range": [1, 100]}, {"range": ["b", "a"]}, "@s", "@gone", {"elem": {"val": 80}}]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(lambda v: {"set": v}, st.lists(inner, max_size=3))
        | st.builds(lambda v: {"concat": v}, st.lists(inner, max_size=3))
    ),
    max_leaves=4,
)
lefts = st.recursive(
    simple,
    lambda inner: (
        st.builds(lambda a, b: {"&": [a, b]}, inner, scalars)
        | st.builds(lambda a, b: {"|": [a, b]}, inner, inner)
        | st.builds(lambda a: {"concat": a}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(lambda a: {"jhash": {"mod": 2, "expr": a}}, inner)
    ),
    max_leaves=3,
)
matches = st.builds(
    lambda op, left, right: {"match": {"op": op, "left": left, "right": right}},
    SOME(["==", "!=", "<", ">", "<=", ">=", "in", "~"]),
    lefts,
    values,
)
verdicts = SOME(
    [
        {"accept": None}, {"drop": None}, {"return": None}, {"continue": None},
        {"jump": {"target": "other"}}, {"goto": {"target": "other"}}, {"continue": None},
        {"reject": {"type": "tcp reset"}}, {"reject": None}, {"queue": {"num": 1}},
    ]
)  # fmt: skip
statements = SOME(
    [
        {"counter": {"packets": 1, "bytes": 2}}, {"log": {"prefix": "x"}}, {"log": None},
        {"limit": {"rate": 1, "per": "second"}}, {"quota": {"val": 1}}, {"notrack": None},
        {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}},
        {"mangle": {"key": {"ct": {"key": "mark"}}, "value": {"meta": {"key": "mark"}}}},
        {"mangle": {"key": {"payload": {"protocol": "ip", "field": "ttl"}}, "value": 3}},
        {"dnat": {"addr": "10.1.0.2", "port": 80}}, {"dnat": {"addr": {"map": {"key": 1}}}},
        {"snat": {"addr": "192.0.2.9"}}, {"masquerade": None}, {"redirect": {"port": 8080}},
        {"redirect": None}, {"set": {"op": "add", "elem": 1, "set": "@s"}}, {"tproxy": {"port": 1}},
        {"dup": {"addr": "10.0.0.9"}}, {"flow": {"op": "add", "flowtable": "@f"}}, {"xt": None},
        {"ct helper": "ftp"}, {"ct count": {"val": 5}}, {"unheard of": 1},
    ]
)  # fmt: skip
maps = st.builds(
    lambda key, data: {"vmap": {"key": key, "data": data}},
    simple,
    SOME(["@m", "@gone"])
    | st.builds(
        lambda pairs: {"set": [[k, v] for k, v in pairs]},
        st.lists(st.tuples(scalars, verdicts), max_size=3),
    ),
)
expressions = st.lists(matches | verdicts | statements | maps, max_size=4)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Entries as nft lists them: a table with chains at some hooks, and one that is jumped to."""
    entries: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "t", "handle": 1}},
        {"chain": {"family": "inet", "table": "t", "name": "other", "handle": 2}},
        {
            "set": {
                "family": "inet",
                "table": "t",
                "name": "s",
                "elem": draw(st.lists(values, max_size=3)),
            }
        },
        {
            "map": {
                "family": "inet",
                "table": "t",
                "name": "m",
                "elem": [["10.0.0.2", {"drop": None}]],
            }
        },
    ]
    for number, hook in enumerate(draw(st.lists(SOME(
        ["ingress", "prerouting", "input", "forward", "output", "postrouting"]), max_size=4,
    ))):  # fmt: skip
        # The kernel has no NAT where packets are only passed on, or not yet looked at.
        kinds = ["filter"] if hook in ("forward", "ingress") else ["filter", "nat"]
        kind = draw(SOME(kinds))
        chain = {"family": "inet", "table": "t", "name": f"c{number}", "handle": 3 + number}
        chain |= {"type": kind, "hook": hook, "prio": draw(SOME([-300, -100, 0, 100]))}
        entries.append({"chain": {**chain, "policy": draw(SOME(["accept", "drop"]))}})
    names = [e["chain"]["name"] for e in entries if "chain" in e]
    for name in draw(st.lists(SOME(names), max_size=6)):
        rule = {"family": "inet", "table": "t", "chain": name, "expr": draw(expressions)}
        entries.append({"rule": rule})
    return entries


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    version = draw(SOME([4, 4, 6]))
    one, other = (ip_address(draw(SOME(V4 if version == 4 else V6))) for _ in range(2))
    protocol = draw(SOME([None, 6, 17, 1 if version == 4 else 58, 47]))
    ports = protocol in (6, 17)
    return Packet(
        source=one,
        destination=other,
        protocol=protocol,
        source_port=draw(SOME([None, 49152])) if ports else None,
        destination_port=draw(SOME([None, 22, 80])) if ports else None,
        icmp_type=draw(SOME([None, 8, 3])) if protocol in (1, 58) else None,
        state=draw(SOME(["new", "established", "related", "invalid", "untracked"])),
        in_ifname=draw(SOME(LINKS)),
        out_ifname=draw(SOME(LINKS)),
        now_unix_s=1_800_000_000,
    )


@st.composite
def routes(draw: st.DrawFn) -> Routes:
    def route(network: str) -> Route:
        return Route(
            table=draw(SOME(["main", "local", "100"])),
            network=ip_network(network),
            type=draw(SOME(["unicast", "local", "blackhole", "unreachable", "broadcast"])),
            ifname=draw(SOME(LINKS)),
            gateway=draw(SOME(["", "10.0.0.9"])),
            metric=draw(st.integers(0, 2)),
            plain=draw(st.booleans()),
        )

    networks = ["0.0.0.0/0", "10.0.0.0/24", "10.1.0.0/24", "10.0.0.1/32", "::/0", "fd00::/64"]
    rules = [RouteRule(0, "local"), RouteRule(32766, "main")]
    if draw(st.booleans()):
        rules.append(RouteRule(10, "100", in_ifname="a0", other=draw(SOME(["", "fwmark"]))))
    return Routes(
        routes=tuple(route(n) for n in draw(st.lists(SOME(networks), max_size=6))),
        rules=tuple(rules),
        addresses={"a0": ((ip_address("10.0.0.1"), 24),), "b0": ((ip_address("fd00::1"), 64),)},
        indexes={"lo": 1, "a0": 2, "b0": 3},
        forwarding=draw(st.booleans()),
    )


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), routes(), packets())
def test_every_packet_gets_an_answer(entries: list[Any], there: Routes, packet: Packet) -> None:
    found = explain(explain_tables.read(entries), there, packet)
    assert isinstance(found, Explanation)
    assert found.verdict in Verdict
    assert len(found.met) <= 2000
    if found.verdict is Verdict.UNKNOWN:
        assert found.decided_by.unknown or any(met.unknown for met in found.met)
