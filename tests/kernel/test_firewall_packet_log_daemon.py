"""A whole daemon stays for the packet log: who comes back in time misses nothing, then it goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from firewall_packets import load, send
from firewall_topology import Host, hosts
from stream_daemon import running

from hostler.api.firewall.v1 import packet_log_pb2 as pb
from hostler.api.firewall.v1 import packet_log_pb2_grpc
from hostlerd.firewall.model.packet_log import statement

pytestmark = pytest.mark.kernel

# The daemon idles out after one second; what keeps it longer is the reader.
IDLE_S, KEEP_S = 1, 12.0
PROGRAM = """
import ctypes, os
if ctypes.CDLL(None).setns(os.open("/run/netns/NAME", os.O_RDONLY), 0x40000000):
    raise OSError("setns")
from hostlerd.firewall.kernel import packet_log
packet_log.KEEP_S = KEPT
from hostlerd.firewall.__main__ import build
from hostlerd.runtime.server import main
main("firewall", build)
"""


def test_the_daemon_stays_while_the_log_is_read_and_then_goes(tmp_path: Path) -> None:
    with hosts("alone") as (name,):
        alone = Host(name)
        load(alone, f"udp dport 9 {statement('base/nine', 'drop')}", hook="output")
        program = PROGRAM.replace("NAME", name).replace("KEPT", str(KEEP_S))
        with running(tmp_path, program) as daemon:
            (tmp_path / "etc/hostler.toml").write_text(f"idle_s = {IDLE_S}\n")

            def followed(before: int, count: int, **asked: Any) -> tuple[str, list[int]]:
                with daemon.channel("vera") as channel:
                    stub = packet_log_pb2_grpc.PacketLogServiceStub(channel)
                    request = pb.FollowPacketLogRequest(**asked)
                    stream = stub.FollowPacketLog(request, timeout=30, wait_for_ready=True)
                    reader, numbers = next(stream).reader, []
                    alone.run(send, before)
                    while len(numbers) < count:
                        answer = next(stream)
                        assert answer.lost == 0
                        numbers += [r.seq for r in answer.records]
                    stream.cancel()
                return reader, numbers

            reader, numbers = followed(5, 5)
            assert numbers == [1, 2, 3, 4, 5]
            alone.run(send, 3)
            # Long enough to idle out, were it not for the reader.
            time.sleep(3 * IDLE_S)
            assert daemon.process.poll() is None
            assert followed(0, 3, reader=reader, after_seq=5) == (reader, [6, 7, 8])
            assert daemon.process.wait(60) == 0
            written = (tmp_path / "stderr").read_text()
            assert f"the packet log is read no more [reader={reader}]" in written
