"""Putting right what a kill has left of namespaces: the real kernel, ip(8) as the witness."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from own_host import own_host

from hostlerd.netns.kernel import Kernel
from hostlerd.netns.kernel.handles import DirectHandles
from hostlerd.netns.model.link_steps import (
    AddAddress,
    AddRoute,
    CreateVeth,
    JoinBridge,
    RemoveAddress,
    RemoveHostLinks,
    RemoveLink,
    RemoveRoute,
    SetLinkUp,
    SetMtu,
    SetSysctl,
)
from hostlerd.netns.model.namespace import Route
from hostlerd.netns.model.steps import (
    CreateNetns,
    PublishNetns,
    Remake,
    RemoveDns,
    RemoveNetns,
    WithdrawNetns,
)
from hostlerd.runtime.steps import Step

pytestmark = pytest.mark.kernel

ADDRESS = ip_interface("10.97.0.2/30")
ROUTE = Route(ip_network("10.98.0.0/24"), None, "eth0")
VETH = CreateVeth("web", "eth0", "v-web", 1500)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A host of the test's own: mount and network namespace, with an empty /run."""
    with own_host():
        yield Kernel(tmp_path / "state", tmp_path / "run", handles=DirectHandles())


def ip(*argv: str) -> str:
    done = subprocess.run(["/usr/sbin/ip", *argv], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, done.stderr
    return done.stdout


def link(name: str, *where: str) -> dict[str, object]:
    (seen,) = json.loads(ip("-json", *where, "addr", "show", "dev", name))
    return dict(seen)


def names() -> list[str]:
    return [n["name"] for n in json.loads(ip("-json", "netns") or "[]")]


def links() -> set[str]:
    return {x["ifname"] for x in json.loads(ip("-json", "link"))}


def do(kernel: Kernel, *steps: Step) -> None:
    with kernel.applying() as apply:
        for step in steps:
            apply(step)


def put_right(kernel: Kernel, *steps: Step) -> None:
    with kernel.recovering() as apply:
        for step in steps:
            apply(step)


def test_going_on_begins_with_what_went_with_the_process(kernel: Kernel) -> None:
    steps = (
        RemoveNetns("old"),
        CreateNetns("a"),
        PublishNetns(("a",)),
        CreateNetns("b"),
        VETH,
        CreateNetns("c"),
        PublishNetns(("b", "c")),
        SetLinkUp("a", "lo"),
    )
    assert [kernel.resume_at(steps, begun) for begun in range(8)] == [0, 1, 1, 3, 3, 3, 3, 7]


def test_what_is_there_already_is_not_made_twice(kernel: Kernel) -> None:
    steps = (
        CreateNetns("web"),
        VETH,
        AddAddress("web", "eth0", ADDRESS),
        SetLinkUp("web", "eth0"),
        AddRoute("web", ROUTE),
        PublishNetns(("web",)),
    )
    do(kernel, *steps)
    before = (Path("/run/netns/web").stat().st_ino, link("v-web")["ifindex"])
    put_right(kernel, *steps)
    assert (Path("/run/netns/web").stat().st_ino, link("v-web")["ifindex"]) == before
    assert names() == ["web"]


def test_an_end_of_a_namespace_that_has_gone_does_not_stand_in_the_way(kernel: Kernel) -> None:
    do(kernel, CreateNetns("web"), PublishNetns(("web",)))
    ip("link", "add", "v-web", "type", "veth", "peer", "name", "elsewhere")
    put_right(kernel, VETH)
    assert link("eth0", "-n", "web")["ifname"] == "eth0"
    assert "elsewhere" not in links()


def test_links_that_were_about_to_go_together_leave_that_group(kernel: Kernel) -> None:
    do(kernel, CreateNetns("web"), VETH, PublishNetns(("web",)))
    ip("link", "set", "v-web", "group", "4711")
    put_right(kernel, Remake("v-web", (VETH,)))
    assert link("v-web")["group"] == "default"


def test_taking_back_what_never_was_or_has_gone_is_no_error(kernel: Kernel) -> None:
    put_right(
        kernel,
        WithdrawNetns(("web",)),
        RemoveRoute("web", ROUTE),
        SetLinkUp("web", "eth0", up=False),
        SetMtu("web", "eth0", 1500, 1400),
        SetSysctl("web", "net/ipv4/ip_forward", "0", "1"),
        RemoveAddress("web", "eth0", ADDRESS),
        AddAddress("web", "eth0", ADDRESS),
        AddRoute("web", ROUTE),
        JoinBridge("v-web", "", "br0"),
        RemoveLink("web", "eth0"),
        RemoveHostLinks(("v-web",)),
        RemoveDns("web"),
        RemoveNetns("web"),
    )
    assert names() == [] and links() == {"lo"}


def test_a_file_without_a_namespace_is_cleared_away(kernel: Kernel) -> None:
    Path("/run/netns").mkdir()
    Path("/run/netns/web").touch()
    put_right(kernel, WithdrawNetns(("web",)), RemoveAddress("web", "eth0", ADDRESS))
    assert not Path("/run/netns/web").exists()
    Path("/run/netns/web").touch()
    put_right(kernel, CreateNetns("web"), VETH, PublishNetns(("web",)))
    assert names() == ["web"] and link("eth0", "-n", "web")


def test_what_the_host_refuses_is_an_error_still(kernel: Kernel) -> None:
    do(kernel, CreateNetns("web"), PublishNetns(("web",)))
    with pytest.raises(OSError, match="No such device"):
        put_right(kernel, AddAddress("web", "eth0", ADDRESS))
    with pytest.raises(OSError):
        do(kernel, SetLinkUp("web", "eth0"))
