"""Daemons of three hosts are killed again and again while clients change things.

As test_journal_load.py does it on one stage, here with systemd that starts them again: whatever was
acknowledged is there by the word of ip(8) and nft(8), no request is carried out twice, no daemon
stays down, every chain holds. HOSTLER_SOAK=1 makes it 1000 kills, JOURNAL_KILLS=n any other number.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import security_lab as support
from hosts_witness import eventually
from journal_clients import Client, Rules, Spaces, anew, applied_once, recovered
from journal_rows import FIREWALL, NETNS, ask
from killed_lab import Killed, links_of, ports_of, spaces_of

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.soak,
    pytest.mark.timeout(7200),
    pytest.mark.usefixtures("own_records"),
]

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
KILLS = int(os.environ.get("JOURNAL_KILLS", "1000" if SOAK else "9"))
A_ROUND = 60
DAEMONS = ("netns", "firewall")


class Place:
    """One host with its two daemons, and the clients that change it."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.host = host
        self.daemons = {domain: Killed(lab, host, domain) for domain in DAEMONS}
        self.clients: list[Client] = []
        self.kills = 0

    def load(self, over: threading.Event) -> None:
        """Have clients, with what those before them know."""
        fresh: list[Client] = [Spaces(self.daemons["netns"], n, over) for n in (1, 2)]
        fresh.append(Rules(self.daemons["firewall"], 3, over))
        self.clients = anew(fresh, self.clients) if self.clients else fresh
        for client in self.clients:
            client.start()

    def kill_some(self, kills: int, seed: int) -> None:
        """Kill one or the other at any moment of its life, its start included."""
        dice = random.Random(seed)  # noqa: S311 - when is no secret
        for _ in range(kills):
            daemon = self.daemons[dice.choices(DAEMONS, [2, 1])[0]]
            if dice.random() < 0.8:
                daemon.wait_until_it_serves()
            time.sleep(dice.uniform(0, 0.6))
            daemon.kill()
            self.kills += 1

    def has_changed_all(self) -> bool:
        """Whether each client has changed something, however slow the host is."""
        return all(client.done > 2 or client.error for client in self.clients)

    def join(self) -> None:
        for client in self.clients:
            client.join(180)
            assert not client.is_alive(), (self.host.name, client.name)
            if client.error:
                raise client.error

    def check(self) -> None:
        """Compare what must be there with what is."""
        for daemon in self.daemons.values():
            daemon.wait_until_it_serves()
            assert daemon.state() == "active", (self.host.name, daemon.domain)
            eventually(lambda daemon=daemon: daemon.journals() == [])
            applied_once(daemon, self.clients)
        expected = {k: v for c in self.clients[:2] for k, v in c.expected.items()}
        assert spaces_of(self.host) == expected
        assert links_of(self.host) == {f"v-{name}" for name in expected}
        port = self.clients[2].expected.get("port")
        assert ports_of(self.host) == ({port} if port else set())

    def clear(self) -> None:
        """Take away what the clients have made."""
        for name in spaces_of(self.host):
            gone: Any = namespace_pb2.DeleteNamespaceRequest(name=name)
            ask(self.daemons["netns"], f"{NETNS}.NamespaceService/DeleteNamespace", gone)
        gone = ruleset_pb2.DeleteRulesetRequest(name="web")
        ask(self.daemons["firewall"], f"{FIREWALL}.RulesetService/DeleteRuleset", gone)


@pytest.fixture
def places(lab: Lab, hosts: Sequence[Host]) -> Iterator[list[Place]]:
    made = [Place(lab, host) for host in hosts]
    for place in made:
        place.clear()
    yield made
    for place in made:
        place.clear()


def test_nothing_acknowledged_is_lost_on_three_hosts(lab: Lab, places: list[Place]) -> None:
    begun, seed = time.monotonic(), 0
    with ThreadPoolExecutor(len(places)) as hands:
        while (left := KILLS - sum(place.kills for place in places)) > 0:
            over, each = threading.Event(), -(-min(left, A_ROUND) // len(places))
            for place in places:
                place.load(over)
            kills = [hands.submit(p.kill_some, each, seed + n) for n, p in enumerate(places)]
            seed += len(places)
            for done in kills:
                done.result()
            for place in places:
                eventually(place.has_changed_all, 60)
            over.set()
            for place in places:
                place.join()
                place.check()
            support.hostler(lab, "-H", "all", "audit", "verify")
    tell(places, time.monotonic() - begun)


def tell(places: list[Place], took_s: float) -> None:
    """Print what happened; kills that hit nothing would show nothing."""
    clients = [client for place in places for client in place.clients]
    kills = sum(place.kills for place in places)
    cut_off = sum(len(recovered(d)) for place in places for d in place.daemons.values())
    done, interrupted, retried = (
        sum(getattr(client, name) for client in clients)
        for name in ("done", "interrupted", "retried")
    )
    print(
        f"\n{kills} kills on {len(places)} hosts in {took_s:.0f} s: {done} changes acknowledged,"
        f" {interrupted} told as interrupted, {retried} calls made again, {cut_off} recovered"
    )
    assert all(client.done for client in clients)
    assert retried > KILLS // 4
