"""Rules of iptables and what is made of them decide alike: the same packets through both."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from firewall_topology import QUIET_S, Host, Network, hosts

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostler.desired import load_message
from hostler.firewall_iptables import import_iptables
from hostlerd.firewall.service.convert import from_proto

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

V4 = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:SSH - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m state --state INVALID -j DROP
-A INPUT -s 198.51.100.0/30 -p tcp -m tcp --dport 20:30 -j SSH
-A INPUT -i eth+ -p udp -m multiport --dports 53,60:62 -m comment --comment "a \\"b\\"" -j ACCEPT
-A INPUT -p udp -m udp --dport 70 -j REJECT
-A INPUT -p udp --sport 5000:5001 -j ACCEPT
-A INPUT -m limit --limit 5/min -j LOG --log-prefix "in: "
-A SSH -p tcp -m tcp --dport 25 -j REJECT --reject-with tcp-reset
-A SSH -p tcp -m tcp --dport 26 -j DROP
-A SSH -m iprange --src-range 198.51.100.1-198.51.100.2 -j ACCEPT
-A SSH -j RETURN
-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -d 10.213.0.2/32 -p tcp -m tcp --dport 8000 -j ACCEPT
-A FORWARD -s 10.214.0.0/24 -o eth0 -p tcp -m tcp --dport 9000:9001 -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 198.51.100.1/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.213.0.2:8000
-A PREROUTING -d 198.51.100.1/32 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.213.0.2:8001
-A PREROUTING -i eth0 -p tcp -m tcp --dport 99 -j REDIRECT --to-ports 22
-A POSTROUTING -s 10.214.0.0/24 -o eth0 -j MASQUERADE
COMMIT
"""
V6 = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT
-A INPUT -s 2001:db8:1::/64 -p tcp -m tcp --dport 22 -j DROP
COMMIT
"""


def restore(host: Host, text: str, command: str) -> str:
    """Load rules by the real tool; answer what it saves."""
    enter = ("/usr/sbin/ip", "netns", "exec", host.name)
    subprocess.run([*enter, f"/usr/sbin/{command}-restore"], input=text, check=True, text=True)
    return host.exec(f"/usr/sbin/{command}-save", "-c")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Network, Network]]:
    """Two networks of the same kind."""
    with ExitStack() as stack:
        made = []
        for tag in ("o", "n"):
            names = [f"{tag}{name}" for name in ("router", "client", "web", "two", "far")]
            made.append(Network(stack.enter_context(hosts(*names)), tmp_path / tag))
        yield made[0], made[1]


def written(tmp_path: Path, saved: str, **options: Any) -> Any:
    """The ruleset that the file says which an import writes."""
    done = import_iptables(saved, "imported", **options)
    assert done.unsaid == []
    path = tmp_path / "imported.toml"
    path.write_text(done.to_toml())
    return load_message(path, pb.Ruleset())


def probe(host: Host, at: str, port: int, kind: str, source_port: int = 0) -> str:
    """What comes back: the banner, "refused", or "" for nothing."""

    def ask() -> str:
        family = socket.AF_INET6 if ":" in at else socket.AF_INET
        with socket.socket(family, getattr(socket, f"SOCK_{kind}")) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.settimeout(QUIET_S)
            s.bind(("", source_port))
            try:
                s.connect((at, port))
                s.send(b"?")
                return s.recv(100).decode()
            except ConnectionRefusedError:
                return "refused"
            except TimeoutError:
                return ""

    return host.run(ask)


def decided(net: Network) -> dict[str, str]:
    """What becomes of the same packets in a network."""
    up, web = "198.51.100.1", "10.213.0.2"
    probes: list[tuple[str, Host, str, int, str, int]] = [
        *(("tcp in", net.client, up, port, "STREAM", 0) for port in (19, 22, 25, 26, 30, 31, 99)),
        *(("udp in", net.client, up, port, "DGRAM", 0) for port in (53, 59, 60, 62, 63, 70)),
        *(("udp from", net.client, up, 80, "DGRAM", port) for port in (4999, 5000, 5001, 5002)),
        *(("tcp from inside", net.far, "10.214.0.1", port, "STREAM", 0) for port in (22, 25)),
        *(("udp from inside", net.far, "10.214.0.1", port, "DGRAM", 0) for port in (53, 70)),
        *(("forwarded", net.client, up, port, "STREAM", 0) for port in (8080, 8081, 8082)),
        *(("through", net.client, web, port, "STREAM", 0) for port in (8000, 8001)),
        *(("out", net.far, "198.51.100.2", port, "STREAM", 0) for port in (9000, 9001, 9002)),
        ("lo", net.router, "127.0.0.1", 31, "STREAM", 0),
    ]
    with ExitStack() as stack:
        for port in (19, 22, 25, 26, 30, 31):
            stack.enter_context(net.router.serving(port, "router"))
        for port in (53, 59, 60, 62, 63, 70, 80):
            serving = net.router.serving(port, "router", socket.SOCK_DGRAM, socket.AF_INET)
            stack.enter_context(serving)
        for port in (8000, 8001):
            stack.enter_context(net.web.serving(port, "web"))
        for port in (9000, 9001, 9002):
            stack.enter_context(net.client.serving(port, "client"))
        return {
            f"{what} {port} {source or ''}".strip(): probe(host, at, port, kind, source)
            for what, host, at, port, kind, source in probes
        }


def test_the_same_packets_are_decided_alike(pair: tuple[Network, Network], tmp_path: Path) -> None:
    old, new = pair
    saved = restore(old.router, V4, "iptables")
    old.router.sysctl("net.ipv4.ip_forward", "1")
    new.router.apply(**from_proto(written(tmp_path, saved, exact=True)))
    assert not_listed(new.router, saved) == []
    before, after = decided(old), decided(new)
    assert after == before
    # It tells something only if there is some of everything.
    assert {"router saw 198.51.100.2", "web saw 198.51.100.2", "", "refused"} <= {*before.values()}
    assert before["out 9000"] == "client saw 198.51.100.1"
    assert (before["out 9002"], before["forwarded 8081"]) == ("", "")
    # Policies of ours let some more pass, as the import says.
    new.router.apply(**from_proto(written(tmp_path, saved)))
    policies = decided(new)
    assert {what: told for what, told in policies.items() if told != before[what]} == {
        "out 9002": "client saw 198.51.100.1",
        "forwarded 8081": "web saw 198.51.100.2",
    }


def not_listed(router: Host, saved: str) -> list[str]:
    """The lines of the original that have no rule of their number, by nft's own listing."""
    listed = json.dumps(router.nft_rules())
    return [
        line
        for number, line in enumerate(saved.splitlines(), 1)
        if ("-A INPUT" in line or "-A FORWARD" in line or "-A SSH" in line)
        and not re.search("ESTABLISHED|-j SSH|-j RETURN", line)
        and not re.search(rf"imported/line-([0-9]+-)?{number}\b", listed)
    ]


def test_each_family_keeps_its_rules(pair: tuple[Network, Network], tmp_path: Path) -> None:
    old, new = pair
    ruleset = written(tmp_path, restore(old.router, V6, "ip6tables"))
    assert [list(rule.sources) for rule in ruleset.rules] == [["::/0"], ["2001:db8:1::/64"]]
    new.router.apply(**from_proto(ruleset))
    for net in pair:
        with net.router.serving(22, "router"):
            assert net.client.fetch("2001:db8:1::1", 22) == ""
            assert net.client.fetch("198.51.100.1", 22) == "router saw 198.51.100.2"
            assert net.far.fetch("fd14::1", 22) == "router saw fd14::2"
