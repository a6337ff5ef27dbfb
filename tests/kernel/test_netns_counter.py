"""Counters on the real kernel; ip(8) is the witness. Services are called as gRPC calls them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from own_host import own_host

from hostler.api.common.v1 import change_pb2
from hostler.api.netns.v1 import counter_pb2 as cpb
from hostler.api.netns.v1 import namespace_pb2 as pb
from hostlerd.netns.errors import (
    LinkNotFound,
    NamespaceBusy,
    NamespaceDiffers,
    NamespaceForeign,
    NamespaceNotFound,
)
from hostlerd.netns.kernel import Kernel
from hostlerd.netns.kernel.handles import DirectHandles
from hostlerd.netns.plan.pool import read_pools
from hostlerd.netns.service.counter import CounterService
from hostlerd.netns.service.namespace import NamespaceService
from hostlerd.runtime.config import Configuration, Paths
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import EtagMismatch, InvalidRequest, PlanChanged
from hostlerd.runtime.steps import Step

pytestmark = pytest.mark.kernel
# The services ask nothing of it.
NO_CONTEXT: Any = None


@pytest.fixture
def host() -> Iterator[None]:
    """Move the test to a mount and network namespace of its own; the kernel cleans up."""
    with own_host():
        ip("link", "set", "lo", "up")
        yield


def ip(*argv: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", "-json", *argv], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else []


class NothingStarted:
    """What ends processes on a host where Hostler has started none."""

    def steps(self, namespace: str, inode: int) -> tuple[Step, ...]:
        return ()


class Daemon:
    """The services on a real runtime, without a server around them."""

    def __init__(self, tmp_path: Path) -> None:
        paths = Paths(*(tmp_path / name for name in ("etc", "state", "run", "logs")))
        # systemd makes them for a daemon.
        paths.state.mkdir(mode=0o700)
        paths.run.mkdir(mode=0o700)
        self.runtime = Runtime("netns", paths, Configuration())
        self.kernel = Kernel(paths.state, paths.run, handles=DirectHandles())
        changes = self.runtime.changes(self.kernel)
        self.namespaces = NamespaceService(
            self.runtime, self.kernel, changes, read_pools({}), NothingStarted()
        )
        self.counters = CounterService(self.runtime, self.kernel)

    def namespace(self, method: str, request: Any) -> Any:
        async def call() -> Any:
            return await getattr(self.namespaces, method)(request, None)

        return asyncio.run(call())

    def counter(self, request: cpb.GetCountersRequest) -> cpb.GetCountersResponse:
        async def call() -> cpb.GetCountersResponse:
            return await self.counters.GetCounters(request, NO_CONTEXT)

        return asyncio.run(call())

    def watch(self, request: cpb.WatchCountersRequest) -> list[cpb.WatchCountersResponse]:
        async def call() -> list[cpb.WatchCountersResponse]:
            return [answer async for answer in self.counters.WatchCounters(request, NO_CONTEXT)]

        return asyncio.run(call())


@pytest.fixture
def daemon(host: None, tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.runtime._pool.shutdown()


def web(name: str = "web", **more: Any) -> pb.Namespace:
    interface = pb.Interface(
        veth=pb.Veth(), ipv4_pool="default", ipv6_pool="default", default_route=True
    )
    return pb.Namespace(name=name, interfaces=[interface], **more)


def ping(namespace: str, address: str, size_bytes: int = 56) -> None:
    argv = ["ip", "netns", "exec", namespace, "ping", "-c3", "-i0.05", "-s", str(size_bytes)]
    subprocess.run([*argv, address], check=True, capture_output=True, timeout=20)


def test_create_get_list_delete(daemon: Daemon) -> None:
    made = daemon.namespace("CreateNamespace", pb.CreateNamespaceRequest(namespace=web()))
    assert made.change.outcome == change_pb2.OUTCOME_APPLIED
    assert made.change.changed
    (interface,) = made.namespace.interfaces
    assert list(interface.addresses) == ["10.213.0.2/30", "fd48:6f73:746c::2/64"]
    assert interface.veth.host_ifname == "v-web"
    assert made.namespace.inode == Path("/run/netns/web").stat().st_ino
    assert interface.mac_address == ip("-n", "web", "link", "show", "eth0")[0]["address"]
    assert interface.up
    assert made.namespace.etag == made.change.etag
    got = daemon.namespace("GetNamespace", pb.GetNamespaceRequest(name="web")).namespace
    assert got == made.namespace
    ping("web", "10.213.0.1")
    # What was answered may be sent back as it is.
    again = daemon.namespace("CreateNamespace", pb.CreateNamespaceRequest(namespace=got))
    assert not again.change.changed
    assert not again.change.plan.steps
    with pytest.raises(NamespaceDiffers):
        daemon.namespace(
            "CreateNamespace", pb.CreateNamespaceRequest(namespace=web(hostname="other"))
        )
    options = change_pb2.ChangeOptions(etag="stale")
    with pytest.raises(EtagMismatch):
        daemon.namespace("DeleteNamespace", pb.DeleteNamespaceRequest(name="web", change=options))
    options = change_pb2.ChangeOptions(etag=got.etag)
    gone = daemon.namespace(
        "DeleteNamespace", pb.DeleteNamespaceRequest(name="web", change=options)
    )
    assert gone.change.changed
    assert ip("netns", "list") == []
    again = daemon.namespace("DeleteNamespace", pb.DeleteNamespaceRequest(name="web"))
    assert not again.change.changed
    with pytest.raises(NamespaceNotFound):
        daemon.namespace("GetNamespace", pb.GetNamespaceRequest(name="web"))


def test_validate_only_changes_nothing_and_its_hash_is_kept(daemon: Daemon) -> None:
    options = change_pb2.ChangeOptions(validate_only=True)
    request = pb.ApplyNamespacesRequest(namespaces=[web("a"), web("b")], change=options)
    foretold = daemon.namespace("ApplyNamespaces", request)
    assert foretold.change.outcome == change_pb2.OUTCOME_PLANNED
    assert [n.interfaces[0].addresses[0] for n in foretold.namespaces] == [
        "10.213.0.2/30",
        "10.213.0.6/30",
    ]
    assert ip("netns", "list") == []
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    ip("addr", "add", "10.213.0.1/24", "dev", "up0")
    request.change.CopyFrom(change_pb2.ChangeOptions(plan_hash=foretold.change.plan.hash))
    with pytest.raises(PlanChanged):
        daemon.namespace("ApplyNamespaces", request)
    ip("link", "del", "up0")
    done = daemon.namespace("ApplyNamespaces", request)
    assert done.change.plan.hash == foretold.change.plan.hash
    assert {n["name"] for n in ip("netns", "list")} == {"a", "b"}


def test_list_pages_and_shows_what_others_made(daemon: Daemon) -> None:
    names = ["a", "b", "c"]
    request = pb.ApplyNamespacesRequest(namespaces=[web(n) for n in names])
    daemon.namespace("ApplyNamespaces", request)
    ip("netns", "add", "theirs")
    ip("-n", "theirs", "link", "add", "in0", "type", "veth", "peer", "name", "in1")
    argv = ["unshare", "--net", "sleep", "60"]
    nameless = subprocess.Popen(argv)
    try:
        own = Path("/proc/thread-self/ns/net").stat().st_ino
        while (inode := Path(f"/proc/{nameless.pid}/ns/net").stat().st_ino) == own:
            time.sleep(0.01)
        listed: list[pb.Namespace] = []
        token = ""
        while True:
            answer = daemon.namespace(
                "ListNamespaces", pb.ListNamespacesRequest(page_size=2, page_token=token)
            )
            listed += answer.namespaces
            token = answer.next_page_token
            if not token:
                break
        by_name = {n.name: n for n in listed}
        assert {*names, "theirs", f"net:[{inode}]"} <= by_name.keys()
        assert [n for n in by_name if by_name[n].managed] == names
        assert {i.name for i in by_name["theirs"].interfaces} >= {"in0", "in1"}
        assert by_name[f"net:[{inode}]"].process_count == 1
        got = daemon.namespace("GetNamespace", pb.GetNamespaceRequest(name=f"net:[{inode}]"))
        assert got.namespace.inode == inode
    finally:
        nameless.kill()
        nameless.wait()
    ours = daemon.namespace("ListNamespaces", pb.ListNamespacesRequest(managed_only=True))
    assert [n.name for n in ours.namespaces] == names
    with pytest.raises(NamespaceForeign):
        daemon.namespace("DeleteNamespace", pb.DeleteNamespaceRequest(name="theirs"))
    with pytest.raises(InvalidRequest):
        daemon.namespace("ListNamespaces", pb.ListNamespacesRequest(page_size=-1))


def test_processes_of_others_are_never_cut_off(daemon: Daemon) -> None:
    daemon.namespace("CreateNamespace", pb.CreateNamespaceRequest(namespace=web()))
    inside = subprocess.Popen(["ip", "netns", "exec", "web", "sleep", "60"])
    try:
        request = pb.GetNamespaceRequest(name="web")
        while daemon.namespace("GetNamespace", request).namespace.process_count == 0:
            time.sleep(0.01)
        with pytest.raises(NamespaceBusy) as caught:
            daemon.namespace("DeleteNamespace", pb.DeleteNamespaceRequest(name="web"))
        assert caught.value.metadata["pids"] == str(inside.pid)
    finally:
        inside.kill()
        inside.wait()


def test_counters_are_those_of_the_kernel(daemon: Daemon) -> None:
    daemon.namespace("CreateNamespace", pb.CreateNamespaceRequest(namespace=web()))
    ping("web", "10.213.0.1", 1000)
    answer = daemon.counter(cpb.GetCountersRequest(namespace="web", ifname="eth0"))
    (link,) = answer.links
    (witness,) = ip("-s", "-n", "web", "link", "show", "eth0")
    for way in ("rx", "tx"):
        stats = witness["stats64"][way]
        assert getattr(link, f"{way}_packets") == stats["packets"]
        assert getattr(link, f"{way}_bytes") == stats["bytes"] > 3000
        assert getattr(link, f"{way}_dropped") == stats["dropped"]
        assert getattr(link, f"{way}_errors") == stats["errors"]
    assert (link.mtu_bytes, link.layer) == (1500, "L2 frame without FCS")
    host = daemon.counter(cpb.GetCountersRequest())
    assert {x.ifname for x in host.links} == {x["ifname"] for x in ip("link")}
    with pytest.raises(NamespaceNotFound):
        daemon.counter(cpb.GetCountersRequest(namespace="none"))
    with pytest.raises(LinkNotFound):
        daemon.counter(cpb.GetCountersRequest(ifname="none"))
    with pytest.raises(InvalidRequest):
        daemon.counter(cpb.GetCountersRequest(namespace="../../proc/1/ns"))


def test_watch_counts_and_rates(daemon: Daemon) -> None:
    daemon.namespace("CreateNamespace", pb.CreateNamespaceRequest(namespace=web()))
    argv = ["ip", "netns", "exec", "web", "ping", "-i0.01", "-s1000", "10.213.0.1"]
    pinging = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        request = cpb.WatchCountersRequest(namespace="web", ifname="eth0", count=3)
        request.interval.FromMilliseconds(300)
        answers = daemon.watch(request)
    finally:
        pinging.kill()
        pinging.wait()
    assert [a.seq for a in answers] == [1, 2, 3]
    assert not answers[0].links[0].HasField("rates")
    one, two = answers[1].links[0], answers[2].links[0]
    passed_s = two.rates.interval.ToNanoseconds() / 1e9
    assert passed_s > 0.25
    grown = two.counters.tx_bytes - one.counters.tx_bytes
    assert two.rates.tx_bits_per_second == pytest.approx(8 * grown / passed_s)
    packets = two.counters.tx_packets - one.counters.tx_packets
    assert packets > 0 and grown >= 1042 * packets * 0.9
    assert round(two.rates.tcp4_payload_share, 4) == 0.9493
    for bad in (99, 3_600_001):
        request.interval.FromMilliseconds(bad)
        with pytest.raises(InvalidRequest):
            daemon.watch(request)


def test_a_watch_goes_on_after_an_earlier_one_and_says_what_was_left_out(daemon: Daemon) -> None:
    request = cpb.WatchCountersRequest(ifname="lo", count=5, after_seq=3)
    request.interval.FromMilliseconds(100)
    assert [(a.seq, a.dropped) for a in daemon.watch(request)] == [(4, 0), (5, 0)]
    # The earlier one was cut a second ago: nine readings would have been made since.
    request.after_time.FromNanoseconds(time.time_ns() - 1_000_000_000)
    (first, second) = daemon.watch(request)
    assert 7 <= first.dropped <= 9 and second.dropped == 0
    request.after_seq = 5
    assert daemon.watch(request) == []
    request.after_seq = -1
    with pytest.raises(InvalidRequest, match="after_seq"):
        daemon.watch(request)
