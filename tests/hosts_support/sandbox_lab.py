"""Runs the probe on a host: in a unit's own sandbox, built by systemd itself, or without any."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostler.lab.host import Host

PLACE = "/var/lib/hostler-probe"
VICTIM = "hostler-probe-victim.service"
TARGET = "hostler-probe-target.service"
_SOURCE = Path(__file__).with_name("sandbox_probe.py")
_PROBE = f"{PLACE}/probe.py"
_STARTS = 3
_OTHER = {
    "netns": "firewall",
    "firewall": "netns",
    "tracing": "netns",
    "ssl": "netns",
    "storage": "netns",
}
# What the unit runs is replaced, and nothing else; conditions are taken off, for they ask for work.
_DROP_IN = """\
[Unit]
ConditionPathExists=
[Service]
Type=oneshot
Restart=no
ExecStart=
ExecStart=/usr/bin/python3 -I {probe} {place} {other}
StandardOutput=append:{place}/answers/{unit}
TimeoutStartSec=120
"""
_TARGET = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/true\n"


@dataclass(frozen=True)
class Found:
    """What the probe says: the process's capability sets by name, and the end of each attempt."""

    capabilities: dict[str, frozenset[int]]
    status: dict[str, str]
    attempts: dict[str, str]

    @classmethod
    def of(cls, text: str) -> Found:
        told: dict[str, Any] = json.loads(text)
        status = told["status"]
        sets = {name: _bits(mask) for name, mask in status.items() if name.startswith("Cap")}
        return cls(sets, status, told["attempts"])


def _bits(mask: str) -> frozenset[int]:
    return frozenset(bit for bit in range(64) if int(mask, 16) >> bit & 1)


@contextmanager
def prepared(host: Host) -> Iterator[None]:
    """Put on the host what the probe lays hands on: a victim, a unit, a mount, a block device."""
    for folder in ("", "/empty", "/mounted", "/proc", "/writable", "/answers"):
        host.run(["mkdir", "-p", PLACE + folder])
    host.run(["chmod", "1777", f"{PLACE}/writable"])
    host.run(["mkdir", "-p", "/root/.hostler-probe"])
    host.put(_PROBE, _SOURCE.read_text())
    host.put(f"{PLACE}/no.ko", b"no module")
    host.run(["sh", "-c", f"test -b {PLACE}/block || mknod -m 666 {PLACE}/block b 7 0"])
    host.put(f"/run/systemd/system/{TARGET}", _TARGET)
    host.run(["systemctl", "daemon-reload"])
    sleep = ["-p", "User=nobody", "/usr/bin/sleep", "infinity"]
    host.run(["systemd-run", "--quiet", "--collect", f"--unit={VICTIM}", *sleep])
    shown = host.run(["systemctl", "show", "--property=MainPID", "--value", VICTIM]).stdout
    host.put(f"{PLACE}/victim", shown.strip())
    try:
        yield
    finally:
        host.run(["systemctl", "stop", VICTIM, TARGET])
        host.run(["umount", "-q", f"{PLACE}/mounted", f"{PLACE}/proc"], check=False)
        host.run(["rm", "-rf", PLACE, "/root/.hostler-probe", f"/run/systemd/system/{TARGET}"])
        host.run(["systemctl", "daemon-reload"])


def without(host: Host, domain: str) -> Found:
    """The probe as root, in no sandbox."""
    _freshen(host)
    argv = ["/usr/bin/python3", "-I", _PROBE, PLACE, _OTHER[domain]]
    found = Found.of(host.run(argv, timeout_s=120).stdout)
    host.run(["systemctl", "stop", TARGET])
    return found


def within(host: Host, unit: str, domain: str) -> Found:
    """The probe in place of a unit's program. The unit must not be running."""
    folder = f"/run/systemd/system/{unit}.d"
    words = {"probe": _PROBE, "place": PLACE, "other": _OTHER[domain], "unit": unit}
    _freshen(host)
    host.run(["mkdir", "-p", folder])
    try:
        host.put(f"{folder}/zz-probe.conf", _DROP_IN.format(**words))
        host.run(["systemctl", "daemon-reload"])
        host.run(["systemctl", "stop", unit])
        host.run(["rm", "-f", f"{PLACE}/answers/{unit}"])
        for _ in range(_STARTS):
            # One that somebody else had started a moment before writes to the file that is gone.
            host.run(["systemctl", "start", unit], timeout_s=150)
            if host.run(["test", "-s", f"{PLACE}/answers/{unit}"], check=False).returncode == 0:
                break
        # A caller that waits at the unit's socket has it started again: the first answer counts.
        return Found.of(host.run(["head", "-n1", f"{PLACE}/answers/{unit}"]).stdout)
    finally:
        host.run(["rm", "-rf", folder])
        host.run(["systemctl", "daemon-reload"])
        host.run(["systemctl", "reset-failed", unit], check=False)


def target_was_started(host: Host) -> bool:
    """systemd's own word on whether anybody has started the unit that the probe asks for."""
    shown = host.run(["systemctl", "show", "--property=ActiveState", "--value", TARGET])
    return shown.stdout.strip() == "active"


def _freshen(host: Host) -> None:
    """Have the daemons run, so that their sockets are there, and the mount be there as well."""
    host.run(["systemctl", "start", *(f"hostler-{domain}.service" for domain in _OTHER)])
    # A /proc of its own: that of a container has its settings mounted read-only for everybody.
    for kind, folder in (("tmpfs", f"{PLACE}/mounted"), ("proc", f"{PLACE}/proc")):
        host.run(["sh", "-c", f"mountpoint -q {folder} || mount -t {kind} none {folder}"])


def units_of(host: Host) -> set[str]:
    """Every service of Hostler that a host has files of; templates as `hostler-x@.service`."""
    shown = host.run(
        ["systemctl", "list-unit-files", "--plain", "--no-legend", "hostler-*.service"]
    )
    names = {line.split()[0] for line in shown.stdout.splitlines()}
    return {name for name in names if not re.match("hostler-(probe|run)-", name)}


def exposure(host: Host, unit: str) -> float:
    """systemd's own figure for how much a unit is exposed, from 0 to 10."""
    shown = host.run(["systemd-analyze", "security", "--no-pager", unit]).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
    assert found, shown
    return float(found[1])
