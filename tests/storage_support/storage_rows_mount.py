"""Every change of mounts and swap areas, and how it is disturbed.

The kernel is asked by findmnt(8) and /proc/swaps, units by the folders that they lie in. No systemd
runs here: what it does with a unit is done by mount_manager.py.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from journal_rows import ask
from journal_stage import eventually
from storage_devices import run
from storage_rows import STORAGE, row
from storage_stage import Storage

from hostler.api.storage.v1 import mount_pb2 as pb

_SERVICE = f"{STORAGE}.MountService"
_UUID = "4f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
_LINK = Path(f"/dev/disk/by-uuid/{_UUID}")
_FOLDERS = ("etc/systemd/system", "run/systemd/system")


def _where(place: Storage) -> str:
    return str(place.folder / "srv/data")


def cleared(place: Storage) -> None:
    """Leave nothing mounted, swapped to, linked or declared."""
    device = place.disks["one"].device
    if device in Path("/proc/swaps").read_text():
        run("/usr/sbin/swapoff", device)
    if Path(_where(place)).is_mount():
        eventually(lambda: run("/usr/bin/umount", _where(place), status=None) or _is_free(place))
    for folder in (Path(_where(place)), Path(_where(place)).parent):
        if folder.is_dir():
            folder.rmdir()
    for name in _FOLDERS:
        for unit in (place.stage.folder / "root" / name).rglob("*"):
            if not unit.is_dir() or unit.is_symlink():
                unit.unlink()
    _LINK.unlink(missing_ok=True)
    for folder in (_LINK.parent, _LINK.parent.parent):
        # Where udev runs there are others in it.
        with suppress(OSError):
            folder.rmdir()


def _is_free(place: Storage) -> bool:
    return not Path(_where(place)).is_mount()


def _linked(place: Storage, *make: str) -> None:
    """A filesystem or a swap area of that UUID, and the link to it that udev would make."""
    cleared(place)
    place.renew("one")
    run(*make, "-U", _UUID, place.disks["one"].device)
    _LINK.parent.mkdir(parents=True, exist_ok=True)
    _LINK.symlink_to(place.disks["one"].device)


def _ext4(place: Storage) -> None:
    _linked(place, "/usr/sbin/mkfs.ext4", "-q")


def _swap(place: Storage) -> None:
    _linked(place, "/usr/sbin/mkswap")


def _mount(place: Storage, **more: Any) -> Any:
    return pb.ApplyMountRequest(where=_where(place), device=_UUID, **more)


def _mounted(place: Storage) -> None:
    _ext4(place)
    ask(place, f"{_SERVICE}/ApplyMount", _mount(place, options=["ro"]))


def _swapped(place: Storage) -> None:
    _swap(place)
    ask(place, f"{_SERVICE}/ApplySwap", pb.ApplySwapRequest(device=_UUID))


def _seen(place: Storage) -> Any:
    """What is mounted or swapped to, the units, and whether there is a place to mount it."""
    root = place.stage.folder / "root"
    units = {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for name in _FOLDERS
        for path in sorted((root / name).rglob("*"))
        if path.is_symlink() or path.is_file()
    }
    argv = ("/usr/bin/findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--mountpoint")
    swaps = place.disks["one"].device in Path("/proc/swaps").read_text()
    mounted = run(*argv, _where(place), status=None).split()
    return units, mounted, swaps, Path(_where(place)).exists()


MOUNT_ROWS = (
    row("mount", f"{_SERVICE}/ApplyMount", _mount, _ext4, _seen),
    row(
        "remount",
        f"{_SERVICE}/ApplyMount",
        partial(_mount, options=["nosuid", "nodev"], until_boot=True),
        _mounted,
        _seen,
    ),
    row(
        "unmount",
        f"{_SERVICE}/DeleteMount",
        lambda place: pb.DeleteMountRequest(where=_where(place)),
        _mounted,
        _seen,
    ),
    row(
        "swap",
        f"{_SERVICE}/ApplySwap",
        lambda place: pb.ApplySwapRequest(device=_UUID),
        _swap,
        _seen,
    ),
    row(
        "unswap",
        f"{_SERVICE}/DeleteSwap",
        lambda place: pb.DeleteSwapRequest(device=_UUID),
        _swapped,
        _seen,
    ),
)
