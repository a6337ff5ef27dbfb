"""The lists of processes and open files of a `.scap` file, read. Pure.

Every version of them that sysdig has written is known: each appended fields to the one before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from hostler.core.trace.columns import Cursor
from hostler.core.trace.events import NO_ID, FileType
from hostler.core.trace.scap_layout import (
    FILES,
    MAX_PATH,
    MAX_TEXTS,
    MAX_USER,
    USERS,
    ScapFile,
    ScapUser,
)
from hostler.core.trace.schema import CaptureInvalid

PROCESS_VERSIONS: Mapping[int, int] = {
    **{0x202: 1, 0x207: 2, 0x209: 3, 0x210: 4, 0x211: 5},
    **{0x212: 6, 0x213: 7, 0x214: 8, 0x215: 9},
}
"""Types of blocks that are a process list, and which version of it each is."""
FILES_WITH_LENGTHS = 0x218
USER_LISTS = (0x206, USERS)
FILE_LISTS = (FILES, FILES_WITH_LENGTHS)

_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_IDS = struct.Struct("<QQQ")
_LIMITS = struct.Struct("<QIII")
_MEMORY = struct.Struct("<IIIQQ")
_VIRTUAL = struct.Struct("<QQ")
_FILE = struct.Struct("<QQB")
# What the kernel says of ids fits; what a file says need not.
_ID_MASK = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Process:
    """A process as a `.scap` file knows it; the fields are columns of events.PROCESS."""

    pid: int = 0
    ppid: int = 0
    name: bytes = b""
    exe: bytes = b""
    cmdline: bytes = b""
    environ: bytes = b""
    cwd: bytes = b""
    uid: int = NO_ID
    gid: int = NO_ID
    loginuid: int = NO_ID
    sid: int = 0
    tty: int = 0
    vpid: int = 0
    cgroup: bytes = b""


@dataclass(frozen=True, slots=True)
class File:
    """An open file as a `.scap` file knows it; the fields are columns of events.FILE."""

    type: int = FileType.NONE
    name: bytes = b""
    protocol: int = 0
    is_server: int = 0
    local_ip: bytes = b""
    local_port: int = 0
    remote_ip: bytes = b""
    remote_port: int = 0
    device: int = 0
    inode: int = 0


_TYPES: dict[int, FileType] = {
    ScapFile.FILE: FileType.FILE,
    ScapFile.FILE_V2: FileType.FILE,
    ScapFile.DIRECTORY: FileType.DIRECTORY,
    ScapFile.PIPE: FileType.PIPE,
    ScapFile.UNIX: FileType.UNIX,
    ScapFile.EVENT: FileType.EVENT,
    ScapFile.SIGNAL: FileType.SIGNAL,
    ScapFile.EPOLL: FileType.EPOLL,
    ScapFile.INOTIFY: FileType.INOTIFY,
    ScapFile.TIMER: FileType.TIMER,
    ScapFile.NETLINK: FileType.NETLINK,
    ScapFile.UNSUPPORTED: FileType.OTHER,
}
_PROTOCOLS = {2: 6, 3: 17, 4: 1}


def read_processes(cursor: Cursor, kind: int) -> Iterator[tuple[int, Process]]:
    """The threads of a process list, each with its tid. Raises CaptureInvalid."""
    version = PROCESS_VERSIONS[kind]
    while cursor.left >= _U32.size:
        if version >= 9:
            yield _process(_entry(cursor), version)
        else:
            yield _process(cursor, version)


def _entry(cursor: Cursor) -> Cursor:
    """An entry that begins with its own length."""
    place = cursor.place
    (length,) = cursor.unpack(_U32)
    if length < _U32.size:
        raise CaptureInvalid(f"an entry of {length} bytes", place)
    return Cursor(bytes(cursor.take(length - _U32.size)), place)


def _process(cursor: Cursor, version: int) -> tuple[int, Process]:
    tid, pid, ppid = cursor.unpack(_IDS)
    (sid,) = cursor.unpack(_U64) if version >= 6 else (0,)
    if version >= 8:
        cursor.unpack(_U64)
    name, program = _text(cursor, MAX_PATH + 1), _text(cursor, MAX_PATH + 1)
    exe = _text(cursor, MAX_PATH + 1) if version >= 7 else program
    arguments, cwd = _text(cursor, MAX_TEXTS), _text(cursor, MAX_PATH + 1)
    _, _, uid, gid = cursor.unpack(_LIMITS)
    if version >= 2:
        cursor.unpack(_MEMORY)
    process = Process(
        pid & _ID_MASK,
        ppid & _ID_MASK,
        name,
        exe,
        joined_cmdline(program, arguments),
        cwd=cwd,
        uid=uid,
        gid=gid,
        sid=0 if sid >> 32 else sid,
    )
    return tid & _ID_MASK, _with_newer_fields(process, cursor, version)


def _with_newer_fields(process: Process, cursor: Cursor, version: int) -> Process:
    if version >= 3:
        process = replace(process, environ=_text(cursor, MAX_TEXTS))
    if version >= 4:
        _, vpid = cursor.unpack(_VIRTUAL)
        cgroup = first_cgroup(_text(cursor, MAX_TEXTS))
        process = replace(process, vpid=0 if vpid >> 32 else vpid, cgroup=cgroup)
    if version >= 5:
        _text(cursor, MAX_PATH + 1)
    if version >= 9 and cursor.left >= _U32.size:
        process = replace(process, loginuid=cursor.unpack(_U32)[0])
    return process


def read_users(cursor: Cursor, kind: int) -> Iterator[tuple[int, int, bytes]]:
    """The users and groups of a list: which of both, the id, the name. Raises CaptureInvalid."""
    while cursor.left >= _U32.size:
        entry = _entry(cursor) if kind == USERS else cursor
        place = entry.place
        what = entry.take(1)[0]
        (number,) = entry.unpack(_U32)
        if what == ScapUser.USER:
            entry.unpack(_U32)
        elif what != ScapUser.GROUP:
            raise CaptureInvalid(f"an entry of the unknown type {what} among users", place)
        name = _text(entry, MAX_USER)
        if what == ScapUser.USER:
            _text(entry, MAX_PATH)
            _text(entry, MAX_PATH)
        yield what, number, name


def joined_cmdline(program: bytes, arguments: bytes) -> bytes:
    """The arguments as the kernel has them, argv[0] first, with NULs between."""
    arguments = arguments.removesuffix(b"\0")
    return program + b"\0" + arguments if arguments else program


def first_cgroup(cgroups: bytes) -> bytes:
    """The path of the cgroup, of systemd's hierarchy if it is there."""
    each = dict(part.split(b"=", 1) for part in cgroups.split(b"\0") if b"=" in part)
    return each.get(b"systemd", next(iter(each.values()), b""))


def read_files(cursor: Cursor, kind: int) -> tuple[int, Iterator[tuple[int, File]]]:
    """The tid of whom a list is, and the files with their fds. Raises CaptureInvalid."""
    (tid,) = cursor.unpack(_U64)
    return tid & _ID_MASK, _files(cursor, kind == FILES_WITH_LENGTHS)


def _files(cursor: Cursor, has_lengths: bool) -> Iterator[tuple[int, File]]:
    while cursor.left >= _U32.size:
        yield _file(_entry(cursor) if has_lengths else cursor)


def _file(cursor: Cursor) -> tuple[int, File]:
    place = cursor.place
    fd, inode, kind = cursor.unpack(_FILE)
    if kind in (ScapFile.IPV4, ScapFile.IPV6):
        return fd, replace(_connection(cursor, kind), inode=inode)
    if kind in (ScapFile.IPV4_SERVER, ScapFile.IPV6_SERVER):
        return fd, replace(_listener(cursor, kind), inode=inode)
    if kind not in _TYPES:
        raise CaptureInvalid(f"an open file of the unknown type {kind}", place)
    if kind == ScapFile.UNIX:
        cursor.unpack(_VIRTUAL)
    if kind == ScapFile.FILE_V2:
        cursor.unpack(_U32)
    return fd, File(_TYPES[kind], _text(cursor, MAX_PATH), inode=inode)


def _connection(cursor: Cursor, kind: int) -> File:
    size = 4 if kind == ScapFile.IPV4 else 16
    source, target = bytes(cursor.take(size)), bytes(cursor.take(size))
    (source_port,), (target_port,) = cursor.unpack(_U16), cursor.unpack(_U16)
    protocol = _PROTOCOLS.get(cursor.take(1)[0], 0)
    return connection((source, source_port), (target, target_port), is_server=False, of=protocol)


def _listener(cursor: Cursor, kind: int) -> File:
    ip = bytes(cursor.take(4 if kind == ScapFile.IPV4_SERVER else 16))
    (port,) = cursor.unpack(_U16)
    protocol = _PROTOCOLS.get(cursor.take(1)[0], 0)
    return listener(ip, port, protocol)


def connection(
    client: tuple[bytes, int], server: tuple[bytes, int], *, is_server: bool, of: int
) -> File:
    """A socket between two ends, of the protocol `of`; `is_server` if it is the latter's."""
    local, remote = (server, client) if is_server else (client, server)
    kind = FileType.IPV4 if len(local[0]) == 4 else FileType.IPV6
    name = f"{ip_text(client[0])}:{client[1]}->{ip_text(server[0])}:{server[1]}"
    return File(kind, name.encode(), of, int(is_server), local[0], local[1], remote[0], remote[1])


def listener(ip: bytes, port: int, protocol: int) -> File:
    """A socket that listens, or will."""
    kind = FileType.IPV4 if len(ip) == 4 else FileType.IPV6
    return File(kind, f"{ip_text(ip)}:{port}".encode(), protocol, 1, ip, port)


def ip_text(ip: bytes) -> str:
    """An address of 4 or 16 bytes as text."""
    return str(IPv4Address(ip) if len(ip) == 4 else IPv6Address(ip))


def _text(cursor: Cursor, limit: int) -> bytes:
    place = cursor.place
    (length,) = cursor.unpack(_U16)
    if length > limit:
        raise CaptureInvalid(f"a text of {length} bytes is too long", place)
    return bytes(cursor.take(length))
