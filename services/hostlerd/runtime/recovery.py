"""What becomes of changes that were cut off, and how those that wait are taken back.

A change that was cut off is undone if each step that was begun can be, else it is carried on to its
end. Either way that is written into the audit log before the journal goes, and a retry of the
request is told. After a boot only what survives one is looked at: the rest went with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hostler.api.common.v1 import change_pb2
from hostler.core.audit import Anchor
from hostlerd.runtime.answers import Answers, Key, answer_of
from hostlerd.runtime.codec import CodecInvalid
from hostlerd.runtime.edge import Edge, survives_boot
from hostlerd.runtime.errors import DomainError, RollbackFailed
from hostlerd.runtime.journal import (
    APPLIED,
    UNDONE,
    WAITING,
    Found,
    Header,
    Journal,
    JournalInvalid,
    Journals,
    NothingBegun,
)
from hostlerd.runtime.locks import ChangeInProgress, ChangeLock
from hostlerd.runtime.log import get_log
from hostlerd.runtime.steps import Step

log = get_log("runtime.recovery")

_SHOWN = 100
# How long the caller of a change may take to be answered before it is taken back.
_PATIENCE_S = 10.0
# Faults of ours. They must not keep a daemon from starting, or a revert from going on.
_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Recovered:
    """A change that was cut off, and what was done about it.

    `outcome` is INTERRUPTED if it was undone, APPLIED or PENDING_CONFIRM if it stands, UNKNOWN if
    nobody can tell or neither could be done. `begun` says whether any step was.
    """

    header: Header
    outcome: change_pb2.Outcome
    begun: bool
    words: str
    steps: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the change stands."""
        return self.outcome in (change_pb2.OUTCOME_APPLIED, change_pb2.OUTCOME_PENDING_CONFIRM)


Tell = Callable[[Recovered], None]
"""Is told of a recovered change before its journal goes. What it must not lose it has on disk."""


class Log(Protocol):
    """The audit log."""

    def write(self, **fields: Any) -> Anchor:
        """Write a record and wait for the disk. Raises OSError."""
        ...


class Recovery:
    """Recovers the changes of a domain. All its methods block."""

    def __init__(self, lock: ChangeLock, journals: Journals, answers: Answers) -> None:
        self._lock = lock
        self._journals = journals
        self._answers = answers
        self._log: Log | None = None
        self._edges: dict[str, Edge] = {}
        self._tells: list[Tell] = []
        self.failed: tuple[str, ...] = ()

    def add(self, name: str, edge: Edge) -> None:
        """Have the changes of an edge recovered here."""
        self._edges[name] = edge

    def record_in(self, audit: Log) -> None:
        """Have what is recovered written into the audit log."""
        self._log = audit

    def tell(self, listener: Tell) -> None:
        """Have somebody told of each recovered change."""
        self._tells.append(listener)

    def at_start(self, then: Callable[[], None] | None = None) -> tuple[Recovered, ...]:
        """Recover what is found, and then do `then`, both under the lock.

        If another process holds that, it has looked before it began, and a change of this one will
        look again: nothing is done.
        """
        try:
            with self._lock.held_here(wait_s=0):
                recovered = self.look()
                if then is not None:
                    then()
                return recovered
        except ChangeInProgress:
            log.info("another process changes something: it has recovered what was to be")
            return ()

    def look(self) -> tuple[Recovered, ...]:
        """Recover what was cut off, if anything was. The caller holds the lock."""
        recovered = []
        for path in self._journals.cut_off():
            try:
                done = self._recover(path)
            except OSError as e:
                # A disk that fails must not keep a daemon from starting; the journal stays.
                log.error("a journal cannot be dealt with", journal=path, error=_words(e))
                continue
            if done is not None:
                recovered.append(done)
        self.failed = tuple(path.stem for path in self._journals.failed())
        return tuple(recovered)

    def undo(self, change_id: str, *, last: bool = True) -> tuple[str, ...]:
        """Take back a change that waits to be confirmed; answers its steps, newest first.

        One that is not there has been taken back, or forgotten: nothing is done. What a kill has
        cut off is gone on with. The caller holds the lock. Raises RollbackFailed, OSError; then
        the journal stays: for the next try, or if this is the `last` one, marked as failed.
        """
        if any(path.stem == change_id for path in self._journals.failed()):
            raise RollbackFailed("it could not be taken back before", change=change_id)
        path = self._journals.waiting(change_id)
        opened = Journal.reopen(path, _PATIENCE_S) if path is not None else None
        if opened is None:
            return ()
        journal, found = opened
        try:
            edge, steps = self._decoded(found)
            words = self._back(edge, journal, steps, found)
        except (DomainError, OSError, CodecInvalid, *_FAULTS) as e:
            log.error("a pending change cannot be taken back", change=change_id, error=_words(e))
            if last:
                journal.fail()
            journal.abandon()
            raise RollbackFailed(
                f"taking back {found.header.method}: {_words(e)}", change=change_id
            ) from e
        journal.end(UNDONE)
        journal.close()
        return words

    def _recover(self, path: Path) -> Recovered | None:
        try:
            opened = Journal.reopen(path)
        except NothingBegun:
            log.info("a change was cut off before it began", journal=path)
            path.unlink(missing_ok=True)
            return None
        except JournalInvalid as e:
            log.error("a journal cannot be read", journal=path, problem=e)
            path.rename(path.with_suffix(".failed"))
            return None
        if opened is None:
            return None
        journal, found = opened
        try:
            # Another process of the domain may have the edge that is missing here.
            return self._finish(journal, found) if found.header.edge in self._edges else None
        finally:
            journal.abandon()

    def _finish(self, journal: Journal, found: Found) -> Recovered:
        """Undo it or go on with it, tell everybody, and close its journal."""
        recovered = self._fate(journal, found)
        self._report(recovered, lasts=found.path.parent == self._journals.lasting)
        if recovered.outcome == change_pb2.OUTCOME_UNKNOWN and not journal.ended:
            journal.fail()
        else:
            journal.close()
        return recovered

    def _fate(self, journal: Journal, found: Found) -> Recovered:
        """Undo it or go on with it, and answer what became of it."""
        header = found.header
        if found.ended == UNDONE:
            outcome = change_pb2.OUTCOME_ROLLED_BACK
            return Recovered(header, outcome, False, "it had failed and was undone already")
        if found.ended:
            waits = found.ended == WAITING
            outcome = change_pb2.OUTCOME_PENDING_CONFIRM if waits else change_pb2.OUTCOME_APPLIED
            return Recovered(header, outcome, True, "it was done; its caller was not answered")
        if not found.begun:
            outcome = change_pb2.OUTCOME_INTERRUPTED
            journal.end(UNDONE)
            return Recovered(header, outcome, False, "nothing of it had begun")
        try:
            return self._settle(journal, found)
        except (DomainError, OSError, CodecInvalid, *_FAULTS) as e:
            words = f"{_far(found)}; it could be neither undone nor finished: {_words(e)}"
            log.error("a change cannot be recovered", journal=found.path, problem=words)
            return Recovered(header, change_pb2.OUTCOME_UNKNOWN, True, words)

    def _settle(self, journal: Journal, found: Found) -> Recovered:
        header = found.header
        edge, steps = self._decoded(found)
        begun = steps[: found.begun]
        if found.undo is None and type(begun[-1]) in edge.kernel.unrepeatable:
            words = f"it was cut off in: {begun[-1].describe()}; whether that was done is not known"
            try:
                edge.kernel.settle(begun)
            except (DomainError, OSError) as e:
                words += f", and it may go on still: {_words(e)}"
            journal.end(APPLIED)
            return Recovered(header, change_pb2.OUTCOME_UNKNOWN, True, words)
        edge.kernel.settle(begun)
        if found.undo is not None or _can_go_back(edge, begun):
            told = self._back(edge, journal, steps, found)
            journal.end(UNDONE)
            words = f"{_far(found)}; all of it was undone"
            return Recovered(header, change_pb2.OUTCOME_INTERRUPTED, True, words, told)
        told = self._forth(edge, steps, found)
        journal.end(WAITING if header.group else APPLIED)
        outcome = change_pb2.OUTCOME_PENDING_CONFIRM if header.group else change_pb2.OUTCOME_APPLIED
        return Recovered(header, outcome, True, f"{_far(found)}; the rest was done", told)

    def _decoded(self, found: Found) -> tuple[Edge, list[Step]]:
        edge = self._edges.get(found.header.edge)
        if edge is None:
            raise CodecInvalid(f"nobody here carries out steps of {found.header.edge}")
        return edge, [edge.registry.decode(step) for step in found.header.steps]

    def _back(
        self, edge: Edge, journal: Journal, steps: Sequence[Step], found: Found
    ) -> tuple[str, ...]:
        """Undo the steps that were begun, newest first, from where a kill has cut that off."""
        last = found.begun - 1 if found.undo is None else found.undo
        told = []
        with edge.kernel.recovering() as apply:
            for at in range(last, -1, -1):
                inverse = steps[at].inverse()
                if inverse is None or not self._there(found, steps[at]):
                    continue
                journal.undoing(at)
                apply(inverse)
                told.append(inverse.describe())
        return tuple(told)

    def _forth(self, edge: Edge, steps: Sequence[Step], found: Found) -> tuple[str, ...]:
        told = []
        start = edge.kernel.resume_at(steps, found.begun - 1)
        with edge.kernel.recovering() as apply:
            for step in steps[start:]:
                if self._there(found, step):
                    apply(step)
                    told.append(step.describe())
        return tuple(told)

    def _there(self, found: Found, step: Step) -> bool:
        """Whether what a step has done can still be there: a boot leaves only what survives it."""
        return found.header.boot_id == self._journals.boot_id or survives_boot(step)

    def _report(self, recovered: Recovered, *, lasts: bool) -> None:
        header = recovered.header
        log.warning("recovered a change", method=header.method, what=recovered.words)
        anchor = self._record(recovered)
        for tell in self._tells:
            tell(recovered)
        if header.request_id and not header.job and recovered.begun:
            # A job's own record answers for it; what never began may be asked for again.
            self._keep_answer(recovered, anchor, lasts=lasts)

    def _record(self, recovered: Recovered) -> Anchor | None:
        if self._log is None:
            return None
        try:
            return self._log.write(**record_of(recovered))
        except OSError as e:
            # The host is to be put right all the same; the journal of the system has it.
            log.error("recovery not on record", method=recovered.header.method, error=e)
            return None

    def _keep_answer(self, recovered: Recovered, anchor: Anchor | None, *, lasts: bool) -> None:
        header = recovered.header
        answer = _answer(recovered, anchor)
        key = Key(header.identity, header.method, header.request_id, header.body_sha256)
        try:
            if answer is not None and not self._answers.find(key, type(answer)()):
                self._answers.store(key, answer, lasts=lasts)
        except OSError as e:
            log.error("answer not kept: a retry would be a new request", error=e.strerror)


def _can_go_back(edge: Edge, begun: Sequence[Step]) -> bool:
    return all(
        type(step) not in edge.kernel.one_way and step.inverse() is not None for step in begun
    )


def _far(found: Found) -> str:
    if found.undo is not None:
        return f"it had failed, and was cut off with {found.undo + 1} steps to be undone"
    return f"it was cut off in step {found.begun} of {len(found.header.steps)}"


def _words(error: Exception) -> str:
    if isinstance(error, DomainError):
        return error.message
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if isinstance(error, CodecInvalid) else repr(error)


def _answer(recovered: Recovered, anchor: Anchor | None) -> Any:
    """Answer what a retry is told, in the message that its method answers; None for no method."""
    header = recovered.header
    try:
        answer = answer_of(header.method)
    except KeyError:
        return None
    change = answer.change
    change.outcome = recovered.outcome
    change.changed = recovered.finished
    change.plan.hash = header.plan_hash
    change.warnings.add(code="CHANGE_INTERRUPTED", message=recovered.words)
    if anchor is not None:
        change.audit.seq, change.audit.head = anchor.seq, anchor.head
    return answer


def record_of(recovered: Recovered) -> dict[str, Any]:
    """Answer what the audit log says of a recovered change."""
    header = recovered.header
    return {
        "kind": "recovery",
        "identity": header.identity,
        "method": header.method,
        "resources": list(header.resources[:_SHOWN]),
        "change_id": header.change_id,
        "request_id": header.request_id,
        "job": header.job,
        "plan_hash": header.plan_hash,
        "intent_seq": header.intent_seq,
        "status": "OK",
        "outcome": change_pb2.Outcome.Name(recovered.outcome),
        "message": recovered.words[:1024],
        "steps": list(recovered.steps[:_SHOWN]),
    }
