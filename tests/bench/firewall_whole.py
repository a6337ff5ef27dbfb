"""The whole way of a ruleset: a caller's message over mTLS, the daemon, the kernel, the answer.

Beside what firewall_rules measures these figures have TLS, reading the message, authorization,
lint, the journal, the audit log, and an answer with ruleset and plan. For 10,000 rules and 100,000
elements the peer is nft(8) with a text of the same, for nothing but the kernel's part. For 1,000
rules, each time all others, it is firewalld, which has as many in its files and is told to reload;
both are timed as their callers see it, but that firewall-cmd(1) has to start first.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import daemon
import firewall_door
import firewall_rulesets as rulesets
import firewalld
import recipes
from report import Row
from rounds import in_turn

from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.state import EVERYWHERE
from hostlerd.firewall.plan.table import compile_table

OURS, PEERS = f"hqwhole{os.getpid()}", f"hqpeer{os.getpid()}"
UNSHARE, NFT = ("/usr/bin/unshare", "--net"), "/usr/sbin/nft"
ROUNDS, BUDGET_S = 3, 120.0
FEWER_ROUNDS, FEWER_BUDGET_S = 5, 40.0


def rows() -> list[Row]:
    """Measure."""
    firewalld.install()
    with (
        daemon.folder() as place,
        namespaces(),
        firewall_door.opened(OURS, place) as door,
    ):
        return [*_many(door, place), *_fewer(door, place)]


def _many(door: firewall_door.Door, place: Path) -> list[Row]:
    whole = place / "peer.nft"
    whole.write_text(compile_table([parse(rulesets.many())], EVERYWHERE))
    turn = 0

    def afresh() -> float:
        nonlocal turn
        door.apply({"name": "many"})
        turn = 0
        return door.apply(rulesets.many(turn)).ms

    def few() -> float:
        nonlocal turn
        turn += 1
        return door.apply(rulesets.many(turn)).ms

    def same() -> float:
        done = door.apply(rulesets.many(turn))
        if done.steps:
            raise RuntimeError("the same again is a change")
        return done.ms

    def peer() -> float:
        return _ms(lambda: subprocess.run([*UNSHARE, NFT, "-f", str(whole)], check=True))

    turns = {
        f"ms for all {rulesets.RULES:,} rules": afresh,
        "peer": peer,
        f"ms for {rulesets.CHANGED} changed": few,
        "ms for the same again": same,
    }
    found = in_turn(turns, ROUNDS, BUDGET_S)
    theirs = tuple(found.pop("peer"))
    door.apply({"name": "many"})
    return [
        Row("firewall_rules", f"{what}, the whole way", tuple(ours), theirs, "nft -f of all")
        for what, ours in found.items()
    ]


def _fewer(door: firewall_door.Door, place: Path) -> list[Row]:
    mine, theirs = count(), count()

    def peer() -> float:
        made.write_rules(rulesets.FEWER_RULES, rulesets.action(next(theirs)))
        return _ms(made.reload)

    with firewalld.running(PEERS, place, rulesets.FEWER_RULES) as made:
        contestants: dict[str, Callable[[], float]] = {
            "ours": lambda: door.apply(rulesets.fewer(next(mine))).ms,
            "firewalld": peer,
        }
        found = in_turn(contestants, FEWER_ROUNDS, FEWER_BUDGET_S)
    what = f"ms for {rulesets.FEWER_RULES:,} rules, all others, the whole way"
    ours, peers = tuple(found["ours"]), tuple(found["firewalld"])
    return [Row("firewall_rules", what, ours, peers, "firewalld --reload")]


def _ms(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return (time.monotonic() - start) * 1000


@contextmanager
def namespaces() -> Iterator[None]:
    """Make a namespace for each, with nothing but loopback."""
    try:
        for name in (OURS, PEERS):
            recipes.tool([recipes.IP, "netns", "add", name])
            recipes.tool([recipes.IP, "-n", name, "link", "set", "lo", "up"])
        yield
    finally:
        for name in (OURS, PEERS):
            subprocess.run([recipes.IP, "netns", "del", name], check=False, capture_output=True)
