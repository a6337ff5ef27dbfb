"""What tells one disk from another, as sysfs and udev have it.

The daemon that plans and the worker that checks read it by this one code: else they might differ.
Source: Linux Documentation/ABI/stable/sysfs-block, udevadm(8).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

BLOCK = Path("/sys/class/block")
BTRFS = Path("/sys/fs/btrfs")
TARGET = Path("/sys/kernel/config/target")
"""What the kernel exports. Source: Linux Documentation/target/tcm_mod_builder.rst."""
SECTOR_BYTES = 512
"""What sizes and starts are counted in, whatever the device's own sector."""
_FILE_BYTES_MOST = 64 << 10
_CLAIMED = re.compile(r"Major: ([0-9]+) Minor: ([0-9]+)")


def text(path: Path) -> str:
    """A file of sysfs without its newline; empty if it is not there or does not speak."""
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MOST).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int:
    """A number of sysfs; 0 if there is none."""
    said = text(path)
    return int(said) if said.isascii() and said.removeprefix("-").isdigit() else 0


def names(folder: Path) -> tuple[str, ...]:
    """What lies in a folder; nothing if there is none."""
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir()))
    except OSError:
        return ()


def whole_disk(folder: Path) -> Path:
    """The folder of the disk that a device is, or is a partition of; `folder` is resolved."""
    return folder.parent if (folder / "partition").exists() else folder


def udev(number_of: str) -> Mapping[str, str]:
    """What udev has in its database; empty where there is no udev. Source: udevadm(8)."""
    said: dict[str, str] = {}
    links: list[str] = []
    for line in text(Path(f"/run/udev/data/b{number_of}")).splitlines():
        kind, _, rest = line.partition(":")
        if kind == "E":
            key, _, value = rest.partition("=")
            said[key] = value
        elif kind == "S":
            links.append(f"/dev/{rest}")
    return {**said, "links": "\n".join(sorted(links))}


def serial(whole: Path, known: Mapping[str, str]) -> str:
    """The serial number of a disk; `known` is what udev says of the device."""
    for place in ("device/serial", "serial"):
        if said := text(whole / place):
            return said
    return known.get("ID_SERIAL_SHORT", "") or _vital_product_data(whole / "device/vpd_pg80")


def _vital_product_data(path: Path) -> str:
    """The serial number of a SCSI disk. Source: SPC-4, 7.8.18."""
    try:
        page = path.read_bytes()[:260]
    except OSError:
        return ""
    if len(page) < 4 or page[1] != 0x80:
        return ""
    return page[4 : 4 + page[3]].decode("ascii", "replace").strip()


def bay(whole: Path) -> Path | None:
    """The folder of the bay that a disk is in, in the folder of its enclosure; None without one.

    Source: Linux drivers/misc/enclosure.c, enclosure_add_links().
    """
    for link in sorted((whole / "device").glob("enclosure_device:*")):
        folder = link.resolve()
        if folder.is_dir():
            return folder
    return None


def wwn(whole: Path, known: Mapping[str, str]) -> str:
    """The world-wide name of a disk; `known` is what udev says of the device."""
    said = text(whole / "wwid") or text(whole / "device/wwid")
    if said.startswith(("naa.", "eui.", "nvme.")):
        kind, _, rest = said.partition(".")
        return f"0x{rest}" if kind == "naa" else said
    return known.get("ID_WWN_WITH_EXTENSION", "") or known.get("ID_WWN", "")


def exported(root: Path = TARGET) -> Mapping[str, str]:
    """What is exported by the kernel's target, whoever has it do so: number of each device, name.

    Source: Linux target_core_iblock.c, iblock_show_configfs_dev_params().
    """
    found = {}
    for place in sorted(root.glob("core/iblock_*/*/info")):
        if (claim := _CLAIMED.search(text(place))) is not None:
            name = f"{place.parent.parent.name}/{place.parent.name}"
            found[f"{int(claim[1])}:{int(claim[2])}"] = name
    return found
