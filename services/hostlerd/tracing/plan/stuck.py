"""Judges two looks at tasks: which are stuck, on what, and who holds it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hostlerd.tracing.model.evidence import Details, Evidence, Filesystem, Process, Target
from hostlerd.tracing.model.finding import DiskState, Finding, Holder, WaitKind
from hostlerd.tracing.model.task import Sample, Task
from hostlerd.tracing.plan import holders, sentence
from hostlerd.tracing.plan.waits import kind_of

# A chain of who waits for whom is followed so far.
_MOST_LINKS = 32
# Being so is being stuck, whoever is at fault.
_ALWAYS = frozenset(
    (
        *(WaitKind.FROZEN, WaitKind.STOPPED, WaitKind.TRACED, WaitKind.FIFO_OPEN),
        WaitKind.STORAGE,
    )
)


@dataclass(frozen=True, slots=True)
class Wait:
    """A task that did not go on, and what it waits for."""

    task: Task
    kind: WaitKind


def suspects(first: Sample) -> tuple[Task, ...]:
    """Answer the tasks that are worth a second look."""
    return tuple(task for task in first.tasks.values() if not task.rests)


def waiting(first: Sample, second: Sample) -> tuple[Task, ...]:
    """Answer the tasks of the second look that have not gone on since the first."""
    return tuple(task for task in second.tasks.values() if not first.tasks[task.tid].went_on(task))


def of_process(first: Sample, pids: Collection[int]) -> tuple[Task, ...]:
    """Answer all threads of processes."""
    return tuple(task for task in first.tasks.values() if task.pid in pids)


def named(first: Sample, name: str) -> frozenset[int]:
    """Answer the processes of a name."""
    return frozenset(t.pid for t in first.tasks.values() if t.tid == t.pid and t.comm == name)


def stuck(first: Sample, still: Sequence[Task], evidence: Evidence) -> tuple[Wait, ...]:
    """Answer the waits that are stuck, those that hold others up first.

    A task that waits for another is stuck if that one is: chains are followed to their ends. For a
    process its first thread counts; of a server with many others nobody knows which would answer.
    """
    waits = [Wait(task, kind_of(task, evidence)) for task in still]
    frozen_idle = [
        Wait(task, WaitKind.FROZEN)
        for task in first.tasks.values()
        if task.pid in evidence.frozen and task.tid == task.pid and task not in still
    ]
    found: dict[int, Wait] = {}
    left = [*frozen_idle, *waits]
    for _ in range(_MOST_LINKS):
        troubled = frozenset(found)
        now = [wait for wait in left if _is_stuck(wait, first, evidence, troubled)]
        if not now:
            break
        found.update({wait.task.tid: wait for wait in now if wait.task.tid not in found})
        left = [wait for wait in left if wait.task.tid not in found]
    return _holders_first(list(found.values()), first, evidence)


def _holders_first(waits: list[Wait], first: Sample, evidence: Evidence) -> tuple[Wait, ...]:
    """Put those that hold others up before them; who waits for each other keeps the order."""
    ordered: list[Wait] = []
    for _ in range(_MOST_LINKS):
        left = {wait.task.tid for wait in waits}
        now = [
            wait
            for wait in waits
            if not (left - {wait.task.tid})
            & {pid for pid, _ in holders.of(wait.task, wait.kind, first, evidence)}
        ]
        ordered += now
        waits = [wait for wait in waits if wait not in now]
        if not now:
            break
    return (*ordered, *waits)


def _is_stuck(wait: Wait, first: Sample, evidence: Evidence, troubled: Collection[int]) -> bool:
    if wait.kind in _ALWAYS:
        return True
    if wait.kind is WaitKind.FILE_LOCK:
        return not holders.takes_turns(wait.task, first, evidence, troubled)
    if wait.task.state == "D" and wait.kind is WaitKind.OTHER:
        return True
    others = holders.of(wait.task, wait.kind, first, evidence)
    if wait.kind is WaitKind.FUTEX:
        return holders.futex_is_stuck(wait.task, first, evidence, troubled)
    if wait.kind is WaitKind.PIPE:
        if not others:
            return holders.sends(wait.task) or not evidence.hidden
        return holders.sends(wait.task) or _all_in(others, troubled)
    if wait.kind is WaitKind.SOCKET:
        return holders.sends(wait.task) or (bool(others) and _all_in(others, troubled))
    if wait.kind is WaitKind.DEVICE:
        return holders.sends(wait.task) or holders.controls(wait.task)
    return False


def _all_in(others: Iterable[tuple[int, str]], troubled: Collection[int]) -> bool:
    return all(pid in troubled for pid, _ in others)


def as_asked(
    first: Sample, second: Sample, evidence: Evidence, pids: Collection[int]
) -> tuple[Wait, ...]:
    """Answer the threads of processes with what each does or waits for, stuck or not."""
    found = []
    for task in of_process(second, pids):
        ran = first.tasks[task.tid].went_on(task)
        kind = kind_of(task, evidence)
        # One that was woken between the looks and waits again is not held up there.
        found.append(Wait(task, WaitKind.RUNNING if ran and not task.rests else kind))
    return tuple(found)


def grouped(waits: Iterable[Wait], evidence: Evidence) -> tuple[tuple[Wait, int], ...]:
    """Put threads of a process that wait for the very same together; answers how many more."""
    found: dict[object, tuple[Wait, int]] = {}
    for wait in waits:
        task = wait.task
        target = evidence.targets.get(task.tid)
        place = task.call.arguments[0] if wait.kind is WaitKind.FUTEX and task.call else None
        name = task.call.name if task.call else ""
        key = (task.pid, wait.kind, name, target and target.name, place)
        if wait.kind in (WaitKind.FROZEN, WaitKind.STOPPED, WaitKind.TRACED, WaitKind.IDLE):
            key = (task.pid, wait.kind, "", None, None)
        before = found.get(key)
        found[key] = (before[0], before[1] + 1) if before else (wait, 0)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Seen:
    """All that findings are made of: both looks, the evidence, and the waits that are stuck."""

    first: Sample
    second: Sample
    evidence: Evidence
    stuck: Mapping[int, WaitKind]
    details: Mapping[int, Details]


def findings(waits: Iterable[tuple[Wait, int]], seen: Seen) -> tuple[Finding, ...]:
    """Tell each wait with its holders, and all of it in a sentence."""
    return tuple(_finding(wait, more, seen) for wait, more in waits)


def _finding(wait: Wait, more: int, seen: Seen) -> Finding:
    task, evidence = wait.task, seen.evidence
    target = evidence.targets.get(task.tid)
    details = seen.details.get(task.tid, Details())
    holding = holders.of(task, wait.kind, seen.first, evidence)
    found = Finding(
        task=task,
        process=evidence.processes.get(task.pid, Process(task.pid, task.comm)),
        kind=wait.kind,
        sentence="",
        target=target,
        holders=tuple(_holder(pid, role, seen) for pid, role in holding),
        disk=_disk(target.device if target else "", seen),
        filesystem=_filesystem(target, holding, evidence),
        wchan=evidence.wchans.get(task.tid, ""),
        stack=details.stack,
        stack_unavailable=details.stack_unavailable,
        not_run_for_s=details.not_run_for_s or 0.0,
        same_threads=more,
        nobody_wakes=wait.kind is WaitKind.FUTEX and holders.nobody_wakes(task.pid, seen.first),
    )
    return replace(found, sentence=sentence.of(found, evidence))


def _filesystem(
    target: Target | None, holding: Iterable[tuple[int, str]], evidence: Evidence
) -> Filesystem | None:
    """The file system that is waited for, or a full one that a holder writes to."""
    full = (evidence.writes_to.get(pid) for pid, _ in holding)
    short_of_room = next((place for place in full if place and holders.is_full(place)), None)
    return short_of_room or (target.filesystem if target else None)


def _holder(pid: int, role: str, seen: Seen) -> Holder:
    tid = 0
    trouble = holders.trouble(pid, seen.first, seen.evidence, seen.stuck.get(pid))
    task = seen.first.tasks.get(pid)
    if task is not None and task.pid != pid:
        # The owner of a futex is a thread, which need not be the first of its process.
        tid, pid = pid, task.pid
    process = seen.evidence.processes.get(pid, Process(pid, task.comm if task else ""))
    if task is None:
        return Holder(process, role, "", tid, "", trouble)
    return Holder(process, role, task.state, tid, task.call.name if task.call else "", trouble)


def _disk(numbers: str, seen: Seen) -> DiskState | None:
    before, now = seen.first.disks.get(numbers), seen.second.disks.get(numbers)
    if before is None or now is None:
        return None
    return DiskState(now.name, numbers, now.in_flight, now.completed - before.completed)
