"""What namespaces are refused for, with the field's path, and what is filled in."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.netns.errors import NamespaceBusy, NamespaceForeign, PoolExhausted
from hostlerd.netns.model.asked import (
    AskedDns,
    AskedInterface,
    AskedLink,
    AskedNamespace,
    AskedRoute,
)
from hostlerd.netns.model.link_steps import AddRoute, RemoveAddress
from hostlerd.netns.model.namespace import (
    Interface,
    Namespace,
    Veth,
    default_host_ifname,
)
from hostlerd.netns.model.parse import Faults, parse_namespace
from hostlerd.netns.model.record import from_record, to_record
from hostlerd.netns.model.seen import Host, Link, Seen, State
from hostlerd.netns.plan import namespace as plan
from hostlerd.netns.plan.pool import read_pools
from hostlerd.netns.plan.show import show, show_nameless
from hostlerd.runtime.errors import InvalidRequest

POOLS = read_pools({"pools": {"p": {"ipv4": "10.213.0.0/29", "ipv6": "fd00:213::/48"}}})
LINKS = (
    Link("lo", "loopback", 1, up=True),
    Link("eth0", "", 2, up=True, addresses=(ip_interface("192.0.2.2/24"),)),
    Link("br0", "bridge", 3, 9000, up=True, addresses=(ip_interface("10.8.0.1/24"),)),
    Link("port0", "veth", 4, master="br0"),
)
HOST = Host(MappingProxyType({link.name: link for link in LINKS}))


def state(*seen: Seen, host: Host = HOST) -> State:
    return State(host, MappingProxyType({s.name: s for s in seen}))


def veth(*addresses: str, host: tuple[str, ...] = (), **more: object) -> AskedInterface:
    interface = AskedInterface(link=AskedLink("veth", host_addresses=host), addresses=addresses)
    return replace(interface, **more)  # type: ignore[arg-type]


def bridged(*addresses: str, **more: object) -> AskedInterface:
    interface = AskedInterface(link=AskedLink("veth", bridge="br0"), addresses=addresses)
    return replace(interface, **more)  # type: ignore[arg-type]


def macvlan(*addresses: str, parent: str = "eth0", **more: object) -> AskedInterface:
    interface = AskedInterface(link=AskedLink("macvlan", parent=parent), addresses=addresses)
    return replace(interface, **more)  # type: ignore[arg-type]


def web(*interfaces: AskedInterface, **more: object) -> AskedNamespace:
    return replace(AskedNamespace("web", interfaces), **more)  # type: ignore[arg-type]


def refused(asked: AskedNamespace, *seen: Seen) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        plan.create(asked, state(*seen), POOLS)
    return {v.field.removeprefix("namespace."): v.description for v in caught.value.violations}


def made(asked: AskedNamespace, *seen: Seen) -> Namespace:
    (namespace,) = plan.create(asked, state(*seen), POOLS).result
    assert isinstance(namespace, Namespace)
    return namespace


@pytest.mark.parametrize(
    "name", ["", "Web", "1web", "-web", "w" * 33, "we b", "web\n", "wéb", "a/b"]
)
def test_bad_names(name: str) -> None:
    assert set(refused(AskedNamespace(name))) == {"name"}


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        (web(hostname="-x"), "hostname", "host name"),
        (web(hostname="x" * 65), "hostname", "64"),
        (web(unprivileged_port_start=65536), "unprivileged_port_start", "65535"),
        (web(persistent=True, remove_with_processes=True), "remove_with_processes", "persistent"),
        (web(AskedInterface()), "interfaces[0]", "veth and macvlan"),
        (web(veth(name="x" * 16)), "interfaces[0].name", "15"),
        (web(veth(name="lo")), "interfaces[0].name", "kernel"),
        (web(veth(name="a b")), "interfaces[0].name", "must be of"),
        (web(veth(), veth(name="eth0")), "interfaces[1].name", "twice"),
        (web(veth(mtu_bytes=67)), "interfaces[0].mtu_bytes", "68"),
        (web(veth(mtu_bytes=65536)), "interfaces[0].mtu_bytes", "65535"),
        (web(veth(mtu_bytes=0)), "interfaces[0].mtu_bytes", "68"),
        (web(veth("fd01::2/64", mtu_bytes=1279)), "interfaces[0].mtu_bytes", "1280"),
        (web(veth("10.1.0.2")), "interfaces[0].addresses[0]", "prefix length"),
        (web(veth("10.1.0.2/255.255.255.0")), "interfaces[0].addresses[0]", "prefix length"),
        (web(veth("10.1.0.2/33")), "interfaces[0].addresses[0]", "33"),
        (web(veth("fe80::1%a/64")), "interfaces[0].addresses[0]", "prefix length"),
        (web(veth("fe80::1/64")), "interfaces[0].addresses[0]", "link-local"),
        (web(veth("10.1.0.0/24")), "interfaces[0].addresses[0]", "network"),
        (web(veth("10.1.0.255/24")), "interfaces[0].addresses[0]", "broadcast"),
        (web(veth("224.0.0.1/24")), "interfaces[0].addresses[0]", "multicast"),
        (web(veth("127.0.0.2/8")), "interfaces[0].addresses[0]", "loopback"),
        (web(veth("0.0.0.0/8")), "interfaces[0].addresses[0]", "unspecified"),
        (web(veth("250.0.0.1/8")), "interfaces[0].addresses[0]", "reserved"),
        (web(veth("::ffff:10.0.0.1/96")), "interfaces[0].addresses[0]", "IPv4"),
        (web(veth("10.1.0.2/24", "10.1.0.2/24")), "interfaces[0].addresses[1]", "twice"),
        (
            web(veth("10.1.0.2/24", host=("10.1.0.2/24",))),
            "interfaces[0].addresses[0]",
            "twice",
        ),
        (
            web(veth("10.1.0.2/24"), veth("10.1.0.129/25")),
            "interfaces[1].addresses[0]",
            "overlaps with a network of eth0",
        ),
        (web(veth("192.0.2.2/32")), "interfaces[0].addresses[0]", "the host's eth0 already"),
        (web(veth("192.0.2.9/30")), "interfaces[0].addresses[0]", "overlaps with 192.0.2.0/24"),
        (web(bridged("10.8.0.1/24")), "interfaces[0].addresses[0]", "the host's br0 already"),
        (web(veth(default_route=True)), "interfaces[0].default_route", "address"),
        (
            web(veth("10.1.0.2/24", default_route=True)),
            "interfaces[0].veth.host_addresses",
            "IPv4",
        ),
        (
            web(veth("10.1.0.2/24", host=("10.2.0.1/24",), default_route=True)),
            "interfaces[0].veth.host_addresses[0]",
            "no network of eth0",
        ),
        (web(veth(gateways=("10.1.0.1",))), "interfaces[0].gateways", "default_route"),
        (web(bridged("10.8.0.2/24", default_route=True)), "interfaces[0].gateways", "given"),
        (
            web(bridged("10.8.0.2/24", default_route=True, gateways=("10.9.0.1",))),
            "interfaces[0].gateways[0]",
            "no network",
        ),
        (
            web(bridged("10.8.0.2/24", default_route=True, gateways=("10.8.0.1", "10.8.0.3"))),
            "interfaces[0].gateways",
            "one of each family",
        ),
        (web(bridged(gateways=("x",))), "interfaces[0].gateways[0]", "address"),
        (web(bridged(ipv4_pool="p")), "interfaces[0].ipv4_pool", "bridge"),
        (web(veth(ipv4_pool="nope")), "interfaces[0].ipv4_pool", "no such pool"),
        (web(veth("10.213.0.2/30", ipv4_pool="p")), "interfaces[0].ipv4_pool", "both ends"),
        (web(macvlan(parent="none")), "interfaces[0].macvlan.parent", "no link none"),
        (web(macvlan(parent="")), "interfaces[0].macvlan.parent", "given"),
        (web(macvlan(parent="lo")), "interfaces[0].macvlan.parent", "loopback"),
        (web(macvlan(parent="port0")), "interfaces[0].macvlan.parent", "port of br0"),
        (web(macvlan(mtu_bytes=1501)), "interfaces[0].mtu_bytes", "1500"),
        (
            web(AskedInterface(link=AskedLink("macvlan", parent="eth0", mode="7"))),
            "interfaces[0].macvlan.mode",
            "none",
        ),
        (
            web(AskedInterface(link=AskedLink("veth", bridge="none"))),
            "interfaces[0].veth.bridge",
            "no link none",
        ),
        (
            web(AskedInterface(link=AskedLink("veth", bridge="eth0"))),
            "interfaces[0].veth.bridge",
            "no bridge",
        ),
        (
            web(
                AskedInterface(
                    link=AskedLink("veth", bridge="br0", host_addresses=("10.1.0.1/24",))
                )
            ),
            "interfaces[0].veth.host_addresses",
            "bridge",
        ),
        (
            web(AskedInterface(link=AskedLink("veth", host_ifname="eth0"))),
            "interfaces[0].veth.host_ifname",
            "already",
        ),
        (
            web(*(AskedInterface(link=AskedLink("veth", host_ifname="x")) for _ in range(2))),
            "interfaces[1].veth.host_ifname",
            "twice",
        ),
        (web(routes=(AskedRoute("x", "10.1.0.1"),)), "routes[0].destination", "network"),
        (
            web(routes=(AskedRoute("192.0.2.1/24", "10.1.0.1"),)),
            "routes[0].destination",
            "host bits",
        ),
        (web(routes=(AskedRoute("default", ""),)), "routes[0].destination", "family"),
        (web(routes=(AskedRoute("224.0.0.0/4", "10.1.0.1"),)), "routes[0].destination", "unicast"),
        (web(routes=(AskedRoute("fd00::/64", "10.1.0.1"),)), "routes[0].gateway", "family"),
        (web(routes=(AskedRoute("198.51.100.0/24"),)), "routes[0]", "gateway or ifname"),
        (web(routes=(AskedRoute("198.51.100.0/24", "x"),)), "routes[0].gateway", "address"),
        (
            web(routes=(AskedRoute("198.51.100.0/24", "10.1.0.1"),)),
            "routes[0].gateway",
            "no network",
        ),
        (
            web(routes=(AskedRoute("198.51.100.0/24", "", "eth7"),)),
            "routes[0].ifname",
            "no link eth7",
        ),
        (
            web(
                veth("10.1.0.2/24", host=("10.1.0.1/24",), default_route=True),
                routes=(AskedRoute("default", "10.1.0.9"),),
            ),
            "routes[0]",
            "already",
        ),
        (
            web(
                veth("10.1.0.2/24", host=("10.1.0.1/24",), default_route=True),
                veth("10.2.0.2/24", host=("10.2.0.1/24",), default_route=True),
            ),
            "interfaces[1].default_route",
            "already",
        ),
        (web(dns=AskedDns(("x",))), "dns.servers[0]", "address"),
        (web(dns=AskedDns(tuple(f"10.0.0.{i}" for i in range(4)))), "dns.servers", "at most 3"),
        (web(dns=AskedDns(search=("a b",))), "dns.search[0]", "domain"),
        (web(dns=AskedDns(options=("a\nnameserver 1.1.1.1",))), "dns.options[0]", "ndots"),
        (web(*(veth() for _ in range(17))), "interfaces", "at most 16"),
        (web(veth(*(f"10.1.0.{i}/24" for i in range(1, 66)))), "interfaces[0].addresses", "64"),
        (web(routes=(AskedRoute("10.0.0.0/8", "10.1.0.1"),) * 257), "routes", "at most 256"),
    ],
)
def test_refused(asked: AskedNamespace, field: str, words: str) -> None:
    found = refused(asked)
    assert field in found, found
    assert words in found[field]


def test_all_faults_are_told_together() -> None:
    asked = [
        web(veth("10.1.0.2/24")),
        AskedNamespace("BAD", (veth("x"), veth(mtu_bytes=1))),
        AskedNamespace("other", (veth("10.1.0.2/24"),)),
        web(),
    ]
    with pytest.raises(InvalidRequest) as caught:
        plan.apply(asked, state(), POOLS)
    assert [v.field for v in caught.value.violations] == [
        "namespaces[1].name",
        "namespaces[1].interfaces[0].addresses[0]",
        "namespaces[1].interfaces[1].mtu_bytes",
        "namespaces[3].name",
        "namespaces[0].interfaces[0].addresses[0]",
        "namespaces[2].interfaces[0].addresses[0]",
    ]


def test_too_many_namespaces() -> None:
    with pytest.raises(InvalidRequest, match="at most 1000"):
        plan.apply([AskedNamespace(f"n{i}") for i in range(1001)], state(), POOLS)


def test_defaults() -> None:
    namespace = made(web(bridged(), macvlan(), veth()))
    assert namespace.hostname == "web"
    assert [i.name for i in namespace.interfaces] == ["eth0", "eth1", "eth2"]
    assert [i.mtu_bytes for i in namespace.interfaces] == [9000, 1500, 1500]
    ends = [i.link.host_ifname for i in namespace.interfaces if isinstance(i.link, Veth)]
    assert ends == ["v-web", "v2-web"]


def test_neighbours_on_a_bridge_share_their_network() -> None:
    made(
        web(bridged("10.8.0.2/24")),
        Seen("o", 9, record=made(replace(web(bridged("10.8.0.3/24")), name="o"))),
    )
    made(web(macvlan("192.0.2.9/24")))


def test_links_that_meet_nowhere_may_use_the_same_addresses() -> None:
    bridge = Link("br1", "bridge", 9)
    host = Host(MappingProxyType({**HOST.links, "br1": bridge, "br2": replace(bridge, name="br2")}))
    asked = [
        AskedNamespace(
            n, (AskedInterface(link=AskedLink("veth", bridge=b), addresses=("10.3.0.2/24",)),)
        )
        for n, b in (("a", "br1"), ("b", "br2"))
    ]
    assert plan.apply(asked, state(host=host), POOLS).steps
    same = [replace(asked[0], name="c"), asked[0]]
    with pytest.raises(InvalidRequest):
        plan.apply(same, state(host=host), POOLS)


def test_pool_addresses_are_told_and_kept() -> None:
    asked = web(veth(ipv4_pool="p", ipv6_pool="p", default_route=True))
    first = made(asked)
    (interface,) = first.interfaces
    assert [str(a) for a in interface.addresses] == ["10.213.0.2/30", "fd00:213::2/64"]
    assert [str(a) for a in interface.host_addresses] == ["10.213.0.1/30", "fd00:213::1/64"]
    assert [str(r) for r in first.all_routes()] == [
        "default via 10.213.0.1 dev eth0",
        "default via fd00:213::1 dev eth0",
    ]
    there = Seen("web", 5, record=first)
    assert plan.apply([asked], state(there), POOLS).result == (first,)
    # What an answer told may be sent back as it is.
    explicit = web(
        veth(
            *(str(a) for a in interface.addresses),
            host=tuple(str(a) for a in interface.host_addresses),
            ipv4_pool="p",
            ipv6_pool="p",
            default_route=True,
        )
    )
    assert plan.apply([explicit], state(there), POOLS).result == (first,)
    other = made(replace(asked, name="other"), there)
    assert [str(a) for a in other.interfaces[0].addresses] == [
        "10.213.0.6/30",
        "fd00:213:0:1::2/64",
    ]
    with pytest.raises(PoolExhausted):
        made(replace(asked, name="third"), there, Seen("other", 6, record=other))


def test_pools_keep_clear_of_the_hosts_routes() -> None:
    host = replace(HOST, routes=((ip_network("10.213.0.0/30"), "eth0"),))
    (namespace,) = plan.create(web(veth(ipv4_pool="p")), state(host=host), POOLS).result
    assert str(namespace.interfaces[0].addresses[0]) == "10.213.0.6/30"


def test_a_hidden_route_of_the_host_is_warned_of() -> None:
    host = replace(HOST, routes=((ip_network("10.0.0.0/8"), "eth0"),))
    done = plan.create(web(veth("10.1.0.2/30", host=("10.1.0.1/30",))), state(host=host), POOLS)
    assert [(n.code, n.subject) for n in done.notices] == [("OVERLAPS_HOST_ROUTE", "web")]
    assert [n.context for n in done.notices] == [("interface eth0", "namespace web")]


def test_names_of_foreign_namespaces_are_refused() -> None:
    foreign = Seen("web", 7)
    for attempt in (
        lambda: plan.create(web(), state(foreign), POOLS),
        lambda: plan.apply([web()], state(foreign), POOLS),
        lambda: plan.delete("web", state(foreign)),
    ):
        with pytest.raises(NamespaceForeign):
            attempt()  # type: ignore[no-untyped-call]


def test_unlisted_namespaces_with_processes_stop_an_apply() -> None:
    there = Seen("web", 5, record=made(web()))
    with pytest.raises(NamespaceBusy) as caught:
        plan.apply([], state(there), POOLS, delete_unlisted=True, processes=lambda _: (4, 5))
    assert caught.value.metadata == {"name": "web", "pids": "4,5"}


def test_what_went_with_its_processes_is_no_obstacle() -> None:
    rest = Seen("web", record=made(web(remove_with_processes=True)))
    assert plan.create(web(), state(rest), POOLS).steps


def test_a_host_ifname_of_another_namespace_is_refused() -> None:
    other = Seen("other", 5, record=made(AskedNamespace("other", (veth(),))))
    asked = web(AskedInterface(link=AskedLink("veth", host_ifname="v-other")))
    assert refused(asked, other) == {"interfaces[0].veth.host_ifname": "v-other belongs to other"}


@given(st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True), st.integers(0, 15))
def test_default_host_ifname_fits(name: str, position: int) -> None:
    ifname = default_host_ifname(name, position)
    assert len(ifname) <= 15
    assert ifname != default_host_ifname(name, position + 1)


def test_long_names_stay_apart() -> None:
    ends = {default_host_ifname("a-long-name-that-is-cut" + tail, 0) for tail in ("", "1", "2")}
    assert len(ends) == 3


def test_records_keep_everything() -> None:
    namespace = made(
        web(
            veth(
                "10.1.0.2/24", "fd01::2/64", host=("10.1.0.1/24", "fd01::1/64"), default_route=True
            ),
            macvlan("192.0.2.7/24"),
            bridged("10.8.0.2/24", mtu_bytes=1400),
            routes=(AskedRoute("198.51.100.0/24", "10.1.0.9", metric=5),),
            dns=AskedDns(("10.1.0.1",), ("example.org",), ("ndots:2",)),
            unprivileged_port_start=0,
            persistent=True,
        )
    )
    assert from_record(to_record(namespace)) == namespace


def test_show_of_foreign_and_nameless() -> None:
    inside = Link("eth9", "veth", 8, parent_index=4, addresses=(ip_interface("10.4.0.1/24"),))
    shown = show(Seen("theirs", 7, detailed=True, links=(LINKS[0], inside)), HOST, (3,))
    assert not shown.managed
    assert shown.etag == ""
    assert [(i.name, i.link) for i in shown.interfaces] == [("eth9", Veth("port0", (), "br0"))]
    assert show_nameless(77, (1, 2)).name == "net:[77]"


@given(st.text(max_size=40), st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_text_breaks_the_parser(name: str, ifname: str, address: str, word: str) -> None:
    asked = AskedNamespace(
        name,
        (
            AskedInterface(
                ifname,
                AskedLink("veth", host_ifname=word, host_addresses=(address,)),
                (address,),
                gateways=(address,),
            ),
        ),
        (AskedRoute(address, word, ifname),),
        AskedDns((address,), (word,), (word,)),
        hostname=word,
    )
    faults = Faults()
    parsed = parse_namespace(asked, "namespace", faults)
    if not faults.found:
        assert "\n" not in repr(parsed)
    assert all(v.field.startswith("namespace") for v in faults.found)


def test_interface_without_default_route_has_no_gateways() -> None:
    assert Interface("eth0", Veth("v")).default_gateways() == ()


def test_routes_on_the_link_come_before_those_by_a_router() -> None:
    asked = web(
        bridged("10.8.0.2/24", default_route=True, gateways=("10.8.0.1",)),
        routes=(
            AskedRoute("198.51.100.0/24", "10.8.0.9"),
            AskedRoute("203.0.113.0/24", ifname="eth0"),
        ),
    )
    added = [
        str(step.route.destination)
        for step in plan.create(asked, state(), POOLS).steps
        if isinstance(step, AddRoute)
    ]
    assert added == ["203.0.113.0/24", "0.0.0.0/0", "198.51.100.0/24"]


def test_a_kept_route_outlives_the_first_addresses_being_taken_back() -> None:
    asked = web(bridged(), routes=(AskedRoute("203.0.113.0/24", ifname="eth0"),))
    record = made(asked)
    inside = Link("eth0", "veth", 9, 9000, up=True, parent_index=8)
    links = {**HOST.links, "v-web": Link("v-web", "veth", 8, 9000, up=True, master="br0")}
    there = Seen("web", 5, record=record, links=(inside,), routes=record.routes)
    found = state(there, host=Host(MappingProxyType(links)))
    steps = plan.apply([replace(asked, interfaces=(bridged("10.8.0.2/24"),))], found, POOLS).steps
    # The kernel drops all routes of a family with the last address, also on the way back.
    kinds = [
        type(step).__name__ for step in steps if type(step).__name__ not in ("SaveSpec", "WriteDns")
    ]
    assert kinds == ["RemoveRoute", "AddAddress", "AddRoute"]


def test_secondary_addresses_go_before_their_primary() -> None:
    asked = web(bridged("10.8.0.2/24", "10.8.0.3/24"))
    links = {**HOST.links, "v-web": Link("v-web", "veth", 8, 9000, up=True, master="br0")}
    host = Host(MappingProxyType(links))
    addresses = (ip_interface("10.8.0.9/24"), ip_interface("10.8.0.3/24"))
    inside = Link("eth0", "veth", 9, 9000, up=True, parent_index=8, addresses=addresses)
    there = Seen("web", 5, record=made(asked), links=(inside,))
    told = [
        step.describe()
        for step in plan.apply([asked], state(there, host=host), POOLS).steps
        if "eth0" in step.describe()
    ]
    assert told == [
        "remove 10.8.0.3/24 from eth0 of web",
        "remove 10.8.0.9/24 from eth0 of web",
        "add 10.8.0.2/24 to eth0 of web",
        "add 10.8.0.3/24 to eth0 of web",
    ]
    # A secondary goes by itself.
    inside = replace(inside, addresses=tuple(reversed(addresses)))
    there = replace(there, links=(inside,))
    asked = web(bridged("10.8.0.3/24"))
    steps = plan.apply([asked], state(there, host=host), POOLS).steps
    assert [s.describe() for s in steps if isinstance(s, RemoveAddress)] == [
        "remove 10.8.0.9/24 from eth0 of web"
    ]
