"""Whether all is well with what the host stores things on, and what is not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from hostlerd.storage.model.backup import Backup
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.model.observed import FstabLine, Observed
from hostlerd.storage.model.reason import Level, Reason
from hostlerd.storage.plan import arrays, backup, lvm, places
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.space import spaces

LOW_PERCENT, FULL_PERCENT = 10, 3
"""Free room below this is a warning, and below that critical."""
_NOT_MOUNTED_ON_PURPOSE = frozenset(("noauto", "x-systemd.automount", "nofail"))


def health(
    seen: Observed, backups: Sequence[Backup] = (), now_unix_s: int = 0
) -> tuple[Level, tuple[Reason, ...]]:
    """The worst of all reasons, and the reasons, the worst first."""
    graph = build(seen)
    reasons = [
        *arrays.of_arrays(seen, graph),
        *arrays.without_array(seen, graph),
        *arrays.mounted_halves(seen, graph),
        *arrays.configured(seen, graph),
        *lvm.incomplete(seen),
        *places.of_mounts(seen),
        *places.of_boot(seen, graph),
        *places.left_over(seen, graph),
        *places.of_redundancy(graph),
        *_btrfs(seen),
        *_read_only(seen),
        *_room(seen),
        *_fstab(seen),
        *_same_uuid(graph, lvm.snapshots(seen)),
        *(reason for one in backups for reason in backup.reasons(one, now_unix_s)),
    ]
    reasons.sort(key=lambda one: (-one.level, one.id, one.code))
    return max((one.level for one in reasons), default=Level.GOOD), tuple(reasons)


def _btrfs(seen: Observed) -> Iterator[Reason]:
    for pool in seen.btrfs:
        node_id = f"filesystem-{pool.uuid}"
        missing = [one.device_id for one in pool.devices if one.is_missing]
        if missing:
            words = f"btrfs {pool.label or pool.uuid} lacks device {', '.join(map(str, missing))}"
            yield Reason("BTRFS_DEGRADED", Level.CRITICAL, node_id, words)
        for one in pool.devices:
            counts = {key: n for key, n in one.errors.items() if n and key != "total"}
            if counts:
                told = ", ".join(f"{key} {n}" for key, n in sorted(counts.items()))
                words = f"{one.name or one.device_id} has had errors: {told}; scrub, then reset"
                yield Reason("BTRFS_ERRORS", Level.CRITICAL, node_id, words)


def _read_only(seen: Observed) -> Iterator[Reason]:
    """Mounted read-only, though fstab(5) does not say so: what ext4 does after an error."""
    wanted = {line.path: line for line in seen.fstab}
    for mount in seen.mounts:
        line = wanted.get(mount.path)
        if mount.is_read_only and line is not None and "ro" not in line.options:
            words = f"{mount.path} is read-only, though {line.words} mounts it for writing"
            yield Reason("FILESYSTEM_READ_ONLY", Level.CRITICAL, f"mount-{mount.path}", words)


def _room(seen: Observed) -> Iterator[Reason]:
    for space in spaces(seen):
        writable = next(
            (not mount.is_read_only for mount in seen.mounts if mount.path == space.mount), False
        )
        if not writable or not space.physical:
            continue
        percent = 100 * space.free_most * max(1.0, space.ratio) / space.physical
        if percent < LOW_PERCENT:
            level = Level.CRITICAL if percent < FULL_PERCENT else Level.WARNING
            words = f"{space.mount} has {percent:.1f} % left"
            yield Reason("SPACE_LOW", level, f"mount-{space.mount}", words)
        if space.free_files == 0:
            words = f"{space.mount} has room, but for no more files: its inodes are used up"
            yield Reason("FILES_EXHAUSTED", Level.CRITICAL, f"mount-{space.mount}", words)


def _fstab(seen: Observed) -> Iterator[Reason]:
    mounted = {mount.path: mount for mount in seen.mounts}
    named = {line.path for line in seen.fstab}
    for line in seen.fstab:
        if line.type == "swap" or line.path in ("none", "swap"):
            continue
        on_purpose = _NOT_MOUNTED_ON_PURPOSE.intersection(line.options)
        if line.path not in mounted and not on_purpose and _is_of_disk(line):
            words = f"{line.path} of {line.words} ({line.source}) is not mounted"
            yield Reason("NOT_MOUNTED", Level.WARNING, f"mount-{line.path}", words)
    numbers = {device.number for device in seen.devices}
    # A host without fstab, such as a container, declares its mounts elsewhere.
    for mount in seen.mounts if any(not line.unit for line in seen.fstab) else ():
        if mount.path not in named and mount.root == "/" and mount.number in numbers:
            words = (
                f"{mount.path} is mounted and in no fstab or unit: a boot would not bring it back"
            )
            yield Reason("NOT_IN_FSTAB", Level.WARNING, f"mount-{mount.path}", words)


def _is_of_disk(line: FstabLine) -> bool:
    return line.source.startswith(("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="))


def _same_uuid(graph: Graph, snapshots: Collection[str]) -> Iterator[Reason]:
    """Devices with the same filesystem, though not of one pool: a clone, or half a RAID."""
    holders: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.kind in (Kind.FILESYSTEM, Kind.SWAP) or node.name in snapshots:
            continue
        for one in node.signatures:
            if one.uuid and one.usage == "filesystem" and one.type not in ("btrfs", "zfs_member"):
                holders.setdefault(one.uuid, []).append(node)
    for uuid, nodes in holders.items():
        if len(nodes) > 1:
            names = ", ".join(node.name for node in nodes)
            words = f"{names} have the same filesystem UUID {uuid}: which one is mounted is chance"
            yield Reason("SAME_UUID", Level.CRITICAL, nodes[0].id, words)
