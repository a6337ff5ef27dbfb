"""A small real kernel for recovery: named files in a folder, and a process that is killed for real.

`Put` writes a file, `Drop` removes one, `Burn` removes one for good (there is no way back), `Ring`
adds a line to a file that nobody may add twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journal_backing import backed, backing_of

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime import call as call_context
from hostlerd.runtime.access import Method
from hostlerd.runtime.call import Call, Caller
from hostlerd.runtime.edge import Recoverable
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.steps import Plan, Step

METHOD = "/hostler.api.netns.v1.NamespaceService/DeleteNamespace"
IDENTITY = "spiffe://t/user/a"
BODY = "ab" * 32

State = dict[str, str]


@dataclass(frozen=True, slots=True)
class Put:
    name: str
    text: str
    before: str | None = None
    lasting: bool = False

    @property
    def survives_boot(self) -> bool:
        return self.lasting

    def describe(self) -> str:
        return f"put {self.name}"

    def inverse(self) -> Step:
        if self.before is None:
            return Drop(self.name, self.text)
        return Put(self.name, self.before, self.text)


@dataclass(frozen=True, slots=True)
class Drop:
    name: str
    before: str

    def describe(self) -> str:
        return f"drop {self.name}"

    def inverse(self) -> Step:
        return Put(self.name, self.before)


@dataclass(frozen=True, slots=True)
class Burn:
    name: str

    def describe(self) -> str:
        return f"burn {self.name}"

    def inverse(self) -> Step | None:
        return None


@dataclass(frozen=True, slots=True)
class Ring:
    name: str

    def describe(self) -> str:
        return f"ring {self.name}"

    def inverse(self) -> Step | None:
        return None


class Files(Recoverable):
    """Carries out the steps in a folder; a step on what is not as it expects is an error."""

    kinds = (Put, Drop, Burn, Ring)
    one_way = (Burn,)
    unrepeatable = (Ring,)

    def __init__(self, folder: Path, at: Callable[[], None] = lambda: None) -> None:
        self.folder, self.at = folder, at
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def applying(self) -> Iterator[Callable[[Any], None]]:
        yield self._apply

    @contextmanager
    def recovering(self) -> Iterator[Callable[[Any], None]]:
        yield lambda step: self._apply(step, tolerant=True)

    def _apply(self, step: Step, *, tolerant: bool = False) -> None:
        self.at()
        match step:
            case Put():
                path = self.folder / step.name
                if not tolerant and path.exists() != (step.before is not None):
                    raise FileExistsError(17, "not as expected", step.name)
                path.write_text(step.text)
            case Drop() | Burn():
                (self.folder / step.name).unlink(missing_ok=tolerant)
            case Ring():
                with (self.folder / step.name).open("a") as file:
                    file.write("ring\n")
        self.at()

    def state(self) -> State:
        return {p.name: p.read_text() for p in self.folder.iterdir()}


def outcome_of(state: State, steps: Sequence[Step]) -> State:
    """What a state is after all steps, worked out apart from the kernel."""
    after = dict(state)
    for step in steps:
        if isinstance(step, Put):
            after[step.name] = step.text
        elif isinstance(step, Ring):
            after[step.name] = after.get(step.name, "") + "ring\n"
        else:
            del after[step.name]
    return after


def carry_out(folder: Path, steps: Sequence[Step], at: Callable[[], None] = lambda: None) -> Any:
    """Carry out a plan as a daemon would, with a call and a request id."""
    backing, kernel = backing_of(folder), Files(folder / "system", at)
    changes = backed(kernel, folder, backing=backing)
    call = Call(Method(METHOD, "CHANGE"), Caller(IDENTITY, "10.0.0.1:9", False))
    call.body_sha256, call.intent_seq = BODY, 7

    async def work() -> Any:
        call_context.enter(call)
        options = change_pb2.ChangeOptions(request_id="r1")
        return await changes.carry_out(options, lambda: Plan(tuple(steps)))

    try:
        return asyncio.run(work())
    finally:
        at()
        backing.journals.answered(call.change_id)


def killed_at(point: int, folder: Path, work: Callable[[Callable[[], None]], Any]) -> bool:
    """Do `work` in a process that is killed at its n-th point; tells whether it came to that.

    Points are what `work` makes of the function that it is given, and every write and sync.
    """
    pid = os.fork()
    if pid == 0:
        _die_at(point, work)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise AssertionError(f"{folder}: status {status}")
    return os.WIFSIGNALED(status)


def _die_at(point: int, work: Callable[[Callable[[], None]], Any]) -> None:
    seen = 0

    def at() -> None:
        nonlocal seen
        seen += 1
        if seen == point:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("fsync", "fdatasync", "pwrite"):
        _wrap(name, at)
    status = 1
    try:
        with suppress(OSError, DomainError):
            work(at)
        status = 0
    finally:
        # The test's own process must not go on twice.
        os._exit(status)


def _wrap(name: str, at: Callable[[], None]) -> None:
    real = getattr(os, name)

    def call(*arguments: Any) -> Any:
        at()
        result = real(*arguments)
        at()
        return result

    setattr(os, name, call)
