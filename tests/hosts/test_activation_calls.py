"""Daemons that come and go under real systemd: no caller loses a call to it.

Each door is woken by its socket and left alone until it idles out, again and again, with calls
aimed at that very moment. systemd's journal is the witness of how often a daemon was started.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import security_lab as support

from hostler.api.common.v1 import host_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostler.api.ssl.v1 import deployment_pb2
from hostler.api.storage.v1 import graph_pb2
from hostler.api.tracing.v1 import memory_pb2
from hostler.channel import Connector, rpc
from hostler.config import load_context
from hostler.fleet import Host as Target
from hostler.fleet import load_fleet
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.results import CallFailed
from hostler.session import NO_RETRY, Retry, Session

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

IDLE_S = 0.6
CALLS_PER_DOOR = 8
# From when on a daemon may exit, counted from the last call: a closed connection starts the idle
# clock at once; a kept one is first let go by the server, after the idle time.
AROUND_EXIT_S = {"fresh": (0.4, 1.0), "kept": (1.0, 1.7)}
GET_HOST = rpc(host_pb2, "HostService", "GetHost")
READS = {
    "netns": (
        rpc(namespace_pb2, "NamespaceService", "ListNamespaces"),
        namespace_pb2.ListNamespacesRequest(),
    ),
    "firewall": (
        rpc(ruleset_pb2, "RulesetService", "ListRulesets"),
        ruleset_pb2.ListRulesetsRequest(),
    ),
    "tracing": (
        rpc(memory_pb2, "MemoryService", "GetMemory"),
        memory_pb2.GetMemoryRequest(),
    ),
    "storage": (rpc(graph_pb2, "GraphService", "GetGraph"), graph_pb2.GetGraphRequest()),
    "ssl": (
        rpc(deployment_pb2, "DeploymentService", "ListDeployments"),
        deployment_pb2.ListDeploymentsRequest(),
    ),
}
# At each door, of which a host has five and these machines two processors.
CALLERS = 4
# The SDK's own retry gives a host up after 3 s. Here callers and daemons share two processors: a
# daemon that starts among 20 busy callers may take as long as that.
PATIENCE = Retry(attempts=12, connect_s=20.0)
ENDS = 3


@dataclass
class Tally:
    """What became of calls."""

    calls: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    async def count(self, kind: str, call: Any) -> None:
        begun = time.monotonic()
        self.calls[kind] += 1
        try:
            await call
        except CallFailed as e:
            self.failures.append(f"{kind}: {e}")
        self.times_s.append(time.monotonic() - begun)

    def __str__(self) -> str:
        calls = ", ".join(f"{n} {kind}" for kind, n in self.calls.items())
        times = sorted(self.times_s)
        p50, p95, worst = (times[min(len(times) - 1, int(len(times) * q))] for q in (0.5, 0.95, 1))
        took = f"p50 {p50:.2f} s, p95 {p95:.2f} s, slowest {worst:.2f} s"
        return f"{calls} calls, {len(self.failures)} failed, {took}"


@dataclass(frozen=True)
class Door:
    """A daemon of a host, as the SDK knows it."""

    host: Host
    target: Target
    domain: str
    connector: Connector

    def session(self, retry: Retry | None) -> Session:
        return Session(self.target, self.connector, retry=retry)

    async def get_host(self, session: Session) -> None:
        answer = await session.call(GET_HOST.at(self.domain), host_pb2.GetHostRequest())
        assert answer.host.hostname == self.host.name
        assert answer.host.domain == self.domain

    async def read(self, session: Session) -> None:
        await session.call(*READS[self.domain])


@pytest.fixture(scope="module")
def doors(lab: Lab) -> Iterator[list[Door]]:
    """Every door of every host, with a short idle timeout."""
    for host in lab.hosts:
        if host.leader() is None:
            lab.boot(host.name)
    context = load_context(path=lab.config)
    connector = Connector(context)
    targets = {target.name: target for target in load_fleet(context.fleet).hosts}
    with support.idle_time(lab.hosts, IDLE_S):
        yield [
            Door(host, targets[host.name], domain, connector)
            for host in lab.hosts
            for domain in support.DOMAINS
        ]


def of(name: str, doors: list[Door]) -> list[Door]:
    """The doors of a host."""
    return [door for door in doors if door.host.name == name]


async def pause(kind: str) -> None:
    """Leave the daemon alone for about as long as it stays."""
    await asyncio.sleep(random.uniform(*AROUND_EXIT_S[kind]))  # noqa: S311 - keeps no secret


async def fresh_calls(door: Door, retry: Retry | None, tally: Tally) -> None:
    """Call on a channel of its own each time, about when the daemon idles out."""
    for _ in range(CALLS_PER_DOOR):
        async with door.session(retry) as session:
            await tally.count("fresh", door.get_host(session))
        await pause("fresh")


async def kept_calls(door: Door, retry: Retry | None, tally: Tally) -> None:
    """Call on one channel, about when the daemon idles out."""
    async with door.session(retry) as session:
        for _ in range(CALLS_PER_DOOR):
            await tally.count("kept", door.get_host(session))
            await pause("kept")


async def around_the_exit(doors: list[Door], retry: Retry | None) -> tuple[Tally, int]:
    """Aim calls at the exit of every daemon; answer what became of them, and the starts."""
    journals = [(support.Journal(door.host), door.domain) for door in doors]
    tally = Tally()

    async def series(door: Door) -> None:
        await fresh_calls(door, retry, tally)
        await kept_calls(door, retry, tally)

    await asyncio.gather(*(series(door) for door in doors))
    return tally, sum(journal.starts(domain) for journal, domain in journals)


async def test_no_call_around_an_idle_exit_fails(doors: list[Door]) -> None:
    tally, starts = await around_the_exit(doors, None)
    print(f"\nwith retry: {tally}; {starts} activations")
    assert tally.failures == []
    assert sum(tally.calls.values()) >= 200
    assert starts >= 50


async def test_calls_around_an_idle_exit_without_retry_are_counted(doors: list[Door]) -> None:
    """Not a promise: how many callers without the retry meet an exit, printed as it is."""
    tally, starts = await around_the_exit(of("h3", doors), NO_RETRY)
    print(f"\nwithout retry: {tally}; {starts} activations")
    for failure in tally.failures:
        print(f"  {failure}")
    assert sum(tally.calls.values()) >= 80
    assert starts >= 15


@asynccontextmanager
async def load(doors: list[Door], tally: Tally) -> Any:
    """Call without a pause, on kept and on fresh channels, with the SDK's retry."""
    over = asyncio.Event()

    async def kept(door: Door) -> None:
        async with door.session(PATIENCE) as session:
            while not over.is_set():
                await tally.count("kept", door.read(session))

    async def fresh(door: Door) -> None:
        while not over.is_set():
            async with door.session(PATIENCE) as session:
                await tally.count("fresh", door.read(session))

    kinds = [kept, kept, kept, fresh] * (CALLERS // 4)
    tasks = [asyncio.create_task(kind(door)) for door in doors for kind in kinds]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def ended_under_load(doors: list[Door], *argv: str) -> Tally:
    """End every daemon a few times while all are busy, one after the other has come back."""
    tally = Tally()
    journals = [(support.Journal(door.host), door.domain) for door in doors]
    async with load(doors, tally):
        for nth in range(1, ENDS + 1):
            await asyncio.sleep(1.5)
            before = tally.calls.total()
            for door, (journal, domain) in zip(doors, journals, strict=True):
                unit = f"hostler-{door.domain}.service"
                await asyncio.to_thread(door.host.run, [*argv, unit])
                # At least: a daemon that is killed while it exits is started once more.
                while await asyncio.to_thread(journal.starts, domain) < nth:
                    await asyncio.sleep(0.2)
            assert tally.calls.total() > before
    print(f"\n{' '.join(argv)}: {tally}")
    return tally


async def test_a_restart_under_load_fails_no_call(doors: list[Door]) -> None:
    tally = await ended_under_load(of("h1", doors), "systemctl", "restart")
    assert tally.failures == []


async def test_a_kill_under_load_fails_no_call(doors: list[Door]) -> None:
    kill = ("systemctl", "kill", "--signal=SIGKILL", "--kill-who=main")
    tally = await ended_under_load(of("h2", doors), *kill)
    assert tally.failures == []


async def test_after_the_idle_time_no_process_is_left(doors: list[Door]) -> None:
    """What a host of ours costs when nobody calls: no process at all."""
    mine = of("h3", doors)
    host = mine[0].host
    for door in mine:
        async with door.session(None) as session:
            await door.read(session)
            assert any(door.domain in line for line in processes(host))
    # The launcher, which the netns daemon woke, stays for 30 s.
    deadline = time.monotonic() + 45
    while processes(host):
        assert time.monotonic() < deadline, processes(host)
        await asyncio.sleep(0.2)
    for door in mine:
        for kind, state in (("service", "inactive"), ("socket", "active")):
            unit = f"hostler-{door.domain}.{kind}"
            seen = host.run(["systemctl", "is-active", unit], check=False).stdout.strip()
            assert (unit, seen) == (unit, state)


def processes(host: Host) -> list[str]:
    """Every process of ours on a host, launcher included, but for what runs in a namespace."""
    shown = host.run(["pgrep", "-af", "/opt/hostler/"], check=False).stdout
    return [line for line in shown.splitlines() if "pgrep" not in line]
