"""LUKS on a real disk: opened with a key of root's, closed, its header lost and put back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vm_guest import Guest
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

MIB = 1 << 20
SECRET = "correct horse battery staple"  # noqa: S105 # of a disk that goes with the test
KEY, AT = "/etc/secret.key", "/mnt/at"
DISK = "serial-disk"


def storage(guests: Suite, *words: str, check: bool = True) -> Any:
    """What `hostler storage` answers of vm1, or its error."""
    argv = ("-H", "vm1", "--yes", "-o", "json", "storage", *words)
    answer = json.loads(guests.cli(*argv, check=check, timeout_s=300).stdout)[0]
    return answer["result"] if answer["ok"] else answer["error"]


def luks(guests: Suite) -> Any:
    (one,) = storage(guests, "luks", "list")["items"]
    return one


def status(guest: Guest) -> int:
    return guest.run(["cryptsetup", "status", "safe"], check=False).returncode


def opened(guests: Suite, key: str = KEY, check: bool = True) -> Any:
    return storage(guests, "luks", "open", DISK, "safe", "--key-file", key, check=check)


@pytest.fixture
def vm1(guests: Suite) -> Guest:
    """A guest with a disk that is enciphered, and closed."""
    (guest,) = guests.take("vm1")
    disk = guest.add_disk("disk", 64 * MIB)
    guest.wake("storage")
    guest.put(KEY, SECRET, 0o600)
    make = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2"]
    make += ["--pbkdf-force-iterations", "1000", "--key-file", KEY, disk]
    guest.run(make, timeout_s=300)
    guest.run(["udevadm", "settle"], timeout_s=60)
    return guest


def test_opened_with_its_key_alone_and_closed_when_nobody_uses_it(
    guests: Suite, vm1: Guest
) -> None:
    assert not luks(guests).get("open") and status(vm1) != 0
    vm1.put("/etc/wrong.key", "something else", 0o600)
    wrong = opened(guests, "/etc/wrong.key", check=False)
    assert wrong["reason"] == "LUKS_KEY_WRONG" and status(vm1) != 0
    made = opened(guests)
    assert made["luks"]["open"] and status(vm1) == 0
    assert not opened(guests)["change"]["changed"] and luks(guests)["name"] == "safe"
    used = storage(guests, "filesystem", "wipe", DISK, check=False)
    assert used["reason"] == "DEVICE_BUSY"
    storage(guests, "filesystem", "make", made["luks"]["open_id"], "ext4")
    vm1.run(["mkdir", "-p", AT])
    vm1.run(["mount", "/dev/mapper/safe", AT])
    busy = storage(guests, "luks", "close", DISK, check=False)
    assert busy["reason"] == "DEVICE_BUSY" and AT in busy["metadata"]["used_by"]
    vm1.run(["umount", AT])
    assert not storage(guests, "luks", "close", DISK)["luks"].get("open")
    assert status(vm1) != 0
    # The key is in no journal, no log and no state.
    told = vm1.run(["journalctl", "--no-pager", "-q"], timeout_s=120).stdout
    places = ["/var/log/hostler", "/var/lib/hostler", "/var/lib/hostler-storage-worker", "/run"]
    argv = ["grep", "-rlaF", "--devices=skip", SECRET, *places]
    assert SECRET not in told and vm1.run(argv, check=False, timeout_s=120).stdout == ""


def test_what_is_lost_with_its_header_is_back_with_it(guests: Suite, vm1: Guest) -> None:
    inside = opened(guests)["luks"]["open_id"]
    storage(guests, "filesystem", "make", inside, "ext4", "--label", "still-here")
    kept = storage(guests, "luks", "backup-header", DISK)["saved"]
    storage(guests, "luks", "close", DISK)
    # All of the header and its keys: cryptsetup itself would mend the first by the second copy.
    disk = vm1.disk("disk")
    zero = ["dd", "if=/dev/zero", f"of={disk}", "bs=1M", "count=16", "conv=fsync", "status=none"]
    vm1.run(zero, timeout_s=60)
    vm1.run(["udevadm", "settle"], timeout_s=60)
    assert opened(guests, check=False)["reason"] == "LUKS_NOT_FOUND"
    assert storage(guests, "luks", "list").get("items", []) == []
    storage(guests, "saved", "restore", DISK, kept)
    vm1.run(["udevadm", "settle"], timeout_s=60)
    assert opened(guests)["luks"]["open"]
    label = vm1.run(["blkid", "-p", "-s", "LABEL", "-o", "value", "/dev/mapper/safe"]).stdout
    assert label.strip() == "still-here"
    storage(guests, "luks", "close", DISK)
