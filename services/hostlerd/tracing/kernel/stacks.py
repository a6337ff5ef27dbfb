"""The kernel stacks of tasks, without the CAP_SYS_ADMIN that /proc/PID/stack wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hostlerd.tracing.kernel.bpf import STACKS, libbpf

MAX_TASKS = 4096


def kernel_stacks(tids: Iterable[int]) -> Mapping[int, tuple[str, ...]]:
    """The functions that each of these tasks is in, innermost first; without those that are gone.

    A task that runs has none. Raises OSError where the kernel refuses, and for more than
    MAX_TASKS.
    """
    with libbpf.Object(STACKS) as tracer:
        tracer.load()
        memory = tracer.memory(".data.config")
        memory[:4] = Path("/proc/self/ns/pid").stat().st_ino.to_bytes(4, "little")
        for tid in tids:
            libbpf.update(tracer.map_fd("wanted"), tid.to_bytes(4, "little"), b"\1")
        return _parsed(libbpf.iterate(tracer.attach("stacks")))


def _parsed(text: bytes) -> dict[int, tuple[str, ...]]:
    stacks: dict[int, tuple[str, ...]] = {}
    tid = 0
    for line in text.decode("ascii", "replace").splitlines():
        if line.startswith(" "):
            # futex_wait_queue+0x63/0x90
            stacks[tid] += (line[1:].partition("+")[0],)
        else:
            tid = int(line)
            stacks[tid] = ()
    return stacks
