"""LVM's tool, as it is run here: fixed words, the devices that were named and no others.

Nothing that it starts stays a child of the worker: what goes on for long is polled by lvmpolld, and
watched by dmeventd if that waits for it. Source: lvm(8), lvm.conf(5), lvmpolld(8).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hostlerd.storage.model import lvm_report
from hostlerd.storage.model.lvm import Group
from hostlerd.storage.worker import tools
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.refused import Refused

_LVM, _DMSETUP = "/usr/sbin/lvm", "/usr/sbin/dmsetup"
_DMEVENTD = Path("/run/dmeventd-server")


def load(*targets: str) -> None:
    """Have the kernel load targets of the device mapper, as it does where one is asked for.

    LVM would run modprobe for them, which loads nothing in the sandbox. What the kernel does not
    have, LVM says. Source: Linux drivers/md/dm-ioctl.c, get_target_version().
    """
    for name in targets:
        with suppress(Refused):
            tools.probe((_DMSETUP, "target-version", name))


def argv(command: str, devices: Sequence[Device], *words: str) -> tuple[str, ...]:
    """The command that looks at these devices alone."""
    # Without the right to raise it, priorities are left as they are.
    config = "activation{process_priority=0"
    if not _DMEVENTD.exists():
        # It would start one as a child of its own.
        config += " monitoring=0"
    paths = ",".join(device.path for device in devices)
    return (_LVM, command, "--config", config + "}", "--devices", paths, *words)


def groups(devices: Sequence[Device]) -> tuple[Group, ...]:
    """All groups that are on these devices. Raises Refused."""
    return lvm_report.read(report(devices))


def report(devices: Sequence[Device]) -> list[dict[str, list[dict[str, str]]]]:
    """What LVM reports of all groups that are on these devices. Raises Refused."""
    if not devices:
        return []
    said = tools.probe(argv("fullreport", devices, *lvm_report.WORDS))
    try:
        found: list[dict[str, list[dict[str, str]]]] = json.loads(said)["report"]
    except (ValueError, KeyError):
        raise Refused("TOOL_FAILED", "lvm does not report in JSON", tool="lvm") from None
    return found
