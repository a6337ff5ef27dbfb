"""Reads what the links of the host have carried. Source: proc(5), /proc/net/dev."""

from __future__ import annotations

import time

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.model.link import LinkCount, LinkReading


def reading() -> LinkReading:
    """Read what all links have carried so far."""
    at_s, time_unix_s = time.monotonic(), time.time()
    links = {}
    for line in proc.text("/proc/thread-self/net/dev", proc.MOST_BYTES).splitlines()[2:]:
        name, _, numbers = line.strip().rpartition(":")
        rx_bytes, rx_packets, rx_errors, rx_dropped, *_ = map(int, numbers.split())
        tx_bytes, tx_packets, tx_errors, tx_dropped, *_ = map(int, numbers.split()[8:])
        lost = rx_errors + rx_dropped + tx_errors + tx_dropped
        links[name] = LinkCount(name, rx_bytes, tx_bytes, rx_packets, tx_packets, lost)
    return LinkReading(at_s, time_unix_s, links)
