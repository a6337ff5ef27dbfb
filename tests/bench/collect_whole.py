"""The whole way of a packet log: sender, kernel, daemon, mTLS, collector, SQLite, on one machine.

A sender that knows nothing of it sends so many UDP packets into a namespace whose rules log them,
and says how many it has sent; what was stored, and what is told to be lost, is counted by SQL.
First one host, beside ulogd2 that writes into an SQLite of its own; then the same host with more
than it can take; then two hosts with half the rate each, into one store.

The collector's CPU is that of its process; ulogd2 is reader and writer in one, so beside it is put
what daemon and collector use together.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import daemon
import packet_log
import recipes
import rounds
import ulogd
from report import Row

MAIN = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"
SECONDS, LONG_S = 4, 60
ROUNDS, LONG_ROUNDS = 2, 3
BUDGET_S, LONG_BUDGET_S = 60.0, 1200.0
# More than the sender has ever managed: as fast as it can.
OVERDRIVEN, OVERDRIVEN_S = 200_000, 5
SETTLED_S, START_S = 3.0, 30.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a round came to: packets, CPU per packet sent in µs, and packets sent per second."""

    sent: int
    stored: int
    told_lost: int
    collector_us: float
    all_us: float
    per_s: float

    @property
    def missing(self) -> float:
        """How many were not stored."""
        return float(self.sent - self.stored)

    @property
    def untold(self) -> float:
        """How many were neither stored nor told to be lost."""
        return float(self.sent - self.stored - self.told_lost)


def rows() -> list[Row]:
    """Measure a short time, or with --long a minute, three times."""
    seconds, times = (LONG_S, LONG_ROUNDS) if rounds.LONG else (SECONDS, ROUNDS)
    budget_s = LONG_BUDGET_S if rounds.LONG else BUDGET_S
    ulogd.install()
    with daemon.folder() as place, packet_log.namespaces(), ExitStack() as doors:
        authority = daemon.make_authority(place)
        served = {}
        for host in packet_log.ADDRESSES:
            made = daemon.prepare(place, authority, host)
            made.arguments = packet_log.FIREWALL
            made.wrap = (recipes.IP, "netns", "exec", host)
            served[host] = doors.enter_context(daemon.listening(made))
        one = {packet_log.HOST: served[packet_log.HOST]}
        contestants: dict[str, Callable[[], Collected]] = {
            "ours": partial(collected, one, place, packet_log.RATE, seconds),
            "ulogd2": partial(peers, place, seconds),
        }
        found = rounds.in_turn(contestants, times, budget_s)
        more = [collected(one, place, OVERDRIVEN, OVERDRIVEN_S) for _ in range(times)]
        half = packet_log.RATE // 2
        both = [collected(served, place, half, seconds) for _ in range(times)]
    return [
        *_rows(f"{packet_log.RATE} packets/s for {seconds} s into SQLite", found),
        *_overdriven(more),
        *_rows(f"two hosts, {half} packets/s each for {seconds} s into one", {"ours": both}),
    ]


def _rows(what: str, found: dict[str, list[Collected]]) -> list[Row]:
    made: list[tuple[str, float | None, Callable[[Collected], float]]] = [
        ("packets not stored", 0.0, lambda r: r.missing),
        ("µs CPU per packet, daemon and collector", None, lambda r: r.all_us),
        ("packets/s sent", None, lambda r: r.per_s),
    ]
    ours, theirs = found["ours"], found.get("ulogd2", [])
    alone: list[tuple[str, float | None, Callable[[Collected], float]]] = [
        ("of these not told of", 0.0, lambda r: r.untold),
        ("µs CPU per packet of the collector", None, lambda r: r.collector_us),
    ]
    return [
        *(
            Row("collect", f"{what}, {metric}", tuple(map(pick, ours)), tuple(map(pick, theirs)),
                "ulogd2 to SQLite" if theirs else "", target)
            for metric, target, pick in made
        ),
        *(
            Row("collect", f"{what}, {metric}", tuple(map(pick, ours)), target=target)
            for metric, target, pick in alone
        ),
    ]  # fmt: skip


def _overdriven(found: Sequence[Collected]) -> list[Row]:
    made: list[tuple[str, float | None, Callable[[Collected], float]]] = [
        ("packets/s sent", None, lambda r: r.per_s),
        ("packets sent", None, lambda r: float(r.sent)),
        ("packets stored", None, lambda r: float(r.stored)),
        ("packets told to be lost", None, lambda r: float(r.told_lost)),
        ("sent, neither stored nor told to be lost", 0.0, lambda r: abs(r.untold)),
    ]
    return [
        Row("collect", f"overdriven, {metric}", tuple(map(pick, found)), target=target)
        for metric, target, pick in made
    ]


def collected(
    served: dict[str, daemon.Daemon], place: Path, rate: int, seconds: float
) -> Collected:
    """Let a collector store what hosts log while so much is sent to each of them."""
    store = place / f"{time.monotonic_ns()}.sqlite"
    with _collector(served, place, store) as collector:
        rounds.wait_until(
            lambda: _asked(store, "packet_readers", "count(*)") == len(served), START_S, "follows"
        )
        # What the daemons have of the round before comes first.
        _settle(store)
        pids = [each.process.pid for each in served.values() if each.process]
        cpu_s, daemons_s = packet_log.cpu_of(collector.pid), sum(map(packet_log.cpu_of, pids))
        stored, told = _asked(store, "packets", "count(*)"), _lost(store)
        with ThreadPoolExecutor(len(served)) as pool:
            send = partial(packet_log.send, packet_log.OURS, seconds, rate)
            sent, took_s = zip(*pool.map(send, served), strict=True)
        _settle(store)
        # What was lost at the very end is told by the kernel's count of datagrams, which is no
        # count of packets; the next packet's number makes it exact.
        last = [packet_log.send(packet_log.OURS, 1, 1, host)[0] for host in served]
        _settle(store)
        cpu_s = packet_log.cpu_of(collector.pid) - cpu_s
        daemons_s = sum(map(packet_log.cpu_of, pids)) - daemons_s
    return Collected(
        sum(sent) + sum(last),
        _asked(store, "packets", "count(*)") - stored,
        _lost(store) - told,
        cpu_s / sum(sent) * 1e6,
        (cpu_s + daemons_s) / sum(sent) * 1e6,
        sum(sent) / max(took_s),
    )


def peers(place: Path, seconds: int) -> Collected:
    """Let ulogd2 store them."""
    folder = place / f"ulogd-{time.monotonic_ns()}"
    folder.mkdir()
    store = folder / "ulogd.sqlite"
    ulogd.make_store(store)
    with ulogd.running(packet_log.HOST, folder, packet_log.PEERS, ulogd.SQLITE, store) as process:
        cpu_s = packet_log.cpu_of(process.pid)
        sent, took_s = packet_log.send(packet_log.PEERS, seconds)
        _settle(store)
        cpu_s = packet_log.cpu_of(process.pid) - cpu_s
    stored = _asked(store, "packets", "count(*)")
    us = cpu_s / sent * 1e6
    return Collected(sent, stored, 0, us, us, sent / took_s)


@contextmanager
def _collector(
    served: dict[str, daemon.Daemon], place: Path, store: Path
) -> Iterator[subprocess.Popen[bytes]]:
    authority = next(iter(served.values())).authority
    users = authority.folder / "users" / daemon.USER
    config = place / "config.toml"
    config.write_text(
        'current = "bench"\n[contexts.bench]\ntrust_domain = "bench.hostler"\n'
        f'ca = "{authority.ca_path}"\ncertificate = "{users}.pem"\nkey = "{users}.key"\n'
        'fleet = "fleet.toml"\n'
    )
    hosts = (
        f'[hosts.{each.name}]\naddress = "{packet_log.ADDRESSES[host]}"\n'
        f"ports = {{ firewall = {each.port} }}\n"
        for host, each in served.items()
    )
    (place / "fleet.toml").write_text("".join(hosts))
    argv = [recipes.IP, "netns", "exec", packet_log.OUTSIDE, sys.executable, "-c", MAIN]
    argv += ["-H", "all", "firewall", "collect", "--store", f"sqlite:///{store}"]
    env = {**os.environ, "HOSTLER_CONFIG": str(config)}
    with subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL) as collector:
        try:
            yield collector
        finally:
            collector.send_signal(signal.SIGTERM)
            collector.wait(START_S)


def _settle(store: Path) -> None:
    """Wait until nothing more is stored."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        if (now := _asked(store, "packets", "count(*)")) != count:
            count, since = now, time.monotonic()
        time.sleep(0.5)


def _lost(store: Path) -> int:
    return _asked(store, "packet_gaps", "coalesce(sum(lost), 0)")


def _asked(store: Path, table: str, what: str) -> int:
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30)) as connection:
            found = connection.execute(f"SELECT {what} FROM {table}").fetchone()  # noqa: S608
    except sqlite3.OperationalError:
        return 0  # Not made yet.
    return int(found[0])
