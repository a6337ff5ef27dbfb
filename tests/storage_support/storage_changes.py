"""All changes of storage that are disturbed: by who carries them out, and those of a guest."""

from __future__ import annotations

from storage_rows import FILESYSTEM_ROWS, PARTITION_ROWS
from storage_rows_array import ARRAY_ROWS
from storage_rows_backup import BACKUP_ROWS, DEFINITION_ROWS, RESTORE_ROWS
from storage_rows_btrfs import BTRFS_ROWS
from storage_rows_disk import BURN_IN_ROWS, DISK_ROWS
from storage_rows_exports import EXPORT_ROWS
from storage_rows_luks import LUKS_ROWS
from storage_rows_lvm import LVM_ROWS
from storage_rows_mount import MOUNT_ROWS

BY_ROLE = {
    "worker": (
        *(*FILESYSTEM_ROWS, *PARTITION_ROWS, *BTRFS_ROWS, *MOUNT_ROWS, *DEFINITION_ROWS),
        *BURN_IN_ROWS,
    ),
    "backup": BACKUP_ROWS,
    "restore": RESTORE_ROWS,
}
STORAGE_ROWS = tuple(row for rows in BY_ROLE.values() for row in rows)
#: Those that want md, the device mapper or the kernel's target, which guests have, by noun.
GUEST_ROWS = {
    "arrays": ARRAY_ROWS,
    "lvm": LVM_ROWS,
    "luks": LUKS_ROWS,
    "exports": EXPORT_ROWS,
    "disks": DISK_ROWS,
}
