"""Accepts on the inherited sockets and relays bytes to the gRPC server's private unix sockets.

grpcio cannot adopt a listening socket, and systemd's must stay with systemd: so the relay accepts
and the server listens in the daemon's 0700 folder. TLS stays end to end inside grpcio. Each
connection draws a random token, remembers in memory who is behind it, and binds its own side to
an abstract name made of the token (unix(7)); a handler finds its caller by `context.peer()`. The
name says nothing about the caller: nobody gains an identity by binding one, and a token that the
relay did not draw is unknown. (Abstract names are listed in /proc/net/unix: a token is an index,
not a secret. What protects it is that the kernel gives a name to one socket at a time, that it is
forgotten before its socket closes, and that the private sockets are out of others' reach.)

Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostlerd.runtime import events
from hostlerd.runtime.connection import Connection, Ends, Peer, Stalled, peer_of
from hostlerd.runtime.log import Log
from hostlerd.runtime.sockets import (
    EVERYWHERE,
    Listener,
    ListenerKind,
    Network,
    require_private,
    within,
)

__all__ = ["Connection", "Limits", "Peer", "Relay", "Statistics"]

_PREFIX = "hostler-"
# How grpcio writes the name of a peer that is bound to an abstract name; hex needs no escapes.
_GRPC_PEER = f"unix-abstract:{_PREFIX}"
_ACCEPTS_PER_WAKE = 32
_BINDS = 4
_CONNECTS = 200
_CONNECT_PAUSE_S = 0.005
_BACK_OFF_S = 0.1
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_TRUSTED_PEERS = 4096
_LOG_WINDOW_S = 10.0
_LOG_LINES = 20
_DRAIN_POLL_S = 0.01
_FRESH_S = 1.0
_QUIET_S = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """What the relay lets through. Times are in seconds unless the name says otherwise.

    `connections` in all, `per_peer` from one IPv4 address, IPv6 /64 or uid. The last `reserved` of
    all are for addresses and uids that made an authenticated call within `trusted_s`. TCP callers
    are let in at the host's own addresses that lie in `addresses` alone.

    A connection on which no call began within `first_call_s` is ended, as is one whose caller does
    not read for `stall_s`, or does not take what is buffered for it within `linger_s` of its end.
    The keepalive ones are those of tcp(7): a dead peer is found after idle + interval * probes, and
    after `tcp_user_timeout_ms` when bytes are on the way to it.
    """

    connections: int = 512
    per_peer: int = 64
    reserved: int = 16
    trusted_s: float = 600.0
    first_call_s: float = 10.0
    stall_s: float = 30.0
    linger_s: float = 5.0
    tcp_user_timeout_ms: int = 20_000
    keepalive_idle_s: int = 20
    keepalive_interval_s: int = 5
    keepalive_probes: int = 3
    addresses: tuple[Network, ...] = EVERYWHERE


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the start, but for `open`, which is now.

    `refused`: over a limit, or at no management address. `expired`: no call in time. `silent`:
    ended by the caller or the server before a call, as after a failed TLS handshake. `stalled`: the
    caller did not read. `failed`: the system could not accept, bind or connect.
    """

    open: int = 0
    accepted: int = 0
    refused: int = 0
    expired: int = 0
    silent: int = 0
    stalled: int = 0
    failed: int = 0


class Relay:
    """Between the listeners and the private sockets `targets`, one for each kind of listener.

    `draw_token` is where tokens come from. Raises SocketsUnusable if others can reach a target.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        targets: Mapping[ListenerKind, str],
        limits: Limits,
        log: Log,
        *,
        draw_token: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        for target in targets.values():
            require_private(Path(target).parent)
        self._listeners = tuple(listeners)
        self._targets = dict(targets)
        self._limits = limits
        self._log = log
        self._draw_token = draw_token
        self._ends = Ends(
            self._unnamed, self._over, Stalled(limits.stall_s, self._stall), limits.linger_s
        )
        self._by_name: dict[str, Connection] = {}
        self._connections: set[Connection] = set()
        self._joining: set[asyncio.Task[None]] = set()
        self._by_peer: Counter[str] = Counter()
        self._trusted: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._log_window_s = float("-inf")
        self._logged = 0
        self._wanted = self._reading = False
        self._backing_off: asyncio.TimerHandle | None = None
        self._last_s = time.monotonic()

    def start(self) -> None:
        """Accept from now on. What came meanwhile has waited in the kernel."""
        self._wanted = True
        self._read_or_not()

    def stop(self) -> None:
        """Accept no more; connections go on. What comes now waits in the kernel."""
        self._wanted = False
        self._read_or_not()

    def idle_seconds(self) -> float:
        """For how long there has been no connection at all; 0 while there is one."""
        return 0.0 if self._connections else time.monotonic() - self._last_s

    @property
    def statistics(self) -> Statistics:
        """What has happened so far."""
        return Statistics(open=len(self._connections), **self._counts)

    def lookup(self, context_peer: str) -> Connection | None:
        """Find the connection that a handler's `context.peer()` names; None if there is none.

        None means that the caller did not come through this relay, or is gone: refuse it.
        """
        return self._by_name.get(context_peer)

    def call_begins(self, connection: Connection) -> None:
        """Count a call; with the first one the connection has shown what it is for."""
        connection.calls += 1
        connection.active += 1
        connection.settle()

    def call_ends(self, connection: Connection) -> None:
        """Count the end of a call; its answer may still be on the way."""
        connection.active -= 1
        connection.answered = False
        connection.touched = time.monotonic()

    def mark_authenticated(self, connection: Connection) -> None:
        """Remember that the caller proved who it is: its peer may use the reserved slots."""
        connection.authenticated = True
        now = time.monotonic()
        # Taken out first, so that the oldest stays the first of the dict.
        self._trusted.pop(connection.peer.name, None)
        self._trusted[connection.peer.name] = now
        if len(self._trusted) > _TRUSTED_PEERS:
            del self._trusted[next(iter(self._trusted))]

    async def drain(self, grace_s: float) -> None:
        """Accept no more and end all connections, each as soon as it carries no call.

        At the end of the grace those that still carry one are left: the server's to cancel.
        A connection is let go when nothing has passed on it for a moment, so that an answer on
        its way is not cut off. For one that is never quiet the moment gets shorter, down to
        nothing at half of the grace; there an answer can be lost, but seldom, since the server
        must have spoken last.
        """
        self.stop()
        begun = time.monotonic()
        while self._connections and (spent_s := time.monotonic() - begun) < grace_s:
            for connection in tuple(self._connections):
                if _may_go(connection, _QUIET_S * (1 - 2 * spent_s / grace_s)):
                    connection.close()
            await asyncio.sleep(_DRAIN_POLL_S)

    def _read_or_not(self) -> None:
        room = len(self._connections) < self._limits.connections
        reading = self._wanted and room and self._backing_off is None
        if reading == self._reading:
            return
        self._reading = reading
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            if reading:
                loop.add_reader(listener.socket.fileno(), self._accept, listener)
            else:
                loop.remove_reader(listener.socket.fileno())

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            if not self._reading:
                return
            try:
                sock, name = listener.socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # The error of one caller (accept(2)) must not end the loop for all others.
                self._fail("accept failed", error)
                return
            self._admit(sock, listener.kind, name)

    def _admit(self, sock: socket.socket, kind: ListenerKind, name: object) -> None:
        self._counts["accepted"] += 1
        self._last_s = time.monotonic()
        try:
            sock.setblocking(False)
            peer = peer_of(sock, kind, name)
            if kind is ListenerKind.TCP:
                self._tune(sock)
        except OSError as error:
            sock.close()
            self._fail("caller lost", error)
            return
        if refusal := self._refusal(peer):
            sock.close()
            self._counts["refused"] += 1
            where = {} if peer.here is None else {"at": peer.here}
            self._complain(refusal, peer=peer, refused=self._counts["refused"], **where)
            return
        self._begin(sock, peer)

    def _refusal(self, peer: Peer) -> str:
        if peer.here is not None and not within(peer.here, self._limits.addresses):
            return "no management address"
        if self._by_peer[peer.key] >= self._limits.per_peer:
            return "too many connections of one peer"
        free = self._limits.connections - len(self._connections)
        trusted = time.monotonic() - self._trusted.get(peer.name, float("-inf"))
        if free <= self._limits.reserved and trusted > self._limits.trusted_s:
            return "only reserved connections are free"
        return ""

    def _tune(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, self._limits.keepalive_idle_s),
            (socket.TCP_KEEPINTVL, self._limits.keepalive_interval_s),
            (socket.TCP_KEEPCNT, self._limits.keepalive_probes),
            (socket.TCP_USER_TIMEOUT, self._limits.tcp_user_timeout_ms),
        ):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def _begin(self, sock: socket.socket, peer: Peer) -> None:
        connection = Connection(peer, self._ends)
        self._log.debug("connection accepted", verbosity=2, peer=peer, at=peer.here or "")
        self._connections.add(connection)
        self._by_peer[peer.key] += 1
        self._read_or_not()
        task = asyncio.get_running_loop().create_task(self._join(connection, sock))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _join(self, connection: Connection, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        upstream = None
        connection.expire_after(self._limits.first_call_s, self._expire)
        try:
            upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            upstream.setblocking(False)
            connection.token = self._bind(upstream)
            self._by_name[f"{_GRPC_PEER}{connection.token}"] = connection
            await _reach(upstream, self._targets[connection.peer.listener])
            # Not create_connection(): uvloop's takes a socket object over after connection_made(),
            # and if writing fails in there, it and the object close the same descriptor, the
            # second time when the number may be another's.
            await loop.connect_accepted_socket(lambda: connection.server, upstream)
            await loop.connect_accepted_socket(lambda: connection.client, sock)
        except OSError as error:
            self._fail("connection not joined", error, peer=connection.peer)
            connection.explained = True
            connection.abort()
            sock.close()
            if upstream is not None and not connection.server.is_up:
                self._unnamed(connection)
                upstream.close()
        finally:
            connection.joined()

    def _bind(self, upstream: socket.socket) -> str:
        for _ in range(_BINDS):
            token = self._draw_token()
            try:
                upstream.bind(f"\0{_PREFIX}{token}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                self._complain("a name was taken already", token=token)
            else:
                return token
        raise OSError(errno.EADDRINUSE, "every name drawn was taken already")

    def _expire(self, connection: Connection) -> None:
        self._counts["expired"] += 1
        connection.explained = True
        self._complain("connection without a call ended", peer=connection.peer)
        connection.abort()

    def _stall(self, connection: Connection) -> None:
        self._counts["stalled"] += 1
        connection.explained = True
        self._complain("connection ended, its caller does not read", peer=connection.peer)
        connection.abort()

    def _unnamed(self, connection: Connection) -> None:
        self._by_name.pop(f"{_GRPC_PEER}{connection.token}", None)

    def _over(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._by_peer[connection.peer.key] -= 1
        if not self._by_peer[connection.peer.key]:
            del self._by_peer[connection.peer.key]
        self._log.debug(
            "connection over", verbosity=2, peer=connection.peer, calls=connection.calls
        )
        if not connection.calls and not connection.explained:
            self._counts["silent"] += 1
            self._complain("connection ended before any call", peer=connection.peer)
        self._last_s = time.monotonic()
        self._read_or_not()

    def _fail(self, what: str, error: OSError, **fields: object) -> None:
        self._counts["failed"] += 1
        self._complain(what, error=error.strerror, **fields)
        if error.errno in _EXHAUSTED and self._backing_off is None:
            # The caller stays in the kernel's queue: asking again at once would spin.
            loop = asyncio.get_running_loop()
            self._backing_off = loop.call_later(_BACK_OFF_S, self._backed_off)
            self._read_or_not()

    def _backed_off(self) -> None:
        self._backing_off = None
        self._read_or_not()

    def _complain(self, message: str, **fields: object) -> None:
        # A flood of connections must not become a flood of the journal.
        now = time.monotonic()
        if now - self._log_window_s >= _LOG_WINDOW_S:
            if self._logged > _LOG_LINES:
                self._log.warning("lines left out", lines=self._logged - _LOG_LINES)
            self._log_window_s, self._logged = now, 0
        self._logged += 1
        if self._logged <= _LOG_LINES:
            self._log.warning(message, event=events.CONNECTION_ENDED, **fields)


async def _reach(upstream: socket.socket, path: str) -> None:
    # connect(2) of a unix socket never waits: with the server's queue full it answers EAGAIN.
    for _ in range(_CONNECTS):
        try:
            upstream.connect(path)
        except BlockingIOError:
            await asyncio.sleep(_CONNECT_PAUSE_S)
        else:
            return
    raise OSError(errno.EAGAIN, "the server does not take the connection")


def _may_go(connection: Connection, quiet_s: float) -> bool:
    now = time.monotonic()
    if connection.active:
        return False
    if not connection.calls and now - connection.born < _FRESH_S:
        return False
    untouched_s = now - connection.touched
    return untouched_s >= _QUIET_S or (connection.answered and untouched_s >= quiet_s)
