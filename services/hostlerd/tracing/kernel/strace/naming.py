"""What strace(1) calls open files, in the words of events. Pure."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from hostler.core.trace.events import FileType
from hostlerd.tracing.kernel.strace.text import unescaped_name

_NUMBERED = re.compile(rb"(/.*)<(?:char|block) (\d{1,8}):(\d{1,8})>", re.DOTALL)
_SOCKET = re.compile(rb"([A-Za-z0-9-]{1,20}):\[(.*)\]", re.DOTALL)
_END = re.compile(rb"(?:\[([0-9a-f:.%]{1,60})\]|([0-9.]{1,15})):(\d{1,5})")
_UNIX = re.compile(rb'(\d{1,20})(?:->\d{1,20})?(?:,(@?)"((?:[^"\\]|\\.)*)")?', re.DOTALL)
_ANONYMOUS = {
    b"[eventfd]": FileType.EVENT,
    b"[signalfd]": FileType.SIGNAL,
    b"[eventpoll]": FileType.EPOLL,
    b"inotify": FileType.INOTIFY,
    b"[timerfd]": FileType.TIMER,
    b"[pidfd]": FileType.PIDFD,
}
_PROTOCOLS = {
    b"TCP": (FileType.IPV4, socket.IPPROTO_TCP),
    b"UDP": (FileType.IPV4, socket.IPPROTO_UDP),
    b"TCPv6": (FileType.IPV6, socket.IPPROTO_TCP),
    b"UDPv6": (FileType.IPV6, socket.IPPROTO_UDP),
}


@dataclass(frozen=True, slots=True)
class File:
    """An open file as events have it."""

    type: FileType = FileType.NONE
    name: bytes = b""
    protocol: int = 0
    local: tuple[bytes, int] = (b"", 0)
    remote: tuple[bytes, int] = (b"", 0)


NOTHING = File()


def file_of(decoration: bytes) -> File:
    """What an fd refers to, by what strace wrote after its number."""
    if not decoration:
        return NOTHING
    numbered = _NUMBERED.fullmatch(decoration)
    if numbered:
        return File(FileType.DEVICE, unescaped_name(numbered[1]))
    if decoration.startswith(b"/memfd:"):
        return File(FileType.MEMFD, unescaped_name(decoration))
    if decoration.startswith(b"/"):
        return File(FileType.FILE, unescaped_name(decoration))
    if decoration.startswith(b"pipe:["):
        return File(FileType.PIPE, decoration)
    if decoration.startswith(b"anon_inode:"):
        kind = _ANONYMOUS.get(decoration.removeprefix(b"anon_inode:"), FileType.OTHER)
        return File(kind, decoration)
    found = _SOCKET.fullmatch(decoration)
    return _of_socket(found[1], found[2]) if found else File(FileType.OTHER, decoration)


def _of_socket(kind: bytes, rest: bytes) -> File:
    if kind in _PROTOCOLS:
        return _of_address(*_PROTOCOLS[kind], rest)
    if kind.startswith(b"UNIX"):
        found = _UNIX.fullmatch(rest)
        if found and found[3] is not None:
            return File(FileType.UNIX, found[2] + unescaped_name(found[3]))
        return File(FileType.UNIX, b"socket:[%s]" % (found[1] if found else rest))
    types = {b"NETLINK": FileType.NETLINK, b"PACKET": FileType.PACKET}
    inode = re.search(rb"\d{1,20}", rest)
    name = b"socket:[%s]" % (inode[0] if inode else rest)
    return File(types.get(kind, FileType.OTHER), name)


def _of_address(kind: FileType, protocol: int, rest: bytes) -> File:
    ends = [_end(each) for each in rest.split(b"->")]
    if not ends[0][1]:
        return File(kind, b"socket:[%s]" % rest, protocol)
    remote = ends[1] if len(ends) > 1 else (b"", 0)
    return File(kind, rest, protocol, ends[0], remote)


def _end(text: bytes) -> tuple[bytes, int]:
    found = _END.fullmatch(text)
    if found is None:
        return b"", 0
    family = socket.AF_INET6 if found[1] is not None else socket.AF_INET
    try:
        address = socket.inet_pton(family, (found[1] or found[2]).decode())
    except (OSError, ValueError):
        return b"", 0
    return address, int(found[3])
