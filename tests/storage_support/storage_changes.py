"""All changes of storage that are disturbed, by who carries them out."""

from __future__ import annotations

from storage_rows import FILESYSTEM_ROWS, PARTITION_ROWS
from storage_rows_backup import BACKUP_ROWS, DEFINITION_ROWS, RESTORE_ROWS
from storage_rows_btrfs import BTRFS_ROWS
from storage_rows_mount import MOUNT_ROWS

BY_ROLE = {
    "worker": (*FILESYSTEM_ROWS, *PARTITION_ROWS, *BTRFS_ROWS, *MOUNT_ROWS, *DEFINITION_ROWS),
    "backup": BACKUP_ROWS,
    "restore": RESTORE_ROWS,
}
STORAGE_ROWS = tuple(row for rows in BY_ROLE.values() for row in rows)
