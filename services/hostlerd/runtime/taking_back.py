"""Takes back, or releases, this domain's part of the host's pending group.

Nothing here decides anything: whether a group stays is read from the watcher's files, and what
there is to take back from this domain's own journals. All methods block; whoever calls them holds
the lock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostlerd.pending import place as files
from hostlerd.pending.documents import (
    MAX_WORDS,
    Armed,
    Entry,
    Failed,
    Group,
    Malformed,
    Part,
    Turn,
    printable,
)
from hostlerd.runtime.codec import CodecInvalid
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.journal import Journals
from hostlerd.runtime.log import get_log
from hostlerd.runtime.pending import Pending
from hostlerd.runtime.recovery import Log, Recovery
from hostlerd.runtime.standing import own_part

log = get_log("runtime.taking_back")

_ANY = 0


@dataclass(slots=True)
class _Run:
    """One run over a part. `problems` are what could not be taken back, in words."""

    audit: Log
    part: Part
    reason: str
    last: bool = False
    problems: list[str] = field(default_factory=list)


class TakingBack:
    """What a domain's processes do about its part, all edges made."""

    def __init__(self, pending: Pending, journals: Journals, recovery: Recovery) -> None:
        self._pending = pending
        self._journals = journals
        self._recovery = recovery

    def after_boot(self, audit: Log) -> None:
        """Take back what was pending when the host went down, before anything else comes up.

        The watcher has the same done; whoever comes second finds nothing.
        """
        place, domain = self._pending.place, self._pending.domain
        try:
            part = own_part(place, domain)
            if part is None or part.boot_id == self._journals.boot_id:
                return
            if _is(place.kept, part):
                self._pending.release()
            else:
                self._take_back(_Run(audit, part, "boot"), _ANY)
        except Malformed as e:
            log.error("the pending group cannot be read", problem=e)

    def in_turn(self, audit: Log) -> bool:
        """Do what the watcher has this domain do. Answers whether it is done.

        While it is nobody's turn nothing is done, as when an administrator starts it by hand.
        """
        place = self._pending.place
        armed = files.read_or_none(Armed, place.armed)
        turn = armed.turn if armed is not None else None
        if turn is not None and turn.domain != self._pending.domain:
            turn = None
        try:
            part = own_part(place, self._pending.domain)
            if part is None:
                return True
            if _is(place.kept, part):
                self._pending.release()
                return True
            if armed is None or turn is None or not _is(place.reverting, part):
                log.info("it is not this domain's turn")
                return True
        except Malformed as e:
            log.error("the pending group cannot be read", problem=e)
            return turn is not None and self._take_back_unread(audit, turn)
        run = _Run(audit, part, armed.reason, turn.last)
        over = self._take_back(run, turn.from_ns)
        if not part.entries:
            # What a kill has left of a part that was taken back already.
            self._pending.drop()
        self._tell(part.group, run.problems)
        return over

    def _take_back(self, run: _Run, from_ns: int) -> bool:
        """Undo the part's changes from that order on, newest first.

        One that fails is left to the next try, or given up in the last. Answers whether all of
        them are done with.
        """
        for entry in sorted(run.part.entries, key=lambda e: e.order_ns, reverse=True):
            if entry.order_ns < from_ns:
                break
            if not self._undo(run, entry):
                return False
            # With the last of them the part goes, too.
            self._pending.withdraw(entry.change)
        return True

    def _undo(self, run: _Run, entry: Entry) -> bool:
        started = time.monotonic()
        problem = ""
        words: tuple[str, ...] = ()
        try:
            words = self._recovery.undo(entry.change, last=run.last)
            if self._journals.fate(entry.change) in ("finished", "unfinished"):
                problem = "it is still being carried out, or waits for its caller to be answered"
        except (DomainError, OSError, CodecInvalid) as e:
            problem = e.message if isinstance(e, DomainError) else str(e)
        if problem:
            log.error("not taken back", change=entry.change, last=run.last, problem=problem)
            if not run.last:
                return False
            run.problems.append(f"{entry.method}: {problem}")
        self._record(run, entry, time.monotonic() - started, words, problem)
        return True

    def _record(
        self, run: _Run, entry: Entry, took_s: float, words: tuple[str, ...], problem: str
    ) -> None:
        """Write down what was taken back."""
        _write(
            run.audit,
            identity=run.part.identity,
            method=entry.method,
            change_id=entry.change,
            group=run.part.group,
            plan_hash=entry.plan_hash,
            status="UNKNOWN" if problem else "OK",
            outcome="OUTCOME_UNKNOWN" if problem else "OUTCOME_ROLLED_BACK",
            reason=run.reason,
            message=problem[:MAX_WORDS],
            steps=list(words[:100]),
            duration_s=round(took_s, 6),
        )

    def _take_back_unread(self, audit: Log, turn: Turn) -> bool:
        """Undo whatever waits in the journals: nobody can tell any more what belongs together."""
        pending, problems = self._pending, []
        for change_id in reversed(self._journals.waiting_ids()):
            try:
                self._recovery.undo(change_id, last=turn.last)
            except (DomainError, OSError, CodecInvalid) as e:
                problems.append(e.message if isinstance(e, DomainError) else str(e))
        if problems and not turn.last:
            return False
        _write(audit, status="UNKNOWN", reason="the part was not readable")
        path = pending.place.part(pending.domain)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        pending.drop()
        self._tell("", problems)
        return True

    def _tell(self, group: str, problems: list[str]) -> None:
        """Note for the watcher what could not be taken back."""
        if not problems:
            return
        failed = Failed(group, printable("; ".join(problems), MAX_WORDS))
        try:
            path = self._pending.place.failed(self._pending.domain)
            files.write(path, failed, durable=False)
        except OSError as e:
            log.error("problem not noted", error=e.strerror)


def _write(audit: Log, **fields: Any) -> None:
    """Record a revert. A log that cannot be written keeps nothing from being taken back."""
    try:
        audit.write(kind="revert", **fields)
    except OSError as e:
        log.error("revert not recorded", change=fields.get("change_id", ""), error=e.strerror)


def _is(path: Path, part: Part) -> bool:
    """Whether the watcher's file is about this part's group. Raises Malformed."""
    group = files.read(Group, path)
    return group is not None and group.group == part.group
