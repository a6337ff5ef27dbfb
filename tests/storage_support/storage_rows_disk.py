"""Changes of whole disks, and how each is disturbed: one is replaced in a guest, one burnt in."""

from __future__ import annotations

from typing import Any

from journal_stage import eventually
from storage_devices import run
from storage_rows import NEW, STORAGE, content, empty, put_back, row
from storage_rows_array import mirror, mirror_seen
from storage_stage import Storage

from hostler.api.storage.v1 import disk_pb2 as pb
from hostlerd.storage.kernel.worker_client import Worker

_SERVICE = f"{STORAGE}.DiskService"


def _swap(place: Storage) -> None:
    _over(place)
    disk = place.disks["one"]
    empty(disk)
    run("/usr/sbin/mkswap", "-L", "old", "-U", NEW, disk.device)


def _over(place: Storage) -> None:
    """Wait until nobody writes all of the disk any more, nor reads it."""
    worker, of = Worker(place.stage.folder / "worker.sock"), {"id": _id(place)}
    eventually(lambda: worker.ask("LookBurnIn", of)["work"]["state"] != "running", 60)


def _id(place: Storage) -> str:
    return place.called("one").rpartition("#")[0]


def _held(place: Storage) -> Any:
    """What the disk holds: nothing from when it begins to be written, to whatever end."""
    _over(place)
    return content(place.disks["one"])


def _replace(place: Any) -> Any:
    return pb.ReplaceDiskRequest(old=place.called("a"), new=place.called("c"))


#: On loop devices, with the others of tests/kernel/test_journal_kills_storage.py.
BURN_IN_ROWS = (
    row(
        "burn-in",
        f"{_SERVICE}/BurnInDisk",
        lambda place: pb.BurnInDiskRequest(disk=place.called("one")),
        _swap,
        _held,
        unrepeatable=True,
        mend=put_back,
    ),
)
#: In a guest.
DISK_ROWS = (
    row(
        "replace-disk",
        f"{_SERVICE}/ReplaceDisk",
        _replace,
        mirror,
        mirror_seen,
        unrepeatable=True,
        points=10,
    ),
)
