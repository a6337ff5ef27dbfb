"""The processes and open files that a `.scap` file begins with, written. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from hostler.core.trace.events import NO_ID, FileType
from hostler.core.trace.scap_layout import (
    FILE_TYPES,
    FILES,
    MAX_PATH,
    MAX_TEXTS,
    MAX_USER,
    PROCESSES,
    USERS,
    ScapFile,
    ScapUser,
    ThreadFlag,
    block,
)

_TEXT = struct.Struct("<H")
_LENGTH = struct.Struct("<I")
_THREAD_IDS = struct.Struct("<QQQQQ")  # tid, pid, ptid, sid, vpgid
_THREAD_LIMITS = struct.Struct("<qIII")  # fdlimit, flags, uid, gid
_THREAD_MEMORY = struct.Struct("<IIIQQ")
_THREAD_VIRTUAL = struct.Struct("<qq")
_THREAD_END = struct.Struct("<iB")  # loginuid, whether its program may be written to
_FILE_HEAD = struct.Struct("<QQB")
_TID = struct.Struct("<Q")
_USER_IDS = struct.Struct("<II")

_UNLIMITED_PID = 0xFFFF_FFFF_FFFF_FFFF
_MAX_BLOCK = 1 << 20
_PROTOCOLS = {6: 2, 17: 3, 1: 4, 58: 4}


def program_and_arguments(cmdline: bytes, exe: bytes) -> tuple[bytes, bytes]:
    """What sysdig calls exe and args: argv[0], and the others with a NUL after each."""
    program, _, arguments = cmdline.partition(b"\0")
    if arguments and not arguments.endswith(b"\0"):
        arguments += b"\0"
    return (program or exe)[:MAX_PATH], arguments[:MAX_TEXTS]


def cgroups(cgroup: bytes) -> bytes:
    """A cgroup as sysdig has it: SUBSYSTEM=PATH, each with a NUL after it."""
    return b"systemd=" + cgroup[: MAX_TEXTS - 16] + b"\0" if cgroup else b""


def thread_entry(tid: int, process: Any, texts: list[bytes], is_child: bool) -> bytes:
    """A thread of a process (a row of events.PROCESS) as an entry of the process list."""
    pid = int(process["pid"])
    flags = ThreadFlag(0)
    if tid != pid:
        flags |= ThreadFlag.IS_THREAD | ThreadFlag.SHARES_FILES
    if is_child:
        flags |= ThreadFlag.KNOWN_BEFORE_CLONE
    exe = texts[process["exe"]]
    program, arguments = program_and_arguments(texts[process["cmdline"]], exe)
    vpid = int(process["vpid"]) or pid
    loginuid = int(process["loginuid"])
    body = b"".join(
        (
            _THREAD_IDS.pack(tid, pid, int(process["ppid"]), int(process["sid"]), _UNLIMITED_PID),
            _text(texts[process["name"]], MAX_PATH),
            _text(program, MAX_PATH),
            _text(exe, MAX_PATH),
            _text(arguments, MAX_TEXTS),
            _text(texts[process["cwd"]], MAX_PATH),
            _THREAD_LIMITS.pack(1024, flags, int(process["uid"]), int(process["gid"])),
            _THREAD_MEMORY.pack(0, 0, 0, 0, 0),
            _text(texts[process["environ"]], MAX_TEXTS),
            _THREAD_VIRTUAL.pack(vpid if tid == pid else tid, vpid),
            _text(cgroups(texts[process["cgroup"]]), MAX_TEXTS),
            _text(b"", MAX_PATH),
            _THREAD_END.pack(-1 if loginuid == NO_ID else loginuid & 0x7FFF_FFFF, 0),
        )
    )
    return _LENGTH.pack(len(body) + _LENGTH.size) + body


def file_entry(fd: int, file: Any, texts: list[bytes]) -> bytes:
    """An open file (a row of events.FILE) as an entry of a thread's list."""
    kind = file_type(file)
    head = _FILE_HEAD.pack(fd, int(file["inode"]), kind)
    name = _text(texts[file["name"]], MAX_PATH - 1)
    if kind in (ScapFile.IPV4, ScapFile.IPV6):
        source, source_port, target, target_port = endpoints(file)
        ports = struct.pack("<HHB", source_port, target_port, protocol(file))
        return head + source + target + ports
    if kind in (ScapFile.IPV4_SERVER, ScapFile.IPV6_SERVER):
        ip = address(file, "local_ip")
        return head + ip + struct.pack("<HB", int(file["local_port"]), protocol(file))
    if kind is ScapFile.UNIX:
        return head + bytes(16) + name
    return head + name


def file_type(file: Any) -> ScapFile:
    """The type of an open file to sysdig. One that listens has a type of its own."""
    kind = FILE_TYPES.get(int(file["type"]), ScapFile.UNSUPPORTED)
    is_listening = file["is_server"] and not file["remote_port"]
    if is_listening and kind is ScapFile.IPV4:
        return ScapFile.IPV4_SERVER
    if is_listening and kind is ScapFile.IPV6:
        return ScapFile.IPV6_SERVER
    return kind


def endpoints(file: Any) -> tuple[bytes, int, bytes, int]:
    """Address and port of the client, then those of the server."""
    local = address(file, "local_ip"), int(file["local_port"])
    remote = address(file, "remote_ip"), int(file["remote_port"])
    return remote + local if file["is_server"] else local + remote


def address(file: Any, side: str) -> bytes:
    """An address of a socket with all its bytes."""
    length = 16 if file["type"] == FileType.IPV6 else 4
    # numpy drops the zeros at the end.
    return bytes(file[side])[:length].ljust(length, b"\0")


def protocol(file: Any) -> int:
    """What sysdig calls the protocol of a socket (SCAP_L4_)."""
    return _PROTOCOLS.get(int(file["protocol"]), 0)


def process_blocks(entries: Iterable[bytes]) -> bytes:
    """The process list, in blocks of bounded size."""
    return b"".join(block(PROCESSES, body) for body in _batched(entries))


def file_blocks(tid: int, entries: Iterable[bytes]) -> bytes:
    """The list of a thread's open files, in blocks of bounded size."""
    return b"".join(block(FILES, _TID.pack(tid) + body) for body in _batched(entries))


def user_blocks(users: Mapping[int, bytes], groups: Mapping[int, bytes]) -> bytes:
    """The lists of users and groups by id. Homes and shells are not known, nor users' groups."""
    entries = [
        bytes([ScapUser.USER])
        + _USER_IDS.pack(uid, NO_ID)
        + _text(name, MAX_USER)
        + _text(b"", 0) * 2
        for uid, name in users.items()
    ]
    entries += [
        bytes([ScapUser.GROUP]) + _LENGTH.pack(gid) + _text(name, MAX_USER)
        for gid, name in groups.items()
    ]
    whole = (_LENGTH.pack(len(entry) + _LENGTH.size) + entry for entry in entries)
    return b"".join(block(USERS, body) for body in _batched(whole))


def _batched(entries: Iterable[bytes]) -> Iterable[bytes]:
    waiting: list[bytes] = []
    size = 0
    for entry in entries:
        waiting.append(entry)
        size += len(entry)
        if size > _MAX_BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _text(text: bytes, limit: int) -> bytes:
    return _TEXT.pack(len(text[:limit])) + text[:limit]
