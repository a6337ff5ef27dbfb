"""How this host came up: its kernel, its root, and where the firmware took the boot loader from.

Source: UEFI 2.10, 3.3 and 10.3.5.1; BIOS Enhanced Disk Drive Services 3.0, as Linux's edd has it.
"""

from __future__ import annotations

import os
import struct
import uuid
from pathlib import Path

from hostlerd.storage.model.observed import Boot
from hostlerd.storage.worker.sysfs import text

_EFI = Path("/sys/firmware/efi/efivars")
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_BIOS = Path("/sys/firmware/edd/int13_dev80/mbr_signature")
_BOOT = Path("/boot")
_VARIABLE_BYTES_MOST = 64 << 10
_LOAD_OPTION = struct.Struct("<4xIH")
_PATH_HEAD = struct.Struct("<BBH")
_HARD_DRIVE = struct.Struct("<4xIQQ16sBB")
_OF_GPT, _OF_MBR = 2, 1


def boot() -> Boot:
    """What can be read of it; what cannot is left empty."""
    return Boot(
        kernel_release=os.uname().release,
        root=root_word(text(Path("/proc/cmdline"))),
        kernels=_kernels(),
        loader_partition_uuid=_loader_partition(),
        loader_disk_signature=text(_BIOS).removeprefix("0x"),
    )


def root_word(command_line: str) -> str:
    """What `root=` says last, as the kernel takes it."""
    said = [word for word in command_line.split() if word.startswith("root=")]
    return said[-1].removeprefix("root=") if said else ""


def _kernels() -> tuple[str, ...]:
    try:
        names = [entry.name for entry in _BOOT.iterdir()]
    except OSError:
        return ()
    return tuple(
        sorted(name.removeprefix("vmlinuz-") for name in names if name.startswith("vmlinuz-"))
    )


def _loader_partition() -> str:
    current = _variable("BootCurrent")
    if len(current) < 6:
        return ""
    (number,) = struct.unpack_from("<H", current, 4)
    return partition_of(_variable(f"Boot{number:04X}"))


def _variable(name: str) -> bytes:
    try:
        with (_EFI / f"{name}-{_GLOBAL}").open("rb") as file:
            return file.read(_VARIABLE_BYTES_MOST)
    except OSError:
        return b""


def partition_of(option: bytes) -> str:
    """The PARTUUID in a boot option as efivarfs shows it; empty if it names no partition."""
    if len(option) < _LOAD_OPTION.size:
        return ""
    _, length = _LOAD_OPTION.unpack_from(option)
    at = _LOAD_OPTION.size
    # The description is UTF-16 and ends with a zero.
    while option[at : at + 2] not in (b"\0\0", b"\0", b""):
        at += 2
    at += 2
    end = min(at + length, len(option))
    while at + _PATH_HEAD.size <= end:
        kind, subtype, size = _PATH_HEAD.unpack_from(option, at)
        if (kind, subtype) == (4, 1) and at + _HARD_DRIVE.size <= end:
            return _partition_uuid(*_HARD_DRIVE.unpack_from(option, at))
        if kind == 0x7F or size < _PATH_HEAD.size:
            return ""
        at += size
    return ""


def _partition_uuid(
    number: int, _start: int, _size: int, signature: bytes, _format: int, kind: int
) -> str:
    if kind == _OF_GPT:
        return str(uuid.UUID(bytes_le=signature))
    if kind == _OF_MBR:
        return f"{int.from_bytes(signature[:4], 'little'):08x}-{number:02x}"
    return ""
