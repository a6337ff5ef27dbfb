"""What NFLOG sends, read whatever it is; and what the ring keeps of it, told once to everybody."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostlerd.firewall.kernel.nflog_parse import parse
from hostlerd.firewall.kernel.packet_log import configured
from hostlerd.firewall.kernel.packet_ring import OVERHEAD_BYTES, Ring
from hostlerd.firewall.model.packet import IPV4, IPV6, NAMES, Origin, pack, unpack

ORIGIN: Origin = ("base/ssh", "drop", "eth0", "", "p2", "")
V4 = bytes.fromhex("450000280001400040060000 0a000005 c0000201".replace(" ", ""))
V6 = bytes.fromhex("60000000 0014 06 40".replace(" ", "")) + bytes(15) + b"\1" + bytes(15) + b"\2"
TCP = struct.pack("!HHIIBBHHH", 40000, 22, 1, 0, 0x50, 0x12, 512, 0, 0)


def attribute(kind: int, content: bytes) -> bytes:
    made = struct.pack("=HH", 4 + len(content), kind) + content
    return made + bytes(-len(made) % 4)


def message(body: bytes, ether_type: int = IPV4, **more: Any) -> bytes:
    attributes = attribute(1, struct.pack("!HBx", ether_type, 1)) + attribute(9, body)
    attributes += attribute(10, more.get("prefix", b"base/ssh drop") + b"\0")
    for kind, name in ((2, "mark"), (4, "in_"), (5, "out"), (6, "physin"), (7, "physout")):
        if name in more:
            attributes += attribute(kind, struct.pack("!I", more[name]))
    attributes += more.get("extra", b"")
    attributes += attribute(12, struct.pack("!I", more.get("seq", 0)))
    return struct.pack("=IHHIIBBH", 20 + len(attributes), 0x400, 0, 0, 0, 2, 0, 0) + attributes


def values(data: bytes) -> dict[str, Any]:
    batch = parse(data, now_ns=lambda: 77)
    assert batch.malformed == 0
    (packed,) = batch.packed
    return dict(zip(NAMES, unpack(ORIGIN, packed), strict=True))


def test_a_packet_is_read_with_all_it_has() -> None:
    ethernet = attribute(15, b"\0\1") + attribute(17, b"\0\x0e")
    ethernet += attribute(16, bytes.fromhex("0200000000bb0200000000aa0800"))
    hardware = attribute(8, b"\0\x06\0\0" + bytes.fromhex("0200000000aa") + b"\0\0")
    state = attribute(19, struct.pack("!I", 3)) + attribute(0x8000 | 18, b"nested!!")
    time = attribute(3, struct.pack("!QQ", 5, 6))
    data = message(V4 + TCP, mark=9, extra=ethernet + hardware + state + time, in_=3, physin=4)
    assert values(data) == {
        **dict(zip(NAMES, ORIGIN, strict=False)),
        "time_unix_ns": 5_000_006_000,
        "ether_type": 0x0800,
        "protocol_number": 6,
        "source_port": 40000,
        "destination_port": 22,
        "length_bytes": 40,
        "tcp_flags": 18,
        "connection_state": 1,
        "mark": 9,
        "source": bytes([10, 0, 0, 5]),
        "destination": bytes([192, 0, 2, 1]),
        "source_mac": bytes.fromhex("0200000000aa"),
        "destination_mac": bytes.fromhex("0200000000bb"),
    }
    assert parse(data).ways == [(b"base/ssh drop\0", 3, 0, 4, 0)]


@pytest.mark.parametrize(
    ("body", "ether_type", "seen"),
    [
        (V6 + TCP, IPV6, (6, 40000, 22, 18, 60)),
        # A fragment header, first piece and later one; hop-by-hop before it.
        (V6[:6] + b"\x2c" + V6[7:] + b"\x11\0\0\1\0\0\0\1" + TCP, IPV6, (17, 40000, 22, 0, 60)),
        (V6[:6] + b"\x2c" + V6[7:] + b"\x11\0\0\x08\0\0\0\1" + TCP, IPV6, (17, 0, 0, 0, 60)),
        (V6[:6] + b"\0" + V6[7:] + b"\x06\0\0\0\0\0\0\0" + TCP, IPV6, (6, 40000, 22, 18, 60)),
        (V6[:6] + b"\x33" + V6[7:] + b"\x06\x04" + bytes(22) + TCP, IPV6, (6, 40000, 22, 18, 60)),
        (V6[:6] + b"\x3a" + V6[7:] + b"\x80\0", IPV6, (58, 0, 128, 0, 60)),
        # A later fragment has no ports, whatever its bytes are.
        (V4[:6] + b"\0\x01" + V4[8:] + TCP, IPV4, (6, 0, 0, 0, 40)),
        (V4 + TCP[:6], IPV4, (6, 40000, 22, 0, 40)),
        (V4 + TCP[:3], IPV4, (6, 0, 0, 0, 40)),
        (V4[:9] + b"\x01" + V4[10:] + b"\x08\0", IPV4, (1, 0, 8, 0, 40)),
        # Options move what follows.
        (b"\x46" + V4[1:] + b"\1\1\1\0" + TCP, IPV4, (6, 40000, 22, 18, 40)),
        (b"\0\1\x08\0\6\4\0\1" + bytes(20), 0x0806, (0, 0, 0, 0, 28)),
    ],
)
def test_headers_of_all_sorts(body: bytes, ether_type: int, seen: tuple[int, ...]) -> None:
    found = values(message(body, ether_type))
    names = ("protocol_number", "source_port", "destination_port", "tcp_flags", "length_bytes")
    assert tuple(found[n] for n in names) == seen
    size = {IPV4: 4, IPV6: 16}.get(ether_type, 0)
    assert (len(found["source"]), len(found["destination"])) == (size, size)


@pytest.mark.parametrize("body", [b"", V4[:19], b"\x60" + V4[1:], V6[:39]])
def test_a_header_that_is_cut_short_counts_as_malformed(body: bytes) -> None:
    for ether_type in (IPV4, IPV6):
        data = message(V4 + TCP, seq=1) + message(body, ether_type, seq=2) + message(V4, seq=3)
        batch = parse(data)
        assert (len(batch.packed), len(batch.ways), batch.malformed) == (2, 2, 1)
        assert (batch.first, batch.last) == (1, 3)


@pytest.mark.parametrize("length", [0, 3, 200])
def test_an_attribute_that_says_a_wrong_length_counts_as_malformed(length: int) -> None:
    # 200 would reach into the message that follows.
    spoiled_one = message(V4, extra=struct.pack("=HHI", length, 2, 7))
    batch = parse(spoiled_one + message(V4 + TCP) + message(V4 + TCP))
    assert (len(batch.packed), batch.malformed) == (2, 1)


@pytest.mark.parametrize("length", [0, 19, 5000])
def test_what_follows_a_message_of_a_wrong_length_is_not_guessed(length: int) -> None:
    batch = parse(message(V4) + struct.pack("=IH", length, 0x400) + bytes(100))
    assert (len(batch.packed), batch.malformed) == (1, 1)


GOOD = message(V4 + TCP, seq=1, in_=1) + message(V6 + TCP, IPV6, seq=2, extra=attribute(8, b"\0\6"))


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Datagrams of which bytes were changed, cut out or put in."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.integers(0, 2))
        if how == 0 and data:
            data[place] = draw(st.integers(0, 255))
        elif how == 1:
            del data[place : place + draw(st.integers(1, 40))]
        else:
            data[place:place] = draw(st.binary(max_size=12))
    return bytes(data)


@given(st.binary(max_size=400) | spoiled())
def test_no_bytes_do_worse_than_being_counted(data: bytes) -> None:
    batch = parse(data)
    assert len(batch.packed) == len(batch.ways)
    for packed in batch.packed:
        found = dict(zip(NAMES, unpack(ORIGIN, packed), strict=True))
        size = {IPV4: 4, IPV6: 16}.get(found["ether_type"], 0)
        assert len(found["source"]) == len(found["destination"]) == size
        assert len(found["source_mac"]) in (0, 6)
        assert len(found["destination_mac"]) in (0, 6)


numbers = st.tuples(
    st.integers(0, 2**63 - 1),
    st.sampled_from([IPV4, IPV6, 0x0806]),
    *[st.integers(0, most) for most in (255, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 255, 5, 0xFFFFFFFF)],
)


@given(numbers, st.binary(min_size=32, max_size=32), st.sampled_from([0, 6, 12]))
def test_what_is_packed_comes_out_again(head: Any, some: bytes, macs: int) -> None:
    size = {IPV4: 4, IPV6: 16}.get(head[1], 0)
    packed = pack(head, some[: 2 * size], some[:macs])
    assert unpack(ORIGIN, packed) == (
        *ORIGIN, *head, some[:size], some[size : 2 * size],
        some[: min(macs, 6)], some[6:macs],
    )  # fmt: skip


class Plain:
    """A ring as one would tell it: a list of what has happened, and a follower's way through."""

    def __init__(self, most: int) -> None:
        self.events: list[tuple[str, int]] = [("start", 0)]
        self.most = most
        self.groups: list[list[int]] = []

    def put(self, count: int) -> None:
        """Packets come together, and go together."""
        self.groups.append([len(self.events) + i for i in range(count)])
        self.events += [("packet", 1)] * count
        while len(self.groups) > 1 and sum(map(len, self.groups)) > self.most:
            del self.groups[0]

    @property
    def kept(self) -> int:
        """The first packet that is still there."""
        return self.groups[0][0] if self.groups else 1

    def told(self, after: int, seq: int) -> tuple[list[int], int]:
        """Numbers that a follower gets from `after` to `seq`, and what is lost to it."""
        numbers, lost = [], 0
        for number in range(after + 1, seq + 1):
            kind, count = self.events[number]
            if kind == "loss":
                lost += count
            elif number < self.kept:
                lost += 1
            else:
                numbers.append(number)
        return numbers, lost


steps = st.lists(
    st.tuples(st.just("put"), st.integers(1, 5))
    | st.tuples(st.just("loss"), st.integers(-3, 9))
    | st.tuples(st.just("take"), st.integers(1, 6))
    | st.tuples(st.just("again"), st.integers(0, 40)),
    max_size=40,
)


# A small ring evicts; in a large one packets share chunks.
@given(steps, st.integers(1, 12) | st.just(200), st.booleans())
@example([("put", 1), ("loss", 1), ("put", 1), ("take", 6)], 200, False)
def test_followers_are_told_of_all_once(
    made: list[tuple[str, int]], most: int, by_bytes: bool
) -> None:
    ring = Ring(10**6, most * (OVERHEAD_BYTES + 4)) if by_bytes else Ring(most, 10**9)
    plain, place = Plain(most), 0
    for what, count in made:
        if what == "put":
            packed = [struct.pack("I", len(plain.events) + i) for i in range(count)]
            ring.put([ORIGIN] * count, packed)
            plain.put(count)
        elif what == "loss":
            ring.put_loss(count, count)
            plain.events.append(("loss", count))
        elif what == "again":
            # A caller that comes back, from any place it has been at.
            place = min(count, len(plain.events) - 1)
        else:
            taken = ring.take(place, count)
            expected, lost = plain.told(place, taken.seq)
            assert list(taken.numbers) == expected
            assert [struct.unpack("I", p)[0] for p in taken.packed] == expected
            assert taken.lost == lost
            assert len(expected) == count or taken.seq == len(plain.events) - 1
            place = taken.seq
    assert ring.state[0] == len(plain.events) - 1


def test_what_it_keeps_is_bounded() -> None:
    ring = Ring(1000, 10**9)
    for _ in range(1000):
        ring.put([ORIGIN] * 64, [b"x" * 50] * 64)
    assert ring.state[1] > 64_000 - 1000 - 64
    for _ in range(10_000):
        ring.put_loss(2, 1)
    assert len(ring._losses) < 5000
    end = ring.take(0, 10**6)
    assert end.lost == 64_000 - len(end.packed) + 20_000
    assert end.lost_at_socket == 10_000


@pytest.mark.parametrize("together", [1, 3, 64])
def test_packets_that_come_one_by_one_are_kept_as_tightly_as_many(together: int) -> None:
    ring = Ring(9000, 10**9)
    for _ in range(9000 // together):
        ring.put([ORIGIN] * together, [b"x" * 50] * together)
    assert len(ring._chunks) < 60
    assert list(ring.take(4321, 3).numbers) == [4322, 4323, 4324]


def test_a_small_ring_is_not_emptied_by_one_more() -> None:
    ring = Ring(80, 10**9)
    for _ in range(500):
        ring.put([ORIGIN], [b"x"])
    last, first, _ = ring.state
    assert last == 500
    assert 70 <= last - first + 1 <= 80


@pytest.mark.parametrize("wrong", [True, "1000", 999, 4_000_001, -1, 1e4, None])
def test_how_many_records_are_kept_is_a_number_in_bounds(wrong: Any) -> None:
    assert configured({}) == 400_000
    assert configured({"packet_log_records": 1000}) == 1000
    with pytest.raises(ValueError, match="from 1000 to 4000000"):
        configured({"packet_log_records": wrong})
