"""What processes and open files there are, followed from event to event of a `.scap` file. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hostler.core.trace.events import FileType
from hostler.core.trace.scap_layout import CLONES, MAKES_FD
from hostler.core.trace.scap_lists import (
    File,
    Process,
    connection,
    first_cgroup,
    joined_cmdline,
    listener,
)
from hostler.core.trace.schema import CaptureInvalid
from hostler.core.trace.syscalls import all_syscalls

# What a file from anyone may have us remember.
_MAX_THREADS = 64 * 1024
_MAX_FILES = 256 * 1024

_UNIX, _IPV4, _IPV6, _NETLINK = 1, 2, 10, 16
_ADDRESS_SIZES = {_IPV4: 4, _IPV6: 16}
_FAMILIES = {
    _UNIX: FileType.UNIX,
    _IPV4: FileType.IPV4,
    _IPV6: FileType.IPV6,
    _NETLINK: FileType.NETLINK,
}
_MADE_TYPES = {
    "eventfd": FileType.EVENT,
    "signalfd": FileType.SIGNAL,
    "timerfd_create": FileType.TIMER,
    "inotify_init": FileType.INOTIFY,
}
_EINPROGRESS = 115
_F_DUPFD = (0, 1030)
_AT_FDCWD = (1 << 64) - 100
_TCP = 6


@dataclass(slots=True)
class Call:
    """A call on its way through the importer: what its events said so far."""

    name: str
    number: int
    tid: int
    time_ns: int
    cpu: int = 0
    latency_ns: int = 0
    flags: int = 0
    result: int = 0
    arguments: list[int] = field(default_factory=lambda: [0] * 6)
    texts: dict[str, bytes] = field(default_factory=dict)
    """By word of `scap_calls.tsv`: path, path2, opened, data, tuple, addr, remote, env."""
    said: dict[str, bytes] = field(default_factory=dict)
    """What it said of its process, by the name of the parameter."""


class State:
    """The threads and open files at the moment, bounded."""

    def __init__(self) -> None:
        self._threads: dict[int, Process] = {}
        self._files: dict[int, dict[int, File]] = {}
        self._file_count = 0

    def add_thread(self, tid: int, process: Process) -> None:
        """Note who a thread is. Raises CaptureInvalid if there are too many."""
        if tid not in self._threads and len(self._threads) >= _MAX_THREADS:
            raise CaptureInvalid(f"more than {_MAX_THREADS} threads at a time", "processes")
        self._threads[tid] = process

    def add_file(self, pid: int, fd: int, file: File) -> None:
        """Note what an fd of a process is. Raises CaptureInvalid if there are too many."""
        files = self._files.setdefault(pid, {})
        if fd not in files:
            if self._file_count >= _MAX_FILES:
                raise CaptureInvalid(f"more than {_MAX_FILES} open files at a time", "files")
            self._file_count += 1
        files[fd] = file

    def process(self, tid: int) -> Process:
        """Who a thread is; one that the file has not told of is a process of its own."""
        return self._threads.get(tid) or Process(pid=tid)

    def end_thread(self, tid: int) -> None:
        """Forget a thread, and with the main one its files."""
        self._threads.pop(tid, None)
        self._file_count -= len(self._files.pop(tid, {}))

    def finish(self, call: Call) -> tuple[Process, int, File]:
        """What a call that is complete was about, and what it changed: process, fd and file."""
        if call.said:
            self._tell_process(call)
        call.texts.setdefault("path", call.texts.get("opened", b""))
        process = self.process(call.tid)
        if call.name in CLONES and call.result > 0:
            self._clone(call, process)
        self._make_absolute(call, process)
        fd, file = self._file_of(call, process.pid)
        self._change(call, process.pid, fd, file)
        return process, fd, file

    def _tell_process(self, call: Call) -> None:
        if call.name not in CLONES and call.result:
            return
        said = call.said
        known = self.process(call.tid)
        program, arguments = _cut(said["exe"]), said["args"]
        exe = call.texts.get("path") or known.exe
        told = Process(
            pid=_number(said["pid"]),
            ppid=_number(said["ppid"]),
            name=_cut(said["name"]),
            exe=known.exe if call.name in CLONES else exe,
            cmdline=joined_cmdline(program, arguments),
            environ=call.texts.get("env", known.environ),
            cwd=_cut(said["cwd"]),
            uid=_number(said["uid"]) if "uid" in said else known.uid,
            gid=_number(said["gid"]) if "gid" in said else known.gid,
            loginuid=_number(said["loginuid"]) if "loginuid" in said else known.loginuid,
            sid=known.sid,
            tty=_number(said["tty"]) if "tty" in said else known.tty,
            vpid=_number(said["vpid"]) if "vpid" in said else known.vpid,
            cgroup=first_cgroup(said["cgroups"]),
        )
        self.add_thread(call.tid, told)

    def _clone(self, call: Call, parent: Process) -> None:
        child = call.result & 0xFFFF_FFFF
        is_thread = bool(call.arguments[0] & 0x10000)
        if child in self._threads:
            return
        if is_thread:
            self.add_thread(child, parent)
            return
        self.add_thread(child, replace(parent, pid=child, ppid=parent.pid, vpid=child))
        for fd, file in list(self._files.get(parent.pid, {}).items()):
            self.add_file(child, fd, file)

    def _make_absolute(self, call: Call, process: Process) -> None:
        path = call.texts.get("path", b"")
        arguments = all_syscalls()[call.name].index_of("dirfd") if call.name in _CALLS else None
        is_here = arguments is None or call.arguments[arguments] == _AT_FDCWD
        if path and is_here and not path.startswith(b"/") and process.cwd.startswith(b"/"):
            call.texts["path"] = process.cwd.rstrip(b"/") + b"/" + path

    def _file_of(self, call: Call, pid: int) -> tuple[int, File]:
        if call.name in MAKES_FD:
            if call.result < 0:
                return -1, File()
            fd = call.result & 0x7FFF_FFFF
            return fd, self._made(call, pid)
        at = all_syscalls()[call.name].index_of("fd") if call.name in _CALLS else None
        if at is None:
            return -1, File()
        fd = _signed(call.arguments[at])
        known = self._files.get(pid, {}).get(fd, File())
        return fd, _renamed(call, known)

    def _made(self, call: Call, pid: int) -> File:
        name = call.name.rstrip("0123456789")
        if name in ("open", "openat", "creat"):
            return File(FileType.FILE, call.texts["path"], device=_device(call))
        if name == "accept":
            return _of_tuple(call.texts.get("tuple", b""), is_server=True)
        if name == "socket":
            kind = _FAMILIES.get(call.arguments[0], FileType.OTHER)
            return File(kind, protocol=_protocol(call))
        if name == "dup":
            return self._files.get(pid, {}).get(_signed(call.arguments[0]), File())
        return File(_MADE_TYPES[name])

    def _change(self, call: Call, pid: int, fd: int, file: File) -> None:
        if call.name == "close":
            files = self._files.get(pid, {})
            if not call.result and fd in files:
                del files[fd]
                self._file_count -= 1
        elif fd >= 0 and (call.name in MAKES_FD or call.name in ("connect", "bind")):
            self.add_file(pid, fd, file)
        elif call.name == "fcntl" and call.arguments[1] in _F_DUPFD and call.result >= 0:
            self.add_file(pid, call.result & 0x7FFF_FFFF, file)


_CALLS: Mapping[str, object] = all_syscalls()


def _renamed(call: Call, known: File) -> File:
    """The file as it is once the call has given it an address."""
    if call.name == "connect" and call.result in (0, -_EINPROGRESS):
        told = _of_tuple(call.texts.get("tuple", b""), is_server=False, of=known.protocol)
    elif call.name == "bind" and not call.result:
        told = _of_address(call.texts.get("addr", b""), known.protocol)
    else:
        return known
    return known if told.type == FileType.NONE else replace(told, inode=known.inode)


def _of_tuple(packed: bytes, *, is_server: bool, of: int = _TCP) -> File:
    """Family, then both ends: of libscap, client first. Anything else is no file."""
    family = packed[0] if packed else 0
    size = _ADDRESS_SIZES.get(family)
    if size is not None and len(packed) == 1 + 2 * (size + 2):
        ends = [packed[i : i + size + 2] for i in (1, size + 3)]
        client, server = ((end[:size], struct.unpack("<H", end[size:])[0]) for end in ends)
        return connection(client, server, is_server=is_server, of=of)
    if family == _UNIX and len(packed) > 17:
        return File(FileType.UNIX, _cut(packed[17:]))
    return File()


def _of_address(packed: bytes, protocol: int) -> File:
    family = packed[0] if packed else 0
    size = _ADDRESS_SIZES.get(family)
    if size is not None and len(packed) == size + 3:
        return listener(packed[1 : 1 + size], struct.unpack("<H", packed[1 + size :])[0], protocol)
    if family == _UNIX:
        return File(FileType.UNIX, _cut(packed[1:]))
    return File()


def _protocol(call: Call) -> int:
    """The protocol of a new socket; that of its type if it has the usual one."""
    usual = {1: _TCP, 2: 17}.get(call.arguments[1] & 0xF, 0)
    is_internet = call.arguments[0] in _ADDRESS_SIZES
    return (call.arguments[2] & 0xFF or usual) if is_internet else 0


def _device(call: Call) -> int:
    packed = _number(call.texts.get("dev", b""))
    minor = packed & 0xFF | packed >> 12 & 0xF_FF00
    return (packed >> 8 & 0xFFF) << 20 | minor


def _cut(text: bytes) -> bytes:
    return text.split(b"\0", 1)[0]


def _number(packed: bytes) -> int:
    return int.from_bytes(packed[:4], "little")


def _signed(value: int) -> int:
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value
