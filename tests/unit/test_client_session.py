"""Calls over real mTLS channels: dead, silent, slow and refusing hosts, and retries."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_doors import Host as Door
from client_doors import World, make_server, rich, world

import hostler.aio
from hostler.api.common.v1 import host_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.channel import Connector
from hostler.config import ConfigError, load_context
from hostler.fleet import Fleet, Host
from hostler.pki import Authority
from hostler.results import CallFailed
from hostler.session import NO_RETRY, Retry, Session

CREATE = hostler.aio.rpc(namespace_pb2, "NamespaceService", "CreateNamespace")
LIST = hostler.aio.rpc(namespace_pb2, "NamespaceService", "ListNamespaces")
LOGS = hostler.aio.rpc(process_pb2, "ProcessService", "StreamLogs")
GET_HOST = hostler.aio.rpc(host_pb2, "HostService", "GetHost")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def connect(fleet: World, **options: Any) -> hostler.aio.Client:
    return hostler.aio.connect(config=fleet.config, **options)


def unavailable(_request: Any, context: Any) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, "going away")


def cancelled(_request: Any, context: Any) -> None:
    context.abort(grpc.StatusCode.CANCELLED, "cut")


async def test_dead_and_silent_hosts_are_named_and_delay_nobody(fleet: World) -> None:
    fleet.start("h1")
    fleet.dead("h2")
    fleet.silent("h3")
    fleet.start("h4")
    answered: dict[str, float] = {}
    start = time.monotonic()

    async def work(session: Session) -> Any:
        answer = await session.call(LIST, namespace_pb2.ListNamespacesRequest())
        answered[session.host.name] = time.monotonic() - start
        return answer

    client = connect(fleet, timeout_s=4)
    results = await client.each(client.select("all"), work)
    assert [(result.host, result.ok) for result in results] == [
        ("h1", True), ("h2", False), ("h3", False), ("h4", True),
    ]  # fmt: skip
    assert max(answered.values()) < 2
    assert time.monotonic() - start < 6
    errors = [result.error for result in results if result.error]
    assert [error.reason for error in errors] == ["UNREACHABLE", "TIMEOUT"]
    assert "Connection refused" in errors[0].message


@asynccontextmanager
async def waking(port: int, after_s: float) -> AsyncIterator[int]:
    """A door as systemd holds it: it takes connections at once, and is served after some time."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve() -> None:
        await asyncio.sleep(after_s)
        async with await asyncio.start_server(relay, sock=listener) as server:
            await server.serve_forever()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.setblocking(False)
        task = asyncio.create_task(serve())
        try:
            yield listener.getsockname()[1]
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_a_daemon_that_starts_slowly_is_waited_for(fleet: World) -> None:
    """One attempt to connect takes 5 s at most: it needs another, after `connect_s` is over."""
    netns = fleet.start("h1").doors["netns"]
    async with waking(netns.port, after_s=5.5) as port:
        host = Host("h1", "127.0.0.1", ports={"netns": port})
        async with Session(host, Connector(load_context(path=fleet.config))) as session:
            await session.call(LIST, namespace_pb2.ListNamespacesRequest())


async def test_a_daemon_that_never_starts_is_given_up(fleet: World) -> None:
    fleet.silent("h1")
    client = connect(fleet, retry=Retry(connect_s=0.1, start_s=5.5))
    start = time.monotonic()
    (result,) = await client.call(LIST, namespace_pb2.ListNamespacesRequest(), "h1")
    assert result.error is not None and result.error.reason == "UNREACHABLE"
    assert 5.0 < time.monotonic() - start < 15


async def test_rich_errors_arrive_whole(fleet: World) -> None:
    door = fleet.start("h1")
    door.refusals["CreateNamespace"] = [
        rich(
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
            "two fields are wrong",
            metadata={"count": "2"},
            fields={"namespace.name": "too long", "namespace.interfaces[0].mtu_bytes": "absurd"},
        )
    ]
    client = connect(fleet)
    (result,) = await client.call(CREATE, namespace_pb2.CreateNamespaceRequest(), "h1")
    assert result.as_dict()["error"] == {
        "code": "INVALID_ARGUMENT",
        "reason": "INVALID_REQUEST",
        "message": "two fields are wrong",
        "metadata": {"count": "2"},
        "violations": [
            {"field": "namespace.name", "description": "too long"},
            {"field": "namespace.interfaces[0].mtu_bytes", "description": "absurd"},
        ],
    }
    assert len(door.named("CreateNamespace")) == 1


@pytest.mark.parametrize("refusal", [unavailable, cancelled])
async def test_retries_carry_the_same_request(fleet: World, refusal: Any) -> None:
    door = fleet.start("h1")
    door.refusals["CreateNamespace"] = [refusal, refusal]
    request = namespace_pb2.CreateNamespaceRequest(namespace=namespace_pb2.Namespace(name="a"))
    request.change.request_id = "7f4df6b5-8f5e-4b9a-9d0e-0f4e63a5f8a1"
    client = connect(fleet)
    (result,) = await client.call(CREATE, request, "h1")
    assert result.ok
    assert [each.change.request_id for each in door.named("CreateNamespace")] == [
        request.change.request_id
    ] * 3


async def test_without_retry_the_first_failure_stands(fleet: World) -> None:
    door = fleet.start("h1")
    door.refusals["ListNamespaces"] = [unavailable]
    client = connect(fleet, retry=NO_RETRY)
    (result,) = await client.call(LIST, namespace_pb2.ListNamespacesRequest(), "h1")
    assert result.error is not None
    assert (result.error.code, result.error.reason) == ("UNAVAILABLE", "UNAVAILABLE")
    assert len(door.calls) == 1


async def test_retries_end(fleet: World) -> None:
    door = fleet.start("h1")
    door.refusals["ListNamespaces"] = [unavailable] * 20
    retry = Retry(attempts=4, first_pause_s=0.01)
    client = connect(fleet, retry=retry)
    (result,) = await client.call(LIST, namespace_pb2.ListNamespacesRequest(), "h1")
    assert not result.ok
    assert len(door.calls) == 4


async def test_other_errors_are_not_tried_again(fleet: World) -> None:
    door = fleet.start("h1")
    door.refusals["ListNamespaces"] = [rich(grpc.StatusCode.ABORTED, "PLAN_CHANGED", "moved on")]
    (result,) = await connect(fleet).call(LIST, namespace_pb2.ListNamespacesRequest(), "h1")
    assert result.error is not None
    assert result.error.reason == "PLAN_CHANGED"
    assert len(door.calls) == 1


async def test_a_slow_host_times_out_in_its_time(fleet: World) -> None:
    door = fleet.start("h1")
    door.refusals["ListNamespaces"] = [lambda *_: time.sleep(2)]
    start = time.monotonic()
    client = connect(fleet, timeout_s=0.5)
    (result,) = await client.call(LIST, namespace_pb2.ListNamespacesRequest(), "h1")
    assert time.monotonic() - start < 1.5
    assert result.error is not None
    assert (result.error.code, result.error.reason) == ("DEADLINE_EXCEEDED", "TIMEOUT")


async def test_a_kept_session_survives_a_restart_of_the_server(
    fleet: World, tmp_path: Path
) -> None:
    credentials = fleet.credentials("h1")
    door = Door("h1")
    server = make_server(door, "netns")
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    fleet.enter("h1", {"netns": port})
    client = connect(fleet)
    async with client.session(client.select("h1")[0]) as session:
        await session.call(LIST, namespace_pb2.ListNamespacesRequest())
        await asyncio.to_thread(server.stop(None).wait)

        def again() -> grpc.Server:
            time.sleep(0.5)
            second = make_server(door, "netns")
            assert second.add_secure_port(f"127.0.0.1:{port}", credentials) == port
            second.start()
            return second

        restart = asyncio.create_task(asyncio.to_thread(again))
        await session.call(LIST, namespace_pb2.ListNamespacesRequest())
        (await restart).stop(None).wait()
    assert len(door.calls) == 2


async def test_a_host_under_another_name_is_refused_at_once(fleet: World) -> None:
    fleet.start("h1")
    fleet.fleet.write_text(fleet.fleet.read_text().replace("hosts.h1", "hosts.other"))
    start = time.monotonic()
    client = connect(fleet)
    (result,) = await client.call(LIST, namespace_pb2.ListNamespacesRequest(), "other")
    assert time.monotonic() - start < 2
    assert result.error is not None
    assert result.error.reason == "TLS_HANDSHAKE_FAILED"
    assert fleet.hosts["h1"].calls == []


async def test_a_host_of_another_ca_is_refused_at_once(fleet: World) -> None:
    fleet.start("h1")
    foreign = Authority.create(fleet.folder / "foreign", "test.hostler")
    fleet.config.write_text(fleet.config.read_text().replace('"pki/ca.pem"', '"foreign/ca.pem"'))
    assert foreign.ca_pem != fleet.authority.ca_pem
    client = connect(fleet)
    (result,) = await client.call(LIST, namespace_pb2.ListNamespacesRequest(), "h1")
    assert result.error is not None
    assert result.error.reason == "TLS_HANDSHAKE_FAILED"


async def test_lists_follow_their_pages(fleet: World) -> None:
    door = fleet.start("h1")
    door.namespaces = {n: namespace_pb2.Namespace(name=n) for n in "abcde"}
    client = connect(fleet)
    (result,) = await client.list_all(LIST, namespace_pb2.ListNamespacesRequest(), "h1")
    assert [space.name for space in result.value().namespaces] == list("abcde")
    assert result.value().next_page_token == ""
    assert len(door.calls) == 3


async def test_streams_end_with_their_error(fleet: World) -> None:
    fleet.start("h1")
    client = connect(fleet)
    lines: list[str] = []
    async with client.session(client.select("h1")[0]) as session:
        with pytest.raises(CallFailed, match="going away"):
            async for batch in session.stream(LOGS, process_pb2.StreamLogsRequest(follow=True)):
                lines += [line.message for line in batch.lines]
    assert lines == ["line 1", "line 2", "line 3"]


async def test_a_proxy_from_the_environment_is_not_used(
    fleet: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fleet.start("h1")
    (result,) = await connect(fleet).call(LIST, namespace_pb2.ListNamespacesRequest(), "h1")
    assert result.ok


async def test_the_local_sockets_need_no_certificate(tmp_path: Path) -> None:
    server = make_server(Door("here"), "netns")
    server.add_insecure_port(f"unix:{tmp_path}/netns.sock")
    server.start()
    host = Host("local", f"unix:{tmp_path}")
    client = hostler.aio.Client(None, Fleet((host,)))
    (result,) = await client.call(GET_HOST.at("netns"), host_pb2.GetHostRequest(), "local")
    server.stop(None).wait()
    assert result.value().host.hostname == "here"


async def test_a_host_over_the_network_needs_a_context() -> None:
    client = hostler.aio.Client(None, Fleet((Host("h1", "127.0.0.1"),)))
    with pytest.raises(ConfigError, match="needs a context"):
        async with client.session(client.select("h1")[0]) as session:
            await session.call(LIST, namespace_pb2.ListNamespacesRequest())


def test_a_missing_key_is_named(fleet: World) -> None:
    (fleet.folder / "pki/users/admin.key").unlink()
    with pytest.raises(ConfigError, match=r"the context's key, .*admin\.key"):
        connect(fleet)


async def test_five_hundred_endpoints(fleet: World) -> None:
    """Every host has a port, a name and a channel of its own; one process answers for all."""
    count = 500
    names = [f"n{number}" for number in range(count)]
    server = make_server(Door("many"), "netns")
    lines = []
    for first in range(0, count, 50):  # A certificate has room for a hundred names.
        some = names[first : first + 50]
        credentials = fleet.credentials(f"many{first}", some)
        for name in some:
            port = server.add_secure_port("127.0.0.1:0", credentials)
            lines.append(f'[hosts.{name}]\naddress = "127.0.0.1"\nports = {{ netns = {port} }}\n')
    fleet.fleet.write_text("".join(lines))
    fleet.dead("n-dead")
    server.start()
    client = connect(fleet, window=250)
    start = time.monotonic()
    results = await client.call(LIST, namespace_pb2.ListNamespacesRequest(), "all")
    elapsed = time.monotonic() - start
    server.stop(None).wait()
    assert [result.host for result in results] == [*names, "n-dead"]
    assert [result.host for result in results if not result.ok] == ["n-dead"]
    print(f"500 hosts and a dead one: {elapsed:.2f} s")
