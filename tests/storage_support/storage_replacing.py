"""A host with disks, partitions, arrays, a btrfs and swap as values: for replacements alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from storage_arrays import MIB, World

from hostlerd.runtime.steps import Plan
from hostlerd.storage.model.array import Array
from hostlerd.storage.model.btrfs_steps import StartReplace
from hostlerd.storage.model.declared import Units
from hostlerd.storage.model.filesystem_steps import MakeFilesystem, WipeSignatures
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.mount_steps import SetSwap
from hostlerd.storage.model.observed import (
    Btrfs,
    BtrfsAllocation,
    BtrfsDevice,
    Device,
    Observed,
    PartitionFacts,
    Signature,
)
from hostlerd.storage.model.replacement import Replacement
from hostlerd.storage.model.smart import Smart
from hostlerd.storage.model.table import GPT, Entry, Table, empty
from hostlerd.storage.model.table_steps import ChangeTable
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan import replace_disk
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.replace_case import Asked, Case, case
from hostlerd.storage.plan.table_arrange import WORDS

SECTOR = 512
UNASKED = Smart(None, "not asked")
MISSING = "missing"
"""What a device of btrfs is called that it lacks."""
RAID, SWAP = WORDS[GPT]["raid"], WORDS[GPT]["swap"]


@dataclass
class Host(World):
    """A host whose disks have tables; `gone` disks are pulled."""

    tables: dict[str, Table] = field(default_factory=dict)
    pools: list[Btrfs] = field(default_factory=list)
    units: Units = field(default_factory=Units)
    more: Mapping[str, Any] = field(default_factory=dict)
    """Of what is seen, beside devices."""
    of_disks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Facts of disks that are not as usual."""

    def part_sizes(self) -> dict[str, int]:
        """The partitions of all disks, and how large they are."""
        return {
            f"{disk}{one.number}": one.size_sectors * SECTOR
            for disk, table in self.tables.items()
            if disk in self.disks
            for one in table.entries
        }

    @property
    def observed(self) -> Observed:
        """All that is seen."""
        devices = []
        for at, (name, size) in enumerate(self.disks.items()):
            devices.append(replace(self._disk(name, at, size), **self.of_disks.get(name, {})))
            table = self.tables.get(name)
            for one in table.entries if table is not None else ():
                part = PartitionFacts(name, one.number, one.start_sector, f"u-{name}{one.number}")
                made = self._disk(f"{name}{one.number}", at, one.size_sectors * SECTOR)
                number = f"8:{16 * at + one.number}"
                made = replace(made, serial=f"S{name}", number=number, partition=part)
                devices.append(made)
        there = {one.name for one in devices}
        for at, array in enumerate(self.arrays.values()):
            lower = tuple(each.name for each in array.members if each.name in there)
            made = replace(self._device(at, array), lower=lower)
            signed = (self.signed[array.name],) if array.name in self.signed else ()
            devices.append(replace(made, signatures=signed))
        return Observed(devices=tuple(devices), btrfs=tuple(self.pools), **self.more)

    def _disk(self, name: str, at: int, size: int) -> Device:
        signed = [self.signed[name]] if name in self.signed else []
        if self.tables.get(name) is not None:
            signed.append(Signature("gpt", "partition-table", f"t-{name}"))
        return Device(
            name=name,
            number=f"8:{16 * at}",
            size_bytes=size,
            logical_sector_bytes=SECTOR,
            physical_sector_bytes=SECTOR,
            serial=f"S{name}",
            disk_sequence=at + 1,
            signatures=tuple(signed),
        )

    @property
    def graph(self) -> Graph:
        """The graph of it."""
        return build(self.observed)

    def table_of(self, disk: str) -> Table:
        """What a disk has, be it none."""
        return self.tables.get(disk) or empty("", self.disks[disk], SECTOR)

    # -- a disk is replaced

    def look(
        self, asked: Asked, *, code: bool = False, smart: Smart = UNASKED
    ) -> tuple[Case, Replacement]:
        """What the service does: find the disks, read both tables, plan."""
        known = case(asked, self.observed, self.graph, self.seen, self.units)
        source = replace_disk.table_source(known)
        copied = (source, self.table_of(source.name)) if source is not None else None
        have = self.table_of(known.new.name)
        return known, replace_disk.examine(known, have, copied, smart=smart, has_boot_code=code)

    def plan(self, asked: Asked) -> Plan:
        """The steps that are left."""
        return replace_disk.plan(*self.look(asked))

    def pull(self, disk: str) -> None:
        """Have a disk be gone at once; md and btrfs have not noticed yet."""
        del self.disks[disk]
        for uuid, one in self.arrays.items():
            names = {disk, *(f"{disk}{number}" for number in range(1, 9))}
            members = tuple(
                replace(m, is_there=m.is_there and m.name not in names) for m in one.members
            )
            # As md has it a moment later: what is gone has failed.
            members = tuple(
                m if m.is_there else replace(m, slot=None, states=frozenset(("faulty",)))
                for m in members
            )
            degraded = one.raid_disks - len({m.slot for m in members if m.is_whole})
            self.arrays[uuid] = replace(one, members=members, degraded=degraded)

    def apply(self, step: Any) -> None:
        """Do what a step says; a partition that was to be made is one by then."""
        step = self._concrete(step)
        if isinstance(step, ChangeTable):
            base = empty(step.kind, self.disks[step.disk.name], SECTOR)
            drawn = tuple(replace(e, uuid=e.uuid or f"N{e.number}") for e in step.entries)
            self.tables[step.disk.name] = replace(base, id=step.id or "NEW", entries=drawn)
        elif isinstance(step, StartReplace):
            self._replace_btrfs(step)
        elif isinstance(step, MakeFilesystem):
            self.signed[step.device.name] = Signature(step.type, "other", step.uuid, step.label)
        elif isinstance(step, WipeSignatures):
            del self.signed[step.device.name]
        elif isinstance(step, SetSwap):
            assert step.device is not None
        else:
            super().apply(step)

    def _concrete(self, step: Any) -> Any:
        changed = {}
        for one in fields(step):
            value = getattr(step, one.name)
            if isinstance(value, Target) and value.part is not None:
                entry = self.tables[value.name].entry(value.part.number)
                assert entry is not None and entry.start_sector * SECTOR == value.part.start_bytes
                assert entry.size_sectors * SECTOR == value.part.size_bytes
                changed[one.name] = replace(value, name=value.kernel_name, part=None)
        return replace(step, **changed)

    def _replace_btrfs(self, step: StartReplace) -> None:
        for at, pool in enumerate(self.pools):
            if pool.uuid == step.uuid:
                devices = tuple(
                    replace(one, name=step.new.name, is_missing=False)
                    if one.device_id == step.device_id
                    else one
                    for one in pool.devices
                )
                self.pools[at] = replace(pool, devices=devices)


def table(size_bytes: int, *parts: tuple[int, str]) -> Table:
    """A GPT with partitions of so many MiB and a type, one behind the other."""
    base, at, entries = empty(GPT, size_bytes, SECTOR), 2048, []
    for number, (size_mib, kind) in enumerate(parts, 1):
        sectors = size_mib * MIB // SECTOR
        entries.append(Entry(number, at, sectors, kind, uuid=f"E{number}"))
        at += sectors
    return replace(base, id="OLD", entries=tuple(entries))


def array_of(host: Host, label: str) -> Array:
    """The array of that name."""
    return next(one for one in host.arrays.values() if one.label == label)


def pool(uuid: str, *names: str, size_mib: int = 64) -> Btrfs:
    """A btrfs of devices, with two copies of everything."""
    devices = tuple(
        BtrfsDevice(
            *("" if name == MISSING else name, at, name == MISSING, {}, size_mib * MIB, MIB)
        )
        for at, name in enumerate(names, 1)
    )
    kept = tuple(
        BtrfsAllocation(kind, "raid1", MIB, MIB, MIB, MIB) for kind in ("data", "metadata")
    )
    return Btrfs(uuid, "pool", devices, kept, "none")
