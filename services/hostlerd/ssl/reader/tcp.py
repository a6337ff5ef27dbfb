"""The TCP sockets of a network namespace. Source: proc(5), /proc/PID/net/tcp."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hostlerd.ssl.reader import proc

_LISTEN = "0A"
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A socket: where it is bound, whether it listens, and the inode by which it is held."""

    address: str
    port: int
    listens: bool
    inode: int

    @property
    def place(self) -> str:
        """ADDRESS:PORT; "*" and "[::]" stand for all addresses."""
        if self.address == "0.0.0.0":  # noqa: S104 # compared, not bound
            return f"*:{self.port}"
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


def sockets(pid: int) -> list[TcpSocket]:
    """The sockets of the network namespace that a process is in; [] if it is gone."""
    found = []
    for name in ("tcp", "tcp6"):
        for line in proc.text(f"/proc/{pid}/net/{name}", _MOST_BYTES).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9:
                host, _, port = fields[1].partition(":")
                inode = int(fields[9])
                found.append(TcpSocket(_address(host), int(port, 16), fields[3] == _LISTEN, inode))
    return found


def _address(text: str) -> str:
    """An address as the kernel prints it: words in the order of this machine."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(packed) == 4:
        return str(IPv4Address(packed))
    address = IPv6Address(packed)
    mapped = address.ipv4_mapped
    return str(mapped) if mapped else socket.inet_ntop(socket.AF_INET6, packed)
