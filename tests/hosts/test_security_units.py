"""What the daemons of a real host may do: systemd's figures, and the kernel's own word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import sandbox_lab
import security_lab as support

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

# systemd-analyze's overall exposure, at most: what the design promises for the daemons.
EXPOSURE = {
    "hostler-firewall.service": 2.5,
    "hostler-netns.service": 4.0,
    "hostler-tracing.service": 4.0,
    "hostler-ssl.service": 2.5,
    "hostler-ssl-reader.service": 2.5,
    "hostler-storage.service": 4.0,
    "hostler-restore@firewall.service": 2.5,
    "hostler-restore@netns.service": 4.0,
    "hostler-revert@firewall.service": 2.5,
    "hostler-revert@netns.service": 4.0,
    "hostler-revert@tracing.service": 2.5,
    "hostler-revert@ssl.service": 2.5,
    "hostler-revert@storage.service": 2.5,
    "hostler-ssl-signer.service": 1.5,
    "hostler-ssl-publish.service": 1.5,
    "hostler-ssl-responder.service": 1.5,
    "hostler-job@firewall.service": 2.5,
    "hostler-job@netns.service": 4.0,
    "hostler-job@storage.service": 4.0,
    "hostler-pending.service": 2.5,
    "hostler-ship@firewall.service": 2.5,
    "hostler-ship@netns.service": 2.5,
    "hostler-ship@tracing.service": 2.5,
    "hostler-ship@ssl.service": 2.5,
    "hostler-ship@storage.service": 2.5,
    # The design promises nothing for it: the Protect…= options that most of the figure counts would
    # give it a mount namespace of its own, and its mounts would be unusable for the host.
    "hostler-launcher.service": 4.3,
    # It runs the servers' own checks as root and writes where hostler.toml says; see its unit.
    "hostler-ssl-installer.service": 3.2,
    "hostler-ssl-challenge.service": 1.5,
    # As with the launcher: a mount namespace of its own would hide the host's mounts from it.
    "hostler-storage-worker.service": 4.0,
    # It reads any file, and talks to repositories anywhere.
    "hostler-storage-backup.service": 2.5,
    # It gives files back as they were, as root, wherever the caller says.
    "hostler-storage-restore.service": 4.0,
    # It gives copies all that their sources have, as root, and talks to no network.
    "hostler-storage-copier.service": 3.6,
    "hostler-storage-backup@x.service": 1.5,
    # configfs is root's, and read-only to who protects the kernel's settings.
    "hostler-storage-exports@x.service": 2.5,
}
# Source: capabilities(7).
CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, KILL, NET_ADMIN = 0, 1, 2, 5, 12
FOWNER, FSETID, SETGID, SETUID, NET_BIND_SERVICE, SETFCAP = 3, 4, 6, 7, 10, 31
SYS_PTRACE, SYS_ADMIN, SYS_RESOURCE, MKNOD, PERFMON, BPF = 19, 21, 24, 27, 38, 39
CAPABILITIES = {
    "netns": {NET_ADMIN, SYS_ADMIN},
    "firewall": {NET_ADMIN},
    "tracing": {DAC_READ_SEARCH, SYS_PTRACE, PERFMON, BPF},
    "ssl": set(),
    "storage": {DAC_READ_SEARCH},
    "storage-worker": {DAC_OVERRIDE, FOWNER, SYS_ADMIN, SYS_PTRACE, SYS_RESOURCE, MKNOD},
    "storage-backup": {DAC_READ_SEARCH},
    "storage-restore": {CHOWN, FOWNER, FSETID, DAC_OVERRIDE, SETFCAP, MKNOD},
    "storage-copier": {CHOWN, FOWNER, FSETID, DAC_OVERRIDE, SETFCAP, MKNOD},
    "ssl-reader": {DAC_READ_SEARCH, SYS_PTRACE},
    "ssl-signer": set(),
    "ssl-installer": {CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, NET_BIND_SERVICE},
    "launcher": {CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, KILL, SYS_PTRACE, SYS_ADMIN},
}
OF_ROOT = {"launcher", "ssl-installer", "storage-worker", "storage-restore", "storage-copier"}
# What nobody has on a host that is a container.
NOT_IN_A_LAB = {SYS_RESOURCE}
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@pytest.fixture
def awake(lab: Lab, h1: Host) -> Iterator[Host]:
    """A host whose daemons and launcher run; listing a namespace's processes wakes the latter."""
    for command in (["netns", "list"], ["netns", "ps"], ["firewall", "list"], ["trace", "stuck"]):
        support.hostler(lab, "-H", h1.name, *command)
    h1.run(["systemctl", "start", "hostler-launcher.service", "hostler-ssl.service"])
    h1.run(["systemctl", "start", "hostler-ssl-reader.service", "hostler-ssl-signer.service"])
    h1.run(["systemctl", "start", "hostler-ssl-installer.service", "hostler-storage.service"])
    h1.run(["systemctl", "start", "hostler-storage-worker.service"])
    h1.run(["systemctl", "start", "hostler-storage-backup.service"])
    h1.run(["systemctl", "start", "hostler-storage-restore.service"])
    h1.run(["systemctl", "start", "hostler-storage-copier.service"])
    yield h1


def test_the_exposure_of_every_unit_is_within_its_limit(h1: Host) -> None:
    assert sandbox_lab.units_of(h1) == {re.sub("@.*[.]", "@.", unit) for unit in EXPOSURE}
    figures = {unit: sandbox_lab.exposure(h1, unit) for unit in EXPOSURE}
    print(f"\nexposure: {figures}")
    assert {unit: f for unit, f in figures.items() if f > EXPOSURE[unit]} == {}


@pytest.mark.parametrize("daemon", CAPABILITIES)
def test_a_running_daemon_has_its_capabilities_and_no_other(awake: Host, daemon: str) -> None:
    pid, status = status_of(awake, f"hostler-{daemon}.service")
    held = {name: bits(status[name]) for name in SETS}
    wanted = CAPABILITIES[daemon]
    given = wanted - NOT_IN_A_LAB
    assert {held[name] == given for name in ("CapPrm", "CapEff", "CapBnd")} == {True}, held
    assert held["CapAmb"] <= wanted
    assert held["CapInh"] <= wanted
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    user = "root" if daemon in OF_ROOT else f"hostler-{daemon}"
    uid = awake.run(["id", "-u", user]).stdout.strip()
    assert status["Uid"].split() == [uid] * 4
    print(f"\n{daemon}, pid {pid}: {status['CapEff']}, uid {uid}")


def status_of(host: Host, unit: str) -> tuple[str, dict[str, str]]:
    # One that was about to go when it was woken is gone by now.
    host.run(["systemctl", "start", unit])
    pid = host.run(["systemctl", "show", "--property=MainPID", "--value", unit]).stdout.strip()
    assert pid != "0", f"{unit} does not run"
    text = host.run(["cat", f"/proc/{pid}/status"]).stdout
    return pid, dict(re.findall(r"(?m)^(\w+):\s*(.*)$", text))


def bits(mask: str) -> set[int]:
    return {bit for bit in range(64) if int(mask, 16) >> bit & 1}


def test_the_daemons_share_no_group_but_those_of_key_and_pending(
    awake: Host,
) -> None:
    groups = {}
    for domain in support.DOMAINS:
        _, status = status_of(awake, f"hostler-{domain}.service")
        numbers = {status["Gid"].split()[0], *status["Groups"].split()}
        groups[domain] = {
            awake.run(["getent", "group", number]).stdout.split(":")[0] for number in numbers
        }
    shared = {"hostler-tls", "hostler-pending"}
    assert groups["netns"] == {"hostler-netns", "systemd-journal"} | shared
    assert groups["firewall"] == {"hostler-firewall"} | shared
    assert groups["tracing"] == {"hostler-tracing"} | shared
    assert groups["ssl"] == {"hostler-ssl"} | shared
    assert groups["storage"] == {"hostler-storage"} | shared


def test_what_belongs_to_a_daemon_is_its_own(awake: Host) -> None:
    """Mode, owner and group of every path whose openness would undo the separation."""
    expected = {"/etc/hostler/pki/host.key": "640 root hostler-tls"}
    expected["/run/hostler/launcher.sock"] = "600 hostler-netns"
    expected["/run/hostler/ssl-reader.sock"] = "600 hostler-ssl"
    for domain in support.DOMAINS:
        user = f"hostler-{domain}"
        expected[f"/run/{user}"] = f"700 {user} {user}"
        expected[f"/var/lib/hostler/{domain}"] = f"700 {user} {user}"
        expected[f"/var/log/hostler/{domain}"] = f"750 {user} {user}"
        expected[f"/run/hostler/{domain}.sock"] = "660 root hostler"
    shown = awake.run(["stat", "--format=%n %a %U %G", *expected]).stdout
    seen = dict(line.split(" ", 1) for line in shown.splitlines())
    wrong = {path: seen[path] for path in expected if not seen[path].startswith(expected[path])}
    assert wrong == {}, json.dumps(seen)
