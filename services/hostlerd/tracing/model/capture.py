"""What is captured, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass, field

NAMES_MOST = 64
"""How many names of processes the kernel can compare with."""

STRACE = "/usr/bin/strace"
"""What traces single processes where the kernel runs no BPF program."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls the kernel keeps; each field narrows it, empty or 0 means any.

    `pids` are processes that are traced with all that they start. `names` are what tasks are
    called when their call ends, at most NAMES_MOST, each of at most 15 bytes. `cgroup`
    is a folder below /sys/fs/cgroup, taken with those below it. `net_namespace` is its inode
    number.
    """

    pids: tuple[int, ...] = ()
    names: tuple[bytes, ...] = ()
    cgroup: str = ""
    net_namespace: int = 0
    syscalls: frozenset[str] = frozenset()
    failed_only: bool = False
    latency_ns: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """What a trace may cost; it ends itself with the first limit that it meets.

    `memory_bytes` is what the ring buffers take, `bytes` what is handed on. `cpu_share` is the
    part of one CPU that collecting takes, with what it adds to the traced calls.
    """

    seconds: float = 3600.0
    events: int = 1 << 40
    bytes: int = 1 << 40
    memory_bytes: int = 80 << 20
    cpu_share: float = 2.0


@dataclass(frozen=True, slots=True)
class Capture:
    """A trace to make. `excluded` are pids that are never traced, beside the collector itself.

    Of what is read and written, the first `payload_bytes` of each call are kept. `cmdlines` and
    `environs` are off unless whoever asks may see them: they carry secrets.
    """

    filter: Filter = field(default_factory=Filter)
    budget: Budget = field(default_factory=Budget)
    payload_bytes: int = 0
    cmdlines: bool = False
    environs: bool = False
    excluded: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Losses:
    """What was seen and not kept: whole events, and names, data or entries of events."""

    seen: int = 0
    events: int = 0
    names: int = 0
    data: int = 0
    entries: int = 0
