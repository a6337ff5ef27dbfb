"""The firewall on Debian's own kernel: flowtables, states in bridges and in the packet log."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hosts_witness import eventually
from vm_firewall import Network
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

FLOW = """
name = "flow"
forward_policy = "drop"
[[rules]]
id = "app"
hook = "forward"
action = "accept"
protocol = "tcp"
destination_ports = [{first = 8000}]
[[flowtables]]
name = "fast"
ifnames = LINKS
"""
BLOCK = """
name = "block"
[[rules]]
id = "no"
hook = "forward"
action = "drop"
protocol = "tcp"
destination_ports = [{first = 8000}]
"""
# Counts what passes the rules, apart from Hostler's own table.
WITNESS = """table inet witness {
    chain f { type filter hook forward priority -200; tcp dport 8000 counter; }
}"""
# As PacketRecord has them.
ESTABLISHED, NEW = 1, 3
B4, B6 = "10.90.2.2", "fd90:2::2"


@pytest.fixture
def net(guests: Suite, tmp_path: Path) -> Network:
    (guest,) = guests.take("vm1")
    guest.wake("firewall")
    return Network(guests, guest, tmp_path)


def flow(*links: str) -> str:
    return FLOW.replace("LINKS", str([*links]))


def offloaded(net: Network) -> set[str]:
    return {str(ipaddress.ip_address(a)) for a in net.offloaded()}


def passed(net: Network) -> int:
    (rule,) = [e["rule"] for e in net.nft("table", "inet", "witness") if "rule" in e]
    (counter,) = [e["counter"] for e in rule["expr"] if "counter" in e]
    return int(counter["packets"])


def test_a_flowtable_carries_connections_past_the_rules(net: Network) -> None:
    lacks = net.lacks()
    assert not {"flowtable", "bridge", "bridge_conntrack", "conntrack"} & {*lacks}, lacks
    net.route("a", 1)
    net.route("b", 2)
    net.serve("b")
    net.guest.run(["nft", "-f", "-"], stdin=WITNESS)
    assert net.apply(flow("pa", "pb", "eth1"))["changed"]
    again = net.apply(flow("pa", "pb", "eth1"))
    assert (again["changed"], again["plan"]["steps"]) == (False, [])
    assert net.flowtables() == {"fast": ["eth1", "pa", "pb"]}
    files = [net.keep_talking(at) for at in (B4, B6)]
    eventually(lambda: offloaded(net) == {B4, B6}, 60)
    before = passed(net), net.talked(files[0])
    for file in files:
        net.goes_on(file)
    print(f"{passed(net) - before[0]} packets by the rules, {net.talked(files[0]) - before[1]} not")
    assert passed(net) == before[0], "what is established does not pass the rules by"

    # Another set of links: the flowtable is a new one, the connections are the same.
    assert net.apply(flow("pa", "pb"))["changed"]
    assert net.flowtables() == {"fast": ["pa", "pb"]}
    for file in files:
        net.goes_on(file)
    eventually(lambda: offloaded(net) == {B4, B6}, 60)

    # What is cut does not go on by the way that no rule sees.
    net.apply(BLOCK, "--cut-established")
    eventually(lambda: not offloaded(net), 60)
    stopped = [net.talked(file) for file in files]
    assert not net.reaches("a", B4)
    assert [net.talked(file) for file in files] == stopped
    net.cli("firewall", "delete", "block")

    file = net.keep_talking(B4)
    eventually(lambda: offloaded(net) == {B4}, 60)
    assert net.cli("firewall", "delete", "flow")["change"]["changed"]
    assert net.flowtables() == {}
    assert {e["table"]["name"] for e in net.nft("tables")} == {"witness"}
    net.goes_on(file)
    assert not offloaded(net)


def test_rules_stand_although_a_link_of_a_flowtable_is_gone(net: Network) -> None:
    text = f"persistent = true\n{flow('pa', 'pb')}"
    net.apply(text)
    # A link that went and came back is in no flowtable, whatever else is as it was.
    net.guest.run(["ip", "link", "delete", "pb"])
    net.join("b")
    assert net.flowtables() == {"fast": ["pa"]}
    assert net.apply(text)["changed"]
    assert net.flowtables() == {"fast": ["pa", "pb"]}

    net.guest.run(["ip", "link", "delete", "pb"])
    # The kernel takes it out by itself; a change of anything else goes on, and says it.
    assert net.flowtables() == {"fast": ["pa"]}
    told = " ".join(w["message"] for w in net.apply(BLOCK)["warnings"])
    assert "flowtable fast goes without pb, which is not there" in told
    assert net.flowtables() == {"fast": ["pa"]}
    net.cli("firewall", "delete", "block")

    # As a boot finds it, where no link is there yet.
    net.guest.run(["ip", "link", "delete", "pa"])
    net.guest.run(["nft", "delete", "table", "inet", "hostler"])
    net.guest.run(["systemctl", "restart", "hostler-restore@firewall.service"], timeout_s=120)
    assert net.flowtables() == {}
    chains = {c["chain"]["name"]: c["chain"] for c in net.nft("chains", "inet")}
    assert chains["filter_forward"]["policy"] == "drop"

    for name in "ab":
        net.join(name)
    assert net.apply(text)["changed"]
    assert net.flowtables() == {"fast": ["pa", "pb"]}
    assert not net.apply(text)["changed"]


def bridge_rule(name: str, **more: Any) -> str:
    lines = [f'id = "{name}"', 'hook = "bridge_forward"', 'action = "accept"', "log = {}"]
    return "\n".join(["[[rules]]", *lines, *(f"{k} = {v!r}" for k, v in more.items()), ""])


def test_a_bridge_knows_what_is_an_answer_and_the_log_tells(net: Network) -> None:
    net.bridge()
    for name in "ab":
        net.serve(name)
    head = 'name = "kvm"\nbridge_policy = "drop"\n'
    app = bridge_rule("app", in_ifname="pa", out_ifname="pb", protocol="tcp")
    app += "destination_ports = [{first = 8000}]\nconnection_states = ['new']\n"
    answers = bridge_rule("answers", connection_states=["established", "related"])
    net.apply(head + app)
    # The first packet gets there, and nothing back.
    assert not net.reaches("a", "10.91.0.2")
    assert net.apply(head + answers + app)["changed"]
    assert not net.apply(head + answers + app)["changed"]
    assert net.reaches("a", "fd91::2")
    assert not net.reaches("b", "10.91.0.1")

    records = net.logged(6, lambda: net.reaches("a", "10.91.0.2"))
    known = net.guest.run(["conntrack", "-L", "-p", "tcp", "--dport", "8000"]).stdout
    assert "src=10.91.0.1 dst=10.91.0.2" in known
    told = [(r["rule"], r["connection_state"], r["physin_ifname"]) for r in records]
    assert told[:3] == [
        ("kvm/app", NEW, "pa"),
        ("kvm/answers", ESTABLISHED, "pb"),
        ("kvm/answers", ESTABLISHED, "pa"),
    ]
    assert {t[:2] for t in told[3:]} == {("kvm/answers", ESTABLISHED)}
