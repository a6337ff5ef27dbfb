"""Puts a finding into one sentence: who waits, in which call, for what, and who holds it."""

from __future__ import annotations

from hostlerd.tracing.model.evidence import Evidence, Process
from hostlerd.tracing.model.finding import Finding, Holder, WaitKind

_MOST_NAMED = 3
# wchan of who waits for the end of fsfreeze(8), in kernels new and old.
_FREEZES = frozenset(("percpu_rwsem_wait", "__percpu_down_read", "__sb_start_write"))


def of(finding: Finding, evidence: Evidence) -> str:
    """Tell a finding in a sentence, with the evidence."""
    parts = [f"{_who(finding)} {_waits(finding, evidence)}{_since(finding)}"]
    parts += _because(finding, evidence)
    parts += [_holder(holder) for holder in finding.holders[:_MOST_NAMED]]
    if len(finding.holders) > _MOST_NAMED:
        parts.append(f"and {len(finding.holders) - _MOST_NAMED} more do")
    return "; ".join(parts)


def _who(finding: Finding) -> str:
    name = _name(finding.process)
    if finding.task.tid != finding.task.pid:
        name += f", thread {finding.task.comm} ({finding.task.tid}),"
    if finding.same_threads:
        name += f" with {finding.same_threads} more threads"
    return name


def _name(process: Process) -> str:
    return f"{process.comm or 'a process'} ({process.pid})"


def _waits(finding: Finding, evidence: Evidence) -> str:
    kind = finding.kind
    if kind is WaitKind.FROZEN:
        return f"is frozen with its control group {evidence.frozen.get(finding.task.pid, '')}"
    if kind is WaitKind.STOPPED:
        return "is stopped by a signal"
    if kind is WaitKind.TRACED:
        return "is held by a tracer"
    if kind is WaitKind.RUNNING:
        return "goes on"
    return f"waits{_in_call(finding)}"


def _in_call(finding: Finding) -> str:
    call, target = finding.task.call, finding.target
    words = f" in {call.name}" if call else " in the kernel"
    if target is not None:
        fd = call.fd if call else None
        words += f" on fd {fd} → {target.name}" if fd is not None else f" of {target.name}"
    if finding.wchan and (finding.task.state == "D" or call is None):
        words += f" at {finding.wchan}"
    return words


def _since(finding: Finding) -> str:
    seconds = finding.not_run_for_s
    if seconds < 1 or finding.kind is WaitKind.RUNNING:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f", for {seconds / size:.0f} {unit}"
    return f", for {seconds:.0f} s"


def _because(finding: Finding, evidence: Evidence) -> list[str]:
    """Tell what holds it up where that is no process."""
    parts = []
    if finding.kind is WaitKind.FUTEX:
        parts += _of_futex(finding, evidence)
    elif finding.kind is WaitKind.FIFO_OPEN and not finding.holders:
        parts.append(f"nobody{_seen(evidence)} has opened the other end")
    elif finding.kind is WaitKind.PIPE and not finding.holders:
        parts.append(f"nobody else{_seen(evidence)} has the other end open")
    elif finding.kind is WaitKind.SOCKET:
        peer = evidence.peers.get(finding.task.tid)
        if peer is not None:
            queued = f" with {peer.queued} unread" if peer.queued else ""
            parts.append(f"it is {peer.words}{queued}")
    disk = finding.disk
    if disk is not None and finding.kind is WaitKind.STORAGE:
        parts.append(
            f"{disk.name} ({disk.numbers}) has {disk.in_flight} requests in flight"
            f" and finished {disk.completed} meanwhile"
        )
    place = finding.filesystem
    if place is not None and finding.kind is WaitKind.STORAGE:
        words = f"the file system is {place.type} at {place.mount_point}"
        parts.append(words + (", frozen as it seems" if finding.wchan in _FREEZES else ""))
    return parts


def _seen(evidence: Evidence) -> str:
    return " that can be seen" if evidence.hidden else ""


def _of_futex(finding: Finding, evidence: Evidence) -> list[str]:
    futex = evidence.futexes.get(finding.task.tid)
    if futex is None:
        return []
    if futex.owner_is_gone:
        return [f"the owner of the lock, {futex.owner or 'unknown'}, is gone"]
    if finding.nobody_wakes and not finding.holders:
        return ["all threads of the process wait so, and nobody seen could wake them"]
    return []


def _holder(holder: Holder) -> str:
    name = _name(holder.process)
    if holder.tid:
        name += f", thread {holder.tid},"
    trouble = f" and {holder.trouble}" if holder.trouble else ""
    if not holder.trouble and holder.call:
        trouble = f", itself in {holder.call}"
    return f"{name} {holder.role}{trouble}"
