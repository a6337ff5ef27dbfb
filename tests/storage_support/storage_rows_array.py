"""Changes of arrays, and how each is disturbed, in a guest: only there is md.

What is there then is asked of mdadm(8), wipefs(8) and sysfs. What md copies is waited for.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from storage_rows import STORAGE, row

from hostler.api.storage.v1 import array_pb2 as pb

SERVICE = f"{STORAGE}.ArrayService"
DISKS = ("a", "b", "c")
_NAME = "kills"
_FIND = """
d() {{ for s in /sys/block/vd*/serial; do
    [ "$(cat $s)" = $1 ] && basename $(dirname $s) | sed s,^,/dev/,; done; }}
a=$(d a); b=$(d b); c=$(d c); md=/dev/md/{name}
"""
_FRESH = """
udevadm settle --timeout=60
for one in /sys/block/md*; do
    [ -e "$one" ] && mdadm --quiet --stop /dev/$(basename $one)
done
for one in $a $b $c; do
    mdadm --quiet --zero-superblock $one; wipefs --quiet --all --force $one
done
mkswap -q -L old $a
"""
_MADE = """
mdadm --quiet --create $md --run --metadata=1.2 --name={name} --level=raid1 --raid-devices=2 \
    --assume-clean --bitmap=internal $a $b || exit 1
udevadm settle --timeout=60
{more}
"""
_SEEN = """
udevadm settle --timeout=60
while grep -qE 'recovery|resync|reshape|check|DELAYED' /proc/mdstat; do sleep 0.2; done
for one in $a $b $c; do
    echo $one $(wipefs --noheadings --output TYPE $one) |
        sed "s,^$a,a,; s,^$b,b,; s,^$c,c,"
done
[ -e $md ] || exit 0
mdadm --detail $md | grep -E 'Raid Level|Raid Devices|^ +[-0-9]+ +[-0-9]+ .*/dev' |
    sed "s,$a,a,; s,$b,b,; s,$c,c,"
at=/sys/block/$(basename $(readlink -f $md))/md
cat $at/last_sync_action $at/sync_speed_max
"""


def _shell(place: Any, script: str, **words: str) -> str:
    text = (_FIND + script).format(name=_NAME, **words)
    said: str = place.guest.run(["sh", "-c", text], timeout_s=180).stdout
    return said


def fresh(place: Any) -> None:
    """Disks without an array, one of which holds something else."""
    _shell(place, _FRESH + "exit 0")


def _array(place: Any, more: str = "") -> None:
    """A mirror of two disks."""
    fresh(place)
    _shell(place, _MADE, more=more)


def _seen(place: Any) -> Any:
    """What each disk holds; of the array its level, its members by role, and what md is set to."""
    said = _shell(place, _SEEN)
    lines = [re.sub(r"^ +[-0-9]+ +[-0-9]+ +[-0-9]+ +", "", line) for line in said.splitlines()]
    members = [re.sub(r"^[-0-9]+ +", "", line) for line in lines]
    return sorted(" ".join(line.split()) for line in members)


def _of(kind: Any, place: Any, **fields: Any) -> Any:
    """A request about the array; fields that end with an underscore name disks."""
    disks = {
        key[:-1]: place.called(str(fields.pop(key))) for key in list(fields) if key.endswith("_")
    }
    return kind(array=_NAME, **fields, **disks)


def _create(place: Any) -> Any:
    devices = [place.called(one) for one in ("a", "b")]
    return pb.CreateArrayRequest(name=_NAME, level="raid1", devices=devices, assume_clean=True)


_BEFORE: dict[str, Any] = {"points": 10}
ARRAY_ROWS = (
    row("create", f"{SERVICE}/CreateArray", _create, fresh, _seen, unrepeatable=True, **_BEFORE),
    row(
        "stop",
        f"{SERVICE}/StopArray",
        partial(_of, pb.StopArrayRequest),
        _array,
        _seen,
        **_BEFORE,
    ),
    row(
        "replace",
        f"{SERVICE}/ReplaceMember",
        partial(_of, pb.ReplaceMemberRequest, old_="a", new_="c"),
        _array,
        _seen,
        unrepeatable=True,
        **_BEFORE,
    ),
    row(
        "assemble",
        f"{SERVICE}/AssembleArray",
        partial(_of, pb.AssembleArrayRequest),
        partial(_array, more="mdadm --quiet --stop $md"),
        _seen,
        **_BEFORE,
    ),
    row(
        "add",
        f"{SERVICE}/AddMember",
        partial(_of, pb.AddMemberRequest, device_="c"),
        _array,
        _seen,
        unrepeatable=True,
        **_BEFORE,
    ),
    row(
        "delete",
        f"{SERVICE}/DeleteArray",
        partial(_of, pb.DeleteArrayRequest),
        _array,
        _seen,
        unrepeatable=True,
        **_BEFORE,
    ),
)
