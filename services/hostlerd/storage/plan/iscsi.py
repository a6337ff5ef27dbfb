"""Plans of changes to exports and attachments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, canonical, fingerprint
from hostlerd.storage.errors import (
    DeviceAmbiguous,
    DeviceBusy,
    DeviceReadOnly,
    DeviceTooSmall,
    LinkMissing,
)
from hostlerd.storage.errors.exports import AttachmentExists, ExportExists, ExportInUse
from hostlerd.storage.model import iscsi as model
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.model.iscsi import Attachment, AttachmentState, Export, ExportState
from hostlerd.storage.model.iscsi_steps import (
    ApplyAttachment,
    ApplyExport,
    DeleteAttachment,
    DeleteExport,
)
from hostlerd.storage.plan.choose import called, choose_node, is_device, target_of
from hostlerd.storage.plan.in_use import users

SIZE_LEAST_BYTES = 1 << 20
_NOT_EXPORTED = frozenset((Kind.OPTICAL, Kind.MEMORY, Kind.NETWORK))
"""What is no disk of this host's own, or holds nothing after a boot."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An export that is asked for."""

    name: str
    device: str
    portal: str
    initiators: tuple[str, ...]
    chap_user: str = ""
    chap_secret_file: str = ""
    new_secret: bool = False
    force: bool = False


def apply(wanted: Wanted, graph: Graph, have: Sequence[ExportState], host: str) -> Plan:
    """Export a device, or change how; nothing if it is exported so and is to be had."""
    before = next((one for one in have if one.export.name == wanted.name), None)
    _check(wanted, host)
    node = choose_node(graph, wanted.device, "export.device")
    export = _export(wanted, node, host, "" if before is None else before.export.target)
    is_own = before is not None and _is_of(before.export, node)
    if before is not None and not is_own:
        raise ExportExists(
            f"{wanted.name} is the export of {before.export.link}: delete it before",
            export=wanted.name,
            device=before.export.link,
        )
    etag, after = _etag(before), fingerprint(export)
    if before is not None and before.export == export and before.is_up and not wanted.new_secret:
        return Plan(etag=etag, etag_after=after, result=export)
    if before is None:
        _refuse_unless_whole(graph, node)
    elif before.sessions and not wanted.force:
        raise _in_use(before)
    new_secret = wanted.new_secret or (before is None and not wanted.chap_secret_file)
    step = ApplyExport(
        export,
        None if before is None else before.export,
        target_of(node),
        new_secret,
        wanted.force,
        mark="" if before is None else before.mark,
    )
    notices = () if before is None else tuple(_cut_off(before))
    return Plan(
        (step,),
        etag=etag,
        etag_after=after,
        notices=notices,
        result=export,
        bindings={"device": canonical(step.device)},
    )


def delete(name: str, force: bool, have: Sequence[ExportState]) -> Plan:
    """End an export; nothing if there is none."""
    if not model.NAME.fullmatch(name):
        raise InvalidRequest.of([Violation("name", "is no name of an export")])
    before = next((one for one in have if one.export.name == name), None)
    etag, after = _etag(before), fingerprint(None)
    if before is None:
        return Plan(etag=etag, etag_after=after)
    if before.sessions and not force:
        raise _in_use(before)
    step = DeleteExport(before.export, force)
    return Plan((step,), etag=etag, etag_after=after, notices=tuple(_cut_off(before)))


def attach(
    wanted: Attachment,
    have: Sequence[AttachmentState],
    graph: Graph,
    host: str,
    is_secret_new: bool = False,
) -> Plan:
    """Log in to a target; nothing if there is a session, and it is defined so.

    `is_secret_new` says that another secret came with the request than the one that is kept.
    """
    wanted = named(wanted, host)
    if faults := model.attachment_faults(wanted):
        raise InvalidRequest.of([Violation(f"attachment.{at}", why) for at, why in faults])
    before = next((one for one in have if one.attachment.name == wanted.name), None)
    same = next((one for one in have if one.attachment.target == wanted.target), None)
    if same is not None and same is not before:
        raise AttachmentExists(
            f"{wanted.target} is attached as {same.attachment.name}",
            attachment=same.attachment.name,
        )
    if before is not None and before.attachment != wanted:
        raise AttachmentExists(
            f"{wanted.name} is {before.attachment.target} at {before.attachment.portal}, or is "
            "defined in another way: delete it before",
            attachment=wanted.name,
        )
    etag = fingerprint(None if before is None else before.attachment)
    after = fingerprint(wanted)
    if before is not None and before.session and not is_secret_new:
        return Plan(etag=etag, etag_after=after, result=wanted, notices=tuple(_lost(before)))
    if before is None and (node := device_of(graph, wanted.target)) is not None:
        raise AttachmentExists(
            f"{wanted.target} is attached already, as {node.id}, and not by Hostler",
            attachment="",
            device=node.id,
        )
    step = ApplyAttachment(wanted, None if before is None else before.attachment)
    return Plan((step,), etag=etag, etag_after=after, result=wanted)


def detach(name: str, have: Sequence[AttachmentState], graph: Graph) -> Plan:
    """Log out of a target; nothing if there is no such attachment. Raises DeviceBusy."""
    if not model.NAME.fullmatch(name):
        raise InvalidRequest.of([Violation("name", "is no name of an attachment")])
    before = next((one for one in have if one.attachment.name == name), None)
    etag = fingerprint(None if before is None else before.attachment)
    if before is None:
        return Plan(etag=etag, etag_after=etag)
    nodes = devices_of(graph, before.attachment.target)
    for node in nodes:
        _refuse_if_used(graph, node)
    step = DeleteAttachment(before.attachment, tuple(target_of(one) for one in nodes))
    return Plan((step,), etag=etag, etag_after=fingerprint(None))


def named(wanted: Attachment, host: str) -> Attachment:
    """An attachment with what the request may leave to the host."""
    return Attachment(
        name=wanted.name,
        portal=wanted.portal,
        target=wanted.target,
        initiator=wanted.initiator or model.initiator_name(host),
        chap_user=wanted.chap_user,
        chap_secret_file=wanted.chap_secret_file,
        timeout_s=wanted.timeout_s or model.TIMEOUT_S,
    )


def devices_of(graph: Graph, target: str) -> tuple[Node, ...]:
    """The disks that come from a target now."""
    return tuple(
        one
        for one in graph.nodes
        if one.facts.get("iscsi_target") == target and one.kind is not Kind.PARTITION
    )


def device_of(graph: Graph, target: str) -> Node | None:
    """The disk that comes from a target now; None if there is none."""
    return next(iter(devices_of(graph, target)), None)


def _check(wanted: Wanted, host: str) -> None:
    export = Export(
        name=wanted.name,
        link="/dev/disk/by-id/not-known-yet",
        size_bytes=0,
        serial="",
        wwn="",
        target=model.target_name(host, "x"),
        portal=wanted.portal,
        initiators=wanted.initiators,
        chap_user=wanted.chap_user or "x",
        chap_secret_file=wanted.chap_secret_file,
    )
    faults = [Violation(f"export.{at}", why) for at, why in model.export_faults(export)]
    if wanted.new_secret and wanted.chap_secret_file:
        faults.append(Violation("new_secret", "is not for a secret that a file of the host has"))
    if faults:
        raise InvalidRequest.of(faults)


def _export(wanted: Wanted, node: Node, host: str, target: str) -> Export:
    return Export(
        name=wanted.name,
        link=_link(node, wanted.device),
        size_bytes=node.size_bytes,
        serial=node.serial,
        wwn=node.wwn,
        # One that is there keeps its name, whatever the host is called by now.
        target=target or model.target_name(host, wanted.name),
        portal=wanted.portal,
        initiators=tuple(sorted(wanted.initiators)),
        chap_user=wanted.chap_user or wanted.name,
        chap_secret_file=wanted.chap_secret_file,
    )


def _link(node: Node, asked: str) -> str:
    links = sorted(one for one in node.links if model.LINK.fullmatch(one))
    if asked in links:
        return asked
    if not links:
        raise LinkMissing(
            f"{node.id} ({node.name}) has no link in /dev/disk/by-id, by which it would be found "
            "after a boot",
            device=node.id,
        )
    return links[0]


def _refuse_unless_whole(graph: Graph, node: Node) -> None:
    """Raise why a device is not to be exported."""
    words = f"{node.id} ({node.name})"
    if node.kind in _NOT_EXPORTED:
        kind = node.kind.name.lower()
        raise DeviceBusy(f"{words} is not exported: it is {kind}", device=node.id, used_by=kind)
    if node.is_read_only:
        raise DeviceReadOnly(f"{words} is read-only", device=node.id)
    if node.size_bytes < SIZE_LEAST_BYTES:
        raise DeviceTooSmall(f"{words} has only {node.size_bytes} bytes", device=node.id)
    link = _link(node, "")
    twins = [one for one in graph.nodes if is_device(one) and link in one.links]
    if len(twins) > 1:
        told = ", ".join(map(called, twins))
        raise DeviceAmbiguous(f"{link} means any of {told}", device=node.id, candidates=told)
    _refuse_if_used(graph, node)


def _refuse_if_used(graph: Graph, node: Node) -> None:
    if found := users(graph, node.id):
        raise DeviceBusy(
            f"{node.id} ({node.name}) is in use: {', '.join(found[:8])}",
            device=node.id,
            used_by=", ".join(found[:64]),
        )


def _is_of(export: Export, node: Node) -> bool:
    """Whether it is this device that an export is of."""
    known = (export.size_bytes, export.serial, export.wwn)
    return export.link in node.links and known == (node.size_bytes, node.serial, node.wwn)


def _in_use(state: ExportState) -> ExportInUse:
    who = ", ".join(state.sessions)
    return ExportInUse(
        f"{state.export.name} ({state.export.link}) is in use by {who}",
        export=state.export.name,
        device=state.export.link,
        used_by=who,
    )


def _cut_off(state: ExportState) -> list[Notice]:
    return [
        Notice("SESSION_CUT", f"{one} has it now, and loses it", state.export.name)
        for one in state.sessions
    ]


def _lost(state: AttachmentState) -> list[Notice]:
    if state.session == "LOGGED_IN":
        return []
    words = f"its session is {state.session}: it comes back by itself when the other host does"
    return [Notice("SESSION_LOST", words, state.attachment.name)]


def _etag(state: ExportState | None) -> str:
    return fingerprint(None if state is None else state.export)
