"""Rates and payload shares."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hostlerd.netns.model.counter import LinkCounters, rates, tcp4_payload_share

BEFORE = LinkCounters(
    ifname="eth0",
    layer="L2 frame without FCS",
    mtu_bytes=1500,
    speed_bits_per_second=1_000_000_000,
    rx_bytes=1000,
    tx_bytes=2000,
    rx_packets=10,
    tx_packets=20,
    rx_dropped=0,
    tx_dropped=0,
    rx_errors=0,
    tx_errors=0,
)


@pytest.mark.parametrize(("mtu_bytes", "percent"), [(1500, 94.93), (9000, 99.14), (68, 26.42)])
def test_payload_share(mtu_bytes: int, percent: float) -> None:
    assert round(100 * tcp4_payload_share(mtu_bytes), 2) == percent


def test_payload_share_is_never_negative() -> None:
    assert tcp4_payload_share(20) == 0.0


def test_rates_are_bits_and_decimal() -> None:
    after = replace(BEFORE, rx_bytes=126_000, tx_bytes=2000, rx_packets=110)
    found = rates(BEFORE, after, 0.5)
    assert found.rx_bits_per_second == 2_000_000
    assert found.tx_bits_per_second == 0
    assert found.rx_packets_per_second == 200
    assert found.interval_s == 0.5
    assert round(found.payload_limit_bits_per_second) == 949_284_785


def test_a_reset_counter_grew_by_what_it_shows() -> None:
    assert rates(BEFORE, replace(BEFORE, rx_bytes=10), 1).rx_bits_per_second == 80


def test_no_speed_no_limit() -> None:
    slow = replace(BEFORE, speed_bits_per_second=0)
    assert rates(slow, slow, 1).payload_limit_bits_per_second == 0


def test_no_time_is_an_error() -> None:
    with pytest.raises(ValueError, match="no time"):
        rates(BEFORE, BEFORE, 0)
