"""Reads what connections of TCP have carried. Source: sock_diag(7), linux/inet_diag.h, tcp_info."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from hostlerd.tracing.errors import KernelUnreadable
from hostlerd.tracing.kernel.descriptors import Openers
from hostlerd.tracing.kernel.sockets import dump
from hostlerd.tracing.model.connection import ConnectionCount, ConnectionReading

CONNECTIONS_MOST = 100_000
PIDS_MOST = 100
_LOOK_AGAIN = 10
"""After so many readings it is looked anew who has which socket: they can be handed on."""
# struct inet_diag_req_v2, with an empty inet_diag_sockid.
_REQUEST = struct.Struct("=BBBxI48x")
# struct inet_diag_msg up to the cookie; then expires, rqueue, wqueue, uid, inode.
_MESSAGE = struct.Struct("=BBBB2s2s16s16sIQ5I")
_ATTRIBUTE = struct.Struct("=HH")
_INFO = 2
# Of struct tcp_info: rtt, total_retrans, bytes_acked, bytes_received.
_RTT, _RETRANSMITS, _COUNTED = 68, 100, 120
_BYTES = struct.Struct("=QQ")
_INFO_BYTES = _COUNTED + _BYTES.size
# All states in which something may flow: not LISTEN, CLOSE and TIME_WAIT.
_STATES = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))


class Connections:
    """All connections of the host's network namespace, and who has them. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: Mapping[int, tuple[int, ...]] = {}
        self._hidden = 0
        self._age = _LOOK_AGAIN

    def reading(self) -> ConnectionReading:
        """Read what they have carried so far. Raises KernelUnreadable."""
        with self._lock:
            at_s, time_unix_s = time.monotonic(), time.time()
            found: dict[int, ConnectionCount] = {}
            left_out = 0
            try:
                for count in _all():
                    if len(found) < CONNECTIONS_MOST:
                        found[count.cookie] = count
                    else:
                        left_out += 1
            except (OSError, struct.error) as e:
                raise KernelUnreadable(f"connections of TCP: {e}") from e
            self._find_out({count.inode for count in found.values() if count.inode})
            return ConnectionReading(at_s, time_unix_s, found, self._pids, self._hidden, left_out)

    def _find_out(self, inodes: Iterable[int]) -> None:
        wanted = set(inodes)
        self._age += 1
        if self._age <= _LOOK_AGAIN and wanted <= self._pids.keys():
            return
        openers = Openers()
        self._pids = {n: openers.holding(f"socket:[{n}]")[:PIDS_MOST] for n in wanted}
        self._hidden, self._age = openers.hidden, 0


def _all() -> Iterator[ConnectionCount]:
    for family in (socket.AF_INET, socket.AF_INET6):
        asked = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), _STATES)
        for message in dump(asked, "inet_diag"):
            yield _count(message)


def _count(message: memoryview) -> ConnectionCount:
    family, state, _, _, port, peer_port, local, peer, _, cookie, *rest = _MESSAGE.unpack_from(
        message
    )
    info = bytes(_info(message[_MESSAGE.size :])).ljust(_INFO_BYTES, b"\0")
    acked, received = _BYTES.unpack_from(info, _COUNTED)
    return ConnectionCount(
        cookie=cookie,
        inode=rest[4],
        state=state,
        local=_address(family, local),
        local_port=int.from_bytes(port, "big"),
        peer=_address(family, peer),
        peer_port=int.from_bytes(peer_port, "big"),
        rx_bytes=received,
        tx_bytes=acked,
        retransmits=struct.unpack_from("=I", info, _RETRANSMITS)[0],
        round_trip_us=struct.unpack_from("=I", info, _RTT)[0],
    )


def _info(rest: memoryview) -> memoryview:
    while len(rest) >= _ATTRIBUTE.size:
        size, number = _ATTRIBUTE.unpack_from(rest)
        if size < _ATTRIBUTE.size:
            break
        if number == _INFO:
            return rest[_ATTRIBUTE.size : size]
        rest = rest[size + 3 & ~3 :]
    return rest[:0]


def _address(family: int, data: bytes) -> str:
    if family == socket.AF_INET:
        return str(IPv4Address(data[:4]))
    address = IPv6Address(data)
    return str(address.ipv4_mapped or address)
