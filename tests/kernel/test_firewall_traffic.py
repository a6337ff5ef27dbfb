"""Real packets through real rulesets, between network namespaces."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from firewall_topology import Network, address, hosts

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
KINDS = {"tcp": TCP, "udp": UDP}
UP4, UP6 = "198.51.100.1", "2001:db8:1::1"
WEB4, WEB6 = "10.213.0.2", "fd13::2"
OUT4, OUT6 = "198.51.100.2", "2001:db8:1::2"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with hosts("router", "client", "web", "two", "far") as names:
        yield Network(names, tmp_path)


def forward(kind: str, port: int, target: str, target_port: int, **more: Any) -> dict[str, Any]:
    return {
        "protocol": kind,
        "port": port,
        "target_address": target,
        "target_port": target_port,
        **more,
    }


def published(kind: str) -> list[dict[str, Any]]:
    return [forward(kind, 8080, WEB4, 8000), forward(kind, 8080, WEB6, 8000)]


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("bridge_nf", ["0", "1"])
def test_forward_works_from_everywhere(net: Network, kind: str, bridge_nf: str) -> None:
    for family in ("iptables", "ip6tables"):
        net.router.sysctl(f"net.bridge.bridge-nf-call-{family}", bridge_nf)
    plan = net.router.apply(name="web", forwards=published(kind))
    # A bridge that hands frames to nft sends none back by the port it came by, unless told to.
    assert [n.code for n in plan.notices] == ["BRIDGED_HAIRPIN"] * 2 * int(bridge_nf)
    if bridge_nf == "1":
        net.router.ip("link", "set", "p2", "type", "bridge_slave", "hairpin", "on")
    with net.web.serving(8000, "web", KINDS[kind]):
        for up, outside, inside in ((UP4, OUT4, "10.213.0.1"), (UP6, OUT6, "fd13::1")):
            # From outside: the target sees who it is.
            assert net.client.fetch(up, 8080, KINDS[kind]) == f"web saw {outside}"
            # From the router itself, by any of its addresses but loopback.
            assert net.router.fetch(up, 8080, KINDS[kind]) == f"web saw {inside}"
            assert net.router.fetch(inside, 8080, KINDS[kind]) == f"web saw {inside}"
            # Hairpin: from the target itself and from its neighbour on the same bridge.
            assert net.web.fetch(up, 8080, KINDS[kind]) == f"web saw {inside}"
            assert net.two.fetch(up, 8080, KINDS[kind]) == f"web saw {inside}"
        # From another inside network: no hairpin, so the target sees who it is.
        assert net.far.fetch(UP4, 8080, KINDS[kind]) == "web saw 10.214.0.2"
        assert net.far.fetch(UP6, 8080, KINDS[kind]) == "web saw fd14::2"
        loopback = "refused" if kind == "tcp" else ("refused", "")
        assert net.router.fetch("127.0.0.1", 8080, KINDS[kind]) in loopback
    assert net.router.labels() == [f"web/forward-{kind}-8080"] * 4


def test_forward_of_certain_addresses_and_sources(net: Network) -> None:
    net.router.ip("addr", "add", "198.51.100.7/24", "dev", "eth0")
    only = forward("tcp", 8080, WEB4, 8000, addresses=["198.51.100.7"])
    some = forward("tcp", 9090, WEB4, 8000, sources=["10.214.0.0/24"])
    net.router.apply(name="web", forwards=[only, some])
    with net.web.serving(8000, "web"):
        assert net.client.fetch("198.51.100.7", 8080) == f"web saw {OUT4}"
        assert net.client.fetch(UP4, 8080) == "refused"
        assert net.far.fetch(UP4, 9090) == "web saw 10.214.0.2"
        assert net.client.fetch(UP4, 9090) == "refused"


def test_forward_of_one_link_is_not_the_host_s_own(net: Network) -> None:
    outside = forward("tcp", 8080, WEB4, 8000, in_ifname="eth0")
    inside = forward("tcp", 8080, WEB4, 8001, in_ifname="v3")
    net.router.apply(name="web", forwards=[outside, inside])
    with net.web.serving(8000, "web"), net.web.serving(8001, "other"):
        assert net.client.fetch(UP4, 8080) == f"web saw {OUT4}"
        assert net.far.fetch(UP4, 8080) == "other saw 10.214.0.2"
        assert net.router.fetch(UP4, 8080) == "refused"


def test_isolated_network_is_reached_by_forwards_alone(net: Network) -> None:
    isolated = ["10.213.0.0/24", "fd13::/64", "10.214.0.0/24", "fd14::/64"]
    masquerades = [{"source": n, "uplink": "eth0"} for n in isolated]
    net.router.sysctl("net.bridge.bridge-nf-call-iptables", "0")
    net.router.apply(
        name="web",
        forwards=published("tcp"),
        isolated_networks=isolated,
        masquerades=masquerades,
    )
    with (
        net.web.serving(8000, "web"),
        net.web.serving(22, "ssh"),
        net.two.serving(22, "ssh"),
        net.client.serving(80, "out"),
    ):
        assert net.client.fetch(UP4, 8080) == f"web saw {OUT4}"
        assert net.client.fetch(UP6, 8080) == f"web saw {OUT6}"
        # Straight in, whatever the port, even the one that is forwarded to.
        for inside in (WEB4, WEB6):
            assert net.client.fetch(inside, 22) == ""
            assert net.client.fetch(inside, 8000) == ""
            # Nor from another isolated network, except by the forward.
            assert net.far.fetch(inside, 22) == ""
        assert net.far.fetch(UP4, 8080) == "web saw 10.214.0.2"
        assert net.web.fetch(UP4, 8080) == "web saw 10.213.0.1"
        # Outbound is open, under the router's address; answers come back.
        assert net.web.fetch(OUT4, 80) == f"out saw {UP4}"
        assert net.web.fetch(OUT6, 80) == f"out saw {UP6}"
        # Neighbours on one bridge do not pass through the host, also where the bridge asks nft.
        net.router.sysctl("net.bridge.bridge-nf-call-iptables", "1")
        assert net.web.fetch("10.213.0.3", 22) == "ssh saw 10.213.0.2"
    dropped = [r for r in net.router.nft_rules() if r.get("comment") == "web/isolated-1"]
    assert dropped[0]["expr"][1]["counter"]["packets"] > 0


def test_isolated_network_believes_no_forged_source(net: Network) -> None:
    net.router.apply(name="web", isolated_networks=["10.213.0.0/24"])
    for check in ("all", "eth0"):
        net.router.sysctl(f"net.ipv4.conf.{check}.rp_filter", "0")
    net.client.ip("addr", "add", "10.213.0.99/32", "dev", "lo")

    def shout() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("10.213.0.99", 0))
            s.sendto(b"?", (WEB4, 53))

    with net.web.run(lambda: socket.create_server((WEB4, 1))):
        ear = net.web.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with ear:
            ear.bind((WEB4, 53))
            ear.settimeout(0.5)
            net.client.run(shout)
            with pytest.raises(TimeoutError):
                ear.recv(10)


def test_masquerade_on_a_host_with_one_link(net: Network) -> None:
    """LAN and way out are on one link: two subnets of it, the router in both."""
    net.router.apply(
        name="lan",
        masquerades=[
            {"source": "10.213.0.0/24", "uplink": "br0"},
            {"source": "fd13::/64"},
        ],
    )
    address(net.router, "br0", "203.0.113.1/24", "2001:db8:2::1/64")
    address(net.two, "eth0", "203.0.113.3/24", "2001:db8:2::3/64")
    net.two.ip("addr", "del", "10.213.0.3/24", "dev", "eth0")
    net.two.ip("addr", "del", "fd13::3/64", "dev", "eth0")
    # Without redirects the client keeps to its router.
    net.router.sysctl("net.ipv4.conf.br0.send_redirects", "0")
    net.router.sysctl("net.ipv4.conf.all.send_redirects", "0")
    with net.two.serving(80, "out"):
        assert net.web.fetch("203.0.113.3", 80) == "out saw 203.0.113.1"
        assert net.web.fetch("2001:db8:2::3", 80) == "out saw 2001:db8:2::1"


@pytest.mark.parametrize(("policy", "answer"), [("drop", ""), ("reject", "refused")])
def test_input_policy_keeps_the_host_reachable(net: Network, policy: str, answer: str) -> None:
    allowed = {
        "hook": "input",
        "action": "accept",
        "protocol": "tcp",
        "sources": ["198.51.100.0/24"],
        "destination_ports": [{"first": 90, "last": 99}],
    }
    net.router.apply(name="base", input_policy=policy, rules=[allowed])
    with net.router.serving(22, "ssh"), net.router.serving(95, "ok"), net.router.serving(7441, "h"):
        for up in (UP4, UP6):
            assert net.client.fetch(up, 22) == answer
            assert net.client.fetch(up, 7441).startswith("h saw")
        assert net.client.fetch(UP4, 95) == f"ok saw {OUT4}"
        assert net.client.fetch(UP6, 95) == answer
        # Loopback, answers to the host's own questions, ping and neighbour discovery.
        assert net.router.fetch("127.0.0.1", 22) == "ssh saw 127.0.0.1"
        net.router.ip("-6", "neigh", "flush", "dev", "eth0")
        for up in (UP4, UP6):
            net.client.exec("/usr/bin/ping", "-c1", "-W2", up)
        with net.client.serving(80, "out"):
            assert net.router.fetch(OUT6, 80) == f"out saw {UP6}"


def test_forward_policy_and_rules_in_order(net: Network) -> None:
    rules = [
        {"hook": "forward", "action": "drop", "sources": [f"{OUT4}/32"], "in_ifname": "eth0"},
        {
            "hook": "forward",
            "action": "accept",
            "protocol": "tcp",
            "destination_ports": [{"first": 22}],
        },
    ]
    net.router.apply(
        name="base",
        forward_policy="reject",
        rules=rules,
        forwards=published("tcp"),
        masquerades=[{"source": "10.213.0.0/24", "uplink": "eth0"}],
    )
    with net.web.serving(8000, "web"), net.web.serving(22, "ssh"), net.client.serving(80, "out"):
        # The first rule decides over the forward too; IPv6 it does not concern.
        assert net.client.fetch(UP4, 8080) == ""
        assert net.client.fetch(UP6, 8080) == f"web saw {OUT6}"
        assert net.client.fetch(WEB6, 22) == f"ssh saw {OUT6}"
        assert net.client.fetch(WEB6, 8000) == "refused"
        # What is masqueraded may leave.
        assert net.web.fetch(OUT4, 80) == f"out saw {UP4}"


def test_replaces_lose_no_packet_and_keep_counters(net: Network) -> None:
    net.router.sysctl("net.ipv4.ip_forward", "1")
    counted = {"id": "flood", "hook": "forward", "action": "accept", "protocol": "udp"}
    net.router.apply(name="web", rules=[counted])
    sent = received = 0
    ear = net.web.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    ear.bind((WEB4, 9000))
    ear.settimeout(0.5)
    mouths = [net.client.run(lambda: socket.socket(socket.AF_INET, UDP)) for _ in range(50)]
    done = threading.Event()

    def flood() -> None:
        nonlocal sent
        while not done.is_set():
            # Each source port is a connection of its own; with no answer, each packet is new.
            mouths[sent % 50].sendto(b"x", (WEB4, 9000))
            sent += 1
            time.sleep(0.0001)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for number in range(20):
            other = {"hook": "forward", "action": "drop", "sources": [f"192.0.2.{number}/32"]}
            assert net.router.apply(name="other", rules=[other]).steps
    finally:
        done.set()
        thread.join()
    with ear:
        try:
            while ear.recv(10):
                received += 1
        except TimeoutError:
            pass
    for mouth in mouths:
        mouth.close()
    assert sent > 500
    assert received == sent
    rule = next(r for r in net.router.nft_rules() if r.get("comment") == "web/flood")
    told = next(e["counter"]["packets"] for e in rule["expr"] if "counter" in e)
    # What passes between the reading of the counters and the replacing is not counted.
    assert 0.5 * sent < told <= sent


def test_established_connection_lives_through_replace(net: Network) -> None:
    net.router.apply(
        name="web", forwards=published("tcp"), isolated_networks=["10.213.0.0/24", "fd13::/64"]
    )
    with net.web.run(lambda: socket.create_server((WEB4, 8000))) as server:
        client = net.client.run(lambda: socket.create_connection((UP4, 8080), 2))
        peer, _ = server.accept()
        with client, peer:
            net.router.apply(name="other", priority=1, input_policy="drop", forward_policy="drop")
            net.router.delete("web")
            net.router.apply(name="web", forwards=published("tcp"))
            client.settimeout(2)
            client.sendall(b"still there")
            assert peer.recv(20) == b"still there"
