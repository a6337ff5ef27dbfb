"""What rules can say, by real packets: sets, zones, rates, ends, NAT, bridges, shadows."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from firewall_topology import Network, hosts

from hostlerd.firewall import __main__ as daemon
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.plan import change

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

UP4, UP6 = "198.51.100.1", "2001:db8:1::1"
WEB4, WEB6 = "10.213.0.2", "fd13::2"
OUT4, OUT6 = "198.51.100.2", "2001:db8:1::2"
UDP = socket.SOCK_DGRAM
OFFICE = {"name": "office", "elements": ["198.51.100.2", "2001:db8:1::/64", "10.9.0.1-10.9.0.7"]}


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with hosts("router", "client", "web", "two", "far") as names:
        yield Network(names, tmp_path)


def accept(hook: str = "input", **more: Any) -> dict[str, Any]:
    return {"hook": hook, "action": "accept", **more}


def drop(hook: str = "input", **more: Any) -> dict[str, Any]:
    return {"hook": hook, "action": "drop", **more}


def tcp(first: int, last: int = 0) -> dict[str, Any]:
    return {"protocol": "tcp", "destination_ports": [{"first": first, "last": last}]}


def test_sets_and_services_say_who_may_do_what(net: Network) -> None:
    net.router.apply(
        name="base",
        input_policy="drop",
        address_sets=[OFFICE],
        services=[
            {
                "name": "app",
                "ports": [
                    {"protocol": "tcp", "ports": {"first": 9000, "last": 9001}},
                    {"protocol": "udp", "ports": {"first": 9000}},
                ],
            }
        ],
        rules=[accept(services=["ssh", "app"], source_sets=["office"], sources=["10.214.0.0/24"])],
    )
    with (
        net.router.serving(22, "ssh"),
        net.router.serving(9001, "app"),
        net.router.serving(9000, "app", UDP),
        net.router.serving(9002, "other"),
    ):
        for up, me in ((UP4, OUT4), (UP6, OUT6)):
            assert net.client.fetch(up, 22) == f"ssh saw {me}"
            assert net.client.fetch(up, 9001) == f"app saw {me}"
            assert net.client.fetch(up, 9000, UDP) == f"app saw {me}"
            assert net.client.fetch(up, 9002) == ""
        # By its network, not by the set; and IPv6 has neither.
        assert net.far.fetch("10.214.0.1", 22) == "ssh saw 10.214.0.2"
        assert net.far.fetch("fd14::1", 22) == ""
        assert net.web.fetch("10.213.0.1", 22) == ""


def test_zones_are_links_that_may_come_later(net: Network) -> None:
    net.router.apply(
        name="base",
        forward_policy="drop",
        zones=[{"name": "lan", "ifnames": ["br*"]}, {"name": "wan", "ifnames": ["late0"]}],
        rules=[accept("forward", in_zone="lan", out_zone="wan")],
    )
    net.router.sysctl("net.ipv4.ip_forward", "1")
    with net.client.serving(80, "out"):
        assert net.web.fetch(OUT4, 80) == ""
        net.router.ip("link", "set", "eth0", "down")
        net.router.ip("link", "set", "eth0", "name", "late0")
        net.router.ip("link", "set", "late0", "up")
        assert net.web.fetch(OUT4, 80) == f"out saw {WEB4}"
        assert net.far.fetch(OUT4, 80) == ""


def test_output_policy_lets_out_what_rules_say(net: Network) -> None:
    net.router.apply(
        name="base",
        output_policy="drop",
        rules=[accept("output", **tcp(80), destinations=[f"{OUT4}/32"])],
    )
    with (
        net.client.serving(80, "web"),
        net.client.serving(81, "other"),
        net.router.serving(22, "ssh"),
    ):
        assert net.router.fetch(OUT4, 80) == f"web saw {UP4}"
        assert net.router.fetch(OUT4, 81) in ("", "error 1")
        assert net.router.fetch(OUT6, 80) in ("", "error 1")
        # Answers to what came in go out.
        assert net.client.fetch(UP4, 22) == f"ssh saw {OUT4}"


def test_redirect_and_source_nat(net: Network) -> None:
    net.router.ip("addr", "add", "198.51.100.9/24", "dev", "eth0")
    net.router.apply(
        name="nat",
        input_policy="drop",
        redirects=[{"protocol": "tcp", "port": 80, "to_port": 3128, "in_ifname": "br0"}],
        source_nats=[
            {"source": "10.213.0.0/24", "uplink": "eth0", "to_address": "198.51.100.9"},
            {"source": "fd13::/64", "uplink": "eth0", "to_address": UP6},
        ],
    )
    with (
        net.client.serving(80, "origin"),
        net.client.serving(81, "origin"),
        net.router.serving(3128, "proxy"),
    ):
        # Whatever address was asked for, the host answers; from elsewhere it does not.
        assert net.web.fetch(OUT4, 80) == f"proxy saw {WEB4}"
        assert net.web.fetch(OUT6, 80) == f"proxy saw {WEB6}"
        assert net.client.fetch(UP4, 3128) == ""
        assert net.web.fetch(OUT4, 81) == "origin saw 198.51.100.9"
        assert net.web.fetch(OUT6, 81) == f"origin saw {UP6}"
    assert {"nat/redirect-tcp-80", "nat/source-nat-1"} <= set(net.router.labels())


def test_states_and_rates(net: Network) -> None:
    net.router.apply(
        name="base",
        rules=[
            accept(
                id="some",
                protocol="udp",
                destination_ports=[{"first": 53}],
                limit={"packets": 1, "unit": "hour", "burst_packets": 5},
            ),
            drop(id="rest", protocol="udp", destination_ports=[{"first": 53}]),
            drop(id="strange", protocol="tcp", connection_states=["invalid"]),
        ],
    )

    def shout(count: int) -> None:
        for _ in range(count):
            with socket.socket(socket.AF_INET, UDP) as s:
                s.sendto(b"?", (UP4, 53))

    net.client.run(shout, 20)
    counted = {
        r["comment"]: next(e["counter"]["packets"] for e in r["expr"] if "counter" in e)
        for r in net.router.nft_rules()
        if "comment" in r
    }
    assert counted["base/some"] == 5
    assert counted["base/rest"] == 15


def test_a_rule_ends_by_itself_and_is_taken_away(net: Network) -> None:
    end = int(time.time()) + 3
    net.router.apply(
        name="base",
        input_policy="drop",
        rules=[accept(**tcp(22), expire_time=end), accept(**tcp(23))],
    )
    kernel = net.router.kernel
    assert 0 < (net.router.run(kernel.due) or 0) <= 3
    with net.router.serving(22, "ssh"), net.router.serving(23, "telnet"):
        assert net.client.fetch(UP4, 22) == f"ssh saw {OUT4}"
        time.sleep(max(0.0, end + 1 - time.time()))
        # The kernel asks it no more, whether anybody takes it away or not.
        assert net.client.fetch(UP4, 22) == ""
        assert "base/rule-1" in net.router.labels()
        done = net.router.run(daemon.upkeep, kernel)
        assert any("remove rule rule-1" in words for words in done)
        assert "base/rule-1" not in net.router.labels()
        assert net.router.run(kernel.due) is None
        assert net.router.run(daemon.upkeep, kernel) == ()
        assert net.client.fetch(UP4, 22) == ""
        # The other one stays, and its name with it.
        assert net.client.fetch(UP4, 23) == f"telnet saw {OUT4}"
        assert "base/rule-2" in net.router.labels()


def test_forced_rules_shut_out_hostler_itself(net: Network) -> None:
    with net.router.serving(7443, "hostler"):
        closing = drop(**tcp(7441, 7445))
        net.router.apply(name="base", rules=[closing])
        assert net.client.fetch(UP4, 7443) == f"hostler saw {OUT4}"
        net.router.apply(name="base", rules=[closing], closes_management=True)
        assert net.client.fetch(UP4, 7443) == ""


def test_a_fragment_stands_where_it_says(net: Network) -> None:
    net.router.apply(
        name="base",
        input_policy="drop",
        rules=[accept(**tcp(22)), accept(**tcp(23))],
        fragments=[
            {
                "id": "own",
                "place": "input_before",
                "nft_rules": "tcp dport 22 counter drop\ntcp dport { 24, 25 } accept",
            }
        ],
    )
    with (
        net.router.serving(22, "ssh"),
        net.router.serving(23, "telnet"),
        net.router.serving(24, "mail"),
    ):
        assert net.client.fetch(UP4, 22) == ""
        assert net.client.fetch(UP4, 23) == f"telnet saw {OUT4}"
        assert net.client.fetch(UP4, 24) == f"mail saw {OUT4}"
        # A change of another ruleset keeps it.
        net.router.apply(name="web", rules=[accept(**tcp(80))])
        assert net.client.fetch(UP4, 22) == ""
    assert net.router.labels().count("base/fragment-own") == 2


def test_helpers_are_given_to_connections(net: Network) -> None:
    net.router.apply(name="base", helpers=[{"helper": "ftp", "protocol": "tcp", "port": 21}])
    with net.router.serving(21, "ftp"):
        assert net.client.fetch(UP4, 21) == f"ftp saw {OUT4}"
        listed = net.router.exec("/usr/sbin/conntrack", "-L", "-p", "tcp", "--dport", "21")
    assert "helper=ftp" in listed


def shadow_packets(net: Network) -> dict[str, int]:
    counters = net.router.run(net.router.kernel.shadow_counters)
    return {key.label: counter.packets for key, counter in counters.items()}


def test_the_shadow_counts_and_drops_nothing(net: Network) -> None:
    router = net.router
    router.sysctl("net.ipv4.ip_forward", "1")
    router.apply(name="base", rules=[accept(**tcp(22))])
    planned = parse(
        {
            "name": "base",
            "input_policy": "drop",
            "rules": [accept(**tcp(22)), drop(id="no", **tcp(23)), drop("forward", id="far")],
        }
    )
    end = int(time.time()) + 15

    def start() -> None:
        plan = change.start_shadow({"ruleset": planned}, (), end, router.kernel.observe())
        router.kernel.check_shadow(plan.result.text)
        with router.kernel.applying() as apply:
            for step in plan.steps:
                apply(step)

    router.run(start)
    with (
        router.serving(22, "ssh"),
        router.serving(23, "telnet"),
        router.serving(24, "other"),
        net.web.serving(80, "web"),
    ):
        assert net.client.fetch(UP4, 22) == f"ssh saw {OUT4}"
        assert net.client.fetch(UP4, 23) == f"telnet saw {OUT4}"
        assert net.client.fetch(UP4, 24) == f"other saw {OUT4}"
        assert net.client.fetch(WEB4, 80) == f"web saw {OUT4}"
        counted = shadow_packets(net)
        assert counted["base/no"] >= 1
        assert counted["base/policy-input"] >= 1
        assert counted["base/far"] >= 1
        assert counted["base/rule-1"] >= 1
        time.sleep(max(0.0, end + 1 - time.time()))
        before = shadow_packets(net)["base/no"]
        assert net.client.fetch(UP4, 23) == f"telnet saw {OUT4}"
        counted = shadow_packets(net)
        assert counted["base/no"] == before, "it went on after its end"
    assert "end the shadow" in router.run(daemon.upkeep, router.kernel)
    assert "hostler_shadow" not in router.exec("/usr/sbin/nft", "list", "tables")
    assert "base/rule-1" in router.labels()


@pytest.mark.parametrize("mode", ["bypass", "routed", "filtered"])
def test_guests_on_one_bridge(net: Network, mode: str) -> None:
    """A drop policy cuts guests on a bridge off from each other, unless the mode says not."""
    filtered = mode == "filtered"
    rules = [accept("bridge_forward", **tcp(22), in_ifname="p2", out_ifname="p3")]
    rules += [accept("bridge_forward", protocol="tcp", in_ifname="p3", out_ifname="p2")]
    net.router.apply(
        name="kvm",
        forward_policy="drop",
        bridge_filtering="bypass" if filtered else mode,
        bridge_policy="drop" if filtered else "",
        rules=rules if filtered else [],
    )
    with net.two.serving(22, "ssh"), net.two.serving(23, "telnet"):
        for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
            assert net.router.sysctl(f"net.bridge.{name}") == str(int(mode == "routed"))
        for address, me in (("10.213.0.3", WEB4), ("fd13::3", WEB6)):
            reached = "" if mode == "routed" else f"ssh saw {me}"
            assert net.web.fetch(address, 22) == reached
            other = f"telnet saw {me}" if mode == "bypass" else ""
            assert net.web.fetch(address, 23) == other
    net.router.delete("kvm")
    # As it was found: on.
    assert net.router.sysctl("net.bridge.bridge-nf-call-iptables") == "1"
    assert net.router.exec("/usr/sbin/nft", "list", "ruleset") == ""
