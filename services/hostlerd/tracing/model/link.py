"""What the host's links have carried, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkCount:
    """What a link has carried so far; `lost` are packets dropped or faulty, both ways."""

    ifname: str
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    lost: int


@dataclass(frozen=True, slots=True)
class LinkReading:
    """What all links had carried at a time; see IoReading."""

    at_s: float
    time_unix_s: float
    links: Mapping[str, LinkCount]


@dataclass(frozen=True, slots=True)
class LinkRate:
    """How much a link carried, for each second; zero where there is no reading before."""

    count: LinkCount
    rx_bits: float = 0.0
    tx_bits: float = 0.0
    rx_packets: float = 0.0
    tx_packets: float = 0.0
    lost: float = 0.0


def rates(before: LinkReading | None, now: LinkReading, top: int = 0) -> list[LinkRate]:
    """Answer the rates of links, the busiest first, of which `top` are wanted; 0 means all.

    A counter that went back is that of a link made anew, which carried all of it since.
    """
    seconds = now.at_s - before.at_s if before is not None else 0.0
    was = before.links if before is not None else {}
    found = [_rate(was.get(name), count, seconds) for name, count in now.links.items()]
    found.sort(key=lambda r: (r.rx_bits + r.tx_bits, r.count.rx_bytes), reverse=True)
    return found[:top] if top else found


def _rate(was: LinkCount | None, count: LinkCount, seconds: float) -> LinkRate:
    if seconds <= 0:
        return LinkRate(count)
    if was is None or count.rx_packets < was.rx_packets or count.tx_packets < was.tx_packets:
        was = LinkCount(count.ifname, 0, 0, 0, 0, 0)
    return LinkRate(
        count,
        8 * (count.rx_bytes - was.rx_bytes) / seconds,
        8 * (count.tx_bytes - was.tx_bytes) / seconds,
        (count.rx_packets - was.rx_packets) / seconds,
        (count.tx_packets - was.tx_packets) / seconds,
        (count.lost - was.lost) / seconds,
    )
