"""The packet log at 20,000 packets/s, beside ulogd2 that writes JSON lines.

A sender that knows nothing of either sends so many UDP packets through a veth pair into a namespace
whose rules log and drop them. There the firewall's daemon serves a caller over mTLS who follows the
log and counts, or ulogd2 writes a file whose lines are counted. Both read by NFLOG with the same
queue threshold. Lost is what was sent less what was counted there.

CPU is what the process that reads has used, user and system; ulogd2 only writes a file, while the
daemon also serves: its share of gRPC, TLS and relay is in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import daemon
import recipes
import rounds
import ulogd
from report import Row

HERE = Path(__file__).with_name("packet_log_ends.py")
NFT = "/usr/sbin/nft"
FIREWALL = ("-m", "hostlerd.firewall")
HOST, SECOND, OUTSIDE = (f"hq{each}{os.getpid()}" for each in ("log", "two", "out"))
ADDRESSES = {HOST: "10.201.0.1", SECOND: "10.201.1.1"}
RATE = 20_000
SECONDS, LONG_S = 4, 60
ROUNDS, LONG_ROUNDS = 2, 3
BUDGET_S = 60.0
OURS, PEERS = 7441, 7442
PORTS = {OURS: 9, PEERS: 10}

RULES = """\
table inet bench {
  chain in {
    type filter hook prerouting priority -300
    udp dport 9 counter log prefix "bench/ours drop" group 7441 snaplen 96 queue-threshold 64 drop
    udp dport 10 counter log prefix "bench/peer drop" group 7442 snaplen 96 queue-threshold 64 drop
  }
}
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What one round found: packets lost, CPU per packet in µs, and packets sent per second."""

    lost: float
    cpu_us: float
    per_s: float


def rows() -> list[Row]:
    """Measure both, in turn."""
    seconds, times = (LONG_S, LONG_ROUNDS) if rounds.LONG else (SECONDS, ROUNDS)
    ulogd.install()
    with daemon.folder() as place, namespaces():
        served = daemon.prepare(place, daemon.make_authority(place))
        served.arguments = FIREWALL
        served.wrap = (recipes.IP, "netns", "exec", HOST)
        with daemon.listening(served):
            contestants: dict[str, Callable[[], Found]] = {
                "ours": lambda: ours(served, seconds),
                "ulogd2": lambda: peers(place, seconds),
            }
            budget_s = BUDGET_S if not rounds.LONG else 20 * LONG_S
            found = rounds.in_turn(contestants, times, budget_s)
    what = f"{RATE} packets/s for {seconds} s"
    made = [
        ("packets lost", 0.0, lambda f: f.lost),
        ("µs CPU per packet", None, lambda f: f.cpu_us),
        ("packets/s sent", None, lambda f: f.per_s),
    ]
    return [
        Row(
            "packet_log",
            f"{what}, {metric}",
            tuple(pick(f) for f in found["ours"]),
            tuple(pick(f) for f in found["ulogd2"]),
            "ulogd2 to JSON",
            target,
        )
        for metric, target, pick in made
    ]


def ours(served: daemon.Daemon, seconds: int) -> Found:
    """Let a caller follow the log over mTLS, in a process of its own."""
    if served.process is None:
        raise RuntimeError("nothing listens")
    users = served.authority.folder / "users" / daemon.USER
    argv = _program("follow", served.port, served.name, served.authority.ca_path, users)
    with subprocess.Popen(
        [*argv, str(RATE * seconds)], stdout=subprocess.PIPE, text=True
    ) as follower:
        try:
            if follower.stdout is None or follower.stdout.readline() != "ready\n":
                raise RuntimeError("the log cannot be followed")
            before, cpu_s = counted(OURS), cpu_of(served.process.pid)
            sent, took_s = send(OURS, seconds)
            told = json.loads(follower.stdout.readline())
            cpu_s = cpu_of(served.process.pid) - cpu_s
        finally:
            follower.kill()
    came = counted(OURS) - before
    if told["received"] + told["lost"] != came:
        sys.stderr.write(f"packet_log: {came} came, the caller was told of {told}\n")
    return Found(sent - told["received"], cpu_s / came * 1e6, sent / took_s)


def peers(place: Path, seconds: int) -> Found:
    """Let ulogd2 write a file."""
    folder = place / "ulogd"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    written = folder / "ulogd.json"
    with ulogd.running(HOST, folder, PEERS, ulogd.JSON, written) as process:
        before, cpu_s = counted(PEERS), cpu_of(process.pid)
        sent, took_s = send(PEERS, seconds)
        _settled(written)
        cpu_s = cpu_of(process.pid) - cpu_s
        came = counted(PEERS) - before
    return Found(sent - _settled(written), cpu_s / came * 1e6, sent / took_s)


def _settled(path: Path) -> int:
    """Answer how many lines a file has once it grows no more."""
    size = -1
    while path.exists() and path.stat().st_size != size:
        size = path.stat().st_size
        time.sleep(0.7)
    return path.read_bytes().count(b"\n") if path.exists() else 0


def send(group: int, seconds: float, rate: int = RATE, host: str = HOST) -> tuple[int, float]:
    """Send as many packets as that takes; answers how many, and in how many seconds."""
    argv = [recipes.IP, "netns", "exec", OUTSIDE, sys.executable, str(HERE), "send"]
    argv += [ADDRESSES[host], str(PORTS[group]), str(rate), str(int(rate * seconds))]
    told = json.loads(recipes.tool(argv))
    return told["sent"], told["seconds"]


def counted(group: int, host: str = HOST) -> int:
    """Answer how many packets the kernel of a host has counted at the rule of a group."""
    argv = [recipes.IP, "netns", "exec", host, NFT, "-j", "list", "table", "inet", "bench"]
    rules = [e["rule"]["expr"] for e in json.loads(recipes.tool(argv))["nftables"] if "rule" in e]
    return sum(
        term["counter"]["packets"]
        for terms in rules
        if any(t.get("log", {}).get("group") == group for t in terms)
        for term in terms
        if "counter" in term
    )


def cpu_of(pid: int) -> float:
    """Answer how many seconds of CPU a process has used."""
    columns = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")


def _program(*arguments: object) -> list[str]:
    argv = [recipes.IP, "netns", "exec", HOST, sys.executable, str(HERE)]
    return [*argv, *map(str, arguments)]


@contextmanager
def namespaces() -> Iterator[None]:
    """Make the hosts and the outside, joined by veth pairs, with the rules that log."""
    try:
        for name in (OUTSIDE, *ADDRESSES):
            recipes.tool([recipes.IP, "netns", "add", name])
            recipes.tool([recipes.IP, "-n", name, "link", "set", "lo", "up"])
        for number, (host, address) in enumerate(ADDRESSES.items()):
            link = f"eth{number}"
            pair = ["link", "add", "eth0", "netns", host, "type", "veth"]
            recipes.tool([recipes.IP, *pair, "peer", "name", link, "netns", OUTSIDE])
            for name, ifname, own in (
                (host, "eth0", address),
                (OUTSIDE, link, f"10.201.{number}.2"),
            ):
                recipes.tool([recipes.IP, "-n", name, "addr", "add", f"{own}/24", "dev", ifname])
                recipes.tool([recipes.IP, "-n", name, "link", "set", ifname, "up"])
            recipes.tool([recipes.IP, "netns", "exec", host, NFT, "-f", "-"], RULES.splitlines())
        yield
    finally:
        for name in (OUTSIDE, *ADDRESSES):
            subprocess.run([recipes.IP, "netns", "del", name], check=False, capture_output=True)
