"""The whole way of a packet log: sender, kernel, daemon, mTLS, collector, SQLite, on one machine.

A sender that knows nothing of it sends so many UDP packets into a namespace whose rules log them.
What came is the kernel's counter; what was stored is counted by SQL.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import daemon
import packet_log
import recipes
import rounds
from report import Row

MAIN = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"
SECONDS, LONG_S = 4, 60
ROUNDS, LONG_ROUNDS = 2, 3
SETTLED_S = 3.0


def rows() -> list[Row]:
    """Measure a short time, or with --long a minute, three times."""
    seconds, times = (LONG_S, LONG_ROUNDS) if rounds.LONG else (SECONDS, ROUNDS)
    with daemon.folder() as place, packet_log.namespaces():
        served = daemon.prepare(place, daemon.make_authority(place))
        served.arguments = packet_log.FIREWALL
        served.wrap = (recipes.IP, "netns", "exec", packet_log.HOST)
        with daemon.listening(served):
            found = [_once(served, place, seconds) for _ in range(times)]
    what = f"{packet_log.RATE} packets/s for {seconds} s into SQLite"
    lost, untold, cpu_us = zip(*found, strict=True)
    return [
        Row("collect", f"{what}, packets not stored", lost, target=0.0),
        Row("collect", f"{what}, of these not told of", untold, target=0.0),
        Row("collect", f"{what}, µs CPU per packet of the collector", cpu_us),
    ]


def _once(served: daemon.Daemon, place: Path, seconds: int) -> tuple[float, float, float]:
    store = place / f"{time.monotonic_ns()}.sqlite"
    with _collector(served, place, store) as collector:
        try:
            rounds.wait_until(
                lambda: _asked(store, "packet_readers", "count(*)") > 0, 30, "follows"
            )
            # What the daemon has of the round before comes first.
            _settle(store)
            before = packet_log.counted(packet_log.OURS)
            cpu_s = packet_log.cpu_of(collector.pid)
            stored, told = _asked(store, "packets", "count(*)"), _lost(store)
            packet_log.send(packet_log.OURS, seconds)
            came = packet_log.counted(packet_log.OURS) - before
            _settle(store)
            cpu_s = packet_log.cpu_of(collector.pid) - cpu_s
        finally:
            collector.send_signal(signal.SIGTERM)
            collector.wait(30)
    stored = _asked(store, "packets", "count(*)") - stored
    return came - stored, came - stored - (_lost(store) - told), cpu_s / came * 1e6


def _collector(served: daemon.Daemon, place: Path, store: Path) -> subprocess.Popen[bytes]:
    users = served.authority.folder / "users" / daemon.USER
    config = place / "config.toml"
    config.write_text(
        'current = "bench"\n[contexts.bench]\ntrust_domain = "bench.hostler"\n'
        f'ca = "{served.authority.ca_path}"\ncertificate = "{users}.pem"\nkey = "{users}.key"\n'
        'fleet = "fleet.toml"\n'
    )
    (place / "fleet.toml").write_text(
        f'[hosts.{served.name}]\naddress = "127.0.0.1"\nports = {{ firewall = {served.port} }}\n'
    )
    argv = [recipes.IP, "netns", "exec", packet_log.HOST, sys.executable, "-c", MAIN]
    argv += ["-H", "all", "firewall", "collect", "--store", f"sqlite:///{store}"]
    env = {**os.environ, "HOSTLER_CONFIG": str(config)}
    return subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL)


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
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30) as connection:
            found = connection.execute(f"SELECT {what} FROM {table}").fetchone()  # noqa: S608
    except sqlite3.OperationalError:
        return 0  # Not made yet.
    return int(found[0])
