"""The composite: a replicated volume, of exports on several hosts and all else on one.

Put together by the client; no daemon calls another. What is there already is left as it is: cut off
anywhere, it goes on from there when it is asked for again. Secrets go from the host that makes them
to the one that needs them, and are kept nowhere between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hostler.api.storage.v1 import array_pb2, export_pb2, filesystem_pb2, mount_pb2
from hostler.channel import rpc
from hostler.fleet import Host
from hostler.group import refuse_jobs
from hostler.plans import Planned, PlannedStep, RpcChange
from hostler.replicated import Leg, Volume
from hostler.results import CallFailed, HostError
from hostler.session import Session

LIST_EXPORTS = rpc(export_pb2, "ExportService", "ListExports")
APPLY_EXPORT = rpc(export_pb2, "ExportService", "ApplyExport")
LIST_ATTACHMENTS = rpc(export_pb2, "AttachmentService", "ListAttachments")
APPLY_ATTACHMENT = rpc(export_pb2, "AttachmentService", "ApplyAttachment")
LIST_ARRAYS = rpc(array_pb2, "ArrayService", "ListArrays")
CREATE_ARRAY = rpc(array_pb2, "ArrayService", "CreateArray")
MAKE_FILESYSTEM = rpc(filesystem_pb2, "FilesystemService", "MakeFilesystem")
LIST_MOUNTS = rpc(mount_pb2, "MountService", "ListMounts")
APPLY_MOUNT = rpc(mount_pb2, "MountService", "ApplyMount")
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Here:
    """What the host of a volume has of it."""

    attachments: Mapping[str, Any]
    arrays: Mapping[str, Any]
    mounted: frozenset[str]
    initiator: str

    @classmethod
    async def look(cls, session: Session) -> Here:
        """Ask the host. Raises CallFailed."""
        attached = await session.call(LIST_ATTACHMENTS, export_pb2.ListAttachmentsRequest())
        arrays = await session.call(LIST_ARRAYS, array_pb2.ListArraysRequest())
        mounts = await session.call(LIST_MOUNTS, mount_pb2.ListMountsRequest())
        return cls(
            {one.attachment.name: one for one in attached.attachments},
            {one.name: one for one in arrays.arrays},
            frozenset(one.where for one in mounts.mounts if one.mounted),
            attached.initiator,
        )


@dataclass(slots=True)
class Replicated:
    """What came of it: the answers of the parts, by name. None of them has a secret any more."""

    planned: Planned
    answers: dict[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether any part had anything to do."""
        return any(answer.change.changed for answer in self.answers.values())

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "changed": self.changed,
            **self.planned.as_dict(),
            "parts": {name: answer.change.changed for name, answer in self.answers.items()},
        }


class Replicate:
    """Makes a replicated volume, on the host that is to have it. See `hostler.plans.Change`."""

    kind = "replicate"

    def __init__(self, volume: Volume, hosts: Mapping[str, Host]) -> None:
        self._volume = volume
        self._hosts = dict(hosts)

    async def plan(self, session: Session) -> Planned:
        """Ask all hosts for what they can plan by now; the rest is told in the same words."""
        refuse_jobs(session)
        volume, here = self._volume, await Here.look(session)
        steps: list[PlannedStep] = []
        warnings = list(volume.warnings)
        for leg in volume.remote:
            async with session.beside(self._hosts[leg.host]) as there:
                planned = await (await self._export(there, leg, here)).plan(there)
            steps += [
                PlannedStep(one.kind, f"{leg.host}: {one.description}") for one in planned.steps
            ]
            warnings += [f"{leg.host}: {one}" for one in planned.warnings]
            entry = here.attachments.get(volume.leg_name(leg))
            if entry is None or not entry.session:
                words = f"attach {planned.response.target} at {volume.portals[leg.host]}"
                steps.append(self._step("ApplyAttachment", f"{words} as {volume.leg_name(leg)}"))
        steps += self._above(here)
        text = json.dumps([asdict(one) for one in steps])
        return Planned(
            hashlib.sha256(text.encode()).hexdigest(), tuple(steps), tuple(warnings), self._volume
        )

    def _above(self, here: Here) -> list[PlannedStep]:
        """What lies on the legs, and is not there yet."""
        volume, steps = self._volume, []
        for at, mirror in enumerate(volume.mirrors, 1):
            if volume.array_name(at) not in here.arrays:
                of = ", ".join(f"{leg.host}:{leg.device}" for leg in mirror)
                words = f"make raid1 {volume.array_name(at)} of {of}: what they hold is lost"
                steps.append(self._step("CreateArray", words))
        if volume.name not in here.arrays and len(volume.mirrors) > 1:
            of = ", ".join(volume.array_name(at + 1) for at in range(len(volume.mirrors)))
            steps.append(self._step("CreateArray", f"make raid0 {volume.name} of {of}"))
        if volume.mount not in here.mounted:
            words = f"make {volume.type} on {volume.name}, unless it has it"
            steps.append(self._step("MakeFilesystem", words))
            steps.append(self._step("ApplyMount", f"mount {volume.name} on {volume.mount}"))
        return steps

    def _step(self, kind: str, words: str) -> PlannedStep:
        return PlannedStep(kind, f"{self._volume.on}: {words}")

    async def _export(self, there: Session, leg: Leg, here: Here) -> RpcChange:
        """The change that exports a leg; with a new secret where nobody knows that of before."""
        name = self._volume.leg_name(leg)
        listed = await there.call(LIST_EXPORTS, export_pb2.ListExportsRequest())
        is_known = any(one.export.name == name for one in listed.exports)
        wanted = export_pb2.Export(
            name=name,
            device=leg.device,
            portal=self._volume.portals[leg.host],
            initiators=[here.initiator],
        )
        new = is_known and name not in here.attachments
        return RpcChange(APPLY_EXPORT, export_pb2.ApplyExportRequest(export=wanted, new_secret=new))

    async def apply(self, session: Session, planned: Planned) -> Replicated:
        """Do what was planned: legs, mirrors, stripe, filesystem, mount. Raises CallFailed.

        What is done stays, and is the beginning of the next try.
        """
        if (await self.plan(session)).hash != planned.hash:
            message = "the plan would be another one by now"
            raise CallFailed(HostError("ABORTED", "PLAN_CHANGED", message))
        done, volume = Replicated(planned), self._volume
        here = await Here.look(session)
        for leg in volume.remote:
            await self._attach(session, leg, here, done)
        here = await Here.look(session)
        made = [
            await self._array(session, done, volume.array_name(at), "raid1", devices)
            for at, devices in enumerate(self._devices(here), 1)
        ]
        top = made[0]
        if len(made) > 1:
            ids = [one.id for one in made]
            top = await self._array(session, done, volume.name, "raid0", ids)
        if volume.mount not in here.mounted:
            await self._mount(session, done, top)
        return done

    async def _attach(self, session: Session, leg: Leg, here: Here, done: Replicated) -> None:
        volume, name = self._volume, self._volume.leg_name(leg)
        async with session.beside(self._hosts[leg.host]) as there:
            exported = await carried_out(there, await self._export(there, leg, here))
        secret = exported.chap_secret
        exported.ClearField("chap_secret")
        done.answers[f"export {name}"] = exported
        wanted = export_pb2.Attachment(
            name=name, portal=volume.portals[leg.host], target=exported.target, chap_user=name
        )
        request = export_pb2.ApplyAttachmentRequest(attachment=wanted, chap_secret=secret)
        change = RpcChange(APPLY_ATTACHMENT, request)
        done.answers[f"attachment {name}"] = await carried_out(session, change)

    def _devices(self, here: Here) -> list[list[str]]:
        """What the legs of each mirror are called on the volume's host."""
        volume = self._volume

        def called(leg: Leg) -> str:
            return (
                leg.device
                if leg.host == volume.on
                else str(here.attachments[volume.leg_name(leg)].device)
            )

        # The own one first: md fills the others from it, and reads it.
        return [
            [called(leg) for leg in sorted(mirror, key=lambda leg: leg.host != volume.on)]
            for mirror in volume.mirrors
        ]

    async def _array(
        self, session: Session, done: Replicated, name: str, level: str, devices: list[str]
    ) -> Any:
        request = array_pb2.CreateArrayRequest(name=name, level=level, devices=devices)
        if level == "raid1" and self._volume.on in self._volume.hosts:
            request.write_mostly_count = len(devices) - 1
        answer = await carried_out(session, RpcChange(CREATE_ARRAY, request))
        done.answers[f"array {name}"] = answer
        return answer.array

    async def _mount(self, session: Session, done: Replicated, array: Any) -> None:
        volume = self._volume
        make = filesystem_pb2.MakeFilesystemRequest(
            device=array.id, type=volume.type, uuid=volume.filesystem_uuid(array.uuid)
        )
        change = RpcChange(MAKE_FILESYSTEM, make)
        done.answers["filesystem"] = await carried_out(session, change)
        mount = mount_pb2.ApplyMountRequest(where=volume.mount, device=array.id)
        done.answers["mount"] = await carried_out(session, RpcChange(APPLY_MOUNT, mount))

    def to_record(self, host: Host) -> dict[str, Any]:
        """What `from_record` takes."""
        return {
            "volume": self._volume.to_record(),
            "hosts": [one.to_record() for one in self._hosts.values()],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Replicate:
        """The change that was recorded."""
        hosts = {one.name: one for one in map(Host.from_record, record["hosts"])}
        return cls(Volume.from_record(record["volume"]), hosts)


async def carried_out(session: Session, change: RpcChange) -> Any:
    """Plan a change and do that, again if the plan is another one by then. Raises CallFailed.

    What comes and goes of disks changes plans: udev is at work on what was made a moment before.
    """
    for _ in range(_TRIES - 1):
        try:
            return await change.apply(session, await change.plan(session))
        except CallFailed as failed:
            if failed.error.reason != "PLAN_CHANGED":
                raise
    return await change.apply(session, await change.plan(session))
