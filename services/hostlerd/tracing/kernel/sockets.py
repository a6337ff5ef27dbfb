"""The sockets of a process's network namespace: what they are, how they fare, who is the peer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from hostlerd.tracing.errors import KernelUnreadable
from hostlerd.tracing.kernel import proc
from hostlerd.tracing.model.socket import InternetSocket, UnixSocket

NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _NLMSG_ERROR, _NLMSG_DONE = 20, 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_HEADER = struct.Struct("=IHHII")
# struct unix_diag_req, struct unix_diag_msg. Source: linux/unix_diag.h.
_UNIX_REQUEST = struct.Struct("=BBHIIIII")
_UNIX_MESSAGE = struct.Struct("=BBBxIII")
_SHOW_NAME, _SHOW_PEER, _SHOW_ICONS, _SHOW_RQLEN = 1, 4, 8, 16
_ATTRIBUTE = struct.Struct("=HH")
_NAME, _PEER, _ICONS, _RQLEN = 0, 2, 3, 4
_ALL_STATES = 0xFFFFFFFF
_TIMEOUT_S = 5.0
_PROTOCOLS = (
    *(("tcp", 4), ("tcp6", 6), ("udp", 4), ("udp6", 6)),
    *(("udplite", 4), ("udplite6", 6), ("raw", 4), ("raw6", 6)),
)


def unix_sockets() -> list[UnixSocket]:
    """All unix sockets of the host's network namespace. Raises KernelUnreadable.

    Source: sock_diag(7).
    """
    try:
        return list(_unix())
    except (OSError, struct.error) as e:
        raise KernelUnreadable(f"unix sockets: {e}") from e


def _unix() -> Iterator[UnixSocket]:
    show = _SHOW_NAME | _SHOW_PEER | _SHOW_ICONS | _SHOW_RQLEN
    asked = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, show, 0xFFFFFFFF, 0xFFFFFFFF)
    return map(_unix_socket, dump(asked, "unix_diag"))


def dump(asked: bytes, module: str) -> Iterator[memoryview]:
    """What the kernel answers to a request of sock_diag(7) for all. Raises OSError.

    `module` is the part of the kernel that has to be there for it.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(_TIMEOUT_S)
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        size = _HEADER.size + len(asked)
        sock.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, flags, 1, 0) + asked)
        while True:
            data = memoryview(sock.recv(1 << 18))
            while data:
                size, kind, *_ = _HEADER.unpack_from(data)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    (error,) = struct.unpack_from("=i", data, _HEADER.size)
                    raise OSError(-error, f"the kernel has no {module}")
                yield data[_HEADER.size : size]
                data = data[size + 3 & ~3 :]


def _unix_socket(message: memoryview) -> UnixSocket:
    _, kind, state, inode, _, _ = _UNIX_MESSAGE.unpack_from(message)
    values: dict[int, bytes] = {}
    rest = message[_UNIX_MESSAGE.size :]
    while len(rest) >= _ATTRIBUTE.size:
        size, number = _ATTRIBUTE.unpack_from(rest)
        if size < _ATTRIBUTE.size:
            break
        values[number] = bytes(rest[_ATTRIBUTE.size : size])
        rest = rest[size + 3 & ~3 :]
    received, sent = struct.unpack("=II", values[_RQLEN]) if _RQLEN in values else (0, 0)
    peer = int.from_bytes(values.get(_PEER, b""), "little")
    name = values.get(_NAME, b"")
    # An abstract name begins with NUL, and is shown as ss(8) shows it.
    path = ("@" if name[:1] == b"\0" else "") + name.strip(b"\0").decode("utf-8", "replace")
    icons = values.get(_ICONS, b"")
    waiting = struct.unpack(f"={len(icons) // 4}I", icons)
    return UnixSocket(inode, kind, state, path, peer, received, sent, waiting)


def internet_sockets(pid: int | str) -> list[InternetSocket]:
    """All sockets of IPv4 and IPv6 in the network namespace of a process, or of "thread-self"."""
    found = []
    for name, version in _PROTOCOLS:
        content = proc.text(f"/proc/{pid}/net/{name}", 4 * proc.MOST_BYTES)
        for line in content.splitlines()[1:]:
            with suppress(ValueError, IndexError):
                found.append(_internet(name.rstrip("6"), version, line.split()))
    return found


def _internet(protocol: str, version: int, words: list[str]) -> InternetSocket:
    sent, _, received = words[4].partition(":")
    local, local_port = _address(words[1], version)
    peer, peer_port = _address(words[2], version)
    return InternetSocket(
        inode=int(words[9]),
        protocol=protocol,
        state=int(words[3], 16),
        local=local,
        local_port=local_port,
        peer=peer,
        peer_port=peer_port,
        received_bytes=int(received, 16),
        unsent_bytes=int(sent, 16),
        uid=int(words[7]),
    )


def _address(word: str, version: int) -> tuple[str, int]:
    """Read an address as /proc/net has it: words of 32 bits in the order of the machine."""
    number, _, port = word.partition(":")
    data = b"".join(bytes.fromhex(number[i : i + 8])[::-1] for i in range(0, len(number), 8))
    kind = IPv4Address if version == 4 else IPv6Address
    return str(kind(data)), int(port, 16)
