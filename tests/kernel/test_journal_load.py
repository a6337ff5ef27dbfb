"""Daemons that are killed again and again under the load of four clients.

Whatever was acknowledged is there, as ip(8) and nft(8) see it; no request is carried out twice; the
audit chain holds. 25 kills; HOSTLER_SOAK=1 makes it 1000, JOURNAL_KILLS=n any other number.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from journal_rows import COMMON, FIREWALL, NETNS, ask, rules, space
from journal_stage import Place, chain_is_whole, opened

from hostler.api.common.v1 import change_pb2, host_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(7200)]

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
KILLS = int(os.environ.get("JOURNAL_KILLS", "1000" if SOAK else "25"))
A_ROUND = 25
AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, Place]]:
    with opened(tmp_path, "netns", "firewall") as places:
        yield places


class Client(threading.Thread):
    """Makes one change after the other to what is its own, and knows what must be there."""

    def __init__(self, place: Place, number: int, over: threading.Event) -> None:
        super().__init__(name=f"client {number}")
        self.place, self.number, self.over = place, number, over
        self.dice = random.Random(number)  # noqa: S311 - which calls are made is no secret
        self.expected: dict[str, Any] = {}
        self.done = self.interrupted = self.retried = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.change()
        except BaseException as e:  # noqa: BLE001 - told by the test's own thread
            self.error = e

    def change(self) -> None:
        raise NotImplementedError

    def make(self, method: str, request: Any, then: Callable[[], None]) -> None:
        """Ask until there is an answer, always with one request id; note what is there then."""
        request.change.request_id = str(uuid.uuid4())
        while True:
            try:
                told = ask(self.place, method, request).change
            except grpc.RpcError as e:
                if e.code() not in AGAIN:
                    raise
                self.retried += 1
                continue
            break
        if told.outcome == change_pb2.OUTCOME_APPLIED:
            self.done += 1
            then()
        else:
            assert told.outcome == change_pb2.OUTCOME_INTERRUPTED, told
            self.interrupted += 1


class Spaces(Client):
    """Three namespaces that come, change and go."""

    def change(self) -> None:
        names = [f"c{self.number}-{letter}" for letter in "abc"]
        name = self.dice.choice(names)
        kind = self.dice.randrange(4)
        if kind == 0:
            self.make(
                f"{NETNS}.NamespaceService/DeleteNamespace",
                namespace_pb2.DeleteNamespaceRequest(name=name),
                lambda: self.expected.pop(name, None),
            )
        elif kind == 1 and name not in self.expected:
            (wanted,) = self._wanted([name])
            request = namespace_pb2.CreateNamespaceRequest(namespace=wanted)
            method = f"{NETNS}.NamespaceService/CreateNamespace"
            self.make(method, request, lambda: self._note([wanted]))
        else:
            wanted_all = self._wanted(names)
            request = namespace_pb2.ApplyNamespacesRequest(namespaces=wanted_all)
            method = f"{NETNS}.NamespaceService/ApplyNamespaces"
            self.make(method, request, lambda: self._note(wanted_all))

    def _wanted(self, names: list[str]) -> list[Any]:
        """Shapes for names: each name has three, and no two names share one."""
        made = []
        for name in names:
            own = 100 * self.number + 10 * (ord(name[-1]) - ord("a"))
            keeps = self.dice.random() < 0.3
            made.append(space(name, own + self.dice.randrange(3), persistent=keeps))
        return made

    def _note(self, made: list[Any]) -> None:
        for wanted in made:
            (link,) = wanted.interfaces
            self.expected[wanted.name] = sorted(link.addresses)


class Rules(Client):
    """A ruleset that comes, changes and goes."""

    def change(self) -> None:
        port = self.dice.choice((80, 81, 82))
        if self.dice.randrange(3) == 0:
            self.make(
                f"{FIREWALL}.RulesetService/DeleteRuleset",
                ruleset_pb2.DeleteRulesetRequest(name="web"),
                lambda: self.expected.pop("port", None),
            )
            return
        ruleset = rules(port, persistent=self.dice.random() < 0.5)
        self.make(
            f"{FIREWALL}.RulesetService/ApplyRuleset",
            ruleset_pb2.ApplyRulesetRequest(ruleset=ruleset),
            lambda: self.expected.update(port=port),
        )


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
        applied_once(place)
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


def recovered(place: Place) -> list[Any]:
    """The changes that a kill had cut off, by the audit log."""
    return [r for r in place.audit() if r["kind"] == "recovery"]


def applied_once(place: Place) -> None:
    """No request id has changed anything twice, by the records of the audit log."""
    carried_out = defaultdict(set)
    by_intent = {r["seq"]: r["request_id"] for r in place.audit() if r["kind"] == "intent"}
    for record in place.audit():
        stands = record.get("outcome") == "OUTCOME_APPLIED"
        if stands and (record["steps"] or record["kind"] == "recovery"):
            carried_out[by_intent[record["intent_seq"]]].add(record["intent_seq"])
    assert {k: v for k, v in carried_out.items() if len(v) > 1} == {}
    assert carried_out


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
        over, clients = anew(places, clients)
    tell = [(c.name, c.done, c.interrupted, c.retried) for c in clients]
    print(f"{kills} kills in {time.monotonic() - begun:.0f} s: {tell}")
    assert all(c.done for c in clients)
    # Kills that hit nothing show nothing.
    assert sum(c.retried for c in clients) > KILLS // 3
    assert sum(len(recovered(place)) for place in places.values()) > KILLS // 10


def anew(places: dict[str, Place], clients: list[Client]) -> tuple[threading.Event, list[Client]]:
    """The same clients with what they know, as threads that can be started."""
    over = threading.Event()
    fresh = clients_of(places, over)
    for new, old in zip(fresh, clients, strict=True):
        new.expected, new.dice = old.expected, old.dice
        new.done, new.interrupted, new.retried = old.done, old.interrupted, old.retried
    return over, fresh
