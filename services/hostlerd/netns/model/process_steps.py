"""The steps that changes of processes are made of. None of them tells an environment."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from hostlerd.netns.model.process import Place, Process
from hostlerd.runtime.steps import Step

_SHOWN = 120


@dataclass(frozen=True, slots=True)
class SaveProcess:
    """Record what was asked for."""

    process: Process = field(repr=False)
    before: Process | None = field(default=None, repr=False)

    @property
    def survives_boot(self) -> bool:
        """Whether a record that a boot brings back is written or replaced."""
        return self.process.persistent or bool(self.before and self.before.persistent)

    def describe(self) -> str:
        """Say what it does."""
        how = "for every boot" if self.process.persistent else "until the next boot"
        return f"record process {_title(self.process)} {how}"

    def inverse(self) -> Step:
        """Put the old record back."""
        if self.before:
            return SaveProcess(self.before, self.process)
        return ForgetProcess(self.process.namespace, self.process.name)


@dataclass(frozen=True, slots=True)
class ForgetProcess:
    """Drop the record of a process."""

    namespace: str
    name: str
    before: Process | None = field(default=None, repr=False)

    @property
    def survives_boot(self) -> bool:
        """Whether a boot would have brought it back; of a record that is lost, nobody knows."""
        return self.before is None or self.before.persistent

    def describe(self) -> str:
        """Say what it does."""
        return f"forget process {self.namespace}/{self.name}"

    def inverse(self) -> Step | None:
        """Record it again."""
        return SaveProcess(self.before) if self.before else None


@dataclass(frozen=True, slots=True)
class StartProcess:
    """Start a process in a namespace that is there."""

    process: Process = field(repr=False)
    place: Place

    def describe(self) -> str:
        """Say what it does."""
        command = shlex.join(self.process.argv)
        if len(command) > _SHOWN:
            command = command[:_SHOWN] + "…"
        user = self.process.user or "root"
        return f"start process {_title(self.process)} as {user}: {command}"

    def inverse(self) -> Step:
        """Stop it."""
        return StopProcess(self.process.namespace, self.process.name, self.place)


@dataclass(frozen=True, slots=True)
class StopProcess:
    """Stop a process with its children. `before` is what ran, if it is to be started again."""

    namespace: str
    name: str
    place: Place
    before: Process | None = field(default=None, repr=False)

    def describe(self) -> str:
        """Say what it does."""
        return f"stop process {self.namespace}/{self.name} with its children"

    def inverse(self) -> Step | None:
        """Start it again."""
        return StartProcess(self.before, self.place) if self.before else None


@dataclass(frozen=True, slots=True)
class EvictTasks:
    """End the processes in a namespace that Hostler did not start; `pids` are those seen."""

    namespace: str
    pids: tuple[int, ...]

    def describe(self) -> str:
        """Say what it does."""
        told = ", ".join(map(str, self.pids[:10])) + (" …" if len(self.pids) > 10 else "")
        return f"end what others started in {self.namespace}: {told}"

    def inverse(self) -> Step | None:
        """What others started, others have to start again."""
        return None


@dataclass(frozen=True, slots=True)
class SignalProcess:
    """Send a signal to a process."""

    namespace: str
    name: str
    signal: str

    def describe(self) -> str:
        """Say what it does."""
        return f"send {self.signal} to process {self.namespace}/{self.name}"

    def inverse(self) -> Step | None:
        """A signal cannot be taken back."""
        return None


def _title(process: Process) -> str:
    return f"{process.namespace}/{process.name}"
