"""What makes a host of a copied root file system that one's twin, taken out of it.

By debugfs(8), which needs no mount: nothing of the copy is run, and no link in it leads out of it.
Source: machine-id(5), hostname(5), sshd(8), debugfs(8) of e2fsprogs 1.47.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from hostlerd.storage.worker import tools
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_DEBUGFS = "/usr/sbin/debugfs"
_HOST_KEY = re.compile(r"ssh_host_[a-z0-9_]{1,32}_key(\.pub)?")
_FSTAB_BYTES_MOST = 64 << 10


def reset(device: str, hostname: str, uuids: tuple[str, str], tools_: Tools) -> list[str]:
    """Empty the machine id, remove the host keys of ssh, set a name; answer what was done.

    `uuids` are the file system's before and now, for its fstab(5). Raises Refused.
    """
    there = _names(device, "/etc")
    if "machine-id" not in there:
        raise Refused("NOT_A_SYSTEM", "the template has no /etc/machine-id: it is no system's root")
    keys = sorted(one for one in _names(device, "/etc/ssh") if _HOST_KEY.fullmatch(one))
    files = {"machine-id": (b"", 0o444)}
    if hostname:
        files["hostname"] = (f"{hostname}\n".encode(), 0o644)
    if "fstab" in there:
        said = _content(device, "/etc/fstab")
        # What is not UTF-8 was replaced as it was read, and is not written back so.
        if uuids[0] in said and "\ufffd" not in said:
            files["fstab"] = (said.replace(*uuids).encode(), 0o644)
    with tempfile.TemporaryDirectory(prefix="hostler-clone-") as folder:
        words = ["cd /etc", *(f"rm ssh/{one}" for one in keys)]
        for name, (content, mode) in files.items():
            source = Path(folder) / name
            source.write_bytes(content)
            words += [f"rm {name}"] if name in there else []
            words += [f"write {source} {name}", f"sif {name} mode 0100{mode:o}"]
        # Whatever fails, debugfs ends with 0.
        tools_.run((_DEBUGFS, "-w", "-f", "-", device), stdin="\n".join([*words, ""]).encode())
    _refuse_unless_done(device, files, keys)
    return [*files, *keys]


def _refuse_unless_done(device: str, files: dict[str, tuple[bytes, int]], keys: list[str]) -> None:
    for name, (content, _) in files.items():
        if _content(device, f"/etc/{name}").encode() != content:
            raise Refused("NOT_MADE", f"/etc/{name} of the clone could not be written")
    if left := set(keys) & _names(device, "/etc/ssh"):
        raise Refused("NOT_MADE", f"{', '.join(sorted(left))} of the clone could not be removed")


def _names(device: str, folder: str) -> frozenset[str]:
    """What lies in a folder: `/INODE/MODE/UID/GID/NAME/SIZE/` of each; nothing if there is none."""
    said = tools.probe((_DEBUGFS, "-R", f"ls -p {folder}", device))
    rows = (line.split("/") for line in said.splitlines())
    return frozenset(row[5] for row in rows if len(row) >= 7 and row[1].isdigit() and row[1] != "0")


def _content(device: str, path: str) -> str:
    said = tools.probe((_DEBUGFS, "-R", f"cat {path}", device))
    if len(said) > _FSTAB_BYTES_MOST:
        raise Refused("NOT_A_SYSTEM", f"{path} of the template has over {_FSTAB_BYTES_MOST} bytes")
    return said
