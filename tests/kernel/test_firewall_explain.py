"""What is explained, against what the kernel does to real packets.

client 10.0.1.2 -- c0 10.0.1.1 [host] s0 10.0.2.1 -- server 10.0.2.2;
the same with fd00:1:: and fd00:2::.
Each packet has a source port of its own, by which witnesses at priority 1000 know it again.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import cycle
from random import Random

import pytest
from firewall_generated import NAMES_GIVEN, rulesets
from firewall_topology import Host, address, hosts, join
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hostlerd.firewall.errors import NameUnknown
from hostlerd.firewall.kernel import explain as observed
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.explain import Explanation, Packet, Routes, Verdict
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import EVERYWHERE
from hostlerd.firewall.plan import explain_tables
from hostlerd.firewall.plan.explain_walk import explain
from hostlerd.firewall.plan.table import compile_table

pytestmark = [pytest.mark.kernel, pytest.mark.soak]

_LONG = os.environ.get("HOSTLER_SOAK") == "1"
_RULESETS = 200 if _LONG else 25
_PACKETS = 20
# Never one twice: the kernel remembers connections of the ruleset before.
_NUMBERS = cycle(range(20000, 60000))
_PATHS = ("input", "forward", "output")
_CLIENT, _SERVER = {4: "10.0.1.2", 6: "fd00:1::2"}, {4: "10.0.2.2", 6: "fd00:2::2"}
_HOST = {4: "10.0.1.1", 6: "fd00:1::1"}

# Sees what our tables and those of others let pass: packets are marked by their source port.
_WITNESS = """table inet witness {
    set passed { typeof meta nfproto . meta l4proto . th sport; size 65535; flags dynamic; }
    set echoed { typeof icmp id; size 65535; flags dynamic; }
    set echoed6 { typeof icmpv6 id; size 65535; flags dynamic; }
    chain seen_input { type filter hook input priority 1000; SEE STOP }
    chain seen_forward { type filter hook forward priority 1000; SEE }
    chain seen_output { type filter hook output priority 1000; SEE }
    chain stopped { type filter hook postrouting priority 1000; STOP }
}
""".replace(
    "SEE",
    """
        meta l4proto { tcp, udp } th sport 20000-60000 \\
            add @passed { meta nfproto . meta l4proto . th sport }
        icmp type echo-request add @echoed { icmp id }
        icmpv6 type echo-request add @echoed6 { icmpv6 id }
    """,
).replace(
    # It goes no further: rules would count the answer as well.
    "STOP",
    """
        meta l4proto { tcp, udp } th sport 20000-60000 drop
        icmp type echo-request drop
        icmpv6 type echo-request drop
    """,
)
_FOREIGN = [
    "",
    "table ip theirs { chain x { type filter hook forward priority 5; tcp dport 1-30000 drop; }\n}",
    """table inet theirs {
        map verdicts { type inet_proto . inet_service : verdict; flags interval;
            elements = { tcp . 0-2000 : drop, udp . 0-20000 : jump more } }
        chain more { th dport > 10000 return; drop; }
        chain x { type filter hook input priority -5; meta l4proto . th dport vmap @verdicts; }
        chain y { type filter hook prerouting priority -150; udp dport & 1 == 1 meta mark set 7; }
        chain z { type filter hook forward priority 10; meta mark & 3 == 3 drop; }
    }""",
]


@dataclass(frozen=True)
class Probe:
    """A packet to be sent."""

    path: str
    version: int
    protocol: str
    sport: int
    dport: int

    def packet(self) -> Packet:
        source = _HOST if self.path == "output" else _CLIENT
        to = _HOST if self.path == "input" else _SERVER
        return Packet(
            ip_address(source[self.version]),
            ip_address(to[self.version]),
            {"tcp": 6, "udp": 17, "icmp": 1 if self.version == 4 else 58}[self.protocol],
            None if self.protocol == "icmp" else self.sport,
            None if self.protocol == "icmp" else self.dport,
            8 if self.version == 4 else 128,
        )


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[Host, Host, Host]]:
    with hosts("client", "host", "server") as names:
        client, host, server = (Host(n) for n in names)
        join(host, "c0", client, "e0")
        join(host, "s0", server, "e0")
        address(host, "c0", "10.0.1.1/24", "fd00:1::1/64")
        address(host, "s0", "10.0.2.1/24", "fd00:2::1/64")
        for at, number in ((client, 1), (server, 2)):
            address(at, "e0", f"10.0.{number}.2/24", f"fd00:{number}::2/64")
            at.ip("route", "add", "default", "via", f"10.0.{number}.1")
            at.ip("route", "add", "default", "via", f"fd00:{number}::1")
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            host.sysctl(name, "1")
        # The neighbours are known once and for all: rulesets may not let them be found.
        for one, link, other, peer in ((host, "c0", client, "e0"), (host, "s0", server, "e0")):
            _know(one, link, other, peer)
            _know(other, peer, one, link)
        yield client, host, server


def _know(one: Host, link: str, other: Host, peer: str) -> None:
    (told,) = json.loads(other.ip("-j", "addr", "show", "dev", peer))
    for each in told["addr_info"]:
        if each["scope"] == "global":
            one.ip("neigh", "replace", each["local"], "lladdr", told["address"], "dev", link)


def _send(probes: list[Probe]) -> None:
    """Send each packet once: a datagram, or the first segment of a TCP connection."""
    for probe in probes:
        try:
            _send_one(probe, probe.packet())
        except OSError:
            # Under way, or already dropped by the output chain.
            continue


def _send_one(probe: Probe, packet: Packet) -> None:
    family = socket.AF_INET if probe.version == 4 else socket.AF_INET6
    to = (str(packet.destination), probe.dport)
    if probe.protocol == "icmp":
        protocol = socket.IPPROTO_ICMP if probe.version == 4 else socket.IPPROTO_ICMPV6
        with socket.socket(family, socket.SOCK_RAW, protocol) as s:
            s.bind((str(packet.source), 0))
            s.sendto(_echo(probe), (to[0], 0))
        return
    kind = socket.SOCK_DGRAM if probe.protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind) as s:
        s.setblocking(False)
        s.bind((str(packet.source), probe.sport))
        if probe.protocol == "udp":
            s.sendto(b"?", to)
        else:
            s.connect(to)


def _echo(probe: Probe) -> bytes:
    """An echo request; its number is the probe's. The kernel sums up only ICMPv6."""
    kind = 0x0800 if probe.version == 4 else 0x8000
    total = kind + probe.sport
    return struct.pack("!HHHH", kind, ~(total + (total >> 16)) & 0xFFFF, probe.sport, 0)


def _load(host: Host, ruleset: Ruleset, foreign: str) -> None:
    plain = replace(ruleset, helpers=())
    try:
        text = compile_table([plain], EVERYWHERE)
    except NameUnknown:
        text = compile_table([plain, NAMES_GIVEN], EVERYWHERE)
    text = text.partition("table bridge hostler {")[0]
    host.run(_nft, "flush ruleset\n" + text + foreign + "\n")


def _nft(text: str) -> None:
    from hostlerd.firewall.kernel.tool import run

    answer = run(["/usr/sbin/nft", "-f", "-"], text.encode())
    assert answer.status == 0, answer.errors


def _passed(host: Host) -> set[tuple[int, str, int]]:
    told = json.loads(host.exec("/usr/sbin/nft", "-j", "list", "table", "inet", "witness"))
    sets = {e["set"]["name"]: e["set"].get("elem", []) for e in told["nftables"] if "set" in e}
    found = {
        (4 if proto == "ipv4" else 6, kind, port)
        for proto, kind, port in (e["concat"] for e in sets["passed"])
    }
    found |= {(4, "icmp", number) for number in sets["echoed"]}
    return found | {(6, "icmp", number) for number in sets["echoed6"]}


def _counted(host: Host) -> Tally[str]:
    """What each rule of ours has counted, by its label."""
    found: Tally[str] = Tally()
    for rule in host.nft_rules():
        counters = [e["counter"]["packets"] for e in rule["expr"] if "counter" in e]
        if "comment" in rule and counters:
            found[rule["comment"].split(" ")[0]] += counters[0]
    return found


def _believed(host: Host, probes: list[Probe]) -> dict[Probe, Explanation]:
    def look() -> tuple[explain_tables.Tables, dict[int, Routes]]:
        return explain_tables.read(observed.tables()), {v: observed.routes(v) for v in (4, 6)}

    tables, routes = host.run(look)
    return {p: explain(tables, routes[p.version], p.packet()) for p in probes}


def _dense(number: int) -> Ruleset:
    """A ruleset whose rules nearly every packet meets, several of them."""
    random = Random(number)  # noqa: S311 - not for secrets
    rules: list[dict[str, object]] = []
    for index in range(30):
        rule: dict[str, object] = {
            "id": f"r{index}",
            "hook": random.choice(_PATHS),
            "action": random.choice(("accept", "drop")),
        }
        if random.random() < 0.8:
            first = random.randint(1, 19000)
            ports = [{"first": first, "last": min(19999, first + random.randint(0, 9000))}]
            rule |= {"protocol": random.choice(("tcp", "udp")), "destination_ports": ports}
        if "protocol" not in rule or random.random() < 0.5:
            rule["sources"] = [random.choice((*_CLIENT.values(), *_HOST.values()))]
        rules.append(rule)
    return parse({"name": "dense", "rules": rules})


_pairs = {"compared": 0, "unknown": 0, "passed": 0, "deciders": 0, "exact": 0}


@pytest.fixture(scope="module")
def tally() -> Iterator[dict[str, int]]:
    yield _pairs
    print(_pairs)


@seed(9)
@settings(
    deadline=None,
    max_examples=_RULESETS,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    ruleset=rulesets() | st.integers(0, 1 << 30).map(_dense),
    foreign=st.sampled_from(_FOREIGN),
    number=st.integers(0, 1 << 30),
)
def test_real_packets_do_as_explained(
    network: tuple[Host, Host, Host],
    tally: dict[str, int],
    ruleset: Ruleset,
    foreign: str,
    number: int,
) -> None:
    client, host, _ = network
    random = Random(number)  # noqa: S311 - not for secrets
    sports = [next(_NUMBERS) for _ in range(_PACKETS)]
    edges = [p.first for r in ruleset.rules for p in r.destination_ports]
    edges += [f.port for f in ruleset.forwards] + [f.port for f in ruleset.redirects]
    # No answer may look like a packet of ours.
    edges = [e for e in edges if e not in sports]
    probes = [
        Probe(
            path=random.choice(_PATHS),
            version=random.choice((4, 6)),
            protocol=random.choice(("tcp", "udp", "icmp")),
            sport=sport,
            dport=random.choice([*edges, random.randint(1, 19999)]),
        )
        for sport in sports
    ]
    _load(host, ruleset, foreign)
    found = _believed(host, probes)
    host.run(_nft, _WITNESS)
    known = [p for p in probes if found[p].verdict is not Verdict.UNKNOWN]
    client.run(_send, [p for p in known if p.path != "output"])
    host.run(_send, [p for p in known if p.path == "output"])
    time.sleep(0.02)
    passed = _passed(host)
    _compare_deciders(tally, [found[p] for p in known], _counted(host))
    for probe in probes:
        told = found[probe]
        tally["compared"] += told.verdict is not Verdict.UNKNOWN
        tally["unknown"] += told.verdict is Verdict.UNKNOWN
        if told.verdict is Verdict.UNKNOWN:
            continue
        really = (probe.version, probe.protocol, probe.sport) in passed
        tally["passed"] += really
        assert really == (told.verdict is Verdict.ACCEPT), f"{probe} {told}"


def _compare_deciders(tally: dict[str, int], told: list[Explanation], counted: Tally[str]) -> None:
    """A rule has counted exactly the packets that it is said to have met."""
    met = Tally(m.rule for each in told for m in each.met if m.rule)
    # What the host says when it rejects goes through its own output chain.
    answers = any(each.verdict is Verdict.REJECT for each in told)
    for label in {each.decided_by.rule for each in told if each.decided_by.rule}:
        decided = sum(each.decided_by.rule == label for each in told)
        tally["deciders"] += decided
        if answers:
            assert counted[label] >= decided, label
        else:
            assert counted[label] == met[label], f"{label} {counted} {met}"
            tally["exact"] += decided


def test_enough_was_compared(tally: dict[str, int]) -> None:
    assert tally["compared"] >= _RULESETS * _PACKETS * 0.9
    assert 0 < tally["passed"] < tally["compared"]
    assert tally["exact"] >= _RULESETS * _PACKETS * 0.2
