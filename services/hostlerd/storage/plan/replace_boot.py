"""What a boot loader needs of a disk that is replaced. Nothing of it is done here: it is said."""

from __future__ import annotations

from collections.abc import Iterator

from hostlerd.storage.model.replacement import Boot
from hostlerd.storage.model.table import Table
from hostlerd.storage.plan.replace_case import Case
from hostlerd.storage.plan.table_arrange import WORDS

_BIOS_BOOT = WORDS["gpt"]["bios-boot"]
_EFI = frozenset((WORDS["gpt"]["efi"], WORDS["dos"]["efi"]))


def notes(case: Case, source: Table | None, *, has_boot_code: bool) -> Iterator[Boot]:
    """What the old disk, or the one that is like it, has of a boot loader.

    `source` is the table that is copied, `has_boot_code` whether its disk's first sector has code.
    """
    entries = source.entries if source is not None else ()
    of_bios = [one for one in entries if one.type == _BIOS_BOOT]
    if has_boot_code or of_bios:
        words = "the BIOS finds a boot loader on the disk that it is like: it needs its own"
        yield Boot("BIOS_LOADER", words, f"grub-install {_link(case)}")
    for one in entries:
        if one.type in _EFI:
            number = one.number
            words = (
                f"partition {number} is of EFI: make it (vfat), mount it at /boot/efi, and have "
                "the boot loader written there"
            )
            yield Boot("EFI_PARTITION", words, "grub-install --efi-directory=/boot/efi")
    loader = case.seen.boot.loader_partition_uuid.lower()
    for device in case.seen.devices if loader else ():
        part = device.partition
        is_old = case.old is not None and part is not None and part.of == case.old.name
        if is_old and part is not None and part.uuid.lower() == loader:
            words = (
                f"this host came up from {device.name}, which is on the old disk: before that is "
                "pulled, another disk has to have a boot loader that the firmware knows of"
            )
            yield Boot("BOOTED_FROM_OLD", words, "efibootmgr --verbose")


def _link(case: Case) -> str:
    links = [one for one in case.new.links if one.startswith("/dev/disk/by-id/")]
    return min(links, default=f"/dev/{case.new.name}")
