"""The decoder of partition tables says what sfdisk(8) and sgdisk(8) say, which have made them."""

from __future__ import annotations

import os
import random
import struct
import zlib
from pathlib import Path

import pytest
from partition_tools import assert_equal_to_sfdisk, by_sfdisk, loop_device, run

from hostler.core.partition.decode import decode
from hostler.core.partition.model import Partition, Table
from hostler.core.partition.source import of_bytes, of_descriptor

pytestmark = pytest.mark.kernel

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
FUZZED = 100_000 if SOAK else 5_000
SIZE_MIB = 64


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(SIZE_MIB << 20)
    return path


def clear(image: Path) -> None:
    with image.open("r+b") as file:
        file.truncate(0)
        file.truncate(SIZE_MIB << 20)


def decoded(image: Path) -> Table:
    with image.open("rb") as file:
        return decode(of_descriptor(file.fileno()))


def test_tables_that_sgdisk_makes(image: Path) -> None:
    run("/usr/sbin/sgdisk", "-n", "1:2048:+4M", "-t", "1:8300", "-c", "1:root", str(image))
    run("/usr/sbin/sgdisk", "-n", "3:0:+8M", "-t", "3:fd00", "-A", "3:set:2", str(image))
    table = decoded(image)
    assert_equal_to_sfdisk(table, by_sfdisk(image), image)
    assert [one.type_name for one in table.partitions] == ["Linux filesystem", "Linux RAID"]
    run("/usr/sbin/sgdisk", "-h", "1", str(image))
    hybrid = decoded(image)
    assert hybrid.is_hybrid
    assert [one.code for one in hybrid.findings] == ["HYBRID"]
    assert [(one.number, one.start_sector) for one in hybrid.partitions] == [
        (one.number, one.start_sector) for one in table.partitions
    ]


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_sectors_of_4096_bytes(image: Path, label: str) -> None:
    with loop_device(image, 4096) as device:
        script = f"label: {label}\nsize=8MiB\nsize=16MiB\n"
        run("/usr/sbin/sfdisk", "--quiet", "--no-tell-kernel", device, stdin=script)
        told = by_sfdisk(device)
    table = decode(of_bytes(image.read_bytes()), 4096)
    assert_equal_to_sfdisk(table, told, device)
    assert [one.size_bytes for one in table.partitions] == [8 << 20, 16 << 20]
    if label == "gpt":  # The sector size of a dump shows where its header is.
        assert decoded(image).sector_bytes == 4096


def test_a_dump_where_sfdisk_answers_wrong(image: Path, tmp_path: Path) -> None:
    script = "label: gpt\nsize=8MiB, name=one\nsize=16MiB, name=two\n"
    run("/usr/sbin/sfdisk", "--quiet", "--no-tell-kernel", str(image), stdin=script)
    dump = image.read_bytes()[: 34 * 512]
    path = tmp_path / "dump"
    path.write_bytes(dump)
    assert by_sfdisk(path)["label"] == "dos"
    table = decode(of_bytes(dump), whole=False)
    assert table.kind == "gpt"
    assert [one.name for one in table.partitions] == ["one", "two"]
    assert [(one.code, one.severity) for one in table.findings] == [("GPT_BACKUP", "note")]


def entry(boot: int, kind: int, start: int, size: int) -> bytes:
    return struct.pack("<B3sB3sII", boot, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, size)


def record(*entries: bytes) -> bytes:
    return bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def test_a_dump_of_one_sector() -> None:
    dump = record(
        entry(0x80, 0x83, 63, 40_949_622),
        entry(0, 0x82, 40_949_685, 2_088_450),
        entry(0, 0x8E, 43_038_135, 74_172_105),
    )
    table = decode(of_bytes(dump), whole=False)
    assert [
        (one.type, one.active, one.start_sector, one.size_bytes) for one in table.partitions
    ] == [
        ("0x83", True, 63, 20_966_206_464),
        ("0x82", False, 40_949_685, 1_069_286_400),
        ("0x8e", False, 43_038_135, 37_976_117_760),
    ]
    assert all(one.start_chs is not None and one.start_chs.is_beyond for one in table.partitions)
    assert not table.findings


def codes(table: Table) -> set[str]:
    return {one.code for one in table.findings}


def test_damaged_headers_are_named_and_the_good_one_counts(image: Path) -> None:
    run(
        "/usr/sbin/sfdisk",
        "--quiet",
        "--no-tell-kernel",
        str(image),
        stdin="label: gpt\nsize=8MiB\n",
    )
    sound = image.read_bytes()
    want = decode(of_bytes(sound)).partitions
    last = len(sound) // 512 - 1
    for at, code in (
        (512 + 60, "GPT_HEADER_CRC"),
        (1024 + 40, "GPT_ENTRIES_CRC"),
        (last * 512 + 60, "GPT_HEADER_CRC"),
    ):
        hurt = bytearray(sound)
        hurt[at] ^= 1
        table = decode(of_bytes(bytes(hurt)))
        assert code in codes(table)
        assert table.partitions == want
    no_primary = sound[:512] + bytes(512) + sound[1024:]
    assert codes(decode(of_bytes(no_primary))) == {"GPT_PRIMARY"}
    assert decode(of_bytes(no_primary)).partitions == want
    grown = sound + bytes(1 << 20)
    assert "GPT_BACKUP_NOT_LAST" in codes(decode(of_bytes(grown)))
    bare = bytes(512) + sound[512:]
    assert codes(decode(of_bytes(bare))) == {"NO_PROTECTIVE_MBR"}


def test_overlaps_ends_and_gaps() -> None:
    dump = record(
        entry(0x80, 0x83, 100, 100), entry(0x80, 0x83, 150, 100), entry(7, 0x83, 900, 200)
    )
    table = decode(of_bytes(dump + bytes(999 * 512)))
    assert codes(table) == {"OVERLAP", "SEVERAL_ACTIVE", "BOOT_INDICATOR", "BEYOND_THE_END"}
    assert [(gap.first_sector, gap.last_sector) for gap in table.gaps] == [(1, 99), (250, 899)]


def test_chains_of_extended_records_that_go_wrong() -> None:
    looped = record(entry(0, 0x05, 1, 100)) + record(entry(0, 0x83, 1, 2), entry(0, 0x05, 0, 9))
    assert "EBR_LOOP" in codes(decode(of_bytes(looped + bytes(200 * 512))))
    unsigned = record(entry(0, 0x05, 1, 100)) + bytes(200 * 512)
    assert "EBR_SIGNATURE" in codes(decode(of_bytes(unsigned)))
    assert "EBR_BEYOND" in codes(decode(of_bytes(record(entry(0, 0x05, 9, 100)))))
    outside = record(entry(0, 0x05, 1, 10)) + record(entry(0, 0x83, 1, 50)) + bytes(99 * 512)
    assert "OUT_OF_EXTENDED" in codes(decode(of_bytes(outside)))


def test_what_is_no_table() -> None:
    for dump in (b"", b"\x55\xaa", bytes(512), bytes(4096), os.urandom(510) + b"\0\0"):
        assert decode(of_bytes(dump)).kind == "none"


@pytest.mark.soak
def test_made_up_and_damaged_tables_never_crash_it(image: Path) -> None:
    """Bytes of real tables are changed at random, checksums are put right in every second one."""
    dumps = []
    for script in (
        "label: gpt\nsize=8MiB\nsize=8MiB\n",
        "label: dos\nsize=8MiB\ntype=5\nsize=4MiB\nsize=4MiB\n",
    ):
        clear(image)
        run("/usr/sbin/sfdisk", "--quiet", "--no-tell-kernel", str(image), stdin=script)
        with image.open("rb") as file:
            dumps.append(file.read(100_000))
    chosen = random.Random(7)  # noqa: S311
    for turn in range(FUZZED):
        size = chosen.choice((512, 1024, 17_408, 70_000))
        dump = bytearray(chosen.choice(dumps)[:size])
        for _ in range(chosen.randint(1, 12)):
            dump[chosen.randrange(min(size, 1100))] = chosen.randrange(256)
        if turn % 2 and size > 1024:
            dump[512 + 16 : 512 + 20] = bytes(4)
            header = bytes(dump[512 : 512 + 92])
            dump[512 + 16 : 512 + 20] = struct.pack("<I", zlib.crc32(header))
        table = decode(of_bytes(bytes(dump)), chosen.choice((None, 512, 4096)), whole=turn % 3 == 0)
        assert all(isinstance(one, Partition) for one in table.partitions)
        assert len(table.partitions) <= 1024 + 132
