"""The edge of the tracing domain to the system: reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hostlerd.tracing.kernel import io, links, memory, pressure, proc, socket_list, tasks
from hostlerd.tracing.kernel.connections import Connections
from hostlerd.tracing.kernel.evidence import Collector
from hostlerd.tracing.kernel.processes import process
from hostlerd.tracing.model.connection import ConnectionReading
from hostlerd.tracing.model.evidence import Details, Evidence, Process
from hostlerd.tracing.model.finding import Pressure, Unseen
from hostlerd.tracing.model.io import IoReading
from hostlerd.tracing.model.link import LinkReading
from hostlerd.tracing.model.memory import Zones
from hostlerd.tracing.model.socket import Entry
from hostlerd.tracing.model.task import Sample, Task


class Kernel:
    """Observes the tasks of the host."""

    def __init__(self) -> None:
        self._connections = Connections()

    def look(self) -> Sample:
        """Look at all tasks."""
        return tasks.sample(proc.processes())

    def look_again(self, first: Sample, tids: Iterable[int]) -> Sample:
        """Look at some of them once more."""
        return tasks.again(first, tids)

    def evidence(
        self, waiting: Iterable[Task], others: Iterable[int] = ()
    ) -> tuple[Evidence, tuple[Unseen, ...]]:
        """Find out what tasks wait for, and what could not be found out."""
        collector = Collector()
        evidence = collector.collect(waiting, others)
        unseen = []
        if collector.peers.problem:
            unseen.append(Unseen("PEERS_UNKNOWN", collector.peers.problem))
        if evidence.hidden:
            words = f"{evidence.hidden} processes do not show what they have open"
            unseen.append(Unseen("DESCRIPTORS_HIDDEN", words))
        return evidence, tuple(unseen)

    def details(self, waiting: Iterable[Task]) -> Mapping[int, Details]:
        """Look up stacks, and for how long tasks have not run."""
        now_ms = _ran_at_ms("/proc/thread-self")
        return {task.tid: _details(task, now_ms) for task in waiting}

    def named(self, pids: Iterable[int]) -> Mapping[int, Process]:
        """What processes are called."""
        return {pid: process(pid) for pid in pids}

    def memory(self) -> tuple[Mapping[str, int], Zones]:
        """What the kernel says of its memory. Raises KernelUnreadable."""
        return memory.meminfo(), memory.zones()

    def io(self) -> IoReading:
        """What processes and disks have read and written."""
        return io.reading()

    def links(self) -> LinkReading:
        """What links have carried."""
        return links.reading()

    def connections(self) -> ConnectionReading:
        """What connections have carried. Raises KernelUnreadable."""
        return self._connections.reading()

    def sockets(self) -> tuple[list[Entry], tuple[Unseen, ...]]:
        """All sockets, and what could not be seen."""
        return socket_list.entries()

    def pressure(self) -> tuple[Pressure, ...]:
        """The pressure of the host's resources."""
        return pressure.read()


def _details(task: Task, now_ms: float | None) -> Details:
    folder = f"/proc/{task.pid}/task/{task.tid}"
    stack, why = _stack(folder)
    ran_ms = _ran_at_ms(folder)
    if now_ms is None or ran_ms is None:
        return Details(stack, why)
    return Details(stack, why, max(0.0, now_ms - ran_ms) / 1000)


def _stack(folder: str) -> tuple[tuple[str, ...], str]:
    try:
        lines = proc.read(f"{folder}/stack").decode("ascii", "replace").splitlines()
    except PermissionError:
        return (), "the kernel shows stacks to CAP_SYS_ADMIN alone, which this daemon does not have"
    except OSError as e:
        return (), e.strerror or str(e)
    return tuple(line.partition("] ")[2] for line in lines), ""


def _ran_at_ms(folder: str) -> float | None:
    """When a task last began to run, by the scheduler's clock. Source: /proc/PID/sched."""
    told = proc.fields(f"{folder}/sched").get("se.exec_start", "")
    return float(told) if told else None
