"""Bad input over the real door of a host: every fault named with its field, nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hosts_client import (
    APPLY,
    CREATE,
    DELETE,
    START,
    apply_request,
    ask,
    cli,
    create_request,
    delete_request,
    fields,
    pooled,
    refusal,
)
from hosts_witness import names_of_netns, network, settle, untouched

from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

Namespace = namespace_pb2.Namespace
AT = "namespace.interfaces[0]"


def link(*addresses: str, host: str = "", **more: Any) -> dict[str, Any]:
    veth = {"host_addresses": [host] if host else []}
    return {"veth": veth, "addresses": list(addresses), **more}


def one(**more: Any) -> dict[str, Any]:
    return {"name": "bad", **more}


@pytest.fixture(scope="module")
def occupied(lab: Lab) -> Iterator[Host]:
    """A host with a namespace of ours and one of somebody else's, which is what it was after."""
    host = lab.host("h1")
    if host.leader() is None:
        lab.boot(host.name)
    with untouched(host):
        host.run(["ip", "netns", "add", "foreign"])
        try:
            ours = create_request("there", interfaces=[link("10.97.0.2/30", host="10.97.0.1/30")])
            ask(lab, CREATE, ours)
            settle(host)
            with untouched(host):
                yield host
        finally:
            ask(lab, DELETE, delete_request("there"))
            host.run(["ip", "netns", "delete", "foreign"])


@pytest.fixture
def there(occupied: Host) -> Iterator[None]:
    """Each refusal by itself leaves the network as it is; the whole is compared once, at last."""
    before = network(occupied)
    yield
    assert network(occupied) == before


BAD = {
    "empty name": ({"name": ""}, "namespace.name"),
    "long name": ({"name": "n" * 33}, "namespace.name"),
    "capital": ({"name": "Web"}, "namespace.name"),
    "path": ({"name": "../../etc"}, "namespace.name"),
    "newline": ({"name": "a\nb"}, "namespace.name"),
    "digit first": ({"name": "1a"}, "namespace.name"),
    "taken": ({"name": "there", "interfaces": [link("10.97.1.2/30")]}, ""),
    "foreign": ({"name": "foreign"}, "namespace.name"),
    "no address": (one(interfaces=[link("10.0.0.300/24")]), f"{AT}.addresses[0]"),
    "no prefix": (one(interfaces=[link("10.0.0.3")]), f"{AT}.addresses[0]"),
    "twice": (one(interfaces=[link("10.3.0.2/24", "10.3.0.2/24")]), f"{AT}.addresses[1]"),
    "overlap inside": (
        one(interfaces=[link("10.3.0.2/24"), link("10.3.0.130/25")]),
        "namespace.interfaces[1].addresses[0]",
    ),
    "overlap with another": (one(interfaces=[link("10.97.0.9/24")]), f"{AT}.addresses[0]"),
    "another's address": (one(interfaces=[link("10.97.0.2/30")]), f"{AT}.addresses[0]"),
    "network address": (one(interfaces=[link("10.3.0.0/24")]), f"{AT}.addresses[0]"),
    "bridge unknown": (
        one(interfaces=[{"veth": {"bridge": "no-such"}, "addresses": ["10.3.0.2/24"]}]),
        f"{AT}.veth.bridge",
    ),
    "bridge is none": (
        one(interfaces=[{"veth": {"bridge": "host0"}, "addresses": ["10.3.0.2/24"]}]),
        f"{AT}.veth.bridge",
    ),
    "parent unknown": (one(interfaces=[{"macvlan": {"parent": "no0"}}]), f"{AT}.macvlan.parent"),
    "host link taken": (
        one(interfaces=[{"veth": {"host_ifname": "host0"}}]),
        f"{AT}.veth.host_ifname",
    ),
    "long link": (one(interfaces=[{"name": "x" * 16, "veth": {}}]), f"{AT}.name"),
    "mtu huge": (one(interfaces=[link("10.3.0.2/24", mtu_bytes=70000)]), f"{AT}.mtu_bytes"),
    "mtu tiny": (one(interfaces=[link("10.3.0.2/24", mtu_bytes=1)]), f"{AT}.mtu_bytes"),
    "mtu for v6": (one(interfaces=[link("fd03::2/64", mtu_bytes=1000)]), f"{AT}.mtu_bytes"),
    "pool": (one(interfaces=[{"veth": {}, "ipv4_pool": "no-such"}]), f"{AT}.ipv4_pool"),
    "no link kind": (one(interfaces=[{"addresses": ["10.3.0.2/24"]}]), AT),
    "port start": (one(unprivileged_port_start=70000), "namespace.unprivileged_port_start"),
    "resolver": (one(dns={"servers": ["not-an-ip"]}), "namespace.dns.servers[0]"),
    "search": (one(dns={"search": ["bad domain\n"]}), "namespace.dns.search[0]"),
    "hostname": (one(hostname="a b"), "namespace.hostname"),
    "route": (one(routes=[{"destination": "10.0.0.0/33"}]), "namespace.routes[0].destination"),
    "route via nowhere": (
        one(routes=[{"destination": "default", "gateway": "10.9.9.9"}]),
        "namespace.routes[0].gateway",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_create(lab: Lab, there: None, case: str) -> None:
    shape, field = BAD[case]
    error = refusal(lab, CREATE, create_request(**shape))
    assert error.code in {"INVALID_ARGUMENT", "ALREADY_EXISTS", "FAILED_PRECONDITION"}
    assert error.reason
    assert error.message
    if field:
        assert field in fields(error), error
        assert all(v["description"] for v in error.violations)
    else:
        assert (error.code, error.reason) == ("ALREADY_EXISTS", "NAMESPACE_DIFFERS")
        assert "there" in error.message


def test_the_hosts_own_address(lab: Lab, h1: Host, there: None) -> None:
    for at, shape in (
        (f"{AT}.addresses[0]", link(f"{h1.ipv4}/24")),
        (f"{AT}.addresses[0]", link(f"{h1.ipv6}/64")),
        (f"{AT}.veth.host_addresses[0]", link("10.3.0.2/24", host=f"{h1.ipv4}/24")),
    ):
        error = refusal(lab, CREATE, create_request("bad", interfaces=[shape]))
        assert error.code == "INVALID_ARGUMENT"
        assert at in fields(error), error


def bridged(address: str) -> dict[str, Any]:
    return {"veth": {"bridge": "br-input"}, "addresses": [address]}


def test_one_address_on_one_segment(lab: Lab, h1: Host, there: None) -> None:
    """Neighbours on a bridge, or on a parent, share a network; an address only one of them has."""
    h1.run(["ip", "link", "add", "br-input", "type", "bridge"])
    try:
        h1.run(["ip", "addr", "add", "10.93.0.1/24", "dev", "br-input"])
        ask(lab, CREATE, create_request("first", interfaces=[bridged("10.93.0.2/24")]))
        before = names_of_netns(h1)
        for address in ("10.93.0.2/24", "10.93.0.1/24"):
            error = refusal(lab, CREATE, create_request("bad", interfaces=[bridged(address)]))
            assert fields(error) == {f"{AT}.addresses[0]"}, error
            assert "belongs to" in error.message
        macvlan = {"macvlan": {"parent": "host0"}, "addresses": [f"{h1.ipv4}/24"]}
        error = refusal(lab, CREATE, create_request("bad", interfaces=[macvlan]))
        assert fields(error) == {f"{AT}.addresses[0]"}, error
        assert names_of_netns(h1) == before
        ask(lab, CREATE, create_request("second", interfaces=[bridged("10.93.0.3/24")]))
        h1.run(["ip", "link", "set", "br-input", "up"])
        h1.run(["ip", "netns", "exec", "second", "ping", "-c1", "-W3", "10.93.0.2"])
    finally:
        for name in ("first", "second", "bad"):
            ask(lab, DELETE, delete_request(name))
        h1.run(["ip", "link", "delete", "br-input"])


def test_all_faults_of_one_request_are_named(lab: Lab, there: None) -> None:
    shape = one(
        interfaces=[link("10.3.0.2", mtu_bytes=1), {"veth": {"bridge": "no-such"}}],
        hostname="a b",
        dns={"servers": ["x"]},
    )
    assert fields(refusal(lab, CREATE, create_request(**{**shape, "name": "B"}))) >= {
        "namespace.name",
        "namespace.hostname",
        "namespace.dns.servers[0]",
        f"{AT}.addresses[0]",
        f"{AT}.mtu_bytes",
    }


BAD_PROCESSES: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": "Bad Name"}, "process.name"),
    "long name": ({"name": "n" * 33}, "process.name"),
    "no command": ({"argv": []}, "process.argv"),
    "unknown command": ({"argv": ["no-such-command"]}, "process.argv[0]"),
    "unknown path": ({"argv": ["/no/such/command"]}, "process.argv[0]"),
    "a folder": ({"argv": ["/etc"]}, "process.argv[0]"),
    "unknown user": ({"user": "no-such-user"}, "process.user"),
    "unknown group": ({"group": "no-such-group"}, "process.group"),
    "unknown groups": (
        {"supplementary_groups": ["no-such-group"]},
        "process.supplementary_groups[0]",
    ),
    "relative folder": ({"working_directory": "tmp"}, "process.working_directory"),
    "memory": ({"limits": {"memory_max_bytes": 4096}}, "process.limits.memory_max_bytes"),
    "negative memory": ({"limits": {"memory_max_bytes": -1}}, "process.limits.memory_max_bytes"),
    "cpu": ({"limits": {"cpu_max_millicpus": 1}}, "process.limits.cpu_max_millicpus"),
    "tasks": ({"limits": {"tasks_max": 0}}, "process.limits.tasks_max"),
    "weight": ({"limits": {"io_weight": 10001}}, "process.limits.io_weight"),
    "device": (
        {"limits": {"devices": [{"device": "sda", "read_bytes_per_second": 1}]}},
        "process.limits.devices[0].device",
    ),
    "variable": ({"environment": {"A=B": "x"}}, 'process.environment["A=B"]'),
}


@pytest.mark.parametrize("case", list(BAD_PROCESSES))
def test_start(lab: Lab, there: None, case: str) -> None:
    shape, field = BAD_PROCESSES[case]
    whole = {"namespace": "there", "name": "bad", "argv": ["sleep", "60"], **shape}
    request = process_pb2.StartProcessRequest(process=process_pb2.Process(**whole))
    error = refusal(lab, START, request)
    assert error.code == "INVALID_ARGUMENT", error
    assert field in fields(error), error


def test_limits_below_what_can_start(lab: Lab, there: None) -> None:
    """With a PID namespace there are two tasks before the command is the third."""
    args = ["-H", "h1", "--yes", "netns", "start", "there", "bad", "--tasks", "1", "--private-pid"]
    done = cli(lab, *args, "--", "sleep", "60", status=1)
    assert "process.limits.tasks_max" in done.stderr


def test_a_request_of_5_mb(lab: Lab, there: None) -> None:
    process = process_pb2.Process(namespace="there", name="bad", argv=["true", "x" * 5_000_000])
    error = refusal(lab, START, process_pb2.StartProcessRequest(process=process))
    assert error.code == "RESOURCE_EXHAUSTED", error
    big = create_request("bad", dns={"search": ["a" * 60 + ".test"] * 75_000})
    assert big.ByteSize() > 4_900_000
    error = refusal(lab, CREATE, big)
    assert error.code == "RESOURCE_EXHAUSTED", error
    assert "4194304" in error.message or "larger than max" in error.message


def thousand(bad: Callable[[int], bool]) -> list[Any]:
    return [
        pooled(f"n{i}") if not bad(i) else Namespace(name=f"N{i}", hostname="a b")
        for i in range(1000)
    ]


def test_a_thousand_with_one_bad_creates_none(lab: Lab, h1: Host, there: None) -> None:
    error = refusal(lab, APPLY, apply_request(thousand(lambda i: i == 777)))
    assert error.code == "INVALID_ARGUMENT"
    assert fields(error) == {"namespaces[777].name", "namespaces[777].hostname"}
    assert names_of_netns(h1) == {"foreign", "there"}


def test_three_hundred_bad_ones_are_all_listed(lab: Lab, h1: Host, there: None) -> None:
    error = refusal(lab, APPLY, apply_request(thousand(lambda i: i < 300)))
    named = {f"namespaces[{i}].name" for i in range(300)}
    assert fields(error) == named | {f"namespaces[{i}].hostname" for i in range(300)}
    assert names_of_netns(h1) == {"foreign", "there"}


def test_more_than_a_thousand(lab: Lab, there: None) -> None:
    error = refusal(lab, APPLY, apply_request(Namespace(name=f"n{i}") for i in range(1001)))
    assert fields(error) == {"namespaces"}


def test_twice_in_one_request_and_overlaps_between_two(lab: Lab, there: None) -> None:
    spaces = [
        Namespace(name="a", interfaces=[link("10.3.0.2/24", host="10.3.0.1/24")]),
        Namespace(name="b", interfaces=[link("10.3.0.3/24", host="10.3.0.1/24")]),
        Namespace(name="a"),
    ]
    error = refusal(lab, APPLY, apply_request(spaces))
    assert "namespaces[2].name" in fields(error)
    assert "namespaces[1].interfaces[0].veth.host_addresses[0]" in fields(error)


def test_delete_of_anothers(lab: Lab, h1: Host, there: None) -> None:
    error = refusal(lab, DELETE, delete_request("foreign"))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "NAMESPACE_FOREIGN")
    assert "foreign" in names_of_netns(h1)
