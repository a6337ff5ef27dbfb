"""What connections and processes send and receive. Witnesses: ss, and what was sent."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hostler.api.tracing.v1 import network_pb2 as pb
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.tracing.kernel import Kernel
from hostlerd.tracing.service.network import NetworkService

pytestmark = pytest.mark.kernel

NO_CONTEXT: Any = None
MIB = 1 << 20
# A process of its own, to which a connection is handed on.
READER = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
print("ready", flush=True)
while sock.recv(1 << 16): pass
"""


class Here:
    """The blocking side of a runtime."""

    async def blocking(self, work: Callable[..., Any], /, *args: Any) -> Any:
        return await asyncio.to_thread(work, *args)


def watched(**asked: Any) -> Any:
    request = pb.WatchConnectionsRequest(**asked)
    request.interval.FromMilliseconds(300)
    service: Any = NetworkService(Here(), Kernel())  # type: ignore[arg-type]
    return service.WatchConnections(request, NO_CONTEXT)


def of(reading: Any, local: tuple[str, int]) -> Any:
    name = f"{local[0]}:{local[1]}" if ":" not in local[0] else f"[{local[0]}]:{local[1]}"
    (found,) = (c for c in reading.connections if c.local == name and c.state == "ESTABLISHED")
    return found


def ss(port: int) -> dict[str, int]:
    """What ss(8) says of the connection from this port."""
    told = subprocess.check_output(["ss", "-tinHe", f"sport = :{port}"], text=True)
    return {k: int(v) for k, v in re.findall(r"(bytes_acked|bytes_received):(\d+)", told)}


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_is_sent_is_seen_at_both_ends_and_with_its_processes(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        sock = socket.create_connection(server.getsockname()[:2])
        taken, _ = server.accept()
    with sock, taken:
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(taken.fileno())],
            pass_fds=[taken.fileno()],
            stdout=subprocess.PIPE,
        )
        try:
            assert reader.stdout
            assert reader.stdout.readline() == b"ready\n"
            here, there = sock.getsockname()[:2], taken.getsockname()[:2]
            taken.close()
            asyncio.run(asyncio.wait_for(both_ends(sock, here, there, reader.pid), 60))
        finally:
            reader.kill()
            reader.wait()


async def both_ends(sock: socket.socket, here: Any, there: Any, reader: int) -> None:
    size = 20 * MIB
    stream = watched()
    first = await anext(stream)
    assert of(first, here).tx_bits_per_second == 0
    sent = received = 0.0
    before = first
    for half in (size // 2, size):
        await asyncio.to_thread(sock.sendall, bytes(size // 2))
        # The kernel acknowledges a while after it was sent.
        while of(before, here).tx_bytes < half or of(before, there).rx_bytes < half:
            now = await anext(stream)
            seconds = (now.time.ToNanoseconds() - before.time.ToNanoseconds()) / 1e9
            sent += of(now, here).tx_bits_per_second * seconds / 8
            received += of(now, there).rx_bits_per_second * seconds / 8
            before = now
    own, other = of(before, here), of(before, there)
    assert [p.pid for p in own.processes] == [os.getpid()]
    assert [p.pid for p in other.processes] == [reader]
    assert sent == pytest.approx(size, rel=0.05)
    assert received == pytest.approx(size, rel=0.05)
    assert ss(here[1])["bytes_acked"] == pytest.approx(own.tx_bytes, abs=1)
    assert ss(there[1])["bytes_received"] == other.rx_bytes == size
    assert (own.peer, other.peer) == (other.local, own.local)
    assert own.round_trip_microseconds > 0
    by_pid = {p.process.pid: p for p in before.processes}
    assert by_pid[reader].connections == 1
    assert by_pid[reader].process.comm.startswith("python")
    await stream.aclose()


def test_a_new_connection_has_carried_all_since_the_reading_before() -> None:
    async def work() -> None:
        stream = watched(top=10_000)
        await anext(stream)
        with socket.create_server(("127.0.0.1", 0)) as server:
            sock = socket.create_connection(server.getsockname())
            taken, _ = server.accept()
            with sock, taken:
                reader = threading.Thread(target=taken.recv, args=(MIB, socket.MSG_WAITALL))
                reader.start()
                sock.sendall(bytes(MIB))
                reader.join()
                now = await anext(stream)
                mine = of(now, taken.getsockname())
                assert mine.rx_bytes == MIB
                # Whatever the interval was: nothing of it was there before.
                assert mine.rx_bits_per_second > 0
                limited = watched(top=1)
                assert len((await anext(limited)).connections) == 1

    asyncio.run(work())


def test_bad_requests_are_refused() -> None:
    for bad in ({"top": -1}, {"after_seq": -1}):
        with pytest.raises(InvalidRequest):
            asyncio.run(anext(watched(**bad)))
