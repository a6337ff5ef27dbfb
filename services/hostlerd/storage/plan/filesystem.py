"""Plans of changes to filesystems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step, canonical, fingerprint
from hostlerd.storage.errors import (
    DeviceBusy,
    DeviceTooSmall,
    FilesystemNotFound,
    NotMounted,
    SavedNotFound,
)
from hostlerd.storage.model.filesystem import (
    GROW_LEAST_BYTES,
    KINDS,
    label_fault,
    uuid_fault,
)
from hostlerd.storage.model.filesystem_steps import (
    GrowFilesystem,
    MakeFilesystem,
    RestoreSaved,
    SetLabel,
    WipeSignatures,
)
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.model.saved import Saved
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.in_use import mounts, refuse_if_used, users


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filesystem that is asked for; an empty UUID is for its tool to draw."""

    device: str
    type: str
    label: str = ""
    uuid: str = ""


def make(wanted: Wanted, graph: Graph) -> Plan:
    """Make a filesystem; nothing if that very one, by a UUID that was asked for, is there."""
    _check(wanted)
    node = choose_node(graph, wanted.device)
    found = next((one for one in node.signatures if one.usage != "partition-table"), None)
    if (
        wanted.uuid
        and found is not None
        and (found.type, found.uuid, found.label) == (wanted.type, wanted.uuid, wanted.label)
    ):
        return _nothing(node)
    refuse_if_used(graph, node)
    least = KINDS[wanted.type].least_bytes
    if node.size_bytes < least:
        raise DeviceTooSmall(
            f"{node.id} has {node.size_bytes} bytes: {wanted.type} needs {least}",
            device=node.id,
            least_bytes=least,
        )
    step = MakeFilesystem(target_of(node), wanted.type, wanted.label, wanted.uuid)
    return _destroying(step, step.device, graph)


def _check(wanted: Wanted) -> None:
    if wanted.type not in KINDS:
        words = f"must be one of {', '.join(KINDS)}"
        raise InvalidRequest.of([Violation("type", words)])
    faults = (
        ("label", label_fault(wanted.type, wanted.label)),
        ("uuid", uuid_fault(wanted.type, wanted.uuid)),
    )
    if found := [Violation(field, why) for field, why in faults if why]:
        raise InvalidRequest.of(found)


def wipe(device: str, graph: Graph) -> Plan:
    """Wipe all signatures of a device; nothing if there are none."""
    node = choose_node(graph, device)
    if not node.signatures and not _partitions(graph, node.id):
        return _nothing(node)
    refuse_if_used(graph, node)
    step = WipeSignatures(target_of(node))
    return _destroying(step, step.device, graph)


def restore(device: str, saved: str, kept: Sequence[Saved], graph: Graph) -> Plan:
    """Put back what was saved of a device."""
    if saved not in {one.id for one in kept}:
        raise SavedNotFound(f"nothing is kept as {saved[:64]!r}", saved=saved[:64])
    node = choose_node(graph, device)
    refuse_if_used(graph, node)
    step = RestoreSaved(target_of(node), saved)
    return _destroying(step, step.device, graph)


def set_label(device: str, label: str, graph: Graph) -> Plan:
    """Give a filesystem a label; nothing if it has it."""
    node = choose_node(graph, device)
    kind, before = _filesystem(node)
    if why := label_fault(kind, label):
        raise InvalidRequest.of([Violation("label", why)])
    if before == label:
        return _nothing(node)
    used = users(graph, node.id)
    if used and not KINDS[kind].labels_in_use:
        raise DeviceBusy(
            f"{node.id} is in use ({', '.join(used)}): {kind} takes a label only while it is not",
            device=node.id,
            used_by=", ".join(used),
        )
    step = SetLabel(target_of(node), kind, label, before)
    after = fingerprint([step.device, label])
    return Plan((step,), etag=_etag(node), etag_after=after, bindings=_bindings(step.device))


def grow(device: str, size_bytes: int, graph: Graph) -> Plan:
    """Grow a filesystem of so many bytes to the end of its device; nothing if it fills it."""
    node, kind = growable(device, graph)
    if node.size_bytes - size_bytes < GROW_LEAST_BYTES:
        return _nothing(node)
    if not KINDS[kind].grows_unmounted and not mounts(graph, node.id):
        raise NotMounted(f"{node.id}: {kind} grows only while it is mounted", device=node.id)
    step = GrowFilesystem(target_of(node), kind, size_bytes)
    return Plan((step,), etag=_etag(node), bindings=_bindings(step.device))


def checkable(device: str, graph: Graph) -> tuple[Node, str]:
    """The device to check and the type of its filesystem. Raises DeviceBusy, FilesystemNotFound."""
    node = choose_node(graph, device)
    kind, _ = _filesystem(node)
    if used := users(graph, node.id):
        raise DeviceBusy(
            f"{node.id} ({node.name}) is in use: {', '.join(used)}: check it when it is not",
            device=node.id,
            used_by=", ".join(used),
        )
    if kind == "swap":
        raise FilesystemNotFound(f"{node.id} holds a swap area, and no filesystem", device=node.id)
    return node, kind


def growable(device: str, graph: Graph) -> tuple[Node, str]:
    """The device to grow on and the type of its filesystem. Raises FilesystemNotFound."""
    node = choose_node(graph, device)
    kind, _ = _filesystem(node)
    if not KINDS[kind].grows:
        raise FilesystemNotFound(f"{node.id} holds {kind}, which cannot grow", device=node.id)
    return node, kind


def _filesystem(node: Node) -> tuple[str, str]:
    """The type and the label of what lies on a device, if it is one of those known here."""
    for one in node.signatures:
        if one.type in KINDS:
            return one.type, one.label
    held = ", ".join(one.type for one in node.signatures) or "no signature"
    raise FilesystemNotFound(
        f"{node.id} holds {held}, and none of {', '.join(KINDS)}", device=node.id
    )


def _nothing(node: Node) -> Plan:
    etag = _etag(node)
    return Plan(etag=etag, etag_after=etag)


def _destroying(step: Step, device: Target, graph: Graph) -> Plan:
    node = next(one for one in graph.nodes if one.id == device.id)
    return Plan(
        (step,),
        etag=_etag(node),
        notices=tuple(contents_lost(node, graph)),
        bindings=_bindings(device),
    )


def contents_lost(node: Node, graph: Graph) -> list[Notice]:
    """What lies on a device and its partitions, each a warning."""
    found = []
    for one in (node, *_partitions(graph, node.id)):
        for each in one.signatures:
            label = f" labelled {each.label!r}" if each.label else ""
            words = f"{one.name} holds {each.type} {each.uuid}{label}: it is lost"
            found.append(Notice("CONTENT_LOST", words, one.id))
    return found


def _partitions(graph: Graph, node_id: str) -> list[Node]:
    upper = {edge.upper for edge in graph.edges if edge.lower == node_id}
    return [one for one in graph.nodes if one.id in upper and one.kind is Kind.PARTITION]


def _etag(node: Node) -> str:
    label = next((one.label for one in node.signatures if one.usage != "partition-table"), "")
    return fingerprint([target_of(node), label])


def _bindings(device: Target) -> dict[str, object]:
    return {"device": canonical(device)}
