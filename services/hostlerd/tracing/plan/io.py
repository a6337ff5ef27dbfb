"""Who read and wrote between two readings, and what well-known threads of the kernel do."""

from __future__ import annotations

import re

from hostlerd.tracing.model.io import (
    DeviceCount,
    DeviceRate,
    IoReading,
    ProcessCount,
    ProcessRate,
)

_TICKS_PER_S = 100
_THREADS = (
    (r"ext4lazyinit", "fills the inode tables of a new ext4 with zeroes; ends by itself"),
    (r"jbd2/", "commits the journal of an ext4, by default every 5 seconds"),
    (r"xfsaild/", "writes metadata of an XFS that its log has already"),
    (r"xfs[-_]", "does work that an XFS put off"),
    (r"btrfs-transacti", "commits transactions of a btrfs, by default every 30 seconds"),
    (r"btrfs-", "does work that a btrfs put off"),
    (r"kswapd\d", "frees memory, since little is free: writes and swaps out pages"),
    (r"kcompactd\d", "moves pages together, for large ones"),
    (r"khugepaged", "puts small pages together to huge ones"),
    (r"ksmd", "merges equal pages"),
    (r"kworker/.*flush|flush-|bdi-", "writes changed pages of files to a device: writeback"),
    (r"kworker/", "does work that drivers and file systems put off"),
    (r"md\d+_resync|md\d+_recover", "makes the halves of a RAID equal again: resync"),
    (r"md\d+_raid|md\d+_cluster", "does the work of a RAID"),
    (r"loop\d+", "reads and writes the file behind a loop device"),
    (r"dm[-_]|dmcrypt_write|kdmflush|kcryptd", "does the work of a device mapper"),
    (r"drbd_|nbd\d|iscsi_", "does the work of a device on the network"),
    (r"nfsd|nfsiod|rpciod", "serves or uses NFS"),
    (r"scsi_eh_", "puts right a SCSI device that failed"),
    (r"zram|zswap", "compresses pages of memory"),
    (r"kthreadd|ksoftirqd|migration|rcu", "runs the kernel itself"),
)
# Those whose work goes to disks even where no bytes are counted.
_ALWAYS_STORAGE = r"ext4lazyinit|jbd2/|xfsaild/|btrfs-transacti|md\d+_|kswapd\d|.*flush"


def explain(comm: str) -> str:
    """What a thread of the kernel does, by its name; "" for one that is not known."""
    return next((words for pattern, words in _THREADS if re.match(pattern, comm)), "")


def _of_storage(count: ProcessCount) -> bool:
    """Whether a thread of the kernel does nothing but reading and writing."""
    return count.is_kernel and re.match(_ALWAYS_STORAGE, count.comm) is not None


def process_rates(before: IoReading, now: IoReading, top: int = 0) -> list[ProcessRate]:
    """Answer who did something, the busiest first, of which `top` are wanted; 0 means all."""
    seconds = now.at_s - before.at_s
    if seconds <= 0:
        return []
    found = []
    for pid, count in now.processes.items():
        was = before.processes.get(pid)
        if was is None or was.started_ticks != count.started_ticks:
            # All that a new one did it did since.
            was = ProcessCount(pid, count.started_ticks, "", False, 0, 0, 0, 0)
        rate = _rate(was, count, seconds, now.counts_delays)
        works = rate.runs and _of_storage(count)
        if rate.read or rate.written or rate.cancelled or rate.blocked_percent or works:
            found.append(rate)
    found.sort(key=lambda r: (r.read + r.written, r.blocked_percent or 0, r.runs), reverse=True)
    return found[:top] if top else found


def _rate(
    was: ProcessCount, count: ProcessCount, seconds: float, counts_delays: bool
) -> ProcessRate:
    blocked = (count.blocked_ticks - was.blocked_ticks) / _TICKS_PER_S / seconds * 100
    return ProcessRate(
        count,
        max(0, count.read - was.read) / seconds,
        max(0, count.written - was.written) / seconds,
        max(0, count.cancelled - was.cancelled) / seconds,
        max(0.0, blocked) if counts_delays else None,
        explain(count.comm) if count.is_kernel else "",
        max(0, count.runs - was.runs) / seconds,
    )


def device_rates(before: IoReading, now: IoReading) -> list[DeviceRate]:
    """Answer which devices did something, or have something to do; the busiest first."""
    seconds = now.at_s - before.at_s
    if seconds <= 0:
        return []
    found = []
    for name, count in now.devices.items():
        was = before.devices.get(name, DeviceCount(name, 0, 0, 0, 0))
        rate = DeviceRate(
            count,
            max(0, count.read - was.read) / seconds,
            max(0, count.written - was.written) / seconds,
            min(100.0, max(0, count.busy_ms - was.busy_ms) / seconds / 10),
        )
        if rate.read or rate.written or rate.busy_percent or count.in_flight:
            found.append(rate)
    return sorted(found, key=lambda r: r.read + r.written, reverse=True)
