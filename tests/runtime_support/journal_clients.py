"""Clients that change what is their own while daemons are killed, and know what must be there."""

from __future__ import annotations

import random
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from journal_rows import FIREWALL, NETNS, ask, rules, space

from hostler.api.common.v1 import change_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2

AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Client(threading.Thread):
    """Makes one change after the other to what is its own, and knows what must be there."""

    def __init__(self, place: Any, number: int, over: threading.Event) -> None:
        super().__init__(name=f"client {number}")
        self.place, self.number, self.over = place, number, over
        self.dice = random.Random(number)  # noqa: S311 - which calls are made is no secret
        self.expected: dict[str, Any] = {}
        self.asked: set[str] = set()
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
        self.asked.add(request.change.request_id)
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


def recovered(place: Any) -> list[Any]:
    """The changes that a kill had cut off, by the audit log."""
    return [r for r in place.audit() if r["kind"] == "recovery"]


def applied_once(place: Any, clients: Iterable[Client]) -> None:
    """No request of the clients has changed anything twice, by the records of the audit log.

    On a host, others have changed things before, some of them without an id.
    """
    asked = set[str]().union(*(client.asked for client in clients))
    carried_out = defaultdict(set)
    records = place.audit()
    by_intent = {r["seq"]: r.get("request_id") for r in records if r["kind"] == "intent"}
    for record in records:
        stands = record.get("outcome") == "OUTCOME_APPLIED"
        if stands and (record.get("steps") or record["kind"] == "recovery"):
            request_id = by_intent[record["intent_seq"]]
            if request_id in asked:
                carried_out[request_id].add(record["intent_seq"])
    twice = {k: v for k, v in carried_out.items() if len(v) > 1}
    assert not twice, f"carried out twice: {twice}"
    assert carried_out, "nothing was carried out"


def anew(fresh: list[Client], before: list[Client]) -> list[Client]:
    """New threads, with what those before them know and have counted."""
    for new, old in zip(fresh, before, strict=True):
        new.expected, new.dice, new.asked = old.expected, old.dice, old.asked
        new.done, new.interrupted, new.retried = old.done, old.interrupted, old.retried
    return fresh
