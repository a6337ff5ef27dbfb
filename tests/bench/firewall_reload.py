"""Replacing all of 1,000 rules under traffic, beside firewalld's reload of 1,000 rules.

    [outside] eth0 198.51.100.2 -- 198.51.100.1 eth0 [host] eth1 10.202.0.1 -- 10.202.0.2 [guest]

The host forwards, and drops what its rules do not accept. From outside a flood of numbered UDP
datagrams goes to the guest; from the guest a TCP transfer goes outside, through NAT. Meanwhile
either all of the rules are replaced by others, again and again, by calls over mTLS to the
firewall's daemon; or firewalld, which holds as many rules, is told to reload, each time with other
rules in its files, by firewall-cmd(1), whose own start is in the figure. Lost is what was
sent less what came; the ends know nothing of who works on the rules, which are the same kind for
both: UDP ports that are dropped, none of them the flood's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import daemon
import firewall_door
import firewalld
import recipes
import rounds
from firewall_rulesets import FEWER_RULES, action, fewer
from report import Row

ENDS = Path(__file__).with_name("firewall_reload_ends.py")
NFT, SYSCTL = "/usr/sbin/nft", "/usr/sbin/sysctl"
TAG = f"hqrel{os.getpid()}"
HOST, OUTSIDE, GUEST = f"{TAG}h", f"{TAG}o", f"{TAG}g"
OUTSIDE_ADDRESS, HOST_ADDRESS, GUEST_ADDRESS = "198.51.100.2", "198.51.100.1", "10.202.0.2"
UDP_PORT, TCP_PORT = 9999, 9000
# In each round; with --long it is a hundred replaces in all.
REPLACES, RELOADS = 10, 3
ROUNDS, LONG_ROUNDS = 2, 10
BUDGET_S, LONG_BUDGET_S = 90.0, 900.0
SETTLE_S, END_S = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the ends tell of one round: datagrams and bytes lost, gaps in ms."""

    datagrams_lost: float
    gap_ms: float
    bytes_lost: float
    silent_ms: float


@dataclass(frozen=True, slots=True)
class Round:
    """One round: how many replaces or reloads, how long one of them took, and the traffic."""

    changes: int
    ms: float
    traffic: Traffic


def rows() -> list[Row]:
    """Measure both in turn, in the same namespaces, under the same traffic."""
    firewalld.install()
    with daemon.folder() as place, namespaces(), firewall_door.opened(HOST, place) as door:
        contestants: dict[str, Callable[[], Round]] = {
            "ours": partial(ours, door),
            "firewalld": partial(peers, place),
        }
        times, budget_s = (LONG_ROUNDS, LONG_BUDGET_S) if rounds.LONG else (ROUNDS, BUDGET_S)
        found = rounds.in_turn(contestants, times, budget_s)
    mine, theirs = found["ours"], found["firewalld"]
    what = f"{sum(r.changes for r in mine)} replaces of {FEWER_RULES:,} rules"
    peer = f"firewalld --reload, {sum(r.changes for r in theirs)} times"
    made: list[tuple[str, float | None, Callable[[Round], float]]] = [
        ("datagrams lost for each", 0.0, lambda r: r.traffic.datagrams_lost / r.changes),
        ("longest gap in the flood, ms", 0.0, lambda r: r.traffic.gap_ms),
        ("bytes of the transfer lost", 0.0, lambda r: r.traffic.bytes_lost),
        ("longest silence of the transfer, ms", None, lambda r: r.traffic.silent_ms),
        ("ms for each", None, lambda r: r.ms),
    ]
    return [
        Row("firewall_reload", f"{what}, {metric}", tuple(map(pick, mine)),
            tuple(map(pick, theirs)), peer, target)
        for metric, target, pick in made
    ]  # fmt: skip


def ours(door: firewall_door.Door) -> Round:
    """Replace all rules again and again."""
    door.apply(BASE)
    door.apply(fewer(0))
    with traffic() as ends:
        took = [door.apply(fewer(turn)) for turn in range(1, REPLACES + 1)]
    if not all(each.steps for each in took):
        raise RuntimeError("nothing was replaced")
    _flush()
    return Round(REPLACES, sum(each.ms for each in took) / REPLACES, ends())


def peers(place: Path) -> Round:
    """Let firewalld reload again and again, each time other rules."""
    with firewalld.running(HOST, place, FEWER_RULES) as peer:
        with traffic() as ends:
            spent_s = 0.0
            for turn in range(RELOADS):
                peer.write_rules(FEWER_RULES, action(turn))
                start = time.monotonic()
                peer.reload()
                spent_s += time.monotonic() - start
        found = ends()
    _flush()
    return Round(RELOADS, spent_s / RELOADS * 1e3, found)


BASE: dict[str, Any] = {
    "name": "base",
    "forward_policy": "drop",
    "rules": [{"id": "pass", "hook": "forward", "action": "accept"}],
    "masquerades": [{"source": "10.202.0.0/24", "uplink": "eth0"}],
}


@contextmanager
def traffic() -> Iterator[Callable[[], Traffic]]:
    """Let flood and transfer run meanwhile; gives what answers afterwards how they fared."""
    told: list[dict[str, Any]] = []
    with ExitStack() as ends:
        hear = _end(ends, GUEST, "hear", UDP_PORT)
        take = _end(ends, OUTSIDE, "take", TCP_PORT)
        flood = _end(ends, OUTSIDE, "flood", GUEST_ADDRESS, UDP_PORT)
        give = _end(ends, GUEST, "give", OUTSIDE_ADDRESS, TCP_PORT)
        time.sleep(SETTLE_S)
        yield lambda: _traffic(*told)
        time.sleep(SETTLE_S)
        for process in (flood, hear, give, take):
            told.append(json.loads(process.communicate(timeout=END_S)[0]))


def _traffic(
    flood: dict[str, Any], hear: dict[str, Any], give: dict[str, Any], take: dict[str, Any]
) -> Traffic:
    if take["from"] != HOST_ADDRESS:
        raise RuntimeError(f"the transfer came from {take['from']}: there was no NAT")
    if not (hear["got"] and take["got"]):
        raise RuntimeError("no traffic came through")
    return Traffic(
        flood["sent"] - hear["got"], hear["gap_ms"], give["sent"] - take["got"], take["gap_ms"]
    )


def _end(ends: ExitStack, namespace: str, *arguments: object) -> subprocess.Popen[str]:
    argv = [recipes.IP, "netns", "exec", namespace, sys.executable, str(ENDS)]
    process = ends.enter_context(
        subprocess.Popen(
            [*argv, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    )
    ends.callback(process.kill)
    if process.stdout is None or process.stdout.readline() != "ready\n":
        raise RuntimeError(f"{arguments}: does not begin")
    return process


def _flush() -> None:
    """What one has left must not be in the other's way."""
    recipes.tool([recipes.IP, "netns", "exec", HOST, NFT, "flush", "ruleset"])


@contextmanager
def namespaces() -> Iterator[None]:
    """Make the three hosts of the picture above."""
    links = (
        (OUTSIDE, "eth0", f"{HOST_ADDRESS}/24", f"{OUTSIDE_ADDRESS}/24", HOST_ADDRESS),
        (GUEST, "eth1", "10.202.0.1/24", f"{GUEST_ADDRESS}/24", "10.202.0.1"),
    )
    try:
        for name in (HOST, OUTSIDE, GUEST):
            recipes.tool([recipes.IP, "netns", "add", name])
            recipes.tool([recipes.IP, "-n", name, "link", "set", "lo", "up"])
        for other, link, here, there, gateway in links:
            pair = ["link", "add", link, "netns", HOST, "type", "veth"]
            recipes.tool([recipes.IP, *pair, "peer", "name", "eth0", "netns", other])
            for name, ifname, address in ((HOST, link, here), (other, "eth0", there)):
                recipes.tool([recipes.IP, "-n", name, "addr", "add", address, "dev", ifname])
                recipes.tool([recipes.IP, "-n", name, "link", "set", ifname, "up"])
            recipes.tool([recipes.IP, "-n", other, "route", "add", "default", "via", gateway])
        enter = [recipes.IP, "netns", "exec", HOST]
        recipes.tool([*enter, SYSCTL, "-q", "net.ipv4.ip_forward=1"])
        yield
    finally:
        for name in (HOST, OUTSIDE, GUEST):
            subprocess.run([recipes.IP, "netns", "del", name], check=False, capture_output=True)
