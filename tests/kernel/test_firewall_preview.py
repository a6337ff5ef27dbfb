"""ExplainPacket on a real kernel, and each expression as the real nft writes it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from firewall_in_place import InPlace
from firewall_topology import Router, address, hosts
from journal_backing import backed

from hostler.api.firewall.v1 import explain_pb2 as pb
from hostler.api.firewall.v1 import ruleset_pb2
from hostlerd.firewall.kernel.tool import run
from hostlerd.firewall.model.explain import Explanation, Packet, Route, RouteRule, Routes
from hostlerd.firewall.plan import explain_tables
from hostlerd.firewall.plan.explain_walk import explain
from hostlerd.firewall.service.preview import PreviewService
from hostlerd.runtime.errors import InvalidRequest

pytestmark = pytest.mark.kernel

ROUTES = Routes(
    routes=(
        Route("local", ip_network("10.0.0.1/32"), "local", "a0"),
        Route("main", ip_network("10.0.0.0/24"), ifname="a0"),
        Route("main", ip_network("10.1.0.0/24"), ifname="b0"),
    ),
    rules=(RouteRule(0, "local"), RouteRule(32766, "main")),
    addresses={"a0": ((ip_address("10.0.0.1"), 24),), "b0": ((ip_address("10.1.0.1"), 24),)},
    forwarding=True,
)
TCP = Packet(ip_address("10.0.0.2"), ip_address("10.1.0.2"), 6, 49152, 80)


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    with hosts("router") as names:
        made = Router(names[0])
        folder: Path = tmp_path_factory.mktemp("router")
        made.install(folder / "state", folder / "run")
        made.ip("link", "add", "a0", "type", "veth", "peer", "name", "a1")
        made.ip("link", "set", "a0", "up")
        made.ip("link", "set", "a1", "up")
        address(made, "a0", "10.0.0.1/24")
        yield made


def listed(router: Router, rules: str, *more: str) -> explain_tables.Tables:
    chain = f"chain c {{\ntype filter hook forward priority 0\n{rules}\n}}"
    text = "\n".join(["flush ruleset", "table inet t {", *more, chain, "}", ""])
    answer = router.run(lambda: run(["/usr/sbin/nft", "-f", "-"], text.encode()))
    assert answer.status == 0, answer.errors
    told = json.loads(router.exec("/usr/sbin/nft", "-j", "list", "ruleset"))
    router.exec("/usr/sbin/nft", "flush", "ruleset")
    return explain_tables.read(told["nftables"])


def explained(router: Router, rules: str, *more: str, packet: Packet = TCP) -> Explanation:
    return explain(listed(router, rules, *more), ROUTES, packet)


SETS = (
    "set s { type ipv4_addr; flags interval;"
    " elements = { 10.0.0.0/28, 192.168.1.5-192.168.1.9 }; }",
    "set e { type ipv4_addr; }",
    "set c { type ipv4_addr . inet_proto . inet_service; flags interval;"
    " elements = { 10.0.0.0/8 . tcp . 80-90 }; }",
    "map m { type ipv4_addr : verdict; elements = { 10.0.0.2 : drop }; }",
    "chain back { return; }",
    "chain shut { drop; }",
)


@pytest.mark.parametrize(
    "match",
    [
        'iifname "a0"', 'iifname "a*"', 'iifname { "x", "a*" }', 'oifname "b0"', 'oifname != "a0"',
        "meta l4proto tcp", "meta l4proto { udp, tcp }", "meta nfproto ipv4", "meta protocol ip",
        "ip protocol tcp", "meta mark 0", "meta mark & 0xff == 0", "meta mark < 5",
        "ip saddr 10.0.0.2", "ip saddr 10.0.0.0/8", "ip daddr != 10.0.0.0/24", "ip saddr @s",
        "ip saddr != @e", "ip saddr . meta l4proto . th dport @c",
        "ip saddr 10.0.0.1-10.0.0.9", "tcp dport { 22, 80-90 }", "tcp dport 79-81",
        "tcp dport > 79",
        "tcp dport <= 80", "tcp dport != { 22, 443 }", "th dport 80", "tcp flags syn",
        "tcp flags & (fin|syn|rst|ack) == syn", "ct state new", "ct state { new, related }",
        "ct state != established", "ct mark 0", "ct direction original",
        "fib daddr type unicast", "fib saddr . iif oif exists", "meta time < 4000000000",
        "limit rate 1/second", "meta mark set 6 meta mark & 2 == 2",
    ],
)  # fmt: skip
def test_what_matches(router: Router, match: str) -> None:
    assert explained(router, f"{match} counter drop", *SETS).verdict.value == "drop"


@pytest.mark.parametrize(
    "match",
    [
        'iifname "b0"', 'iifname "b*"', 'oifname "a0"', "meta l4proto udp", "meta nfproto ipv6",
        "ip6 saddr != fe80::1", "ip saddr != 10.0.0.0/8", "ip saddr @e", "ip saddr != @s",
        "ip daddr . meta l4proto . th dport { 10.1.0.2 . udp . 80 }", "udp dport 80",
        "udp dport != 1", "tcp dport 81-90", "icmp type echo-request", "ct state established",
        "ct status dnat", "fib daddr type local", "fib daddr . iif oif exists",
        "limit rate over 1/second", "tcp flags & (syn|ack) == ack", "meta mark 1",
    ],
)  # fmt: skip
def test_what_does_not_match(router: Router, match: str) -> None:
    found = explained(router, f"{match} counter drop", *SETS)
    assert (found.verdict.value, found.decided_by.does) == ("accept", "policy accept")


@pytest.mark.parametrize(
    "match", ["ip ttl 3", "meta skuid 7", "ether saddr 00:11:22:33:44:55", "ip dscp cs1"]
)
def test_what_is_not_known(router: Router, match: str) -> None:
    found = explained(router, f"{match} counter drop")
    assert found.verdict.value == "unknown"
    assert found.decided_by.unknown
    assert explained(router, f"{match} drop\ndrop").verdict.value == "drop"
    assert explained(router, f"{match} counter\ntcp dport 80 accept").verdict.value == "accept"
    assert explained(router, f"{match} udp dport 1 drop").verdict.value == "accept"


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        ("jump back\nreject", "reject"),
        ("goto back\nreject", "accept"),
        ("jump shut", "drop"),
        ("ip saddr vmap @m", "drop"),
        ("ip daddr vmap { 10.1.0.2 : jump shut }", "drop"),
        ("tcp dport vmap { 80-90 : accept }\ndrop", "accept"),
        ("return\ndrop", "accept"),
    ],
)
def test_verdicts(router: Router, rules: str, verdict: str) -> None:
    assert explained(router, rules, *SETS).verdict.value == verdict


def test_what_is_rewritten(router: Router) -> None:
    nat = (
        "chain n { type nat hook prerouting priority -100; ip daddr 10.0.0.1 tcp dport 80"
        " dnat ip to 10.1.0.9:8080; }",
        "chain p { type nat hook postrouting priority 100; masquerade; }",
    )
    packet = Packet(TCP.source, ip_address("10.0.0.1"), 6, 49152, 80)
    found = explained(router, "ct status dnat ip daddr 10.1.0.9 accept\ndrop", *nat, packet=packet)
    assert (found.verdict.value, found.path, found.out_ifname) == ("accept", "forward", "b0")
    assert (found.rewritten_destination, found.rewritten_source) == ("10.1.0.9:8080", "10.1.0.1")


def ask(router: Router, tmp_path: Path, request: pb.ExplainPacketRequest) -> Any:
    runtime: Any = InPlace()
    changes = backed(router.kernel, tmp_path / "backing", runtime.blocking)
    service = PreviewService(runtime, router.kernel, changes)
    context: Any = None
    return router.run(lambda: asyncio.run(service.ExplainPacket(request, context)))


def test_now_and_then(router: Router, tmp_path: Path) -> None:
    shut = ruleset_pb2.Ruleset(name="shut", input_policy=ruleset_pb2.ACTION_DROP)
    packet = pb.Packet(source="10.0.0.2", destination="10.0.0.1", destination_port=80)
    request = pb.ExplainPacketRequest(packet=packet, rulesets=[shut])
    found = ask(router, tmp_path, request)
    assert (found.now.verdict, found.now.path) == (pb.VERDICT_ACCEPT, "input")
    assert found.then.verdict == pb.VERDICT_DROP
    assert found.then.decided_by.does == "policy drop"
    assert router.nft_rules() == []
    router.exec("/usr/sbin/nft", "table inet x { chain y { type filter hook input priority 1; }; }")
    router.exec("/usr/sbin/nft", "add rule inet x y tcp dport 80 drop")
    found = ask(router, tmp_path, request)
    router.exec("/usr/sbin/nft", "flush", "ruleset")
    assert found.now.decided_by.table == "inet x"


def test_bad_packets(router: Router, tmp_path: Path) -> None:
    bad = pb.Packet(source="x", destination="::1%a", destination_port=70000, in_ifname="a" * 16)
    with pytest.raises(InvalidRequest) as refused:
        ask(router, tmp_path, pb.ExplainPacketRequest(packet=bad))
    assert [v.field for v in refused.value.violations] == [
        "packet.source",
        "packet.destination",
        "packet.destination_port",
        "packet.in_ifname",
    ]


def test_chains_are_met_by_priority(router: Router) -> None:
    late = "chain late { type filter hook forward priority 9; meta mark 7 drop; }"
    early = "chain early { type filter hook forward priority -9; meta mark set 7; }"
    assert explained(router, "accept", late, early).verdict.value == "drop"
    assert explained(router, "meta mark 7 reject", late, early).verdict.value == "reject"


FORBIDDEN = r"""
import asyncio, json, subprocess, sys
from pathlib import Path
from hostler.api.firewall.v1 import explain_pb2 as pb, ruleset_pb2
from hostlerd.firewall.kernel import Kernel
from hostlerd.firewall.service.preview import PreviewService

class InPlace:
    async def blocking(self, work, /, *args):
        return work(*args)

subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
# The bound is that of the user namespace which this runs in, and holds for those below it.
Path("/proc/sys/user/max_user_namespaces").write_text("0")
service = PreviewService(InPlace(), Kernel({}, Path("/nowhere"), Path("/nowhere")), None)
packet = pb.Packet(source="127.0.0.1", destination="127.0.0.1", destination_port=80)
shut = ruleset_pb2.Ruleset(name="shut", input_policy=ruleset_pb2.ACTION_DROP)
request = pb.ExplainPacketRequest(packet=packet, rulesets=[shut])
found = asyncio.run(service.ExplainPacket(request, None))
print(found.now.verdict, found.HasField("then"), found.then_unknown)
"""


def test_without_a_scratch_namespace_it_says_so() -> None:
    """A host whose administrator forbids user namespaces: how it is, is told all the same."""
    done = subprocess.run(
        ["/usr/bin/unshare", "-Urn", sys.executable, "-c", FORBIDDEN],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith(f"{pb.VERDICT_ACCEPT} False no scratch namespace: "), done.stderr
