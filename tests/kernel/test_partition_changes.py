"""Changes of partition tables, on loop devices of the test: sfdisk, sgdisk, lsblk are witnesses."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from partition_tools import by_sfdisk, by_sgdisk, number_of
from partition_tools import run as by_tool
from storage_devices import MIB, Loop, fields, loop, mounted, run, worker

from hostler.core.partition.backup import Backup
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.runtime.steps import Plan
from hostlerd.storage import errors
from hostlerd.storage.kernel import Kernel, table
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.table import GPT, MBR, Piece, Table
from hostlerd.storage.model.table_wanted import Add, Delete, Edit, Update, Wanted, WantedTable
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan import table as plan
from hostlerd.storage.plan.choose import target_of
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.table_arrange import arrange, edit

pytestmark = pytest.mark.kernel
SIZE_MIB = 64


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Worker]:
    with worker(tmp_path) as made:
        yield made


@dataclass
class Disk:
    """A loop device, and the changes of its table as the daemon makes them."""

    loop: Loop
    worker: Worker
    sector_bytes: int

    def target(self) -> tuple[Target, dict[int, Target]]:
        seen = Kernel().look()
        nodes = {one.name: one for one in build(seen).nodes if one.number}
        parts = {
            one.partition.number: target_of(nodes[one.name])
            for one in seen.devices
            if one.partition is not None and one.partition.of == self.loop.name
        }
        return target_of(nodes[self.loop.name]), parts

    def backup(self) -> Backup:
        size = os.stat(self.loop.file).st_size  # noqa: PTH116
        return table.read(self.loop.name, size, self.sector_bytes, {}).backup

    def have(self) -> Table:
        return table.planned_with(self.backup())

    def planned(self, want: Table, foreign: frozenset[str] = frozenset()) -> Plan:
        target, parts = self.target()
        return plan.change(target, parts, self.have(), want, foreign)

    def carry_out(self, made: Plan) -> Mapping[str, Any]:
        (step,) = made.steps
        return self.worker.apply(step)

    def edit(self, *edits: Edit) -> Mapping[str, Any]:
        return self.carry_out(self.planned(edit(self.have(), edits)))

    def make(self, kind: str, *partitions: Wanted) -> Mapping[str, Any]:
        return self.carry_out(
            self.planned(arrange(self.have(), WantedTable(kind, None, partitions)))
        )

    def part(self, number: int) -> str:
        return f"{self.loop.device}p{number}"

    def assert_seen_alike(self) -> None:
        """The kernel, sfdisk and sgdisk have the partitions that the decoder reads."""
        have = self.have()
        assert have.errors == ()
        told = by_sfdisk(self.loop.device)
        rows = {number_of(one["node"], self.loop.device): one for one in told["partitions"]}
        assert {one.number: (one.start_sector, one.size_sectors) for one in have.entries} == {
            number: (row["start"], row["size"]) for number, row in rows.items()
        }
        solid = {
            one.number: (one.start_sector, one.end_sector)
            for one in have.entries
            if not one.is_extended
        }
        assert by_sgdisk(self.loop.device) == solid
        assert lsblk(self.loop) == {
            number: (first * self.sector_bytes, (last - first + 1) * self.sector_bytes)
            for number, (first, last) in solid.items()
        }
        run("/usr/sbin/sfdisk", "--verify", self.loop.device)
        # No part of the table is inside of a partition.
        for at in self.backup().pieces:
            sector = at // self.sector_bytes
            assert not [one for one in solid.values() if one[0] <= sector <= one[1]]


def lsblk(one: Loop) -> dict[int, tuple[int, int]]:
    """The partitions of the kernel that are not extended: where they begin, how large they are."""
    columns = "NAME,START,SIZE,TYPE"
    told = json.loads(run("/usr/bin/lsblk", "--json", "--bytes", "--output", columns, one.device))
    return {
        int(row["name"].removeprefix(f"{one.name}p")): (row["start"] * 512, row["size"])
        for row in told["blockdevices"][0].get("children", ())
        if row["size"] > 4096
    }


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path, asked: Worker) -> Iterator[Disk]:
    """Of 512 bytes a sector, unless a test asks for others."""
    sector = getattr(request, "param", 512)
    with loop(tmp_path, "disk", SIZE_MIB, "--partscan", "--sector-size", str(sector)) as one:
        yield Disk(one, asked, sector)


both = pytest.mark.parametrize("disk", [512, 4096], indirect=True)


def content(path: str, offset: int = 0, size: int | None = None) -> str:
    run("/usr/sbin/blockdev", "--flushbufs", path)
    with Path(path).open("rb") as file:
        file.seek(offset)
        return hashlib.sha256(file.read(-1 if size is None else size)).hexdigest()


def fill(path: str) -> str:
    size = int(run("/usr/sbin/blockdev", "--getsize64", path))
    Path(path).write_bytes(os.urandom(size))
    return content(path)


@both
def test_a_gpt_is_made_and_edited_and_neighbours_keep_their_bytes(disk: Disk) -> None:
    answer = disk.make(
        GPT,
        Wanted(1, size_bytes=4 * MIB, type="efi", name='a "name" \\ ä'),
        Wanted(3, size_bytes=8 * MIB, bootable=True),
        Wanted(2, start_bytes=20 * MIB, size_bytes=8 * MIB, type="swap"),
        Wanted(4),
    )
    assert answer["kernel"] == ""
    disk.assert_seen_alike()
    told = {number_of(one["node"], disk.loop.device): one for one in _rows(disk)}
    assert told[1]["name"] == 'a "name" \\ ä'
    assert told[3]["attrs"] == "LegacyBIOSBootable"
    assert told[2]["start"] * disk.sector_bytes == 20 * MIB
    before = {number: fill(disk.part(number)) for number in (1, 2, 3, 4)}
    ids = {one.number: one.uuid for one in disk.have().entries}
    disk.edit(
        Delete(3),
        Update(Wanted(1, size_bytes=8 * MIB, name="larger")),
        Update(Wanted(4, size_bytes=20 * MIB)),
        Add(Wanted(7, size_bytes=2 * MIB, type="lvm")),
    )
    disk.assert_seen_alike()
    assert content(disk.part(1), 0, 4 * MIB) == before[1]
    assert content(disk.part(2)) == before[2]
    after = {one.number: one.uuid for one in disk.have().entries}
    assert (after[1], after[2], after[4]) == (ids[1], ids[2], ids[4])
    assert set(after) == {1, 2, 4, 7}
    assert disk.planned(edit(disk.have(), [])).steps == ()


def _rows(disk: Disk) -> Sequence[dict[str, Any]]:
    rows: Sequence[dict[str, Any]] = by_sfdisk(disk.loop.device)["partitions"]
    return rows


@both
def test_an_mbr_with_logical_partitions(disk: Disk) -> None:
    disk.make(
        MBR,
        Wanted(1, size_bytes=4 * MIB, bootable=True, type="0xc"),
        Wanted(2, size_bytes=40 * MIB, type="extended"),
        Wanted(5, size_bytes=8 * MIB),
        Wanted(6, size_bytes=8 * MIB, type="lvm"),
        Wanted(7, size_bytes=8 * MIB, type="swap"),
    )
    disk.assert_seen_alike()
    assert [row["type"] for row in _rows(disk)] == ["c", "f", "83", "8e", "82"]
    assert [row.get("bootable", False) for row in _rows(disk)] == [True, *[False] * 4]
    before = {number: fill(disk.part(number)) for number in (1, 5, 6, 7)}
    disk.edit(Delete(6))
    disk.assert_seen_alike()
    assert content(disk.part(1)) == before[1]
    assert content(disk.part(5)) == before[5]
    # What was 7 is 6 now, where it was.
    assert content(disk.part(6)) == before[7]
    disk.edit(Add(Wanted(size_bytes=2 * MIB)), Update(Wanted(1, bootable=False)))
    disk.assert_seen_alike()
    assert set(lsblk(disk.loop)) == {1, 3, 5, 6}


@both
def test_logical_partitions_that_are_close_keep_their_bytes(disk: Disk) -> None:
    """By old tools there are 63 sectors in front of each: sfdisk alone would want a MiB."""
    sector, size = disk.sector_bytes, 2 * MIB
    starts = {5: 4 * MIB + 63 * sector, 6: 6 * MIB + 126 * sector}
    script = (
        f"label: dos\n1 : start={4 * MIB // sector}, size={40 * MIB // sector}, type=5\n"
        f"5 : start={starts[5] // sector}, size={size // sector}, type=83\n"
        f"6 : start={starts[6] // sector}, size={size // sector}, type=83\n"
    )
    quiet = ("--quiet", "--no-reread", "--no-tell-kernel")
    by_tool("/usr/sbin/sfdisk", *quiet, disk.loop.device, stdin=script)
    for start in starts.values():
        with Path(disk.loop.device).open("r+b") as file:
            file.seek(start)
            file.write(os.urandom(size))
    before = {number: content(disk.loop.device, at, size) for number, at in starts.items()}
    disk.edit(Add(Wanted(7, size_bytes=4 * MIB)))
    disk.assert_seen_alike()
    assert {number: content(disk.part(number)) for number in (5, 6)} == before


def test_what_is_mounted_stays_and_what_is_in_use_does_not_go(disk: Disk, tmp_path: Path) -> None:
    disk.make(GPT, Wanted(1, size_bytes=16 * MIB), Wanted(2, size_bytes=16 * MIB))
    run("/usr/sbin/mkfs.ext4", "-q", disk.part(1))
    with mounted(disk.part(1), tmp_path / "at") as place:
        (place / "file").write_bytes(b"here" * 1000)
        before = disk.have()
        for edits in ([Delete(1)], [Update(Wanted(1, size_bytes=8 * MIB))]):
            with pytest.raises(errors.DeviceBusy, match="mounted on"):
                disk.edit(*edits)
            assert disk.have() == before
        disk.edit(Delete(2), Update(Wanted(1, size_bytes=32 * MIB)), Add(Wanted(3)))
        disk.assert_seen_alike()
        assert (place / "file").read_bytes() == b"here" * 1000
    with mounted(disk.part(1), tmp_path / "at") as place:
        assert (place / "file").read_bytes() == b"here" * 1000


def test_nothing_is_done_to_another_table_than_was_planned(disk: Disk) -> None:
    disk.make(GPT, Wanted(1, size_bytes=8 * MIB), Wanted(2, size_bytes=8 * MIB))
    made = disk.planned(edit(disk.have(), [Delete(1)]))
    # The kernel here need not read tables by itself: sfdisk would have it forget the partitions.
    quiet = ("--quiet", "--no-reread", "--no-tell-kernel")
    run("/usr/sbin/sfdisk", *quiet, "--part-label", disk.loop.device, "2", "other")
    before = disk.loop.hash()
    with pytest.raises(errors.DeviceChanged, match="another one than the plan saw"):
        disk.carry_out(made)
    assert disk.loop.hash() == before
    target, _ = disk.target()
    (step,) = disk.planned(edit(disk.have(), [Delete(1)])).steps
    wrong = replace(target, disk_sequence=target.disk_sequence + 1)
    with pytest.raises(errors.DeviceChanged):
        disk.worker.apply(replace(step, disk=wrong))
    # Neither a sector of a partition that stays, nor of another device.
    for erase in (disk.have().entries[1].start_sector, SIZE_MIB * MIB // disk.sector_bytes):
        with pytest.raises(errors.WorkerRefused, match="not for the table"):
            disk.worker.apply(replace(step, erase=(erase,)))
    assert disk.loop.hash() == before
    told = {**fields(step), "kind": "gpt\nlabel: dos"}
    with pytest.raises(InvalidRequest):
        disk.worker.ask("ChangeTable", told)


def test_a_disk_that_holds_something_as_a_whole_is_refused(disk: Disk) -> None:
    run("/usr/sbin/mkfs.ext4", "-q", disk.loop.device)
    before = disk.loop.hash()
    with pytest.raises(errors.DiskHoldsContents, match="ext4"):
        disk.make(GPT, Wanted(1))
    run("/usr/sbin/wipefs", "--all", "--quiet", disk.loop.device)
    made = disk.planned(arrange(disk.have(), WantedTable(GPT, None, (Wanted(1),))))
    run("/usr/sbin/mkfs.ext4", "-q", disk.loop.device)
    before = disk.loop.hash()
    with pytest.raises(errors.SignaturesChanged):
        disk.carry_out(made)
    assert disk.loop.hash() == before


def test_one_kind_of_table_takes_the_place_of_the_other(disk: Disk) -> None:
    disk.make(GPT, Wanted(1, size_bytes=8 * MIB), Wanted(2, size_bytes=8 * MIB))
    with Path(disk.loop.device).open("r+b") as file:
        file.seek(100)
        file.write(b"a boot loader")
    for kind in (MBR, GPT, MBR):
        disk.make(kind, Wanted(1, start_bytes=2 * MIB, size_bytes=8 * MIB))
        disk.assert_seen_alike()
        assert disk.have().kind == kind
        assert disk.backup().pieces[0][100:113] == b"a boot loader"
        told = json.loads(run("/usr/sbin/wipefs", "--json", "--no-act", disk.loop.device))
        assert {one["type"] for one in told["signatures"]} <= {kind, "PMBR"}


@both
def test_a_backup_is_put_back(disk: Disk) -> None:
    for kind, more in ((GPT, ()), (MBR, (Wanted(4, type="extended"), Wanted(5), Wanted(1)))):
        partitions = more or (Wanted(1, size_bytes=8 * MIB), Wanted(9, size_bytes=8 * MIB))
        sized = [replace(one, size_bytes=(3 + 2 * i) * MIB) for i, one in enumerate(partitions)]
        if more:
            sized = [replace(sized[0], size_bytes=20 * MIB), *sized[1:]]
        disk.make(kind, *sized)
        kept, whole = disk.backup(), disk.loop.hash()
        other = MBR if kind == GPT else GPT
        disk.make(other, Wanted(1, start_bytes=30 * MIB, size_bytes=8 * MIB))
        assert disk.loop.hash() != whole
        put_back(disk, kept)
        disk.assert_seen_alike()
        assert disk.backup().pieces == kept.pieces
        assert put_back_plan(disk, kept).steps == ()


def put_back_plan(disk: Disk, kept: Backup) -> Plan:
    target, parts = disk.target()
    pieces = [Piece(at, data) for at, data in kept.pieces.items()]
    return plan.restore(target, parts, disk.have(), table.planned_with(kept), pieces)


def put_back(disk: Disk, kept: Backup) -> None:
    disk.carry_out(put_back_plan(disk, kept))


def test_what_fails_in_the_middle_is_put_back(disk: Disk) -> None:
    disk.make(GPT, Wanted(1, size_bytes=8 * MIB))
    before = disk.backup()
    made = disk.planned(edit(disk.have(), [Add(Wanted(2, size_bytes=8 * MIB))]))
    (step,) = made.steps
    # Past the planner's checks: sfdisk refuses partitions that overlap.
    bad = replace(step.entries[1], start_sector=step.entries[0].start_sector + 1)
    with pytest.raises(errors.ToolFailed):
        disk.worker.apply(replace(step, erase=(1,), entries=(step.entries[0], bad)))
    assert disk.backup() == before
    disk.assert_seen_alike()


@pytest.mark.parametrize(("source_sector", "sector"), [(512, 512), (512, 4096), (4096, 512)])
def test_a_table_is_copied_to_a_replacement(
    source_sector: int, sector: int, tmp_path: Path, asked: Worker
) -> None:
    with ExitStack() as stack:
        first, second, small = (
            Disk(
                stack.enter_context(
                    loop(tmp_path, name, size, "--partscan", "--sector-size", str(its))
                ),
                asked,
                its,
            )
            for name, size, its in (
                ("first", SIZE_MIB, source_sector),
                ("second", SIZE_MIB + 16, sector),
                ("small", 16, sector),
            )
        )
        first.make(
            GPT,
            Wanted(1, size_bytes=8 * MIB, name="one", type="raid"),
            Wanted(5, size_bytes=16 * MIB, bootable=True),
        )
        source, neighbour = first.have(), first.loop.hash()
        want, foreign = plan.copied(source, second.have(), keep_ids=False)
        second.carry_out(second.planned(want, foreign))
        second.assert_seen_alike()
        theirs = second.have()
        assert [(one.number, one.name, one.type, one.bootable) for one in theirs.entries] == [
            (one.number, one.name, one.type, one.bootable) for one in source.entries
        ]
        ids = {source.id, *(one.uuid for one in source.entries)}
        assert not ids & {theirs.id, *(one.uuid for one in theirs.entries)}
        again, foreign = plan.copied(source, theirs, keep_ids=False)
        assert second.planned(again, foreign).steps == ()
        kept, none = plan.copied(source, theirs, keep_ids=True)
        second.carry_out(second.planned(kept, none))
        theirs = second.have()
        assert {theirs.id, *(one.uuid for one in theirs.entries)} == ids
        with pytest.raises(errors.TableDoesNotFit, match="partition 5 ends at"):
            plan.copied(source, small.have(), keep_ids=False)
        assert first.loop.hash() == neighbour


def test_a_hybrid_table_is_put_back_but_not_changed(tmp_path: Path, asked: Worker) -> None:
    with loop(tmp_path, "disk", SIZE_MIB, "--partscan") as one:
        disk = Disk(one, asked, 512)
        disk.make(GPT, Wanted(1, size_bytes=8 * MIB))
        run("/usr/sbin/sgdisk", "--hybrid", "1", one.device)
        with pytest.raises(errors.TableHybrid):
            disk.edit(Delete(1))
        kept = disk.backup()
        run("/usr/sbin/sgdisk", "--zap-all", one.device)
        put_back(disk, kept)
        assert disk.have().is_hybrid
        assert lsblk(one) == {1: (MIB, 8 * MIB)}


def test_a_disk_that_has_grown_has_its_second_header_at_its_end(
    tmp_path: Path, asked: Worker
) -> None:
    with loop(tmp_path, "disk", SIZE_MIB, "--partscan") as one:
        disk = Disk(one, asked, 512)
        disk.make(GPT, Wanted(1, size_bytes=8 * MIB))
        with one.file.open("ab") as file:
            file.truncate((SIZE_MIB + 16) * MIB)
        run("/usr/sbin/losetup", "--set-capacity", one.device)
        assert len(disk.have().errors) == 1
        disk.carry_out(disk.planned(edit(disk.have(), [Add(Wanted(2))])))
        disk.assert_seen_alike()
        assert lsblk(one)[2][1] > (SIZE_MIB + 4) * MIB
