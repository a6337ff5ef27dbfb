"""The listening sockets that systemd holds for a daemon, and the folder of its private ones.

Source: sd_listen_fds(3). One `FileDescriptorName=` serves every socket of a unit, so the names
say nothing: sockets are told apart by their address family.

systemd's TCP socket is bound to every address. To which of them callers may come is decided when a
connection is accepted, by the address that it came to: so hostler.toml alone says it, a network
holds for addresses that the host gets later, and no boot fails because one is not there yet, as
binding to it would. Who knocks elsewhere is cut off before a byte is read.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

Network = IPv4Network | IPv6Network
EVERYWHERE: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

_FIRST_FD = 3
_MOST_FDS = 64
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class SocketsUnusable(RuntimeError):
    """What systemd handed over, or the folder of the private sockets, is not as it must be."""


class ListenerKind(Enum):
    """Where callers of a listener come from: the network with TLS, or this host without."""

    TCP = "tcp"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening stream socket, non-blocking and closed on exec."""

    socket: socket.socket
    kind: ListenerKind


def listener_of(sock: socket.socket) -> Listener:
    """Make a listener of a listening stream socket; its address family says the kind.

    Raises SocketsUnusable if the socket does not listen for streams of IP or AF_UNIX.
    """
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM or not listens:
        raise SocketsUnusable(f"fd {sock.fileno()} is no listening IP or unix stream socket")
    sock.setblocking(False)
    sock.set_inheritable(False)
    local = sock.family == socket.AF_UNIX
    return Listener(sock, ListenerKind.LOCAL if local else ListenerKind.TCP)


def inherited() -> list[Listener]:
    """Take over all listening sockets that systemd passed; none if they are for another process.

    The variables are removed from the environment, so that no child takes them for its own.
    Raises SocketsUnusable for a descriptor that is no listening stream socket.
    """
    owner = os.environ.pop("LISTEN_PID", "")
    number = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if owner != str(os.getpid()):
        return []
    if not number.isdecimal() or int(number) > _MOST_FDS:
        raise SocketsUnusable(f"LISTEN_FDS is not a number up to {_MOST_FDS}: {number[:20]!r}")
    return [_adopt(fd) for fd in range(_FIRST_FD, _FIRST_FD + int(number))]


def _adopt(fd: int) -> Listener:
    try:
        return listener_of(socket.socket(fileno=fd))
    except OSError as error:
        raise SocketsUnusable(f"fd {fd}: {error.strerror}") from error


def networks(words: Sequence[str]) -> tuple[Network, ...]:
    """Read addresses and networks, such as "192.0.2.10" and "fd00::/64". Raises ValueError."""
    return tuple(ip_network(word) for word in words)


@lru_cache(maxsize=1024)
def within(address: str, listed: tuple[Network, ...]) -> bool:
    """Tell whether an address, without port, lies in one of the networks."""
    # Of a link-local address the link does not matter here.
    found = ip_address(address.partition("%")[0])
    return any(found in network for network in listed)


def require_private(folder: Path) -> None:
    """Make sure that nobody else can reach a socket in the folder: ours, and 0700.

    Connecting to a unix socket takes search permission on its folder; this is what keeps other
    users away from the servers behind the relay. Raises SocketsUnusable.
    """
    try:
        found = folder.stat()
    except OSError as error:
        raise SocketsUnusable(f"{folder}: {error.strerror}") from error
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid() or mode & 0o077:
        raise SocketsUnusable(f"{folder} must be 0700 and ours, is {mode:04o} of {found.st_uid}")
