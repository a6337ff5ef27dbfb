"""Connections of real traffic through a router; conntrack(8) is the witness."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import threading
import tracemalloc
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import pytest
from firewall_topology import Host, Network, Router, hosts
from journal_backing import backed

from hostler.api.common.v1 import change_pb2
from hostler.api.firewall.v1 import connection_pb2 as pb
from hostler.api.firewall.v1 import ruleset_pb2
from hostlerd.firewall.errors import TrackingUnavailable
from hostlerd.firewall.kernel import conntrack
from hostlerd.firewall.model.connection import ConnectionFilter, CutConnections
from hostlerd.firewall.model.steps import SetSysctl
from hostlerd.firewall.service.connection import ConnectionService
from hostlerd.runtime.errors import InvalidRequest, StepFailed
from hostlerd.runtime.steps import Plan

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

T = TypeVar("T")
CONNTRACK = "/usr/sbin/conntrack"
UP4, UP6, WEB4, WEB6 = "198.51.100.1", "2001:db8:1::1", "10.213.0.2", "fd13::2"
FAR4, FAR6, OUT4 = "10.214.0.2", "fd14::2", "198.51.100.2"
UDP = socket.SOCK_DGRAM
# Long enough for an answer between namespaces on a busy machine, short enough to wait for none.
PATIENCE_S, SILENCE_S = 10.0, 1.0
NO_CONTEXT: Any = None


class Service:
    """The service in the router's namespace, as gRPC calls it."""

    def __init__(self, router: Router, folder: Path) -> None:
        self.router = router
        runtime: Any = self
        self.changes = backed(router.kernel, folder, self.blocking)
        self.made = ConnectionService(runtime, self.changes)

    async def blocking(self, work: Callable[..., Any], /, *args: Any) -> Any:
        return await asyncio.to_thread(self.router.run, lambda: work(*args))

    def list(self, page_size: int = 0, **wanted: Any) -> pb.ListConnectionsResponse:
        request = pb.ListConnectionsRequest(filter=wanted, page_size=page_size)
        return asyncio.run(self.made.ListConnections(request, NO_CONTEXT))

    def count(self, **wanted: Any) -> pb.CountConnectionsResponse:
        request = pb.CountConnectionsRequest(filter=wanted)
        return asyncio.run(self.made.CountConnections(request, NO_CONTEXT))

    def flush(
        self, options: dict[str, Any] | None = None, everything: bool = False, **wanted: Any
    ) -> pb.FlushConnectionsResponse:
        change = change_pb2.ChangeOptions(**(options or {}))
        request = pb.FlushConnectionsRequest(filter=wanted, all=everything, change=change)
        return asyncio.run(self.made.FlushConnections(request, NO_CONTEXT))


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with hosts("router", "client", "web", "two", "far") as names:
        yield Network(names, tmp_path)


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    with hosts("router") as names:
        made = Router(names[0])
        made.install(tmp_path / "state", tmp_path / "run")
        # The kernel tracks nothing in a namespace until a rule asks for it.
        nft(made, "add table inet t; add chain inet t c { type filter hook input priority 0; }")
        nft(made, "add rule inet t c ct state new accept")
        yield made


def nft(host: Host, text: str) -> str:
    return host.exec("/usr/sbin/nft", text)


def witness(host: Host) -> list[dict[str, Any]]:
    """What conntrack(8) lists, in the names of the API."""
    tree = ET.fromstring(host.exec(CONNTRACK, "-L", "-o", "xml,id") or "<conntrack/>")  # noqa: S314
    return [_flow(flow) for flow in tree.iter("flow")]


def _flow(flow: ET.Element) -> dict[str, Any]:
    original, reply, rest = flow.iter("meta")
    layer4 = original.find("layer4")
    assert layer4 is not None
    return {
        "id": int(rest.findtext("id") or 0),
        "protocol_number": int(layer4.get("protonum") or 0),
        "protocol": layer4.get("protoname"),
        "tcp_state": rest.findtext("state") or "",
        "replied": rest.find("unreplied") is None,
        "assured": rest.find("assured") is not None,
        "mark": int(rest.findtext("mark") or 0),
        "original": _direction(original),
        "reply": _direction(reply),
    }


def _direction(meta: ET.Element) -> tuple[Any, ...]:
    texts = [meta.findtext(f"layer3/{end}") for end in ("src", "dst")]
    numbers = [
        int(meta.findtext(path) or 0)
        for path in ("layer4/sport", "layer4/dport", "counters/packets", "counters/bytes")
    ]
    return (*texts, *numbers)


def ours(found: pb.Connection) -> dict[str, Any]:
    """The same of what the service lists; conntrack has no id of ICMP in its XML."""
    names = ("id", "protocol_number", "protocol", "tcp_state", "replied", "assured", "mark")
    values: dict[str, Any] = {name: getattr(found, name) for name in names}
    for name in ("original", "reply"):
        d = getattr(found, name)
        port = 0 if found.protocol.startswith("icmp") else d.source_port
        values[name] = (d.source, d.destination, port, d.destination_port, d.packets, d.bytes)
    return values


def by_id(flows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {flow["id"]: flow for flow in flows}


@contextmanager
def echoing(host: Host, *ports: int) -> Iterator[None]:
    """Send back to everybody what they say, for as long as they stay."""

    def listen(port: int) -> socket.socket:
        server = socket.socket(socket.AF_INET6)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::", port))
        server.listen(16)
        return server

    def echo(peer: socket.socket) -> None:
        with peer:
            while said := peer.recv(100):
                peer.sendall(said)

    def serve(server: socket.socket) -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(peer,), daemon=True).start()

    with ExitStack() as stack:
        threads = []
        for port in ports:
            server = stack.enter_context(host.run(listen, port))
            threads.append(threading.Thread(target=serve, args=(server,)))
            threads[-1].start()
            stack.callback(server.shutdown, socket.SHUT_RDWR)
        yield
    for thread in threads:
        thread.join(5)


@contextmanager
def connected(host: Host, address: str, *ports: int) -> Iterator[list[socket.socket]]:
    """Connections from a host that were used once."""
    with ExitStack() as stack:
        made = []
        for port in ports:
            connect = socket.create_connection
            made.append(stack.enter_context(host.run(connect, (address, port), PATIENCE_S)))
            assert answers(made[-1])
        yield made


def answers(peer: socket.socket, timeout_s: float = PATIENCE_S) -> bool:
    peer.settimeout(timeout_s)
    peer.sendall(b"?")
    try:
        return peer.recv(100)[:1] == b"?"
    except TimeoutError:
        return False


def test_lists_what_conntrack_lists(net: Network, tmp_path: Path) -> None:
    net.router.sysctl("net.netfilter.nf_conntrack_acct", "1")
    forwards = [
        {"protocol": "tcp", "port": 8080, "target_address": a, "target_port": 8000}
        for a in (WEB4, WEB6)
    ]
    masquerades = [{"source": "10.213.0.0/24", "uplink": "v3"}]
    net.router.apply(name="web", forwards=forwards, masquerades=masquerades)
    nft(net.router, "add table inet t; add chain inet t c { type filter hook forward priority 9; }")
    nft(net.router, "add rule inet t c udp dport 53 ct mark set 7441")
    service = Service(net.router, tmp_path / "backing")
    with ExitStack() as stack:
        stack.enter_context(net.web.serving(8000, "web"))
        stack.enter_context(echoing(net.far, 7000))
        stack.enter_context(net.far.serving(53, "dns", UDP))
        # Ended ones, by DNAT, v4 and v6.
        assert net.client.fetch(UP4, 8080).startswith("web")
        assert net.client.fetch(UP6, 8080).startswith("web")
        # Open ones, masqueraded and not.
        stack.enter_context(connected(net.web, FAR4, 7000))
        stack.enter_context(connected(net.client, FAR6, 7000))
        assert net.client.fetch(FAR4, 53, UDP).startswith("dns")
        # One that nobody answers, and ICMP of both versions.
        net.client.fetch("10.214.0.77", 9, UDP)
        net.client.exec("/usr/bin/ping", "-c1", "-W5", FAR4)
        net.client.exec("/usr/bin/ping", "-c1", "-W5", FAR6)
        listed = service.list()
        expected = witness(net.router)
        counted = service.count()
    found = [ours(c) for c in listed.connections]
    assert by_id(found) == by_id(expected)
    assert listed.total == len(expected) == counted.total == counted.table_connections
    assert {c["tcp_state"] for c in expected} >= {"ESTABLISHED", "TIME_WAIT", ""}
    assert {c["protocol"] for c in expected} == {"tcp", "udp", "icmp", "icmpv6"}
    assert any(c["mark"] == 7441 for c in found)
    assert any(not c["replied"] for c in found)
    assert {(c.protocol, c.tcp_state): c.connections for c in counted.counts} == Counter(
        (c["protocol"], c["tcp_state"]) for c in expected
    )
    assert [c.connections for c in counted.counts] == sorted(
        (c.connections for c in counted.counts), reverse=True
    )
    limit = net.router.exec("/usr/bin/cat", "/proc/sys/net/netfilter/nf_conntrack_max")
    assert counted.table_limit == int(limit)
    timeouts = [c.timeout.seconds for c in listed.connections if c.tcp_state == "ESTABLISHED"]
    assert timeouts
    assert all(400_000 < t <= 432_000 for t in timeouts)

    for wanted, holds in (
        ({"destination_nat": True}, lambda c: c["original"][1] != c["reply"][0]),
        ({"source_nat": True}, lambda c: c["original"][0] != c["reply"][1]),
        ({"ip_version": 6}, lambda c: ":" in c["original"][0]),
        ({"protocol": "PROTOCOL_ICMP"}, lambda c: c["protocol"].startswith("icmp")),
        ({"sources": ["198.51.100.0/24"]}, lambda c: c["original"][0] == OUT4),
        ({"destinations": [f"{FAR6}/128"]}, lambda c: c["original"][1] == FAR6),
        (
            {"destination_ports": [{"first": 7000, "last": 8080}]},
            lambda c: 7000 <= c["original"][3] <= 8080,
        ),
    ):
        chosen = {c["id"] for c in expected if holds(c)}  # type: ignore[no-untyped-call]
        assert chosen, wanted
        assert {c.id for c in service.list(**wanted).connections} == chosen, wanted


def test_icmp_has_its_id_for_a_port(router: Router, tmp_path: Path) -> None:
    router.exec("/usr/bin/ping", "-c1", "127.0.0.1")
    (line,) = router.exec(CONNTRACK, "-L").splitlines()
    (found,) = Service(router, tmp_path).list().connections
    assert f"id={found.original.source_port} " in line
    assert found.original.source_port == found.reply.source_port


def test_flush_cuts_what_is_meant_and_nothing_else(net: Network, tmp_path: Path) -> None:
    service = Service(net.router, tmp_path / "backing")
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        net.router.sysctl(name, "1")
    chain = "{ type filter hook forward priority 0; policy accept; }"
    nft(net.router, f"add table inet t; add chain inet t c {chain}")
    nft(net.router, "add rule inet t c ct state new,established accept")
    for address in (FAR4, FAR6):
        with echoing(net.far, 7001, 7002), connected(net.client, address, 7001, 7002) as (one, two):
            nft(net.router, "flush chain inet t c")
            nft(net.router, "add rule inet t c ct state established accept")
            nft(net.router, "add rule inet t c meta l4proto tcp counter drop")
            assert answers(one)
            assert answers(two)
            version = 6 if ":" in address else 4
            meant: dict[str, Any] = {
                "protocol": ruleset_pb2.PROTOCOL_TCP,
                "destination_ports": [{"first": 7001}],
                "ip_version": version,
            }
            planned = service.flush({"validate_only": True}, **meant)
            assert (planned.connections, planned.change.changed) == (1, True)
            assert answers(one)
            (step,) = planned.change.plan.steps
            assert step.description == f"cut connections: IPv{version} tcp port 7001"
            before = witness(net.router)
            done = service.flush({"plan_hash": planned.change.plan.hash}, **meant)
            assert (done.connections, done.change.changed) == (1, True)
            after = witness(net.router)
            gone = [c for c in before if c["id"] not in by_id(after)]
            assert [c["original"][3] for c in gone] == [7001]
            assert not answers(one, SILENCE_S)
            assert answers(two)
            again = service.flush(None, **meant)
            assert (again.connections, again.change.changed) == (0, False)
            assert not again.change.plan.steps
        nft(net.router, "flush chain inet t c")
        nft(net.router, "add rule inet t c ct state new,established accept")


def test_flush_of_all_and_of_nothing_said(router: Router, tmp_path: Path) -> None:
    service = Service(router, tmp_path)
    load(router, tmp_path, 300)
    for everything, wanted in ((False, {}), (True, {"ip_version": 4})):
        with pytest.raises(InvalidRequest):
            service.flush(None, everything, **wanted)
    assert len(witness(router)) == 300
    # A group that waits for a confirm takes it: there is nothing to take back.
    confirm = change_pb2.ConfirmOptions(within={"seconds": 60})
    assert service.flush({"confirm": confirm}, True).connections == 300
    assert witness(router) == []


def test_a_flow_of_a_zone_is_cut_in_its_zone(router: Router, tmp_path: Path) -> None:
    same = ("-p", "udp", "-s", "10.0.0.1", "-d", "10.0.0.2", "--sport", "5", "--dport", "6")
    for zone in ("3", "4"):
        router.exec(CONNTRACK, "-I", *same, "-t", "500", "--zone", zone)
    router.exec(CONNTRACK, "-I", *same[:-1], "7", "-t", "500", "--zone", "4")
    service = Service(router, tmp_path)
    assert service.flush(None, destination_ports=[{"first": 6}]).connections == 2
    assert [c["original"][3] for c in witness(router)] == [7]


def test_several_filters_in_one_step_and_none_in_an_undo(router: Router, tmp_path: Path) -> None:
    load(router, tmp_path, 20)
    step = CutConnections(
        (
            ConnectionFilter(destinations=(ip_network("10.1.0.3"),)),
            ConnectionFilter(destinations=(ip_network("10.1.0.5"),)),
        )
    )
    changes = backed(router.kernel, tmp_path / "backing", Service(router, tmp_path / "b").blocking)
    fails = SetSysctl("net.ipv4.there_is_no_such_thing", "1", "0")
    with pytest.raises(StepFailed, match="everything was undone"):
        plan = Plan(steps=(step, fails))
        asyncio.run(changes.carry_out(change_pb2.ChangeOptions(), lambda: plan))
    left = {c["original"][1] for c in witness(router)}
    assert left == {f"10.1.0.{n}" for n in range(20) if n not in (3, 5)}


def test_memory_does_not_grow_with_the_table(router: Router, tmp_path: Path) -> None:
    load(router, tmp_path, 20_000)
    found, total, peak = router.run(lambda: measured(10))
    assert (len(found), total) == (10, 20_000)
    # A connection that is kept takes about 1 kB: all of them would be 20 MB.
    assert peak < 2_000_000
    assert router.run(conntrack.cut, (ConnectionFilter(ip_version=4),)) == 20_000
    assert router.exec(CONNTRACK, "-C").strip() == "0"


def test_bad_requests_are_told_by_field(router: Router, tmp_path: Path) -> None:
    service = Service(router, tmp_path)
    with pytest.raises(InvalidRequest) as refused:
        service.count(
            protocol=99,
            sources=["10.0.0.1/8", "nonsense"],
            destination_ports=[{"first": 9, "last": 5}],
            source_ports=[{"first": 70000}],
            ip_version=5,
        )
    assert [v.field for v in refused.value.violations] == [
        "filter.protocol",
        "filter.sources[0]",
        "filter.sources[1]",
        "filter.destination_ports[0].last",
        "filter.source_ports[0].first",
        "filter.ip_version",
    ]
    for wanted in (
        {"sources": ["10.0.0.0/8"], "destinations": ["fd00::/8"]},
        {"sources": ["10.0.0.0/8"], "ip_version": 6},
        {"protocol": ruleset_pb2.PROTOCOL_ICMP, "destination_ports": [{"first": 9}]},
    ):
        with pytest.raises(InvalidRequest):
            service.list(**wanted)
    for size in (-1, 10_001):
        with pytest.raises(InvalidRequest):
            service.list(page_size=size)


def test_a_kernel_that_refuses_is_told_so(router: Router) -> None:
    def refused() -> None:
        with pytest.raises(TrackingUnavailable, match="Operation not permitted"):
            conntrack.size()

    router.run(without_capabilities, refused)


def load(host: Host, folder: Path, number: int) -> None:
    """Have the kernel track so many connections, as if they were."""
    lines = [
        f"-I -p tcp -s 10.9.0.1 -d 10.1.{n // 250}.{n % 250} --sport 1000 --dport 80"
        " --state ESTABLISHED -t 9000"
        for n in range(number)
    ]
    file = folder / "connections"
    file.write_text("\n".join(lines) + "\n")
    host.exec(CONNTRACK, "-R", str(file))


def measured(most: int) -> tuple[list[Any], int, int]:
    tracemalloc.start()
    try:
        found, total = conntrack.listed(ConnectionFilter(), most)
        return found, total, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def without_capabilities(work: Callable[[], None]) -> None:
    """Do something in this thread without CAP_NET_ADMIN. Source: capset(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)(*[0] * 6)
    assert libc.capset(header, data) == 0
    work()
