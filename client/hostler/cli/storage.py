"""`hostler storage`: disks and what is on them. Each command is loaded when it is used."""

from __future__ import annotations

from collections.abc import Mapping

import click

from hostler.cli.lazy import LazyGroup

# Name, where it is, and what the list of commands says about it.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "attachment": (
        "hostler.cli.storage_export:attachment",
        "Devices of other hosts that are to be here.",
    ),
    "array": ("hostler.cli.storage_array:array", "Arrays of md: made, mended, grown, ended."),
    "btrfs": (
        "hostler.cli.storage_btrfs:btrfs",
        "btrfs: scrubbed, mended, balanced; subvolumes, snapshots.",
    ),
    "backup": ("hostler.cli.storage_backup:backup", "Backups, and whether they can be restored."),
    "burn-in": (
        "hostler.cli.storage_burn_in:burn_in",
        "Write, find and read files, and see whether they are kept.",
    ),
    "burn-in-disk": (
        "hostler.cli.storage_replace_disk:burn_in",
        "Write all of a new disk, and read it back.",
    ),
    "copy": ("hostler.cli.storage_copy:copy", "Copy files, and prove that the copy is equal."),
    "declare": ("hostler.cli.storage_drift:declare", "Print what hosts have now as TOML."),
    "drift": ("hostler.cli.storage_drift:drift", "Compare hosts with what a file declares."),
    "export": (
        "hostler.cli.storage_export:export",
        "Devices that other hosts may have.",
    ),
    "filesystem": (
        "hostler.cli.storage_filesystem:filesystem",
        "Make, wipe, label, grow and check filesystems.",
    ),
    "health": ("hostler.cli.storage_graph:health", "Whether all is well, and what is not."),
    "locate": (
        "hostler.cli.storage_replace_disk:locate",
        "Have its enclosure blink at a disk.",
    ),
    "luks": ("hostler.cli.storage_luks:luks", "LUKS: opened, closed, its header kept."),
    "lvm": ("hostler.cli.storage_lvm:lvm", "LVM: groups, volumes, mirrors, thin ones, snapshots."),
    "mount": ("hostler.cli.storage_mount:mount", "Mount by units of systemd, and unmount."),
    "replace-disk": (
        "hostler.cli.storage_replace_disk:replace_disk",
        "Have a disk take the place of another one, to the end.",
    ),
    "replicated-volume": (
        "hostler.cli.storage_replicated:replicated_volume",
        "Volumes with a copy on each of several hosts.",
    ),
    "saved": ("hostler.cli.storage_filesystem:saved", "What was saved before an overwrite."),
    "show": ("hostler.cli.storage_graph:show", "What lies on what, from disks to mounts."),
    "space": ("hostler.cli.storage_graph:space", "How much room there is, honestly."),
    "survival": (
        "hostler.cli.storage_survival:survival",
        "The loss of which disk, controller or host each volume survives.",
    ),
    "swap": ("hostler.cli.storage_mount:swap", "Which areas are swapped to."),
    "table": (
        "hostler.cli.storage_table:table",
        "Partition tables: show, back up, restore, copy, change.",
    ),
    "verify": ("hostler.cli.storage_copy:verify", "Compare a copy with its manifest."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def storage() -> None:
    """Disks and what is on them."""
