"""A door of the host's pending group: where it is confirmed, or asked to be taken back.

What is said here is noted in a file of this domain's, for the watcher to count. All methods block.
"""

from __future__ import annotations

from collections.abc import Callable

from hostlerd.pending import place as files
from hostlerd.pending.documents import KEEP, KEPT, REVERT, Answer, Ended
from hostlerd.runtime.call import Call
from hostlerd.runtime.outside import is_outside
from hostlerd.runtime.pending import Pending, over
from hostlerd.runtime.pending_errors import ConfirmNotCounted, ConfirmUnavailable, GroupNotPending
from hostlerd.runtime.standing import Stage, Standing, ended, last_change_ns

# Taking back may have to wait for a change that goes on.
REVERTED_WITHIN_S = 50.0
_NS = 10**9


class Door:
    """The door of one domain. `reconcile` finds out about changes that a kill has cut off."""

    def __init__(self, pending: Pending, reconcile: Callable[[], None]) -> None:
        self._pending = pending
        self._reconcile = reconcile

    def confirm(self, call: Call, group: str) -> Standing | None:
        """Confirm the group at this door; answer it, or None once it stays for good.

        Returns when the watcher has noted it. Raises GroupNotPending, ConfirmNotCounted,
        ConfirmUnavailable.
        """
        standing = self._pending.standing()
        if standing.name != group or not standing.remaining_ns:
            if self._stays(group, standing):
                return None
            raise self._gone(group, standing)
        if self._pending.domain not in standing.confirmed:
            self._count(call, standing)
            connected_ns = int(call.connected_at * _NS)
            self._say(Answer(group, KEEP, connected_ns, files.boottime_ns()))
        return self._pending.wait(lambda: self._noted(group), self._pending.armed_within_s)[0]

    def _noted(self, group: str) -> tuple[Standing | None] | None:
        standing = self._pending.standing()
        if standing.name == group and standing.stage is Stage.WAITING:
            # Said in time, it counts, however late the watcher comes to it.
            return (standing,) if self._pending.domain in standing.confirmed else None
        if self._stays(group, standing):
            return (None,)
        raise self._gone(group, standing)

    def _stays(self, group: str, standing: Standing) -> bool:
        past = ended(self._pending.place, group)
        return standing.kept == group or (past is not None and past.outcome == KEPT)

    def _gone(self, group: str, standing: Standing) -> GroupNotPending:
        past = ended(self._pending.place, group)
        if past is not None:
            return over(past)
        if standing.name == group:
            return GroupNotPending(f"the group {group} is being taken back", group=group)
        return GroupNotPending(f"no group {group} waits here", group=group)

    def _count(self, call: Call, standing: Standing) -> None:
        """Raise ConfirmNotCounted if this caller's confirmation proves nothing."""
        why = _not_counted(call, standing)
        if not why and standing.stage is not Stage.WAITING:
            why = "going_on"
        elif not why:
            changed_ns = last_change_ns(self._pending.place, standing)
            if changed_ns is None:
                self._reconcile()
                changed_ns = last_change_ns(self._pending.place, self._pending.standing())
            if changed_ns is None:
                why = "going_on"
            elif int(call.connected_at * _NS) <= changed_ns:
                why = "old_connection"
        if why:
            raise ConfirmNotCounted(_WHY[why], why=why, group=standing.name)

    def revert(self, group: str) -> Ended:
        """Have the whole group taken back at once, and wait for that.

        Empty names whichever is pending. Raises GroupNotPending, ConfirmUnavailable.
        """
        standing = self._pending.standing()
        name = standing.name if standing.stage is not Stage.NONE else ""
        if not name or (group and group != name):
            self._pending.refuse_ended(group)
            raise GroupNotPending(
                "nothing is pending here" if not name else f"it is {name} that is pending",
                group=group or name,
            )
        self._say(Answer(name, REVERT, 0, files.boottime_ns()))
        return self._pending.wait(lambda: ended(self._pending.place, name), REVERTED_WITHIN_S)

    def _say(self, answer: Answer) -> None:
        path = self._pending.place.answer(self._pending.domain)
        before = files.read_or_none(Answer, path)
        if before is not None and before.group == answer.group and before.answer == REVERT:
            return
        try:
            files.write(path, answer, durable=False)
        except OSError as e:
            raise ConfirmUnavailable(f"the answer cannot be written: {e.strerror}") from e


def _not_counted(call: Call, standing: Standing) -> str:
    if standing.group is None or call.caller.identity != standing.group.identity:
        return "identity"
    if call.caller.local:
        return "local"
    return "" if is_outside(call) else "own_address"


_WHY = {
    "identity": "only who opened the group can confirm it",
    "local": "a caller on the host itself proves nothing about who can reach it",
    "own_address": "a connection from the host's own address proves nothing",
    "old_connection": "the connection is older than the last change, and so proves nothing",
    "going_on": "a change of the group still goes on",
}
