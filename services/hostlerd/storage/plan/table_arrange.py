"""Makes a whole table of what is asked for: numbers, places, sizes, types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.storage.model.table import FIRST_LOGICAL, GPT, MBR, Entry, Table, empty
from hostlerd.storage.model.table_wanted import Add, Delete, Edit, Wanted, WantedTable

MIB = 1 << 20
WORDS = {
    GPT: {
        "linux": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
        "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
        "lvm": "E6D6D379-F507-44C2-A23C-238F2A3DF928",
        "raid": "A19D880F-05FC-4D3B-A006-743F0F84911E",
        "efi": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        "bios-boot": "21686148-6449-6E6F-744E-656564454649",
        "home": "933AC7E1-2EB4-4F13-B844-0E14E2AEF915",
    },
    MBR: {
        "linux": "0x83",
        "swap": "0x82",
        "lvm": "0x8e",
        "raid": "0xfd",
        "efi": "0xef",
        "extended": "0x0f",
    },
}
"""What operators call the types of partitions."""


def arrange(have: Table, want: WantedTable) -> Table:
    """Make the table that is wanted, instead of the one that there is. Raises InvalidRequest."""
    if want.kind not in (GPT, MBR):
        raise _fault("table.kind", "must be a GPT or an MBR")
    if have.kind == want.kind:
        base = replace(have, entries=(), errors=(), standing=(), headers=())
    else:
        base = empty(want.kind, have.size_bytes, have.sector_bytes)
    before = have.entries if have.kind == want.kind else ()
    if want.id is not None:
        base = replace(base, id=_id(want.kind, want.id))
    return _placed(base, before, want.partitions, "table.partitions")


def edit(have: Table, edits: Sequence[Edit]) -> Table:
    """Carry out edits on the table that there is. Raises InvalidRequest."""
    if have.kind not in (GPT, MBR):
        raise _fault("edits", "the device has no partition table: ask for a whole one")
    kept = {one.number: Wanted(number=one.number) for one in have.entries}
    added: list[Wanted] = []
    for at, each in enumerate(edits):
        if isinstance(each, Add):
            added.append(each.wanted)
            continue
        number = each.number if isinstance(each, Delete) else each.wanted.number
        if number is None or number not in kept:
            raise _fault(f"edits[{at}]", f"there is no partition {number}")
        if isinstance(each, Delete):
            del kept[number]
        else:
            kept[number] = each.wanted
    base = replace(have, entries=(), errors=(), standing=(), headers=())
    return _placed(base, have.entries, (*kept.values(), *added), "edits")


def _id(kind: str, said: str) -> str:
    return said.upper() if kind == GPT else said.lower()


def _fault(where: str, words: str) -> InvalidRequest:
    return InvalidRequest.of([Violation(where, words)])


@dataclass(slots=True)
class _Draft:
    """A partition that is being placed; a start of None is to be found."""

    where: str
    number: int
    start: int | None
    size: int | None
    entry: Entry


def _placed(base: Table, before: Iterable[Entry], wanted: Sequence[Wanted], where: str) -> Table:
    there = {one.number: one for one in before}
    taken = {one.number for one in wanted if one.number is not None}
    drafts = []
    for at, one in enumerate(wanted):
        number = one.number
        if number is None:
            number = _free_number(base.kind, taken, has_extended=_has_extended(wanted, there))
            taken.add(number)
        drafts.append(_draft(base, one, number, there.get(number), f"{where}[{at}]"))
    fixed = [_entry(draft) for draft in drafts if draft.start is not None and draft.size]
    for draft in drafts:
        if draft.start is None or not draft.size:
            entry = _found(base, draft, fixed, drafts)
            fixed.append(entry)
    return replace(base, entries=_renumbered(base.kind, fixed))


def _has_extended(wanted: Iterable[Wanted], there: dict[int, Entry]) -> bool:
    kept = (there.get(one.number or 0) for one in wanted if one.type is None)
    words = {WORDS[MBR]["extended"], "extended", "0x5", "0x05", "0xf", "0x85"}
    return any(one is not None and one.is_extended for one in kept) or any(
        one.type in words for one in wanted
    )


def _free_number(kind: str, taken: set[int], *, has_extended: bool) -> int:
    number = 1
    while number in taken or (kind == MBR and number == FIRST_LOGICAL and not has_extended):
        number += 1
        if kind == MBR and number == FIRST_LOGICAL and not has_extended:
            return 4  # Taken: that is a fault, and told as one.
    return number


def _draft(base: Table, one: Wanted, number: int, before: Entry | None, where: str) -> _Draft:
    start = _sectors(base, one.start_bytes, f"{where}.start_bytes")
    size = _sectors(base, one.size_bytes, f"{where}.size_bytes")
    if start is None and before is not None:
        start = before.start_sector
    if size is None and before is not None and start == before.start_sector:
        size = before.size_sectors
    elif size is None:
        size = 0
    stays = before is not None and start == before.start_sector
    shown = before or Entry(number, 0, 0, WORDS[base.kind]["linux"])
    uuid = shown.uuid if stays else ""
    entry = Entry(
        number=number,
        start_sector=0,
        size_sectors=0,
        type=shown.type if one.type is None else _type(base.kind, one.type),
        name=shown.name if one.name is None else one.name,
        uuid=uuid if one.uuid is None else one.uuid.upper(),
        bootable=shown.bootable if one.bootable is None else one.bootable,
        attributes=shown.attributes,
    )
    return _Draft(where, number, start, size, entry)


def _type(kind: str, said: str) -> str:
    if said in WORDS[kind]:
        return WORDS[kind][said]
    if kind == GPT:
        return said.upper()
    try:
        return f"0x{int(said, 16):02x}"
    except ValueError:
        return said


def _sectors(base: Table, amount: int | None, where: str) -> int | None:
    if amount is None:
        return None
    if amount < 0 or amount % base.sector_bytes:
        raise _fault(where, f"must be a multiple of the sector, {base.sector_bytes} bytes")
    return amount // base.sector_bytes


def _entry(draft: _Draft) -> Entry:
    return replace(draft.entry, start_sector=draft.start or 0, size_sectors=draft.size or 0)


def _found(base: Table, draft: _Draft, fixed: Sequence[Entry], drafts: Sequence[_Draft]) -> Entry:
    """Find room for a partition that has no start, or no size."""
    others = [
        draft_start
        for each in drafts
        if each is not draft and (draft_start := each.start) is not None
    ]
    gaps = _gaps(base, draft, fixed)
    if draft.start is not None:
        ends = [last for first, last in gaps if first <= draft.start <= last]
        last = min([*ends, *(start - 1 for start in others if start > draft.start)], default=None)
        size = 0 if last is None or not ends else last - draft.start + 1
        return replace(draft.entry, start_sector=draft.start, size_sectors=size)
    step = max(1, MIB // base.sector_bytes)
    logical = base.kind == MBR and draft.number >= FIRST_LOGICAL
    fits = []
    for first, last in gaps:
        # sfdisk puts the boot record of a logical partition a MiB in front of it.
        start = (-(-first // step) + logical) * step
        if start + max(draft.size or 0, 1) - 1 <= last:
            fits.append((start, last))
    if not fits:
        raise _fault(draft.where, "there is no gap that has room for it")
    if draft.size:
        return replace(draft.entry, start_sector=fits[0][0], size_sectors=draft.size)
    start, last = max(fits, key=lambda gap: gap[1] - gap[0])
    return replace(draft.entry, start_sector=start, size_sectors=last - start + 1)


def _gaps(base: Table, draft: _Draft, fixed: Sequence[Entry]) -> list[tuple[int, int]]:
    """The gaps where it may be, both ends included."""
    first, last = base.first_sector, base.last_sector
    taken = list(fixed)
    extended = next((one for one in fixed if base.kind == MBR and one.is_extended), None)
    if base.kind == MBR and draft.number >= FIRST_LOGICAL:
        if extended is None:
            return []
        first, last = extended.start_sector, extended.end_sector
        taken = [one for one in fixed if one.number >= FIRST_LOGICAL]
    gaps = []
    for one in sorted(taken, key=lambda one: one.start_sector):
        is_logical = base.kind == MBR and one.number >= FIRST_LOGICAL
        before = 1 + is_logical * max(1, MIB // base.sector_bytes)
        if one.start_sector - before >= first:
            gaps.append((first, one.start_sector - before))
        first = max(first, one.end_sector + 1)
    if first <= last:
        gaps.append((first, last))
    return gaps


def _renumbered(kind: str, entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """In the order of their numbers; logical partitions have no gaps in theirs."""
    ordered = sorted(entries, key=lambda one: (one.number, one.start_sector))
    if kind != MBR:
        return tuple(ordered)
    primary = [one for one in ordered if one.number < FIRST_LOGICAL]
    logical = [one for one in ordered if one.number >= FIRST_LOGICAL]
    return (*primary, *(replace(one, number=FIRST_LOGICAL + i) for i, one in enumerate(logical)))
