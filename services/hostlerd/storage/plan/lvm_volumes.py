"""Plans that make, grow, rename, activate and delete logical volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step
from hostlerd.storage.errors import DeviceBusy
from hostlerd.storage.errors.volumes import (
    VolumeBusy,
    VolumeExists,
    VolumeKind,
    VolumeNeeded,
    VolumeNotFound,
)
from hostlerd.storage.model.filesystem_steps import GrowFilesystem
from hostlerd.storage.model.graph import Graph, Node
from hostlerd.storage.model.lvm import (
    KINDS,
    SIZE_MOST_BYTES,
    Group,
    PhysicalVolume,
    Volume,
    volume_name_fault,
)
from hostlerd.storage.model.lvm_volume_steps import (
    CreateVolume,
    DeleteVolume,
    GrowVolume,
    RenameVolume,
    SetVolumeActive,
)
from hostlerd.storage.plan import filesystem
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.in_use import users
from hostlerd.storage.plan.lvm_choose import (
    Found,
    FoundVolume,
    carrier,
    changeable,
    find,
    find_volume,
    node_of,
)
from hostlerd.storage.plan.lvm_groups import nothing
from hostlerd.storage.plan.lvm_place import (
    anywhere,
    apart,
    controllers,
    metadata_extents,
    one_disk,
)

_STRIPE_BYTES = 64 << 10
_STRIPE_MOST_BYTES = 1 << 20

SizeOf = Callable[[Node, str], int]
"""How many bytes of a device its filesystem takes, by the device's node and its type."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A volume that is asked for. `parts` are copies of raid1, stripes of striped; 0: two."""

    group: str
    name: str
    kind: str
    size_bytes: int
    devices: tuple[str, ...] = ()
    parts: int = 0
    stripe_bytes: int = 0
    pool: str = ""


def create(wanted: Wanted, groups: Sequence[Group], graph: Graph) -> Plan:
    """Make a volume; nothing if that very one is there."""
    check(wanted)
    found = find(groups, graph, wanted.group)
    group = found.group
    if why := volume_name_fault(group.name, wanted.name):
        raise InvalidRequest.of([Violation("name", why)])
    chosen = tuple(
        carrier(found, graph, one, f"devices[{i}]")[1] for i, one in enumerate(wanted.devices)
    )
    parts = len(chosen) or wanted.parts or 2 if wanted.kind in ("raid1", "striped") else 1
    extents = group.extents_of(wanted.size_bytes, parts if wanted.kind == "striped" else 1)
    there = group.volume(wanted.name)
    if there is not None:
        if _is_wanted(there, wanted, extents * group.extent_bytes, parts):
            return nothing(found)
        words = f"there is a {group.name}/{wanted.name}, which is another one"
        raise VolumeExists(words, group=group.uuid, volume=there.uuid)
    changeable(found)
    step = CreateVolume(
        *found.of_group,
        volume=wanted.name,
        kind=wanted.kind,
        extents=extents,
        parts=parts,
    )
    step = _laid_out(step, wanted, found, chosen, graph)
    return Plan((step,), etag=found.etag, notices=tuple(_notices(step, wanted, found, graph)))


def check(wanted: Wanted) -> None:
    """Raise InvalidRequest, with all that is wrong whatever the host has."""
    if faults := [Violation(field, why) for field, why in _faults(wanted)]:
        raise InvalidRequest.of(faults)


def _faults(wanted: Wanted) -> Iterator[tuple[str, str]]:
    if wanted.kind not in KINDS:
        yield "kind", f"must be one of {', '.join(KINDS)}"
        return
    if not 0 < wanted.size_bytes <= SIZE_MOST_BYTES:
        yield "size_bytes", f"must be from 1 to {SIZE_MOST_BYTES}"
    in_parts = wanted.kind in ("raid1", "striped")
    count = len(wanted.devices) or wanted.parts or 2
    if in_parts and not 2 <= count <= 10:
        yield "parts", f"{wanted.kind} has 2 to 10 of them"
    if in_parts and wanted.devices and wanted.parts not in (0, len(wanted.devices)):
        yield "parts", "must be as many as devices"
    if not in_parts and wanted.parts:
        yield "parts", f"{wanted.kind} has none"
    stripe = wanted.stripe_bytes
    if stripe and wanted.kind != "striped":
        yield "stripe_bytes", f"{wanted.kind} has no stripes"
    elif stripe and not (4096 <= stripe <= _STRIPE_MOST_BYTES and stripe.bit_count() == 1):
        yield "stripe_bytes", f"must be a power of 2 from 4096 to {_STRIPE_MOST_BYTES}"
    if (wanted.kind == "thin") != bool(wanted.pool):
        yield "pool", "a thin volume has one, and no other"
    if wanted.kind == "thin" and wanted.devices:
        yield "devices", "a thin volume lies where its pool lies"


def _is_wanted(there: Volume, wanted: Wanted, size_bytes: int, parts: int) -> bool:
    same = (there.kind, there.size_bytes, there.pool) == (wanted.kind, size_bytes, wanted.pool)
    return same and (wanted.kind not in ("raid1", "striped") or there.legs == parts)


def _laid_out(
    step: CreateVolume,
    wanted: Wanted,
    found: Found,
    chosen: tuple[PhysicalVolume, ...],
    graph: Graph,
) -> CreateVolume:
    """Where it lies, as far as its kind has a say in that. Raises GroupFull, VolumeNotFound."""
    group, extents, parts = found.group, step.extents, step.parts
    if step.kind == "thin":
        _pool(group, wanted.pool)
        return replace(step, pool=wanted.pool)
    if step.kind == "thin-pool":
        metadata = metadata_extents(group, extents * group.extent_bytes)
        # Once more beside, for a repair.
        numbers = anywhere(group, extents + 2 * metadata, chosen)
        return replace(step, numbers=numbers, metadata_extents=metadata)
    if step.kind == "linear":
        return replace(step, numbers=anywhere(group, extents, chosen))
    behind = controllers(graph)
    if step.kind == "striped":
        numbers = apart(group, parts, extents // parts, chosen, behind)
        stripe = wanted.stripe_bytes or _STRIPE_BYTES
        return replace(step, numbers=numbers, stripe_bytes=stripe)
    # Each copy has an extent of its own, which says how far it is.
    return replace(step, numbers=apart(group, parts, extents + 1, chosen, behind))


def _pool(group: Group, name: str) -> Volume:
    found = group.volume(name)
    if found is None:
        raise VolumeNotFound(f"{group.name} has no volume {name!r}", group=group.uuid)
    if found.kind != "thin-pool":
        words = f"{group.name}/{name} is {found.kind}, and no thin pool"
        raise VolumeKind(words, volume=found.uuid)
    return found


def _notices(step: CreateVolume, wanted: Wanted, found: Found, graph: Graph) -> Iterator[Notice]:
    group, size = found.group, step.extents * found.group.extent_bytes
    name = f"{group.name}/{wanted.name}"
    if size != wanted.size_bytes:
        yield Notice("SIZE_ROUNDED", f"{name} has {size} bytes: whole extents", name)
    if wanted.kind == "raid1":
        for disk in one_disk(graph, step.numbers):
            yield Notice("SAME_DISK", f"several copies lie on {disk} and go with it", disk)
    if wanted.kind == "thin":
        pool = _pool(group, wanted.pool)
        promised = size + sum(v.size_bytes for v in group.visible if v.pool == wanted.pool)
        if promised > pool.size_bytes:
            words = (
                f"the volumes in {group.name}/{wanted.pool} may come to {promised} bytes, of "
                f"{pool.size_bytes} that it has: a full pool stops what writes"
            )
            yield Notice("THIN_OVERCOMMITTED", words, name)


def grow(
    words: str,
    size_bytes: int,
    with_filesystem: bool,
    look: tuple[Sequence[Group], Graph, SizeOf],
) -> Plan:
    """Give a volume more room, and its filesystem with it; nothing if it has that much."""
    groups, graph, size_of = look
    if not 0 < size_bytes <= SIZE_MOST_BYTES:
        raise InvalidRequest.of([Violation("size_bytes", f"must be from 1 to {SIZE_MOST_BYTES}")])
    found = find_volume(groups, graph, words)
    group, volume = found.group, found.volume
    striped = volume.legs if volume.kind == "striped" else 1
    extents = group.extents_of(size_bytes, striped)
    grown = extents * group.extent_bytes
    steps: list[Step] = []
    if volume.size_bytes < grown:
        changeable(found)
        _refuse_growing(found, extents - volume.size_bytes // group.extent_bytes)
        steps.append(GrowVolume(*found.of_volume, extents=extents))
    elif volume.size_bytes > grown:
        words = f"{found.words} has {volume.size_bytes} bytes: no volume is shrunk"
        raise InvalidRequest.of([Violation("size_bytes", words)])
    if with_filesystem:
        steps += _filesystem(found, grown, size_of, graph)
    notices: tuple[Notice, ...] = ()
    if grown != size_bytes:
        notices = (Notice("SIZE_ROUNDED", f"{grown} bytes: whole extents", found.id),)
    return Plan(tuple(steps), etag=found.etag, notices=notices)


def _refuse_growing(found: FoundVolume, more: int) -> None:
    """Raise VolumeKind, VolumeNeeded, GroupFull unless it can be given so many more extents."""
    volume = found.volume
    if volume.kind not in KINDS or volume.is_snapshot:
        kind = "a snapshot" if volume.is_snapshot else volume.kind
        raise VolumeKind(f"{found.words} is {kind}, which is not grown here", volume=found.id)
    if volume.is_active and (told := _snapshots(found)):
        words = f"{found.words} has snapshots that keep room for its size: {', '.join(told)}"
        raise VolumeNeeded(words, volume=found.id)
    if volume.health:
        raise VolumeKind(f"{found.words} is not well: {volume.health}", volume=found.id)
    if volume.kind != "thin":
        anywhere(found.group, more * (volume.legs if volume.kind == "raid1" else 1), ())


def _snapshots(found: FoundVolume) -> list[str]:
    volumes = found.group.visible
    return [v.name for v in volumes if v.origin == found.volume.name and v.is_snapshot]


def _filesystem(found: FoundVolume, grown: int, size_of: SizeOf, graph: Graph) -> tuple[Step, ...]:
    """The step that grows what is on a volume that will have so many bytes."""
    if found.node is None:
        words = f"{found.words} is not active: what it holds is not to be seen"
        raise VolumeBusy(words, volume=found.id)
    node, kind = filesystem.growable(found.id, graph)
    before = size_of(node, kind)
    # What the plan of filesystems says of the device as it will be.
    wider = replace(node, size_bytes=grown)
    nodes = tuple(wider if one.id == node.id else one for one in graph.nodes)
    plan = filesystem.grow(found.id, before, replace(graph, nodes=nodes))
    return tuple(one for one in plan.steps if isinstance(one, GrowFilesystem))


def delete(words: str, groups: Sequence[Group], graph: Graph) -> Plan:
    """Delete a volume that nobody uses, and no other one needs."""
    found = find_volume(groups, graph, words)
    changeable(found, incomplete=True)
    volume = found.volume
    needs = [v.name for v in found.group.visible if volume.name in (v.origin, v.pool)]
    thin = [v.name for v in found.group.visible if v.origin == volume.name and v.pool]
    if needed := [name for name in needs if name not in thin]:
        told = ", ".join(needed[:8])
        raise VolumeNeeded(f"{told} of {found.group.name} need {volume.name}", volume=found.id)
    refuse_busy(found, graph)
    active = (target_of(found.node),) if found.node is not None else ()
    step = DeleteVolume(*found.of_volume, active=active)
    return Plan(
        (step,),
        etag=found.etag,
        notices=tuple(_lost(found)),
        bindings={"volume": volume.uuid, "device": active},
    )


def _lost(found: FoundVolume) -> Iterator[Notice]:
    if found.node is None:
        words = f"{found.words} is not active: what it holds is not known, and lost"
        yield Notice("CONTENT_UNKNOWN", words, found.id)
        return
    for one in found.node.signatures:
        label = f" labelled {one.label!r}" if one.label else ""
        words = f"{found.words} holds {one.type} {one.uuid}{label}: it is lost"
        yield Notice("CONTENT_LOST", words, found.id)


def refuse_busy(found: FoundVolume, graph: Graph) -> None:
    """Raise DeviceBusy, VolumeBusy if anybody uses a volume."""
    if found.node is not None and (used := users(graph, found.node.id)):
        raise DeviceBusy(
            f"{found.id} ({found.words}) is in use: {', '.join(used[:8])}",
            device=found.id,
            used_by=", ".join(used[:64]),
        )
    if found.volume.is_open and found.volume.kind != "thin-pool":
        raise VolumeBusy(f"{found.words} is open, the kernel does not say by whom", volume=found.id)


def rename(words: str, name: str, groups: Sequence[Group], graph: Graph) -> Plan:
    """Give a volume another name; nothing if it has it."""
    found = find_volume(groups, graph, words)
    if why := volume_name_fault(found.group.name, name):
        raise InvalidRequest.of([Violation("name", why)])
    if found.volume.name == name:
        return nothing(found)
    if (there := found.group.volume(name)) is not None:
        words = f"there is a {found.group.name}/{name}"
        raise VolumeExists(words, group=found.group.uuid, volume=there.uuid)
    changeable(found)
    return Plan((RenameVolume(*found.of_volume, name=name),), etag=found.etag)


def set_active(words: str, is_active: bool, groups: Sequence[Group], graph: Graph) -> Plan:
    """Have a volume be a device, or be none; nothing if it is so."""
    found = find_volume(groups, graph, words)
    if found.volume.is_active == is_active:
        return nothing(found)
    changeable(found, incomplete=True)
    if not is_active:
        refuse_busy(found, graph)
    notices = tuple(_twins(found, graph)) if is_active else ()
    step = SetVolumeActive(*found.of_volume, is_active=is_active)
    return Plan((step,), etag=found.etag, notices=notices)


def _twins(found: FoundVolume, graph: Graph) -> Iterator[Notice]:
    """A thin snapshot has the UUID of what its origin holds."""
    origin = found.group.volume(found.volume.origin) if found.volume.origin else None
    if origin is None or node_of(found.group, origin, graph) is None:
        return
    words = (
        f"{found.words} began as {origin.name}: what both hold has one UUID, and which one a mount "
        "by UUID takes is chance"
    )
    yield Notice("SAME_UUID", words, found.id)
