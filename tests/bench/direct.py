"""The netns daemon with a TCP port of its own beside the relay, for comparison only.

The relay is asked who is behind a connection; callers of the direct port never passed it, so here
it makes them up as they come, from the name that gRPC gives them. All else is the daemon's own:
server, TLS, gate, authorization, audit, services. The port to open is in BENCH_DIRECT_PORT.
"""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

from hostlerd.netns.__main__ import build
from hostlerd.runtime import daemon, server
from hostlerd.runtime.connection import Connection, Peer
from hostlerd.runtime.relay import Relay
from hostlerd.runtime.sockets import ListenerKind


class OpenRelay(Relay):
    """A relay that also knows those who did not come through it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._direct: dict[str, Connection] = {}

    def lookup(self, context_peer: str) -> Connection | None:
        """Find a relayed connection, or make one for a caller of the direct port."""
        if not context_peer.startswith("ipv4:"):
            return super().lookup(context_peer)
        if context_peer not in self._direct:
            _, address, port = context_peer.split(":")
            peer = Peer(ListenerKind.TCP, address, int(port))
            self._direct[context_peer] = Connection(peer, self._ends)
        return self._direct[context_peer]


class DirectDaemon(daemon.Daemon):
    """A daemon whose gRPC server also listens on a TCP port itself."""

    def _make_server(self, domain: Any, bounds: Any) -> Any:
        made = super()._make_server(domain, bounds)
        port = int(os.environ["BENCH_DIRECT_PORT"])
        if self._identity is None:
            raise SystemExit("the host's certificate cannot be used")
        made.add_secure_port(f"127.0.0.1:{port}", self._identity.credentials())
        return made


if __name__ == "__main__":
    with patch.multiple(daemon, Relay=OpenRelay, Daemon=DirectDaemon):
        server.main("netns", build)
