"""Plans, carried out on a pure model of the kernel: they lead to what was wanted, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hostlerd.netns.model import link_steps
from hostlerd.netns.model import steps as s
from hostlerd.netns.model.asked import (
    AskedDns,
    AskedInterface,
    AskedLink,
    AskedNamespace,
    AskedRoute,
)
from hostlerd.netns.model.namespace import Address, MacvlanMode, Namespace, Route
from hostlerd.netns.model.seen import EtcFiles, Host, Link, Seen, State
from hostlerd.netns.plan import namespace as plan
from hostlerd.netns.plan.converge import PORT_START, drift
from hostlerd.netns.plan.pool import read_pools
from hostlerd.netns.plan.show import show, show_planned
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.runtime.steps import Plan, Step

POOLS = read_pools({})


@dataclass
class Inside:
    """A network namespace of the model."""

    links: dict[str, Link] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    published: bool = False


@dataclass
class Model:
    """A kernel in a few lines: what the steps do to it is written down here from ip(8)'s manual."""

    host: dict[str, Link] = field(default_factory=dict)
    inside: dict[str, Inside] = field(default_factory=dict)
    records: dict[str, Namespace] = field(default_factory=dict)
    etc: dict[str, EtcFiles] = field(default_factory=dict)
    next_index: int = 100

    def state(self) -> State:
        names = self.inside.keys() | self.records.keys() | self.etc.keys()
        return State(
            Host(MappingProxyType(dict(self.host))),
            MappingProxyType({name: self._seen(name) for name in sorted(names)}),
        )

    def _seen(self, name: str) -> Seen:
        there = self.inside.get(name)
        return Seen(
            name,
            inode=hash(name) | 1 if there else 0,
            record=self.records.get(name),
            detailed=bool(there),
            links=tuple(there.links.values()) if there else (),
            routes=tuple(there.routes) if there else (),
            sysctls=there.sysctls if there else {},
            etc=self.etc.get(name),
        )

    def picture(self) -> object:
        """Answer all that matters, indexes left out."""

        def plain(links: dict[str, Link]) -> object:
            return {
                (x.name, x.kind, x.mtu_bytes, x.up, frozenset(x.addresses), x.master, x.mode)
                for x in links.values()
            }

        spaces = {
            name: (plain(i.links), set(i.routes), i.sysctls.get(PORT_START), i.published)
            for name, i in self.inside.items()
        }
        return plain(self.host), spaces, self.records, self.etc

    def end_session(self) -> None:
        """End a change: what has no handle goes, with the other ends of its veths."""
        for name in [n for n, i in self.inside.items() if not i.published]:
            self._end(name)

    def _end(self, name: str) -> None:
        for link in self.inside.pop(name).links.values():
            for peer in [p for p in self.host.values() if p.parent_index == link.index]:
                del self.host[peer.name]

    def links(self, where: str) -> dict[str, Link]:
        return self.inside[where].links if where else self.host

    def carry_out(self, step: Any) -> None:
        getattr(self, "do_" + type(step).__name__)(step)

    def do_SaveSpec(self, step: s.SaveSpec) -> None:
        self.records[step.spec.name] = step.spec

    def do_ForgetSpec(self, step: s.ForgetSpec) -> None:
        del self.records[step.name]

    def do_WriteDns(self, step: s.WriteDns) -> None:
        self.etc[step.name] = step.files

    def do_RemoveDns(self, step: s.RemoveDns) -> None:
        del self.etc[step.name]

    def do_CreateNetns(self, step: s.CreateNetns) -> None:
        assert step.name not in self.inside
        lo = Link("lo", "loopback", 1, 65536, up=True)
        self.inside[step.name] = Inside({"lo": lo}, [], {PORT_START: "1024"})

    def do_PublishNetns(self, step: s.PublishNetns) -> None:
        for name in step.names:
            assert not self.inside[name].published
            self.inside[name].published = True

    def do_WithdrawNetns(self, step: s.WithdrawNetns) -> None:
        for name in step.names:
            self.inside[name].published = False

    def do_RemoveNetns(self, step: s.RemoveNetns) -> None:
        self._end(step.name)

    def do_Remake(self, step: s.Remake) -> None:
        for one in step.steps:
            self.carry_out(one)

    def do_CreateVeth(self, step: link_steps.CreateVeth) -> None:
        inside = self.inside[step.where].links
        assert step.ifname not in inside
        assert step.host_ifname not in self.host
        one, two = self.next_index, self.next_index + 1
        self.next_index += 2
        inside[step.ifname] = Link(step.ifname, "veth", one, step.mtu_bytes, parent_index=two)
        self.host[step.host_ifname] = Link(
            step.host_ifname, "veth", two, step.mtu_bytes, parent_index=one
        )

    def do_CreateMacvlan(self, step: link_steps.CreateMacvlan) -> None:
        inside = self.inside[step.where].links
        assert step.ifname not in inside
        self.next_index += 1
        parent = self.host[step.parent]
        inside[step.ifname] = Link(
            step.ifname,
            "macvlan",
            self.next_index,
            step.mtu_bytes,
            parent_index=parent.index,
            mode=step.mode,
        )

    def do_RemoveLink(self, step: link_steps.RemoveLink) -> None:
        if step.where and step.where not in self.inside:
            return
        link = self.links(step.where).pop(step.ifname, None)
        if link is None:
            return
        everywhere = [("", self.host)] + [(n, i.links) for n, i in self.inside.items()]
        for where, links in everywhere:
            for other in list(links.values()):
                if link.kind == "veth" and other.parent_index == link.index:
                    del links[other.name]
                    self._flush(where, other.name)
        self._flush(step.where, step.ifname)

    def do_RemoveHostLinks(self, step: link_steps.RemoveHostLinks) -> None:
        for ifname in step.ifnames:
            self.do_RemoveLink(link_steps.RemoveLink("", ifname))

    def _flush(self, where: str, ifname: str, version: int = 0) -> None:
        if where:
            space = self.inside[where]
            space.routes = [
                r
                for r in space.routes
                if r.ifname != ifname or version not in (0, r.destination.version)
            ]

    def do_JoinBridge(self, step: link_steps.JoinBridge) -> None:
        self.host[step.ifname] = replace(self.host[step.ifname], master=step.bridge)

    def do_AddAddress(self, step: link_steps.AddAddress) -> None:
        links = self.links(step.where)
        link = links[step.ifname]
        if step.address not in link.addresses:
            addresses = (*link.addresses, step.address)
            links[step.ifname] = replace(link, addresses=addresses)

    def do_RemoveAddress(self, step: link_steps.RemoveAddress) -> None:
        links = self.links(step.where)
        link = links[step.ifname]
        if step.address not in link.addresses:
            return
        gone: list[Address] = [step.address]
        same = [a for a in link.addresses if a.network == step.address.network]
        if step.address.version == 4 and same[0] == step.address:
            gone = same  # the others are secondary to the first
        left = tuple(a for a in link.addresses if a not in gone)
        links[step.ifname] = replace(link, addresses=left)
        if not any(a.version == step.address.version for a in left):
            self._flush(step.where, step.ifname, step.address.version)

    def do_SetLinkUp(self, step: link_steps.SetLinkUp) -> None:
        links = self.links(step.where)
        links[step.ifname] = replace(links[step.ifname], up=step.up)
        if not step.up:
            self._flush(step.where, step.ifname)

    def do_SetMtu(self, step: link_steps.SetMtu) -> None:
        links = self.links(step.where)
        links[step.ifname] = replace(links[step.ifname], mtu_bytes=step.mtu_bytes)

    def do_AddRoute(self, step: link_steps.AddRoute) -> None:
        space = self.inside[step.where]
        link = space.links[step.route.ifname]
        assert link.up, "the kernel answers ENETDOWN"
        gateway = step.route.gateway
        if gateway is not None:
            assert any(gateway in a.network for a in link.addresses), "the kernel: EINVAL"
        same = (step.route.destination, step.route.metric)
        space.routes = [r for r in space.routes if (r.destination, r.metric) != same]
        space.routes.append(step.route)

    def do_RemoveRoute(self, step: link_steps.RemoveRoute) -> None:
        routes = self.inside[step.where].routes
        if step.route in routes:
            routes.remove(step.route)

    def do_SetSysctl(self, step: link_steps.SetSysctl) -> None:
        assert step.key == PORT_START or step.key.split("/")[3] in self.inside[step.where].links
        self.inside[step.where].sysctls[step.key] = step.value


def fresh() -> Model:
    links = (
        Link("lo", "loopback", 1, 65536, up=True),
        Link("up0", "", 2, up=True),
        Link("up1", "", 3, up=True),
        Link("br0", "bridge", 4, up=True, addresses=(ip_interface("10.90.0.1/24"),)),
        Link("br1", "bridge", 5, 1400, up=True),
    )
    return Model({link.name: link for link in links})


@st.composite
def interfaces(draw: st.DrawFn, number: int) -> AskedInterface:
    kind = draw(st.sampled_from(["routed", "bridge", "macvlan"]))
    net = number * 2 + draw(st.integers(0, 1))
    hosts = draw(st.lists(st.integers(2, 5), max_size=3, unique=True))
    six = draw(st.booleans())
    inside = tuple(f"10.{net}.0.{h}/24" for h in hosts)
    inside += (f"fd00:{net}::2/64",) if six else ()
    mtu = draw(st.sampled_from([None, 1300, 1400]))
    name = draw(st.sampled_from(["", f"if{number}"]))
    if kind == "routed":
        outside: tuple[str, ...] = (f"10.{net}.0.1/24",) if hosts else ()
        outside += (f"fd00:{net}::1/64",) if six else ()
        end = draw(st.sampled_from(["", f"end{number}"]))
        default = bool(inside) and number == 0 and draw(st.booleans())
        link = AskedLink("veth", host_ifname=end, host_addresses=outside)
        return AskedInterface(name, link, inside, mtu_bytes=mtu, default_route=default)
    if kind == "bridge":
        bridge = draw(st.sampled_from(["br0", "br1"]))
        return AskedInterface(name, AskedLink("veth", bridge=bridge), inside, mtu_bytes=mtu)
    mode = draw(st.sampled_from(["bridge", "vepa", "private"]))
    parent = draw(st.sampled_from(["up0", "up1"]))
    return AskedInterface(name, AskedLink("macvlan", parent=parent, mode=mode), inside)


@st.composite
def namespaces(draw: st.DrawFn) -> AskedNamespace:
    links = tuple(draw(interfaces(number)) for number in range(draw(st.integers(0, 3))))
    routes = []
    for at, link in enumerate(links):
        ifname = link.name or f"eth{at}"
        if draw(st.booleans()):
            routes.append(AskedRoute(f"198.51.{at}.0/24", "", ifname, draw(st.integers(0, 1))))
        if any(a.startswith("10.") for a in link.addresses) and draw(st.booleans()):
            net = link.addresses[0].split(".")[1]
            routes.append(AskedRoute(f"203.0.{at}.0/24", f"10.{net}.0.9"))
    return AskedNamespace(
        "web",
        links,
        tuple(routes),
        AskedDns(draw(st.sampled_from([(), ("10.0.0.1",)]))),
        unprivileged_port_start=draw(st.sampled_from([None, 0, 80])),
        persistent=draw(st.booleans()),
    )


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[AskedNamespace, AskedNamespace]:
    """Two wants that differ in little, so that most is changed in place."""
    first = draw(namespaces())
    links = []
    for link in first.interfaces:
        kept = [a for a in link.addresses if draw(st.booleans())]
        extra = [a.replace(".2/", ".7/") for a in link.addresses if draw(st.booleans())]
        order = draw(st.permutations([*kept, *(a for a in extra if a not in kept)]))
        mtu = draw(st.sampled_from([link.mtu_bytes, 1301]))
        links.append(replace(link, addresses=tuple(order), mtu_bytes=mtu))
    routes = tuple(r for r in first.routes if draw(st.booleans()))
    second = replace(first, interfaces=tuple(links), routes=routes)
    return (first, second) if draw(st.booleans()) else (second, first)


PAIRS = st.one_of(neighbours(), st.tuples(namespaces(), namespaces()))


def planned(make: Callable[[], Plan]) -> Plan:
    try:
        return make()
    except InvalidRequest:
        assume(False)
        raise


def run(model: Model, steps: tuple[Step, ...]) -> None:
    for step in steps:
        model.carry_out(step)


def check(model: Model, want: Namespace) -> None:
    """Compare the model with what was wanted, without asking the planner."""
    there = model.inside["web"]
    assert there.published
    assert there.links.keys() == {"lo"} | {i.name for i in want.interfaces}
    for interface in want.interfaces:
        link = there.links[interface.name]
        assert link.up
        assert link.mtu_bytes == interface.mtu_bytes
        assert set(link.addresses) == set(interface.addresses)
    assert set(there.routes) == set(want.all_routes())
    assert model.records == {"web": want}


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(namespaces(), min_size=1, max_size=4), neighbours().map(list)))
def test_any_sequence_of_wants_is_reached_and_ends_clean(wants: list[AskedNamespace]) -> None:
    model = fresh()
    before = model.picture()
    for asked in wants:
        done = planned(lambda asked=asked: plan.apply([asked], model.state(), POOLS))  # type: ignore[misc]
        run(model, done.steps)
        model.end_session()
        (want,) = done.result
        check(model, want)
        again = plan.apply([asked], model.state(), POOLS)
        assert again.steps == ()
        assert again.etag == again.etag_after == done.etag_after
        seen = model.state().namespaces["web"]
        assert drift(seen, model.state().host) == ()
        shown, foretold = show(seen, model.state().host), show_planned(want, None)
        assert shown.etag == foretold.etag == done.etag_after
        assert {r for r in shown.routes} == set(foretold.routes)
    run(model, plan.delete("web", model.state()).steps)
    model.end_session()
    assert model.picture() == before


@settings(max_examples=3000, deadline=None)
@given(PAIRS, st.integers(0, 60), st.booleans())
def test_taken_back_at_any_step(
    pair: tuple[AskedNamespace, AskedNamespace], steps_done: int, deleting: bool
) -> None:
    first, second = pair
    model = fresh()
    run(model, planned(lambda: plan.apply([first], model.state(), POOLS)).steps)
    model.end_session()
    before = model.picture()
    change = (
        plan.delete("web", model.state())
        if deleting
        else planned(lambda: plan.apply([second], model.state(), POOLS))
    )
    done = change.steps[:steps_done]
    run(model, done)
    for step in reversed(done):
        inverse = step.inverse()
        if inverse is not None:
            model.carry_out(inverse)
    model.end_session()
    assert model.picture() == before


@settings(max_examples=3000, deadline=None)
@given(
    namespaces(), namespaces(), st.integers(0, 60), st.sampled_from(["again", "other", "delete"])
)
def test_cut_off_at_any_step_the_next_change_puts_it_right(
    first: AskedNamespace, second: AskedNamespace, steps_done: int, then: str
) -> None:
    model = fresh()
    before = model.picture()
    change = planned(lambda: plan.apply([first], model.state(), POOLS))
    run(model, change.steps[:steps_done])
    model.end_session()
    if then != "delete":
        asked = first if then == "again" else second
        done = planned(lambda: plan.apply([asked], model.state(), POOLS))
        run(model, done.steps)
        model.end_session()
        check(model, done.result[0])
    removal = plan.delete("web", model.state())
    run(model, removal.steps[: steps_done % (len(removal.steps) or 1)])
    model.end_session()
    run(model, plan.delete("web", model.state()).steps)
    model.end_session()
    assert model.picture() == before
    assert plan.delete("web", model.state()).steps == ()


@settings(max_examples=3000, deadline=None)
@given(namespaces(), st.data())
def test_any_drift_is_put_right(asked: AskedNamespace, data: st.DataObject) -> None:
    model = fresh()
    done = planned(lambda: plan.apply([asked], model.state(), POOLS))
    run(model, done.steps)
    model.end_session()
    (want,) = done.result
    for interface in want.interfaces:
        harm = data.draw(st.sampled_from(["none", "down", "mtu", "address", "link", "route"]))
        links = model.inside["web"].links
        if harm == "down":
            model.carry_out(link_steps.SetLinkUp("web", interface.name, up=False))
        elif harm == "mtu":
            links[interface.name] = replace(links[interface.name], mtu_bytes=600)
        elif harm == "address":
            model.carry_out(
                link_steps.AddAddress("web", interface.name, ip_interface("10.77.0.1/24"))
            )
            for address in interface.addresses[:1]:
                model.carry_out(link_steps.RemoveAddress("web", interface.name, address))
        elif harm == "link":
            model.carry_out(link_steps.RemoveLink("web", interface.name))
        elif harm == "route":
            model.inside["web"].routes.clear()
    picture = model.picture()
    words = drift(model.state().namespaces["web"], model.state().host)
    repair = plan.apply([asked], model.state(), POOLS)
    assert bool(words) == bool(repair.steps)
    assert all(isinstance(word, str) and word for word in words)
    run(model, repair.steps)
    check(model, want)
    if not words:
        assert model.picture() == picture


def test_steps_say_what_they_do() -> None:
    interface = AskedInterface(
        link=AskedLink("veth", host_addresses=("10.1.0.1/24",)),
        addresses=("10.1.0.2/24",),
        default_route=True,
    )
    asked = AskedNamespace(
        "web", (interface,), dns=AskedDns(("10.1.0.1",)), unprivileged_port_start=80
    )
    done = plan.create(asked, fresh().state(), POOLS)
    assert [step.describe() for step in done.steps] == [
        "record web until the next boot",
        "write resolv.conf (10.1.0.1), nsswitch.conf, hosts and hostname of web",
        "make a network namespace for web",
        "set net/ipv4/ip_unprivileged_port_start of web to 80",
        "make the veth pair v-web and eth0 of web, MTU 1500",
        "add 10.1.0.1/24 to v-web",
        "set v-web up",
        "add 10.1.0.2/24 to eth0 of web",
        "set eth0 of web up",
        "add route default via 10.1.0.1 dev eth0 to web",
        "publish /run/netns/web",
    ]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (link_steps.JoinBridge("v-web", "", "br0"), "take v-web out of its bridge"),
        (s.WithdrawNetns(("a", "b")), "withdraw /run/netns/a, /run/netns/b"),
        (s.Remake("eth0", ()), "make eth0 again"),
        (link_steps.CreateMacvlan("w", "eth0", "up0", MacvlanMode.VEPA, 1500), "mode vepa"),
        (link_steps.RemoveLink("", "v-web"), "remove v-web"),
        (link_steps.RemoveHostLinks(("v-a", "v-b")), "remove v-a, v-b"),
        (s.RemoveNetns("web"), "remove the network namespace web"),
    ],
)
def test_descriptions(step: Step, words: str) -> None:
    assert words in step.describe()


def test_many_lose_their_links_at_once_and_get_them_back_in_reverse() -> None:
    model = fresh()
    veth = AskedInterface(link=AskedLink("veth", host_addresses=("10.1.0.1/24",)))
    # On the other one's link of the host: it goes before it, and comes back after it.
    above = AskedInterface(link=AskedLink("macvlan", parent="v-b"))
    other = AskedInterface(link=AskedLink("veth", host_addresses=("10.2.0.1/24",)))
    asked = [AskedNamespace("b", (veth,)), AskedNamespace("c", (other,))]
    run(model, plan.apply(asked, model.state(), POOLS).steps)
    run(model, plan.create(AskedNamespace("a", (above,)), model.state(), POOLS).steps)
    model.end_session()
    before = model.picture()
    steps = plan.apply([], model.state(), POOLS, delete_unlisted=True).steps
    assert steps[0] == link_steps.RemoveLink("a", "eth0", steps[0].remake)  # type: ignore[attr-defined]
    assert isinstance(steps[1], link_steps.RemoveHostLinks)
    assert steps[1].ifnames == ("v-b", "v-c")
    assert not any(isinstance(step, link_steps.RemoveLink) for step in steps[1:])
    run(model, steps)
    assert set(model.host) == set(fresh().host)
    run(model, tuple(back for step in reversed(steps) if (back := step.inverse())))
    assert model.picture() == before
