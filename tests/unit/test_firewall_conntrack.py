"""What decodes the kernel's messages and judges connections, held against bytes and networks."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address, ip_network
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.firewall.kernel import conntrack_message as message
from hostlerd.firewall.kernel.nfnetlink import attribute, attributes, messages
from hostlerd.firewall.model.connection import (
    DESTINATION_NAT,
    NUMBERS,
    SOURCE_NAT,
    ConnectionFilter,
    CutConnections,
    Flow,
    any_of,
    parse_filter,
)
from hostlerd.firewall.model.ruleset import PortRange, Protocol
from hostlerd.firewall.plan import connection as plan
from hostlerd.runtime.codec import Registry
from hostlerd.runtime.errors import InvalidRequest


def tuple_of(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    ends = [ip_address(a).packed for a in (source, destination)]
    kinds = (1, 2) if len(ends[0]) == 4 else (3, 4)
    addresses = b"".join(attribute(k, e) for k, e in zip(kinds, ends, strict=True))
    ports = attribute(1, bytes([6])) + b"".join(
        attribute(k, struct.pack(">H", p)) for k, p in ((2, source_port), (3, destination_port))
    )
    return attribute(1, addresses, nested=True) + attribute(2, ports, nested=True)


def tcp(source: str = "10.0.0.1", destination: str = "10.0.0.2") -> bytes:
    state = attribute(1, attribute(1, bytes([3])), nested=True)
    family = bytes([2 if "." in source else 10, 0, 0, 0])
    return family + b"".join(
        (
            attribute(1, tuple_of(source, destination, 1000, 80), nested=True),
            attribute(2, tuple_of(destination, source, 80, 1000), nested=True),
            attribute(3, struct.pack(">I", 0x2E)),
            attribute(4, state, nested=True),
            attribute(7, struct.pack(">I", 99)),
            attribute(9, attribute(1, struct.pack(">Q", 5)) + attribute(2, struct.pack(">Q", 700))),
            attribute(12, struct.pack(">I", 0xDEADBEEF)),
        )
    )


def test_a_whole_message() -> None:
    entry = message.read(memoryview(tcp()))
    assert entry is not None
    found = entry.connection()
    assert (found.id, found.protocol, found.tcp_state) == (0xDEADBEEF, 6, "ESTABLISHED")
    assert found.original.source == IPv4Address("10.0.0.1")
    assert (found.original.packets, found.original.bytes, found.reply.packets) == (5, 700, 0)
    assert (found.reply.source_port, found.timeout_s, found.status) == (80, 99, 0x2E)
    assert entry.deletion() == tcp()[:4] + attribute(
        1, tuple_of("10.0.0.1", "10.0.0.2", 1000, 80), nested=True
    ) + attribute(12, struct.pack(">I", 0xDEADBEEF))


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A message of which some bytes are others, or that ends too soon."""
    data = bytearray(
        tcp(*draw(st.sampled_from([("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])))
    )
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=20))


sizes = st.sampled_from([1, 2, 4, 8, 16])
right_sized = sizes.flatmap(lambda n: st.binary(min_size=n, max_size=n))
leaves = st.one_of(right_sized, st.binary(max_size=24))


def nest(kinds: int, values: st.SearchStrategy[bytes] = leaves) -> st.SearchStrategy[bytes]:
    """Attributes of kinds up to a number, each of which may be of any length."""
    pairs = st.tuples(st.integers(1, kinds), values)
    return st.lists(pairs, max_size=kinds).map(lambda x: b"".join(attribute(k, v) for k, v in x))


@st.composite
def odd(draw: st.DrawFn) -> bytes:
    """A message of the right build, in which numbers and addresses have any length."""
    ends = {2: (1, 2, 4), 10: (3, 4, 16)}
    family = draw(st.sampled_from(sorted(ends)))
    one, other, size = ends[family]
    whole = draw(st.booleans())
    right, kind_of = st.just(b"\x0a" * size), st.just(b"\x06")
    if not whole:
        right, kind_of = st.one_of(right, leaves), st.one_of(kind_of, leaves)
    parts = []
    for kind in (1, 2):
        addresses = attribute(one, draw(right)) + attribute(other, draw(right))
        ports = b"".join(attribute(k, draw(leaves)) for k in (2, 3)) + draw(nest(9))
        ports = ports + attribute(1, draw(kind_of))
        parts.append(attribute(kind, attribute(1, addresses) + attribute(2, ports)))
    rest = draw(nest(20, st.one_of(leaves, nest(3), nest(3, nest(3)))))
    return bytes([family, 0, 0, 0]) + b"".join(parts) + rest


@given(st.one_of(st.binary(max_size=400), bent(), odd()))
def test_hostile_bytes_are_left_out_or_read_within_bounds(data: bytes) -> None:
    entry = message.read(memoryview(data))
    message.read_stats(memoryview(data))
    if entry is None:
        return
    flow, found = entry.flow(), entry.connection()
    # The short way of reading a tuple sees nothing that the long way does not.
    assert flow[1:6] == message.read_tuple(data[0], attributes(memoryview(data)[4:])[1])
    assert flow.version in (4, 6)
    assert 0 <= flow.source_port <= 0xFFFF
    assert 0 <= flow.destination_port <= 0xFFFF
    assert found.original.source.version == found.reply.destination.version == flow.version
    assert int(found.original.destination) == flow.destination
    assert len(entry.deletion()) <= len(data) + 8


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=12, max_size=36)), max_size=5))
def test_hostile_datagrams_end(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(struct.pack("=I", length) + rest for length, rest in parts)
    found = list(islice(messages(data), 100))
    assert len(found) <= len(parts) * 2 + 1
    assert sum(16 + len(payload) for _, _, payload in found) <= len(data)


networks = st.sampled_from(["10.0.0.0/8", "10.0.0.0/31", "192.0.2.0/24", "0.0.0.0/0"])
networks6 = st.sampled_from(["fd00::/8", "fd00::1/128", "::/0"])
ports = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=2)


@st.composite
def filters(draw: st.DrawFn) -> ConnectionFilter:
    version = draw(st.sampled_from([4, 6]))
    some = st.lists(networks if version == 4 else networks6, max_size=2, unique=True)
    kind = draw(st.sampled_from([None, Protocol.TCP, Protocol.UDP, Protocol.ICMP]))
    ranges = [
        tuple(PortRange(first, first + more) for first, more in draw(ports)) for _ in range(2)
    ]
    return ConnectionFilter(
        protocol=kind,
        sources=tuple(map(ip_network, draw(some))),
        destinations=tuple(map(ip_network, draw(some))),
        destination_ports=ranges[0],
        source_ports=ranges[1],
        ip_version=draw(st.sampled_from([0, version])),
        destination_nat=draw(st.booleans()),
        source_nat=draw(st.booleans()),
    )


@st.composite
def flows(draw: st.DrawFn) -> tuple[Flow, Any, Any]:
    ends = draw(
        st.sampled_from(
            [
                ("10.0.0.1", "10.0.0.2"), ("192.0.2.1", "10.0.0.0"), ("10.0.0.2", "192.0.3.0"),
                ("fd00::1", "fd00::2"), ("2001:db8::1", "fd00::1"),
            ]
        )
    )  # fmt: skip
    source, destination = map(ip_address, ends)
    flow = Flow(
        source.version,
        draw(st.sampled_from([6, 17, 1, 58, 47])),
        int(source),
        int(destination),
        draw(st.integers(0, 20)),
        draw(st.integers(0, 20)),
        draw(st.integers(0, 0x3F)),
        -1,
    )
    return flow, source, destination


def meant(wanted: ConnectionFilter, flow: Flow, source: Any, destination: Any) -> bool:
    """The rule of the API in the plainest words there are."""
    sources, destinations = wanted.sources, wanted.destinations
    dports, sports = wanted.destination_ports, wanted.source_ports
    return all(
        (
            wanted.protocol is None or flow.protocol in NUMBERS[wanted.protocol],
            not sources or any(source in n for n in sources),
            not destinations or any(destination in n for n in destinations),
            not dports or any(flow.destination_port in range(p.first, p.last + 1) for p in dports),
            not sports or any(flow.source_port in range(p.first, p.last + 1) for p in sports),
            not (dports or sports) or flow.protocol in (6, 17),
            wanted.ip_version in (0, flow.version),
            not wanted.destination_nat or flow.status & DESTINATION_NAT,
            not wanted.source_nat or flow.status & SOURCE_NAT,
        )
    )


@given(st.lists(filters(), max_size=3), flows())
def test_filters_mean_what_they_say(wanted: list[ConnectionFilter], seen: Any) -> None:
    assert any_of(wanted)(seen[0]) == any(meant(w, *seen) for w in wanted)


@given(st.lists(filters(), min_size=1, max_size=8))
def test_a_step_comes_back_from_a_journal(wanted: list[ConnectionFilter]) -> None:
    step = CutConnections(tuple(wanted))
    registry = Registry([CutConnections])
    assert registry.decode(registry.encode(step)) == step
    assert step.describe().startswith("cut connections: ")
    assert len(step.describe()) < 2000


def test_a_plan_is_empty_where_nothing_matches() -> None:
    wanted = ConnectionFilter(protocol=Protocol.TCP)
    assert plan.flush(wanted, False, 0).steps == ()
    assert plan.flush(wanted, False, 3).hash == plan.flush(wanted, False, 70).hash
    assert plan.flush(ConnectionFilter(), True, 3).steps == (CutConnections((ConnectionFilter(),)),)


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({"sources": ["10.0.0.0/8"] * 300}, ["filter.sources"]),
        ({"nonsense": 1, "ip_version": 7}, ["filter.nonsense", "filter.ip_version"]),
        ({"sources": ["10.0.0.0/8", "fd00::/8"]}, ["filter.sources[1]"]),
        ("text", ["filter"]),
    ],
)
def test_bad_filters(document: Any, fields: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_filter(document)
    assert [v.field for v in refused.value.violations] == fields
