"""All steps of the domain: one line for each noun.

A step is carried out by the worker's operation of the same name; its fields are the operation's
grammar. `door` names another program that carries it out, if not the worker. `repeatable = False`
says of a step that nobody can tell afterwards whether it was done, and that it must not be done
twice; `one_way = True` that one which was cut off is carried on with and not taken back;
`timeout_s` how long the worker may take, if not the usual time.
"""

from __future__ import annotations

from hostlerd.storage.model import (
    array_steps,
    backup_steps,
    btrfs_steps,
    copy_steps,
    disk_steps,
    filesystem_steps,
    iscsi_steps,
    luks_steps,
    lvm_steps,
    lvm_volume_steps,
    mount_steps,
    table_steps,
)

STEPS: tuple[type, ...] = (
    *filesystem_steps.STEPS,
    *mount_steps.STEPS,
    *iscsi_steps.STEPS,
    *array_steps.STEPS,
    *luks_steps.STEPS,
    *lvm_steps.STEPS,
    *lvm_volume_steps.STEPS,
    *backup_steps.STEPS,
    *table_steps.STEPS,
    *btrfs_steps.STEPS,
    *copy_steps.STEPS,
    *disk_steps.STEPS,
)
