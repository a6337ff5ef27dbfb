"""The watcher: the one place where a pending group is opened, kept or taken back.

Root, and alone in deciding: daemons propose by files of their own, and go by what it answers. All
it knows is in files, so that killing it only delays.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from . import place as files
from .documents import (
    DOMAINS,
    KEEP,
    KEPT,
    LONGEST_S,
    MAX_ENDED,
    MAX_WORDS,
    REVERT,
    REVERTED,
    UNKNOWN,
    Answer,
    Armed,
    D,
    Ended,
    Failed,
    Group,
    History,
    Malformed,
    Marks,
    Part,
    printable,
)
from .place import Place
from .taking_back import Queue

POLL_S = 0.05
# A daemon needs a moment from drawing its deadline to being seen here.
_SLACK_NS = 5 * 10**9
_NS = 10**9

# What a domain has in the group; None if it cannot be read.
Parts = Mapping[str, Part | None]


class Watcher:
    """Watches one host's group. `start` runs a domain's revert process to its end."""

    def __init__(self, place: Place, start: Callable[[str], None]) -> None:
        self._place = place
        self._start = start
        self._boot = files.boot_id()
        self._seen: dict[Path, tuple[object, object]] = {}
        self._queue = Queue()

    def run(self) -> None:
        """Watch until nothing is pending any more."""
        for folder in (self._place.state, self._place.run):
            files.sweep(folder)
        while self.look():
            time.sleep(POLL_S)

    def look(self) -> bool:
        """Do what is to be done now. Answers whether there is more to wait for.

        A disk that refuses a write changes nothing: the next look tries again.
        """
        try:
            return self._look()
        except OSError as e:
            _say(f"{e.filename or self._place.state}: {e.strerror}")
            time.sleep(1.0)
            return True

    def _look(self) -> bool:
        place = self._place
        parts = self._parts()
        if (kept := self._decided(place.kept)) is not None:
            self._settle(kept, parts)
        elif (reverting := self._decided(place.reverting)) is not None:
            self._take_back(reverting, parts)
        elif (group := self._group()) is not None:
            self._decide(group, parts)
        elif parts:
            self._take_on(parts)
        else:
            for path in (place.armed, place.asked):
                path.unlink(missing_ok=True)
            return False
        return True

    def _parts(self) -> Parts:
        """What all domains have, leaving out what was given up and has not changed since."""
        found: dict[str, Part | None] = {}
        for domain in DOMAINS:
            try:
                part = self._read(Part, self._place.part(domain))
            except Malformed:
                found[domain] = None
                continue
            if part is not None:
                undone = self._read_or_none(Marks, self._place.undone(domain))
                found[domain] = files.without(part, undone)
        return {d: p for d, p in found.items() if not self._queue.given_up(d, p)}

    def _group(self) -> Group | None:
        try:
            return self._read(Group, self._place.group)
        except Malformed as e:
            # Only root writes it, so the disk is to blame. The parts say the same.
            _say(f"the group cannot be read ({e}); it is made again")
            files.remove(self._place.group)
            return None

    def _decided(self, path: Path) -> Group | None:
        try:
            return self._read(Group, path)
        except Malformed:
            return Group("", "", self._boot, 0, 0, 0)

    def _take_on(self, parts: Parts) -> None:
        """Open the group that the oldest part asks for; what is none is taken back at once."""
        domain, part = min(parts.items(), key=_age)
        if part is None:
            self._revert(
                Group("", "", self._boot, 0, 0, 0), f"the part of {domain} is not readable"
            )
            return
        opened = Group(
            part.group,
            part.identity,
            part.boot_id,
            part.opened_s,
            part.deadline_ns,
            part.deadline_s,
            tuple(d for d in DOMAINS if files.is_door(self._place.doors / f"{d}.sock")),
        )
        left_ns = part.deadline_ns - files.boottime_ns()
        if part.boot_id != self._boot:
            self._revert(opened, "boot")
        elif left_ns > LONGEST_S * _NS + _SLACK_NS:
            self._revert(opened, f"the deadline of {domain} is too far away")
        elif left_ns <= 0:
            self._revert(opened, "deadline")
        else:
            files.write(self._place.group, opened, durable=True)
            _say(f"group {opened.group} opened by {domain} for {opened.identity}")

    def _decide(self, group: Group, parts: Parts) -> None:
        """Keep or take back what has come to its end; else tell what has been seen so far."""
        ours = _of_group(group, parts)
        if group.boot_id != self._boot:
            self._revert(group, "boot")
        elif self._place.asked.exists() or self._answered(group, REVERT):
            self._revert(group, "asked for")
        elif not ours:
            # Every change was withdrawn before it was complete.
            files.remove(self._place.group)
        else:
            confirmed = self._confirmed(group, ours)
            if {*group.doors, *ours} <= confirmed:
                files.rename(self._place.group, self._place.kept)
                self._queue.begin()
                self._tell(Armed(group.group, confirmed=tuple(sorted(confirmed))))
                self._record(group, KEPT, "confirmed")
            elif files.boottime_ns() >= group.deadline_ns:
                self._revert(group, "deadline")
            else:
                tokens = {d: p.token for d, p in ours.items() if p is not None}
                self._tell(Armed(group.group, tokens, tuple(sorted(confirmed))))

    def _answered(self, group: Group, answer: str) -> dict[str, Answer]:
        found = {}
        for domain in DOMAINS:
            said = self._read_or_none(Answer, self._place.answer(domain))
            if said is not None and said.group == group.group and said.answer == answer:
                found[domain] = said
        return found

    def _confirmed(self, group: Group, ours: Parts) -> set[str]:
        """The doors at which the group was confirmed in time, after its last change."""
        changed_ns = 0
        for domain, part in ours.items():
            applied = self._read_or_none(Marks, self._place.applied(domain))
            if part is None or applied is None or applied.group != group.group:
                return set()
            times = [applied.changes.get(entry.change) for entry in part.entries]
            if None in times:
                return set()
            changed_ns = max(changed_ns, *(t or 0 for t in times))
        return {
            domain
            for domain, said in self._answered(group, KEEP).items()
            if said.connected_ns > changed_ns and said.said_ns <= group.deadline_ns
        }

    def _revert(self, group: Group, reason: str) -> None:
        """Decide that a group is taken back, on disk before anything else happens."""
        if self._place.group.exists():
            files.rename(self._place.group, self._place.reverting)
        else:
            files.write(self._place.reverting, group, durable=True)
        _say(f"group {group.group} is taken back: {reason}")
        self._queue.begin()
        self._tell(Armed(group.group, reason=printable(reason, MAX_WORDS)))

    def _take_back(self, group: Group, parts: Parts) -> None:
        """Let the domain with the newest change take its newest ones back."""
        ours = _of_group(group, parts)
        reason = self._reason(group)
        if not ours:
            problems = self._problems(group)
            outcome = UNKNOWN if problems else REVERTED
            self._record(group, outcome, "; ".join((reason, *problems)))
            files.remove(self._place.reverting)
            self._place.armed.unlink(missing_ok=True)
            self._place.asked.unlink(missing_ok=True)
            return
        turn = self._queue.next(ours)
        if turn is None:
            return
        self._tell(Armed(group.group, reason=reason, turn=turn))
        self._start(turn.domain)
        if not self._queue.went_on(turn, self._parts()):
            _say(f"{turn.domain} has not taken back its part; it is tried again")

    def _reason(self, group: Group) -> str:
        armed = self._read_or_none(Armed, self._place.armed)
        if armed is not None and armed.group == group.group and armed.reason:
            return armed.reason
        # Killed right after the decision, or the power was cut.
        if group.boot_id != self._boot:
            return "boot"
        return "deadline" if files.boottime_ns() >= group.deadline_ns else "asked for"

    def _problems(self, group: Group) -> list[str]:
        """What domains could not take back, by their own word; and those that gave none."""
        found = [f"{domain}: not taken back" for domain in self._queue.silent()]
        for domain in DOMAINS:
            failed = self._read_or_none(Failed, self._place.failed(domain))
            if failed is not None and failed.group == group.group:
                found.append(f"{domain}: {failed.problem}")
        return found

    def _settle(self, group: Group, parts: Parts) -> None:
        """Have every domain forget the way back; whoever opens a group next waits for that."""
        self._record(group, KEPT, "confirmed")
        ours = _of_group(group, parts)
        if not ours:
            files.remove(self._place.kept)
            self._place.armed.unlink(missing_ok=True)
            return
        turn = self._queue.next(ours)
        if turn is not None:
            self._start(turn.domain)
            self._queue.went_on(turn, self._parts())

    def _tell(self, armed: Armed) -> None:
        if self._read_or_none(Armed, self._place.armed) != armed:
            files.write(self._place.armed, armed, durable=False)

    def _record(self, group: Group, outcome: str, reason: str) -> None:
        """Put the end of a group into the history, once; beside it while the disk is full."""
        on_disk, beside = self._place.ended
        known = files.read_or_none(History, on_disk) or History()
        spilled = files.read_or_none(History, beside) or History()
        if any(e.group == group.group for e in (*spilled.groups, *known.groups) if e.group):
            return
        ended = Ended(
            group.group, group.identity, int(time.time()), outcome, printable(reason, MAX_WORDS)
        )
        _say(f"group {group.group} has ended: {outcome} ({reason})")
        history = History((ended, *spilled.groups, *known.groups)[:MAX_ENDED])
        try:
            files.write(on_disk, history, durable=True)
        except OSError as e:
            _say(f"{on_disk}: {e.strerror}; the history goes to {beside}")
            files.write(beside, History((ended, *spilled.groups)[:MAX_ENDED]), durable=False)
        else:
            beside.unlink(missing_ok=True)

    def _read(self, kind: type[D], path: Path) -> D | None:
        """Read a document, unless the file is still the one that was read last."""
        try:
            stat = path.lstat()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise Malformed(f"cannot be read: {e.strerror}") from e
        sign = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        known = self._seen.get(path)
        if known is None or known[0] != sign:
            try:
                value: object = files.read(kind, path)
            except Malformed as e:
                value = e
            self._seen[path] = known = (sign, value)
        if isinstance(known[1], Malformed):
            raise known[1]
        return known[1] if isinstance(known[1], kind) else None

    def _read_or_none(self, kind: type[D], path: Path) -> D | None:
        with suppress(Malformed):
            return self._read(kind, path)
        return None


def _age(item: tuple[str, Part | None]) -> tuple[int, str]:
    domain, part = item
    return (min((e.order_ns for e in part.entries), default=0) if part else -1, domain)


def _of_group(group: Group, parts: Parts) -> Parts:
    """The group's own parts. One that cannot be read belongs to whatever is being taken back."""
    return {d: p for d, p in parts.items() if (p is None) or p.group == group.group}


def _say(words: str) -> None:
    """One line to the journal, through systemd's pipe."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{words}\n".encode("ascii", "replace"))
