"""All that the worker does: one line for each noun."""

from __future__ import annotations

from collections.abc import Mapping

from hostlerd.storage.worker import (
    attachment,
    backup,
    btrfs,
    btrfs_subvolume,
    burn_in,
    export,
    filesystem,
    locator,
    luks,
    lvm,
    lvm_clone,
    md,
    mount,
    restore,
    smart,
    table,
)
from hostlerd.storage.worker.operation import Operation

#: Nothing, in its turn: whoever is answered knows that nothing goes on for callers that have gone.
SETTLE = Operation({}, lambda request, tools: {})

OPERATIONS: Mapping[str, Operation] = {
    "Settle": SETTLE,
    **backup.OPERATIONS,
    **filesystem.OPERATIONS,
    **locator.OPERATIONS,
    **mount.OPERATIONS,
    **export.OPERATIONS,
    **attachment.OPERATIONS,
    **restore.OPERATIONS,
    **smart.OPERATIONS,
    **md.OPERATIONS,
    **luks.OPERATIONS,
    **lvm.OPERATIONS,
    **lvm_clone.OPERATIONS,
    **table.OPERATIONS,
    **btrfs.OPERATIONS,
    **btrfs_subvolume.OPERATIONS,
    **burn_in.OPERATIONS,
}
