"""What processes and block devices read and write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessCount:
    """What a process has read and written so far, in bytes. Source: proc(5), /proc/PID/io.

    `blocked_ticks` is how long its threads have waited for storage, by hundredths of a second;
    `runs` how often a thread of the kernel got a CPU, 0 for others.
    """

    pid: int
    started_ticks: int
    comm: str
    is_kernel: bool
    read: int
    written: int
    cancelled: int
    blocked_ticks: int
    runs: int = 0


@dataclass(frozen=True, slots=True)
class DeviceCount:
    """What a block device has done so far: bytes, and milliseconds in which it was busy."""

    name: str
    read: int
    written: int
    busy_ms: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class IoReading:
    """What all had done at a time: `at_s` by a clock that only goes on, `time_unix_s`."""

    at_s: float
    time_unix_s: float
    processes: Mapping[int, ProcessCount]
    devices: Mapping[str, DeviceCount]
    counts_delays: bool
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class ProcessRate:
    """What a process did, for each second; `blocked_percent` None if that is not counted."""

    count: ProcessCount
    read: float
    written: float
    cancelled: float
    blocked_percent: float | None
    explanation: str
    runs: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """What a device did, for each second."""

    count: DeviceCount
    read: float
    written: float
    busy_percent: float
