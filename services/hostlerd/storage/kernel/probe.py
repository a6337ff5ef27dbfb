"""What this host has of what storage is built with, each thing looked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hostlerd.runtime.host import Capability
from hostlerd.storage.worker.sysfs import BLOCK, TARGET

_FILESYSTEMS = ("btrfs", "ext4", "xfs")


def probe_block_devices() -> Capability:
    """Whether block devices can be seen, and read."""
    nodes = [Path("/dev") / entry.name for entry in BLOCK.iterdir()]
    readable = [node for node in nodes if os.access(node, os.R_OK)]
    if not readable:
        words = f"none of {len(nodes)} block devices has a node in /dev that can be read"
        return Capability("block_devices", False, words)
    return Capability("block_devices", True)


def _probe_filesystem(kind: str) -> Callable[[], Capability]:
    def probe() -> Capability:
        known = Path("/proc/filesystems").read_text().split()
        there = kind in known
        return Capability(kind, there, "" if there else "the kernel has not loaded it")

    probe.__name__ = f"probe_{kind}"
    return probe


def probe_md() -> Capability:
    """Whether the kernel has md."""
    there = Path("/proc/mdstat").exists()
    return Capability("md", there, "" if there else "the kernel has no md, or has not loaded it")


def probe_device_mapper() -> Capability:
    """Whether the kernel has the device mapper, which LVM, LUKS and multipath are made with."""
    there = "device-mapper" in Path("/proc/misc").read_text()
    words = "" if there else "the kernel has no device mapper, or has not loaded it"
    return Capability("device_mapper", there, words)


def probe_smart() -> Capability:
    """SMART takes more than reading: SG_IO and the admin commands of NVMe.

    Source: capabilities(7), CAP_SYS_RAWIO, CAP_SYS_ADMIN.
    """
    words = "this daemon may read block devices, and has no CAP_SYS_RAWIO to ask disks for SMART"
    return Capability("smart", False, words)


def probe_iscsi_target() -> Capability:
    """Whether the kernel has a target, or a module of it, which is loaded with the first export."""
    modules = Path("/lib/modules", os.uname().release, "kernel/drivers/target/iscsi")
    there = TARGET.is_dir() or modules.is_dir()
    words = "" if there else "the kernel has no target (LIO), and no module of it"
    return Capability("iscsi_target", there, words)


def probe_iscsi_initiator() -> Capability:
    """Whether open-iscsi is installed."""
    there = Path("/usr/sbin/iscsiadm").exists()
    return Capability("iscsi_initiator", there, "" if there else "open-iscsi is not installed")


PROBES = (
    probe_block_devices,
    probe_md,
    probe_device_mapper,
    probe_smart,
    probe_iscsi_target,
    probe_iscsi_initiator,
    *map(_probe_filesystem, _FILESYSTEMS),
)
