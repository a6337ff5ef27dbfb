"""The messages of connection tracking, decoded. What is not whole is left out, never guessed.

Source: linux/netfilter/nfnetlink_conntrack.h. Numbers are in network byte order.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from hostlerd.firewall.kernel.nfnetlink import attribute, attributes
from hostlerd.firewall.model.connection import Connection, Direction, Flow, tcp_state_name
from hostlerd.firewall.model.ruleset import Address

#: struct nfgenmsg: family, version, resource id.
NFGENMSG_BYTES = 4
AF_INET, AF_INET6 = 2, 10
_VERSIONS = {AF_INET: 4, AF_INET6: 6}
#: By family: the attributes of both addresses, and their size in bytes.
_ADDRESSES = {AF_INET: (1, 2, 4), AF_INET6: (3, 4, 16)}

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO = 1, 2, 3, 4
_TIMEOUT, _MARK, _COUNTERS_ORIG, _COUNTERS_REPLY = 7, 8, 9, 10
_ID, _ZONE = 12, 18
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_NESTED = 0x8000
_PROTO_NUM, _SRC_PORT, _DST_PORT, _ICMP_ID, _ICMPV6_ID = 1, 2, 3, 4, 7
_PROTOINFO_TCP, _TCP_STATE = 1, 1
_PACKETS, _BYTES = 1, 2
_GLOBAL_ENTRIES, _GLOBAL_MAX = 1, 2
_NOTHING = memoryview(b"")


def _head(*attributes: tuple[int, int]) -> bytes:
    """Answer the headers of attributes that begin one in the other, by length and kind."""
    return b"".join(struct.pack("=HH", *each) for each in attributes)


#: A tuple with ports as the kernel lays it out. Walking through its attributes one by one is three
#: quarters of the work of reading a table; what has not these very headers is read in that way.
_USUAL = {AF_INET: struct.Struct(">8s4s4s4s8sB3x4sH2x4sH2x")}
_USUAL[AF_INET6] = struct.Struct(">8s16s4s16s8sB3x4sH2x4sH2x")
_USUAL_HEADS = {
    family: (
        _head((12 + 2 * size, _NESTED | _TUPLE_IP), (4 + size, source)),
        _head((4 + size, destination)),
        _head((28, _NESTED | _TUPLE_PROTO), (5, _PROTO_NUM)),
        _head((6, _SRC_PORT)),
        _head((6, _DST_PORT)),
    )
    for family, (source, destination, size) in _ADDRESSES.items()
}
_USUAL_STATE = _head((5, _TCP_STATE))

_Tuple = tuple[int, int, int, int, int]
"""Protocol, source, destination, source port or id, destination port."""


class Entry:
    """One connection of a dump. Only what is asked for is decoded."""

    __slots__ = ("_attributes", "_family", "_original")

    def __init__(self, family: int, found: dict[int, memoryview], original: _Tuple) -> None:
        self._family = family
        self._attributes = found
        self._original = original

    def flow(self) -> Flow:
        """Answer what decides whether it is meant."""
        protocol, source, destination, source_port, destination_port = self._original
        status = _number(self._attributes.get(_STATUS, _NOTHING))
        state = self._tcp_state() if protocol == 6 else -1
        version = _VERSIONS[self._family]
        return Flow(
            version, protocol, source, destination, source_port, destination_port, status, state
        )

    def connection(self) -> Connection:
        """Answer the whole of it."""
        flow, found = self.flow(), self._attributes
        reply = _read_tuple(self._family, found.get(_TUPLE_REPLY, _NOTHING))
        return Connection(
            id=_number(found.get(_ID, _NOTHING)),
            protocol=flow.protocol,
            original=self._direction(self._original, _COUNTERS_ORIG),
            reply=self._direction(reply or (flow.protocol, 0, 0, 0, 0), _COUNTERS_REPLY),
            tcp_state=tcp_state_name(flow.tcp_state),
            status=flow.status,
            timeout_s=_number(found.get(_TIMEOUT, _NOTHING)),
            mark=_number(found.get(_MARK, _NOTHING)),
        )

    def deletion(self) -> bytes:
        """Answer the message that deletes this very connection, not one that came after it."""
        found = self._attributes
        body = header(self._family) + attribute(_TUPLE_ORIG, found[_TUPLE_ORIG], nested=True)
        return body + b"".join(attribute(k, found[k]) for k in (_ZONE, _ID) if k in found)

    def _tcp_state(self) -> int:
        data = self._attributes.get(_PROTOINFO, _NOTHING)
        if len(data) > 8 and data[2] == _PROTOINFO_TCP and data[4:8] == _USUAL_STATE:
            return data[8]
        info = attributes(data)
        told = attributes(info.get(_PROTOINFO_TCP, _NOTHING)).get(_TCP_STATE, _NOTHING)
        return _number(told) if told else -1

    def _direction(self, said: _Tuple, counters: int) -> Direction:
        told = attributes(self._attributes.get(counters, _NOTHING))
        _, source, destination, source_port, destination_port = said
        return Direction(
            _address(self._family, source),
            _address(self._family, destination),
            source_port,
            destination_port,
            _number(told.get(_PACKETS, _NOTHING)),
            _number(told.get(_BYTES, _NOTHING)),
        )


def header(family: int) -> bytes:
    """Answer a struct nfgenmsg; family 0 means all."""
    return bytes((family, 0, 0, 0))


def read(payload: memoryview) -> Entry | None:
    """Answer the connection of a message; None for one that is none of IP, or is not whole."""
    if len(payload) < NFGENMSG_BYTES or payload[0] not in _ADDRESSES:
        return None
    found = attributes(payload[NFGENMSG_BYTES:])
    original = _read_tuple(payload[0], found.get(_TUPLE_ORIG, _NOTHING))
    return None if original is None else Entry(payload[0], found, original)


def read_stats(payload: memoryview) -> tuple[int, int]:
    """Answer how many connections there are, and how many there can be; 0 for what is not told."""
    found = attributes(payload[NFGENMSG_BYTES:])
    entries, most = (_number(found.get(k, _NOTHING)) for k in (_GLOBAL_ENTRIES, _GLOBAL_MAX))
    return entries, most


def _read_tuple(family: int, data: memoryview) -> _Tuple | None:
    if len(data) == _USUAL[family].size:
        found = _USUAL[family].unpack_from(data)
        if found[::2] == _USUAL_HEADS[family]:
            _, source, _, destination, _, protocol, _, from_port, _, to_port = found
            return protocol, int.from_bytes(source), int.from_bytes(destination), from_port, to_port
    return read_tuple(family, data)


def read_tuple(family: int, data: memoryview) -> _Tuple | None:
    """Answer a tuple attribute by attribute; None for one that is not whole."""
    parts = attributes(data)
    if _TUPLE_IP not in parts or _TUPLE_PROTO not in parts:
        return None
    addresses, ports = attributes(parts[_TUPLE_IP]), attributes(parts[_TUPLE_PROTO])
    from_kind, to_kind, size = _ADDRESSES[family]
    source, destination = addresses.get(from_kind, _NOTHING), addresses.get(to_kind, _NOTHING)
    if len(source) != size or len(destination) != size or len(ports.get(_PROTO_NUM, b"")) != 1:
        return None
    source_port = ports.get(_SRC_PORT) or ports.get(_ICMP_ID) or ports.get(_ICMPV6_ID) or _NOTHING
    return (
        ports[_PROTO_NUM][0],
        int.from_bytes(source),
        int.from_bytes(destination),
        _number(source_port[:2]),
        _number(ports.get(_DST_PORT, _NOTHING)[:2]),
    )


def _number(value: memoryview) -> int:
    """Decode a number; what is longer than any that there is, is cut."""
    return int.from_bytes(value[:8])


def _address(family: int, number: int) -> Address:
    return IPv4Address(number) if family == AF_INET else IPv6Address(number)
