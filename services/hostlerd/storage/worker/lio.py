"""The kernel's target (LIO), which is told all by folders, files and links of configfs.

Only what is of our own is touched: devices below `iblock_7442`, and targets of our names.
Source: Linux Documentation/target, drivers/target/target_core_configfs.c,
drivers/target/iscsi/iscsi_target_configfs.c.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hostlerd.storage.model.iscsi import AUTHORITY, Export
from hostlerd.storage.worker import sysfs

BACKEND = "iblock_7442"
"""The number is ours: tools for the target count from 0."""
_GROUP = "tpgt_1"
_NO_SESSION = "No active iSCSI Session"
_STRICT = (
    *(("authentication", "1"), ("generate_node_acls", "0"), ("cache_dynamic_acls", "0")),
    ("demo_mode_write_protect", "1"),
)
"""None but the initiators that are named get in, and they by CHAP."""


class Target:
    """The target of this host, as far as it is ours."""

    def __init__(self, root: Path = sysfs.TARGET) -> None:
        self._devices = root / "core" / BACKEND
        self._targets = root / "iscsi"

    def made(self) -> dict[str, str]:
        """Which exports there are, by name, each with the mark that was made last."""
        names = [one for one in sysfs.names(self._devices) if (self._devices / one).is_dir()]
        return {
            one: sysfs.text(self._devices / one / "alias")
            for one in names
            if (self._devices / one / "control").exists()
        }

    def names(self) -> tuple[str, ...]:
        """The names of our targets."""
        return tuple(one for one in sysfs.names(self._targets) if one.startswith(f"{AUTHORITY}:"))

    def make(self, export: Export, secret: str, mark: str) -> None:
        """Export a device. A failure leaves a part of it. Raises OSError."""
        device = self._device(export)
        group = self._group(export)
        for name, value in _STRICT:
            _write(group / "attrib" / name, value)
        _write(group / "param" / "AuthMethod", "CHAP")
        unit = group / "lun" / "lun_0"
        unit.mkdir()
        (unit / export.name).symlink_to(device)
        for initiator in export.initiators:
            place = group / "acls" / initiator
            place.mkdir()
            _write(place / "auth" / "userid", export.chap_user)
            _write(place / "auth" / "password", secret)
            (place / "lun_0").mkdir()
            (place / "lun_0" / export.name).symlink_to(unit)
        (group / "np" / export.portal).mkdir()
        _write(group / "enable", "1")
        _write(device / "alias", mark)

    def _device(self, export: Export) -> Path:
        self._devices.mkdir(exist_ok=True)
        device = self._devices / export.name
        device.mkdir()
        _write(device / "control", f"udev_path={export.link}")
        _write(device / "wwn" / "vpd_unit_serial", export.unit_serial)
        # From here on it is claimed: nothing else can take it for its own.
        _write(device / "enable", "1")
        return device

    def _group(self, export: Export) -> Path:
        self._targets.mkdir(exist_ok=True)
        group = self._targets / export.target / _GROUP
        group.parent.mkdir()
        group.mkdir()
        return group

    def number(self, name: str) -> str:
        """MAJOR:MINOR of the device that is exported under a name; empty if there is none."""
        seen = sysfs.exported(self._devices.parent.parent)
        return next((at for at, one in seen.items() if one == f"{BACKEND}/{name}"), "")

    def unmake_target(self, target: str) -> None:
        """Take a target away; its sessions end. Raises OSError."""
        group = self._targets / target / _GROUP
        if group.is_dir():
            _write(group / "enable", "0")
            for initiator in sysfs.names(group / "acls"):
                _empty(group / "acls" / initiator)
                (group / "acls" / initiator).rmdir()
            for portal in sysfs.names(group / "np"):
                (group / "np" / portal).rmdir()
            _empty(group / "lun")
            group.rmdir()
        if group.parent.is_dir():
            group.parent.rmdir()

    def unmake_device(self, name: str) -> None:
        """Let go of a device; no target has it any more. Raises OSError."""
        if (self._devices / name).is_dir():
            (self._devices / name).rmdir()
        # Others may be below it still.
        with suppress(OSError):
            self._devices.rmdir()

    def is_up(self, target: str) -> bool:
        """Whether a target is to be had."""
        return sysfs.text(self._targets / target / _GROUP / "enable") == "1"

    def sessions(self, target: str) -> tuple[str, ...]:
        """The initiators that are logged in to a target."""
        place = self._targets / target / _GROUP / "acls"
        said = {one: sysfs.text(place / one / "info") for one in sysfs.names(place)}
        return tuple(one for one, words in said.items() if words and _NO_SESSION not in words)


def _empty(place: Path) -> None:
    """Remove the units below a folder, and the links in them."""
    for unit in (place / one for one in sysfs.names(place) if one.startswith("lun_")):
        for one in sysfs.names(unit):
            if (unit / one).is_symlink():
                (unit / one).unlink()
        unit.rmdir()


def _write(path: Path, value: str) -> None:
    # Never made: what is not there the kernel does not know. And no newline: it would be part of
    # a user's name, or of a secret.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(path)) from None
    finally:
        os.close(fd)
