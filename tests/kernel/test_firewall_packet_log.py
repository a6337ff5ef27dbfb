"""The packet log on a real kernel: real packets, and what others have seen of them."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from firewall_packets import MULTICAST, as_frame, counted, frames, load, send, sniffer
from firewall_topology import Host, Network, Router, hosts, join

from hostler.api.firewall.v1 import packet_log_pb2 as pb
from hostlerd.firewall.errors import PacketLogBusy
from hostlerd.firewall.kernel import packet_log as packet_log_module
from hostlerd.firewall.kernel.nflog import Group
from hostlerd.firewall.kernel.packet_log import PacketLog, Reader
from hostlerd.firewall.kernel.packet_ring import Ring, Taken
from hostlerd.firewall.model.packet import NAMES, unpack
from hostlerd.firewall.model.packet_log import GROUP, SNAPLEN_BYTES, statement
from hostlerd.firewall.service.packet_log import PacketLogService
from hostlerd.runtime.errors import InvalidRequest

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

CONTEXT: Any = None
WITHIN_S = 20.0


class InPlace:
    """A runtime that blocks: work has to stay in the thread that is in the namespace."""

    async def blocking(self, work: Callable[..., Any], /, *args: Any) -> Any:
        return work(*args)


def until(look: Callable[[], Any]) -> Any:
    """Answer what is found as soon as it is there."""
    end = time.monotonic() + WITHIN_S
    while not (found := look()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)
    return found


def packets(taken: Taken) -> list[dict[str, Any]]:
    return [
        dict(zip(NAMES, unpack(o, p), strict=True))
        for o, p in zip(taken.origins, taken.packed, strict=True)
    ]


@contextmanager
def reading(host: Host, **options: int) -> Iterator[Reader]:
    log = PacketLog(**options)
    host.run(log.open)
    try:
        reader = log.state()[0]
        assert reader is not None
        yield reader
    finally:
        log.close()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with hosts("router", "client", "web", "two", "far") as names:
        yield Network(names, tmp_path_factory.mktemp("network"))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Host]:
    """A host with nobody beside it, which logs what goes to port 9 of its own."""
    with hosts("alone") as names:
        host = Router(names[0])
        load(host, f"udp dport 9 counter {statement('base/nine', 'drop')}", hook="output")
        yield host


def test_packets_are_what_a_packet_socket_sees(network: Network) -> None:
    load(network.router, f'iifname "eth0" counter {statement("base/all", "accept")}')

    def talk() -> None:
        for to in ("198.51.100.1", "2001:db8:1::1"):
            family = socket.AF_INET6 if ":" in to else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 5)
                s.sendto(b"y" * 700, (to, 5353))
            with socket.socket(family) as s, pytest.raises(ConnectionRefusedError):
                s.connect((to, 4443))
            subprocess.run(["/usr/bin/ping", "-c1", "-W2", to], check=True, capture_output=True)

    before_ns = time.time_ns()
    with closing(sniffer(network.router, "eth0")) as s, reading(network.router) as reader:
        network.client.run(talk)
        until(lambda: reader.ring.state[0] >= 6 and not time.sleep(0.3))
        logged = packets(reader.ring.take(0, 1000))
        witnessed = sorted(frames(s))
    logged = [p for p in logged if p["destination_mac"][:2] != MULTICAST]
    assert sorted(map(as_frame, logged)) == witnessed
    told = {(p["protocol_number"], len(p["source"])) for p in logged}
    assert told >= {(17, 4), (17, 16), (6, 4), (6, 16), (1, 4), (58, 16)}
    assert {p["tcp_flags"] for p in logged if p["protocol_number"] == 6} == {2}
    assert {(p["rule"], p["action"]) for p in logged} == {("base/all", "accept")}
    assert {p["in_ifname"] for p in logged} == {"eth0"}
    assert {p["out_ifname"] for p in logged} == {""}
    assert all(before_ns < p["time_unix_ns"] < time.time_ns() for p in logged)
    assert reader.malformed == 0
    network.router.exec("/usr/sbin/nft", "flush", "ruleset")


def test_ports_of_a_bridge_and_a_mark_are_told(network: Network) -> None:
    network.router.sysctl("net.bridge.bridge-nf-call-iptables", "1")
    load(
        network.router,
        f"udp dport 7 meta mark set 0x1234 {statement('kvm/seven', 'would-drop')}",
        hook="forward",
    )
    with reading(network.router) as reader:
        network.web.run(send, 3, 7, "10.213.0.3")
        until(lambda: reader.ring.state[0] >= 3)
        for p in packets(reader.ring.take(0, 10)):
            way = [p[f"{n}_ifname"] for n in ("in", "physin", "out", "physout")]
            assert way == ["br0", "p2", "br0", "p3"]
            assert (p["mark"], p["action"]) == (0x1234, "would-drop")
            assert ip_address(p["source"]) == ip_address("10.213.0.2")
    network.router.exec("/usr/sbin/nft", "flush", "ruleset")


def test_a_link_that_is_gone_is_told_by_its_index(alone: Host) -> None:
    group = alone.run(lambda: Group(GROUP, SNAPLEN_BYTES))
    with hosts("other") as names:
        join(alone, "gone", Host(names[0]), "peer")
        index = json.loads(alone.ip("-j", "link", "show", "gone"))[0]["ifindex"]
        alone.ip("addr", "add", "10.9.0.1/24", "dev", "gone")
        alone.ip("neigh", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:01", "dev", "gone")
        alone.run(send, 1, 9, "10.9.0.2")
        alone.run(send, 1)
        time.sleep(0.3)  # The kernel holds packets back for 100 ms.
        alone.ip("link", "del", "gone")
    reader = Reader(group, Ring(1000, 10**9))
    alone.run(reader.start)
    try:
        until(lambda: reader.ring.state[0] == 2)
    finally:
        reader.close()
    logged = packets(reader.ring.take(0, 10))
    assert [p["out_ifname"] for p in logged] == [f"if{index}", "lo"]


def overdriven(host: Host, packets_sent: int) -> tuple[Group, Reader]:
    """A reader that begins when the kernel has already run out of room."""
    group = host.run(lambda: Group(GROUP, SNAPLEN_BYTES, 64 << 10))
    host.run(send, packets_sent)
    time.sleep(0.3)  # The kernel holds packets back for 100 ms.
    reader = Reader(group, Ring(10**6, 10**9))
    return group, reader


@pytest.mark.parametrize(("count", "known_too_late"), [(64 * 500, 0), (64 * 500 + 10, 54)])
def test_what_is_lost_last_is_told_too(alone: Host, count: int, known_too_late: int) -> None:
    group, reader = overdriven(alone, count)
    alone.run(reader.start)
    try:
        first = until(lambda: (t := reader.ring.take(0, 10**6)).lost and t)
        assert 0 < len(first.packed) < count
        # Nobody knows yet how few the last datagram had: it is taken for a full one.
        assert len(first.packed) + first.lost == count + known_too_late
        assert first.lost_at_socket == first.lost
        assert alone.run(group.drops) * 64 == first.lost
        # The next packet has a number, and with it everything is exact.
        alone.run(send, 1)
        until(lambda: len(reader.ring.take(first.seq, 10).packed) == 1)
        then = reader.ring.take(first.seq, 10)
        assert first.lost + then.lost == counted(alone) - 1 - len(first.packed)
        assert then.lost_at_socket == -first.lost_at_socket
    finally:
        reader.close()


def test_overdriven_nothing_is_unaccounted_for(alone: Host) -> None:
    with reading(alone, rcvbuf_bytes=32 << 10) as reader:
        alone.run(send, 60_000)
        # One more, once it is quiet: the last gap is then known exactly.
        time.sleep(0.6)
        alone.run(send, 1)
        sent = counted(alone)
        assert sent == 60_001

        def whole() -> Taken | None:
            taken = reader.ring.take(0, 10**6)
            return taken if len(taken.packed) + taken.lost == sent else None

        assert until(whole).lost_at_socket == 0


def follow(service: PacketLogService, enough: Callable[[list[Any]], bool], **asked: Any) -> Any:
    """Answers of a stream, in the namespace that the thread is in, up to where they are enough."""

    async def run() -> list[pb.FollowPacketLogResponse]:
        got: list[pb.FollowPacketLogResponse] = []
        stream = service.FollowPacketLog(pb.FollowPacketLogRequest(**asked), CONTEXT)
        try:
            async with asyncio.timeout(WITHIN_S):
                async for answer in stream:
                    got.append(answer)
                    if enough(got):
                        return got
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        raise AssertionError("the stream ended by itself")

    return asyncio.run(run())


def records(got: list[pb.FollowPacketLogResponse]) -> list[pb.PacketRecord]:
    return [r for answer in got for r in answer.records]


def _some(service: PacketLogService, upto: int, reader: str, after: int) -> Any:
    return follow(
        service, lambda g: len(g) == 3 or g[-1].seq >= upto, reader=reader, after_seq=after
    )


@pytest.fixture
def service() -> Iterator[PacketLogService]:
    log = PacketLog()
    runtime: Any = InPlace()
    yield PacketLogService(runtime, log)
    log.close()


def test_a_follower_that_was_cut_goes_on_without_gap_or_double(
    alone: Host, service: PacketLogService
) -> None:
    got = alone.run(lambda: follow(service, lambda g: bool(g)))
    reader, seq = got[0].reader, 0
    numbers: list[int] = []
    for upto in (3000, 4000):
        alone.run(send, upto - len(numbers))
        while seq < upto:
            got = alone.run(_some, service, upto, reader, seq)
            assert {g.reader for g in got} == {reader}
            assert sum(g.lost for g in got) == 0
            numbers += [r.seq for r in records(got)]
            seq = got[-1].seq
    assert numbers == list(range(1, 4001))


def test_another_reader_begins_at_its_start_and_minus_one_with_now(
    alone: Host, service: PacketLogService
) -> None:
    alone.run(lambda: follow(service, lambda g: bool(g)))
    alone.run(send, 5)
    until(lambda: service.packet_log.state()[0].ring.state[0] == 5)  # type: ignore[union-attr]
    got = alone.run(
        lambda: follow(service, lambda g: len(records(g)) == 5, reader="gone", after_seq=77)
    )
    assert [r.seq for r in records(got)] == [1, 2, 3, 4, 5]
    got = alone.run(lambda: follow(service, lambda g: bool(g), after_seq=-1))
    assert (got[0].seq, len(got[0].records)) == (5, 0)


def test_a_follower_who_comes_too_late_is_told_what_it_missed(
    alone: Host, service: PacketLogService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_log_module, "MOST_PACKETS", 1000)
    alone.run(lambda: follow(service, lambda g: bool(g)))
    alone.run(send, 5000)
    reader = service.packet_log.state()[0]
    assert reader is not None
    until(lambda: reader.ring.state[0] == 5000)
    got = alone.run(lambda: follow(service, lambda g: g[-1].seq == 5000, reader=reader.name))
    assert 0 < len(records(got)) <= 1064
    assert sum(g.lost for g in got) + len(records(got)) == 5000
    assert records(got)[-1].seq == 5000


def test_the_filter_is_the_daemons_work(alone: Host, service: PacketLogService) -> None:
    load(alone, f"udp dport 10 {statement('base/ten', 'accept')}", hook="postrouting")
    alone.run(lambda: follow(service, lambda g: bool(g)))
    for _ in range(10):
        alone.run(send, 30, 9)
        alone.run(send, 7, 10)
    where = 'action == "accept" and dport in 10-20 and out == lo and src in 127.0.0.0/8'
    got = alone.run(lambda: follow(service, lambda g: len(records(g)) >= 70, where=where))
    assert [r.destination_port for r in records(got)] == [10] * 70
    assert {r.rule for r in records(got)} == {"base/ten"}
    # Nobody passes: the caller is told how far it has come all the same.
    got = alone.run(lambda: follow(service, lambda g: g[-1].seq == 370, where="dport == 11"))
    assert records(got) == []


def test_faults_of_a_request_come_together(service: PacketLogService) -> None:
    with pytest.raises(InvalidRequest) as refused:
        follow(service, bool, where="dport == ", after_seq=-2)
    assert [v.field for v in refused.value.violations] == ["after_seq", "where"]
    assert "at character 10: the end stands where" in refused.value.violations[1].description


def test_another_program_in_the_way_is_named(alone: Host, service: PacketLogService) -> None:
    def state() -> pb.GetPacketLogStateResponse:
        return alone.run(
            lambda: asyncio.run(service.GetPacketLogState(pb.GetPacketLogStateRequest(), CONTEXT))
        )

    other = alone.run(lambda: Group(GROUP, SNAPLEN_BYTES))
    with pytest.raises(PacketLogBusy):
        alone.run(lambda: follow(service, bool))
    assert "another program reads" in state().problem
    other.close()
    assert (state().problem, state().reader) == ("", "")
    got = alone.run(lambda: follow(service, bool))
    alone.run(send, 2)
    until(lambda: state().last_seq == 2)
    assert (state().reader, state().first_seq, state().lost) == (got[0].reader, 1, 0)
    assert state().followers == 0


def test_it_is_read_while_followed_and_for_a_while_after(
    alone: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PacketLog()
    assert (log.due(), log.end()) == (None, False)
    alone.run(log.open)
    with log.followed():
        assert log.due() == packet_log_module.KEEP_S
        monkeypatch.setattr(packet_log_module, "KEEP_S", 0.0)
        assert not log.end()
        monkeypatch.setattr(packet_log_module, "KEEP_S", 50.0)
    left_s = log.due()
    assert left_s is not None
    assert 0 < left_s <= 50
    assert not log.end()
    monkeypatch.setattr(packet_log_module, "KEEP_S", 0.0)
    assert log.end()
    assert log.due() is None
    # The group is free again.
    alone.run(lambda: Group(GROUP, SNAPLEN_BYTES)).close()


def test_the_right_to_administer_the_network_is_all_it_needs(alone: Host) -> None:
    program = (
        "from hostlerd.firewall.kernel.nflog import RCVBUF_BYTES, Group\n"
        "with open('/proc/self/status') as f: print(f.read().split('CapEff:')[1].split()[0])\n"
        f"g = Group({GROUP}, {SNAPLEN_BYTES}); print(g.drops(), g.rcvbuf_bytes >= RCVBUF_BYTES)"
    )
    bound = ["/usr/bin/setpriv", "--inh-caps=-all", "--no-new-privs"]
    may = alone.exec(*bound, "--bounding-set=-all,+net_admin", sys.executable, "-c", program)
    assert may.split() == [f"{1 << 12:016x}", "0", "True"]
    with pytest.raises(subprocess.CalledProcessError) as refused:
        alone.exec(*bound, "--bounding-set=-all", sys.executable, "-c", program)
    assert "PacketLogUnavailable" in refused.value.stderr
