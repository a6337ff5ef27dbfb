"""Backups of partition tables: dd puts one back, and sfdisk(8) says that it is the same table."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from partition_tools import by_sfdisk, run

from hostler.core.partition.backup import (
    MAGIC,
    Backup,
    BackupInvalid,
    differences,
    pack,
    take,
    unpack,
)
from hostler.core.partition.source import of_bytes

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SCRIPTS = {
    "gpt": "label: gpt\n1 : size=8MiB, name=one\n7 : size=8MiB, name=seven\n",
    "dos": "label: dos\n1 : size=8MiB, bootable\n2 : type=5\n5 : size=4MiB\n6 : size=4MiB\n",
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    # Every byte outside of the table is to be told from zero.
    path.write_bytes(random.Random(1).randbytes(40 * MIB))  # noqa: S311
    for at in (0, 39 * MIB):
        _write(path, at, bytes(MIB))
    return path


def _write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def make(image: Path, label: str) -> Backup:
    run(
        "/usr/sbin/sfdisk",
        *("--quiet", "--no-tell-kernel", "--wipe", "always"),
        str(image),
        stdin=SCRIPTS[label],
    )
    return take(of_bytes(image.read_bytes()), 512, {"id": "a disk"})


@pytest.mark.parametrize("label", SCRIPTS)
def test_what_is_put_back_is_the_table(image: Path, label: str) -> None:
    kept = unpack(pack(make(image, label)))
    assert kept.about == {"id": "a disk"}
    told, whole = by_sfdisk(image), image.read_bytes()
    assert kept.table.partitions
    assert not [one for one in kept.table.findings if one.severity == "error"]
    for at, piece in kept.pieces.items():
        _write(image, at, bytes(len(piece)))
    assert image.read_bytes() != whole
    assert differences(kept, take(of_bytes(image.read_bytes()), 512))
    for at, piece in kept.pieces.items():
        part = image.with_name("piece")
        part.write_bytes(piece)
        run("/usr/bin/dd", f"if={part}", f"of={image}", f"seek={at // 512}", "conv=notrunc")
    assert image.read_bytes() == whole
    assert by_sfdisk(image) == told
    assert differences(kept, take(of_bytes(image.read_bytes()), 512)) == []


def test_pieces_are_all_structures_and_nothing_else(image: Path) -> None:
    gpt = make(image, "gpt")
    last = 40 * MIB - 512
    sizes = {at: len(piece) for at, piece in gpt.pieces.items()}
    assert sizes == {0: 512, 512: 512, 1024: 16384, last - 16384: 16384, last: 512}
    dos = make(image, "dos")
    listed = {one["node"][-1]: one["start"] for one in by_sfdisk(image)["partitions"]}
    assert 0 in dos.pieces
    assert listed["2"] * 512 in dos.pieces


def test_differences_are_named(image: Path) -> None:
    kept = make(image, "gpt")
    run("/usr/sbin/sfdisk", "-q", "--no-tell-kernel", "--part-label", str(image), "7", "other")
    run("/usr/sbin/sfdisk", "-q", "--no-tell-kernel", "--delete", str(image), "1")
    told = differences(kept, take(of_bytes(image.read_bytes()), 512))
    assert "partition 1 is missing on the device" in told
    assert "partition 7 is another one" in told
    assert "the bytes at 1024 differ: entries of the primary header" in told
    larger = take(of_bytes(image.read_bytes() + bytes(MIB)), 512)
    assert differences(kept, larger)[0].startswith("the device's size is")
    other = make(image, "dos")
    assert "the device's table is mbr, that of the backup gpt" in differences(kept, other)


def test_damaged_and_made_up_files_are_refused(image: Path) -> None:
    file = pack(make(image, "dos"))
    chosen = random.Random(3)  # noqa: S311
    for _ in range(300):
        at = chosen.randrange(len(file))
        hurt = file[:at] + bytes([file[at] ^ (1 << chosen.randrange(8))]) + file[at + 1 :]
        for each in (hurt, file[:at]):
            with pytest.raises(BackupInvalid):
                unpack(each)
    for line in (
        "",
        "{}",
        "[]",
        '{"size_bytes":512,"sector_bytes":7,"about":{},"pieces":[]}',
        '{"size_bytes":512,"sector_bytes":512,"about":{},"pieces":[[0,512]]}',
        '{"size_bytes":512,"sector_bytes":512,"about":{},"pieces":[[-512,1]]}',
        '{"size_bytes":512,"sector_bytes":512,"about":{},"pieces":[[512,1]]}',
        '{"size_bytes":512,"sector_bytes":512,"about":{},"pieces":[[true,1]]}',
        '{"size_bytes":"512","sector_bytes":512,"about":{},"pieces":[]}',
        '{"size_bytes":512,"sector_bytes":512,"about":[],"pieces":[]}',
    ):
        content = MAGIC + line.encode() + b"\nx"
        with pytest.raises(BackupInvalid):
            unpack(content + hashlib.sha256(content).digest())
