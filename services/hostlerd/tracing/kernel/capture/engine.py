"""The capture engine: a tracer in the kernel that tells, and here what it tells becomes events."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np

from hostler.core.trace.events import COLUMNS, Column, Events
from hostlerd.tracing.kernel import bpf
from hostlerd.tracing.kernel.bpf import layout, libbpf
from hostlerd.tracing.kernel.bpf.rings import Ring
from hostlerd.tracing.kernel.capture.calls import call_table
from hostlerd.tracing.kernel.capture.spending import Spending
from hostlerd.tracing.kernel.capture.tables import Tables
from hostlerd.tracing.kernel.traceable import is_alive
from hostlerd.tracing.model.capture import Capture, Losses

DONE = "done"
"""Why a trace ended whose processes have all ended; else it is the name of a limit of Budget."""

# The order matters: whoever is traced from its start must be known before its first call.
_PROGRAMS = ("on_fork", "on_process_exit", "on_exec", "on_exit", "on_enter")
_CPUS = Path("/sys/devices/system/cpu/possible")
# So many events are taken at once: a block of them, 8 MB, a fraction of a second.
_LIMIT = 1 << 16
_PAUSE_S = 0.02
# A batch costs about as much as a thousand events: a few come together before one is made.
_GATHER_S = 0.1
_GATHER_PART = 8
# A program that runs in the kernel has ended after this time, by far.
_GRACE_S = 0.01
_AS_TOLD = (
    *("latency_ns", "cpu", "flags", "syscall", "result", "tid", "process", "file", "fd"),
    *("path", "path2", "data"),
)


class Engine:
    """One trace. `start` attaches it, `read` answers what has come, `stop` detaches it.

    `has_ended` says that no more is seen, `ended` why, if it ended by itself. `rows_kept` is how
    many rows a table has before what is old in it is let go.
    """

    def __init__(self, capture: Capture, rows_kept: int = 1 << 17) -> None:
        self._capture = capture
        self._rows_kept = rows_kept
        self._object: libbpf.Object | None = None
        self._number = 0
        self._lost = 0
        self._forgetting: tuple[int, list[int]] | None = None
        self.ended = ""
        self.has_ended = False

    def start(self) -> None:
        """Load, set and attach the tracer. Raises OSError where the kernel refuses it."""
        tracer = self._object = libbpf.Object(bpf.tracer())
        try:
            self._load(tracer)
            self._configure(tracer)
            for name in _PROGRAMS:
                tracer.attach(name)
        except OSError:
            tracer.close()
            self._object = None
            raise
        self._spending = Spending(self._capture.budget)
        self._config["is_on"] = 1
        self._follow(tracer, descendants(self._capture.filter.pids))
        self._leave_gone(tracer)

    def read(self, timeout_s: float) -> Events:
        """Answer the next events, waiting up to `timeout_s` for the first; empty if none came."""
        self._wait(1, timeout_s)
        if self._events.waiting_bytes():
            self._wait(self._events.size_bytes // _GATHER_PART, min(timeout_s, _GATHER_S))
        told = self._events.look(layout.EVENT, min(_LIMIT, self._spending.events_left()))
        columns = self._columns(told)
        self._events.release(told)
        # What an event points to was told before it: all that was told by now covers them.
        self._tables.take(self._records.take_mixed(self._records.end()))
        batch = self._tables.events(columns, self._newly_lost())
        self._end_if(self._spending.spend(len(batch), _bytes_of(batch), self.losses.seen))
        if not len(batch) and self._capture.filter.pids and self._are_all_gone():
            self._end_if(DONE)
        self._forget()
        return batch

    def end(self, reason: str) -> None:
        """Detach the tracer; what it told before can still be read."""
        if not self.has_ended and self._object:
            self.has_ended = True
            self.ended = reason
            self._config["is_on"] = 0
            self._object.detach()

    def stop(self) -> None:
        """End because it is wanted."""
        self.end("")

    def close(self) -> None:
        """Stop, and give everything back; nothing can be read after that."""
        self.stop()
        if self._object:
            self._object.close()
            self._object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def losses(self) -> Losses:
        """What was seen and what of it was lost, since the start."""
        total = [int(self._counts[name].sum()) for name in layout.COUNT.names or ()]
        return Losses(*total[:5])

    def _load(self, tracer: libbpf.Object) -> None:
        events_bytes, records_bytes = _ring_sizes(self._capture.budget.memory_bytes)
        tracer.set_max_entries("events", events_bytes)
        tracer.set_max_entries("records", records_bytes)
        cpus = _possible_cpus()
        tracer.set_max_entries("rooms", cpus)
        takes_data = self._capture.payload_bytes or self._capture.cmdlines or self._capture.environs
        tracer.set_max_entries("data_rooms", cpus if takes_data else 1)
        tracer.load()
        self._events = Ring(tracer.map_fd("events"), events_bytes)
        self._records = Ring(tracer.map_fd("records"), records_bytes)
        self._config = np.frombuffer(tracer.memory(".data.config"), layout.CONFIG, 1)[0]
        counts = np.frombuffer(tracer.memory(".data.counts"), layout.COUNT, layout.COUNTS)
        self._counts = counts[:cpus]
        self._next_ids = np.frombuffer(tracer.memory(".data.ids"), "<u4", 3)
        now_ns = time.time_ns()
        self._epoch_ns = now_ns - time.monotonic_ns()
        self._tables = Tables(now_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def _configure(self, tracer: libbpf.Object) -> None:
        wanted, config = self._capture.filter, self._config
        excluded = (os.getpid(), *self._capture.excluded)[:4]
        config["excluded"][: len(excluded)] = excluded
        config["pid_namespace"] = Path("/proc/self/ns/pid").stat().st_ino
        config["net_namespace"] = wanted.net_namespace
        config["latency_ns"] = wanted.latency_ns
        config["seed"] = int.from_bytes(os.urandom(8), "little")
        config["payload_bytes"] = min(self._capture.payload_bytes, layout.DATA_BYTES)
        config["calls"] = call_table(wanted.syscalls)
        self._follow(tracer, wanted.pids)
        for name in wanted.names:
            libbpf.update(tracer.map_fd("comms"), name[:15].ljust(16, b"\0"), b"\1")
        if wanted.cgroup:
            folder = os.open(wanted.cgroup, os.O_RDONLY | os.O_DIRECTORY)
            try:
                libbpf.update(tracer.map_fd("cgroup"), bytes(4), folder.to_bytes(4, "little"))
            finally:
                os.close(folder)
        config["options"] = (
            (layout.BY_TREE if wanted.pids else 0)
            | (layout.BY_COMM if wanted.names else 0)
            | (layout.BY_CGROUP if wanted.cgroup else 0)
            | (layout.FAILED_ONLY if wanted.failed_only else 0)
            | (layout.CMDLINES if self._capture.cmdlines else 0)
            | (layout.ENVIRONS if self._capture.environs else 0)
        )

    def _wait(self, want_bytes: int, timeout_s: float) -> None:
        """Wait until so much is there to be read, the trace ends, or the time does."""
        give_up = time.monotonic() + timeout_s
        while self._events.waiting_bytes() < want_bytes and not self.has_ended:
            left_s = give_up - time.monotonic()
            if left_s <= 0:
                break
            time.sleep(min(_PAUSE_S, left_s))
            self._end_if(self._spending.spend(0, 0, self.losses.seen))

    def _follow(self, tracer: libbpf.Object, pids: Iterable[int]) -> None:
        for pid in pids:
            libbpf.update(tracer.map_fd("tree"), pid.to_bytes(4, "little"), b"\1")
        # What the tracer remembers of who is in the tree is of the tree before.
        self._config["tree_version"] += 1

    def _leave_gone(self, tracer: libbpf.Object) -> None:
        """Follow no more who ended before the tracer was there to see it: nobody would say so."""
        for pid in self._capture.filter.pids:
            if not is_alive(pid):
                libbpf.delete(tracer.map_fd("tree"), pid.to_bytes(4, "little"))

    def _are_all_gone(self) -> bool:
        assert self._object  # noqa: S101 - only read after start
        return not any(libbpf.keys(self._object.map_fd("tree"), 4))

    def _end_if(self, reason: str) -> None:
        if reason:
            self.end(reason)

    def _newly_lost(self) -> int:
        lost = int(self._counts["lost"].sum())
        new, self._lost = lost - self._lost, lost
        self._number += new
        return new

    def _columns(self, told: Column) -> dict[str, Column]:
        first, self._number = self._number + 1, self._number + len(told)
        columns: dict[str, Column] = {name: told[name] for name in _AS_TOLD}
        columns["number"] = np.arange(first, self._number + 1, dtype="<u8")
        columns["time_ns"] = told["entry_ns"] + np.uint64(self._epoch_ns)
        for i in range(6):
            columns[f"arg{i}"] = told["args"][:, i]
        return {name: np.array(columns[name], kind) for name, kind in COLUMNS.items()}

    def _forget(self) -> None:
        """Let go of old rows: first the tracer is to tell all anew, then what it told is in use.

        Events that were made before point to old rows, so these go when those have been read.
        """
        if self._forgetting:
            position, floors = self._forgetting
            if self._events.start() >= position:
                self._tables.forget(*floors)
                self._forgetting = None
        elif self._tables.size() > self._rows_kept:
            floors = [int(number) + 1 for number in self._next_ids]
            self._config["floor"] = floors
            time.sleep(_GRACE_S)
            self._forgetting = (self._events.end(), floors)


def _bytes_of(batch: Events) -> int:
    columns = sum(column.nbytes for column in batch.columns.values())
    return columns + batch.processes.nbytes + batch.files.nbytes + sum(map(len, batch.texts))


def _ring_sizes(memory_bytes: int) -> tuple[int, int]:
    """The largest sizes, powers of two, that both rings together keep within `memory_bytes`."""
    records = 1 << max(16, (memory_bytes // 5).bit_length() - 1)
    return records * 4, records


def _possible_cpus() -> int:
    return int(_CPUS.read_text("ascii").strip().replace(",", "-").split("-")[-1]) + 1


def descendants(roots: Iterable[int]) -> set[int]:
    """The processes that these have started, and so on; one that starts now is seen by on_fork."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                children = {int(pid) for pid in task.read_text("ascii").split()}
            except (FileNotFoundError, ProcessLookupError):
                continue
            waiting += children - found
            found |= children
    return found
