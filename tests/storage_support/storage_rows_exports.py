"""Changes of exports and attachments, and how each is disturbed, in a guest that has LIO.

It attaches what it exports itself: a target of its own, at its own address. What is there then is
asked of configfs, iscsiadm(8) and the files that are to be there after a boot.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from journal_rows import Row, ask
from storage_guest import made, shell
from storage_rows import STORAGE, planned, row

from hostler.api.storage.v1 import export_pb2 as pb

_EXPORTS, _ATTACHMENTS = f"{STORAGE}.ExportService", f"{STORAGE}.AttachmentService"
_INITIATOR = "iqn.2026-01.example.hostler:vm1"
_OTHER = "iqn.2026-01.example.hostler:vm3"
_TARGET = "iqn.2026-01.example.hostler:vm1:leg"
_SECRET = "/etc/kills.chap"  # noqa: S105 # a path
_STATE = "/var/lib/hostler-storage-worker"
_NONE = f"""
iscsiadm -m node -T {_TARGET} --logout >/dev/null 2>&1
iscsiadm -m node -T {_TARGET} -o delete >/dev/null 2>&1
rm -f {_STATE}/attachments/* /etc/udev/rules.d/62-hostler-exports.rules
systemctl --quiet disable hostler-storage-exports@120.service
printf 'secret-of-kills-0\\n' > {_SECRET}; chmod 600 {_SECRET}
"""
_SEEN = f"""
settled
held
target=/sys/kernel/config/target/iscsi/{_TARGET}/tpgt_1
cat $target/enable; ls -d $target/acls/* $target/np/* $target/lun/*
ls -d /sys/kernel/config/target/core/iblock_7442/*/
find {_STATE}/exports {_STATE}/attachments -type f
grep -v '^#' /etc/udev/rules.d/62-hostler-exports.rules
systemctl is-enabled hostler-storage-exports@120.service
own=$(sed -n 's/.*"secret": "\\([^"]*\\)".*/\\1/p' {_STATE}/exports/leg.json)
[ "$own" = "$(cat /run/kills.secret)" ] && echo secret as before
for one in $target/acls/*/auth/password; do
    [ -n "$own" ] && [ "$(cat $one)" = "$own" ] && echo secret in use
done
iscsiadm -m session | sed 's/^tcp: [[][0-9]*[]]//'
iscsiadm -m node
lsblk -dno TRAN | grep -c iscsi
"""


def _seen(place: Any) -> Any:
    """Of exports what the kernel has and what is kept, of attachments the session and the disk."""
    said = shell(place, f"exec 2>/dev/null\n{_SEEN}\ntrue\n")
    return sorted(said.splitlines())


def _portal(place: Any) -> str:
    return f"{place.guest.ipv4}:3260"


def _export(place: Any, *initiators: str, **more: Any) -> Any:
    one = pb.Export(
        name="leg",
        device=place.called("b"),
        portal=_portal(place),
        initiators=initiators or (_INITIATOR,),
        chap_secret_file=more.pop("chap_secret_file", ""),
    )
    return pb.ApplyExportRequest(export=one, **more)


def _none(place: Any) -> None:
    """Nothing is exported and nothing attached."""
    shell(place, _NONE)
    made(place)


def _exported(place: Any, **more: Any) -> None:
    """A disk is exported, and its secret known."""
    _none(place)
    name = f"{_EXPORTS}/ApplyExport"
    ask(place, name, planned(place, name, _export(place, **more)))
    file = f"{_STATE}/exports/leg.json"
    shell(place, f"""sed -n 's/.*"secret": "\\([^"]*\\)".*/\\1/p' {file} > /run/kills.secret\n""")


def _attach(place: Any) -> Any:
    one = pb.Attachment(
        name="leg",
        portal=_portal(place),
        target=_TARGET,
        initiator=_INITIATOR,
        chap_user="leg",
        chap_secret_file=_SECRET,
    )
    return pb.ApplyAttachmentRequest(attachment=one)


_of_file = partial(_exported, chap_secret_file=_SECRET)


def _attached(place: Any) -> None:
    _of_file(place)
    name = f"{_ATTACHMENTS}/ApplyAttachment"
    ask(place, name, planned(place, name, _attach(place)))


def _row(name: str, method: str, request: Any, before: Any) -> Row:
    return row(name, method, request, before, _seen, points=10)


EXPORT_ROWS = (
    _row("export", f"{_EXPORTS}/ApplyExport", _export, _none),
    _row(
        "export-anew",
        f"{_EXPORTS}/ApplyExport",
        lambda place: _export(place, _INITIATOR, _OTHER, new_secret=True),
        _exported,
    ),
    _row(
        "end-export",
        f"{_EXPORTS}/DeleteExport",
        lambda place: pb.DeleteExportRequest(name="leg"),
        _exported,
    ),
    _row("attach", f"{_ATTACHMENTS}/ApplyAttachment", _attach, _of_file),
    _row(
        "detach",
        f"{_ATTACHMENTS}/DeleteAttachment",
        lambda place: pb.DeleteAttachmentRequest(name="leg"),
        _attached,
    ),
)
