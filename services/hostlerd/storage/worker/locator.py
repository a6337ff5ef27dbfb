"""The light at a disk's bay. Source: Linux drivers/misc/enclosure.c."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostlerd.privileged.grammar import flag
from hostlerd.storage.worker import sysfs
from hostlerd.storage.worker.grammar import target
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools


def set_locator(request: Request, _: Tools) -> dict[str, Any]:
    """Switch it on or off. Raises Refused for a disk that is in no enclosure."""
    disk = request.device("disk")
    if not switched(disk.whole, is_on=bool(request["is_on"])):
        words = f"{disk.target.id} is in no enclosure that the kernel knows of"
        raise Refused("NOT_IN_ENCLOSURE", words, device=disk.target.id)
    return {}


def switched(whole: Path, *, is_on: bool) -> bool:
    """Switch the light of a disk by its folder of sysfs; whether it has one."""
    folder = sysfs.bay(whole)
    if folder is None or not (folder / "locate").exists():
        return False
    (folder / "locate").write_text("1" if is_on else "0")
    return True


OPERATIONS: Mapping[str, Operation] = {
    "SetLocator": Operation({"disk": target, "is_on": flag}, set_locator, uses=("disk",)),
}
