"""What connections of TCP have carried, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionCount:
    """What a connection has carried so far, in bytes of its program. `cookie` is its own alone."""

    cookie: int
    inode: int
    state: int
    local: str
    local_port: int
    peer: str
    peer_port: int
    rx_bytes: int
    tx_bytes: int
    retransmits: int
    round_trip_us: int


@dataclass(frozen=True, slots=True)
class ConnectionReading:
    """What all connections had carried at a time, by cookie; see IoReading.

    `pids` are the processes that have a socket open, by its inode. `hidden` processes do not show
    theirs, `left_out` connections were not read.
    """

    at_s: float
    time_unix_s: float
    connections: Mapping[int, ConnectionCount]
    pids: Mapping[int, tuple[int, ...]]
    hidden: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class ConnectionRate:
    """How much a connection carried, for each second; zero where there is no reading before."""

    count: ConnectionCount
    pids: tuple[int, ...] = ()
    rx_bits: float = 0.0
    tx_bits: float = 0.0
    retransmits: float = 0.0


@dataclass(frozen=True, slots=True)
class ProcessNetRate:
    """The same of all connections of a process."""

    pid: int
    connections: int
    rx_bits: float
    tx_bits: float


def rates(before: ConnectionReading | None, now: ConnectionReading) -> list[ConnectionRate]:
    """Answer the rates of connections, the busiest first.

    One that was not there before has carried all it has since.
    """
    seconds = now.at_s - before.at_s if before is not None else 0.0
    was = before.connections if before is not None else {}
    found = [
        _rate(was.get(cookie), count, now.pids.get(count.inode, ()), seconds)
        for cookie, count in now.connections.items()
    ]
    found.sort(
        key=lambda r: (r.rx_bits + r.tx_bits, r.count.rx_bytes + r.count.tx_bytes), reverse=True
    )
    return found


def _rate(
    was: ConnectionCount | None, count: ConnectionCount, pids: tuple[int, ...], seconds: float
) -> ConnectionRate:
    if seconds <= 0:
        return ConnectionRate(count, pids)
    rx_bytes, tx_bytes, again = count.rx_bytes, count.tx_bytes, count.retransmits
    if was is not None:
        rx_bytes -= was.rx_bytes
        tx_bytes -= was.tx_bytes
        again -= was.retransmits
    return ConnectionRate(
        count, pids, 8 * rx_bytes / seconds, 8 * tx_bytes / seconds, again / seconds
    )


def by_process(found: list[ConnectionRate]) -> list[ProcessNetRate]:
    """Answer the sums of processes, the busiest first."""
    of: dict[int, list[ConnectionRate]] = {}
    for rate in found:
        for pid in rate.pids:
            of.setdefault(pid, []).append(rate)
    sums = [
        ProcessNetRate(pid, len(own), sum(r.rx_bits for r in own), sum(r.tx_bits for r in own))
        for pid, own in of.items()
    ]
    return sorted(sums, key=lambda s: (s.rx_bits + s.tx_bits, s.connections), reverse=True)
