"""Changes that are taken back unless they are confirmed: this domain's part of the host's group.

A daemon proposes, by files of its own; the watcher (`hostlerd.pending`) alone decides, and is armed
before the first step of a change. So nothing that becomes of a daemon keeps a change from being
taken back. All methods block.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.common.v1 import change_pb2
from hostlerd.pending import place as files
from hostlerd.pending.documents import (
    LONGEST_S,
    MAX_BYTES,
    MAX_ENTRIES,
    MAX_MARKS,
    MAX_STEP_CHARS,
    MAX_STEPS,
    SHORTEST_S,
    Ended,
    Entry,
    Group,
    Malformed,
    Marks,
    Part,
    encode,
    is_group,
    printable,
)
from hostlerd.pending.place import Place
from hostlerd.runtime import call as call_context
from hostlerd.runtime.call import Call
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.journal import Journals
from hostlerd.runtime.log import get_log
from hostlerd.runtime.outside import is_outside
from hostlerd.runtime.pending_errors import (
    ConfirmNeedsOutside,
    ConfirmPending,
    ConfirmUnavailable,
    GroupNotPending,
)
from hostlerd.runtime.standing import (
    Stage,
    Standing,
    ended,
    history,
    look,
    own_part,
)
from hostlerd.runtime.steps import Plan

log = get_log("runtime.pending")

# A sleeping watcher is started by systemd within this time, or nothing is changed.
ARMED_WITHIN_S = 5.0
_POLL_S = 0.01
_NS = 10**9

T = TypeVar("T")


class Pending:
    """One domain's side of the host's pending group."""

    def __init__(
        self,
        domain: str,
        journals: Journals,
        place: Place | None = None,
        *,
        armed_within_s: float = ARMED_WITHIN_S,
    ) -> None:
        self.domain = domain
        self.place = place or Place()
        self.armed_within_s = armed_within_s
        self._journals = journals

    def standing(self) -> Standing:
        """Answer what is pending on this host. Raises ConfirmUnavailable if nobody can tell."""
        try:
            return look(self.place)
        except Malformed as e:
            raise ConfirmUnavailable(f"what is pending on this host cannot be read: {e}") from e

    def history(self) -> tuple[Ended, ...]:
        """Answer how the last groups ended, newest first."""
        return history(self.place)

    def check(self, confirm: change_pb2.ConfirmOptions | None) -> str:
        """Answer the group that a change with these options would join; empty for none.

        Nothing is changed by it. Raises InvalidRequest, ConfirmPending, ConfirmNeedsOutside,
        GroupNotPending, ConfirmUnavailable.
        """
        within_s = _within_s(confirm) if confirm is not None else 0.0
        standing = self.standing()
        if standing.stage is Stage.NONE:
            self._tidy(standing)
            return "" if confirm is None else self._open(confirm, within_s)
        if confirm is None or not confirm.group or confirm.group != standing.name:
            if confirm is not None and confirm.group and not within_s:
                self.refuse_ended(confirm.group)
            raise _pending(standing, "something on this host waits to be confirmed")
        if standing.stage is Stage.REVERTING or not standing.remaining_ns:
            raise _pending(standing, "the group is being taken back")
        call = call_context.current()
        _expect_outside(call)
        if standing.group is not None and call.caller.identity != standing.group.identity:
            raise _pending(standing, f"the group is {standing.group.identity}'s")
        own = standing.parts.get(self.domain)
        if own is not None and len(own.entries) >= MAX_ENTRIES:
            raise _pending(standing, f"a group has at most {MAX_ENTRIES} changes of a domain")
        return standing.name

    def _open(self, confirm: change_pb2.ConfirmOptions, within_s: float) -> str:
        self.refuse_ended(confirm.group)
        if not within_s:
            raise GroupNotPending(
                f"no group {confirm.group} waits here, and `within` was not given to open one",
                group=confirm.group,
            )
        _expect_outside(call_context.current())
        return confirm.group or str(uuid.uuid4())

    def refuse_ended(self, group: str) -> None:
        """Raise GroupNotPending if a group has ended: its name is not used again."""
        past = ended(self.place, group) if group else None
        if past is not None:
            raise over(past)

    def _tidy(self, standing: Standing) -> None:
        """Settle what a group that stays has left here, before the watcher comes to it."""
        part = self.own()
        if part is not None and part.group == standing.kept:
            self.release()

    def join(
        self,
        call: Call,
        group: str,
        confirm: change_pb2.ConfirmOptions,
        change_id: str,
        plan: Plan,
    ) -> change_pb2.PendingConfirm:
        """Put a change into the group that `check` answered, and have its way back armed.

        Returns when the watcher has seen it. Raises ConfirmPending, ConfirmUnavailable; then the
        change is not in the group.
        """
        try:
            part = _fitting(self._joined(call, group, confirm, _entry(call, change_id, plan)))
            files.write(self.place.part(self.domain), part, durable=True)
            return self.wait(lambda: self._seen(part), self.armed_within_s)
        except OSError as e:
            raise ConfirmUnavailable(f"the group cannot be written: {e.strerror}") from e
        except (ConfirmPending, ConfirmUnavailable, GroupNotPending):
            self.withdraw(change_id)
            raise

    def _joined(
        self, call: Call, group: str, confirm: change_pb2.ConfirmOptions, entry: Entry
    ) -> Part:
        """Answer this domain's part with one more change."""
        standing = self.standing()
        token, opened = secrets.token_hex(16), standing.group
        if opened is not None and opened.group != group:
            raise _pending(standing, "somebody else was faster")
        own = self.own()
        if own is not None and own.group == group:
            return replace(own, token=token, entries=(*own.entries, entry))
        if own is not None and own.entries:
            raise ConfirmPending(
                "what an earlier group has left in this domain is being settled", group=own.group
            )
        if opened is None:
            within_s = _within_s(confirm)
            opened = Group(
                group,
                call.caller.identity,
                files.boot_id(),
                int(time.time()),
                files.boottime_ns() + int(within_s * _NS),
                int(time.time() + within_s),
            )
        return Part(
            group,
            opened.identity,
            opened.boot_id,
            opened.opened_s,
            opened.deadline_ns,
            opened.deadline_s,
            token,
            (entry,),
        )

    def _seen(self, part: Part) -> change_pb2.PendingConfirm | None:
        """Answer the group once the watcher has seen this very part."""
        standing = self.standing()
        if standing.stage is Stage.WAITING and standing.name == part.group:
            seen = standing.armed.seen if standing.armed else {}
            if seen.get(self.domain) == part.token:
                return _answer(standing)
        elif standing.stage is not Stage.OPENING or standing.name != part.group:
            if standing.stage is Stage.NONE and standing.kept != part.group:
                # Tidying up after the group before comes first.
                return None
            raise _pending(standing, "the group was decided, or somebody else was faster")
        return None

    def applied(self, change_id: str) -> None:
        """Note that all steps of a change are done. Not on disk: after a boot nobody asks."""
        self._mark(self.place.applied(self.domain), change_id)

    def withdraw(self, change_id: str) -> None:
        """Take a change out of the group: nothing of it is there any more. Never raises OSError."""
        part = self.own()
        if part is None or all(entry.change != change_id for entry in part.entries):
            return
        self._mark(self.place.undone(self.domain), change_id)
        if all(entry.change == change_id for entry in part.entries):
            self.drop()

    def reconcile(self) -> None:
        """Note which changes are complete and which are not there any more, after a kill.

        The caller holds the lock, and has had recovered what was cut off.
        """
        part = self.own()
        marks = files.read_or_none(Marks, self.place.applied(self.domain))
        known = marks.changes if part and marks and marks.group == part.group else {}
        for entry in part.entries if part else ():
            fate = self._journals.fate(entry.change)
            if fate == "finished" and entry.change not in known:
                self.applied(entry.change)
            elif fate == "unknown":
                self.withdraw(entry.change)

    def release(self) -> None:
        """Forget the way back: the group stays. The caller holds the lock. Raises OSError."""
        part = self.own()
        for entry in part.entries if part is not None else ():
            self._journals.release(entry.change)
        self.drop()

    def drop(self) -> None:
        """Remove this domain's part, with what was noted about it. Never raises OSError."""
        try:
            files.remove(self.place.part(self.domain))
            for path in (self.place.applied(self.domain), self.place.undone(self.domain)):
                path.unlink(missing_ok=True)
            files.sweep(self.place.part(self.domain).parent)
        except OSError as e:
            log.error("pending part not removed", error=e.strerror)

    def _mark(self, path: Path, change_id: str) -> None:
        part = self.own()
        if part is None:
            return
        before = files.read_or_none(Marks, path)
        marks = dict(before.changes) if before is not None and before.group == part.group else {}
        # Those of changes that have been withdrawn long since make room.
        for old in sorted(marks, key=marks.__getitem__)[: len(marks) + 1 - MAX_MARKS]:
            del marks[old]
        marks[change_id] = time.monotonic_ns()
        try:
            files.write(path, Marks(part.group, marks), durable=False)
        except OSError as e:
            # Not known to be complete, it cannot be confirmed, and is taken back.
            log.error("pending mark not written", path=path, error=e.strerror)

    def own(self) -> Part | None:
        """Answer this domain's part, if there is one. Raises ConfirmUnavailable."""
        try:
            return own_part(self.place, self.domain)
        except Malformed as e:
            raise ConfirmUnavailable(f"this domain's part of the group: {e}") from e

    def wait(self, look_again: Callable[[], T | None], timeout_s: float) -> T:
        """Look until there is something to answer. Raises ConfirmUnavailable after the time."""
        end = time.monotonic() + timeout_s
        while (found := look_again()) is None:
            if time.monotonic() > end:
                raise ConfirmUnavailable(
                    "hostler-pending.service has not answered within "
                    f"{timeout_s:g} s; is hostler-pending.path active?"
                )
            time.sleep(_POLL_S)
        return found


def _within_s(confirm: change_pb2.ConfirmOptions) -> float:
    """Answer the time to confirm in, in seconds; 0 if none was given. Raises InvalidRequest."""
    faults = []
    within_s = confirm.within.ToNanoseconds() / _NS if confirm.HasField("within") else 0.0
    if confirm.HasField("within") and not SHORTEST_S <= within_s <= LONGEST_S:
        faults.append(
            Violation("change.confirm.within", f"must be from {SHORTEST_S} to {LONGEST_S} s")
        )
    if confirm.group and not is_group(confirm.group):
        faults.append(Violation("change.confirm.group", "must be a UUID, in lower case"))
    if not confirm.group and not within_s and not faults:
        faults.append(Violation("change.confirm", "needs `within`, `group` or both"))
    if faults:
        raise InvalidRequest.of(faults)
    return within_s


def _expect_outside(call: Call) -> None:
    if not is_outside(call):
        raise ConfirmNeedsOutside(
            "a change that waits to be confirmed must come by TCP from another host: from here "
            "nobody could tell whether the host can still be reached"
        )


def _pending(standing: Standing, what: str) -> ConfirmPending:
    group = standing.group
    return ConfirmPending(
        f"{what}: group {standing.name or 'unknown'}",
        group=standing.name,
        identity=group.identity if group else "",
        remaining_s=round(standing.remaining_ns / _NS, 1),
    )


def over(past: Ended) -> GroupNotPending:
    """Make the refusal of a group that has ended."""
    return GroupNotPending(
        f"the group {past.group} has ended: {past.outcome} ({past.reason})",
        group=past.group,
        outcome=past.outcome,
        ended=past.reason,
    )


def _entry(call: Call, change_id: str, plan: Plan) -> Entry:
    shown = tuple(printable(s.describe(), MAX_STEP_CHARS) for s in plan.steps[:MAX_STEPS])
    return Entry(
        change_id,
        time.monotonic_ns(),
        printable(call.method.name, 256),
        plan.hash,
        shown,
        len(plan.steps) - len(shown),
    )


def _fitting(part: Part) -> Part:
    """Leave out the words of the newest change where they would make the file too large to read."""
    if len(encode(part)) <= MAX_BYTES // 2:
        return part
    *before, newest = part.entries
    bare = replace(newest, steps=(), more=newest.more + len(newest.steps))
    return replace(part, entries=(*before, bare))


def _answer(standing: Standing) -> change_pb2.PendingConfirm:
    group = standing.group
    remaining = Duration()
    remaining.FromNanoseconds(standing.remaining_ns)
    return change_pb2.PendingConfirm(
        group=standing.name,
        deadline=Timestamp(seconds=group.deadline_s if group else 0),
        remaining=remaining,
        doors=standing.doors,
    )
