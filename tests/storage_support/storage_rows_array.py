"""Changes of arrays, and how each is disturbed, in a guest: only there is md.

What is there then is asked of mdadm(8), wipefs(8) and sysfs. What md copies is waited for.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from storage_guest import made, shell
from storage_rows import STORAGE, row

from hostler.api.storage.v1 import array_pb2 as pb

SERVICE = f"{STORAGE}.ArrayService"
_MADE = """
mdadm --quiet --create /dev/md/kills --run --metadata=1.2 --name=kills --level=raid1 \
    --raid-devices=2 --assume-clean --bitmap=internal $a $b
"""
_SEEN = """
settled
while cat /sys/block/md*/md/sync_action 2>/dev/null | grep -qv idle; do sleep 0.2; done
held
md=/dev/md/kills
[ -e $md ] || exit 0
mdadm --detail $md | grep -E 'Raid Level|Raid Devices|^ +[-0-9]+ +[-0-9]+ .*/dev' | called
at=/sys/block/$(basename $(readlink -f $md))/md
cat $at/last_sync_action $at/sync_speed_max
"""
# Past the superblock and the bitmap, of the second disk alone: what md gives is of the first.
_DAMAGED = """
md=/dev/md/kills; yes right | dd of=$md bs=1M count=4 iflag=fullblock oflag=direct status=none
at=$(cat /sys/block/$(basename $(readlink -f $md))/md/dev-$(basename $b)/offset)
yes wrong | dd of=$b bs=4096 seek=$((at / 8 + 256)) count=2 iflag=fullblock oflag=direct status=none
"""
_ALIKE = """
at=$(cat $at/dev-$(basename $b)/offset)
for one in $a $b; do
    dd if=$one bs=4096 skip=$((at / 8)) count=1024 iflag=direct status=none | sha256sum
done
"""


def _fresh(place: Any) -> None:
    """Disks without an array, one of which holds something else."""
    made(place, "mkswap -q -L old $a")


def mirror(place: Any, more: str = "") -> None:
    """A mirror of two disks."""
    made(place, f"{_MADE}\nsettled\n{more}")


def mirror_seen(place: Any, more: str = "") -> Any:
    """What each disk holds; of the array its level, its members by role, and what md is set to."""
    said = shell(place, _SEEN + more)
    lines = [re.sub(r"^ +[-0-9]+ +[-0-9]+ +[-0-9]+ +", "", line) for line in said.splitlines()]
    members = [re.sub(r"^[-0-9]+ +", "", line) for line in lines]
    return sorted(" ".join(line.split()) for line in members)


def _of(kind: Any, place: Any, /, **fields: Any) -> Any:
    """A request about the array; fields that end with an underscore name disks."""
    disks = {
        key[:-1]: place.called(str(fields.pop(key))) for key in list(fields) if key.endswith("_")
    }
    return kind(array="kills", **fields, **disks)


def _create(place: Any) -> Any:
    devices = [place.called(one) for one in ("a", "b")]
    return pb.CreateArrayRequest(name="kills", level="raid1", devices=devices, assume_clean=True)


def _grow(place: Any, raid_disks: int) -> Any:
    return _of(pb.GrowArrayRequest, place, raid_disks=raid_disks, devices=[place.called("c")])


_BEFORE: dict[str, Any] = {"points": 10}
ARRAY_ROWS = (
    row(
        "create",
        f"{SERVICE}/CreateArray",
        _create,
        _fresh,
        mirror_seen,
        unrepeatable=True,
        **_BEFORE,
    ),
    row(
        "stop",
        f"{SERVICE}/StopArray",
        partial(_of, pb.StopArrayRequest),
        mirror,
        mirror_seen,
        **_BEFORE,
    ),
    row(
        "replace",
        f"{SERVICE}/ReplaceMember",
        partial(_of, pb.ReplaceMemberRequest, old_="a", new_="c"),
        mirror,
        mirror_seen,
        unrepeatable=True,
        **_BEFORE,
    ),
    row(
        "assemble",
        f"{SERVICE}/AssembleArray",
        partial(_of, pb.AssembleArrayRequest),
        partial(mirror, more="mdadm --quiet --stop /dev/md/kills"),
        mirror_seen,
        **_BEFORE,
    ),
    row(
        "add",
        f"{SERVICE}/AddMember",
        partial(_of, pb.AddMemberRequest, device_="c"),
        mirror,
        mirror_seen,
        unrepeatable=True,
        **_BEFORE,
    ),
    row(
        "delete",
        f"{SERVICE}/DeleteArray",
        partial(_of, pb.DeleteArrayRequest),
        mirror,
        mirror_seen,
        unrepeatable=True,
        **_BEFORE,
    ),
    row(
        "fail",
        f"{SERVICE}/FailMember",
        partial(_of, pb.FailMemberRequest, device_="b"),
        mirror,
        mirror_seen,
        **_BEFORE,
    ),
    row(
        "remove",
        f"{SERVICE}/RemoveMember",
        partial(_of, pb.RemoveMemberRequest, device_="b"),
        partial(mirror, more="mdadm --quiet --manage /dev/md/kills --fail $b"),
        mirror_seen,
        **_BEFORE,
    ),
    row(
        "grow-array",
        f"{SERVICE}/GrowArray",
        partial(_grow, raid_disks=3),
        mirror,
        mirror_seen,
        unrepeatable=True,
        **_BEFORE,
    ),
    row(
        "check",
        f"{SERVICE}/CheckArray",
        partial(_of, pb.CheckArrayRequest),
        mirror,
        mirror_seen,
        **_BEFORE,
    ),
    row(
        "repair",
        f"{SERVICE}/RepairArray",
        partial(_of, pb.RepairArrayRequest),
        partial(mirror, more=_DAMAGED),
        partial(mirror_seen, more=_ALIKE),
        **_BEFORE,
    ),
    row(
        "speed",
        f"{SERVICE}/SetSyncSpeed",
        partial(_of, pb.SetSyncSpeedRequest, most_bytes_per_second=8 << 20),
        mirror,
        mirror_seen,
        **_BEFORE,
    ),
)
