"""Devices of other hosts: exported, attached, lost with their host, back again."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
from hosts_witness import eventually
from vm_guest import Guest
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

MIB = 1 << 20
LEG_BYTES = 64 * MIB
INITIATOR = "iqn.2026-01.example.hostler:vm1"
TARGET = "iqn.2026-01.example.hostler:vm2:leg"
CONFIGFS = "/sys/kernel/config/target"
GROUP = f"{CONFIGFS}/iscsi/{TARGET}/tpgt_1"
STATE = "/var/lib/hostler-storage-worker"
# Of a soak, as much as the figures of the issue.
DATA_MIB = 2048 if os.environ.get("HOSTLER_SOAK") else 256
VOLUME_BYTES = (DATA_MIB + 64) * MIB


def storage(guests: Suite, host: str, *words: str, check: bool = True) -> Any:
    """What `hostler storage` answers of a guest, or its error."""
    argv = ("-H", host, "--yes", "-o", "json", "storage", *words)
    answer = json.loads(guests.cli(*argv, check=check, timeout_s=900).stdout)[0]
    return answer["result"] if answer["ok"] else answer["error"]


def serial(name: str) -> str:
    """What a disk is called by, whatever the kernel calls it."""
    return f"serial-{name}"


def portal(guest: Guest) -> str:
    return f"{guest.ipv4}:3260"


def export(guests: Suite, guest: Guest, *words: str, check: bool = True) -> Any:
    named = ("--portal", portal(guest), "--initiator", INITIATOR)
    return storage(guests, guest.name, "export", "apply", *words, *named, check=check)


def sha256(guest: Guest, path: str, count_mib: int) -> str:
    """Of what a device has at its beginning, read from it and not from memory."""
    argv = ["sh", "-c", f"dd if={path} bs=1M count={count_mib} iflag=direct status=none|sha256sum"]
    return guest.run(argv, timeout_s=120).stdout.split()[0]


def holding(guest: Guest, secret: str) -> list[str]:
    """All files in which a secret is to be found, and the journal."""
    places = "/etc /var/lib /var/log /run /tmp"
    shown = f"grep -rlsF -- {secret} {places}; journalctl -q --no-pager | grep -oF {secret}"
    return guest.run(["sh", "-c", shown], check=False, timeout_s=240).stdout.split()


def attach(guests: Suite, to: Guest, secret: str, check: bool = True) -> Any:
    argv = ["-H", "vm1", "--yes", "-o", "json", "storage", "attachment", "apply", "leg", TARGET]
    argv += ["--portal", portal(to), "--chap-user", "leg", "--ask-secret"]
    answer = json.loads(guests.cli(*argv, check=check, stdin=f"{secret}\n").stdout)[0]
    return answer["result"] if answer["ok"] else answer["error"]


def session(guests: Suite) -> str:
    (one,) = storage(guests, "vm1", "attachment", "list")["attachments"]
    return str(one["session"])


def exported(guests: Suite, guest: Guest) -> Any:
    """A disk of a guest is exported, as the kernel's own files have it; another one is in use."""
    guest.add_disk("busy", LEG_BYTES)
    guest.run(["sh", "-c", f"mkfs.ext4 -qF {guest.disk('busy')}; mount {guest.disk('busy')} /mnt"])
    refused = export(guests, guest, "busy", serial("busy"), check=False)
    assert refused["reason"] == "DEVICE_BUSY" and "mounted on /mnt" in refused["message"]
    assert guest.run(["ls", f"{CONFIGFS}/core"], check=False).returncode != 0
    made = export(guests, guest, "leg", serial("leg"))
    assert made["target"] == TARGET and len(made["chap_secret"]) == 32
    assert guest.read(f"{GROUP}/enable").strip() == "1"
    assert guest.read(f"{GROUP}/attrib/authentication").strip() == "1"
    assert guest.run(["ls", f"{GROUP}/acls"]).stdout.split() == [INITIATOR]
    assert guest.run(["ls", f"{GROUP}/np"]).stdout.split() == [portal(guest)]
    again = export(guests, guest, "leg", serial("leg"))
    assert not again["change"]["changed"] and not again["chap_secret"]
    for words in (("filesystem", "make", serial("leg"), "ext4"), ()):
        if words:
            error = storage(guests, guest.name, *words, check=False)
        else:
            error = export(guests, guest, "twin", serial("leg"), check=False)
        assert error["reason"] == "DEVICE_BUSY", error
        assert "exported as iblock_7442/leg" in error["message"], error
    return made


def test_a_device_is_exported_to_who_is_named_attached_and_comes_back(guests: Suite) -> None:
    vm1, vm2 = guests.take("vm1", "vm2")
    disk = vm2.add_disk("leg", LEG_BYTES)
    for guest in (vm1, vm2):
        guest.wake("storage")
    made = exported(guests, vm2)
    secret = made["chap_secret"]
    wrong = attach(guests, vm2, "f" * 32, check=False)
    assert wrong["reason"] == "ATTACH_FAILED", wrong
    assert not vm1.run(["ls", "/etc/iscsi/nodes"], check=False).stdout.split()
    come = attach(guests, vm2, secret)
    assert come["device"] == f"wwn-{made['wwn']}", come
    (listed,) = storage(guests, "vm1", "attachment", "list")["attachments"]
    assert (listed["session"], listed["size_bytes"]) == ("LOGGED_IN", LEG_BYTES)
    nodes = {one["id"]: one for one in storage(guests, "vm1", "show")["nodes"]}
    assert nodes[come["device"]]["remote_host"] == portal(vm2)
    path = f"/dev/{nodes[come['device']]['name']}"
    vm1.run(["dd", "if=/dev/urandom", f"of={path}", "bs=1M", "count=8", "oflag=direct"])
    written = sha256(vm1, path, 8)
    in_use = storage(guests, "vm2", "export", "delete", "leg", check=False)
    assert in_use["reason"] == "EXPORT_IN_USE" and INITIATOR in in_use["message"]
    # The secret lies in root's files of the two hosts, and nowhere else.
    assert holding(vm2, secret) == [f"{STATE}/exports/leg.json"]
    kept = holding(vm1, secret)
    assert f"{STATE}/attachments/leg.json" in kept and len(kept) == 2, kept
    assert any(one.startswith("/etc/iscsi/nodes/") for one in kept), kept

    # Its host is lost and comes back, and so does the device, with what was on it.
    vm2.power_cut()
    guests.boot(vm2)
    eventually(lambda: vm2.run(["cat", f"{GROUP}/enable"], check=False).stdout.strip() == "1", 120)
    vm2.wake("storage")
    eventually(lambda: session(guests) == "LOGGED_IN", 120)
    assert sha256(vm1, path, 8) == written
    taken_back(guests, vm1, path)
    storage(guests, "vm2", "export", "delete", "leg")
    assert vm2.run(["ls", f"{CONFIGFS}/iscsi/{TARGET}"], check=False).returncode != 0
    assert "ext4" in vm2.run(["blkid", "-p", disk]).stdout


def taken_back(guests: Suite, vm1: Guest, path: str) -> None:
    """What is mounted is not logged out of; what is not, is."""
    vm1.run(["mkfs.ext4", "-qF", path])
    vm1.run(["mount", path, "/mnt"])
    held = storage(guests, "vm1", "attachment", "delete", "leg", check=False)
    assert held["reason"] == "DEVICE_BUSY" and "mounted on /mnt" in held["message"]
    vm1.run(["umount", "/mnt"])
    storage(guests, "vm1", "attachment", "delete", "leg")
    assert "iscsi" not in vm1.run(["lsblk", "-dno", "TRAN"]).stdout


def test_a_volume_outlives_two_of_its_three_hosts_and_is_whole_again(guests: Suite) -> None:
    vm1, vm2, vm3 = trio = guests.take("vm1", "vm2", "vm3")
    for guest in trio:
        guest.add_disk("leg", VOLUME_BYTES)
        guest.wake("storage")
    asked = ["create", "data", "--on", "vm1", "--mount", "/srv/data"]
    asked += [word for guest in trio for word in ("--leg", f"{guest.name}:{serial('leg')}")]
    asked += [word for g in (vm2, vm3) for word in ("--portal", f"{g.name}={portal(g)}")]
    made = volume(guests, *asked)
    assert made["changed"] and vm1.run(["mountpoint", "/srv/data"]).returncode == 0
    assert not volume(guests, *asked)["changed"]
    eventually(lambda: whole(guests), 300)
    (losses,) = (
        one["losses"]
        for one in storage(guests, "vm1", "survival")["volumes"]
        if one["mounts"] == ["/srv/data"]
    )
    hosts = {one["id"] for one in losses if one["unit"] == "LOSS_UNIT_HOST" and one["survived"]}
    assert hosts == {portal(vm2), portal(vm3)}
    vm1.run(
        ["sh", "-c", f"head -c {DATA_MIB}M /dev/urandom > /srv/data/x; sync -f /srv/data/x"],
        timeout_s=600,
    )
    written = of_file(vm1)

    for lost in (vm2, vm3):
        lost.power_cut()
        start = time.monotonic()
        assert of_file(vm1) == written
        print(f"{lost.name} lost: all read after {time.monotonic() - start:.1f} s")
        vm1.run(
            ["sh", "-c", f"echo {lost.name} >> /srv/data/log; sync -f /srv/data"], timeout_s=120
        )
    state = volume(guests, "status", "data", "--on", "vm1")
    assert state["whole"] is False and state["copies_to_spare"] == 0, state
    assert "[3/1]" in vm1.read("/proc/mdstat")

    for back in (vm2, vm3):
        guests.boot(back)
        # Its own host does not take it for an array of its own.
        assert "md" not in "".join(back.read("/proc/mdstat").splitlines()[1:-1])
    eventually(lambda: sessions(vm1) == 2, 120)
    volume(guests, "repair", "data", "--on", "vm1")
    assert whole(guests) and "[3/3]" in vm1.read("/proc/mdstat")
    assert of_file(vm1) == written and vm1.read("/srv/data/log").split() == ["vm2", "vm3"]
    md = vm1.run(["readlink", "-f", "/dev/md/data"]).stdout.strip().removeprefix("/dev/")
    vm1.run(["sh", "-c", f"echo check > /sys/block/{md}/md/sync_action"])
    eventually(lambda: vm1.read(f"/sys/block/{md}/md/sync_action").strip() == "idle", 300)
    assert vm1.read(f"/sys/block/{md}/md/mismatch_cnt").strip() == "0"
    assert not volume(guests, "repair", "data", "--on", "vm1")["changed"]


def volume(guests: Suite, *words: str) -> Any:
    """What `hostler storage replicated-volume` answers."""
    argv = ("--yes", "-o", "json", "storage", "replicated-volume", *words)
    return json.loads(guests.cli(*argv, timeout_s=1200).stdout)[0]["result"]


def whole(guests: Suite) -> bool:
    return bool(volume(guests, "status", "data", "--on", "vm1")["whole"])


def sessions(guest: Guest) -> int:
    """How many sessions are logged in, by iscsiadm(8)."""
    said = guest.run(["iscsiadm", "-m", "session", "-P", "1"], check=False).stdout
    return said.count("iSCSI Session State: LOGGED_IN")


def of_file(guest: Guest) -> str:
    """Of what was written, read from the legs and not from memory."""
    shown = "echo 3 > /proc/sys/vm/drop_caches; sha256sum /srv/data/x"
    return guest.run(["sh", "-c", shown], timeout_s=300).stdout.split()[0]
