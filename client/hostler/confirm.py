"""Confirming what is pending on a host, at every one of its doors, or taking it back at once.

A host takes a change made under `Terms.confirm_within_s` back by itself. It stays if the caller
still gets in afterwards, which is what confirming proves: by new connections, at each door.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hostler.api.common.v1 import change_pb2, confirm_pb2
from hostler.channel import rpc
from hostler.config import ConfigError
from hostler.doors import at_any_door, doors_of
from hostler.outcome import Outcome
from hostler.results import CallFailed, HostError
from hostler.session import Session

GET_PENDING = rpc(confirm_pb2, "ConfirmService", "GetPending")
CONFIRM_PENDING = rpc(confirm_pb2, "ConfirmService", "ConfirmPending")
REVERT_PENDING = rpc(confirm_pb2, "ConfirmService", "RevertPending")

# How long after its deadline a host may take to be reached again and to tell what it did.
AFTER_S = 15.0
_ATTEMPT_S = 3.0
_OVER = "GROUP_NOT_PENDING"
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A group that stays, and the doors that it was confirmed at."""

    group: str
    doors: tuple[str, ...]


async def confirm_host(
    session: Session, group: str, doors: Sequence[str] = (), deadline_s: float = 0.0
) -> Confirmed:
    """Confirm a pending group of a host at every door of it.

    Each attempt is made by new connections: the session's are closed between. `doors` are those
    that the changes in the group named; without any the host is asked for them, as it is after a
    change that may have cut off its own answer. `deadline_s` is how long from now the host waits.

    Tries until the host tells how the group ended, for AFTER_S beyond the deadline at most. Raises
    CallFailed if the group does not stay: ABORTED ROLLED_BACK if the host has taken it back,
    ABORTED NOT_APPLIED if it knows of no such group, and an uncertain error if nobody could say.
    """
    deadline = asyncio.get_running_loop().time() + deadline_s
    return await _Confirming(session, group, doors).until(deadline)


async def fate(session: Session, group: str) -> Outcome:
    """Ask what has become of a group. UNKNOWN if no door answers, or none knows of it."""
    try:
        seen = await pending_on(session)
    except CallFailed:
        return Outcome.UNKNOWN
    if _is_pending(seen, group):
        return Outcome.PENDING_CONFIRM
    ended = ended_in(seen, group)
    return Outcome.UNKNOWN if ended is None else outcome_of(ended)


async def pending_on(
    session: Session, doors: Sequence[str] = (), *, timeout_s: float | None = None
) -> Any:
    """Ask a host what is pending and what has ended, at any one door: GetPendingResponse.

    Raises CallFailed if none answers.
    """
    _, seen = await _first_answer(session, doors_of(session.host, doors), timeout_s)
    return seen


async def _first_answer(
    session: Session, doors: Sequence[str], timeout_s: float | None = None
) -> tuple[str, Any]:
    """The first door that answers GetPending, and its answer.

    All are asked at once, since one that is shut may take long to say so.
    """
    request = confirm_pb2.GetPendingRequest()

    async def ask(door: str) -> tuple[str, Any]:
        try:
            return door, await session.call(GET_PENDING.at(door), request, timeout_s=timeout_s)
        except ConfigError as error:
            # A host can name doors that this client is too old to know.
            raise CallFailed(HostError("INVALID_ARGUMENT", "NO_SUCH_DOOR", str(error))) from error

    tasks = [asyncio.create_task(ask(door)) for door in doors]
    failed = CallFailed(HostError("UNAVAILABLE", "UNREACHABLE", "the host has no door"))
    try:
        for first in asyncio.as_completed(tasks):
            try:
                return await first
            except CallFailed as error:
                failed = error
        raise failed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def revert_host(session: Session, group: str = "", doors: Sequence[str] = ()) -> Any:
    """Take a pending group back at once, all of it; answers its EndedGroup.

    An empty `group` means whichever is pending. Answers None if no such group is pending and none
    of that name has ended. The way back may cut off its own answer: then the host is asked again,
    for AFTER_S at most. Raises CallFailed.
    """
    places = doors_of(session.host, doors)
    open_door, seen = await _first_answer(session, places)
    if not seen.HasField("pending") or group not in ("", seen.pending.group):
        return ended_in(seen, group)
    group = str(seen.pending.group)
    options = change_pb2.ChangeOptions(request_id=str(uuid.uuid4()))
    request = confirm_pb2.RevertPendingRequest(group=group, change=options)
    try:
        in_turn = (open_door, *(door for door in places if door != open_door))
        answer = await at_any_door(session, in_turn, REVERT_PENDING, request)
        return answer.ended
    except CallFailed as failed:
        # Of a first attempt whose answer was lost, the second only says that it is over.
        if not failed.error.uncertain and failed.error.reason != _OVER:
            raise
        return await _wait_for_end(session, places, group, failed)


async def _wait_for_end(
    session: Session, doors: Sequence[str], group: str, failed: CallFailed
) -> Any:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + AFTER_S
    while loop.time() < give_up:
        await session.close()
        await asyncio.sleep(_PAUSE_S)
        try:
            seen = await pending_on(session, doors, timeout_s=_ATTEMPT_S)
        except CallFailed:
            continue
        ended = ended_in(seen, group)
        if ended is not None:
            return ended
    raise failed


def ended_in(seen: Any, group: str) -> Any:
    """The EndedGroup of that name in a GetPendingResponse, or None."""
    return next((ended for ended in seen.ended if ended.group == group), None)


def outcome_of(ended: Any) -> Outcome:
    """How a group ended: APPLIED, ROLLED_BACK or UNKNOWN."""
    known = {
        change_pb2.OUTCOME_APPLIED: Outcome.APPLIED,
        change_pb2.OUTCOME_ROLLED_BACK: Outcome.ROLLED_BACK,
    }
    return known.get(ended.outcome, Outcome.UNKNOWN)


def _is_pending(seen: Any, group: str) -> bool:
    return bool(seen.HasField("pending") and seen.pending.group == group)


class _Confirming:
    """The confirming of one group on one host."""

    def __init__(self, session: Session, group: str, doors: Sequence[str]) -> None:
        self._session = session
        self._group = group
        self._known = bool(doors)
        self._doors = doors_of(session.host, tuple(dict.fromkeys(doors)))
        self._confirmed: set[str] = set()
        self._trouble: dict[str, str] = {}

    async def until(self, deadline: float) -> Confirmed:
        """Try until the group has ended, or the host has been silent for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await self._session.close()
            if await self._confirm():
                return Confirmed(self._group, self._doors)
            seen = await self._look()
            if seen is not None and self._has_stayed(seen, over=loop.time() > deadline):
                return Confirmed(self._group, self._doors)
            if loop.time() > deadline + AFTER_S:
                raise self._unknown("it is still pending" if seen else "the host does not answer")
            await asyncio.sleep(_PAUSE_S)

    async def _confirm(self) -> bool:
        """Confirm at every door where it is not yet; answers whether that was all of them."""
        missing = [door for door in self._doors if door not in self._confirmed]
        return any(await asyncio.gather(*(self._confirm_at(door) for door in missing)))

    async def _confirm_at(self, door: str) -> bool:
        # A new id each time: the answer kept for a retry would not count this connection.
        options = change_pb2.ChangeOptions(request_id=str(uuid.uuid4()))
        request = confirm_pb2.ConfirmPendingRequest(group=self._group, change=options)
        try:
            method = CONFIRM_PENDING.at(door)
            answer = await self._session.call(method, request, timeout_s=_ATTEMPT_S)
        except CallFailed as failed:
            # That it is over by now says nothing of what kept the door from being reached before.
            if failed.error.reason != _OVER or door not in self._trouble:
                self._trouble[door] = str(failed.error)
            return False
        except ConfigError as error:
            self._trouble[door] = str(error)
            return False
        self._trouble.pop(door, None)
        self._confirmed.add(door)
        return not answer.HasField("pending")

    async def _look(self) -> Any:
        """What the host says of its groups, or None if no door answers."""
        try:
            return await pending_on(self._session, self._doors, timeout_s=_ATTEMPT_S)
        except (CallFailed, ConfigError):
            return None

    def _has_stayed(self, seen: Any, *, over: bool) -> bool:
        """Whether the group has ended confirmed. Raises CallFailed if it ended otherwise."""
        if _is_pending(seen, self._group):
            self._known = True
            self._doors = tuple(door.domain for door in seen.pending.doors) or self._doors
            # The host's word counts: after a change that came later it wants to be told again.
            self._confirmed = {d.domain for d in seen.pending.doors if d.confirmed}
            return False
        ended = ended_in(seen, self._group)
        if ended is not None:
            return self._ended(ended)
        if over and self._known:
            raise self._unknown("the host has forgotten the group")
        if over:
            words = f"the host knows of no group {self._group}: nothing was changed in it"
            raise self._failed("ABORTED", "NOT_APPLIED", words)
        return False

    def _ended(self, ended: Any) -> bool:
        outcome = outcome_of(ended)
        if outcome is Outcome.APPLIED:
            return True
        reason = ended.reason or "no reason was told"
        if outcome is Outcome.UNKNOWN:
            raise self._unknown(f"taking it back has failed: {reason}")
        raise self._failed("ABORTED", "ROLLED_BACK", f"taken back by the host: {reason}")

    def _unknown(self, words: str) -> CallFailed:
        words = f"neither confirmed nor seen to be taken back: {words}"
        return self._failed("UNKNOWN", "CONFIRM_UNKNOWN", words, uncertain=True)

    def _failed(self, code: str, reason: str, words: str, *, uncertain: bool = False) -> CallFailed:
        metadata = {"group": self._group, "confirmed_at": ",".join(self._in_order())}
        message = "; ".join([words, *self._troubles()])
        return CallFailed(HostError(code, reason, message, metadata, uncertain=uncertain))

    def _troubles(self) -> Iterator[str]:
        return (f"{door}: {words}" for door, words in self._trouble.items())

    def _in_order(self) -> list[str]:
        return [door for door in self._doors if door in self._confirmed]
