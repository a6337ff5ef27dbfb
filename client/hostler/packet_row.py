"""A record of a packet log as a row of the store, and as a line for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

Row = tuple[int | str, ...]

COLUMNS = (
    "reader_id",
    "seq",
    "time",
    "rule",
    "action",
    "in_ifname",
    "out_ifname",
    "physin_ifname",
    "physout_ifname",
    "source_mac",
    "destination_mac",
    "source",
    "destination",
    "protocol_number",
    "source_port",
    "destination_port",
    "length_bytes",
    "tcp_flags",
    "connection_state",
    "mark",
    "ether_type",
)

# Source: IANA, Assigned Internet Protocol Numbers.
PROTOCOLS: Mapping[int, str] = {
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    89: "ospf",
    112: "vrrp",
    132: "sctp",
}
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
_STATES = ("", "established", "related", "new", "invalid", "untracked")
_MOST_TEXT = 256


def row_of(reader_id: int, record: Any) -> Row:
    """A PacketRecord as a row, in the order of COLUMNS."""
    return (
        reader_id,
        record.seq,
        record.time_unix_ns,
        text(record.rule),
        text(record.action),
        text(record.in_ifname),
        text(record.out_ifname),
        text(record.physin_ifname),
        text(record.physout_ifname),
        mac(record.source_mac),
        mac(record.destination_mac),
        address(record.source),
        address(record.destination),
        record.protocol_number & 0xFF,
        record.source_port & 0xFFFF,
        record.destination_port & 0xFFFF,
        record.length_bytes,
        record.tcp_flags & 0xFFFF,
        record.connection_state & 0xFF,
        record.mark,
        record.ether_type & 0xFFFF,
    )


@lru_cache(maxsize=4096)
def text(value: str) -> str:
    """Text of a host as it may be stored: PostgreSQL takes no NUL, and nobody an endless name."""
    return value.replace("\0", "\ufffd")[:_MOST_TEXT]


@lru_cache(maxsize=16384)
def address(packed: bytes) -> str:
    """An address from its 4 or 16 bytes; empty if there is none, hexadecimal if it is no such."""
    if len(packed) in (4, 16):
        return str(ip_address(packed))
    return packed[:32].hex()


@lru_cache(maxsize=4096)
def mac(packed: bytes) -> str:
    """A hardware address, such as 02:00:00:00:00:01; empty if there is none."""
    return packed[:32].hex(":")


def protocol(number: int) -> str:
    """A protocol's name, or its number if it has none that people know."""
    return PROTOCOLS.get(number, str(number))


def moment(time_ns: int) -> str:
    """A time in nanoseconds since 1970 as text in UTC, to the microsecond."""
    try:
        seconds, rest_ns = divmod(time_ns, 1_000_000_000)
        told = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return str(time_ns)
    return f"{told}.{rest_ns // 1000:06}Z"


def fields_of(record: Any) -> dict[str, Any]:
    """A PacketRecord as a mapping for programs, without what it does not have."""
    row = dict(zip(COLUMNS[1:], row_of(0, record)[1:], strict=True))
    row["time"] = moment(record.time_unix_ns)
    return {name: value for name, value in row.items() if value not in ("", 0)}


def line_of(record: Any) -> str:
    """A PacketRecord as a line for people; text of the host is as it came."""
    words = [moment(record.time_unix_ns), record.rule or "-", record.action or "-"]
    for sign, name in (
        ("in", record.in_ifname),
        ("out", record.out_ifname),
        ("physin", record.physin_ifname),
        ("physout", record.physout_ifname),
    ):
        if name:
            words.append(f"{sign} {name}")
    words.append(protocol(record.protocol_number))
    source = end(address(record.source), record.source_port)
    words.append(f"{source} > {end(address(record.destination), record.destination_port)}")
    words.append(f"{record.length_bytes} bytes")
    flags = [name for bit, name in enumerate(_FLAGS) if record.tcp_flags >> bit & 1]
    if record.protocol_number == 6 and flags:
        words.append("+".join(flags))
    if 0 < record.connection_state < len(_STATES):
        words.append(_STATES[record.connection_state])
    return "  ".join(words)


def end(host: str, port: int) -> str:
    """One end of a flow: its address, and its port if it has one."""
    if not host:
        return "-"
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
