"""What LVM has, asked of the worker, and following what it does for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hostlerd.runtime.steps import canonical
from hostlerd.storage.errors.volumes import GroupNotFound
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model import lvm_report
from hostlerd.storage.model.lvm import Group
from hostlerd.storage.model.target import Target

_LOOK_EVERY_S = 0.5
_ANSWER_S = 120.0


def groups(worker: Worker, devices: Sequence[Target]) -> tuple[Group, ...]:
    """The groups on these devices. Raises what the worker does not do."""
    if not devices:
        return ()
    told = worker.ask("LookLvm", {"devices": canonical(devices)}, _ANSWER_S)
    return lvm_report.read(told["reports"])


def follow(
    worker: Worker,
    look: Callable[[], Sequence[Target]],
    uuid: str,
    progress: Callable[[Group], bool],
) -> Group:
    """Look at a group until `progress` says that it is over; answer it as it is then.

    Blocks. Raises GroupNotFound, and what `progress` raises.
    """
    while True:
        found = next((one for one in groups(worker, look()) if one.uuid == uuid), None)
        if found is None:
            raise GroupNotFound("the group is gone", group=uuid)
        if progress(found):
            return found
        time.sleep(_LOOK_EVERY_S)
