"""Whether the host came up from where it should have, and what lies there beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hostlerd.storage.model import blkid
from hostlerd.storage.model.graph import Graph, Kind
from hostlerd.storage.model.observed import Device, Mount, Observed
from hostlerd.storage.model.reason import Level, Reason
from hostlerd.storage.plan.arrays import RAID_TYPES
from hostlerd.storage.plan.resolve import devices_of, named
from hostlerd.storage.plan.survival import Unit, called, is_redundant, survival

# A RAID of a controller has its table inside; an installer's image for sticks is both.
_WITH_PARTITIONS = RAID_TYPES | {"iso9660", "udf"}
_BOOT_PLACES = ("/", "/boot", "/boot/efi", "/efi")


def of_mounts(seen: Observed) -> Iterator[Reason]:
    """What is mounted from another device than fstab(5) or the kernel's command line says."""
    lines = {line.path: line for line in seen.fstab}
    for mount in _of_devices(seen):
        here = {device.name for device in devices_of(seen, mount)}
        line = lines.get(mount.path)
        wanted = named(seen, line.source) if line is not None else ()
        if line is not None and wanted and not here.intersection(one.name for one in wanted):
            names = ", ".join(one.name for one in wanted)
            words = (
                f"{mount.path} is mounted from {', '.join(sorted(here))}; "
                f"{line.words} ({line.source}) means {names}"
            )
            yield Reason("MOUNT_OTHER_DEVICE", Level.CRITICAL, f"mount-{mount.path}", words)
        told = named(seen, seen.boot.root) if mount.path == "/" and seen.boot.root else ()
        if told and not here.intersection(one.name for one in told):
            names = ", ".join(one.name for one in told)
            words = (
                f"/ is mounted from {', '.join(sorted(here))}; "
                f"the boot loader said root={seen.boot.root}, which is {names}"
            )
            yield Reason("ROOT_OTHER_DEVICE", Level.CRITICAL, "mount-/", words)


def _of_devices(seen: Observed) -> Iterator[Mount]:
    """The last mount of each path that shows a device: a bind is no matter of fstab's source."""
    last = {mount.path: mount for mount in seen.mounts}
    for mount in last.values():
        if (mount.root == "/" or mount.type == "btrfs") and devices_of(seen, mount):
            yield mount


def of_boot(seen: Observed, graph: Graph) -> Iterator[Reason]:
    """A kernel that is not in /boot, and a boot loader on a disk that has nothing of the host."""
    mounted = {mount.path: mount for mount in _of_devices(seen)}
    if "/" not in mounted:
        # In a container: the kernel and its boot loader are another's.
        return
    running = seen.boot.kernel_release
    if running and seen.boot.kernels and running not in seen.boot.kernels:
        words = (
            f"{running} runs, and /boot has {', '.join(seen.boot.kernels)}: it was loaded from "
            "another disk, or has been removed since"
        )
        yield Reason("KERNEL_NOT_IN_BOOT", Level.WARNING, "mount-/boot", words)
    loader = _loader(seen)
    if loader is None:
        return
    expected = _disks_of(graph, [path for path in _BOOT_PLACES if path in mounted])
    disk = loader.partition.of if loader.partition is not None else loader.name
    if expected and disk not in expected:
        words = (
            f"the boot loader came from {loader.name}; /, /boot and its own place are on "
            f"{', '.join(sorted(expected))}"
        )
        node_id = next((node.id for node in graph.nodes if node.name == disk), "mount-/")
        yield Reason("BOOT_LOADER_OTHER_DISK", Level.CRITICAL, node_id, words)


def _loader(seen: Observed) -> Device | None:
    """The partition or the disk that the firmware took the boot loader from."""
    boot = seen.boot
    if boot.loader_partition_uuid:
        return next(iter(named(seen, f"PARTUUID={boot.loader_partition_uuid}")), None)
    if not boot.loader_disk_signature.strip("0"):
        return None
    found = [
        device
        for device in seen.devices
        if any(
            one.type == "dos" and one.uuid.lower() == boot.loader_disk_signature.lower()
            for one in device.signatures
        )
    ]
    # Copied partition tables have the same signature: then it says nothing.
    return found[0] if len(found) == 1 else None


def _disks_of(graph: Graph, paths: Iterable[str]) -> set[str]:
    """The names of the whole disks below mounts."""
    reached = {f"mount-{path}" for path in paths}
    by_id = {node.id: node for node in graph.nodes}
    for node in reversed(graph.nodes):
        if node.id in reached:
            reached.update(graph.lower(node.id))
    return {
        by_id[each].name
        for each in reached
        if each in by_id and by_id[each].number and not graph.lower(each)
    }


def left_over(seen: Observed, graph: Graph) -> Iterator[Reason]:
    """Signatures of something that was there before, beside what is there now."""
    ids = {node.name: node.id for node in graph.nodes if node.number}
    partitioned = {device.partition.of for device in seen.devices if device.partition}
    for device in seen.devices:
        content = [
            one
            for one in device.signatures
            if one.usage != "partition-table" and one != blkid.CONTRADICTION
        ]
        kinds = [one.type for one in content]
        if len(set(kinds)) > 1:
            words = (
                f"{device.name} has signatures of {', '.join(sorted(set(kinds)))}: all but one are "
                "left over, and what comes next may take it for the wrong one; see wipefs(8)"
            )
            yield Reason("STALE_SUPERBLOCK", Level.WARNING, ids[device.name], words)
        elif device.name in partitioned and kinds and kinds[0] not in _WITH_PARTITIONS:
            words = (
                f"{device.name} has partitions, and a signature of {kinds[0]} on the whole disk: "
                "one of them is left over"
            )
            yield Reason("STALE_SUPERBLOCK", Level.WARNING, ids[device.name], words)


def of_redundancy(graph: Graph) -> Iterator[Reason]:
    """What is made to survive a loss, and would not."""
    by_id = {node.id: node for node in graph.nodes}
    behind = {node.controller for node in graph.nodes if node.controller}
    for one in survival(graph):
        node = by_id[one.id]
        if not is_redundant(node) or not one.is_there or node.kind is Kind.VOLUME_GROUP:
            continue
        fatal = {unit: [loss for loss in one.of(unit) if not loss.is_survived] for unit in Unit}
        names = {
            unit: ", ".join(called(graph, loss.name) or loss.name for loss in fatal[unit])
            for unit in Unit
        }
        if fatal[Unit.DISK]:
            words = f"{node.name} has spare legs, and is lost all the same with {names[Unit.DISK]}"
            yield Reason("ONE_DISK", Level.CRITICAL, node.id, words)
        elif fatal[Unit.CONTROLLER] and len(behind) > len(fatal[Unit.CONTROLLER]):
            words = (
                f"{node.name} survives each disk, and is lost with the controller "
                f"{names[Unit.CONTROLLER]}, which all its legs need"
            )
            yield Reason("ONE_CONTROLLER", Level.WARNING, node.id, words)
        elif fatal[Unit.HOST]:
            words = f"{node.name} is lost with the host {names[Unit.HOST]}, which all legs need"
            yield Reason("ONE_HOST", Level.WARNING, node.id, words)
