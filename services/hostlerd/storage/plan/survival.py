"""The loss of what each volume survives: disks, controllers, other hosts. Computed on the graph.

Of each node it is known which one unit, and which two together, it is lost with. From what carries
to what is carried that is one step for each node, however many ways there are to lose a disk.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from hostlerd.storage.model.graph import Graph, Kind, Need, Node

_NOT_LEGS = frozenset({"spare", "faulty leg", "rebuilding leg"})
_CARRIERS = frozenset(
    {
        *(Kind.DISK, Kind.PARTITION, Kind.LOOP, Kind.MEMORY, Kind.NETWORK, Kind.OPTICAL),
        *(Kind.MOUNT, Kind.MULTIPATH),
    }
)


class Unit(enum.Enum):
    """What is lost at once."""

    DISK = 1
    CONTROLLER = 2
    HOST = 3


@dataclass(frozen=True, slots=True)
class Loss:
    """A unit that a volume lies on, and whether it is still there without it."""

    unit: Unit
    name: str
    is_survived: bool


@dataclass(frozen=True, slots=True)
class Survival:
    """What a volume survives; `any_disks` is how many, whichever they are: 2 for two or more."""

    id: str
    is_there: bool
    any_disks: int
    losses: tuple[Loss, ...]

    def of(self, unit: Unit) -> tuple[Loss, ...]:
        """The losses of one kind of unit."""
        return tuple(one for one in self.losses if one.unit is unit)


@dataclass(frozen=True, slots=True)
class _Cuts:
    """What a node is lost with: `now` if it is lost as it is; else units, and pairs of others."""

    now: bool = False
    ones: frozenset[str] = frozenset()
    pairs: frozenset[frozenset[str]] = frozenset()
    below: frozenset[str] = frozenset()
    """All units that it lies on."""


def survival(graph: Graph) -> tuple[Survival, ...]:
    """What each volume survives, in the order of the graph."""
    cuts = {unit: _all_cuts(graph, label) for unit, label in _LABELS.items()}
    return tuple(
        _of_volume(node, {unit: found[node.id] for unit, found in cuts.items()})
        for node in graph.nodes
        if node.kind not in _CARRIERS and cuts[Unit.DISK][node.id].below
    )


def is_redundant(node: Node) -> bool:
    """Whether a node is made to be there without some of its legs."""
    return any(need.least < len(need.legs) for need in node.needs)


def _of_volume(node: Node, cuts: Mapping[Unit, _Cuts]) -> Survival:
    disks = cuts[Unit.DISK]
    is_weak = disks.now or bool(disks.ones)
    return Survival(
        node.id,
        not disks.now,
        0 if is_weak else 1 if disks.pairs else 2,
        tuple(
            Loss(unit, name, not found.now and name not in found.ones)
            for unit, found in cuts.items()
            for name in sorted(found.below)
        ),
    )


def called(graph: Graph, unit: str) -> str:
    """What the kernel calls a unit that is a disk, by each path; empty for another unit."""
    disks = (one for one in graph.nodes if one.number and one.kind is not Kind.PARTITION)
    return ", ".join(node.name for node in disks if _disk(node) == unit)


def _disk(node: Node) -> str:
    """A disk that is seen by several paths is one."""
    return f"wwn-{node.wwn}" if node.wwn else node.id


_LABELS: Mapping[Unit, Callable[[Node], str]] = {
    Unit.DISK: _disk,
    Unit.CONTROLLER: lambda node: node.controller,
    Unit.HOST: lambda node: node.remote_host,
}


def _all_cuts(graph: Graph, label: Callable[[Node], str]) -> dict[str, _Cuts]:
    lower: dict[str, list[str]] = {}
    for edge in graph.edges:
        if edge.role not in _NOT_LEGS:
            lower.setdefault(edge.upper, []).append(edge.lower)
    found: dict[str, _Cuts] = {}
    for node in graph.nodes:
        if node.needs:
            found[node.id] = _all_of(_enough(need, found) for need in node.needs)
        elif below := lower.get(node.id):
            # What is not known yet lies in a loop, which no host should have.
            found[node.id] = _all_of(found.get(each, _Cuts()) for each in below)
        else:
            name = label(node)
            units = frozenset({name} if name else ())
            found[node.id] = _Cuts(ones=units, below=units)
    return found


def _all_of(parts: Iterable[_Cuts]) -> _Cuts:
    """What is lost when one of its parts is."""
    known = tuple(parts)
    ones = frozenset[str]().union(*(each.ones for each in known))
    pairs = frozenset[frozenset[str]]().union(*(each.pairs for each in known))
    return _Cuts(
        any(each.now for each in known),
        ones,
        frozenset(pair for pair in pairs if not pair & ones),
        frozenset[str]().union(*(each.below for each in known)),
    )


def _enough(need: Need, found: Mapping[str, _Cuts]) -> _Cuts:
    """What is lost when fewer legs are left than are needed."""
    legs = [_all_of(found.get(each, _Cuts()) for each in leg) for leg in need.legs]
    below = frozenset[str]().union(*(leg.below for leg in legs))
    spare = len(legs) - sum(leg.now for leg in legs) - need.least
    if spare < 0:
        return _Cuts(now=True, below=below)
    by_one: dict[str, set[int]] = {}
    by_pair: dict[frozenset[str], set[int]] = {}
    for number, leg in enumerate(legs):
        if not leg.now:
            for name in leg.ones:
                by_one.setdefault(name, set()).add(number)
            for pair in leg.pairs:
                by_pair.setdefault(pair, set()).add(number)
    ones = frozenset(name for name, lost in by_one.items() if len(lost) > spare)
    return _Cuts(False, ones, frozenset(_pairs(by_one, by_pair, ones, spare)), below)


def _pairs(
    by_one: Mapping[str, set[int]],
    by_pair: Mapping[frozenset[str], set[int]],
    ones: frozenset[str],
    spare: int,
) -> Iterator[frozenset[str]]:
    """The pairs of units with which more legs are lost than can be done without."""
    names = (set(by_one) | {name for pair in by_pair for name in pair}) - ones
    none: set[int] = set()
    for first, second in combinations(sorted(names), 2):
        pair = frozenset((first, second))
        lost = by_one.get(first, none) | by_one.get(second, none) | by_pair.get(pair, none)
        if len(lost) > spare:
            yield pair
