"""A packet that a rule has logged, and how few bytes it is kept in."""

from __future__ import annotations

from struct import Struct

#: What a packet's values are called, in order; the names are those of PacketRecord in
#: packet_log.proto, and the filter language reads them by these.
NAMES = (
    "rule",
    "action",
    "in_ifname",
    "out_ifname",
    "physin_ifname",
    "physout_ifname",
    "time_unix_ns",
    "ether_type",
    "protocol_number",
    "source_port",
    "destination_port",
    "length_bytes",
    "tcp_flags",
    "connection_state",
    "mark",
    "source",
    "destination",
    "source_mac",
    "destination_mac",
)
Values = tuple[
    str, str, str, str, str, str, int, int, int, int, int, int, int, int, int,
    bytes, bytes, bytes, bytes,
]  # fmt: skip

IPV4, IPV6 = 0x0800, 0x86DD
MAC_BYTES = 6
_ADDRESS_BYTES = {IPV4: 4, IPV6: 16}
_HEAD = Struct("<qHBHHIBBI")


#: What many packets have in common, the first of a packet's values: rule, action, links.
Origin = tuple[str, str, str, str, str, str]
#: time, ether type, protocol, source port, destination port, length, TCP flags, state, mark
Head = tuple[int, int, int, int, int, int, int, int, int]


def pack(head: Head, addresses: bytes, macs: bytes) -> bytes:
    """Keep what is a packet's own: its numbers, both addresses, both hardware addresses or none.

    `addresses` has the length that the ether type says.
    """
    return _HEAD.pack(*head) + addresses + macs


def unpack(origin: Origin, packed: bytes) -> Values:
    """Answer all values of a packet."""
    head = _HEAD.unpack_from(packed)
    size = _ADDRESS_BYTES.get(head[1], 0)
    first = _HEAD.size + size
    second = first + size
    mac = second + MAC_BYTES
    return (
        *origin,
        *head,
        packed[_HEAD.size : first],
        packed[first:second],
        packed[second:mac],
        packed[mac:],
    )
