"""One question to many hosts: the SDK beside a bare gather loop over grpc.aio channels.

The endpoints are real daemons with real certificates: one process stands for a hundred hosts, each
with its own address (127.10.x.y) and its own name in the certificate, and every call is a new
connection over mTLS. The peer opens all channels at once, has no window, no retry and no error
decoding: it is the least that can be done with grpc.aio. In one comparison 5 % of the hosts are
dead: of those half refuse the connection, half accept and never speak. Both contestants give a dead
host the same time; what counts there is that it delays no answer of a live one.

The client's CPU time is that of the whole benchmark process, gRPC's threads included.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import daemon
import grpc
import grpc.aio
from report import Row
from rounds import in_turn

from hostler.aio import Client, Host, Retry, Session, rpc
from hostler.api.common.v1 import host_pb2, host_pb2_grpc
from hostler.config import Context
from hostler.fleet import Fleet
from hostler.pki import Authority

COUNTS = (100, 500)
HOSTS_PER_DAEMON = 100
DEAD_PERCENT = 5
ROUNDS, DEAD_ROUNDS = 5, 3
BUDGET_S = 45.0
DEAD_AFTER_S = Retry().connect_s
TIMEOUT_S = 30.0
GET_HOST = rpc(host_pb2, "HostService", "GetHost").at("netns")


@dataclass(frozen=True, slots=True)
class Asked:
    """One fan-out: seconds to the last live host's answer, to all results, and of CPU."""

    live_s: float
    all_s: float
    cpu_s: float


Ask = Callable[[Sequence[Host], Callable[[], None]], Awaitable[int]]


def address(index: int) -> str:
    """Answer the loopback address of host number `index`."""
    return f"127.10.{1 + index // 250}.{1 + index % 250}"


def host_name(index: int) -> str:
    """Answer the name of host number `index`; a daemon is called like the first of its hosts."""
    served_by, position = divmod(index, HOSTS_PER_DAEMON)
    return f"d{served_by}-{position}" if position else f"d{served_by}"


def hosts_of(daemons: Sequence[daemon.Daemon], count: int) -> list[Host]:
    """Answer the first so many hosts, each at an address of its own."""
    return [
        Host(
            host_name(i),
            address(i),
            ports={"netns": daemons[i // HOSTS_PER_DAEMON].port},
        )
        for i in range(count)
    ]


def with_dead(hosts: Sequence[Host], refusing: int, silent: int) -> list[Host]:
    """Move every twentieth host to a port that refuses or to one that never speaks, in turn."""
    step = 100 // DEAD_PERCENT
    made = list(hosts)
    for i in range(0, len(made), step):
        port = silent if (i // step) % 2 else refusing
        made[i] = Host(made[i].name, made[i].address, ports={"netns": port})
    return made


def sdk(authority: Authority) -> Ask:
    """Ask through `hostler.aio`."""
    user = authority.folder / "users" / daemon.USER
    context = Context(
        name="bench",
        trust_domain=authority.trust_domain,
        ca=authority.ca_path,
        certificate=user.with_suffix(".pem"),
        key=user.with_suffix(".key"),
        fleet=Path("unused"),
    )
    client = Client(context, Fleet(), timeout_s=TIMEOUT_S)

    async def ask(hosts: Sequence[Host], answered: Callable[[], None]) -> int:
        async def one(session: Session) -> None:
            await session.call(GET_HOST, host_pb2.GetHostRequest())
            answered()

        results = await client.each(hosts, one)
        return sum(result.ok for result in results)

    return ask


def bare(authority: Authority, timeout_s: float) -> Ask:
    """Ask with nothing but channels, stubs and gather."""
    credentials = daemon.credentials(authority)

    async def ask(hosts: Sequence[Host], answered: Callable[[], None]) -> int:
        async def one(host: Host) -> None:
            options = [*daemon.CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", host.name)]
            channel = grpc.aio.secure_channel(host.target("netns"), credentials, options=options)
            try:
                stub = host_pb2_grpc.HostServiceStub(channel)
                await stub.GetHost(host_pb2.GetHostRequest(), timeout=timeout_s)
                answered()
            finally:
                await channel.close(None)

        results = await asyncio.gather(*map(one, hosts), return_exceptions=True)
        return sum(result is None for result in results)

    return ask


def measure(ask: Ask, hosts: Sequence[Host], live: int) -> Asked:
    """Ask all hosts once. Raises AssertionError unless exactly the live ones have answered."""
    last_s = 0.0

    def answered() -> None:
        nonlocal last_s
        last_s = time.perf_counter()

    cpu_s, start = cpu_seconds(), time.perf_counter()
    ok = asyncio.run(_await(ask(hosts, answered)))
    end = time.perf_counter()
    if ok != live:
        raise AssertionError(f"{ok} of {live} live hosts have answered")
    return Asked(last_s - start, end - start, cpu_seconds() - cpu_s)


async def _await(work: Awaitable[int]) -> int:
    return await work


def cpu_seconds() -> float:
    """Answer the CPU time of this process, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def daemons_for(count: int) -> Iterator[list[daemon.Daemon]]:
    """Run as many daemons as `count` hosts need, and wake them up."""
    with daemon.folder() as place, ExitStack() as stack:
        authority = daemon.make_authority(place)
        served = []
        for start in range(0, count, HOSTS_PER_DAEMON):
            names = [host_name(i) for i in range(start, start + HOSTS_PER_DAEMON)]
            served.append(daemon.prepare(place, authority, names[0], names[1:]))
        for each in served:
            stack.enter_context(daemon.listening(each))
        first = hosts_of(served, count)[::HOSTS_PER_DAEMON]
        measure(bare(authority, TIMEOUT_S), first, len(first))
        yield served


@contextmanager
def dead_ports() -> Iterator[tuple[int, int]]:
    """Give a port that refuses connections and one that takes them and never speaks."""
    with socket.create_server(("0.0.0.0", 0), backlog=1024) as silent:  # noqa: S104 - 127.10.x.y
        yield daemon.free_port(), silent.getsockname()[1]


def rows() -> list[Row]:
    """Measure small and large fleets, all of it alive, and the large one with dead hosts."""
    made = []
    with daemons_for(max(COUNTS)) as served, dead_ports() as (refusing, silent):
        authority = served[0].authority
        for count in COUNTS:
            hosts = hosts_of(served, count)
            found = compare(authority, hosts, count, TIMEOUT_S, ROUNDS)
            made += rows_for(f"{count} hosts", found, ("all_s", "cpu_s"))
        hosts = with_dead(hosts_of(served, max(COUNTS)), refusing, silent)
        live = sum(host.ports["netns"] not in (refusing, silent) for host in hosts)
        found = compare(authority, hosts, live, DEAD_AFTER_S, DEAD_ROUNDS)
        title = f"{len(hosts)} hosts, {len(hosts) - live} of them dead"
        made += rows_for(title, found, ("live_s", "all_s", "cpu_s"))
    return made


def compare(
    authority: Authority, hosts: Sequence[Host], live: int, bare_timeout_s: float, rounds: int
) -> dict[str, list[Asked]]:
    """Ask the hosts through the SDK and bare, in turn."""
    ours, peer = sdk(authority), bare(authority, bare_timeout_s)
    contestants = {
        "sdk": lambda: measure(ours, hosts, live),
        "bare": lambda: measure(peer, hosts, live),
    }
    return in_turn(contestants, rounds, BUDGET_S)


def rows_for(what: str, found: dict[str, list[Asked]], fields: Sequence[str]) -> list[Row]:
    """Make the rows of one fleet."""
    titles = {
        "live_s": "s to the last live answer",
        "all_s": "s to all results",
        "cpu_s": "s of client CPU",
    }
    return [
        Row(
            "fanout",
            f"{what}, {titles[field]}",
            tuple(getattr(each, field) for each in found["sdk"]),
            tuple(getattr(each, field) for each in found["bare"]),
            "bare grpc.aio gather",
        )
        for field in fields
    ]
