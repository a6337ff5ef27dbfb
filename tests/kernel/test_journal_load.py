"""Daemons that are killed again and again under the load of four clients.

Whatever was acknowledged is there, as ip(8) and nft(8) see it; no request is carried out twice; the
audit chain holds. 25 kills; HOSTLER_SOAK=1 makes it 1000, JOURNAL_KILLS=n any other number.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from journal_clients import Client, Rules, Spaces, anew, applied_once, recovered
from journal_rows import COMMON, ask
from journal_stage import Place, chain_is_whole, opened

from hostler.api.common.v1 import host_pb2

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(7200)]

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
KILLS = int(os.environ.get("JOURNAL_KILLS", "1000" if SOAK else "25"))
A_ROUND = 25


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, Place]]:
    with opened(tmp_path, "netns", "firewall") as places:
        yield places


def clients_of(places: dict[str, Place], over: threading.Event) -> list[Client]:
    spaces: list[Client] = [Spaces(places["netns"], n, over) for n in (1, 2, 3)]
    return [*spaces, Rules(places["firewall"], 4, over)]


def kill_some(places: dict[str, Place], dice: random.Random, kills: int) -> None:
    """Kill one or the other at any moment of its life, its start included."""
    for _ in range(kills):
        place = places[dice.choices(["netns", "firewall"], [3, 1])[0]]
        time.sleep(dice.uniform(0, 0.5))
        if dice.random() < 0.8:
            wait_until_it_serves(place)
            time.sleep(dice.uniform(0, 0.4))
        place.kill()
        place.start()


def wait_until_it_serves(place: Place) -> None:
    with suppress(grpc.RpcError):
        ask(place, f"{COMMON}.HostService/GetHost", host_pb2.GetHostRequest())


def check(places: dict[str, Place], clients: list[Client]) -> None:
    """Compare what must be there with what is, and the audit log with itself."""
    for place in places.values():
        wait_until_it_serves(place)
        assert place.journals() == []
        chain_is_whole(place)
        applied_once(place, clients)
    seen = places["netns"].stage.network()
    there = {name: inside["links"]["eth0"]["addresses"] for name, inside in seen.items() if name}
    assert there == {k: v for c in clients[:3] for k, v in c.expected.items()}
    ends = {link for link in seen[""]["links"] if link != "lo"}
    assert ends == {f"v-{name}" for name in there}
    table = str(places["firewall"].stage.firewall()["table"])
    expected = clients[3].expected.get("port")
    assert {port for port in (80, 81, 82) if f"'right': {port}" in table} == (
        {expected} if expected else set()
    )


def test_killed_again_and_again_nothing_acknowledged_is_lost(places: dict[str, Place]) -> None:
    dice = random.Random(3)  # noqa: S311 - when is no secret
    for place in places.values():
        place.start()
    over = threading.Event()
    clients = clients_of(places, over)
    kills, begun = 0, time.monotonic()
    while kills < KILLS:
        for client in clients:
            client.start()
        kill_some(places, dice, min(A_ROUND, KILLS - kills))
        kills += A_ROUND
        over.set()
        for client in clients:
            client.join(180)
            assert not client.is_alive(), client.name
            if client.error:
                raise client.error
        check(places, clients)
        over = threading.Event()
        clients = anew(clients_of(places, over), clients)
    tell = [(c.name, c.done, c.interrupted, c.retried) for c in clients]
    print(f"{kills} kills in {time.monotonic() - begun:.0f} s: {tell}")
    assert all(c.done for c in clients)
    # Kills that hit nothing show nothing.
    assert sum(c.retried for c in clients) > KILLS // 3
    assert sum(len(recovered(place)) for place in places.values()) > KILLS // 10
