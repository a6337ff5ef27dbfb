"""What followers of the packet log are told when its reader falls."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from firewall_packets import load, send
from firewall_topology import Host, hosts

from hostlerd.firewall.kernel import packet_log as packet_log_module
from hostlerd.firewall.kernel.packet_log import PacketLog, Reader
from hostlerd.firewall.model.packet_log import statement

pytestmark = pytest.mark.kernel

WITHIN_S = 20.0


def until(look: Callable[[], Any]) -> None:
    end = time.monotonic() + WITHIN_S
    while not look():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def reader_of(log: PacketLog) -> Reader:
    reader = log.state()[0]
    assert reader is not None
    return reader


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_that_falls_is_told_of_and_the_next_follower_has_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = PacketLog(most_packets=1000)
    with hosts("fault") as names:
        host = Host(names[0])
        load(host, f"udp dport 9 {statement('base/nine', 'drop')}", hook="output")
        try:
            host.run(log.open)
            fallen = reader_of(log)
            with monkeypatch.context() as patch:
                patch.setattr(packet_log_module, "parse", lambda data: data[1 << 30])
                host.run(send, 1)
                until(lambda: fallen.problem)
            assert "a fault of the daemon's own" in fallen.problem
            host.run(log.open)
            reader = reader_of(log)
            assert reader.name != fallen.name
            assert not reader.problem
            host.run(send, 3000)
            until(lambda: reader.ring.state[0] == 3000)
            # As many are kept as is configured, but for a part of the ring at once.
            assert 800 <= 3001 - reader.ring.state[1] <= 1000
        finally:
            log.close()
