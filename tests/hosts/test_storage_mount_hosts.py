"""Mounts by real units of a real systemd, by the packages, with the worker's capabilities alone.

A container has no udev and shares the machine's loop devices: the test makes the node of one of its
own, and the link that udev would make.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts_client import answers, cli
from hosts_witness import eventually
from storage_devices import Loop, loop, run

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]
UUID = "3f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
WHERE, UNIT = "/srv/data-1", "srv-data\\x2d1.mount"


def sh(host: Host, script: str, *, check: bool = True) -> str:
    return host.run(["sh", "-ec", script], check=check).stdout.strip()


@pytest.fixture
def disk(h1: Host, tmp_path: Path) -> Iterator[Loop]:
    """An ext4 on a loop device of its own, with a node and a link in the host."""
    with loop(tmp_path, "disk", 32) as made:
        run("/usr/sbin/mkfs.ext4", "-q", "-U", UUID, made.device)
        number = Path(f"/sys/class/block/{made.name}/dev").read_text().strip().replace(":", " ")
        link = f"/dev/disk/by-uuid/{UUID}"
        made_there = f"mknod {made.device} b {number}; mkdir -p /dev/disk/by-uuid"
        sh(h1, f"{made_there}; ln -s {made.device} {link}")
        try:
            yield made
        finally:
            sh(h1, f"umount -q {WHERE} || true; rm -f {made.device} {link}", check=False)


def mounted(host: Host) -> dict[str, str]:
    said = host.run(["findmnt", "--json", "--mountpoint", WHERE], check=False).stdout
    return dict(json.loads(said)["filesystems"][0]) if said else {}


def state(host: Host, *properties: str) -> list[str]:
    asked = ",".join(properties)
    said = host.run(["systemctl", "show", f"--property={asked}", "--value", UNIT]).stdout
    return said.split("\n")[: len(properties)]


def test_a_unit_of_systemd_mounts_it_now_and_at_the_next_boot(
    lab: Lab, h1: Host, disk: Loop
) -> None:
    apply = ("-H", "h1", "--yes", "storage", "mount", "apply", WHERE, UUID)
    cli(lab, *apply, "-o", "noatime")
    assert mounted(h1)["source"] == disk.device
    assert {"noatime", "nosuid", "nodev"} <= set(mounted(h1)["options"].split(","))
    assert state(h1, "ActiveState", "UnitFileState") == ["active", "enabled"]
    listed = answers(lab, "-H", "h1", "storage", "mount", "list")["h1"]["result"]["mounts"]
    (one,) = [each for each in listed if each["where"] == WHERE]
    assert one["ours"] and one["mounted"] and not one["differs"]
    # Another option goes into what is mounted.
    cli(lab, *apply, "-o", "ro")
    assert "ro" in mounted(h1)["options"].split(",")
    # What somebody uses stays, and he is named; so does what a service requires.
    sleeper = h1.popen(["sh", "-c", f"cd {WHERE} && exec setpriv --reuid=daemon sleep 100"])
    delete = ("-H", "h1", "--yes", "storage", "mount", "delete", WHERE)
    try:
        busy = eventually_named(lab, delete)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert f"has {WHERE}" in busy
    needs = "[Unit]\nRequiresMountsFor=/srv/data-1\n[Service]\nExecStart=/bin/sleep 1000\n"
    h1.put("/run/systemd/system/needs-data.service", needs)
    sh(h1, "pkill -x -u daemon sleep || true; systemctl daemon-reload; systemctl start needs-data")
    refused = cli(lab, *delete, status=1)
    assert "needs-data.service requires it" in refused.stdout + refused.stderr
    assert state(h1, "ActiveState", "UnitFileState") == ["active", "enabled"]
    sh(h1, "systemctl stop needs-data; rm /run/systemd/system/needs-data.service")
    cli(lab, *delete)
    assert not mounted(h1)
    left = sh(h1, f"ls -d {WHERE} /etc/systemd/system/*data* 2>/dev/null || true")
    assert left == "" and state(h1, "LoadState") == ["not-found"]


def eventually_named(lab: Lab, delete: tuple[str, ...]) -> str:
    """The refusal, once the process stands in the mount."""

    def ask() -> str:
        done = cli(lab, *delete, status=1)
        return done.stdout + done.stderr if "sleep (" in done.stdout + done.stderr else ""

    return eventually(ask)


def test_what_does_not_come_up_is_gone_again(lab: Lab, h1: Host, disk: Loop) -> None:
    apply = ("-H", "h1", "--yes", "storage", "mount", "apply", WHERE, UUID)
    failed = cli(lab, *apply, "-o", "prjquota", status=1)
    assert "MOUNT_FAILED" in failed.stdout + failed.stderr
    assert sh(h1, f"ls -d {WHERE} /etc/systemd/system/*data* 2>/dev/null || true") == ""
    # What an operator has written is his.
    h1.put(f"/etc/systemd/system/{UNIT}", f"[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere={WHERE}\n")
    try:
        foreign = cli(lab, *apply, status=1)
        assert "UNIT_NOT_OURS" in foreign.stdout + foreign.stderr
    finally:
        sh(h1, f"rm /etc/systemd/system/{shlex.quote(UNIT)}; systemctl daemon-reload")


def test_until_the_next_boot(lab: Lab, h1: Host, disk: Loop) -> None:
    cli(lab, "-H", "h1", "--yes", "storage", "mount", "apply", WHERE, UUID, "--until-boot")
    assert state(h1, "ActiveState", "FragmentPath") == ["active", f"/run/systemd/system/{UNIT}"]
    cli(lab, "-H", "h1", "--yes", "storage", "mount", "delete", WHERE)
    assert not mounted(h1)
