"""How a replicated volume is, and bringing its legs back: logged in, added again, synchronised."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hostler.api.storage.v1 import array_pb2, export_pb2
from hostler.channel import rpc
from hostler.fleet import Host
from hostler.group import refuse_jobs
from hostler.plans import Planned, PlannedStep, RpcChange
from hostler.replicate import APPLY_ATTACHMENT, LIST_ARRAYS, Here, Replicated, carried_out
from hostler.replicated import mirror_of
from hostler.results import CallFailed, HostError
from hostler.session import Session
from hostler.skew import word

ADD_MEMBER = rpc(array_pb2, "ArrayService", "AddMember")
REMOVE_MEMBER = rpc(array_pb2, "ArrayService", "RemoveMember")
LOGGED_IN = "LOGGED_IN"
WAIT_S = 24 * 3600.0
_LOOK_S = 1.0
_FAULTY = array_pb2.MEMBER_ROLE_FAULTY


@dataclass(frozen=True, slots=True)
class LegState:
    """A leg as it is: its session, and what it is to its mirror. Of an own leg only the latter."""

    name: str
    mirror: str
    device: str
    role: str
    portal: str = ""
    session: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it holds all that it is to hold, and can be reached."""
        return self.role == "active" and self.session in ("", LOGGED_IN)


@dataclass(frozen=True, slots=True)
class VolumeState:
    """A volume as it is, on its host."""

    name: str
    legs: tuple[LegState, ...]
    syncing: str
    copies_to_spare: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is to be repaired, and nothing is on its way."""
        return all(leg.is_whole for leg in self.legs) and not self.syncing

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "whole": self.is_whole}


async def state(session: Session, name: str) -> VolumeState:
    """How a volume is. Raises CallFailed if the host has none of that name."""
    here = await Here.look(session)
    arrays = mirrors(name, here)
    legs, known = [], _legs(name, here)
    for at, array in sorted(arrays.items()):
        entries = [one for one in known if mirror_of(name, one.attachment.name) == at]
        taken = {one.device for one in entries}
        legs += [_of_entry(one, array) for one in entries]
        legs += [
            LegState(one.name or one.id, array.name, one.id, _role(one))
            for one in array.members
            if one.id not in taken and one.present
        ]
    busy = [f"{one.name}: {one.sync.action}" for one in arrays.values() if _is_busy(one)]
    return VolumeState(
        name, tuple(legs), ", ".join(busy), min(one.spare_losses for one in arrays.values())
    )


def mirrors(name: str, here: Here) -> dict[int, Any]:
    """The arrays of a volume's mirrors, by their numbers. Raises CallFailed if there are none."""
    numbers = {mirror_of(name, one) for one in here.attachments} - {0}
    found = {at: here.arrays.get(name if numbers == {1} else f"{name}-m{at}") for at in numbers}
    missing = [at for at, one in found.items() if one is None]
    if not found or missing:
        what = f"mirror {missing[0]} of {name}" if missing else f"replicated volume {name}"
        raise CallFailed(HostError("NOT_FOUND", "VOLUME_NOT_FOUND", f"there is no {what} here"))
    return {at: one for at, one in found.items() if one is not None}


def _legs(name: str, here: Here) -> list[Any]:
    return [one for key, one in sorted(here.attachments.items()) if mirror_of(name, key)]


def _of_entry(entry: Any, array: Any) -> LegState:
    member = _member(array, entry.device)
    return LegState(
        entry.attachment.name,
        array.name,
        entry.device,
        "missing" if member is None else _role(member),
        entry.attachment.portal,
        entry.session or "no session",
    )


def _member(array: Any, device: str) -> Any:
    return next((one for one in array.members if device and one.id == device), None)


def _role(member: Any) -> str:
    return word(array_pb2.MemberRole, member.role)


def _is_busy(array: Any) -> bool:
    return array.sync.action not in ("", "idle", "frozen")


class Repair:
    """Brings back the legs of a volume that can be reached. See `hostler.plans.Change`."""

    kind = "replicate-repair"

    def __init__(self, name: str, wait_s: float = WAIT_S) -> None:
        self._name = name
        self._wait_s = wait_s

    async def plan(self, session: Session) -> Planned:
        """Say which legs are brought back, and which are away still."""
        refuse_jobs(session)
        here = await Here.look(session)
        arrays = mirrors(self._name, here)
        steps, warnings = [], []
        for entry in _legs(self._name, here):
            name = entry.attachment.name
            if entry.session and not _is_back(entry):
                at = f"{entry.attachment.target} at {entry.attachment.portal}"
                warnings.append(f"LEG_AWAY: {name}: {at} is {entry.session}")
            elif not entry.session:
                steps.append(PlannedStep("ApplyAttachment", f"log in again to {name}"))
                steps.append(PlannedStep("AddMember", f"add {name} to its mirror again"))
        for array in arrays.values():
            steps += [one for one, _ in self._of_array(array, here)]
        text = json.dumps([asdict(one) for one in steps])
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Planned(digest, tuple(steps), tuple(warnings))

    def _of_array(self, array: Any, here: Here) -> Iterator[tuple[PlannedStep, RpcChange]]:
        """What brings the members of a mirror back, in turn."""
        if any(not one.present for one in array.members):
            words = f"take out of {array.name} what is unplugged"
            request = array_pb2.RemoveMemberRequest(array=array.uuid)
            yield PlannedStep("RemoveMember", words), RpcChange(REMOVE_MEMBER, request)
        for device in self._back(array, here):
            if _member(array, device) is not None:
                words = f"take {device} out of {array.name}, where it has failed"
                request = array_pb2.RemoveMemberRequest(array=array.uuid, device=device)
                yield PlannedStep("RemoveMember", words), RpcChange(REMOVE_MEMBER, request)
            words = f"add {device} to {array.name} again"
            add = array_pb2.AddMemberRequest(array=array.uuid, device=device)
            yield PlannedStep("AddMember", words), RpcChange(ADD_MEMBER, add)

    def _back(self, array: Any, here: Here) -> list[str]:
        """The devices that can be reached, and are not in use in their mirror."""
        found = []
        for entry in _legs(self._name, here):
            mine = mirrors(self._name, here)[mirror_of(self._name, entry.attachment.name)]
            if mine.uuid != array.uuid or not (entry.device and _is_back(entry)):
                continue
            member = _member(array, entry.device)
            if member is None or member.role == _FAULTY:
                found.append(entry.device)
        return found

    async def apply(self, session: Session, planned: Planned) -> Replicated:
        """Do it, and wait until md has synchronised what came back. Raises CallFailed."""
        if (await self.plan(session)).hash != planned.hash:
            message = "the plan would be another one by now"
            raise CallFailed(HostError("ABORTED", "PLAN_CHANGED", message))
        done, here = Replicated(planned), await Here.look(session)
        for entry in _legs(self._name, here):
            if not entry.session:
                request = export_pb2.ApplyAttachmentRequest(attachment=entry.attachment)
                change = RpcChange(APPLY_ATTACHMENT, request)
                name = f"attachment {entry.attachment.name}"
                done.answers[name] = await carried_out(session, change)
        here = await Here.look(session)
        for array in mirrors(self._name, here).values():
            for step, change in self._of_array(array, here):
                done.answers[step.description] = await carried_out(session, change)
        if planned.steps:
            await self._wait(session)
        return done

    async def _wait(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._wait_s
        while True:
            answer = await session.call(LIST_ARRAYS, array_pb2.ListArraysRequest())
            mine = (self._name, f"{self._name}-m")
            busy = [
                one
                for one in answer.arrays
                if (one.name == mine[0] or one.name.startswith(mine[1])) and _is_busy(one)
            ]
            if not busy or loop.time() > end:
                return
            await asyncio.sleep(_LOOK_S)

    def to_record(self, host: Host) -> dict[str, Any]:
        """What `from_record` takes."""
        return {"name": self._name, "wait_s": self._wait_s}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Repair:
        """The change that was recorded."""
        return cls(str(record["name"]), float(record["wait_s"]))


def _is_back(entry: Any) -> bool:
    return bool(entry.session == LOGGED_IN and entry.running)
