"""The edge of the storage domain to the system."""

from __future__ import annotations

import os
from dataclasses import replace

from hostlerd.storage.kernel import arrays, boot, btrfs, lvm, mounts, signatures, sysfs
from hostlerd.storage.kernel.mount_units import MountUnits
from hostlerd.storage.model.observed import FstabLine, Mount, Observed, Unseen

# Filesystems that lie on no disk of this host, and those that are windows into the kernel.
_WITHOUT_DISK = frozenset(
    {
        *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts"),
        *("devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore"),
        *("ramfs", "rpc_pipefs", "securityfs", "sysfs", "tmpfs", "tracefs", "overlay"),
    }
)


class Kernel:
    """Observes what the host stores things on."""

    def look(self) -> Observed:
        """Look at all of it. Blocks, for seconds where a device does not answer."""
        devices = sysfs.devices()
        found, unseen = signatures.of_devices(devices)
        named = tuple(replace(one, signatures=found.get(one.name, ())) for one in devices)
        mounted = tuple(one for one in mounts.mounts() if one.type not in _WITHOUT_DISK)
        rooms, silent = mounts.rooms(_first_of_each(mounted))
        swaps, swap_files = mounts.swaps()
        groups, volumes, unread = lvm.look(named)
        return Observed(
            devices=named,
            mounts=mounted,
            rooms=rooms,
            swaps=swaps,
            swap_files=swap_files,
            btrfs=btrfs.attached(btrfs.filesystems(mounted), named, signatures.again),
            fstab=(*mounts.fstab(), *_units()),
            groups=groups,
            volumes=volumes,
            configured_arrays=arrays.configured(),
            hostname=os.uname().nodename,
            boot=boot.boot(),
            unseen=_told_once([*unseen, *silent, *unread]),
        )


def _units() -> list[FstabLine]:
    """The units that a boot brings up, of what lies on disks."""
    return [
        FstabLine(0, one.what, one.where, one.type, one.options, one.by)
        for one in MountUnits().declared()
        if one.lasting and one.type not in _WITHOUT_DISK
    ]


def _first_of_each(mounted: tuple[Mount, ...]) -> list[Mount]:
    """One mount of each filesystem: the shortest path that shows its root."""
    chosen: dict[str, Mount] = {}
    for one in sorted(mounted, key=lambda each: (each.root != "/", len(each.path), each.path)):
        chosen.setdefault(one.number, one)
    return list(chosen.values())


def _told_once(unseen: list[Unseen]) -> tuple[Unseen, ...]:
    """Many devices without a node, as in a container, are one thing to know and not a hundred."""
    nodes = [one for one in unseen if one.code == "NO_DEVICE_NODE"]
    if len(nodes) < 2:
        return tuple(unseen)
    words = f"{len(nodes)} devices have no node in /dev here: what lies on them is not known"
    rest = [one for one in unseen if one.code != "NO_DEVICE_NODE"]
    return (*rest, Unseen("NO_DEVICE_NODE", nodes[0].subject, words))
