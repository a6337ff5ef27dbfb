"""What NFLOG's messages say. Source: include/uapi/linux/netfilter/nfnetlink_log.h.

A datagram holds many messages, each of one packet. Nothing in them is trusted: what does not fit
is passed over and counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct, error

from hostlerd.firewall.model.packet import IPV4, IPV6, MAC_BYTES, pack

PACKET = 0x0400
_PREFIX_MOST = 128

# Attributes, NFULA_*.
_PACKET_HDR, _MARK, _TIMESTAMP, _IN, _OUT, _PHYSIN, _PHYSOUT = 1, 2, 3, 4, 5, 6, 7
_HWADDR, _PAYLOAD, _PREFIX, _SEQ, _HWTYPE, _HWHEADER, _CT_INFO = 8, 9, 10, 12, 15, 16, 19
_TYPE_MASK = 0x3FFF
_ETHERNET = 1

# IP_CT_* of nf_conntrack_common.h, as states of PacketRecord.
_STATES = {0: 1, 1: 2, 2: 3, 3: 1, 4: 2, 7: 5}

_NLMSG = Struct("=IH")
_NLA = Struct("=HH")
_U32 = Struct("!I")
_TIME = Struct("!QQ")
_V4 = Struct("!BxHxxHxB")
_PORTS = Struct("!HH")
_WITH_PORTS = frozenset({6, 17, 33, 132, 136})
_TCP, _ICMP, _ICMPV6 = 6, 1, 58
# Hop-by-hop, routing, destination options; a fragment header; an authentication header.
_EXTENSIONS, _FRAGMENT, _AUTHENTICATION = frozenset({0, 43, 60}), 44, 51
_EXTENSIONS_MOST = 8

Way = tuple[bytes, int, int, int, int]
"""The prefix, and the indexes of in, out, physin and physout; 0 for none."""


@dataclass(slots=True)
class Batch:
    """What a datagram holds: packets in order, and the kernel's numbers of the first and last."""

    ways: list[Way] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list)
    first: int | None = None
    last: int | None = None
    malformed: int = 0


def parse(data: memoryview | bytes, now_ns: Callable[[], int] = time.time_ns) -> Batch:
    """Read a datagram. Never raises for what is in it."""
    batch, place, size = Batch(), 0, len(data)
    data = bytes(data)
    at_ns = now_ns()
    while place + 20 <= size:
        length, kind = _NLMSG.unpack_from(data, place)
        if length < 20 or place + length > size:
            batch.malformed += 1
            break
        if kind == PACKET:
            try:
                _take(batch, data, place + 20, place + length, at_ns)
            except (error, IndexError):
                batch.malformed += 1
        place += (length + 3) & ~3
    return batch


def _take(batch: Batch, data: bytes, place: int, end: int, at_ns: int) -> None:
    """Read one message's attributes. Raises struct.error, IndexError for what is cut short."""
    found = _attributes(data, place, end)
    if _SEQ in found:
        batch.last = _number(data, found, _SEQ)
        if batch.first is None:
            batch.first = batch.last
    ether_type = 0
    if _PACKET_HDR in found:
        start, _ = found[_PACKET_HDR]
        ether_type = data[start] << 8 | data[start + 1]
    start, stop = found.get(_PAYLOAD, (end, end))
    body = data[start:stop]
    if ether_type == IPV4 and len(body) >= 20 and body[0] >> 4 == 4:
        length, protocol, sport, dport, flags = _ipv4(body)
        addresses = body[12:20]
    elif ether_type == IPV6 and len(body) >= 40 and body[0] >> 4 == 6:
        length, protocol, sport, dport, flags = _ipv6(body)
        addresses = body[8:40]
    else:
        length, protocol, sport, dport, flags, addresses = len(body), 0, 0, 0, 0, b""
        if ether_type in (IPV4, IPV6):
            # Its addresses are missing; kept, it would be unpacked with a piece of something else.
            raise IndexError("a header is cut short")
    if _TIMESTAMP in found:
        seconds, micros = _TIME.unpack_from(data, found[_TIMESTAMP][0])
        at_ns = min(seconds * 1_000_000_000 + micros * 1000, (1 << 63) - 1)
    state = _STATES.get(_number(data, found, _CT_INFO), 0) if _CT_INFO in found else 0
    batch.packed.append(
        pack(
            (at_ns, ether_type, protocol, sport, dport, length, flags, state,
             _number(data, found, _MARK)),
            addresses,
            _macs(data, found),
        )
    )  # fmt: skip
    start, stop = found.get(_PREFIX, (end, end))
    batch.ways.append(
        (
            data[start : min(stop, start + _PREFIX_MOST)],
            _number(data, found, _IN),
            _number(data, found, _OUT),
            _number(data, found, _PHYSIN),
            _number(data, found, _PHYSOUT),
        )
    )


def _attributes(data: bytes, place: int, end: int) -> dict[int, tuple[int, int]]:
    """Answer where the content of each attribute begins and ends."""
    found = {}
    unpack = _NLA.unpack_from
    while place + 4 <= end:
        length, kind = unpack(data, place)
        if length < 4 or place + length > end:
            raise IndexError("an attribute is longer than its message")
        found[kind & _TYPE_MASK] = (place + 4, place + length)
        place += (length + 3) & ~3
    return found


def _number(data: bytes, found: dict[int, tuple[int, int]], kind: int) -> int:
    where = found.get(kind)
    if where is None:
        return 0
    if where[1] - where[0] < 4:
        raise IndexError("an attribute is shorter than its value")
    number: int = _U32.unpack_from(data, where[0])[0]
    return number


def _macs(data: bytes, found: dict[int, tuple[int, int]]) -> bytes:
    """Answer the sender's hardware address, and the destination's if it is known."""
    if _HWADDR not in found:
        return b""
    start, stop = found[_HWADDR]
    if data[start : start + 2] != b"\0\x06" or stop < start + 4 + MAC_BYTES:
        return b""
    source = data[start + 4 : start + 4 + MAC_BYTES]
    if _HWHEADER in found and _HWTYPE in found:
        kind, (start, stop) = found[_HWTYPE][0], found[_HWHEADER]
        if data[kind : kind + 2] == b"\0\x01" and stop - start >= 14:
            return source + data[start : start + MAC_BYTES]
    return source


#: Length, protocol, source port, destination port or ICMP type, TCP flags.
Seen = tuple[int, int, int, int, int]


def _ipv4(body: bytes) -> Seen:
    version, length, fragment, protocol = _V4.unpack_from(body)
    if fragment & 0x1FFF:
        return length, protocol, 0, 0, 0
    return (length, protocol, *_upper(body, protocol, (version & 15) * 4))


def _ipv6(body: bytes) -> Seen:
    length, protocol, place = 40 + (body[4] << 8 | body[5]), body[6], 40
    for _ in range(_EXTENSIONS_MOST):
        if place + 4 > len(body):
            break
        if protocol in _EXTENSIONS:
            protocol, place = body[place], place + (body[place + 1] + 1) * 8
        elif protocol == _AUTHENTICATION:
            protocol, place = body[place], place + (body[place + 1] + 2) * 4
        elif protocol == _FRAGMENT:
            later = (body[place + 2] << 8 | body[place + 3]) >> 3
            protocol, place = body[place], place + 8
            if later:
                return length, protocol, 0, 0, 0
        else:
            break
    return (length, protocol, *_upper(body, protocol, place))


def _upper(body: bytes, protocol: int, place: int) -> tuple[int, int, int]:
    """Answer ports and flags; 0 for what the piece that was logged does not reach to."""
    if protocol in _WITH_PORTS:
        if place + 4 > len(body):
            return 0, 0, 0
        sport, dport = _PORTS.unpack_from(body, place)
        flags = body[place + 13] if protocol == _TCP and place + 13 < len(body) else 0
        return sport, dport, flags
    if protocol in (_ICMP, _ICMPV6) and place < len(body):
        return 0, body[place], 0
    return 0, 0, 0
