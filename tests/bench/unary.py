"""A small read through the relay, beside the same read on a port of the same server.

Both contestants are one and the same process: the netns daemon with its gate, whose gRPC server
has, for comparison, a TCP port of its own beside the private socket that the relay reaches. What
differs is the relay alone: accept on the inherited socket, and bytes passed to and from a unix
socket. `GetHost` reads files in a worker thread, `Check` of grpc.health answers from memory, so
the relay's share is largest there. Every client has a channel of its own, over mTLS, and calls
again as soon as it has its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import daemon
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from report import Row, percentile
from rounds import in_turn

from hostler.api.common.v1 import host_pb2, host_pb2_grpc

CLIENTS = (1, 16)
ROUNDS = 5
BUDGET_S = 60.0
WARM_S, MEASURED_S = 0.2, 1.0
CALL_TIMEOUT_S = 20.0

Call = Callable[[], Awaitable[Any]]
Method = Callable[[grpc.aio.Channel], Call]


@dataclass(frozen=True, slots=True)
class Load:
    """What one round found: latency percentiles in ms, and answers per second of all clients."""

    p50_ms: float
    p99_ms: float
    per_s: float


def get_host(channel: grpc.aio.Channel) -> Call:
    """Answer a call of HostService.GetHost on a channel."""
    stub = host_pb2_grpc.HostServiceStub(channel)
    return lambda: stub.GetHost(host_pb2.GetHostRequest(), timeout=CALL_TIMEOUT_S)


def check(channel: grpc.aio.Channel) -> Call:
    """Answer a call of grpc.health's Check on a channel."""
    stub = health_pb2_grpc.HealthStub(channel)
    return lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S)


METHODS: dict[str, Method] = {"GetHost": get_host, "health Check": check}


async def client(call: Call, seconds: float) -> list[float]:
    """Call for so long, one call after the other; answers how many seconds each took."""
    took = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        await call()
        took.append(time.perf_counter() - start)
    return took


async def load(served: daemon.Daemon, port: int, method: Method, clients: int) -> Load:
    """Let so many clients call a method at once, each on a connection of its own."""
    channels = [served.channel(port) for _ in range(clients)]
    try:
        calls = [method(channel) for channel in channels]
        await asyncio.gather(*(client(call, WARM_S) for call in calls))
        start = time.perf_counter()
        found = await asyncio.gather(*(client(call, MEASURED_S) for call in calls))
        elapsed_s = time.perf_counter() - start
    finally:
        await asyncio.gather(*(channel.close(None) for channel in channels))
    took_ms = [seconds * 1e3 for each in found for seconds in each]
    return Load(percentile(took_ms, 50), percentile(took_ms, 99), len(took_ms) / elapsed_s)


def rows() -> list[Row]:
    """Measure both methods with one client and with many."""
    made = []
    with daemon.folder() as place:
        served = daemon.prepare(place, daemon.make_authority(place))
        direct_port = daemon.free_port()
        served.arguments = (str(Path(__file__).with_name("direct.py")),)
        served.environment = {"BENCH_DIRECT_PORT": str(direct_port)}
        with daemon.listening(served):
            for (title, method), clients in product(METHODS.items(), CLIENTS):
                found = compare(served, direct_port, method, clients)
                who = "1 client" if clients == 1 else f"{clients} clients"
                made += rows_for(f"{title}, {who}", *found)
    return made


def compare(
    served: daemon.Daemon, direct_port: int, method: Method, clients: int
) -> tuple[list[Load], list[Load]]:
    """Measure a method through the relay and on the direct port, in turn."""

    def run(port: int) -> Load:
        found: Load = uvloop.run(load(served, port, method, clients))
        return found

    # The first call starts the daemon; it is a matter for another benchmark.
    contestants = {"relay": lambda: run(served.port), "direct": lambda: run(direct_port)}
    contestants["relay"]()
    budget_s = BUDGET_S / (len(METHODS) * len(CLIENTS))
    found = in_turn(contestants, ROUNDS, budget_s)
    return found["relay"], found["direct"]


def rows_for(what: str, ours: list[Load], peer: list[Load]) -> list[Row]:
    """Make the rows of one method and number of clients."""
    return [
        Row("unary", f"{what}, {metric}", pick_all(ours, pick), pick_all(peer, pick), "direct port")
        for metric, pick in (
            ("p50 ms", lambda found: found.p50_ms),
            ("p99 ms", lambda found: found.p99_ms),
            ("requests/s (more is better)", lambda found: found.per_s),
        )
    ]


def pick_all(found: list[Load], pick: Callable[[Load], float]) -> tuple[float, ...]:
    """Answer one figure of each round."""
    return tuple(pick(each) for each in found)
