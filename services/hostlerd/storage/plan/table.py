"""Plans of changes to partition tables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, canonical, fingerprint
from hostlerd.storage.errors import DiskHoldsContents, TableDoesNotFit, TableHybrid
from hostlerd.storage.model.table import GPT, Entry, Piece, Table, empty
from hostlerd.storage.model.table_changes import compare, is_same
from hostlerd.storage.model.table_steps import ChangeTable, PutTable
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.table_check import faults

_TABLES = frozenset({"gpt", "dos", "PMBR"})
"""What blkid(8) calls the tables that are replaced here."""

Parts = Mapping[int, Target]
"""The partitions that the kernel has of a disk, by their numbers."""


def change(
    disk: Target, parts: Parts, have: Table, want: Table, foreign: frozenset[str] = frozenset()
) -> Plan:
    """Plan to have `want` on a disk. GUIDs that are `foreign` are not kept where none is asked for.

    Raises InvalidRequest, TableHybrid, DiskHoldsContents.
    """
    want = settled(have, want, foreign)
    found = faults(want)
    if found:
        raise InvalidRequest.of([Violation(where, words) for where, words in found[:50]])
    etag = fingerprint(have.standing)
    if (have.kind, have.id, have.entries) == (want.kind, want.id, want.entries) and not have.errors:
        return Plan(etag=etag, etag_after=etag, result=want)
    if have.is_hybrid:
        raise TableHybrid(
            f"{disk.id}: the MBR names partitions of the GPT as well, and sfdisk would leave them "
            "as they are: make it a plain GPT first, or restore a backup",
            device=disk.id,
        )
    _refuse_contents(disk)
    step = ChangeTable(
        disk=disk,
        released=_released(parts, have, want),
        standing=have.standing,
        erase=_erased(have, want),
        kind=want.kind,
        id=want.id,
        sector_bytes=want.sector_bytes,
        first_sector=want.first_sector,
        slots=want.slots,
        have=have.entries,
        entries=want.entries,
    )
    return _planned(disk, step.released, step, etag, want, have)


def settled(have: Table, want: Table, foreign: frozenset[str] = frozenset()) -> Table:
    """Keep ids that are there where none is asked for, unless they are those of another disk."""
    if have.kind != want.kind:
        return want
    there = {one.start_sector: one for one in have.entries}

    def kept(one: Entry) -> Entry:
        before = there.get(one.start_sector)
        if one.uuid or before is None or before.uuid in foreign or not is_same(before, one):
            return one
        return replace(one, uuid=before.uuid)

    own = want.id or ("" if have.id in foreign else have.id)
    return replace(want, id=own, entries=tuple(kept(one) for one in want.entries))


def copied(source: Table, disk: Table, *, keep_ids: bool) -> tuple[Table, frozenset[str]]:
    """Fit a table to another disk; answer it with the ids that the disk must not keep.

    Raises TableDoesNotFit, TableHybrid.
    """
    if source.is_hybrid:
        raise TableHybrid("the source has a hybrid table, which is of one disk alone")
    if not source.kind:
        raise TableDoesNotFit("the source has no partition table")
    base = empty(source.kind, disk.size_bytes, disk.sector_bytes, source.slots)
    entries = tuple(_fitted(one, source, base) for one in source.entries)
    if keep_ids:
        return replace(base, id=source.id, entries=entries), frozenset()
    foreign = frozenset({source.id, *(one.uuid for one in source.entries)}) - {""}
    return replace(base, entries=tuple(replace(one, uuid="") for one in entries)), foreign


def _fitted(one: Entry, source: Table, base: Table) -> Entry:
    start, size = (amount * source.sector_bytes for amount in (one.start_sector, one.size_sectors))
    sector = base.sector_bytes
    if start % sector or size % sector:
        raise TableDoesNotFit(
            f"partition {one.number} begins or ends inside of a sector of {sector} bytes",
            partition=one.number,
        )
    fitted = replace(one, start_sector=start // sector, size_sectors=size // sector)
    if fitted.start_sector < base.first_sector or fitted.end_sector > base.last_sector:
        usable = (base.last_sector + 1) * sector
        raise TableDoesNotFit(
            f"partition {one.number} ends at {start + size} bytes; the disk has {usable} for "
            "partitions",
            partition=one.number,
        )
    return fitted


def restore(disk: Target, parts: Parts, have: Table, want: Table, pieces: Sequence[Piece]) -> Plan:
    """Plan to put pieces back; `want` is the table that they make. Raises TableDoesNotFit."""
    for word, kept, found in (
        ("size", want.size_bytes, have.size_bytes),
        ("sector", want.sector_bytes, have.sector_bytes),
    ):
        if kept != found:
            raise TableDoesNotFit(
                f"{disk.id} has a {word} of {found} bytes, the backup's disk one of {kept}: a "
                "table is put back on the same disk, and copied to another one",
                device=disk.id,
            )
    etag = fingerprint(have.standing)
    there = {(one.offset_bytes, one.length_bytes): one.sha256 for one in have.standing}
    covered = {one.offset_bytes // have.sector_bytes for one in pieces}
    erase = tuple(one for one in have.headers if one not in covered and _is_free(one, want))
    same = all(
        there.get((one.offset_bytes, len(one.data))) == hashlib.sha256(one.data).hexdigest()
        for one in pieces
    )
    if same and not erase:
        return Plan(etag=etag, etag_after=etag, result=want)
    _refuse_contents(disk)
    step = PutTable(
        disk=disk,
        released=_released(parts, have, want),
        standing=have.standing,
        erase=erase,
        pieces=tuple(pieces),
        sector_bytes=have.sector_bytes,
        have=have.entries,
        entries=want.entries,
    )
    return _planned(disk, step.released, step, etag, want, have)


def _planned(
    disk: Target,
    released: tuple[Target, ...],
    step: ChangeTable | PutTable,
    etag: str,
    want: Table,
    have: Table,
) -> Plan:
    return Plan(
        steps=(step,),
        etag=etag,
        notices=tuple(Notice("TABLE_DAMAGED", words, disk.id) for words in have.errors),
        result=want,
        bindings={"disk": canonical(disk), "released": canonical(released)},
    )


def _refuse_contents(disk: Target) -> None:
    """Raise DiskHoldsContents if the disk as a whole is something else than partitioned."""
    found = [one for one in disk.signatures if one.split(" ")[0] not in _TABLES]
    if found:
        raise DiskHoldsContents(
            f"{disk.id} as a whole holds {', '.join(found)}: a table would be written over it",
            device=disk.id,
        )


def _released(parts: Parts, have: Table, want: Table) -> tuple[Target, ...]:
    """The partitions that nobody may use, as far as the kernel has them."""
    changes = compare(have.entries, want.entries)
    numbers = sorted(one.number for one in changes.released)
    return tuple(parts[number] for number in numbers if number in parts)


def _erased(have: Table, want: Table) -> tuple[int, ...]:
    """The sectors of old headers that would be found beside the new table."""
    keep: set[int] = set()
    if have.kind == want.kind == GPT:
        keep = {1, want.size_bytes // want.sector_bytes - 1}
    elif have.kind == want.kind:
        return ()
    return tuple(one for one in have.headers if one not in keep and _is_free(one, want))


def _is_free(sector: int, want: Table) -> bool:
    """Whether a sector is in no partition: what is in there is not touched."""
    return not any(
        one.start_sector <= sector <= one.end_sector and not one.is_extended for one in want.entries
    )
