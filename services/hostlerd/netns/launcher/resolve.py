"""What the names in a unit stand for on this host: accounts, the command, directories, devices."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Any, NamedTuple

from hostlerd.privileged.refused import Fault, Refused

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_ID = 2**32 - 2
PRIVATE = ("/tmp", "/var/tmp")  # noqa: S108 - they are mounted over, nothing is written there


class Account(NamedTuple):
    """Who a process runs as. `groups` are its supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str


def resolve(unit: dict[str, Any]) -> tuple[Account, str]:
    """Answer the account and the command's path; raise Refused with all that is not there."""
    faults: list[Fault] = []
    account = _account(unit, faults)
    command = _command(unit, faults)
    if (
        not _hidden(unit, unit["working_directory"])
        and not Path(unit["working_directory"]).is_dir()
    ):
        faults.append(("working_directory", "is no directory on this host"))
    for i, limit in enumerate(unit["limits"].get("devices", ())):
        if not _is_block_device(limit["device"]):
            faults.append((f"limits.devices[{i}].device", "is no block device of this host"))
    if faults or account is None:
        raise Refused("INVALID_UNIT", "the unit cannot run on this host", faults)
    return account, command


def _account(unit: dict[str, Any], faults: list[Fault]) -> Account | None:
    user = unit["user"]
    entry = _passwd(user)
    if entry is None and not user.isdigit():
        faults.append(("user", "there is no such user on this host"))
    elif entry is None and int(user) > MAX_ID:
        faults.append(("user", "is no number of a user"))
    elif entry is None and not unit["group"]:
        faults.append(("group", "is needed, since the user has no entry on this host"))
    gid = _gid(unit["group"], "group", faults) if unit["group"] else None
    groups = {
        _gid(group, f"supplementary_groups[{i}]", faults)
        for i, group in enumerate(unit["supplementary_groups"])
    }
    if faults:
        return None
    if entry is None:
        groups.discard(-1)
        return Account(int(user), gid or 0, tuple(sorted(groups)), user, "/", "/bin/sh")
    gid = entry.pw_gid if gid is None else gid
    groups |= set(os.getgrouplist(entry.pw_name, gid))
    return Account(
        entry.pw_uid,
        gid,
        tuple(sorted(groups)),
        entry.pw_name,
        entry.pw_dir or "/",
        entry.pw_shell or "/bin/sh",
    )


def _passwd(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return None


def _gid(group: str, path: str, faults: list[Fault]) -> int:
    """The group's number; -1 and a fault if there is none."""
    if group.isdigit():
        if int(group) <= MAX_ID:
            return int(group)
        faults.append((path, "is no number of a group"))
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        faults.append((path, "there is no such group on this host"))
        return -1


def _command(unit: dict[str, Any], faults: list[Fault]) -> str:
    """The path of argv[0]: itself if it has a slash, else as found on PATH."""
    word: str = unit["argv"][0]
    if not word:
        faults.append(("argv[0]", "is empty"))
        return ""
    if "/" in word:
        if not word.startswith("/"):
            faults.append(("argv[0]", "must be an absolute path, or a name without slash"))
        elif not _hidden(unit, word) and not _is_executable(word):
            faults.append(("argv[0]", "is no executable file on this host"))
        return word
    for folder in PATH.split(":"):
        if _is_executable(f"{folder}/{word}"):
            return f"{folder}/{word}"
    faults.append(("argv[0]", f"there is no such command in {PATH}"))
    return ""


def _hidden(unit: dict[str, Any], path: str) -> bool:
    """Whether the process will see something else there than the host does."""
    inside = os.path.normpath(path)
    return unit["private_tmp"] and any(inside == p for p in PRIVATE)


def _is_executable(path: str) -> bool:
    try:
        found = Path(path).stat()
    except OSError as e:
        # Anything else than absence is told by the attempt to run it.
        return e.errno not in {errno.ENOENT, errno.ENOTDIR}
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o111)


def _is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except OSError:
        return False
