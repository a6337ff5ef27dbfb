"""Partition tables by sfdisk(8) and sgdisk(8), on files and on loop devices."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostler.core.partition.model import Table


def run(*argv: str, stdin: str = "", status: int = 0) -> str:
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, (argv, stdin, done.stdout, done.stderr)
    return done.stdout


@contextmanager
def loop_device(image: Path, sector_bytes: int = 512, *options: str) -> Iterator[str]:
    """A loop device with such sectors."""
    size = ("--sector-size", str(sector_bytes))
    device = run("/usr/sbin/losetup", "--find", "--show", *size, *options, str(image)).strip()
    try:
        yield device
    finally:
        run("/usr/sbin/losetup", "--detach", device)


def by_sfdisk(image: Path | str, *options: str) -> dict[str, Any]:
    return dict(json.loads(run("/usr/sbin/sfdisk", *options, "-J", str(image)))["partitiontable"])


def number_of(node: str, image: Path | str) -> int:
    return int(node.removeprefix(str(image)).removeprefix("p"))


def by_sgdisk(image: Path | str) -> dict[int, tuple[int, int]]:
    """Where partitions begin and end, by their numbers; sgdisk shows none that is extended."""
    rows = [line.split() for line in run("/usr/sbin/sgdisk", "-p", str(image)).splitlines()]
    return {int(row[0]): (int(row[1]), int(row[2])) for row in rows if row and row[0].isdigit()}


def assert_equal_to_sfdisk(table: Table, told: dict[str, Any], image: Path | str) -> None:
    """All that sfdisk -J says about each partition, and about the table."""
    assert {"gpt": "gpt", "dos": "mbr"}[told["label"]] == table.kind
    assert table.sector_bytes == told["sectorsize"]
    if table.kind == "gpt":
        assert table.primary is not None
        assert table.primary.disk_uuid == told["id"]
        assert table.primary.first_usable_sector == told["firstlba"]
        assert table.primary.last_usable_sector == told["lastlba"]
        assert table.primary.is_good
        assert table.backup is not None
        assert table.backup.is_good
    else:
        assert table.mbr is not None
        assert table.mbr.signature == told["id"]
    listed = {number_of(one["node"], image): one for one in told.get("partitions", ())}
    assert {one.number for one in table.partitions} == set(listed)
    for one in table.partitions:
        row = listed[one.number]
        assert (one.start_sector, one.size_sectors) == (row["start"], row["size"])
        assert one.active == row.get("bootable", "LegacyBIOSBootable" in row.get("attrs", ""))
        if table.kind == "gpt":
            assert (one.type, one.uuid, one.name) == (row["type"], row["uuid"], row.get("name", ""))
        else:
            assert int(one.type, 16) == int(row["type"], 16)
