"""Disks that were pulled are replaced, to the end; whatever power cuts come in between.

Not proven yet: the first replacement is carried out in a guest, with its table, mirror, btrfs and
swap area; the watched progress and what comes after it have not passed. HOSTLER_SOAK=1 runs it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hosts_witness import eventually
from vm_guest import Command, Guest
from vm_image import SIZE
from vm_suite import Suite

from hostler.api.common.v1 import job_pb2
from hostler.jobs import WATCH_JOB

pytestmark = [
    pytest.mark.vm,
    pytest.mark.soak,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.environ.get("HOSTLER_SOAK") != "1", reason="not proven yet"),
]

MIB = 1 << 20
RAID, SWAP = "A19D880F-05FC-4D3B-A006-743F0F84911E", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
TABLE = f"label: gpt\nsize=48M, type={RAID}\nsize=16M, type={SWAP}\nsize=160M, type={LINUX}\n"
ROOT_UUID = "4b1d6f4e-5a0c-4f0e-9d7a-2f6b1c0d9e8f"
# Slow enough for a rebuild to be seen, and over in seconds.
MOST = "12M"


def storage(guests: Suite, *words: str, check: bool = True) -> Any:
    """What `hostler storage` answers of vm1, or its error."""
    argv = ("-H", "vm1", "--yes", "-o", "json", "storage", *words)
    answer = json.loads(guests.cli(*argv, check=check, timeout_s=600).stdout)[0]
    return answer["result"] if answer["ok"] else answer["error"]


def serial(name: str) -> str:
    return f"serial-{name}"


def reasons(guests: Suite) -> set[str]:
    return {one["code"] for one in storage(guests, "health", check=False)["reasons"]}


def replaced(guests: Suite, old: str, new: str) -> str:
    """Replace a disk as people do, and answer what they are told at the end."""
    argv = ("-H", "vm1", "--yes", "storage", "replace-disk", serial(old), serial(new))
    done = guests.cli(*argv, timeout_s=600)
    shown = [(int(a), int(b)) for a, b in re.findall(r"running (\d+)/(\d+) bytes", done.stderr)]
    assert any(0 < some < all_ for some, all_ in shown), done.stderr
    assert shown[-1][0] >= 0.8 * shown[-1][1] and "succeeded" in done.stderr, done.stderr
    return done.stdout


def digests(guest: Guest, *places: str) -> list[str]:
    """Of the first 40 MiB of what arrays and files hold, read from their disks."""
    script = (
        f"echo 3 > /proc/sys/vm/drop_caches; for one; do head -c {40 * MIB} $one | sha256sum; done"
    )
    said = guest.run(["sh", "-c", script, "sh", *places], timeout_s=180).stdout
    return said.split()[::2]


def whole(guest: Guest, label: str) -> bool:
    """Whether mdadm(8) says that an array lacks nothing."""
    said = guest.run(["mdadm", "--detail", f"/dev/md/{label}"]).stdout
    found = dict(re.findall(r"^\s*([A-Z][A-Za-z -]+?) : (.+?)\s*$", said, re.MULTILINE))
    return "degraded" not in found["State"] and found["Failed Devices"] == "0"


def table(guest: Guest, name: str) -> dict[str, Any]:
    said = guest.run(["sfdisk", "--json", guest.disk(name)]).stdout
    return dict(json.loads(said)["partitiontable"])


def places(of: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(one["start"], one["size"], one["type"]) for one in of["partitions"]]


def with_parts(guest: Guest, *names: str) -> None:
    """Disks with a table: a half of a mirror, a swap area, a half of a btrfs."""
    for name in names:
        guest.run(["sfdisk", "--quiet", guest.add_disk(name, 256 * MIB)], stdin=TABLE)
    guest.run(["udevadm", "settle"])


def halves(guest: Guest) -> None:
    """A mirror and a btrfs on both disks, mounted with data; a swap area on the first."""
    one, two = guest.disk("one"), guest.disk("two")
    script = f"""set -e
        modprobe -a raid1 raid10 raid0 raid456 btrfs
        mdadm --quiet --create /dev/md/root --run --level=1 --raid-devices=2 --metadata=1.2 \\
            --homehost=vm1 --name=root --bitmap=internal --assume-clean {one}1 {two}1
        mkfs.ext4 -q /dev/md/root; mkswap -q {one}2
        mkfs.btrfs -q -L pool -d raid1 -m raid1 {one}3 {two}3
        udevadm settle
        mkdir -p /srv/root /srv/pool
        uuid=$(blkid -p -s UUID -o value /dev/md/root)
        echo "UUID=$uuid /srv/root ext4 nofail 0 2" >> /etc/fstab
        echo "LABEL=pool /srv/pool btrfs nofail,degraded 0 0" >> /etc/fstab
        mount /srv/root; mount /srv/pool
        for at in /srv/root /srv/pool; do
            dd if=/dev/urandom of=$at/data bs=1M count=24 conv=fsync status=none; done
        """
    guest.run(["sh", "-c", script], timeout_s=240)


FILES = ("/srv/root/data", "/srv/pool/data")


RAW = ("/dev/md/offset", "/dev/md/nested")


def whole_disks(guests: Suite, guest: Guest) -> None:
    """Three copies on three disks, and a stripe of two mirrors, with data."""
    for name in ("o1", "o2", "o3", "a1", "a2", "b1", "b2"):
        guest.add_disk(name, 48 * MIB)
    shape = ("--level", "raid10", "--layout", "o3", "--chunk", "64K", "--assume-clean")
    storage(guests, "array", "create", "offset", *shape, *map(serial, ("o1", "o2", "o3")))
    for leg in "ab":
        disks = [serial(f"{leg}{number}") for number in (1, 2)]
        storage(guests, "array", "create", leg, "--level", "raid1", "--assume-clean", *disks)
    legs = [storage(guests, "array", "get", leg)["array"]["id"] for leg in "ab"]
    storage(guests, "array", "create", "nested", "--level", "raid0", *legs)
    for one in RAW:
        fill = ["dd", "if=/dev/urandom", f"of={one}", "bs=1M", "count=40", "status=none"]
        guest.run([*fill, "oflag=direct"])
    for name in ("root", "offset", "a"):
        storage(guests, "array", "speed", name, "--most", MOST)


def a_disk_with_a_table(guests: Suite, vm1: Guest) -> None:
    """Half of a mirror, half of a btrfs, and all of a swap area: it is pulled, and comes back."""
    was = table(vm1, "two")
    vm1.run(["swapoff", "-a"])
    vm1.pull_disk("one")
    # systemd unmounts what lies on a device that has gone; the other half is mounted again.
    vm1.run(["mount", "/srv/pool"])
    assert {"MD_DEGRADED", "BTRFS_DEGRADED"} <= reasons(guests)
    vm1.add_disk("new", 300 * MIB)
    vm1.throttle_disk("new", MIB)
    assert "serial-one is gone already" in replaced(guests, "one", "new")
    made = table(vm1, "new")
    assert places(made) == places(was) and made["id"] != was["id"]
    assert not {p["uuid"] for p in made["partitions"]} & {p["uuid"] for p in was["partitions"]}
    assert whole(vm1, "root") and f"{vm1.disk('new')}2" in vm1.read("/proc/swaps")
    shown = vm1.run(["btrfs", "filesystem", "show", "/srv/pool"]).stdout
    assert f"{vm1.disk('new')}3" in shown and "missing" not in shown.lower()


def root_on_mirror(guests: Suite, vm1: Guest) -> None:
    """Have the guest boot from a mirror of two disks of its own, and from nothing else."""
    size = SIZE + 64 * MIB
    one, two = (vm1.add_disk(name, size, guests.golden_root) for name in ("r1", "r2"))
    # Both are the same to the byte; md's superblock is behind the filesystem.
    script = f"""set -e
        modprobe raid1
        mdadm --quiet --create /dev/md/boot --run --level=1 --raid-devices=2 --metadata=1.0 \
            --homehost=vm1 --name=boot --bitmap=internal --assume-clean {one} {two}
        e2fsck -fy /dev/md/boot >/dev/null || [ $? -lt 4 ]
        tune2fs -U {ROOT_UUID} /dev/md/boot >/dev/null
        mount /dev/md/boot /mnt
        cd /etc; cp -a hostler hostname hosts machine-id lab.network /mnt/etc/
        echo "UUID={ROOT_UUID} / ext4 rw,noatime 0 0" > /mnt/etc/fstab
        umount /mnt; sync"""
    vm1.run(["sh", "-c", script], timeout_s=300)
    vm1.shutdown()
    vm1.root = f"UUID={ROOT_UUID}"
    guests.boot(vm1)
    assert vm1.run(["findmnt", "-no", "SOURCE", "/"]).stdout.startswith("/dev/md")


def test_disks_that_were_pulled_are_replaced_and_the_host_boots_from_the_others(
    guests: Suite, tmp_path: Path
) -> None:
    (vm1,) = guests.take("vm1")
    root_on_mirror(guests, vm1)
    with_parts(vm1, "one", "two")
    halves(vm1)
    vm1.wake("storage")
    storage(guests, "swap", "apply", f"{serial('one')}-part2")
    whole_disks(guests, vm1)
    before = digests(vm1, *FILES, *RAW)
    file = tmp_path / "storage.toml"
    text = guests.cli("-H", "vm1", "storage", "declare").stdout
    a_disk_with_a_table(guests, vm1)

    # A leg of three.
    vm1.pull_disk("o2")
    assert {"MD_DEGRADED", "MD_UNPLUGGED"} & reasons(guests)
    vm1.add_disk("o4", 64 * MIB)
    replaced(guests, "o2", "o4")
    assert whole(vm1, "offset")
    # A leg of a mirror below a stripe, which is there still: it is copied, and then to be pulled.
    vm1.add_disk("a3", 64 * MIB)
    said = replaced(guests, "a2", "a3")
    assert "pull (" in said and "serial number a2" in said and whole(vm1, "a")
    vm1.pull_disk("a2")
    # Half of the disk that the host runs from.
    vm1.pull_disk("r1")
    assert "MD_DEGRADED" in reasons(guests)
    vm1.add_disk("r3", SIZE + 128 * MIB)
    replaced(guests, "r1", "r3")
    assert whole(vm1, "boot")
    assert digests(vm1, *FILES, *RAW) == before
    again = storage(guests, "replace-disk", serial("a2"), serial("a3"))
    assert not again["change"]["changed"]

    vm1.power_cut()
    guests.boot(vm1)
    mounted(vm1)
    vm1.wake("storage")
    members = vm1.run(["mdadm", "--detail", "/dev/md/boot"]).stdout
    assert vm1.disk("r2") in members and vm1.disk("r3") in members
    assert digests(vm1, *FILES, *RAW) == before
    assert not {"MD_DEGRADED", "BTRFS_DEGRADED"} & reasons(guests)
    # What is declared names disks: with the new ones written down, nothing differs.
    for old, new in (("one", "new"), ("o2", "o4"), ("a2", "a3"), ("r1", "r3")):
        text = text.replace(f'"{serial(old)}"', f'"{serial(new)}"')
    file.write_text(text)
    drift = guests.cli("-H", "vm1", "-o", "json", "storage", "drift", str(file), check=False)
    assert json.loads(drift.stdout)[0]["result"]["drifts"] == [], drift.stdout


def mounted(vm1: Guest) -> None:
    """Wait until a boot has mounted both."""

    def both() -> bool:
        argv = ("mountpoint", "-q")
        return all(
            vm1.run([*argv, one], check=False).returncode == 0 for one in ("/srv/root", "/srv/pool")
        )

    eventually(both, 120)


def jobs(guests: Suite) -> list[dict[str, Any]]:
    answer = json.loads(guests.cli("-H", "vm1", "-o", "json", "jobs", "list").stdout)
    return [job for one in answer if one["ok"] for job in one["result"]["jobs"]]


def begun(guests: Suite, *words: str) -> str:
    """Start a job, and wait until it is in the middle; answer its name."""
    argv = ("-H", "vm1", "--yes", "--background", "-o", "json", "storage", *words)
    name = json.loads(guests.cli(*argv).stdout)[0]["result"]["change"]["job"]
    request = job_pb2.WatchJobRequest(name=name)
    with guests.client() as client, client.session(client.select("vm1")[0]) as session:
        for answer in session.stream(WATCH_JOB.at("storage"), request):
            seen = answer.job.progress
            assert answer.job.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING), answer
            if seen.unit == "bytes" and 0 < seen.done < seen.total:
                break
    return str(name)


def copying(vm1: Guest) -> Command:
    """A verified copy, in the middle: its target is not there before all of it is."""
    words = ["hostler", "storage", "copy", "/srv/root/data", "/srv/kept/data"]
    return vm1.start(words, timeout_s=600)


def test_a_power_cut_in_the_middle_loses_nothing_and_is_taken_up_again(guests: Suite) -> None:
    (vm1,) = guests.take("vm1")
    with_parts(vm1, "one", "two")
    halves(vm1)
    grown = [vm1.add_disk(name, 32 * MIB) for name in ("g1", "g2", "g3")]
    kept = vm1.add_disk("kept", 64 * MIB)
    script = f"""set -e
        mdadm --quiet --create /dev/md/grown --run --level=5 --raid-devices=3 --metadata=1.2 \\
            --homehost=vm1 --name=grown --chunk=64 --assume-clean {" ".join(grown)}
        mkfs.ext4 -q {kept}; mkdir /srv/kept; mount {kept} /srv/kept
        dd if=/dev/urandom of=/dev/md/grown bs=1M count=40 oflag=direct status=none"""
    vm1.run(["sh", "-c", script], timeout_s=120)
    vm1.wake("storage")
    for name in ("new", "g4"):
        vm1.add_disk(name, 300 * MIB)
        vm1.throttle_disk(name, MIB // 2)
    vm1.throttle_disk("kept", MIB)
    before = digests(vm1, *FILES, "/dev/md/grown")
    storage(guests, "array", "grow", "grown", "--raid-disks", "4", serial("g4"))
    # The old disk is there, and there is no other copy: it stays in use until all is copied.
    job = begun(guests, "replace-disk", serial("one"), serial("new"))
    copy = copying(vm1)
    eventually(lambda: "data" in vm1.run(["ls", "-A", "/srv/kept"]).stdout, 60)
    assert "reshape" in vm1.read("/proc/mdstat") and "recovery" in vm1.read("/proc/mdstat")

    vm1.power_cut()
    with pytest.raises(Exception, match=r"vm1"):
        copy.wait()
    guests.boot(vm1)
    vm1.wake("storage")
    for name in ("new", "g4"):
        vm1.throttle_disk(name, 0)
    (found,) = [one for one in jobs(guests) if one["name"] == job]
    assert found["state"] == "JOB_STATE_INTERRUPTED", found
    eventually(
        lambda: all(
            vm1.run(["mountpoint", "-q", one], check=False).returncode == 0
            for one in ("/srv/root", "/srv/pool")
        ),
        120,
    )
    vm1.run(["mount", vm1.disk("kept"), "/srv/kept"])
    # Of the copy nothing is there under its name, and it can be made.
    assert "data" not in vm1.run(["ls", "/srv/kept"]).stdout.split()
    vm1.run(["hostler", "storage", "copy", "/srv/root/data", "/srv/kept/data"], timeout_s=120)
    done = storage(guests, "replace-disk", serial("one"), serial("new"))
    assert "PULL" in {one["code"] for one in done["change"]["warnings"]}
    assert whole(vm1, "root") and "/new" not in vm1.read("/proc/mdstat")
    shown = vm1.run(["btrfs", "filesystem", "show", "/srv/pool"]).stdout
    assert f"{vm1.disk('new')}3" in shown and f"{vm1.disk('one')}3" not in shown
    eventually(lambda: "reshape" not in vm1.read("/proc/mdstat"), 300)
    assert digests(vm1, *FILES, "/dev/md/grown") == before
    assert digests(vm1, "/srv/kept/data") == before[:1]
