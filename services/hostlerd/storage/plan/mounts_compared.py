"""What is mounted and swapped to beside what is declared."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.storage.model.declared import ActiveSwap, Declared, Units
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.observed import Mount, Observed
from hostlerd.storage.plan.choose import is_device
from hostlerd.storage.plan.health import health
from hostlerd.storage.plan.mount import node_of
from hostlerd.storage.plan.resolve import named

_CODES = ("NOT_MOUNTED", "NOT_IN_FSTAB", "MOUNT_OTHER_DEVICE", "FILESYSTEM_READ_ONLY")


@dataclass(frozen=True, slots=True)
class Place:
    """A mount point. `differs` has the codes of health that are about it."""

    where: str
    declared: Declared | None
    mounted: Mount | None
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap area; `device` is its id, empty if the host has no such device."""

    device: str
    declared: Declared | None
    active: ActiveSwap | None


def places(seen: Observed, units: Units) -> tuple[Place, ...]:
    """All places of mounts on disks, and those that units of ours and fstab name."""
    _, reasons = health(seen)
    mounted = {one.path: one for one in seen.mounts}
    declared: dict[str, Declared] = {}
    for one in units.declared:
        # Those that packages bring, such as of /dev/hugepages, lie on no disk.
        if one.where.startswith("/") and (one.where in mounted or _is_of_disk(one)):
            declared.setdefault(one.where, one)
    found = []
    for where in sorted({*mounted, *declared}):
        codes = {one.code for one in reasons if one.id == f"mount-{where}" and one.code in _CODES}
        if where in declared and where not in mounted:
            codes.add("NOT_MOUNTED")
        found.append(Place(where, declared.get(where), mounted.get(where), tuple(sorted(codes))))
    return tuple(found)


def swaps(seen: Observed, graph: Graph, units: Units) -> tuple[Swap, ...]:
    """All swap areas that are used or declared."""
    left = {one.path: one for one in units.swaps}
    ids = {node.name: node for node in graph.nodes if is_device(node)}
    found = []
    for one in (each for each in units.declared if each.type == "swap"):
        node = node_of(graph, one.what)
        if node is None:
            node = next((ids[d.name] for d in named(seen, one.what) if d.name in ids), None)
        active = next(
            (s for s in left.values() if s.path == one.what or (node and s.number == node.number)),
            None,
        )
        if active is not None:
            del left[active.path]
        found.append(Swap(node.id if node is not None else "", one, active))
    for active in left.values():
        node = next((n for n in ids.values() if active.number and n.number == active.number), None)
        found.append(Swap(node.id if node is not None else "", None, active))
    return tuple(found)


def _is_of_disk(one: Declared) -> bool:
    words = ("/dev/disk/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "/dev/mapper/", "/dev/md")
    return one.ours is not None or one.what.startswith(words)
