"""Hosts with disks and volume groups as values, and what LVM makes of a step: for plans alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from hostlerd.storage.model import filesystem_steps, lvm_steps, lvm_volume_steps
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.lvm import Group, PhysicalVolume, Volume, device_uuid, mapped_name
from hostlerd.storage.model.observed import (
    Device,
    LogicalVolume,
    Mount,
    Observed,
    Signature,
    VolumeGroup,
)
from hostlerd.storage.plan.graph import build

MIB = 1 << 20
EXTENT = 4 * MIB


def uuid_of(name: str) -> str:
    """A UUID of LVM that goes with a name."""
    digits = name.encode().hex().ljust(32, "0")[:32]
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(digits[a:b] for a, b in pairwise(cuts))


@dataclass
class World:
    """A host. Disks by their names, with their sizes."""

    disks: dict[str, int]
    controllers: dict[str, str] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    signed: dict[str, Signature] = field(default_factory=dict)
    """What lies on a disk, or on the device of a volume, by its UUID in the device mapper."""
    mounted: dict[str, str] = field(default_factory=dict)
    """Where the device of a number is mounted."""
    clones: dict[str, str] = field(default_factory=dict)
    """Disks that are like another one."""
    made: int = 0

    def number(self, disk: str) -> str:
        """MAJOR:MINOR of a disk."""
        return f"8:{16 * list(self.disks).index(disk)}"

    def disk(self, number: str) -> str:
        """The disk of a number."""
        return next(name for name in self.disks if self.number(name) == number)

    @property
    def seen(self) -> tuple[Group, ...]:
        """The groups as the worker reports them."""
        return tuple(self.groups.values())

    @property
    def graph(self) -> Graph:
        """The graph of it."""
        return build(self.observed)

    @property
    def observed(self) -> Observed:
        """What is seen of it."""
        devices = [self._disk(name) for name in self.disks]
        for group in self.groups.values():
            devices += [self._volume(group, one) for one in group.visible if one.number]
        names = {one.number: one.name for one in devices}
        mounts = tuple(
            Mount(at, number, "/", "ext4", f"/dev/{names[number]}", False)
            for number, at in self.mounted.items()
        )
        groups = tuple(
            VolumeGroup(
                one.uuid,
                one.name,
                sum(p.extents for p in one.physical) * one.extent_bytes,
                one.free_extents * one.extent_bytes,
                tuple(names[p.number] for p in one.physical if p.number),
                one.missing,
            )
            for one in self.groups.values()
        )
        volumes = tuple(
            LogicalVolume(v.uuid, one.uuid, v.name, v.size_bytes, v.kind)
            for one in self.groups.values()
            for v in one.visible
        )
        return Observed(devices=tuple(devices), mounts=mounts, groups=groups, volumes=volumes)

    def _disk(self, name: str) -> Device:
        like = self.clones.get(name, name)
        return Device(
            name=name,
            number=self.number(name),
            size_bytes=self.disks[name],
            logical_sector_bytes=512,
            physical_sector_bytes=512,
            serial=f"S{name}",
            disk_sequence=1 + list(self.disks).index(name),
            controller=self.controllers.get(name, ""),
            signatures=(self.signed[like],) if like in self.signed else (),
        )

    def _volume(self, group: Group, one: Volume) -> Device:
        uuid = device_uuid(group, one)
        on = [p.number for p in group.physical if p.uuid in one.carriers and p.number]
        minor = one.number.partition(":")[2]
        return Device(
            name=f"dm-{minor}",
            number=one.number,
            size_bytes=one.size_bytes,
            logical_sector_bytes=512,
            physical_sector_bytes=512,
            dm_name=mapped_name(group.name, one.name),
            dm_uuid=uuid,
            lower=tuple(self.disk(number) for number in on),
            links=(f"/dev/{group.name}/{one.name}",),
            signatures=(self.signed[uuid],) if uuid in self.signed else (),
        )

    # -- what LVM does

    def apply(self, step: Any) -> None:
        """Do what a step says, to its end."""
        _APPLY[type(step)](self, step)

    def change(self, name: str, **fields: Any) -> None:
        """Change a group, and count that."""
        group = self.groups[name]
        self.groups[name] = replace(group, seqno=group.seqno + 1, **fields)

    def set_volume(self, group: str, volume: str, **fields: Any) -> None:
        """Change a volume."""
        volumes = tuple(
            replace(one, **fields) if one.name == volume else one
            for one in self.groups[group].volumes
        )
        self.change(group, volumes=volumes)

    def pull(self, disk: str) -> None:
        """Have a disk be gone."""
        number = self.number(disk)
        for name, group in list(self.groups.items()):
            physical = tuple(
                replace(p, number="") if p.number == number else p for p in group.physical
            )
            self.groups[name] = replace(group, physical=physical)
        self.signed.pop(disk, None)

    def _physical(self, disk: str, extent: int) -> PhysicalVolume:
        self.made += 1
        uuid = uuid_of(f"pv{self.made}{disk}")
        self.signed[disk] = Signature("LVM2_member", "raid", uuid)
        return PhysicalVolume(uuid, self.number(disk), (self.disks[disk] - MIB) // extent, 0)

    def _create_group(self, step: lvm_steps.CreateGroup) -> None:
        physical = tuple(self._physical(one.name, step.extent_bytes) for one in step.devices)
        self.groups[step.group] = Group(
            uuid_of(step.group), step.group, 1, step.extent_bytes, physical
        )

    def _extend(self, step: lvm_steps.ExtendGroup) -> None:
        group = self.groups[step.group]
        new = self._physical(step.device.name, group.extent_bytes)
        self.change(step.group, physical=(*group.physical, new))

    def _reduce(self, step: lvm_steps.ReduceGroup) -> None:
        physical = tuple(p for p in self.groups[step.group].physical if p.number != step.number)
        self.change(step.group, physical=physical)

    def _remove_missing(self, step: lvm_steps.RemoveMissing) -> None:
        physical = tuple(p for p in self.groups[step.group].physical if p.number)
        self.change(step.group, physical=physical)

    def _remove_group(self, step: lvm_steps.RemoveGroup) -> None:
        del self.groups[step.group]

    def _wipe(self, step: filesystem_steps.WipeSignatures) -> None:
        assert step.device.signatures
        del self.signed[step.device.name]

    def _move(self, step: lvm_steps.StartMove) -> None:
        group = self.groups[step.group]
        old = next(p for p in group.physical if p.number == step.number)
        to = [p for p in group.physical if p.number in step.numbers] or [
            p for p in group.physical if p is not old
        ]
        physical, left, new = [], old.used_extents, []
        for one in group.physical:
            taken = min(left, one.free_extents) if one in to else 0
            left -= taken
            new += [one.uuid] if taken else []
            used = 0 if one is old else one.used_extents + taken
            physical.append(replace(one, used_extents=used))
        assert left == 0
        volumes = tuple(
            replace(v, carriers=tuple(sorted({*v.carriers, *new} - {old.uuid})))
            if old.uuid in v.carriers
            else v
            for v in group.volumes
        )
        self.change(step.group, physical=tuple(physical), volumes=volumes)

    def _take(self, name: str, extents: int, numbers: tuple[str, ...], each: bool) -> list[str]:
        """Take extents of devices: so many of each, or in all. It must go."""
        group, left, carriers, physical = self.groups[name], extents, [], []
        for one in group.physical:
            is_on = one.number in numbers if numbers else bool(one.number)
            taken = min(extents if each else left, one.free_extents) if is_on else 0
            left -= taken
            assert not each or not is_on or taken == extents, "no room"
            carriers += [one.uuid] if taken else []
            physical.append(replace(one, used_extents=one.used_extents + taken))
        assert each or left == 0, "no room"
        self.groups[name] = replace(group, physical=tuple(physical))
        return carriers

    def _create_volume(self, step: lvm_volume_steps.CreateVolume) -> None:
        group = self.groups[step.group]
        carriers: list[str] = []
        if step.kind == "raid1":
            carriers = self._take(step.group, step.extents + 1, step.numbers, True)
        elif step.kind == "striped":
            carriers = self._take(step.group, step.extents // step.parts, step.numbers, True)
        elif step.kind != "thin":
            extents = step.extents + 2 * step.metadata_extents
            carriers = self._take(step.group, extents, step.numbers, False)
        self._add(
            step.group,
            Volume(
                uuid=uuid_of(f"lv{step.volume}"),
                name=step.volume,
                size_bytes=step.extents * group.extent_bytes,
                kind=step.kind,
                pool=step.pool,
                carriers=tuple(carriers),
                legs=step.parts,
                sync_percent=100.0 if step.kind == "raid1" else None,
            ),
        )

    def _add(self, name: str, volume: Volume, active: bool = True) -> None:
        self.made += 1
        number = f"253:{self.made}" if active else ""
        made = replace(volume, is_active=active, number=number)
        self.change(name, volumes=(*self.groups[name].volumes, made))

    def _grow(self, step: lvm_volume_steps.GrowVolume) -> None:
        group = self.groups[step.group]
        volume = group.volume(step.volume)
        assert volume is not None
        more = step.extents - volume.size_bytes // group.extent_bytes
        if volume.kind == "linear":
            self._take(step.group, more, step.numbers, False)
        size = step.extents * group.extent_bytes
        self.set_volume(step.group, step.volume, size_bytes=size)

    def _snapshot(self, step: lvm_volume_steps.CreateVolumeSnapshot) -> None:
        group = self.groups[step.group]
        origin = group.volume(step.volume)
        assert origin is not None
        carriers = self._take(step.group, step.extents, (), False) if step.extents else []
        volume = Volume(
            uuid=uuid_of(f"lv{step.snapshot}"),
            name=step.snapshot,
            size_bytes=origin.size_bytes,
            kind="linear" if step.extents else "thin",
            role=("public", "snapshot"),
            origin=step.volume,
            pool=origin.pool,
            carriers=tuple(carriers),
        )
        self._add(step.group, volume, active=bool(step.extents))

    def _clone(self, step: lvm_volume_steps.CloneVolume) -> None:
        group = self.groups[step.group]
        origin = group.volume(step.volume)
        assert origin is not None
        size = step.extents * group.extent_bytes
        uuid = uuid_of(f"lv{step.name}")
        made = replace(origin, uuid=uuid, name=step.name, size_bytes=size, origin=step.volume)
        self._add(step.group, made)

    def _merge(self, step: lvm_volume_steps.MergeVolumeSnapshot) -> None:
        self._drop(step.group, step.volume)

    def _delete(self, step: lvm_volume_steps.DeleteVolume) -> None:
        self._drop(step.group, step.volume)

    def _drop(self, name: str, volume: str) -> None:
        volumes = tuple(one for one in self.groups[name].volumes if one.name != volume)
        self.change(name, volumes=volumes)

    def _rename(self, step: lvm_volume_steps.RenameVolume) -> None:
        self.set_volume(step.group, step.volume, name=step.name)

    def _activate(self, step: lvm_volume_steps.SetVolumeActive) -> None:
        self.made += 1
        number = f"253:{self.made}" if step.is_active else ""
        # Nothing of the description changes.
        group = self.groups[step.group]
        self.set_volume(step.group, step.volume, is_active=step.is_active, number=number)
        self.groups[step.group] = replace(self.groups[step.group], seqno=group.seqno)

    def _put(self, step: Any, old: set[str]) -> None:
        group = self.groups[step.group]
        volume = group.volume(step.volume)
        assert volume is not None
        extents = volume.size_bytes // group.extent_bytes + 1
        new = self._take(step.group, extents, (step.number,), True)
        carriers = tuple(sorted({*volume.carriers, *new} - old))
        self.set_volume(step.group, step.volume, carriers=carriers, health="")

    def _repair(self, step: lvm_volume_steps.RepairVolume) -> None:
        self._put(step, {p.uuid for p in self.groups[step.group].physical if p.is_missing})

    def _replace(self, step: lvm_volume_steps.ReplaceVolumeLeg) -> None:
        old = self.groups[step.group].carrier(step.old_number)
        self._put(step, {old.uuid} if old else set())

    def _nothing(self, step: Any) -> None:
        """What is not seen in values."""


_APPLY: Mapping[type, Callable[[World, Any], None]] = {
    lvm_steps.CreateGroup: World._create_group,
    lvm_steps.ExtendGroup: World._extend,
    lvm_steps.ReduceGroup: World._reduce,
    lvm_steps.RemoveMissing: World._remove_missing,
    lvm_steps.RemoveGroup: World._remove_group,
    lvm_steps.StartMove: World._move,
    lvm_steps.RestoreGroup: World._nothing,
    filesystem_steps.WipeSignatures: World._wipe,
    filesystem_steps.GrowFilesystem: World._nothing,
    lvm_volume_steps.CreateVolume: World._create_volume,
    lvm_volume_steps.GrowVolume: World._grow,
    lvm_volume_steps.CreateVolumeSnapshot: World._snapshot,
    lvm_volume_steps.CloneVolume: World._clone,
    lvm_volume_steps.MergeVolumeSnapshot: World._merge,
    lvm_volume_steps.DeleteVolume: World._delete,
    lvm_volume_steps.RenameVolume: World._rename,
    lvm_volume_steps.SetVolumeActive: World._activate,
    lvm_volume_steps.RepairVolume: World._repair,
    lvm_volume_steps.ReplaceVolumeLeg: World._replace,
}
