"""Plans that change the devices of a btrfs. None of them leaves too few for its profiles."""

from __future__ import annotations

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step, canonical
from hostlerd.storage.errors import DeviceTooSmall, TooFewDevices
from hostlerd.storage.model.btrfs import PROFILES
from hostlerd.storage.model.btrfs_steps import AddBtrfsDevice, StartRemoval, StartReplace
from hostlerd.storage.model.graph import Graph, Node
from hostlerd.storage.model.observed import Btrfs, BtrfsDevice, Observed
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.btrfs import find, member, node_id, plan_of, refuse_unless_idle
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.in_use import refuse_if_used

LEAST_BYTES = 109 << 20
"""What btrfs takes as the smallest device. Source: mkfs.btrfs(8)."""


def add(words: str, device: str, seen: Observed, graph: Graph) -> Plan:
    """Add a device; nothing if it is one of the filesystem."""
    pool = find(seen, words)
    node = choose_node(graph, device)
    if _is_in(pool, node):
        return plan_of(pool, ())
    refuse_unless_idle(pool)
    refuse_if_used(graph, node)
    _refuse_too_small(pool, node, LEAST_BYTES)
    step = AddBtrfsDevice(pool.uuid, target_of(node))
    return _destroying(pool, step, step.device)


def remove(words: str, device: str, seen: Observed, graph: Graph) -> Plan:
    """Take a device out, or the one that is missing; nothing if it is none of the filesystem."""
    pool = find(seen, words)
    if device:
        node = choose_node(graph, device)
        gone = next((one for one in pool.devices if one.name == node.name), None)
        if gone is None:
            return plan_of(pool, ())
    else:
        gone = _missing(pool, "device")
        if gone is None:
            return plan_of(pool, ())
    refuse_unless_idle(pool)
    _refuse_too_few(pool, gone)
    targets = () if gone.is_missing else (target_of(_node(graph, gone)),)
    step = StartRemoval(pool.uuid, gone.device_id, targets, gone.allocated_bytes)
    return plan_of(pool, (step,))


def _refuse_too_few(pool: Btrfs, gone: BtrfsDevice) -> None:
    """Raise what speaks against it, unless the others are enough and have the room for it."""
    others = [one for one in pool.devices if one.device_id != gone.device_id and not one.is_missing]
    for one in pool.allocations:
        if len(others) < (least := PROFILES[one.profile].least_devices):
            words = f"{one.kind} of {node_id(pool)} is {one.profile}, which needs {least} devices"
            raise TooFewDevices(f"{words}: {len(others)} would be left", filesystem=pool.uuid)
    if not others:
        raise TooFewDevices(f"{node_id(pool)} has no other device", filesystem=pool.uuid)
    room = sum(one.size_bytes - one.allocated_bytes for one in others)
    if room < gone.allocated_bytes:
        raise DeviceTooSmall(
            f"the other devices of {node_id(pool)} have {room} bytes that are not allocated: "
            f"{gone.allocated_bytes} are to be moved",
            filesystem=pool.uuid,
        )


def replace(words: str, old: str, new: str, seen: Observed, graph: Graph) -> Plan:
    """Have a device take the place of another one, or of the one that is missing.

    Nothing if it has done so: the old one is none of the filesystem, and the new one is.
    """
    pool = find(seen, words)
    into = choose_node(graph, new, "new")
    out: BtrfsDevice | None
    if old:
        node = choose_node(graph, old, "old")
        if node.id == into.id:
            raise InvalidRequest.of([Violation("new", "is the old one")])
        if _is_in(pool, into) and not _is_in(pool, node):
            return plan_of(pool, ())
        out = member(pool, old, graph, "old")
    else:
        out = _missing(pool, "old")
        if out is None:
            if _is_in(pool, into):
                return plan_of(pool, ())
            raise InvalidRequest.of([Violation("old", "must name a device: none is missing")])
    if _is_in(pool, into):
        words = f"{into.id} is a device of {node_id(pool)} already"
        raise InvalidRequest.of([Violation("new", words)])
    refuse_unless_idle(pool)
    refuse_if_used(graph, into)
    _refuse_too_small(pool, into, out.size_bytes)
    targets = () if out.is_missing else (target_of(_node(graph, out)),)
    step = StartReplace(pool.uuid, out.device_id, targets, target_of(into), out.size_bytes)
    return _destroying(pool, step, step.new)


def _missing(pool: Btrfs, field: str) -> BtrfsDevice | None:
    """The one device that is missing; None if none is. Raises InvalidRequest for several."""
    missing = [one for one in pool.devices if one.is_missing]
    if len(missing) > 1:
        raise InvalidRequest.of(
            [Violation(field, "several are missing: one at a time by the tool")]
        )
    return missing[0] if missing else None


def _node(graph: Graph, device: BtrfsDevice) -> Node:
    return next(node for node in graph.nodes if node.number and node.name == device.name)


def _is_in(pool: Btrfs, node: Node) -> bool:
    return any(one.name == node.name for one in pool.devices)


def _refuse_too_small(pool: Btrfs, node: Node, least: int) -> None:
    if node.size_bytes < least:
        raise DeviceTooSmall(
            f"{node.id} has {node.size_bytes} bytes: {node_id(pool)} needs {least}",
            device=node.id,
            least_bytes=least,
        )


def _destroying(pool: Btrfs, step: Step, device: Target) -> Plan:
    lost = [
        Notice("CONTENT_LOST", f"{device.name} holds {one}: it is lost", device.id)
        for one in device.signatures
    ]
    plan = plan_of(pool, (step,), lost)
    bindings = {"filesystem": pool.uuid, "device": canonical(device)}
    return Plan(plan.steps, etag=plan.etag, notices=plan.notices, bindings=bindings)
