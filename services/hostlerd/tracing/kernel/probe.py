"""What this host's kernel tells about its tasks, each thing tried for real."""

from __future__ import annotations

from pathlib import Path

from hostlerd.runtime.host import Capability
from hostlerd.tracing.errors import KernelUnreadable
from hostlerd.tracing.kernel import bpf, proc, sockets
from hostlerd.tracing.kernel.bpf import libbpf
from hostlerd.tracing.kernel.strace import trial
from hostlerd.tracing.model.capture import Budget, Capture

# A process that is not ours, and is there on every host.
_OTHER = "/proc/1"
_SMALL_RING_BYTES = 1 << 16


def probe_traces() -> Capability:
    """Whether system calls can be traced: the tracer is loaded, and attached to nothing."""
    try:
        with libbpf.Object(bpf.tracer()) as tracer:
            for name in ("events", "records"):
                tracer.set_max_entries(name, _SMALL_RING_BYTES)
            tracer.load()
    except OSError as e:
        words = e.strerror or str(e)
        return Capability("traces", False, f"{e.filename}: {words}" if e.filename else words)
    return Capability("traces", True)


def probe_traces_by_strace() -> Capability:
    """Whether strace can trace processes, where the tracer cannot: it is run on one of ours."""
    why = trial.why_not()
    return Capability("traces_by_strace", not why, why)


def probe_traces_by_tracefs() -> Capability:
    """Whether tracefs can trace the host, where the tracer cannot: it is set up to, and removed."""
    # numpy comes with it, and a daemon that starts has callers waiting.
    from hostlerd.tracing.kernel.tracefs.engine import TracefsEngine

    try:
        TracefsEngine(Capture(budget=Budget(memory_bytes=_SMALL_RING_BYTES))).probe()
    except OSError as e:
        return Capability("traces_by_tracefs", False, f"{e.filename}: {e.strerror or e}")
    return Capability("traces_by_tracefs", True)


def probe_system_calls() -> Capability:
    """Whether the system calls of all processes can be seen."""
    return _read("system_calls", f"{_OTHER}/syscall")


def probe_kernel_stacks() -> Capability:
    """Whether the kernel's stacks of tasks can be seen."""
    return _read("kernel_stacks", f"{_OTHER}/stack")


def probe_descriptors() -> Capability:
    """Whether it can be seen what processes have open."""
    try:
        next(Path(f"{_OTHER}/fd").iterdir(), None)
    except OSError as e:
        return Capability("descriptors", False, e.strerror or str(e))
    return Capability("descriptors", True)


def probe_process_io() -> Capability:
    """Whether it is counted what processes read and write."""
    return _read("process_io", f"{_OTHER}/io")


def probe_delay_accounting() -> Capability:
    """Whether it is counted for how long tasks wait for disks."""
    try:
        is_on = proc.read("/proc/sys/kernel/task_delayacct").strip() == b"1"
    except OSError as e:
        return Capability("delay_accounting", False, e.strerror or str(e))
    return Capability("delay_accounting", is_on, "" if is_on else "kernel.task_delayacct is 0")


def probe_pressure() -> Capability:
    """Whether the kernel counts how much tasks are held up."""
    return _read("pressure", "/proc/pressure/io")


def probe_unix_peers() -> Capability:
    """Whether the peers of unix sockets can be seen."""
    try:
        sockets.unix_sockets()
    except KernelUnreadable as e:
        return Capability("unix_peers", False, e.message)
    return Capability("unix_peers", True)


PROBES = (
    probe_traces,
    probe_traces_by_strace,
    probe_traces_by_tracefs,
    probe_system_calls,
    probe_kernel_stacks,
    probe_descriptors,
    probe_process_io,
    probe_delay_accounting,
    probe_pressure,
    probe_unix_peers,
)


def _read(name: str, path: str) -> Capability:
    try:
        proc.read(path)
    except OSError as e:
        return Capability(name, False, e.strerror or str(e))
    return Capability(name, True)
