"""The edge to the system: reads namespaces and carries out steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hostlerd.netns.kernel.counter import read_counters
from hostlerd.netns.kernel.etc import EtcFolders
from hostlerd.netns.kernel.handles import Handles, inodes
from hostlerd.netns.kernel.observe import observe
from hostlerd.netns.kernel.records import Records
from hostlerd.netns.kernel.recovering import Recovering
from hostlerd.netns.kernel.session import KINDS, Session
from hostlerd.netns.kernel.tasks import Tasks, proc_tasks
from hostlerd.netns.model.counter import LinkCounters
from hostlerd.netns.model.process_steps import EvictTasks, SignalProcess, StopProcess
from hostlerd.netns.model.seen import State
from hostlerd.netns.model.steps import CreateNetns, PublishNetns, RemoveNetns
from hostlerd.runtime.edge import Recoverable
from hostlerd.runtime.steps import Step


class Kernel(Recoverable):
    """The namespaces of the host.

    `handles` makes the handles in /run/netns, `tasks` finds processes, `others` carries out steps
    that are not about namespaces, by their type.
    """

    def __init__(
        self,
        state_dir: Path,
        run_dir: Path,
        *,
        handles: Handles,
        tasks: Tasks = proc_tasks,
        others: Mapping[type, Callable[[Any], None]] = MappingProxyType({}),
    ) -> None:
        self._records = Records(state_dir, run_dir)
        self._etc = EtcFolders(run_dir)
        self._handles = handles
        self._tasks = tasks
        self._others = others

    def observe(self, names: Collection[str] | None = None) -> State:
        """Read the state; what is inside is read of the namespaces of `names`, None means all."""
        return observe(self._records, self._etc, names)

    @contextmanager
    def applying(self) -> Iterator[Callable[[Step], None]]:
        """Open the session of one change; it yields the function that carries out a step."""
        session = Session(self._records, self._etc, self._handles, self._others)
        try:
            yield session.apply
        finally:
            session.close()

    @property
    def kinds(self) -> Collection[type]:
        """The steps of namespaces, and those that others carry out."""
        return (*KINDS, *self._others)

    @property
    def one_way(self) -> Collection[type]:
        """What takes away a thing that cannot be had back as it was."""
        return (RemoveNetns, StopProcess, EvictTasks)

    @property
    def unrepeatable(self) -> Collection[type]:
        """Nobody can tell whether a signal has arrived."""
        return (SignalProcess,)

    @contextmanager
    def recovering(self) -> Iterator[Callable[[Step], None]]:
        """Open a session in which what is as wanted already, or has gone, is no error."""
        session = Recovering(self._records, self._etc, self._handles, self._others)
        try:
            yield session.apply
        finally:
            session.close()

    def resume_at(self, steps: Sequence[Step], begun: int) -> int:
        """Answer the first namespace without a handle: it went with its process, links and all."""
        published = {
            name for step in steps[:begun] if isinstance(step, PublishNetns) for name in step.names
        }
        gone = (
            at
            for at, step in enumerate(steps[: begun + 1])
            if isinstance(step, CreateNetns) and step.name not in published
        )
        return next(gone, begun)

    def processes(self, inode: int) -> Sequence[int]:
        """List the processes in a network namespace by its inode; none for 0."""
        return tuple(self._tasks(inode).by_inode.get(inode, ())) if inode else ()

    def processes_by_inode(self) -> Mapping[int, Sequence[int]]:
        """List the processes of the host by their network namespace's inode."""
        return self._tasks(0).by_inode

    def processes_of_many(self) -> Callable[[int], Sequence[int]]:
        """Look at all processes at once; what is answered is `processes`, as of this moment."""
        found = self._tasks(0)
        if found.truncated:
            # Those left out may be in the very namespace that is asked for.
            return self.processes
        return lambda inode: tuple(found.by_inode.get(inode, ())) if inode else ()

    def host_inode(self) -> int:
        """Answer the inode of the host's own network namespace."""
        return Path("/proc/thread-self/ns/net").stat().st_ino

    def counters(self, namespace: str) -> tuple[LinkCounters, ...]:
        """Read the counters of the links of a namespace, of the host if it is empty."""
        return read_counters(namespace)

    def sweep(self) -> None:
        """Drop what is left of killed writers, and of namespaces that went with their processes.

        Only while no change is carried out: it would take a namespace in the making for a rest.
        """
        self._records.sweep()
        there = inodes()
        for name, record in self._records.all().items():
            if record.namespace and record.namespace.remove_with_processes and name not in there:
                self._etc.remove(name)
                self._records.forget(name)

    def persistent(self) -> Sequence[str]:
        """Name the namespaces that a boot brings back."""
        return self._records.persistent()
