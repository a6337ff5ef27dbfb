"""Plans that change the members of an array. None of them takes the last copy of anything."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan, Step
from hostlerd.storage.errors import (
    ArrayLevel,
    DeviceTooSmall,
    LastCopy,
    MemberInUse,
    MemberNotFound,
)
from hostlerd.storage.model.array import MEMBER_SIGNATURE, REDUNDANT, Array, Member
from hostlerd.storage.model.array_steps import (
    AddMember,
    FailMember,
    ReAddMember,
    RemoveDetached,
    RemoveMember,
    ReplaceMember,
)
from hostlerd.storage.model.graph import Graph, Node
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.array_choose import Found, find, plain_uuid
from hostlerd.storage.plan.array_create import etag
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.in_use import refuse_if_used


def add(words: str, device: str, as_new: bool, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Add a device, or one that was of the array back to it; nothing if it is in it."""
    found = find(arrays, graph, words)
    node = choose_node(graph, device)
    member = found.array.member(node.name)
    if member is not None and not member.is_faulty:
        return _plan(found, found.resumed())
    return _plan(found, (adding(found, node, as_new, graph),))


def adding(found: Found, node: Node, as_new: bool, graph: Graph) -> AddMember | ReAddMember:
    """The step that adds a device. Raises what speaks against it."""
    array = found.array
    if array.level not in REDUNDANT:
        raise ArrayLevel(f"{array.level} takes no device beside its own", array=array.uuid)
    if array.member(node.name) is not None:
        words = f"{node.id} has failed in {found.node.id}: take it out before it is added again"
        raise MemberInUse(words, device=node.id, array=array.uuid)
    refuse_if_used(graph, node)
    least = array.component_bytes + array.data_offset_bytes
    if node.size_bytes < least:
        raise DeviceTooSmall(
            f"{node.id} has {node.size_bytes} bytes: {found.node.id} takes {least} of each",
            device=node.id,
            least_bytes=least,
        )
    kind = ReAddMember if not as_new and _was_member(node, array) else AddMember
    return kind(found.target, array.uuid, target_of(node))


def _was_member(node: Node, array: Array) -> bool:
    return any(
        one.type == MEMBER_SIGNATURE and plain_uuid(one.uuid) == plain_uuid(array.uuid)
        for one in node.signatures
    )


def fail(words: str, device: str, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Have md use a member no more; nothing if it does not. Raises LastCopy."""
    found = find(arrays, graph, words)
    node, member = _member(found, device, graph)
    if member.is_faulty:
        return _plan(found, ())
    if member.slot is not None:
        _refuse_last_copy(found, {member.name}, node.id)
    step = FailMember(found.target, found.array.uuid, target_of(node))
    return _plan(found, (step,), step.device)


def remove(words: str, device: str, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Take out a spare or a member that has failed; nothing if it is not in it.

    No device: all that are unplugged. Raises MemberInUse, LastCopy.
    """
    found = find(arrays, graph, words)
    if not device:
        return _plan(found, _unplugged(found))
    node = choose_node(graph, device)
    member = found.array.member(node.name)
    if member is None:
        return _plan(found, ())
    return _plan(found, (_removing(found, node, member),), target_of(node))


def _removing(found: Found, node: Node, member: Member) -> RemoveMember:
    if not member.is_faulty and member.slot is not None:
        words = f"{node.id} is in use in {found.node.id}: replace it, or mark it as failed before"
        raise MemberInUse(words, device=node.id, array=found.array.uuid)
    if member.is_faulty:
        _refuse_last_copy(found, (), node.id)
    return RemoveMember(found.target, found.array.uuid, target_of(node))


def _unplugged(found: Found) -> tuple[Step, ...]:
    names = tuple(sorted(one.name for one in found.array.members if not one.is_there))
    if not names:
        return ()
    _refuse_last_copy(found, (), ", ".join(names))
    return (RemoveDetached(found.target, found.array.uuid, names),)


def _refuse_last_copy(found: Found, without: Collection[str], subject: str) -> None:
    """Raise LastCopy unless all data is there without these members.

    What has failed already is the last copy too, where nothing else has it: it may come back.
    """
    array = found.array
    if array.has_all_data(without):
        return
    words = (
        f"{found.node.id} ({array.level}) has no other copy of what is on {subject}"
        if without
        else f"{found.node.id} lacks data: {subject} may be needed to bring it back"
    )
    raise LastCopy(words, array=array.uuid, device=subject)


def replace(words: str, old: str, new: str, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Have a device take the place of another one, or of the one that lacks if `old` is empty.

    The old one stays in use until all of it is copied. Asked again then, takes the old one out.
    """
    found = find(arrays, graph, words)
    node = choose_node(graph, new, "new")
    into = found.array.member(node.name)
    if not old:
        if into is not None and not into.is_faulty:
            return _plan(found, (*_unplugged(found), *found.resumed()))
        if not found.array.degraded:
            words = "must name a member: none lacks"
            raise InvalidRequest.of([Violation("old", words)])
        return _plan(found, (*_unplugged(found), adding(found, node, True, graph)))
    out_node = choose_node(graph, old, "old")
    if out_node.id == node.id:
        raise InvalidRequest.of([Violation("new", "is the old one")])
    return _plan(found, _replacing(found, out_node, node, into, graph))


def _replacing(
    found: Found, old: Node, new: Node, into: Member | None, graph: Graph
) -> tuple[Step, ...]:
    out = found.array.member(old.name)
    is_in = into is not None and not into.is_faulty
    if out is None:
        if not is_in:
            raise _no_member(found, old)
        return found.resumed()
    if out.is_faulty:
        taken = _removing(found, old, out)
        return (taken,) if is_in else (taken, adding(found, new, True, graph))
    if into is not None and into.slot is not None and not into.is_faulty:
        if into.slot == out.slot:
            return found.resumed()
        words = f"{new.id} is in use in {found.node.id} already"
        raise MemberInUse(words, device=new.id, array=found.array.uuid)
    if out.slot is None:
        raise MemberInUse(f"{old.id} is a spare: take it out", device=old.id)
    step = ReplaceMember(found.target, found.array.uuid, target_of(old), target_of(new))
    return (step,) if is_in else (adding(found, new, True, graph), step)


def _member(found: Found, device: str, graph: Graph) -> tuple[Node, Member]:
    node = choose_node(graph, device)
    member = found.array.member(node.name)
    if member is None:
        raise _no_member(found, node)
    return node, member


def _no_member(found: Found, node: Node) -> MemberNotFound:
    return MemberNotFound(
        f"{node.id} is no member of {found.node.id}", device=node.id, array=found.array.uuid
    )


def _plan(found: Found, steps: tuple[Step, ...], *devices: Target) -> Plan:
    added = tuple(one.device for one in steps if isinstance(one, (AddMember, ReAddMember)))
    return Plan(
        steps,
        etag=etag(found.array),
        bindings={"array": found.target, "devices": (*added, *devices)} if steps else {},
        result=found.array,
    )
