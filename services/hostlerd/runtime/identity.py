"""Identity: who is at the other end of a connection, as the relay and TLS have proven it."""

from __future__ import annotations

import time
from typing import Any, Protocol

from hostlerd.runtime.access import Method
from hostlerd.runtime.call import Call, Caller
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.relay import Connection, Relay
from hostlerd.runtime.sockets import ListenerKind
from hostlerd.runtime.tls import parse_client


class UnknownConnection(DomainError):
    """The connection did not come through this daemon's relay."""

    code, reason = Code.UNAUTHENTICATED, "UNKNOWN_CONNECTION"


class ServicerContext(Protocol):
    """The part of grpc.aio.ServicerContext that identities are read from."""

    def peer(self) -> str:
        """The name of the other end's socket."""
        ...

    def auth_context(self) -> Any:
        """What TLS has proven."""
        ...


def connection_of(context: ServicerContext, relay: Relay) -> Connection:
    """Answer the relay's connection of a call. Raises UnknownConnection."""
    connection = relay.lookup(context.peer())
    if connection is None:
        raise UnknownConnection("this connection was not accepted by the daemon")
    return connection


def identify(context: ServicerContext, connection: Connection, method: Method) -> Call:
    """Answer the call with its proven caller.

    Local callers are who SO_PEERCRED says; uid 0 is the break-glass identity local/root. All
    others are who their certificate says. Raises what `parse_client` raises.
    """
    peer = connection.peer
    if peer.listener is ListenerKind.LOCAL:
        identity = "local/root" if peer.uid == 0 else f"local/uid/{peer.uid}"
        caller = Caller(identity, str(peer), local=True)
    else:
        certificate = parse_client(context.auth_context())
        caller = Caller(
            certificate.identity,
            str(peer),
            local=False,
            certificate_serial=certificate.serial,
            not_after=certificate.not_after,
        )
    return Call(method, caller, checked_at=time.monotonic())
