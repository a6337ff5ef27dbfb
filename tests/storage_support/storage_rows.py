"""Every change of filesystems and partition tables, and how it is disturbed.

What is there afterwards is asked of blkid(8), dumpe2fs(8), sfdisk(8) and the bytes themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from journal_rows import Row, ask
from storage_devices import MIB, Loop, run
from storage_stage import Storage

from hostler.api.storage.v1 import filesystem_pb2 as fs
from hostler.api.storage.v1 import partition_pb2 as part

STORAGE = "hostler.api.storage.v1"
FILESYSTEM, PARTITION = f"{STORAGE}.FilesystemService", f"{STORAGE}.PartitionService"
OLD, NEW = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
_TABLE = """label: gpt
label-id: 2F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0
{number} : start={start}, size=4096, name={name}, uuid=3F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F{number}
"""


def planned(place: Storage, method: str, request: Any) -> Any:
    """Ask for the plan of a change; answer the request with the token to do it, if it takes one."""
    asked = type(request)()
    asked.CopyFrom(request)
    asked.change.validate_only = True
    change = ask(place, method, asked).change
    if change.destroy_token:
        request.change.plan_hash = change.plan.hash
        request.change.destroy_token = change.destroy_token
    return request


def row(name: str, method: str, *parts: Callable[..., Any], **more: Any) -> Row:
    """A row of this domain: what makes the request, what is before it, and its witness."""
    make, before, witness = parts

    def request(place: Any) -> Any:
        return planned(place, method, make(place))

    more = {"points": 16, **more}
    return Row(name, "storage", method, request, before, witness, lasts=True, **more)


def _disk(place: Storage) -> Loop:
    return place.disks["one"]


def content(disk: Loop) -> dict[str, str]:
    """What blkid sees on a disk."""
    run("/usr/sbin/blockdev", "--flushbufs", disk.device)
    said = run("/usr/sbin/blkid", "-p", "-o", "export", disk.device, status=None)
    pairs = (line.partition("=") for line in said.splitlines())
    return {key: value for key, _, value in pairs if key != "DEVNAME"}


def _content(place: Storage) -> Any:
    return content(_disk(place))


def empty(disk: Loop) -> None:
    """Have nothing on a disk that tells what it holds, for the kernel neither."""
    run("/usr/bin/partx", "--delete", disk.device, status=None)
    run("/usr/sbin/wipefs", "--quiet", "--all", "--force", disk.device)
    ends(disk, write=True)


def ends(disk: Loop, *, write: bool = False) -> str:
    """SHA-256 of the first and the last MiB of a disk, or zero them."""
    run("/usr/sbin/blockdev", "--flushbufs", disk.device)
    found = hashlib.sha256()
    with disk.file.open("r+b") as file:
        size = file.seek(0, 2)
        for at in (0, size - MIB):
            file.seek(at)
            if write:
                file.write(bytes(MIB))
            else:
                found.update(file.read(MIB))
    run("/usr/sbin/blockdev", "--flushbufs", disk.device)
    return found.hexdigest()


def _swap(place: Storage) -> None:
    empty(_disk(place))
    run("/usr/sbin/mkswap", "-L", "old", "-U", OLD, _disk(place).device)


def _ext4(place: Storage, *size: str) -> None:
    empty(_disk(place))
    run("/usr/sbin/mkfs.ext4", "-q", "-F", "-L", "old", "-U", OLD, _disk(place).device, *size)


def _blocks(place: Storage) -> str:
    said = run("/usr/sbin/dumpe2fs", "-h", _disk(place).device)
    return next(line for line in said.splitlines() if line.startswith("Block count"))


def put_back(place: Storage, disk: str = "one") -> None:
    """Put back what was saved last of a disk, if it was overwritten at all."""
    listed = ask(place, f"{FILESYSTEM}/ListSaved", fs.ListSavedRequest()).saved
    device = place.called(disk)
    newest = next((one for one in listed if one.device == device.rpartition("#")[0]), None)
    if newest is not None:
        method = f"{FILESYSTEM}/RestoreSaved"
        request = fs.RestoreSavedRequest(device=device, saved=newest.name)
        ask(place, method, planned(place, method, request))


def _wiped(place: Storage) -> None:
    _swap(place)
    method = f"{FILESYSTEM}/WipeSignatures"
    request = fs.WipeSignaturesRequest(device=place.called("one"))
    ask(place, method, planned(place, method, request))


def _saved(place: Storage) -> Any:
    listed = ask(place, f"{FILESYSTEM}/ListSaved", fs.ListSavedRequest()).saved
    return fs.RestoreSavedRequest(device=place.called("one"), saved=listed[0].name)


def _write(disk: Loop, number: int, name: str) -> None:
    empty(disk)
    script = disk.file.with_suffix(".table")
    script.write_text(_TABLE.format(number=number, start=2048 * number, name=name))
    quiet = "--quiet --no-reread --no-tell-kernel --wipe never"
    run("/bin/sh", "-c", f"/usr/sbin/sfdisk {quiet} {disk.device} <{script}")
    run("/usr/bin/partx", "--add", disk.device)


def _old_table(place: Storage) -> None:
    _write(_disk(place), 1, "old")


def _table(place: Storage) -> Any:
    """The table by sfdisk, if there is one, and all of its bytes."""
    disk = _disk(place)
    said = run("/usr/sbin/sfdisk", "--json", disk.device, status=None)
    return json.loads(said) if said else {}, ends(disk)


def _new_table(place: Storage) -> Any:
    wanted = part.WantedPartition(number=2, start_bytes=4 * MIB, size_bytes=2 * MIB, uuid=NEW)
    table = part.WantedTable(kind=part.TABLE_KIND_GPT, id=NEW, partitions=[wanted])
    return part.ApplyTableRequest(device=place.called("one"), table=table)


def _backed_up(place: Storage) -> None:
    _write(_disk(place), 2, "kept")
    request = part.BackupTableRequest(device=place.called("one"))
    backup = ask(place, f"{PARTITION}/BackupTable", request).backup
    (place.folder / "table").write_bytes(backup)
    _old_table(place)


def _restored(place: Storage) -> Any:
    backup = (place.folder / "table").read_bytes()
    return part.RestoreTableRequest(device=place.called("one"), backup=backup)


def _two_tables(place: Storage) -> None:
    _write(place.disks["two"], 2, "other")
    _old_table(place)


def _copied(place: Storage) -> Any:
    return part.CopyTableRequest(
        device=place.called("one"), source_device=place.called("two"), keep_ids=True
    )


_once = partial(row, unrepeatable=True, mend=put_back)

FILESYSTEM_ROWS = (
    _once(
        "make",
        f"{FILESYSTEM}/MakeFilesystem",
        lambda place: fs.MakeFilesystemRequest(
            device=place.called("one"), type="ext4", label="new", uuid=NEW
        ),
        _swap,
        _content,
    ),
    _once(
        "wipe",
        f"{FILESYSTEM}/WipeSignatures",
        lambda place: fs.WipeSignaturesRequest(device=place.called("one")),
        _swap,
        _content,
    ),
    row(
        "label",
        f"{FILESYSTEM}/SetLabel",
        lambda place: fs.SetLabelRequest(device=place.called("one"), label="new"),
        _ext4,
        _content,
    ),
    row(
        "grow",
        f"{FILESYSTEM}/GrowFilesystem",
        lambda place: fs.GrowFilesystemRequest(device=place.called("one")),
        lambda place: _ext4(place, "16M"),
        _blocks,
    ),
    _once("restore-saved", f"{FILESYSTEM}/RestoreSaved", _saved, _wiped, _content),
)
PARTITION_ROWS = (
    _once("table", f"{PARTITION}/ApplyTable", _new_table, _old_table, _table),
    _once("restore-table", f"{PARTITION}/RestoreTable", _restored, _backed_up, _table),
    _once("copy-table", f"{PARTITION}/CopyTable", _copied, _two_tables, _table),
)
