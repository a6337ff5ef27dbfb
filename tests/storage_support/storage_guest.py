"""Disks of a guest: emptied, and asked what is on them by the guest's own tools, as root."""

from __future__ import annotations

from typing import Any

#: Their serial numbers; in scripts `$a` and so on are what the kernel calls them.
DISKS = ("a", "b", "c")
_FIND = """
d() { for s in /sys/block/vd*/serial; do
    [ "$(cat $s)" = $1 ] && basename $(dirname $s) | sed s,^,/dev/,; done; }
a=$(d a); b=$(d b); c=$(d c)
called() { sed "s,$a,a,g; s,$b,b,g; s,$c,c,g"; }
settled() { udevadm settle --timeout=60; }
held() { wipefs --noheadings --output DEVICE,TYPE $a $b $c | sed s,^,/dev/, | called; }
"""
# Whatever a trial has left: nothing of it may be there in the next one.
_EMPTY = """
settled
if ls -d /sys/kernel/config/target/core/iblock_7442/*/ >/dev/null 2>&1; then
    rm -f /var/lib/hostler-storage-worker/exports/*.json
    systemctl restart hostler-storage-exports@0.service
fi
dmsetup remove_all --force
for one in /sys/block/md*; do
    [ -e "$one" ] && mdadm --quiet --stop /dev/$(basename $one)
done
wipefs --quiet --all --force $a $b $c
for one in $a $b $c; do dd if=/dev/zero of=$one bs=1M count=1 conv=notrunc status=none; done
settled
true
"""


def shell(place: Any, script: str, *, check: bool = True) -> str:
    """Run a script; answer what it says."""
    said: str = place.guest.run(["sh", "-c", _FIND + script], timeout_s=240, check=check).stdout
    return said


def made(place: Any, script: str = "") -> None:
    """Have nothing on the disks but what a script puts there, which must go well."""
    shell(place, _EMPTY + f"set -e\n{script}\nudevadm settle --timeout=60\n")
