"""What `nft -j list ruleset` lists, as the walk of a packet needs it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

OURS = ("inet", "hostler")
_INCOMING_NAT, _OUTGOING_NAT = -100, 100
# The kernel calls all NAT chains of a hook from one place, whatever their own priorities are.
_NAT_PLACES = {
    "prerouting": _INCOMING_NAT,
    "output": _INCOMING_NAT,
    "input": _OUTGOING_NAT,
    "postrouting": _OUTGOING_NAT,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; `text` is what it says, without what it counted."""

    expressions: tuple[Any, ...]
    comment: str
    text: str


@dataclass(slots=True)
class Chain:
    """A chain; `hook` is empty for one that is no base chain."""

    family: str
    table: str
    name: str
    kind: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = "accept"
    devices: tuple[str, ...] = ()
    age: tuple[int, int] = (0, 0)
    rules: list[Rule] = field(default_factory=list)

    @property
    def place(self) -> int:
        """The priority at which the kernel calls it."""
        return _NAT_PLACES.get(self.hook, self.priority) if self.kind == "nat" else self.priority


@dataclass(slots=True)
class Tables:
    """All tables of a host."""

    chains: dict[tuple[str, str, str], Chain] = field(default_factory=dict)
    sets: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def hooked(self, hook: str, version: int, ifname: str | None = None) -> list[Chain]:
        """Answer the base chains that a packet meets at a hook, in the kernel's order.

        Of equal priorities, the kernel calls the youngest first.
        """
        families = ("inet", f"ip{6 if version == 6 else ''}", "netdev")
        found = [
            c
            for c in self.chains.values()
            if c.hook == hook
            and c.family in families
            and (not c.devices or ifname is None or ifname in c.devices)
        ]
        found.sort(key=lambda c: c.age, reverse=True)
        return sorted(found, key=lambda c: (c.place, c.priority))


def read(entries: Iterable[Mapping[str, Any]]) -> Tables:
    """Answer the tables of the entries that nft lists."""
    tables = Tables()
    ages: dict[tuple[str, str], int] = {}
    for entry in entries:
        ((kind, given),) = entry.items()
        if kind == "table":
            ages[given["family"], given["name"]] = given.get("handle", 0)
        elif kind == "chain":
            chain = _chain(given, ages)
            tables.chains[chain.family, chain.table, chain.name] = chain
        elif kind in ("set", "map"):
            named = tables.sets.setdefault((given["family"], given["table"]), {})
            named["@" + given["name"]] = given.get("elem", [])
        elif kind == "rule":
            at = given["family"], given["table"], given["chain"]
            tables.chains[at].rules.append(_rule(given))
    return tables


def without_ours(tables: Tables) -> Tables:
    """Answer the tables of others."""
    return Tables(
        {at: c for at, c in tables.chains.items() if at[:2] != OURS},
        {at: s for at, s in tables.sets.items() if at != OURS},
    )


def with_ours(others: Tables, ours: Tables, kept: Iterable[str] = ()) -> Tables:
    """Answer the tables with ours among them, which counts as made last.

    `kept` are the sets of ours whose elements no ruleset says: they hold what they hold now.
    """
    merged = without_ours(others)
    last = max((c.age[0] for c in merged.chains.values()), default=0) + 1
    for at, chain in ours.chains.items():
        if at[:2] == OURS:
            chain.age = last, chain.age[1]
            merged.chains[at] = chain
    held = others.sets.get(OURS, {})
    mine = {**ours.sets.get(OURS, {}), **{f"@{n}": held.get(f"@{n}", []) for n in kept}}
    merged.sets[OURS] = mine
    return merged


def _chain(given: Mapping[str, Any], ages: Mapping[tuple[str, str], int]) -> Chain:
    devices = given.get("dev", [])
    return Chain(
        family=given["family"],
        table=given["table"],
        name=given["name"],
        kind=given.get("type", ""),
        hook=given.get("hook", ""),
        priority=given.get("prio", 0),
        policy=given.get("policy", "accept"),
        devices=(devices,) if isinstance(devices, str) else tuple(devices),
        age=(ages.get((given["family"], given["table"]), 0), given.get("handle", 0)),
    )


def _rule(given: Mapping[str, Any]) -> Rule:
    said = [e for e in given["expr"] if not (isinstance(e, dict) and "counter" in e)]
    text = json.dumps(said)
    return Rule(tuple(said), given.get("comment", ""), text)
