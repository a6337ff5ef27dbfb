"""What an open file is called, from what the tracer says of it. Pure."""

from __future__ import annotations

import socket
import stat

import numpy as np

from hostler.core.trace.events import FileType

_ANON_INODE = 0x09041934
_PIPE = 0x50495045
_PIDFS = 0x50494446
_NSFS = 0x6E736673
_ANONYMOUS = {
    b"[eventfd]": FileType.EVENT,
    b"[signalfd]": FileType.SIGNAL,
    b"[eventpoll]": FileType.EPOLL,
    b"inotify": FileType.INOTIFY,
    b"[timerfd]": FileType.TIMER,
    b"[pidfd]": FileType.PIDFD,
}
_FAMILIES = {
    int(socket.AF_INET): FileType.IPV4,
    int(socket.AF_INET6): FileType.IPV6,
    int(socket.AF_UNIX): FileType.UNIX,
    int(socket.AF_NETLINK): FileType.NETLINK,
    int(socket.AF_PACKET): FileType.PACKET,
}
_MODES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFCHR: FileType.DEVICE,
    stat.S_IFBLK: FileType.DEVICE,
    stat.S_IFIFO: FileType.PIPE,
}


def joined(names: bytes) -> bytes:
    """A path from names that go from the leaf up, each ended by NUL."""
    return b"/" + b"/".join(reversed(names.split(b"\0")[:-1]))


def of_file(record: np.void, text: bytes) -> tuple[FileType, bytes]:
    """The type and name of a file that is told by `record`, of type layout.FILE."""
    inode, magic = int(record["inode"]), int(record["magic"])
    if record["family"]:
        return _of_socket(record, text, inode)
    if magic == _ANON_INODE:
        name = text.rstrip(b"\0")
        kind = FileType.BPF if name.startswith(b"bpf") else _ANONYMOUS.get(name, FileType.OTHER)
        return kind, b"anon_inode:" + name
    if magic == _PIPE:
        return FileType.PIPE, b"pipe:[%d]" % inode
    if magic == _PIDFS:
        return FileType.PIDFD, b"anon_inode:[pidfd]"
    if magic == _NSFS:
        return FileType.OTHER, b"ns:[%d]" % inode
    if text.startswith(b"memfd:"):
        return FileType.MEMFD, b"/" + text.rstrip(b"\0") + b" (deleted)"
    kind = _MODES.get(stat.S_IFMT(int(record["mode"])), FileType.OTHER)
    cut = b"..." if record["head"]["is_cut"] else b""
    return kind, cut + joined(text) + (b" (deleted)" if record["is_deleted"] else b"")


def _of_socket(record: np.void, text: bytes, inode: int) -> tuple[FileType, bytes]:
    family = int(record["family"])
    kind = _FAMILIES.get(family, FileType.OTHER)
    name = b""
    if kind in (FileType.IPV4, FileType.IPV6):
        name = _tuple_of(record, family)
    elif kind is FileType.UNIX:
        # An abstract name begins with NUL, which is written as @, and has no end.
        name = b"@" + text[1:] if text.startswith(b"\0") else text.rstrip(b"\0")
    return kind, name or b"socket:[%d]" % inode


def _tuple_of(record: np.void, family: int) -> bytes:
    """`CLIENT->SERVER`, the local end alone where nothing is connected, empty if unbound."""
    size = 4 if family == socket.AF_INET else 16
    ends = [
        (bytes(record[f"{end}_ip"])[:size], int(record[f"{end}_port"]))
        for end in ("local", "remote")
    ]
    local, remote = (_end(family, *end) for end in ends)
    if not ends[1][1]:
        return local if ends[0][1] else b""
    return remote + b"->" + local if record["is_server"] else local + b"->" + remote


def _end(family: int, address: bytes, port: int) -> bytes:
    mapped = b"\0" * 10 + b"\xff\xff"
    if address.startswith(mapped) and len(address) == 16:
        family, address = socket.AF_INET, address[12:]
    text = socket.inet_ntop(family, address)
    return (f"[{text}]" if family == socket.AF_INET6 else text).encode() + b":%d" % port
