"""The replacement of a disk as a whole: table, contents, boot loader, and which disk to pull.

Planned from what there is now: asked for once more, it has the steps that are left, and none when
all is done. That is how it is taken up again, whatever cut it off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.steps import Notice, Plan, Step, canonical, fingerprint
from hostlerd.storage.errors import DeviceNotFound, ReplacementRefused
from hostlerd.storage.model.graph import Node
from hostlerd.storage.model.replacement import (
    Content,
    Fate,
    Finding,
    Pull,
    Replacement,
    Weight,
)
from hostlerd.storage.model.smart import Smart
from hostlerd.storage.model.table import Table
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan import table
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.replace_boot import notes
from hostlerd.storage.plan.replace_btrfs import of_btrfs
from hostlerd.storage.plan.replace_case import Case
from hostlerd.storage.plan.replace_check import findings
from hostlerd.storage.plan.replace_content import FILESYSTEM, of_others, of_swap
from hostlerd.storage.plan.replace_lvm import of_lvm
from hostlerd.storage.plan.replace_md import of_arrays

KINDS: Sequence[Callable[[Case], Iterator[Content]]] = (
    of_arrays,
    of_btrfs,
    of_lvm,
    of_swap,
    of_others,
)
"""What may be on a disk: each kind finds what of it was on the old one. One line for a new kind."""
_NOT_ASKED = Smart(None, "it was not asked")


def contents(case: Case) -> tuple[Content, ...]:
    """All that was on the old disk, of what is asked for."""
    found = [one for kind in KINDS for one in kind(case)]
    wanted = case.asked.only
    return tuple(one for one in found if not wanted or one.id in wanted)


def table_source(case: Case) -> Node | None:
    """The disk whose table the new one is to have; None if it is used as a whole.

    The old one, or if that is gone, one of those that have the other parts of the same things.
    Raises what `choose_node` raises.
    """
    if case.asked.table_from:
        return choose_node(case.graph, case.asked.table_from, "table_from")
    if case.old is not None:
        return case.old if any(case.on(case.old).values()) else None
    mine = {one.id for one in contents(case) if one.number}
    if not mine:
        return None
    legs = {edge.lower for edge in case.graph.edges if edge.upper in mine}
    disks = {
        case.places[node.name][0]
        for node in case.graph.nodes
        if node.id in legs and node.name in case.places and case.places[node.name][1]
    }
    others = [case.nodes[name] for name in disks - {case.new.name}]
    return min(others, key=lambda node: node.id, default=None)


def examine(
    case: Case,
    have: Table,
    source: tuple[Node, Table] | None,
    *,
    smart: Smart = _NOT_ASKED,
    has_boot_code: bool = False,
) -> Replacement:
    """All that is to be known; `have` is the new disk's table, `source` the one to be copied.

    Raises DeviceNotFound if nothing is known of the old disk, and nothing lacks.
    """
    steps: tuple[Step, ...] = ()
    faults: list[Finding] = []
    if source is not None:
        try:
            want, foreign = table.copied(source[1], have, keep_ids=False)
            case = replace(case, want=want)
            if not _has_all(have, want):
                disk = target_of(case.new)
                steps = table.change(disk, _parts(case), have, want, foreign).steps
        except DomainError as e:
            faults.append(Finding(e.reason, Weight.ERROR, e.message))
    found = contents(case)
    if case.old is None and all(one.kind == FILESYSTEM for one in found):
        raise DeviceNotFound(
            f"no device of this host is called {case.asked.old[:200]!r}, and nothing lacks one",
            device=case.asked.old[:200],
        )
    if not any(one.fate is Fate.TO_DO for one in found) and (case.old is None or have.entries):
        # All is done: a table that somebody has changed since is his.
        steps = ()
    return Replacement(
        old=case.old.id if case.old is not None else case.asked.old,
        new=case.new.id,
        pull=pull(case),
        table_of=source[0].id if source is not None else "",
        table_steps=steps,
        contents=found,
        findings=(*faults, *findings(case, have, found, smart)),
        boot=tuple(notes(case, source[1] if source else None, has_boot_code=has_boot_code)),
    )


def _has_all(have: Table, want: Table) -> bool:
    """Whether a table has all that is wanted, and nothing else."""

    def places(of: Table) -> list[tuple[object, ...]]:
        return sorted((e.number, e.start_sector, e.size_sectors, e.type) for e in of.entries)

    return have.kind == want.kind and places(have) == places(want) and not have.errors


def _parts(case: Case) -> dict[int, Target]:
    return {
        number: target_of(case.nodes[name]) for name, number in case.on(case.new).items() if number
    }


def pull(case: Case) -> Pull:
    """Which disk is to be pulled."""
    old = case.old
    if old is None:
        there = [node for node in case.graph.nodes if node.serial and node.name in case.places]
        serials = sorted({node.serial for node in there})
        words = (
            f"{case.asked.old} is gone already: the disk to pull, if it is still plugged in, is "
            f"none of those with the serial numbers {', '.join(serials)}"
        )
        return Pull(case.asked.old, is_there=False, words=words)
    serial = f"serial number {old.serial}" if old.serial else "without a serial number"
    bay, enclosure = old.facts.get("bay", ""), old.facts.get("enclosure", "")
    where = f"bay {bay} of enclosure {enclosure}" if bay else old.slot
    words = f"pull {' '.join(filter(None, (old.model, f'({old.name})', serial)))}"
    words += f", at {where}" if where else ""
    words += ", when this is over and not before"
    return Pull(
        *(old.id, True, old.name, old.serial, old.wwn, old.model, old.slot),
        enclosure=enclosure,
        bay=bay,
        words=words if bay else f"{words}; no enclosure can blink at it",
        target=target_of(old),
    )


def plan(case: Case, found: Replacement) -> Plan:
    """The steps that are left, as a plan. Raises ReplacementRefused."""
    is_due = found.steps or any(one.fate is Fate.TO_DO for one in found.contents)
    if errors := found.errors if is_due else ():
        raise ReplacementRefused(
            "; ".join(one.message for one in errors),
            findings=", ".join(one.code for one in errors),
            old=found.old,
            new=found.new,
        )
    told = [
        Notice("NOT_BROUGHT_BACK", one.words, one.id)
        for one in found.contents
        if one.fate is Fate.BY_HAND
    ]
    told += [Notice(one.code, one.message, found.new) for one in found.findings]
    told += [
        Notice(one.code, f"{one.message}; run: {one.command}", found.new) for one in found.boot
    ]
    told.append(Notice("PULL", found.pull.words, found.pull.id))
    etag = fingerprint([found.old, found.new, [(c.id, c.number, c.fate) for c in found.contents]])
    return Plan(
        found.steps,
        etag=etag,
        notices=tuple(told),
        result=found,
        bindings={"old": found.old, "new": canonical(target_of(case.new))} if found.steps else {},
    )
