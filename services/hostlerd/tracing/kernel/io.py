"""Reads what processes and block devices have read and written. Source: proc(5)."""

from __future__ import annotations

import time

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.model.io import DeviceCount, IoReading, ProcessCount

_PF_KTHREAD = 0x00200000
_SECTOR_BYTES = 512


def reading() -> IoReading:
    """Read what all have done so far."""
    at_s, time_unix_s = time.monotonic(), time.time()
    # Before all else: how long the processes take differs from reading to reading.
    devices = _devices()
    counts_delays = proc.text("/proc/sys/kernel/task_delayacct").strip() == "1"
    processes, hidden = {}, 0
    for pid in proc.processes():
        try:
            processes[pid] = _process(pid, counts_delays)
        except PermissionError:
            hidden += 1
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return IoReading(at_s, time_unix_s, processes, devices, counts_delays, hidden)


def _process(pid: int, counts_delays: bool) -> ProcessCount:
    head, _, rest = proc.read(f"/proc/{pid}/stat").rpartition(b")")
    words = rest.split()
    is_kernel = bool(int(words[6]) & _PF_KTHREAD)
    counts = dict(line.split(b": ") for line in proc.read(f"/proc/{pid}/io").splitlines())
    return ProcessCount(
        pid=pid,
        started_ticks=int(words[19]),
        comm=head.partition(b"(")[2].decode("utf-8", "replace"),
        is_kernel=is_kernel,
        read=int(counts[b"read_bytes"]),
        written=int(counts[b"write_bytes"]),
        cancelled=int(counts[b"cancelled_write_bytes"]),
        blocked_ticks=_blocked_ticks(pid) if counts_delays else 0,
        runs=int(proc.read(f"/proc/{pid}/schedstat").split()[2]) if is_kernel else 0,
    )


def _blocked_ticks(pid: int) -> int:
    """How long the threads of a process have waited; the kernel tells it of each alone."""
    ticks = 0
    for tid in proc.numbers(f"/proc/{pid}/task"):
        _, _, rest = proc.text(f"/proc/{pid}/task/{tid}/stat").rpartition(")")
        if rest:
            ticks += int(rest.split()[39])
    return ticks


def _devices() -> dict[str, DeviceCount]:
    found = {}
    for line in proc.text("/proc/diskstats", proc.MOST_BYTES).splitlines():
        words = line.split()
        found[words[2]] = DeviceCount(
            name=words[2],
            read=int(words[5]) * _SECTOR_BYTES,
            written=int(words[9]) * _SECTOR_BYTES,
            busy_ms=int(words[12]),
            in_flight=int(words[11]),
        )
    return found
