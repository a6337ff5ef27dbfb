"""Every change of btrfs, and how it is disturbed. What is there then is asked of btrfs(8).

What goes on for long is begun by a change, and waited for by its witness.
"""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from journal_stage import eventually
from storage_btrfs import BTRFS, damage, part
from storage_devices import MIB, run
from storage_rows import NEW, STORAGE, content, put_back, row
from storage_stage import Storage

from hostler.api.storage.v1 import btrfs_pb2 as pb
from hostlerd.storage.kernel.worker_client import Worker

_SERVICE = f"{STORAGE}.BtrfsService"
_LEGS = ("leg", "mate", "spare")


def _at(place: Storage) -> Path:
    return place.folder / "at"


def uuid(place: Storage) -> str:
    """The UUID of the filesystem, which each trial has anew."""
    return place.disks["leg"].blkid("UUID")


def _idle(place: Storage) -> None:
    """Wait until nothing goes on there any more."""
    state = Path(f"/sys/fs/btrfs/{uuid(place)}/exclusive_operation")
    eventually(lambda: not state.exists() or state.read_text().strip() == "none", 60)


def unmount(place: Storage) -> None:
    """Leave nothing mounted."""
    if _at(place).is_mount():
        _idle(place)
        eventually(lambda: run("/usr/bin/umount", str(_at(place)), status=None) or _is_free(place))


def _is_free(place: Storage) -> bool:
    return not _at(place).is_mount()


def _pool(place: Storage, *profiles: str, devices: int = 2) -> None:
    """A btrfs with 4 MiB of data, and beside it a disk that holds something else."""
    unmount(place)
    place.renew(*_LEGS)
    disks = [place.disks[name] for name in _LEGS]
    devices_ = [one.device for one in disks[:devices]]
    wanted = profiles or ("-d", "raid1", "-m", "raid1")
    run("/usr/sbin/mkfs.btrfs", "-q", "-f", *wanted, *devices_)
    run(BTRFS, "device", "scan", *devices_)
    _at(place).mkdir(exist_ok=True)
    run("/usr/bin/mount", disks[0].device, str(_at(place)))
    (_at(place) / "data").write_bytes(os.urandom(4 * MIB))
    run(BTRFS, "subvolume", "create", str(_at(place) / "home"))
    run(BTRFS, "filesystem", "sync", str(_at(place)))
    if devices < len(disks):
        run("/usr/sbin/mkswap", "-L", "spare", "-U", NEW, disks[-1].device)


def _subvolumes(place: Storage) -> Any:
    said = run(BTRFS, "subvolume", "list", "-r", str(_at(place)))
    read_only = set(re.findall(r"path (\S+)", said))
    said = run(BTRFS, "subvolume", "list", str(_at(place)))
    return sorted((path, path in read_only) for path in re.findall(r"path (\S+)", said))


def _devices(place: Storage) -> Any:
    """The disks of the filesystem, and what the spare one holds if it is not of it."""
    paths, spare = _paths(place), place.disks["spare"]
    # By their names here: those of loop devices are whatever is free.
    names = {one.device: name for name, one in place.disks.items()}
    found = sorted(names.get(path, path) for path in paths)
    return found, "" if spare.device in paths else content(spare).get("LABEL", "nothing")


def _paths(place: Storage) -> list[str]:
    _idle(place)
    said = run(BTRFS, "filesystem", "show", "--raw", str(_at(place)))
    return re.findall(r"devid +\d+ .* path (\S+)", said)


def _take_out(place: Storage) -> None:
    """Have the spare disk be what it was."""
    spare, mate = place.disks["spare"], place.disks["mate"]
    paths = _paths(place)
    if spare.device in paths:
        at = str(_at(place))
        if mate.device in paths:
            run(BTRFS, "device", "remove", spare.device, at)
        else:
            run(BTRFS, "replace", "start", "-B", "-f", spare.device, mate.device, at)
    put_back(place, "spare")


def _profiles(place: Storage) -> Any:
    _idle(place)
    said = run(BTRFS, "--format", "json", "filesystem", "df", str(_at(place)))
    told = json.loads(said)["filesystem-df"]
    return sorted({(one["bg-type"], one["bg-profile"]) for one in told})


def _damaged(place: Storage, *, seen: bool) -> None:
    """Have four blocks of one leg be wrong, and if they are to be seen, counted."""
    _pool(place)
    leg = place.disks["mate"]
    mark = (_at(place) / "data").read_bytes()[MIB : MIB + 4096]
    where = leg.file.read_bytes().find(mark)
    assert where > 0
    (place.folder / "right").write_bytes(part(leg, where, 4))
    (place.folder / "where").write_text(str(where))
    damage(leg, where, 4)
    if seen:
        run(BTRFS, "scrub", "start", "-B", "-r", str(_at(place)), status=None)


def _healed(place: Storage) -> bool:
    """Whether the leg is right: after a scrub that goes on, if one does."""
    worker, of = Worker(place.stage.folder / "worker.sock"), {"uuid": uuid(place), "kind": "scrub"}
    eventually(lambda: worker.ask("LookBtrfsWork", of)["work"]["state"] != "running", 60)
    leg, where = place.disks["mate"], int((place.folder / "where").read_text())
    return part(leg, where, 4) == (place.folder / "right").read_bytes()


def _errors(place: Storage) -> bool:
    said = json.loads(run(BTRFS, "--format", "json", "device", "stats", str(_at(place))))
    return any(int(one["corruption_errs"]) for one in said["device-stats"])


def _of(kind: Any, place: Storage, **fields: Any) -> Any:
    """A request about the filesystem; fields that end with an underscore name disks."""
    disks = {
        key[:-1]: place.called(str(fields.pop(key))) for key in list(fields) if key.endswith("_")
    }
    return kind(filesystem=uuid(place), **fields, **disks)


BTRFS_ROWS = (
    row(
        "create-subvolume",
        f"{_SERVICE}/CreateSubvolume",
        partial(_of, pb.CreateSubvolumeRequest, path="home/new"),
        _pool,
        _subvolumes,
    ),
    row(
        "create-snapshot",
        f"{_SERVICE}/CreateSnapshot",
        partial(_of, pb.CreateSnapshotRequest, source="home", path="snap", read_only=True),
        _pool,
        _subvolumes,
    ),
    row(
        "delete-subvolume",
        f"{_SERVICE}/DeleteSubvolume",
        partial(_of, pb.DeleteSubvolumeRequest, path="home"),
        _pool,
        _subvolumes,
        unrepeatable=True,
    ),
    row(
        "add-device",
        f"{_SERVICE}/AddDevice",
        partial(_of, pb.AddDeviceRequest, device_="spare"),
        _pool,
        _devices,
        unrepeatable=True,
        mend=_take_out,
    ),
    row(
        "remove-device",
        f"{_SERVICE}/RemoveDevice",
        partial(_of, pb.RemoveDeviceRequest, device_="spare"),
        partial(_pool, devices=3),
        _devices,
    ),
    row(
        "replace-device",
        f"{_SERVICE}/ReplaceDevice",
        partial(_of, pb.ReplaceDeviceRequest, old_="mate", new_="spare"),
        _pool,
        _devices,
        unrepeatable=True,
        mend=_take_out,
    ),
    row(
        "balance",
        f"{_SERVICE}/BalanceBtrfs",
        partial(_of, pb.BalanceBtrfsRequest, data="raid1"),
        lambda place: _pool(place, "-d", "single", "-m", "raid1"),
        _profiles,
        points=12,
    ),
    row(
        "scrub",
        f"{_SERVICE}/ScrubBtrfs",
        partial(_of, pb.ScrubBtrfsRequest),
        partial(_damaged, seen=False),
        _healed,
        points=12,
    ),
    row(
        "reset-errors",
        f"{_SERVICE}/ResetErrorCounters",
        partial(_of, pb.ResetErrorCountersRequest),
        partial(_damaged, seen=True),
        _errors,
    ),
)
