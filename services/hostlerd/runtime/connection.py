"""One relayed connection: who is at its far end, and the two sides that bytes pass between."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Network
from typing import cast

from hostlerd.runtime.sockets import ListenerKind

_MAPPED = "::ffff:"
_COUNTED_PREFIXLEN = 64


@dataclass(frozen=True, slots=True)
class Peer:
    """The far end of a connection, as the kernel names it.

    `address` and `port` are set for TCP; `uid`, `gid` and `pid` for local callers, as they were
    when the caller connected (SO_PEERCRED, unix(7)). IPv4 mapped into IPv6 is plain IPv4. `here` is
    the address of this host that a TCP caller came to; `own` says that it came from that very one.
    """

    listener: ListenerKind
    address: str | None = None
    port: int | None = None
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    here: str | None = field(default=None, compare=False)
    own: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """Who it is without the port: an address or a uid."""
        return f"uid={self.uid}" if self.address is None else self.address

    @property
    def key(self) -> str:
        """Whom limits count this connection for: a uid, an IPv4 address or an IPv6 /64.

        Whoever has one address of a /64 has all 2^64 of them (RFC 7084, RFC 8273).
        """
        return self.name if self.address is None else _counted(self.address)

    def __str__(self) -> str:
        if self.address is None:
            return f"uid={self.uid} pid={self.pid}"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


@lru_cache(maxsize=4096)
def _counted(address: str) -> str:
    if ":" not in address:
        return address
    # A link-local address names its link, too: fe80::1%eth0. Each link has a /64 of its own.
    plain, _, link = address.partition("%")
    network = IPv6Network((plain, _COUNTED_PREFIXLEN), strict=False)
    return f"{network}%{link}" if link else str(network)


def peer_of(sock: socket.socket, kind: ListenerKind, name: object) -> Peer:
    """Say who is at the far end of an accepted socket; `name` is what accept(2) answered.

    Raises OSError if a local caller's credentials cannot be read.
    """
    if kind is ListenerKind.LOCAL:
        size_bytes = struct.calcsize("3i")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size_bytes)
        # uid_t and gid_t have no sign; pid_t has.
        pid, uid, gid = struct.unpack("iII", raw)
        return Peer(kind, uid=uid, gid=gid, pid=pid)
    address, port = cast(tuple[str, int], name)[:2]
    here: str = sock.getsockname()[0]
    return Peer(
        kind,
        address=address.removeprefix(_MAPPED),
        port=port,
        here=here.removeprefix(_MAPPED),
        own=here == address,
    )


class Connection:
    """A connection from a caller, through the relay, to the server behind it.

    `calls` is how many calls began on it, `active` how many are going on. `opened` is the wall
    clock (seconds since 1970) and `born` the monotonic one (seconds) at its start; `touched` is
    the monotonic time of the last byte in either direction, and of the last end of a call.
    `answered` says that the server spoke last, `explained` that the end of the connection has
    been counted and logged with its reason.
    """

    __slots__ = (
        "_ends",
        "_joined",
        "_open_sides",
        "_parting",
        "_timer",
        "active",
        "answered",
        "authenticated",
        "born",
        "calls",
        "client",
        "explained",
        "opened",
        "peer",
        "server",
        "token",
        "touched",
    )

    def __init__(self, peer: Peer, ends: Ends) -> None:
        self.peer = peer
        self.token = ""
        self.authenticated = False
        self.calls = 0
        self.active = 0
        self.answered = False
        self.explained = False
        self.opened = time.time()
        self.born = self.touched = time.monotonic()
        self._ends = ends
        self._joined = self._parting = False
        self._open_sides = 0
        self._timer: asyncio.TimerHandle | None = None
        self.client = Side(self, ends.stalled)
        self.server = Side(self, None)
        self.client.other, self.server.other = self.server, self.client

    def close(self) -> None:
        """End the connection in order: what is buffered for the caller is still sent."""
        self._part()
        self.client.close()

    def abort(self) -> None:
        """End the connection at once; bytes that are buffered are dropped."""
        self._part()
        self.client.abort()
        self.server.abort()

    def joined(self) -> None:
        """Both sides are up, or will never be: from now on losing the sides ends the connection."""
        self._joined = True
        if self._parting:
            # Not in connection_made(): the loop still expects a live transport after it.
            self.client.close()
            self.server.close()
        self._over_if_done()

    def expire_after(self, delay_s: float, expired: Callable[[Connection], None]) -> None:
        """Call `expired` after a delay, unless `settle` comes first or the connection ends."""
        if not self._parting:
            self._start_timer(delay_s, expired)

    def settle(self) -> None:
        """Take back what `expire_after` has announced; a connection that ends still has to."""
        if not self._parting:
            self._stop_timer()

    def side_made(self) -> None:
        """Count a side that came up."""
        self._open_sides += 1

    def side_lost(self, side: Side) -> None:
        """Let the other side send what is buffered for it, but not for ever."""
        self._open_sides -= 1
        self._part()
        if side is self.server:
            # asyncio and uvloop close the socket after this callback. Until then the kernel
            # keeps its name taken, so nobody can be the holder of a token that is still known.
            self._ends.unnamed(self)
        if side.other.is_up:
            side.other.close()
        self._over_if_done()

    def _part(self) -> None:
        if not self._parting:
            self._parting = True
            self._start_timer(self._ends.linger_s, Connection.abort)

    def _start_timer(self, delay_s: float, then: Callable[[Connection], None]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, then, self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over_if_done(self) -> None:
        if self._joined and self._open_sides == 0:
            self._stop_timer()
            self._ends.over(self)


@dataclass(frozen=True, slots=True)
class Ends:
    """What a connection tells its relay.

    `unnamed`: the token must be forgotten now. `over`: both sides are gone. `stalled`: whom to
    tell that the caller has not read for `stalled.after_s`. `linger_s`: how long a side may take
    to send what is buffered once the other is gone.
    """

    unnamed: Callable[[Connection], None]
    over: Callable[[Connection], None]
    stalled: Stalled
    linger_s: float


@dataclass(frozen=True, slots=True)
class Stalled:
    """Whom to tell that a side did not take bytes for a while."""

    after_s: float
    tell: Callable[[Connection], None]


class Side(asyncio.Protocol):
    """One of the two sockets of a connection; what comes in here goes out at the other."""

    __slots__ = ("_connection", "_early", "_stall_timer", "_stalled", "_transport", "other")

    other: Side

    def __init__(self, connection: Connection, stalled: Stalled | None) -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._stalled = stalled
        self._stall_timer: asyncio.TimerHandle | None = None
        # What came in before the other side was up. A server without TLS speaks first, and
        # uvloop forgets a pause_reading() made in connection_made(): so the bytes wait here.
        self._early: list[bytes] = []

    @property
    def is_up(self) -> bool:
        """Whether the socket is attached and not being closed."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass on what waited for this side."""
        self._transport = cast(asyncio.Transport, transport)
        for chunk in self.other._early:
            self._transport.write(chunk)
        self.other._early.clear()
        self._connection.side_made()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        connection = self._connection
        connection.touched = time.monotonic()
        connection.answered = self is connection.server
        other = self.other._transport
        if other is None:
            self._early.append(data)
        elif not other.is_closing():
            other.write(data)

    def pause_writing(self) -> None:
        """Stop reading at the other side while this one is full."""
        if self.other.is_up:
            cast(asyncio.Transport, self.other._transport).pause_reading()
        if self._stalled is not None and self._stall_timer is None:
            loop = asyncio.get_running_loop()
            self._stall_timer = loop.call_later(
                self._stalled.after_s, self._stalled.tell, self._connection
            )

    def resume_writing(self) -> None:
        """Read again at the other side."""
        self._not_stalled()
        if self.other.is_up:
            cast(asyncio.Transport, self.other._transport).resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the whole connection: gRPC knows no half-open one."""
        self._not_stalled()
        self._connection.side_lost(self)

    def close(self) -> None:
        """Close after sending what is buffered; nothing if the side is not up."""
        if self.is_up:
            cast(asyncio.Transport, self._transport).close()

    def abort(self) -> None:
        """Close at once; also ends a close that still waits for its bytes to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def _not_stalled(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
