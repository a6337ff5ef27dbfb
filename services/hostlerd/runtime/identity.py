"""Identity: who is at the other end of a connection, as the relay and TLS have proven it."""

from __future__ import annotations

import re
import time
from typing import Any, Protocol

from hostlerd.runtime.access import Method
from hostlerd.runtime.call import Call, Caller
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.relay import Connection, Relay
from hostlerd.runtime.sockets import ListenerKind
from hostlerd.runtime.tls import parse_client

# A client's name for what belongs together; the audit log records it.
_RUN_KEY = "hostler-run"
_RUN = re.compile(r"[A-Za-z0-9-]{1,64}")


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

    def invocation_metadata(self) -> Any:
        """What the client sent along, as pairs of key and value."""
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
            chain=certificate.chain,
        )
    return Call(
        method,
        caller,
        connected_at=connection.born,
        outside=caller_is_outside(connection),
        run=_run(context),
        checked_at=time.monotonic(),
    )


def caller_is_outside(connection: Connection) -> bool:
    """Tell whether a connection came by TCP from another host."""
    return connection.peer.listener is ListenerKind.TCP and not connection.peer.own


def _run(context: ServicerContext) -> str:
    """Read the run that the client says the call belongs to; what is none is left out."""
    for key, value in context.invocation_metadata() or ():
        if key == _RUN_KEY and isinstance(value, str) and _RUN.fullmatch(value):
            return value
    return ""
