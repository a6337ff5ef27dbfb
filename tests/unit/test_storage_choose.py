"""Which device is meant: by what stays the same, never by the kernel's name alone."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from hostlerd.runtime.codec import Registry
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.backup.server import Server
from hostlerd.storage.copier import server as copier
from hostlerd.storage.model.backup_steps import BACKUP, RESTORE
from hostlerd.storage.model.copy_steps import COPIER
from hostlerd.storage.model.observed import Device, Mount, Observed, PartitionFacts, Signature
from hostlerd.storage.model.steps import STEPS
from hostlerd.storage.plan.choose import choose
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.in_use import users
from hostlerd.storage.worker.operations import OPERATIONS

EXT4 = Signature("ext4", "filesystem", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "data")
SDA = Device(
    "sda",
    "8:0",
    1 << 30,
    512,
    512,
    disk_sequence=3,
    serial="WD-1",
    wwn="0x5000c500a1b2c3d4",
    signatures=(Signature("gpt", "partition-table", "aa-bb"),),
    links=("/dev/disk/by-id/wwn-0x5000c500a1b2c3d4", "/dev/disk/by-path/pci-1"),
)
SDA1 = replace(
    SDA,
    name="sda1",
    number="8:1",
    partition=PartitionFacts("sda", 1, 2048),
    signatures=(EXT4,),
    links=(f"/dev/disk/by-uuid/{EXT4.uuid}",),
)
VDA = Device("vda", "254:0", 1 << 30, 512, 512, disk_sequence=7)


def chosen(words: str, *devices: Device, mounts: tuple[Mount, ...] = ()) -> str:
    return choose(build(Observed(devices, mounts)), words).name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("wwn-0x5000c500a1b2c3d4", "sda"),
        ("0x5000c500a1b2c3d4", "sda"),
        ("WD-1", "sda"),
        ("/dev/disk/by-id/wwn-0x5000c500a1b2c3d4", "sda"),
        ("aa-bb", "sda"),
        ("wwn-0x5000c500a1b2c3d4-part1", "sda1"),
        (EXT4.uuid, "sda1"),
        (EXT4.uuid.upper(), "sda1"),
        (f"/dev/disk/by-uuid/{EXT4.uuid}", "sda1"),
        (f"filesystem-{EXT4.uuid}", "sda1"),
        ("name-vda#7", "vda"),
    ],
)
def test_a_device_is_called_by_what_stays_the_same(words: str, name: str) -> None:
    assert chosen(words, SDA, SDA1, VDA) == name


@pytest.mark.parametrize("words", ["sda", "/dev/sda", "/dev/sda1", "vda", "name-vda"])
def test_the_kernels_name_alone_is_refused_with_what_to_say(words: str) -> None:
    with pytest.raises(errors.DeviceNameNotLasting) as told:
        chosen(words, SDA, SDA1, VDA)
    assert chosen(told.value.metadata["called"], SDA, SDA1, VDA) in words


@pytest.mark.parametrize(
    "words", ["WD-2", "name-vda#8", "name-sda#3", "/dev/disk/by-path/pci-1", "data", "wwn"]
)
def test_what_nothing_is_called_is_not_found(words: str) -> None:
    with pytest.raises(errors.DeviceNotFound):
        chosen(words, SDA, SDA1, VDA)
    with pytest.raises(InvalidRequest):
        chosen("", SDA)


def test_a_clone_is_told_from_what_it_was_cloned_from() -> None:
    clone = replace(SDA1, name="vda", number="254:0", partition=None, serial="", wwn="", links=())
    with pytest.raises(errors.DeviceAmbiguous) as told:
        chosen(EXT4.uuid, SDA, SDA1, clone)
    names = told.value.metadata["candidates"].split(", ")
    assert {chosen(one, SDA, SDA1, clone) for one in names} == {"sda1", "vda"}
    twin = replace(SDA, name="sdb", number="8:16", disk_sequence=4)
    with pytest.raises(errors.DeviceAmbiguous):
        chosen("WD-1", SDA, twin)
    with pytest.raises(errors.DeviceNameNotLasting):
        chosen("wwn-0x5000c500a1b2c3d4@sdb", SDA, twin)
    assert chosen("wwn-0x5000c500a1b2c3d4@sdb#4", SDA, twin) == "sdb"


def test_a_target_is_all_that_the_worker_compares() -> None:
    found = choose(build(Observed((SDA, SDA1))), EXT4.uuid)
    assert (found.number, found.size_bytes, found.disk_sequence) == ("8:1", 1 << 30, 3)
    assert (found.serial, found.wwn) == ("WD-1", "0x5000c500a1b2c3d4")
    assert found.signatures == (f"ext4 {EXT4.uuid}",)


def test_a_disk_is_in_use_through_its_partition() -> None:
    upper = replace(VDA, name="md0", number="9:0", lower=("sda1",))
    at = Mount("/srv", "8:1", "/", "ext4", "/dev/sda1", False)
    for seen, words in (
        (Observed((SDA, SDA1), (at,)), ("mounted on /srv",)),
        (Observed((SDA, SDA1, upper)), ("md0 is built on it",)),
        (Observed((SDA, SDA1)), ()),
    ):
        graph = build(seen)
        assert users(graph, "wwn-0x5000c500a1b2c3d4") == words
        assert users(graph, "wwn-0x5000c500a1b2c3d4-part1") == words


def test_every_step_is_an_operation_with_its_fields(tmp_path: Path) -> None:
    asked = {"": {name: frozenset(one.fields) for name, one in OPERATIONS.items()}} | {
        door: {**Server(door, tmp_path, tmp_path).operations} for door in (BACKUP, RESTORE)
    }
    asked[COPIER] = {**copier.Server(tmp_path).operations}
    for step in STEPS:
        of_door = asked[getattr(step, "door", "")]
        assert of_door[step.__name__] == {one.name for one in fields(step)}
    Registry(STEPS)


def test_all_but_looking_waits_for_what_a_killed_daemon_had_asked_for() -> None:
    looks = {name for name, one in OPERATIONS.items() if one.only_reads}
    assert looks == {"ListSaved", "ListBackups", "ListSubvolumes", "LookBtrfsWork"}
    # By this the programs of backups know what begins something.
    for step in STEPS:
        assert step.__name__.startswith("Begin") == bool(getattr(step, "door", ""))
