"""Sockets as the kernel shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Source: linux/net/tcp_states.h; sockets that are not of TCP use some of them as well.
STATES = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECV",
    4: "FIN_WAIT1",
    5: "FIN_WAIT2",
    6: "TIME_WAIT",
    7: "CLOSE",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "NEW_SYN_RECV",
}
UNIX_TYPES = {1: "stream", 2: "dgram", 5: "seqpacket"}
LISTEN = 10


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A unix socket. `peer` is the inode of the other end, 0 if it has none.

    `received` is bytes not yet read, or of a listener, connections not yet accepted; `sent` bytes
    that the peer has not read, or of a listener, how many may wait. `waiting` are the inodes of
    those whose connections a listener has not accepted.
    """

    inode: int
    type: int
    state: int
    path: str
    peer: int
    received: int
    sent: int
    waiting: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class InternetSocket:
    """A socket of TCP, UDP, UDP-Lite or raw IP."""

    inode: int
    protocol: str
    state: int
    local: str
    local_port: int
    peer: str
    peer_port: int
    received_bytes: int
    unsent_bytes: int
    uid: int

    @property
    def ends(self) -> tuple[str, int, str, int]:
        """Both ends, from here to there."""
        return self.local, self.local_port, self.peer, self.peer_port

    @property
    def ends_from_there(self) -> tuple[str, int, str, int]:
        """Both ends as the peer's socket has them."""
        return self.peer, self.peer_port, self.local, self.local_port


@dataclass(frozen=True, slots=True)
class Entry:
    """A socket of any kind as it is listed; see SocketEntry in socket.proto."""

    protocol: str
    state: str
    local: str
    peer: str
    receive_queue: int
    send_queue: int
    inode: int
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sockets are wanted; what is empty selects all."""

    protocol: str = ""
    listening: bool = False
    pid: int = 0

    def takes(self, entry: Entry) -> bool:
        """Whether an entry is wanted. "unix" stands for all kinds of it."""
        kind = entry.protocol.partition("-")[0] if self.protocol == "unix" else entry.protocol
        return (
            self.protocol in ("", kind)
            and (not self.listening or entry.state == STATES[LISTEN])
            and (not self.pid or self.pid in entry.pids)
        )


def select(entries: Iterable[Entry], wanted: Selection, after: tuple[str, int]) -> list[Entry]:
    """Answer those that are wanted and come after one, by protocol and inode."""
    found = (entry for entry in entries if (entry.protocol, entry.inode) > after)
    return sorted(filter(wanted.takes, found), key=lambda each: (each.protocol, each.inode))


def joined(address: str, port: int) -> str:
    """An address with its port, as URLs have it; a port of 0 is any."""
    shown = "*" if port == 0 else port
    return f"[{address}]:{shown}" if ":" in address else f"{address}:{shown}"
