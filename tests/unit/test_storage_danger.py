"""What health says of arrays, boot and mounts that are not what they seem."""

from __future__ import annotations

import json
import struct
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from hostlerd.storage.kernel import arrays, boot, signatures, sysfs
from hostlerd.storage.model.observed import (
    Boot,
    ConfiguredArray,
    Device,
    FstabLine,
    IscsiFacts,
    MdFacts,
    MdMember,
    Mount,
    Observed,
    PartitionFacts,
    Signature,
)
from hostlerd.storage.model.reason import Level, Reason
from hostlerd.storage.plan.health import health

ARRAY = "0f1e0000-0000-0000-0000-000000000001"
RAID = Signature("linux_raid_member", "raid", ARRAY, "h1:0")
DOS = Signature("dos", "partition-table", "1234abcd")
EXT4 = Signature("ext4", "filesystem", "11-22")


def disk(name: str, number: str, **more: object) -> Device:
    return Device(name, number, 1 << 30, 512, 4096, serial=name, **more)  # type: ignore[arg-type]


def part(name: str, number: str, *signatures: Signature) -> Device:
    facts = PartitionFacts(name[:-1], int(name[-1]), 2048, f"{name}-uuid")
    return disk(name, number, partition=facts, signatures=signatures)


def mirror(*legs: str) -> Device:
    members = tuple(MdMember(leg, "in_sync", slot, 0) for slot, leg in enumerate(legs))
    facts = MdFacts("raid1", "clean", 2, 2 - len(legs), "idle", 0, 0, 0, ARRAY, members)
    return disk("md0", "9:0", md=facts, lower=legs, signatures=(EXT4,))


SDA, SDB = disk("sda", "8:0", signatures=(DOS,)), disk("sdb", "8:16")
SDA1, SDB1 = part("sda1", "8:1", RAID), part("sdb1", "8:17", RAID)
GOOD = Observed(
    devices=(SDA, SDA1, SDB, SDB1, mirror("sda1", "sdb1")),
    mounts=(Mount("/", "9:0", "/", "ext4", "/dev/md0", False),),
    fstab=(FstabLine(1, "UUID=11-22", "/", "ext4", ("defaults",)),),
    hostname="h1.example.net",
    boot=Boot("6.1.0-28", "UUID=11-22", ("6.1.0-28",), "sda1-uuid", ""),
)


def reasons(seen: Observed) -> dict[str, Reason]:
    return {one.code: one for one in health(seen)[1]}


def with_devices(seen: Observed, *devices: Device) -> Observed:
    """The same with some devices changed, or added."""
    changed = {one.name: one for one in (*seen.devices, *devices)}
    return replace(seen, devices=tuple(changed.values()))


def test_a_host_that_came_up_as_it_should() -> None:
    assert health(GOOD) == (Level.GOOD, ())


def test_a_leg_that_the_array_went_on_without() -> None:
    found = reasons(with_devices(GOOD, mirror("sda1")))
    assert set(found) == {"MD_DEGRADED", "STALE_SUPERBLOCK"}
    assert found["STALE_SUPERBLOCK"].message.startswith("sdb1 has a superblock of md0")


def test_a_leg_that_is_mounted_while_the_array_runs_with_the_other() -> None:
    mount = Mount("/mnt", "8:17", "/", "ext4", "/dev/sdb1", False)
    seen = with_devices(replace(GOOD, mounts=(*GOOD.mounts, mount)), mirror("sda1"))
    assert "from sdb1" in reasons(seen)["RAID_HALF_MOUNTED"].message


def test_a_host_that_runs_on_one_disk_of_a_fake_raid_that_did_not_come_up() -> None:
    """The signature is on the disks, the root on a partition of one of them."""
    via = Signature("via_raid_member", "raid")
    seen = Observed(
        devices=(
            replace(SDA, signatures=(via, DOS)),
            part("sda1", "8:1", EXT4),
            replace(SDB, signatures=(via, DOS)),
            part("sdb1", "8:17", EXT4),
        ),
        mounts=(Mount("/", "8:17", "/", "ext4", "/dev/sdb1", False),),
    )
    found = reasons(seen)
    assert {"RAID_NOT_ACTIVE", "RAID_HALF_MOUNTED", "SAME_UUID"} <= set(found)
    assert "/ is mounted from sdb1" in found["RAID_HALF_MOUNTED"].message
    assert "via_raid_member" in found["RAID_HALF_MOUNTED"].message


def test_a_superblock_at_the_end_of_disk_and_partition_is_one() -> None:
    assert reasons(with_devices(GOOD, replace(SDA, signatures=(DOS, RAID)))) == {}


def test_arrays_of_mdadm_conf() -> None:
    here = ConfiguredArray(1, "/dev/md/0", "0f1e0000:00000000:00000000:00000001")
    gone = ConfiguredArray(2, "/dev/md/1", "aa000000:00000000:00000000:00000001")
    assert reasons(replace(GOOD, configured_arrays=(here,))) == {}
    found = reasons(replace(GOOD, configured_arrays=(here, gone)))
    assert set(found) == {"MD_MISSING"}
    assert "/dev/md/1 of mdadm.conf line 2" in found["MD_MISSING"].message
    moved = replace(GOOD, hostname="h2")
    assert set(reasons(moved)) == {"MD_FOREIGN"}
    assert reasons(replace(moved, configured_arrays=(here,))) == {}


def test_a_mount_from_another_device_than_declared() -> None:
    other = with_devices(GOOD, disk("sdc", "8:32", signatures=(replace(EXT4, uuid="33-44"),)))
    seen = replace(other, mounts=(Mount("/", "8:32", "/", "ext4", "/dev/sdc", False),))
    found = reasons(seen)
    assert {"MOUNT_OTHER_DEVICE", "ROOT_OTHER_DEVICE", "BOOT_LOADER_OTHER_DISK"} <= set(found)
    assert "mounted from sdc; fstab line 1 (UUID=11-22) means md0" in (
        found["MOUNT_OTHER_DEVICE"].message
    )
    # By its path, its label and its partition it is found as well.
    for word in ("/dev/sdc", "/dev/disk/by-id/c", "LABEL=c", "PARTUUID=c"):
        line = FstabLine(1, word, "/", "ext4", ("defaults",))
        facts = PartitionFacts("sdx", 1, 0, "c")
        sdc = disk(
            *("sdc", "8:32"),
            links=("/dev/disk/by-id/c",),
            signatures=(replace(EXT4, uuid="33-44", label="c"),),
            partition=facts,
        )
        again = replace(with_devices(seen, sdc), fstab=(line,))
        assert "MOUNT_OTHER_DEVICE" not in reasons(again), word


def test_a_kernel_that_is_not_in_boot() -> None:
    old = replace(GOOD.boot, kernels=("5.10.0-1",))
    assert set(reasons(replace(GOOD, boot=old))) == {"KERNEL_NOT_IN_BOOT"}
    # In a container, root is no device of the host's.
    assert reasons(replace(GOOD, boot=old, mounts=(), fstab=())) == {}


def test_a_boot_loader_of_another_disk() -> None:
    sdc = disk("sdc", "8:32", signatures=(replace(DOS, uuid="0000beef"),))
    bios = replace(GOOD.boot, loader_partition_uuid="", loader_disk_signature="0000BEEF")
    seen = with_devices(replace(GOOD, boot=bios), sdc)
    assert "came from sdc" in reasons(seen)["BOOT_LOADER_OTHER_DISK"].message
    # Two disks with the same signature: which one it was cannot be told.
    twin = disk("sdd", "8:48", signatures=sdc.signatures)
    assert reasons(with_devices(seen, twin)) == {}
    own = replace(bios, loader_disk_signature="1234abcd")
    assert reasons(with_devices(replace(GOOD, boot=own), sdc)) == {}


def test_signatures_of_what_was_there_before() -> None:
    zfs = Signature("zfs_member", "filesystem", "9")
    sdc = disk("sdc", "8:32", signatures=(EXT4, zfs))
    found = reasons(with_devices(Observed((SDB,)), sdc))
    assert found["STALE_SUPERBLOCK"].message.startswith("sdc has signatures of ext4, zfs_member")
    whole = replace(SDA, signatures=(DOS, zfs))
    found = reasons(Observed((whole, part("sda1", "8:1", EXT4))))
    assert "sda has partitions, and a signature of zfs_member" in found["STALE_SUPERBLOCK"].message
    stick = replace(SDA, signatures=(DOS, replace(zfs, type="iso9660")))
    assert reasons(Observed((stick, part("sda1", "8:1", EXT4)))) == {}


def test_legs_that_fail_together() -> None:
    one_disk = mirror("sda1", "sda2")
    seen = with_devices(GOOD, part("sda2", "8:2", RAID), replace(SDB1, signatures=()), one_disk)
    found = reasons(seen)
    assert found["ONE_DISK"].message == "md0 has spare legs, and is lost all the same with sda"
    together = with_devices(
        GOOD, replace(SDA, controller="0:1"), replace(SDB, controller="0:1"), SDA1, SDB1
    )
    # There is no other controller that a leg could be at.
    assert reasons(together) == {}
    more = with_devices(together, disk("sdc", "8:32", controller="0:2"))
    assert "controller pci-0:1" in reasons(more)["ONE_CONTROLLER"].message
    legs = [disk(name, name, iscsi=IscsiFacts("iqn.x", "h2:3260", "")) for name in ("sda", "sdb")]
    assert "the host h2:3260" in reasons(with_devices(GOOD, *legs))["ONE_HOST"].message


def test_mdadm_conf() -> None:
    said = (
        "HOMEHOST <system>\n# ARRAY /dev/md/9 UUID=no\nARRAY /dev/md/0 metadata=1.2\n"
        "   UUID=AB:CD name=h1:0 # it goes on\narray UUID=ef:01\nARRAY <ignore> name=x\n"
    )
    assert arrays.parse(said) == (
        ConfiguredArray(3, "/dev/md/0", "ab:cd"),
        ConfiguredArray(5, "", "ef:01"),
    )


def test_root_on_the_command_line() -> None:
    assert boot.root_word("BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro root=UUID=1 quiet") == "UUID=1"
    assert boot.root_word("quiet") == ""


def option(signature: bytes, kind: int, before: bytes = b"") -> bytes:
    """A boot option as efivarfs shows it: attributes, then EFI_LOAD_OPTION. UEFI 2.10, 3.1.3."""
    path = before + struct.pack("<BBHIQQ16sBB", 4, 1, 42, 1, 2048, 9, signature, 2, kind)
    path += struct.pack("<BBH", 0x7F, 0xFF, 4)
    return struct.pack("<IIH", 7, 1, len(path)) + "debian\0".encode("utf-16-le") + path


def test_the_partition_that_efi_boots() -> None:
    of_gpt = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
    assert boot.partition_of(option(of_gpt.bytes_le, 2)) == str(of_gpt)
    pci = struct.pack("<BBHBB", 1, 1, 6, 0, 0)
    assert boot.partition_of(option(of_gpt.bytes_le, 2, pci)) == str(of_gpt)
    of_mbr = bytes.fromhex("cdab3412") + bytes(12)
    assert boot.partition_of(option(of_mbr, 1)) == "1234abcd-01"
    whole = option(of_gpt.bytes_le, 2, pci)
    for cut in range(len(whole) - 4):
        assert boot.partition_of(whole[:cut]) in ("", str(of_gpt))
    assert boot.partition_of(option(of_gpt.bytes_le, 9)) == ""


def test_all_signatures_by_wipefs() -> None:
    rows = [
        {"type": "ext4", "uuid": "1", "label": None},
        {"type": "zfs_member", "uuid": "2", "label": "tank"},
        {"type": "zfs_member", "uuid": "2", "label": "tank"},
        {"type": "linux_raid_member", "uuid": "3", "label": None},
        *({"type": kind, "uuid": None, "label": None} for kind in ("gpt", "swap", "crypto_LUKS")),
    ]
    found = signatures.parse_wipefs(json.dumps({"signatures": rows}))
    assert [(one.type, one.usage) for one in found] == [
        ("ext4", "filesystem"),
        ("zfs_member", "filesystem"),
        ("linux_raid_member", "raid"),
        ("gpt", "partition-table"),
        ("swap", "other"),
        ("crypto_LUKS", "crypto"),
    ]


@pytest.mark.parametrize(
    ("address", "portal"), [("10.0.0.2", "10.0.0.2:3260"), ("fd00::2", "[fd00::2]:3260")]
)
def test_the_session_of_an_iscsi_disk(tmp_path: Path, address: str, portal: str) -> None:
    """The files are those of drivers/scsi/scsi_transport_iscsi.c."""
    session, connection = (
        tmp_path / "iscsi_session/session3",
        tmp_path / "iscsi_connection/connection3:0",
    )
    for folder, files in (
        (session, {"targetname": "iqn.2026-01.net.example:a", "state": "LOGGED_IN"}),
        (connection, {"persistent_address": address, "persistent_port": "3260"}),
    ):
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
    path = "/sys/devices/platform/host4/session3/target4:0:0/4:0:0:1/block/sdb"
    found = sysfs.iscsi(path, tmp_path)
    assert found is not None
    assert (found.target, found.portal) == ("iqn.2026-01.net.example:a", portal)
    assert found.state == "LOGGED_IN"
    assert sysfs.iscsi("/sys/devices/pci0000:00/0000:00:02.0/block/vda", tmp_path) is None


# What sysfs had in a guest with Debian's kernel 6.1, of `mdadm --create /dev/md0 --level=1
# --raid-devices=2 --metadata=1.0 /dev/vdb /dev/vdc`, as far as it is read.
RECORDED = """level=raid1
array_state=clean
raid_disks=2
degraded=0
sync_action=idle
sync_completed=none
mismatch_cnt=0
layout=0
uuid=04e938ed-1038-66d9-da6f-c6f3fb329b40
dev-vdb/state=in_sync
dev-vdb/slot=0
dev-vdb/errors=0
dev-vdc/state=in_sync
dev-vdc/slot=1
dev-vdc/errors=0
"""


def test_an_array_as_sysfs_had_it_in_a_guest(tmp_path: Path) -> None:
    for line in RECORDED.splitlines():
        name, _, text = line.partition("=")
        path = tmp_path / "md" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    uuid_of = "04e938ed-1038-66d9-da6f-c6f3fb329b40"
    legs = (MdMember("vdb", "in_sync", 0, 0), MdMember("vdc", "in_sync", 1, 0))
    assert sysfs.md(tmp_path) == MdFacts("raid1", "clean", 2, 0, "idle", 0, 0, 0, uuid_of, legs)
    assert sysfs.md(tmp_path / "md") is None
