"""A small daemon on the relay: two doors, a handful of methods that say who called.

As a module it opens the doors in the test's process; as a program it takes the sockets that it
inherits, serves until it is idle or told to end, and writes how it ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import grpc
import grpc.aio
import uvloop

from hostlerd.runtime.idle import until_idle
from hostlerd.runtime.log import get_log
from hostlerd.runtime.relay import Connection, Limits, Relay
from hostlerd.runtime.sockets import Listener, ListenerKind, inherited, listener_of
from hostlerd.runtime.tls import ServerIdentity, parse_client

Context = grpc.aio.ServicerContext[bytes, bytes]
WHO, SLEEP, FLOOD, BUSY = (f"/test.Door/{name}" for name in ("Who", "Sleep", "Flood", "Busy"))


P = ParamSpec("P")


def on_uvloop(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Run a test on the loop that the daemons run on."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        uvloop.run(test(*args, **kwargs))

    return run


async def invoke(
    channel: grpc.aio.Channel, method: str, request: bytes = b"", timeout_s: float = 10.0
) -> bytes:
    call = channel.unary_unary(method, lambda sent: sent, lambda got: got)
    answer: bytes = await call(request, timeout=timeout_s)
    return answer


@dataclass
class Door:
    relay: Relay
    server: grpc.aio.Server
    identity: ServerIdentity
    run: Path
    tcp: tuple[str, int]
    local: str
    busy: bool = False
    calls: int = 0


class Methods:
    def __init__(self) -> None:
        self.door: Door | None = None

    @asynccontextmanager
    async def _call(self, context: Context) -> AsyncIterator[Connection]:
        assert self.door
        relay = self.door.relay
        connection = relay.lookup(context.peer())
        if connection is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown connection")
        relay.call_begins(connection)
        self.door.calls += 1
        try:
            yield connection
        finally:
            relay.call_ends(connection)

    async def who(self, request: bytes, context: Context) -> bytes:
        async with self._call(context) as connection:
            return self._describe(connection, context)

    def _describe(self, connection: Connection, context: Context) -> bytes:
        assert self.door
        peer = connection.peer
        identity = f"local/uid/{peer.uid}"
        if peer.listener is ListenerKind.TCP:
            identity = parse_client(context.auth_context()).identity
        self.door.relay.mark_authenticated(connection)
        said = {
            "identity": identity,
            "peer": str(peer),
            "listener": peer.listener.value,
            "address": peer.address,
            "uid": peer.uid,
            "gid": peer.gid,
            "daemon": os.getpid(),
        }
        return json.dumps(said).encode()

    async def sleep(self, request: bytes, context: Context) -> bytes:
        async with self._call(context):
            await asyncio.sleep(float(request))
            return b"slept"

    async def flood(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        async with self._call(context):
            for _ in range(int(request)):
                yield bytes(64 << 10)

    async def busy(self, request: bytes, context: Context) -> bytes:
        async with self._call(context):
            assert self.door
            self.door.busy = True
            asyncio.get_running_loop().call_later(float(request), self._free)
            return b""

    def _free(self) -> None:
        assert self.door
        self.door.busy = False

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        return grpc.method_handlers_generic_handler(
            "test.Door",
            {
                "Who": grpc.unary_unary_rpc_method_handler(self.who),
                "Sleep": grpc.unary_unary_rpc_method_handler(self.sleep),
                "Flood": grpc.unary_stream_rpc_method_handler(self.flood),
                "Busy": grpc.unary_unary_rpc_method_handler(self.busy),
            },
        )


def listen_tcp(family: socket.AddressFamily = socket.AF_INET6, address: str = "::") -> Listener:
    sock = socket.socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((address, 0))
    sock.listen(4096)
    return listener_of(sock)


def listen_local(path: Path, mode: int = 0o666) -> Listener:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(mode)
    sock.listen(4096)
    return listener_of(sock)


async def build(
    listeners: list[Listener], folder: Path, limits: Limits, options: list[tuple[str, int]]
) -> Door:
    """Start server and relay; `folder` holds pki/ and gets run/, with the private sockets."""
    run = folder / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    targets = {kind: str(run / f"{kind.value}.sock") for kind in ListenerKind}
    for target in targets.values():
        Path(target).unlink(missing_ok=True)
    methods = Methods()
    identity = ServerIdentity(folder / "pki")
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *options])
    server.add_generic_rpc_handlers((methods.handler(),))
    server.add_secure_port(f"unix:{targets[ListenerKind.TCP]}", identity.credentials())
    server.add_insecure_port(f"unix:{targets[ListenerKind.LOCAL]}")
    await server.start()
    relay = Relay(listeners, targets, limits, get_log("test.relay"))
    names = {listener.kind: listener.socket.getsockname() for listener in listeners}
    tcp = names.get(ListenerKind.TCP, ("", 0))
    methods.door = Door(relay, server, identity, run, tcp[:2], names.get(ListenerKind.LOCAL, ""))
    relay.start()
    return methods.door


@asynccontextmanager
async def opened(
    folder: Path, limits: Limits | None = None, tcp: Listener | None = None
) -> AsyncIterator[Door]:
    """Open both doors of a daemon in this process; `folder/local.sock` is the local one."""
    listeners = [tcp or listen_tcp(), listen_local(folder / "local.sock")]
    door = await build(listeners, folder, limits or Limits(), [])
    try:
        yield door
    finally:
        door.relay.stop()
        await door.server.stop(0)
        for listener in listeners:
            listener.socket.close()


async def _serve(folder: Path, idle_s: float, age_s: float) -> str:
    options = [("grpc.max_connection_age_ms", int(age_s * 1000))]
    door = await build(inherited(), folder, Limits(), options)
    terminate = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate.set)
    why = await until_idle(door.relay, idle_s, terminate, lambda: door.busy)
    if why == "terminated":
        await door.relay.drain(5.0)
        await door.server.stop(0)
    return f"{os.getpid()} {why} {door.relay.statistics.accepted}"


def _end(folder: Path, run: Callable[[], str]) -> None:
    line = run()
    with (folder / "ends").open("a", encoding="ascii") as stream:
        stream.write(line + "\n")
    os._exit(0)


if __name__ == "__main__":
    place, idle, age = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    _end(place, lambda: uvloop.run(_serve(place, idle, age)))
