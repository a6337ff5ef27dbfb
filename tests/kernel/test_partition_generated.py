"""Generated partition tables are read as sfdisk(8) and sgdisk(8) read them, who have made them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from partition_tools import (
    assert_equal_to_sfdisk,
    by_sfdisk,
    by_sgdisk,
    loop_device,
    number_of,
    run,
)

from hostler.core.partition.decode import decode
from hostler.core.partition.model import Table
from hostler.core.partition.source import of_descriptor

pytestmark = [pytest.mark.kernel, pytest.mark.soak]

TIMES = 10 if os.environ.get("HOSTLER_SOAK") == "1" else 1
# 200 in all. sgdisk, which makes the hybrid ones, sleeps for a second whenever it writes.
MBR, GPT, HYBRID = 96 * TIMES, 96 * TIMES, 8 * TIMES
MIB = 1 << 20
SIZE_MIB = 64
DOS_TYPES = ("83", "82", "8e", "fd", "7", "c", "ef", "da")
GPT_TYPES = (
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "A19D880F-05FC-4D3B-A006-743F0F84911E",
    "21686148-6449-6E6F-744E-656564454649",
)

Disks = dict[int, str]


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    """An image file, and a loop device with sectors of 4096 bytes, by their sectors."""
    folder = tmp_path_factory.mktemp("disks")
    with ExitStack() as stack:
        for name in ("512", "4096"):
            with (folder / name).open("wb") as file:
                file.truncate(SIZE_MIB * MIB)
        yield {
            512: str(folder / "512"),
            4096: stack.enter_context(loop_device(folder / "4096", 4096)),
        }


def clear(disk: str) -> None:
    """Zero what may hold a table: neither tool looks for another one elsewhere."""
    with Path(disk).open("r+b") as file:
        for at in (0, (SIZE_MIB - 1) * MIB):
            file.seek(at)
            file.write(bytes(MIB))


def decoded(disk: str, sector_bytes: int) -> Table:
    with Path(disk).open("rb") as file:
        return decode(of_descriptor(file.fileno()), sector_bytes)


@st.composite
def dos_layouts(draw: st.DrawFn, mib: int) -> str:
    """A script of sfdisk: primary, extended and logical partitions, by no order."""
    lines = ["label: dos", f"label-id: 0x{draw(st.integers(1, 2**32 - 1)):08x}"]
    primary = draw(st.integers(0, 3))
    at = 1
    for _ in range(primary):
        at += draw(st.integers(0, 2))
        size = draw(st.integers(1, 6))
        boot = ", bootable" if draw(st.booleans()) and "bootable" not in str(lines) else ""
        kind = draw(st.sampled_from(DOS_TYPES))
        lines.append(f"start={at * mib}, size={size * mib}, type={kind}{boot}")
        at += size
    logical = draw(st.integers(0, 8))
    if logical:
        kind = draw(st.sampled_from(("5", "f", "85")))
        lines.append(f"start={at * mib}, type={kind}")
        for _ in range(logical):
            at += 1
            size = draw(st.integers(1, 3))
            kind = draw(st.sampled_from(DOS_TYPES))
            lines.append(f"start={at * mib}, size={size * mib}, type={kind}")
            at += size
    order = draw(st.permutations(lines[2 : 2 + primary]))
    return "\n".join([*lines[:2], *order, *lines[2 + primary :]]) + "\n"


@st.composite
def gpt_layouts(draw: st.DrawFn, mib: int, fewest: int = 0) -> str:
    """A script of sfdisk: partitions with numbers, names and attributes of their own."""
    lines = ["label: gpt"]
    if draw(st.booleans()):
        lines.append(f"table-length: {draw(st.sampled_from((4, 16, 128, 256)))}")
    at = 1
    most = 4
    numbers = st.lists(st.integers(1, most), min_size=fewest, max_size=most, unique=True)
    for number in draw(numbers):
        at += draw(st.integers(0, 2))
        size = draw(st.integers(1, 8))
        letters = st.characters(
            categories=("Lu", "Ll", "Nd", "Lo"), max_codepoint=0xD000, exclude_characters='\\"'
        )
        name = draw(st.text(letters, max_size=36))
        attributes = draw(st.sampled_from(("", "LegacyBIOSBootable", "RequiredPartition")))
        lines.append(
            f"{number} : start={at * mib}, size={size * mib}, "
            f'type={draw(st.sampled_from(GPT_TYPES))}, name="{name}", attrs="{attributes}"'
        )
        at += size
    return "\n".join(lines) + "\n"


SECTORS = st.sampled_from((512, 4096))


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def make(disk: str, script: str) -> None:
    clear(disk)
    run("/usr/sbin/sfdisk", "--quiet", "--no-tell-kernel", disk, stdin=script)


@examples(MBR)
@given(data=st.data(), sector_bytes=SECTORS)
def test_mbr_tables(disks: Disks, data: st.DataObject, sector_bytes: int) -> None:
    disk = disks[sector_bytes]
    make(disk, data.draw(dos_layouts(MIB // sector_bytes)))
    table = decoded(disk, sector_bytes)
    assert_equal_to_sfdisk(table, by_sfdisk(disk), disk)
    solid = [one for one in table.partitions if not one.is_extended]
    assert {one.number: (one.start_sector, one.end_sector) for one in solid} == by_sgdisk(disk)
    assert not table.findings


@examples(GPT)
@given(data=st.data(), sector_bytes=SECTORS)
def test_gpt_tables(disks: Disks, data: st.DataObject, sector_bytes: int) -> None:
    disk = disks[sector_bytes]
    make(disk, data.draw(gpt_layouts(MIB // sector_bytes)))
    table = decoded(disk, sector_bytes)
    assert not table.findings
    assert_equal_gpt(table, disk)


@examples(HYBRID)
@given(data=st.data(), sector_bytes=SECTORS)
def test_hybrid_tables(disks: Disks, data: st.DataObject, sector_bytes: int) -> None:
    disk = disks[sector_bytes]
    make(disk, data.draw(gpt_layouts(MIB // sector_bytes, fewest=1)))
    numbers = [str(one.number) for one in decoded(disk, sector_bytes).partitions][:3]
    run("/usr/sbin/sgdisk", "--hybrid", ":".join(numbers), disk)
    table = decoded(disk, sector_bytes)
    assert table.is_hybrid
    assert {one.code for one in table.findings} == {"HYBRID"}
    assert_equal_gpt(table, disk)
    assert_same_mbr(table, disk)


def assert_equal_gpt(table: Table, disk: str) -> None:
    assert_equal_to_sfdisk(table, by_sfdisk(disk), disk)
    places = {one.number: (one.start_sector, one.end_sector) for one in table.partitions}
    assert places == by_sgdisk(disk)


def assert_same_mbr(table: Table, disk: str) -> None:
    """The MBR of a hybrid table, as sfdisk shows it for itself."""
    told = by_sfdisk(disk, "--label-nested", "dos")
    assert table.mbr is not None
    assert [
        (one.number, one.start_sector, one.size_sectors, int(one.type, 16), one.active)
        for one in table.mbr.partitions
    ] == [
        (
            number_of(one["node"], disk),
            *(one["start"], one["size"]),
            *(int(one["type"], 16), one.get("bootable", False)),
        )
        for one in told["partitions"]
    ]
