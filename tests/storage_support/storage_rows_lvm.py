"""Changes of volume groups and volumes, and how each is disturbed, in a guest: only there is LVM.

What is there then is asked of pvs(8), lvs(8), dmsetup(8) and the volumes' own bytes. What LVM moves
or merges is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from journal_rows import Row, ask
from storage_guest import made, shell
from storage_rows import STORAGE, planned, row

from hostler.api.storage.v1 import filesystem_pb2 as fs
from hostler.api.storage.v1 import lvm_pb2 as pb

_SERVICE = f"{STORAGE}.LvmService"
_MIB = 1 << 20
# LVM's own way of activating what comes would be a second hand in it.
_GROUP = "vgcreate -qq --setautoactivation n vg"
_DATA = f"""
{_GROUP} $a $b
lvcreate -qq -y -Wy -Zy -n data -l 8 vg $a
"""
_WRITTEN = "yes {0} | dd of=/dev/vg/{1} bs=1M count=4 iflag=fullblock oflag=direct status=none\n"
_OLD = _DATA + _WRITTEN.format("old", "data")
_SNAPSHOT = f"{_OLD}lvcreate -qq -s -n snap -l 4 vg/data\n" + _WRITTEN.format("new", "data")
_EXT4 = f"{_DATA}mkfs.ext4 -q -F /dev/vg/data\n"
_MIRROR = f"""
{_GROUP} $a $b $c
lvcreate -qq -y --type raid1 -m 1 --nosync -n data -l 4 vg $a $b
{_WRITTEN.format("old", "data")}"""
_MISSING = f"""
{_GROUP} $a $b $c
lvcreate -qq -y -Wy -Zy -n data -l 8 vg $a
{_WRITTEN.format("old", "data")}wipefs --quiet --all --force $c
"""
_TEMPLATE = f"""
{_GROUP} $a $b
lvcreate -qq -y --type thin-pool --poolmetadatasize 4M -n pool -l 12 vg
lvcreate -qq -y --type thin -V 32M --thinpool pool -n data vg
mkfs.ext4 -q -F /dev/vg/data
mkdir -p /mnt/at; mount /dev/vg/data /mnt/at; mkdir -p /mnt/at/etc/ssh
cp /etc/machine-id /mnt/at/etc/; echo old > /mnt/at/etc/hostname
umount /mnt/at
"""
# Of the copies of a mirror, and of what moves or merges, no more goes on.
_SEEN = """
settled
volumes() { lvs -a --noheadings --separator '|' -o lv_attr,copy_percent,lv_name,lv_size,segtype\
,origin,pool_lv,lv_active,devices vg 2>/dev/null; }
busy() { awk -F'|' '$1 ~ /^ *[OSp]/ || ($2 != "" && $2 + 0 < 100)' | grep -q .; }
n=0; said=$(volumes)
while echo "$said" | busy && [ $n -lt 120 ]; do n=$((n + 1)); sleep 0.5; said=$(volumes); done
echo "$said" | cut -d'|' -f3- | called
held
pvs --noheadings --separator '|' -o pv_name,vg_name,pv_pe_alloc_count | called
dmsetup info -c --noheadings --separator '|' -o name,suspended,tables_loaded | sort
ls /dev/vg 2>/dev/null
"""
_CONTENT = """
for one in data kept; do
    [ -e /dev/vg/$one ] && dd if=/dev/vg/$one bs=1M count=4 iflag=direct status=none | sha256sum
done
"""
_SIZE = """
e2fsck -fn /dev/vg/data >/dev/null 2>&1; echo fsck $?
dumpe2fs -h /dev/vg/data 2>/dev/null | grep '^Block count'
"""
_CLONE = """
[ -e /dev/vg/web ] || exit 0
u() { blkid -p -s UUID -o value /dev/vg/$1; }; [ $(u data) = $(u web) ] && echo same
e2fsck -fn /dev/vg/web >/dev/null 2>&1; echo fsck $?
for one in machine-id hostname; do debugfs -R "cat /etc/$one" /dev/vg/web 2>/dev/null; done
"""


def _seen(place: Any, more: str = _CONTENT) -> Any:
    """The devices and what is on them, the volumes with what they hold, and the device mapper's."""
    said = shell(place, f"{_SEEN}{more}\ntrue\n")
    return sorted(line.strip() for line in said.splitlines())


def _of(kind: Any, place: Any, /, **fields: Any) -> Any:
    """A request; fields that end with an underscore name disks."""
    for key in [one for one in fields if one.endswith("_")]:
        disk = fields.pop(key)
        is_one = isinstance(disk, str)
        called = place.called(disk) if is_one else [place.called(one) for one in disk]
        fields[key[:-1]] = called
    return kind(**fields)


def _do(place: Any, method: str, request: Any) -> None:
    name = f"{_SERVICE}/{method}"
    ask(place, name, planned(place, name, request))


def _names(place: Any, command: str, field: str) -> set[str]:
    return set(shell(place, f"{command} --noheadings -o {field}\n").split())


def _without_volume(place: Any, name: str) -> None:
    """Have a volume be gone that may have been made."""
    if name in _names(place, "lvs", "lv_name"):
        _do(place, "DeleteVolume", pb.DeleteVolumeRequest(volume=f"vg/{name}"))


def _without_group(place: Any) -> None:
    """Have a group be gone that may have been made, and nothing on what it was to be made of."""
    if "vg" in _names(place, "vgs", "vg_name"):
        _do(place, "DeleteVolumeGroup", pb.DeleteVolumeGroupRequest(group="vg"))
    _wipe(place, "a", "b")


def _taken_out(place: Any) -> None:
    """Have a device be out of a group that may have been added."""
    if "vg" in shell(place, "pvs --noheadings -o vg_name $c 2>/dev/null || true\n"):
        request = _of(pb.ReduceVolumeGroupRequest, place, group="vg", device_="c")
        _do(place, "ReduceVolumeGroup", request)
    _wipe(place, "c")


def _wipe(place: Any, *disks: str) -> None:
    for disk in disks:
        if shell(place, f"wipefs --noheadings ${disk}\n"):
            method = f"{STORAGE}.FilesystemService/WipeSignatures"
            request = fs.WipeSignaturesRequest(device=place.called(disk))
            ask(place, method, planned(place, method, request))


def _deleted(place: Any) -> None:
    """A volume is deleted as it is deleted for anybody: its group's description is kept."""
    made(place, _OLD)
    _do(place, "DeleteVolume", pb.DeleteVolumeRequest(volume="vg/data"))


def _restore(place: Any) -> Any:
    """Put back the description that was kept last."""
    request = pb.ListGroupBackupsRequest()
    newest = ask(place, f"{_SERVICE}/ListGroupBackups", request).backups[0]
    return pb.RestoreGroupRequest(group="vg", backup=newest.name)


def _restored(place: Any) -> None:
    """Have a volume be there that may have been deleted; nothing was written since."""
    if "data" not in _names(place, "lvs", "lv_name"):
        _do(place, "RestoreGroup", _restore(place))
    _do(place, "ActivateVolume", pb.ActivateVolumeRequest(volume="vg/data"))


def _lvm(name: str, method: str, request: Any, script: str, **more: Any) -> Row:
    """A row: what is asked for, and what there is before."""
    seen: Callable[[Any], Any] = partial(_seen, more=more.pop("more", _CONTENT))
    before = more.pop("before", None) or partial(made, script=script)
    return row(name, f"{_SERVICE}/{method}", request, before, seen, **{"points": 10, **more})


_once = partial(_lvm, unrepeatable=True)

LVM_ROWS = (
    _once(
        "create-group",
        "CreateVolumeGroup",
        partial(_of, pb.CreateVolumeGroupRequest, name="vg", devices_=["a", "b"]),
        "",
        mend=_without_group,
    ),
    _once(
        "extend-group",
        "ExtendVolumeGroup",
        partial(_of, pb.ExtendVolumeGroupRequest, group="vg", device_="c"),
        _OLD,
        mend=_taken_out,
    ),
    # What was in it is wiped: of that nobody knows whether it was done.
    _once(
        "reduce-group",
        "ReduceVolumeGroup",
        partial(_of, pb.ReduceVolumeGroupRequest, group="vg", device_="b"),
        _OLD,
    ),
    _lvm(
        "reduce-missing",
        "ReduceVolumeGroup",
        partial(_of, pb.ReduceVolumeGroupRequest, group="vg"),
        _MISSING,
    ),
    _once(
        "delete-group",
        "DeleteVolumeGroup",
        partial(_of, pb.DeleteVolumeGroupRequest, group="vg"),
        f"{_GROUP} $a $b",
    ),
    _lvm(
        "move",
        "MovePhysicalVolume",
        partial(_of, pb.MovePhysicalVolumeRequest, group="vg", device_="a"),
        _OLD,
    ),
    _once(
        "create-volume",
        "CreateVolume",
        partial(
            *(_of, pb.CreateVolumeRequest),
            group="vg",
            name="data",
            kind=pb.VOLUME_KIND_LINEAR,
            size_bytes=32 * _MIB,
        ),
        f"{_GROUP} $a $b",
        more="",
        mend=partial(_without_volume, name="data"),
    ),
    _lvm(
        "grow-volume",
        "GrowVolume",
        partial(
            *(_of, pb.GrowVolumeRequest),
            volume="vg/data",
            size_bytes=64 * _MIB,
            with_filesystem=True,
        ),
        _EXT4,
        more=_SIZE,
    ),
    _lvm(
        "rename-volume",
        "RenameVolume",
        partial(_of, pb.RenameVolumeRequest, volume="vg/data", name="kept"),
        _OLD,
    ),
    _lvm(
        "deactivate-volume",
        "DeactivateVolume",
        partial(_of, pb.DeactivateVolumeRequest, volume="vg/data"),
        _OLD,
    ),
    _lvm(
        "activate-volume",
        "ActivateVolume",
        partial(_of, pb.ActivateVolumeRequest, volume="vg/data"),
        f"{_OLD}lvchange -qq -an vg/data\n",
    ),
    _once(
        "snapshot-volume",
        "CreateVolumeSnapshot",
        partial(
            *(_of, pb.CreateVolumeSnapshotRequest),
            volume="vg/data",
            name="snap",
            size_bytes=16 * _MIB,
        ),
        _OLD,
        mend=partial(_without_volume, name="snap"),
    ),
    _lvm(
        "merge-snapshot",
        "MergeVolumeSnapshot",
        partial(_of, pb.MergeVolumeSnapshotRequest, volume="vg/snap"),
        _SNAPSHOT,
    ),
    _once(
        "delete-volume",
        "DeleteVolume",
        partial(_of, pb.DeleteVolumeRequest, volume="vg/data"),
        _OLD,
        mend=_restored,
    ),
    _lvm(
        "replace-leg",
        "ReplaceVolumeDevice",
        partial(_of, pb.ReplaceVolumeDeviceRequest, volume="vg/data", old_="a", new_="c"),
        _MIRROR,
    ),
    _once(
        "restore-group",
        "RestoreGroup",
        _restore,
        "",
        before=_deleted,
        mend=partial(_without_volume, name="data"),
    ),
    _once(
        "clone-volume",
        "CloneVolume",
        partial(
            *(_of, pb.CloneVolumeRequest),
            volume="vg/data",
            name="web",
            size_bytes=40 * _MIB,
            hostname="web",
        ),
        _TEMPLATE,
        more=_CLONE,
        mend=partial(_without_volume, name="web"),
    ),
)
