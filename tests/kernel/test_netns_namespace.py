"""Namespaces on the real kernel, in a host of the test's own; ip(8) is the witness."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from own_host import own_host

from hostlerd.netns.errors import NamespaceBusy, NamespaceDiffers, NamespaceForeign
from hostlerd.netns.kernel import Kernel
from hostlerd.netns.kernel.handles import DirectHandles
from hostlerd.netns.kernel.tasks import Found, proc_tasks
from hostlerd.netns.model import link_steps
from hostlerd.netns.model.asked import (
    AskedDns,
    AskedInterface,
    AskedLink,
    AskedNamespace,
    AskedRoute,
)
from hostlerd.netns.plan import namespace as plan
from hostlerd.netns.plan.converge import drift
from hostlerd.netns.plan.pool import read_pools
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.runtime.steps import Plan

pytestmark = pytest.mark.kernel
POOLS = read_pools({})


@pytest.fixture
def host() -> Iterator[None]:
    """Move the test to a mount and network namespace of its own; the kernel cleans up."""
    with own_host():
        ip("link", "set", "lo", "up")
        yield


@pytest.fixture
def kernel(host: None, tmp_path: Path) -> Kernel:
    return Kernel(tmp_path / "state", tmp_path / "run", handles=DirectHandles())


def ip(*argv: str) -> list[dict[str, object]]:
    done = subprocess.run(["ip", "-json", *argv], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else []


def carry_out(kernel: Kernel, change: Plan) -> None:
    with kernel.applying() as apply:
        for step in change.steps:
            apply(step)


def create(kernel: Kernel, asked: AskedNamespace) -> Plan:
    change = plan.create(asked, kernel.observe([asked.name]), POOLS)
    carry_out(kernel, change)
    return change


def remove(kernel: Kernel, name: str) -> None:
    carry_out(kernel, plan.delete(name, kernel.observe([name])))


def addresses(namespace: str, ifname: str) -> set[str]:
    where = ("-n", namespace) if namespace else ()
    (link,) = ip(*where, "addr", "show", "dev", ifname)
    return {
        f"{a['local']}/{a['prefixlen']}"
        for a in link["addr_info"]  # type: ignore[attr-defined]
        if not str(a["local"]).startswith("fe80")
    }


def pings(namespace: str, address: str) -> bool:
    where = ["ip", "netns", "exec", namespace] if namespace else []
    argv = [*where, "ping", "-c1", "-W2", address]
    return subprocess.run(argv, capture_output=True, timeout=10).returncode == 0


def web(**changes: object) -> AskedNamespace:
    interface = AskedInterface(
        link=AskedLink("veth", host_addresses=("10.9.0.1/30", "fd09::1/64")),
        addresses=("10.9.0.2/30", "fd09::2/64"),
        default_route=True,
    )
    asked = AskedNamespace(
        "web", (interface,), dns=AskedDns(("10.9.0.1",), ("example.org",), ("ndots:2",))
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


def names() -> set[object]:
    return {n["name"] for n in ip("netns", "list")}


def links() -> set[object]:
    return {link["ifname"] for link in ip("link")}


def test_create_veth_and_reach_the_host(kernel: Kernel) -> None:
    create(kernel, web(unprivileged_port_start=80))
    assert names() == {"web"}
    assert addresses("web", "eth0") == {"10.9.0.2/30", "fd09::2/64"}
    assert addresses("", "v-web") == {"10.9.0.1/30", "fd09::1/64"}
    assert [r["gateway"] for r in ip("-n", "web", "route", "show", "default")] == ["10.9.0.1"]
    assert [r["gateway"] for r in ip("-n", "web", "-6", "route", "show", "default")] == ["fd09::1"]
    (lo,) = ip("-n", "web", "link", "show", "lo")
    assert "UP" in lo["flags"]  # type: ignore[operator]
    assert pings("web", "10.9.0.1")
    assert pings("web", "fd09::1")
    assert pings("", "fd09::2")
    shown = subprocess.run(
        ["ip", "netns", "exec", "web", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"],
        capture_output=True,
        text=True,
    )
    assert shown.stdout == "80\n"


def test_second_create_is_empty_and_another_shape_is_refused(kernel: Kernel) -> None:
    create(kernel, web())
    again = plan.create(web(), kernel.observe(["web"]), POOLS)
    assert again.steps == ()
    assert again.etag == again.etag_after
    with pytest.raises(NamespaceDiffers):
        plan.create(web(hostname="other"), kernel.observe(["web"]), POOLS)


def test_the_etag_foretold_is_the_etag_after(kernel: Kernel) -> None:
    first = create(kernel, web())
    again = plan.create(web(), kernel.observe(["web"]), POOLS)
    assert again.etag == first.etag_after


def test_delete_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    before = (ip("link"), ip("route"), ip("-6", "route"))
    create(kernel, web())
    remove(kernel, "web")
    assert (ip("link"), ip("route"), ip("-6", "route")) == before
    assert names() == set()
    assert list(Path("/run/netns").iterdir()) == []
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert plan.delete("web", kernel.observe()).steps == ()


def test_etc_files_hold_its_own_dns_and_keep_their_inode(kernel: Kernel, tmp_path: Path) -> None:
    create(kernel, web())
    file = tmp_path / "run/etc/web/resolv.conf"
    assert "nameserver 10.9.0.1\n" in file.read_text()
    assert "search example.org\n" in file.read_text()
    inode = file.stat().st_ino
    change = plan.apply([web(dns=AskedDns(("10.9.9.9",)))], kernel.observe(), POOLS)
    assert [type(step).__name__ for step in change.steps] == ["SaveSpec", "WriteDns"]
    carry_out(kernel, change)
    assert "nameserver 10.9.9.9\n" in file.read_text()
    assert file.stat().st_ino == inode, "processes that run have the old file mounted"
    assert "hosts: files dns\n" in (tmp_path / "run/etc/web/nsswitch.conf").read_text()


def test_apply_changes_in_place(kernel: Kernel) -> None:
    create(kernel, web())
    (before,) = ip("-n", "web", "link", "show", "eth0")
    interface = AskedInterface(
        link=AskedLink("veth", host_addresses=("10.9.0.1/24",)),
        addresses=("10.9.0.3/24", "10.9.0.4/24"),
        mtu_bytes=1400,
        default_route=True,
    )
    asked = web(interfaces=(interface,), routes=(AskedRoute("192.0.2.0/24", "10.9.0.9"),))
    carry_out(kernel, plan.apply([asked], kernel.observe(), POOLS))
    (after,) = ip("-n", "web", "link", "show", "eth0")
    assert after["ifindex"] == before["ifindex"]
    assert after["mtu"] == 1400
    assert addresses("web", "eth0") == {"10.9.0.3/24", "10.9.0.4/24"}
    assert addresses("", "v-web") == {"10.9.0.1/24"}
    assert {(r["dst"], r.get("gateway")) for r in ip("-n", "web", "route")} == {
        ("default", "10.9.0.1"),
        ("10.9.0.0/24", None),
        ("192.0.2.0/24", "10.9.0.9"),
    }
    assert plan.apply([asked], kernel.observe(), POOLS).steps == ()
    # The first address is the one whose removal takes the others of its network along.
    asked = replace(asked, interfaces=(replace(interface, addresses=("10.9.0.4/24",)),))
    carry_out(kernel, plan.apply([asked], kernel.observe(), POOLS))
    assert addresses("web", "eth0") == {"10.9.0.4/24"}
    assert {r["dst"] for r in ip("-n", "web", "route")} >= {"default", "192.0.2.0/24"}
    assert plan.apply([asked], kernel.observe(), POOLS).steps == ()


def test_bridge_joins_two_namespaces(kernel: Kernel) -> None:
    ip("link", "add", "br0", "mtu", "1450", "type", "bridge")
    ip("link", "set", "br0", "up")
    asked = [
        AskedNamespace(
            name,
            (AskedInterface(link=AskedLink("veth", bridge="br0"), addresses=(address,)),),
        )
        for name, address in (("one", "10.8.0.1/24"), ("two", "10.8.0.2/24"))
    ]
    carry_out(kernel, plan.apply(asked, kernel.observe(), POOLS))
    assert pings("one", "10.8.0.2")
    (port,) = ip("link", "show", "v-one")
    assert port["master"] == "br0"
    (link,) = ip("-n", "one", "link", "show", "eth0")
    assert link["mtu"] == 1450
    again = plan.apply(asked, kernel.observe(), POOLS)
    assert again.steps == ()


def test_macvlan_siblings_reach_each_other(kernel: Kernel) -> None:
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    ip("link", "set", "up0", "up")
    ip("link", "set", "up1", "up")
    asked = [
        AskedNamespace(
            name,
            (AskedInterface(link=AskedLink("macvlan", parent="up0"), addresses=(address,)),),
        )
        for name, address in (("one", "10.7.0.1/24"), ("two", "10.7.0.2/24"))
    ]
    carry_out(kernel, plan.apply(asked, kernel.observe(), POOLS))
    (link,) = ip("-d", "-n", "one", "link", "show", "eth0")
    assert link["linkinfo"]["info_data"]["mode"] == "bridge"  # type: ignore[index]
    assert pings("one", "10.7.0.2")
    assert plan.apply(asked, kernel.observe(), POOLS).steps == ()
    carry_out(kernel, plan.apply([], kernel.observe(), POOLS, delete_unlisted=True))
    assert names() == set()


def test_kind_of_link_is_made_anew(kernel: Kernel) -> None:
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    create(kernel, web())
    interface = AskedInterface(
        link=AskedLink("macvlan", parent="up0"), addresses=("10.9.0.2/30", "fd09::2/64")
    )
    asked = web(interfaces=(interface,))
    carry_out(kernel, plan.apply([asked], kernel.observe(), POOLS))
    assert "v-web" not in links()
    (link,) = ip("-d", "-n", "web", "link", "show", "eth0")
    assert link["linkinfo"]["info_kind"] == "macvlan"  # type: ignore[index]
    assert plan.apply([asked], kernel.observe(), POOLS).steps == ()


def test_drift_is_told_in_words_and_put_right(kernel: Kernel) -> None:
    create(kernel, web())
    ip("-n", "web", "addr", "add", "10.9.7.7/24", "dev", "eth0")
    ip("-n", "web", "addr", "del", "fd09::2/64", "dev", "eth0")
    ip("-n", "web", "route", "del", "default")
    ip("link", "set", "v-web", "down")
    state = kernel.observe()
    words = drift(state.namespaces["web"], state.host)
    assert set(words) >= {
        "eth0 has 10.9.7.7/24, which was not asked for",
        "eth0 lacks fd09::2/64",
        "v-web is down",
        "route default via 10.9.0.1 dev eth0 is missing",
    }
    carry_out(kernel, plan.apply([web()], kernel.observe(), POOLS))
    assert drift(kernel.observe().namespaces["web"], kernel.observe().host) == ()
    assert addresses("web", "eth0") == {"10.9.0.2/30", "fd09::2/64"}
    assert pings("web", "fd09::1")


def test_foreign_namespaces_are_seen_and_never_changed(kernel: Kernel) -> None:
    ip("netns", "add", "theirs")
    ip("-n", "theirs", "link", "add", "in0", "type", "veth", "peer", "name", "in1")
    seen = kernel.observe().namespaces["theirs"]
    assert not seen.managed
    assert seen.inode == Path("/run/netns/theirs").stat().st_ino
    assert {link.name for link in seen.links} >= {"lo", "in0", "in1"}
    with pytest.raises(NamespaceForeign):
        plan.create(AskedNamespace("theirs"), kernel.observe(), POOLS)
    with pytest.raises(NamespaceForeign):
        plan.apply([AskedNamespace("theirs")], kernel.observe(), POOLS)
    with pytest.raises(NamespaceForeign):
        plan.delete("theirs", kernel.observe())
    assert plan.apply([], kernel.observe(), POOLS, delete_unlisted=True).steps == ()


def test_what_the_host_has_is_refused(kernel: Kernel) -> None:
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    ip("addr", "add", "10.6.0.1/24", "dev", "up0")
    ip("link", "set", "up0", "up")
    interface = AskedInterface(
        link=AskedLink("veth", host_ifname="up1", host_addresses=("10.6.0.1/30",), bridge=""),
        addresses=("10.6.0.2/30",),
    )
    second = AskedInterface(link=AskedLink("macvlan", parent="none0"), addresses=("10.5.0.2/24",))
    third = AskedInterface(link=AskedLink("veth", bridge="up0"))
    with pytest.raises(InvalidRequest) as caught:
        plan.create(
            AskedNamespace("web", (interface, second, third)), kernel.observe(["web"]), POOLS
        )
    assert {v.field for v in caught.value.violations} == {
        "namespace.interfaces[0].veth.host_ifname",
        "namespace.interfaces[0].veth.host_addresses[0]",
        "namespace.interfaces[0].addresses[0]",
        "namespace.interfaces[1].macvlan.parent",
        "namespace.interfaces[2].veth.bridge",
    }


def test_a_failed_step_is_taken_back_by_inverses(kernel: Kernel, tmp_path: Path) -> None:
    before = (ip("link"), ip("route"))
    change = plan.create(web(), kernel.observe(), POOLS)
    with kernel.applying() as apply:
        for step in change.steps:
            apply(step)
        for step in reversed(change.steps):
            inverse = step.inverse()
            if inverse:
                apply(inverse)
    assert (ip("link"), ip("route")) == before
    assert names() == set()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_taken_back_delete_brings_everything_back(kernel: Kernel) -> None:
    create(
        kernel, web(unprivileged_port_start=80, routes=(AskedRoute("192.0.2.0/24", "10.9.0.1"),))
    )
    change = plan.delete("web", kernel.observe())
    with kernel.applying() as apply:
        for step in change.steps:
            apply(step)
        assert "v-web" not in links()
        for step in reversed(change.steps):
            inverse = step.inverse()
            if inverse:
                apply(inverse)
    state = kernel.observe()
    assert drift(state.namespaces["web"], state.host) == ()
    assert pings("web", "10.9.0.1")


@pytest.mark.parametrize("steps_done", range(1, 14))
def test_cut_off_anywhere_a_second_create_or_delete_puts_it_right(
    kernel: Kernel, steps_done: int
) -> None:
    before = (ip("link"), ip("route"))
    change = plan.create(web(), kernel.observe(), POOLS)
    with kernel.applying() as apply:
        for step in change.steps[:steps_done]:
            apply(step)
    create(kernel, web())
    assert pings("web", "10.9.0.1")
    assert plan.create(web(), kernel.observe(), POOLS).steps == ()
    removal = plan.delete("web", kernel.observe())
    with kernel.applying() as apply:
        for step in removal.steps[: steps_done % len(removal.steps)]:
            apply(step)
    remove(kernel, "web")
    assert (ip("link"), ip("route")) == before
    assert kernel.observe().namespaces == {}


def test_rests_are_cleaned(kernel: Kernel, tmp_path: Path) -> None:
    create(kernel, web())
    # The handle goes, a process keeps the namespace and so the end on the host.
    holder = subprocess.Popen(["ip", "netns", "exec", "web", "sleep", "60"])
    try:
        while kernel.processes(kernel.observe().namespaces["web"].inode) != (holder.pid,):
            pass
        ip("netns", "del", "web")
        assert "v-web" in links()
        remove(kernel, "web")
        assert "v-web" not in links()
        assert kernel.observe().namespaces == {}
    finally:
        holder.kill()
        holder.wait()
    # A handle file without a mount.
    Path("/run/netns/web").touch()
    assert kernel.observe().namespaces["web"].stale_handle
    create(kernel, web())
    assert pings("web", "10.9.0.1")
    (tmp_path / "run/namespaces/web.json").write_text("{")
    assert "cannot be read" in drift(kernel.observe().namespaces["web"], kernel.observe().host)[0]
    remove(kernel, "web")
    assert kernel.observe().namespaces == {}


def test_processes_stand_in_the_way_of_delete(kernel: Kernel) -> None:
    create(kernel, web())
    inside = subprocess.Popen(["ip", "netns", "exec", "web", "sleep", "60"])
    try:
        inode = kernel.observe().namespaces["web"].inode
        while not (pids := kernel.processes(inode)):
            pass
        with pytest.raises(NamespaceBusy) as caught:
            plan.delete("web", kernel.observe(), pids=pids)
        assert caught.value.metadata["pids"] == str(inside.pid)
    finally:
        inside.kill()
        inside.wait()


def test_processes_of_many_namespaces_are_found_at_once(kernel: Kernel, tmp_path: Path) -> None:
    two(kernel)
    inodes = {name: seen.inode for name, seen in kernel.observe().namespaces.items()}
    inside = subprocess.Popen(["ip", "netns", "exec", "two", "sleep", "60"])

    def cut(inode: int) -> Found:
        return proc_tasks(inode) if inode else Found({}, truncated=True)

    among_more = Kernel(tmp_path / "state", tmp_path / "run", handles=DirectHandles(), tasks=cut)
    try:
        while not kernel.processes(inodes["two"]):
            pass
        for one in (kernel, among_more):
            processes = one.processes_of_many()
            found = [processes(inode) for inode in (inodes["one"], inodes["two"], 0)]
            assert found == [(), (inside.pid,), ()]
    finally:
        inside.kill()
        inside.wait()


def test_restore_brings_back_what_is_persistent(kernel: Kernel, tmp_path: Path) -> None:
    create(kernel, web(persistent=True))
    made = kernel.observe().namespaces["web"].create_time
    other = AskedInterface(link=AskedLink("veth"), ipv4_pool="default")
    create(kernel, AskedNamespace("other", (other,)))
    # What a boot does: namespaces, links and /run go.
    for name in ("web", "other"):
        ip("netns", "del", name)
    for link in ("v-web", "v-other"):
        subprocess.run(["ip", "link", "del", link], capture_output=True, timeout=10)
    subprocess.run(["rm", "-r", str(tmp_path / "run")], check=True, timeout=10)
    fresh = Kernel(tmp_path / "state", tmp_path / "run", handles=DirectHandles())
    assert fresh.persistent() == ["web"]
    seen = fresh.observe().namespaces["web"]
    assert seen.inode == 0
    assert seen.record is not None
    carry_out(fresh, plan.restore(seen.record, fresh.observe()))
    assert names() == {"web"}
    assert pings("web", "10.9.0.1")
    assert fresh.observe().namespaces["web"].create_time == made
    assert (tmp_path / "run/etc/web/resolv.conf").exists()


def test_pools_avoid_the_host_and_are_kept(kernel: Kernel) -> None:
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    ip("addr", "add", "10.213.0.1/30", "dev", "up0")
    ip("link", "set", "up0", "up")
    ip("route", "add", "10.213.0.4/30", "dev", "up0")
    interface = AskedInterface(
        link=AskedLink("veth"), ipv4_pool="default", ipv6_pool="default", default_route=True
    )
    asked = [AskedNamespace(name, (interface,)) for name in ("one", "two")]
    carry_out(kernel, plan.apply(asked, kernel.observe(), POOLS))
    assert addresses("one", "eth0") == {"10.213.0.10/30", "fd48:6f73:746c::2/64"}
    assert addresses("two", "eth0") == {"10.213.0.14/30", "fd48:6f73:746c:1::2/64"}
    assert pings("one", "fd48:6f73:746c::1")
    assert plan.apply(asked, kernel.observe(), POOLS).steps == ()
    assert plan.create(asked[0], kernel.observe(["one"]), POOLS).steps == ()


def test_one_bad_of_many_changes_nothing(kernel: Kernel) -> None:
    interface = AskedInterface(link=AskedLink("veth"), ipv4_pool="default")
    asked = [AskedNamespace(f"n{at}", (interface,)) for at in range(1000)]
    asked[3] = replace(asked[3], name="BAD")
    asked[999] = replace(asked[999], name="n0")
    with pytest.raises(InvalidRequest) as caught:
        plan.apply(asked, kernel.observe(), POOLS)
    assert [v.field for v in caught.value.violations] == [
        "namespaces[3].name",
        "namespaces[999].name",
    ]
    assert names() == set()


def test_many_at_once(kernel: Kernel) -> None:
    interface = AskedInterface(link=AskedLink("veth"), ipv4_pool="default", default_route=True)
    asked = [AskedNamespace(f"n{at}", (interface,)) for at in range(150)]
    carry_out(kernel, plan.apply(asked, kernel.observe(), POOLS))
    assert len(names()) == 150
    assert pings("n149", "10.213.2.85")
    assert plan.apply(asked, kernel.observe(), POOLS).steps == ()
    carry_out(kernel, plan.apply([], kernel.observe(), POOLS, delete_unlisted=True))
    assert names() == set()
    assert links() == {"lo"} | {n for n in links() if not str(n).startswith("v-")}


def links_with(*keys: str) -> dict[object, tuple[object, ...]]:
    return {x["ifname"]: tuple(x.get(key) for key in keys) for x in ip("-details", "link")}


def two(kernel: Kernel) -> None:
    interface = AskedInterface(link=AskedLink("veth"), ipv4_pool="default", default_route=True)
    asked = [AskedNamespace(name, (interface,)) for name in ("one", "two")]
    carry_out(kernel, plan.apply(asked, kernel.observe(), POOLS))


def test_links_that_go_together_take_no_other_with_them(kernel: Kernel) -> None:
    ip("link", "add", "up0", "group", "7", "type", "veth", "peer", "name", "up1")
    two(kernel)
    ip("link", "set", "v-one", "group", "7")
    with kernel.applying() as apply:
        apply(link_steps.RemoveHostLinks(("v-one", "v-none", "v-two")))
        apply(link_steps.RemoveHostLinks(("v-one",)))
    # They are gone when it returns, and so are their other ends.
    left = links_with("group")
    assert "v-one" not in left
    assert "v-two" not in left
    assert (left["up0"], left["up1"]) == (("7",), ("default",))
    assert [x["ifname"] for x in ip("-n", "one", "link")] == ["lo"]


def test_links_that_cannot_go_together_all_stay(kernel: Kernel) -> None:
    two(kernel)
    ip("link", "set", "v-one", "group", "7")
    with kernel.applying() as apply, pytest.raises(OSError):
        # The kernel removes no loopback.
        apply(link_steps.RemoveHostLinks(("v-one", "lo", "v-two")))
    left = links_with("group")
    assert (left["v-one"], left["v-two"], left["lo"]) == (("7",), ("default",), ("default",))
    assert pings("one", "10.213.0.1")


def test_a_taken_back_end_of_several_brings_all_back(kernel: Kernel) -> None:
    two(kernel)
    change = plan.apply([], kernel.observe(), POOLS, delete_unlisted=True)
    with kernel.applying() as apply:
        for step in change.steps:
            apply(step)
        assert names() == set()
        for step in reversed(change.steps):
            if back := step.inverse():
                apply(back)
    assert names() == {"one", "two"}
    assert pings("one", "10.213.0.1")
    assert pings("two", "10.213.0.5")
    state = kernel.observe()
    assert all(drift(seen, state.host) == () for seen in state.namespaces.values())


def test_failed_work_inside_leaves_no_thread_in_the_namespace(kernel: Kernel) -> None:
    create(kernel, web())
    inode = kernel.observe().namespaces["web"].inode
    with kernel.applying() as apply:
        with pytest.raises(FileNotFoundError):
            apply(link_steps.SetSysctl("web", "net/ipv4/no_such_thing", "1", "0"))
        tasks = Path("/proc/self/task").iterdir()
        assert inode not in {(task / "ns/net").stat().st_ino for task in tasks}
        apply(link_steps.SetSysctl("web", "net/ipv4/ip_unprivileged_port_start", "99", "1024"))
    assert in_there("web", "net.ipv4.ip_unprivileged_port_start") == "99"
    assert in_there("", "net.ipv4.ip_unprivileged_port_start") == "1024"


def in_there(namespace: str, key: str) -> str:
    where = ["ip", "netns", "exec", namespace] if namespace else []
    argv = [*where, "sysctl", "-n", key]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10).stdout.strip()


AS_DAEMON = """
import sys
from pathlib import Path
from hostlerd.netns.kernel import Kernel
from hostlerd.netns.kernel.handles import DirectHandles
from hostlerd.netns.kernel.probe import PROBES
from hostlerd.netns.model.asked import AskedInterface, AskedLink, AskedNamespace
from hostlerd.netns.plan import namespace as plan
from hostlerd.netns.plan.pool import read_pools

folder = Path(sys.argv[1])
kernel = Kernel(folder / "state", folder / "run", handles=DirectHandles())
assert all(probe().available for probe in PROBES)
interface = AskedInterface(
    link=AskedLink("veth"), ipv4_pool="default", ipv6_pool="default", default_route=True
)
asked = AskedNamespace("web", (interface,), unprivileged_port_start=80, persistent=True)
for _ in range(2):
    change = plan.apply([asked], kernel.observe(), read_pools({}))
    with kernel.applying() as apply:
        for step in change.steps:
            apply(step)
    print(len(change.steps))
"""


def test_two_capabilities_of_another_user_are_enough(host: None, tmp_path: Path) -> None:
    # The folder of the handles alone is root's; there the launcher stands in.
    Path("/run/netns").mkdir()
    Path("/run/netns").chmod(0o777)
    Path("/run/work").mkdir()
    Path("/run/work").chmod(0o777)
    caps = "-all,+net_admin,+sys_admin"
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={caps}"]
    argv += [f"--ambient-caps={caps}", f"--bounding-set={caps}", sys.executable, "-c", AS_DAEMON]
    done = subprocess.run([*argv, "/run/work"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made, again = done.stdout.split()
    assert int(made) > 8
    assert again == "0"
    assert pings("web", "10.213.0.1")
    assert pings("web", "fd48:6f73:746c::1")
