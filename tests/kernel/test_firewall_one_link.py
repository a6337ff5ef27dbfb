"""NAT on a host with one link, by real traffic: clients, gateway and host share a segment.

             segment 10.215.0.0/24, fd15::/64
lan  .2 ----+
lan2 .4 ----+---- box .3 (one link; the gateway of lan and lan2)
            +---- gate .1 ---- 203.0.113.1 / 2001:db8:3::1 -- out .9
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from firewall_topology import Host, Router, address, hosts, join

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

UDP = socket.SOCK_DGRAM
OUT4, OUT6 = "203.0.113.9", "2001:db8:3::9"
LAN4, LAN6 = "10.215.0.2", "fd15::2"
KINDS = {"tcp": socket.SOCK_STREAM, "udp": UDP}
BOX4, BOX6 = "10.215.0.3", "fd15::3"


class Segment:
    """The hosts of the picture above."""

    def __init__(self, names: list[str], tmp_path: Path) -> None:
        self.switch, self.gate, self.lan, self.lan2, self.out = (Host(n) for n in names[1:])
        self.box = Router(names[0])
        self.box.install(tmp_path / "state", tmp_path / "run")
        self.switch.ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self.switch.ip("link", "set", "br0", "up")
        on_it = ((1, self.gate), (2, self.lan), (3, self.box), (4, self.lan2))
        for number, host in on_it:
            join(self.switch, f"p{number}", host, "eth0")
            self.switch.ip("link", "set", f"p{number}", "master", "br0")
            address(host, "eth0", f"10.215.0.{number}/24", f"fd15::{number}/64")
        join(self.gate, "eth1", self.out, "eth0")
        address(self.gate, "eth1", "203.0.113.1/24", "2001:db8:3::1/64")
        address(self.out, "eth0", f"{OUT4}/24", f"{OUT6}/64")
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.gate.sysctl(name, "1")
        # Until a link has its link-local address, it answers no neighbour.
        for host in (self.gate, self.lan, self.box, self.lan2, self.out):
            link_local(host)
        for host, *gateways in (
            (self.lan, BOX4, link_local(self.box)),
            (self.lan2, BOX4, link_local(self.box)),
            (self.box, "10.215.0.1", link_local(self.gate)),
            (self.out, "203.0.113.1", "2001:db8:3::1"),
        ):
            for gateway in gateways:
                host.ip("route", "add", "default", "via", gateway, "dev", "eth0")


def link_local(host: Host) -> str:
    """The address that gateways of IPv6 announce, and that a redirect leads to."""
    end = time.monotonic() + 10
    while True:
        words = host.ip("-6", "addr", "show", "dev", "eth0", "scope", "link", "-tentative").split()
        if "inet6" in words:
            return words[words.index("inet6") + 1].partition("/")[0]
        assert time.monotonic() < end, "no link-local address"
        time.sleep(0.05)


def redirects(host: Host) -> tuple[int, int]:
    """How many redirects the kernel has counted, of IPv4 and of IPv6."""
    names = ("IcmpInRedirects", "Icmp6InRedirects")
    counted = json.loads(host.exec("/usr/bin/nstat", "-asz", "--json", *names))["kernel"]
    return counted[names[0]], counted[names[1]]


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with hosts("box", "switch", "gate", "lan", "lan2", "out") as names:
        yield Segment(names, tmp_path)


MASQUERADES = [
    {"source": "10.215.0.0/24", "uplink": "eth0"},
    {"source": "fd15::/64", "uplink": "eth0"},
]
SOURCE_NATS = [
    {"source": "10.215.0.0/24", "to_address": BOX4},
    {"source": "fd15::/64", "to_address": BOX6},
]


@pytest.mark.parametrize("kind", ["masquerades", "source_nats"])
def test_lan_to_nat_to_outside(segment: Segment, kind: str) -> None:
    rewriting = {"masquerades": MASQUERADES, "source_nats": SOURCE_NATS}[kind]
    segment.box.apply(name="nat", input_policy="drop", forward_policy="drop", **{kind: rewriting})
    with segment.out.serving(80, "web"), segment.out.serving(53, "dns", UDP):
        for at, seen in ((OUT4, BOX4), (OUT6, BOX6)):
            # Again and again: a redirect after the first packet would lead past the NAT.
            for host in (segment.lan, segment.lan2) * 3:
                assert host.fetch(at, 80) == f"web saw {seen}"
                assert host.fetch(at, 53, UDP) == f"dns saw {seen}"
    with segment.lan2.serving(22, "ssh"):
        # What stays on the segment is nobody's but theirs, and what comes from outside is refused.
        assert segment.lan.fetch("10.215.0.4", 22) == f"ssh saw {LAN4}"
        assert segment.lan.fetch("fd15::4", 22) == f"ssh saw {LAN6}"
    assert redirects(segment.lan) == redirects(segment.lan2) == (0, 0)


def test_without_nat_the_shorter_way_is_told(segment: Segment) -> None:
    """What is kept back above is kept back for the NAT alone."""
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        segment.box.sysctl(name, "1")
    segment.box.apply(name="base", input_policy="drop", output_policy="drop")
    with segment.out.serving(80, "web"):
        for at, seen in ((OUT4, LAN4), (OUT6, LAN6)):
            # The path changes under the first connection: what of it came by the longer way only
            # in part may be lost.
            end = time.monotonic() + 20
            while (told := segment.lan.fetch(at, 80)) == "" and time.monotonic() < end:
                pass
            assert told == f"web saw {seen}"
    told4, told6 = redirects(segment.lan)
    assert told4 > 0 and told6 > 0


@pytest.mark.parametrize("kind", KINDS)
def test_forward_to_a_neighbour(segment: Segment, kind: str) -> None:
    """From outside, from the host itself, from a neighbour of the target, from the target itself.

    All of them come by the target's link, and are answered through the host: it shows as itself.
    """
    to = {"protocol": kind, "port": 8080, "target_port": 8000}
    forwards = [{**to, "target_address": at} for at in ("10.215.0.4", "fd15::4")]
    segment.box.apply(name="nat", input_policy="drop", forward_policy="drop",
                      masquerades=MASQUERADES, forwards=forwards)  # fmt: skip
    callers = (segment.out, segment.box, segment.lan, segment.lan2)
    with segment.lan2.serving(8000, "app", KINDS[kind]):
        for at in (BOX4, BOX6):
            for caller in callers * 2:
                assert caller.fetch(at, 8080, KINDS[kind]) == f"app saw {at}", caller.name
