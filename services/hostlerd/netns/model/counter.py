"""Counters of links, the rates between two readings, and what of a wire's rate is payload.

All units are decimal: 1 Gbit/s is 10**9 bits per second.
"""

from __future__ import annotations

from dataclasses import dataclass

IPV4_TCP_HEADERS_BYTES = 40
"""IPv4 and TCP headers without options, RFC 791 and RFC 9293."""

WIRE_OVERHEAD_BYTES = 38
"""Ethernet preamble 8, header 14, FCS 4, gap 12: IEEE 802.3."""


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """The counters of a link as the device has them; `layer` says what its bytes count."""

    ifname: str
    layer: str
    mtu_bytes: int
    speed_bits_per_second: int
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    rx_dropped: int
    tx_dropped: int
    rx_errors: int
    tx_errors: int


@dataclass(frozen=True, slots=True)
class LinkRates:
    """The rates of a link between two readings, and the bound that its MTU sets to payload."""

    rx_bits_per_second: float
    tx_bits_per_second: float
    rx_packets_per_second: float
    tx_packets_per_second: float
    tcp4_payload_share: float
    payload_limit_bits_per_second: float
    interval_s: float


def tcp4_payload_share(mtu_bytes: int) -> float:
    """Answer which share of a wire's bits TCP payload over IPv4 can be: 0.9493 at 1500 bytes."""
    payload = mtu_bytes - IPV4_TCP_HEADERS_BYTES
    return max(0.0, payload / (mtu_bytes + WIRE_OVERHEAD_BYTES))


def rates(before: LinkCounters, after: LinkCounters, interval_s: float) -> LinkRates:
    """Answer the rates between two readings of a link, `interval_s` seconds apart.

    A counter that went back has been reset, as when a link was made anew: it has grown by what it
    shows. Raises ValueError if no time has passed.
    """
    if interval_s <= 0:
        raise ValueError("no time has passed between the readings")

    def per_second(was: int, now: int) -> float:
        return (now - was if now >= was else now) / interval_s

    share = tcp4_payload_share(after.mtu_bytes)
    return LinkRates(
        rx_bits_per_second=8 * per_second(before.rx_bytes, after.rx_bytes),
        tx_bits_per_second=8 * per_second(before.tx_bytes, after.tx_bytes),
        rx_packets_per_second=per_second(before.rx_packets, after.rx_packets),
        tx_packets_per_second=per_second(before.tx_packets, after.tx_packets),
        tcp4_payload_share=share,
        payload_limit_bits_per_second=share * after.speed_bits_per_second,
        interval_s=interval_s,
    )
