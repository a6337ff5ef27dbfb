"""Messages of route netlink, read back by their structures; kernel tests have them understood."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from hostlerd.netns.kernel import messages
from hostlerd.netns.kernel.rtnetlink import attributes, number, text
from hostlerd.netns.model.namespace import MacvlanMode, Route


def read(body: bytes, header: struct.Struct) -> tuple[tuple[int, ...], dict[int, bytes]]:
    assert len(body) % 4 == 0
    attrs = {kind: bytes(value) for kind, value in attributes(memoryview(body)[header.size :])}
    return header.unpack_from(body), attrs


def nest(value: bytes) -> dict[int, bytes]:
    return {kind: bytes(inner) for kind, inner in attributes(memoryview(value))}


@pytest.mark.parametrize("ifname", ["a", "abc", "abcd", "v-abcdefghijklm"])
def test_attributes_are_padded_but_say_their_length(ifname: str) -> None:
    body = messages.text_attribute(messages.IFLA_IFNAME, ifname)
    assert struct.unpack_from("=HH", body) == (4 + len(ifname) + 1, 3)
    assert len(body) % 4 == 0
    ((_, value),) = attributes(memoryview(body))
    assert text(value) == ifname


def test_a_veth_has_its_peer_inside() -> None:
    peer = messages.named_link("eth0", messages.mtu(1400), messages.namespace_fd(9))
    body = messages.named_link("v-web", messages.mtu(1400), messages.veth(peer))
    header, attrs = read(body, messages.LINK)
    assert header == (0, 0, 0, 0, 0)
    assert attrs[messages.IFLA_IFNAME] == b"v-web\0"
    info = nest(attrs[messages.IFLA_LINKINFO])
    assert info[messages.IFLA_INFO_KIND] == b"veth\0"
    ((kind, inner),) = nest(info[messages.IFLA_INFO_DATA]).items()
    assert kind == 1
    assert inner == peer
    _, far = read(inner, messages.LINK)
    assert number(memoryview(far[messages.IFLA_MTU])) == 1400
    assert number(memoryview(far[messages.IFLA_NET_NS_FD])) == 9


@pytest.mark.parametrize("mode", list(MacvlanMode))
def test_a_macvlan_names_parent_and_mode(mode: MacvlanMode) -> None:
    _, attrs = read(messages.named_link("eth0", messages.macvlan(7, mode)), messages.LINK)
    assert number(memoryview(attrs[messages.IFLA_LINK])) == 7
    data = nest(nest(attrs[messages.IFLA_LINKINFO])[messages.IFLA_INFO_DATA])
    assert number(memoryview(data[messages.IFLA_MACVLAN_MODE])) == mode.value


def test_a_link_is_set_up_and_down_by_one_flag() -> None:
    assert read(messages.link_up(5), messages.LINK) == ((0, 0, 5, 1, 1), {})
    assert read(messages.link_up(5, up=False), messages.LINK) == ((0, 0, 5, 0, 1), {})


@pytest.mark.parametrize(
    ("address", "header", "attrs"),
    [
        (
            "10.9.0.2/30",
            (2, 30, 0, 0, 4),
            {1: bytes((10, 9, 0, 2)), 2: bytes((10, 9, 0, 2)), 4: bytes((10, 9, 0, 3))},
        ),
        (
            "10.9.0.2/31",
            (2, 31, 0, 0, 4),
            {1: bytes((10, 9, 0, 2)), 2: bytes((10, 9, 0, 2))},
        ),
        (
            "fd09::2/64",
            (10, 64, 0, 0, 4),
            {
                1: b"\xfd\x09" + bytes(13) + b"\2",
                2: b"\xfd\x09" + bytes(13) + b"\2",
                8: struct.pack("=I", 2),
            },
        ),
    ],
)
def test_addresses(address: str, header: tuple[int, ...], attrs: dict[int, bytes]) -> None:
    assert read(messages.address(ip_interface(address), 4), messages.ADDRESS) == (header, attrs)


@pytest.mark.parametrize(
    ("route", "header", "attrs"),
    [
        (
            Route(ip_network("0.0.0.0/0"), ip_address("10.9.0.1"), "eth0"),
            (2, 0, 0, 0, 254, 72, 0, 1, 0),
            {4: struct.pack("=I", 3), 5: bytes((10, 9, 0, 1))},
        ),
        (
            Route(ip_network("10.8.0.0/16"), None, "eth0", 50),
            (2, 16, 0, 0, 254, 72, 253, 1, 0),
            {1: bytes((10, 8, 0, 0)), 4: struct.pack("=I", 3), 6: struct.pack("=I", 50)},
        ),
        (
            Route(ip_network("fd08::/16"), ip_address("fd09::1"), "eth0"),
            (10, 16, 0, 0, 254, 72, 0, 1, 0),
            {
                1: b"\xfd\x08" + bytes(14),
                4: struct.pack("=I", 3),
                5: b"\xfd\x09" + bytes(13) + b"\1",
            },
        ),
    ],
)
def test_routes(route: Route, header: tuple[int, ...], attrs: dict[int, bytes]) -> None:
    assert read(messages.route(route, 3), messages.ROUTE) == (header, attrs)
