"""Hosts with disks and arrays as values, and what md makes of a step: for plans alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hostlerd.storage.model import array_steps as steps
from hostlerd.storage.model.array import PARITY_LAYOUTS, Array, Copies, Member, Speed, Sync
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.observed import Device, MdFacts, MdMember, Observed, Signature
from hostlerd.storage.plan.graph import build

MIB = 1 << 20
WHOLE, SPARE = frozenset(("in_sync",)), frozenset(("spare",))
FAULTY, REPLACEMENT = frozenset(("faulty",)), frozenset(("spare", "replacement"))


def uuid_of(name: str) -> str:
    """A UUID that goes with a name."""
    digits = name.encode().hex().ljust(32, "0")[:32]
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@dataclass
class World:
    """A host. `plain` disks have nothing, and `signed` what is told."""

    disks: dict[str, int]
    arrays: dict[str, Array] = field(default_factory=dict)
    signed: dict[str, Signature] = field(default_factory=dict)

    @property
    def seen(self) -> tuple[Array, ...]:
        """The arrays that are assembled."""
        return tuple(self.arrays.values())

    @property
    def graph(self) -> Graph:
        """The graph of it."""
        devices = [
            Device(
                name=name,
                number=f"8:{16 * at}",
                size_bytes=size_bytes,
                logical_sector_bytes=512,
                physical_sector_bytes=512,
                serial=f"S{name}",
                disk_sequence=at + 1,
                signatures=(self.signed[name],) if name in self.signed else (),
            )
            for at, (name, size_bytes) in enumerate(self.disks.items())
        ]
        devices += [self._device(at, one) for at, one in enumerate(self.arrays.values())]
        return build(Observed(devices=tuple(devices)))

    def _device(self, at: int, one: Array) -> Device:
        members = tuple(
            MdMember(each.name, ",".join(sorted(each.states)), each.slot, 0) for each in one.members
        )
        return Device(
            name=one.name,
            number=f"9:{at}",
            size_bytes=64 * MIB,
            logical_sector_bytes=512,
            physical_sector_bytes=512,
            md=MdFacts(one.level, "clean", one.raid_disks, 0, "idle", 0, 0, 0, one.uuid, members),
            lower=tuple(each.name for each in one.members if each.name in self.disks),
            links=(f"/dev/md/{one.label}",),
        )

    # -- what md does

    def apply(self, step: Any) -> None:
        """Do what a step says, at once but for what is copied: `finish` copies that."""
        _APPLY[type(step)](self, step)

    def finish(self) -> None:
        """Copy all that is being copied."""
        for uuid, one in self.arrays.items():
            if one.stands_still:
                continue
            members = list(one.members)
            for at, member in enumerate(members):
                if member.role == "replacing":
                    for i, old in enumerate(members):
                        # None, if the old one failed meanwhile.
                        if _is_old(old, member):
                            members[i] = replace(old, slot=None, states=FAULTY)
                if member.role in ("replacing", "rebuilding"):
                    members[at] = replace(members[at], states=WHOLE)
            self.arrays[uuid] = _settled(replace(one, members=tuple(members)))

    def _create(self, step: steps.CreateArray) -> None:
        uuid = uuid_of(step.name)
        members = [Member(one.name, at, WHOLE) for at, one in enumerate(step.devices)]
        members += [Member(one.name, None, SPARE) for one in step.spares]
        for one in members:
            self.signed[one.name] = Signature("linux_raid_member", "raid", uuid, f"h1:{step.name}")
        size = min(one.size_bytes for one in step.devices)
        self.arrays[uuid] = Array(
            name=f"md{127 - len(self.arrays)}",
            uuid=uuid,
            label=step.name,
            level=step.level,
            state="clean",
            raid_disks=len(step.devices),
            degraded=0,
            members=tuple(members),
            layout=_layout(step.level, step.layout),
            chunk_bytes=0 if step.level == "raid1" else step.chunk_bytes or 512 << 10,
            component_bytes=size - MIB,
            data_offset_bytes=MIB,
        )

    def _add(self, step: steps.AddMember) -> None:
        one = self.arrays[step.uuid]
        self.signed[step.device.name] = Signature(
            "linux_raid_member", "raid", one.uuid, f"h1:{one.label}"
        )
        members = (*one.members, Member(step.device.name, None, SPARE))
        self.arrays[step.uuid] = _settled(replace(one, members=members))

    def _fail(self, step: steps.FailMember) -> None:
        self._each(step.uuid, step.device.name, lambda m: replace(m, slot=None, states=FAULTY))

    def _remove(self, step: steps.RemoveMember) -> None:
        one = self.arrays[step.uuid]
        members = tuple(m for m in one.members if m.name != step.device.name)
        self.arrays[step.uuid] = _settled(replace(one, members=members))

    def _detached(self, step: steps.RemoveDetached) -> None:
        one = self.arrays[step.uuid]
        members = tuple(m for m in one.members if m.is_there)
        self.arrays[step.uuid] = _settled(replace(one, members=members))

    def _replace(self, step: steps.ReplaceMember) -> None:
        slot = next(m.slot for m in self.arrays[step.uuid].members if m.name == step.old.name)
        self._each(step.uuid, step.new.name, lambda m: replace(m, slot=slot, states=REPLACEMENT))

    def _reshape(self, step: steps.ReshapeArray) -> None:
        one = self.arrays[step.uuid]
        size = min(self.disks[m.name] for m in one.members) - MIB
        grown = replace(one, component_bytes=size) if step.whole_size else one
        disks = step.raid_disks or one.raid_disks
        self.arrays[step.uuid] = _settled(replace(grown, raid_disks=disks))

    def cut_off(self) -> None:
        """Boot: all comes up read-only until the first write."""
        self.arrays = {u: replace(one, state="read-auto") for u, one in self.arrays.items()}

    def _resume(self, step: steps.ResumeArray) -> None:
        self.arrays[step.uuid] = replace(self.arrays[step.uuid], state="active")

    def _sync(self, step: steps.SetSyncAction) -> None:
        one = self.arrays[step.uuid]
        self.arrays[step.uuid] = replace(one, sync=Sync(step.action))

    def _speed(self, step: steps.SetSyncSpeed) -> None:
        speed = Speed(step.least_kib or None, step.most_kib or None)
        self.arrays[step.uuid] = replace(self.arrays[step.uuid], speed=speed)

    def _stop(self, step: steps.StopArray | steps.DiscardArray) -> None:
        self.stopped = {**getattr(self, "stopped", {}), step.uuid: self.arrays.pop(step.uuid)}

    def _assemble(self, step: steps.AssembleArray) -> None:
        self.arrays[step.uuid] = self.stopped.pop(step.uuid)

    def _zero(self, step: steps.ZeroMember) -> None:
        del self.signed[step.device.name]

    def _each(self, uuid: str, name: str, change: Callable[[Member], Member]) -> None:
        one = self.arrays[uuid]
        members = tuple(change(m) if m.name == name else m for m in one.members)
        self.arrays[uuid] = _settled(replace(one, members=members))


def _is_old(old: Member, new: Member) -> bool:
    return old.slot == new.slot and old.name != new.name and old.is_whole


def _layout(level: str, words: str) -> int:
    if level == "raid10":
        copies = Copies.parse(words or "n2")
        assert copies is not None
        return copies.near | copies.far << 8 | copies.is_offset << 16
    return PARITY_LAYOUTS.index(words or "left-symmetric") if level in ("raid5", "raid6") else 0


def _settled(one: Array) -> Array:
    """Have spares take the places that lack."""
    members = list(one.members)
    taken = {m.slot for m in members if m.slot is not None}
    for slot in sorted(set(range(one.raid_disks)) - taken):
        spare = next((i for i, m in enumerate(members) if m.role == "spare"), None)
        if spare is not None:
            members[spare] = replace(members[spare], slot=slot)
    degraded = one.raid_disks - len({m.slot for m in members if m.is_whole})
    # Whatever is changed is a write: nothing waits for the first one any more.
    return replace(one, members=tuple(members), degraded=degraded, state="active")


_APPLY: Mapping[type, Callable[[World, Any], None]] = {
    steps.CreateArray: World._create,
    steps.AddMember: World._add,
    steps.ReAddMember: World._add,
    steps.FailMember: World._fail,
    steps.RemoveMember: World._remove,
    steps.RemoveDetached: World._detached,
    steps.ReplaceMember: World._replace,
    steps.ReshapeArray: World._reshape,
    steps.ResumeArray: World._resume,
    steps.SetSyncAction: World._sync,
    steps.SetSyncSpeed: World._speed,
    steps.StopArray: World._stop,
    steps.DiscardArray: World._stop,
    steps.AssembleArray: World._assemble,
    steps.ZeroMember: World._zero,
}
