"""The fields of an event's file descriptor: fd.*. Pure.

Client and server are told by who accepted or listens; a socket that is neither connected nor
listens has none. What sysdig says of a failed open by its path, this says too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from hostler.core.trace import calls
from hostler.core.trace.arguments import failed as failures
from hostler.core.trace.events import Column, Events, FileType
from hostler.core.trace.field import Field, Kind, several, single
from hostler.core.trace.fields_container import HOST, container_id
from hostler.core.trace.values import Numbers, Words, by_event, by_file, texts

_TYPES: dict[int, tuple[str, str]] = {
    FileType.FILE: ("file", "f"),
    FileType.DIRECTORY: ("directory", "d"),
    FileType.IPV4: ("ipv4", "4"),
    FileType.IPV6: ("ipv6", "6"),
    FileType.UNIX: ("unix", "u"),
    FileType.PIPE: ("pipe", "p"),
    FileType.EVENT: ("event", "e"),
    FileType.SIGNAL: ("signalfd", "s"),
    FileType.EPOLL: ("eventpoll", "l"),
    FileType.INOTIFY: ("inotify", "i"),
    FileType.TIMER: ("timerfd", "t"),
    FileType.NETLINK: ("netlink", "n"),
    FileType.PACKET: ("packet", "o"),
    # To sysdig a device is a file.
    FileType.DEVICE: ("file", "f"),
    FileType.BPF: ("bpf", "b"),
    FileType.PIDFD: ("pidfd", "P"),
    FileType.MEMFD: ("memfd", "m"),
    FileType.OTHER: ("other", "o"),
}
_UNKNOWN = ("other", "o")
_ADDRESS_BYTES: dict[int, int] = {FileType.IPV4: 4, FileType.IPV6: 16}
_MAPPED = bytes(10) + b"\xff\xff"
_PROTOCOLS = {1: b"icmp", 6: b"tcp", 17: b"udp", 58: b"icmp", 255: b"raw"}
_ON_DISK = (FileType.FILE, FileType.DIRECTORY, FileType.DEVICE)


def address(packed: bytes, file_type: int) -> bytes | None:
    """A packed address in full: numpy drops the zero bytes at its end. None if it is not IP."""
    length = _ADDRESS_BYTES.get(file_type)
    if length is None:
        return None
    full = packed[:length].ljust(length, b"\0")
    # IPv4 peers of an IPv6 socket are IPv4 addresses, as in sysdig.
    return full.removeprefix(_MAPPED) if length == 16 else full


def type_char(file_type: int) -> str:
    """The letter that sysdig has for a type."""
    return _TYPES.get(file_type, _UNKNOWN)[1]


def is_connected(files: Column) -> Column:
    """Which of these files have another end: a mask."""
    mask: Column = (files["remote_port"] > 0) | (files["remote_ip"] != b"")
    return mask


def _type(events: Events) -> Words:
    types = events.files["type"]
    return by_file(events, lambda row: _TYPES.get(int(types[row]), _UNKNOWN)[0].encode())


def _type_char(events: Events) -> Words:
    files = events.files

    def text(code: int) -> bytes | None:
        if code >= len(files):
            # A file that is not known, and one that could not be opened.
            return (None, b"o", b"f")[code - len(files)]
        return type_char(int(files["type"][code])).encode()

    unknown = np.where(events["fd"] >= 0, 1, np.where(calls.among(events, calls.OPENS), 2, 0))
    codes = np.where(events["file"] > 0, events["file"], len(files) + unknown)
    return Words(codes, len(files) + 3, text)


def _name(events: Events) -> Words:
    failed_open = np.where(calls.among(events, calls.OPENS), events["path"], 0)
    return texts(events, np.where(events["file"] > 0, events.of_file("name"), failed_open))


def _directory(events: Events) -> Words:
    files, paths = events.files, events.texts

    def text(code: int) -> bytes | None:
        if code < len(files):
            file_type = int(files["type"][code])
            path = paths[int(files["name"][code])]
            return _directory_of(path, file_type) if file_type in _ON_DISK else None
        path = paths[code - len(files)]
        return _directory_of(path, FileType.FILE) if path else None

    failed_open = np.where(calls.among(events, calls.OPENS), events["path"], 0)
    codes = np.where(events["file"] > 0, events["file"], failed_open + len(files))
    return Words(codes, len(files) + len(paths), text)


def _filename(events: Events) -> Words:
    # Of a failed open sysdig tells the directory, not this.
    files, paths = events.files, events.texts

    def text(row: int) -> bytes | None:
        path = paths[int(files["name"][row])]
        is_file = files["type"][row] in (FileType.FILE, FileType.DEVICE)
        return path.rpartition(b"/")[2] or path if is_file else None

    return by_file(events, text)


def _directory_of(path: bytes, file_type: int) -> bytes:
    return path if file_type == FileType.DIRECTORY else path.rpartition(b"/")[0] or b"/"


def _sides(files: Column, side: str) -> tuple[Column, Column]:
    """Where a side (local, remote, client, server) is the local end, where the remote: masks."""
    is_ip = np.isin(files["type"], list(_ADDRESS_BYTES))
    connected, is_server = is_ip & is_connected(files), files["is_server"] > 0
    nowhere = np.zeros(len(files), bool)
    return {
        "local": (connected, nowhere),
        "remote": (nowhere, connected),
        "client": (connected & ~is_server, connected & is_server),
        "server": (is_ip & is_server, connected & ~is_server),
    }[side]


def _address(events: Events, side: str) -> Words:
    files = events.files
    is_local, is_remote = _sides(files, side)

    def text(row: int) -> bytes | None:
        if not is_local[row] and not is_remote[row]:
            return None
        end = "local_ip" if is_local[row] else "remote_ip"
        return address(bytes(files[end][row]), int(files["type"][row]))

    return by_file(events, text)


def _port(events: Events, side: str) -> Numbers:
    files = events.files
    is_local, is_remote = _sides(files, side)
    ports = np.where(is_local, files["local_port"], files["remote_port"])
    return Numbers(ports[events["file"]], (is_local | is_remote)[events["file"]])


def _both_ends(events: Events) -> tuple[Words, ...]:
    """Both addresses, of sockets that are not connected too."""
    files = events.files

    def of(end: str) -> Words:
        def text(row: int) -> bytes | None:
            packed = bytes(files[f"{end}_ip"][row])
            if not packed and not files[f"{end}_port"][row]:
                return None
            return address(packed, int(files["type"][row]))

        return by_file(events, text)

    return of("local"), of("remote")


def _both_ports(events: Events) -> tuple[Numbers, ...]:
    columns = (events.of_file("local_port"), events.of_file("remote_port"))
    return tuple(Numbers(column, column > 0) for column in columns)


def _protocol(events: Events) -> Words:
    protocols = events.files["protocol"]
    return by_file(events, lambda row: _PROTOCOLS.get(int(protocols[row]), b"<NA>"))


def _family(events: Events) -> Words:
    families: dict[int, bytes] = {
        FileType.IPV4: b"ip",
        FileType.IPV6: b"ip",
        FileType.UNIX: b"unix",
    }
    types = events.files["type"]
    return by_file(events, lambda row: families.get(int(types[row])))


def _connected(events: Events) -> Numbers:
    connected = is_connected(events.files).astype(np.uint8)
    return Numbers(connected[events["file"]], events["file"] > 0)


def _device(events: Events, part: Callable[[Any], Any]) -> Numbers:
    on_disk = np.isin(events.files["type"], _ON_DISK)[events["file"]]
    return Numbers(part(events.of_file("device").astype(np.int64)), on_disk)


def _encoded(device: Any) -> Any:
    # As st_dev is told to programs: new_encode_dev of linux/kdev_t.h.
    major, minor = device >> 20, device & 0xFFFFF
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def _number(events: Events) -> Numbers:
    # To sysdig a call that should have made an fd and failed has -1.
    failed = calls.among(events, calls.CREATES) & failures(events)
    return Numbers(np.where(failed, -1, events["fd"]), failed | (events["fd"] >= 0))


def _unique(events: Events) -> Words:
    tids, fds = events["tid"], _number(events)

    def text(event: int) -> bytes | None:
        fd = fds.at(event)
        return None if fd is None else b"%d%d" % (tids[event], fd)

    return by_event(events, text)


def _with_container(events: Events, of: Callable[[Events], Words]) -> Words:
    containers, names = container_id(events), of(events)

    def text(event: int) -> bytes | None:
        container, name = containers.at(event), names.at(event)
        # That of the host has no name here, in sysdig.
        return None if name is None else (container or HOST).removeprefix(HOST) + b":" + name

    return by_event(events, text)


def _ends() -> Iterator[Field]:
    sides = {"c": "client", "s": "server", "l": "local", "r": "remote"}
    for letter, side in sides.items():
        whose = f"the {side}'s" if side in ("client", "server") else f"the {side}"
        read_address = partial(_address, side=side)
        yield single(f"fd.{letter}ip", Kind.ADDRESS, f"{whose} IP address", read_address)
        net = f"{whose} IP address, for networks"
        yield single(f"fd.{letter}net", Kind.ADDRESS, net, read_address)
        yield single(f"fd.{letter}port", Kind.PORT, f"{whose} port", partial(_port, side=side))


FIELDS: tuple[Field, ...] = (
    single(
        "fd.num",
        Kind.INTEGER,
        "the fd: the call's first one, or the one that it made; -1 if it failed to make one",
        _number,
    ),
    single("fd.type", Kind.TEXT, "file, directory, ipv4, ipv6, unix, pipe, event …", _type),
    single("fd.typechar", Kind.TEXT, "the same as one letter: f, d, 4, 6, u, p, e …", _type_char),
    single("fd.name", Kind.TEXT, "a path, or a connection as 1.2.3.4:5->6.7.8.9:80", _name),
    single("fd.directory", Kind.TEXT, "the directory of a file", _directory),
    single("fd.filename", Kind.TEXT, "the name of a file without its directory", _filename),
    several("fd.ip", Kind.ADDRESS, "the IP address of either end", _both_ends),
    several("fd.net", Kind.ADDRESS, "the IP address of either end, for networks", _both_ends),
    several("fd.port", Kind.PORT, "the port of either end", _both_ports),
    *_ends(),
    single("fd.l4proto", Kind.TEXT, "tcp, udp, icmp, raw; <NA> if it is none", _protocol),
    single("fd.sockfamily", Kind.TEXT, "ip or unix, of sockets", _family),
    single(
        "fd.is_server",
        Kind.BOOL,
        "whether the socket was accepted, or listens",
        lambda events: Numbers(events.of_file("is_server"), events["file"] > 0),
    ),
    single("fd.connected", Kind.BOOL, "whether the socket has another end", _connected),
    single("fd.uid", Kind.TEXT, "tid and fd, one after the other", _unique, is_costly=True),
    single(
        "fd.containername",
        Kind.TEXT,
        "container.id:fd.name",
        lambda events: _with_container(events, _name),
        is_costly=True,
    ),
    single(
        "fd.containerdirectory",
        Kind.TEXT,
        "container.id:fd.directory",
        lambda events: _with_container(events, _directory),
        is_costly=True,
    ),
    single(
        "fd.dev",
        Kind.INTEGER,
        "the device of the file's filesystem, as stat(2) tells it",
        lambda events: _device(events, _encoded),
    ),
    single(
        "fd.dev.major",
        Kind.INTEGER,
        "its major number",
        lambda events: _device(events, lambda device: device >> 20),
    ),
    single(
        "fd.dev.minor",
        Kind.INTEGER,
        "its minor number",
        lambda events: _device(events, lambda device: device & 0xFFFFF),
    ),
    single(
        "fd.ino",
        Kind.INTEGER,
        "the file's inode",
        lambda events: Numbers(events.of_file("inode"), events.of_file("inode") > 0),
    ),
)
