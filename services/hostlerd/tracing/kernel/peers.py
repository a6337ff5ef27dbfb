"""Who is at the other end of a socket."""

from __future__ import annotations

from functools import cached_property

from hostlerd.tracing.errors import KernelUnreadable
from hostlerd.tracing.kernel import proc, sockets
from hostlerd.tracing.kernel.descriptors import Openers
from hostlerd.tracing.model.evidence import Peer
from hostlerd.tracing.model.socket import InternetSocket, UnixSocket, joined


class Peers:
    """The sockets of the host, read once and when they are asked for."""

    def __init__(self, openers: Openers) -> None:
        self._openers = openers
        self._internet: dict[str, dict[int, InternetSocket]] = {}
        self.problem = ""

    @cached_property
    def _unix(self) -> dict[int, UnixSocket]:
        try:
            return {each.inode: each for each in sockets.unix_sockets()}
        except KernelUnreadable as e:
            self.problem = e.message
            return {}

    def of(self, pid: int, name: str) -> Peer | None:
        """The peer of a socket that a process has open; None if that cannot be told."""
        inode = int(name.removeprefix("socket:[").rstrip("]"))
        if inode in self._unix:
            return self._of_unix(self._unix[inode])
        namespace = proc.link(f"/proc/{pid}/ns/net") or str(pid)
        if namespace not in self._internet:
            found = sockets.internet_sockets(pid)
            self._internet[namespace] = {each.inode: each for each in found if each.inode}
        here = self._internet[namespace]
        return self._of_internet(here[inode], here) if inode in here else None

    def _of_unix(self, own: UnixSocket) -> Peer:
        # Of a connection that nobody has accepted the peer is no socket yet, and has no inode.
        peer = self._unix.get(own.peer) or self._listeners.get(own.inode)
        if peer is None:
            return Peer("a unix socket without a peer")
        name = peer.path or own.path
        words = f"a unix socket to {name}" if name else "a unix socket"
        pids = self._openers.holding(f"socket:[{peer.inode}]")
        if peer.inode != own.peer:
            return Peer(f"{words}, which has not accepted it", pids)
        return Peer(words, pids, peer.received)

    @cached_property
    def _listeners(self) -> dict[int, UnixSocket]:
        """The listener at which each connection waits to be accepted, by who connects."""
        return {inode: each for each in self._unix.values() for inode in each.waiting}

    def _of_internet(self, own: InternetSocket, here: dict[int, InternetSocket]) -> Peer:
        words = f"a {own.protocol.upper()} connection to {joined(own.peer, own.peer_port)}"
        for other in here.values():
            if other.ends == own.ends_from_there and other.protocol == own.protocol:
                pids = self._openers.holding(f"socket:[{other.inode}]")
                return Peer(words, pids, other.received_bytes)
        return Peer(words)
