from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import hashlib
import json
import os
import resource
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
import runtime_door as door
import runtime_pki as pki

from hostlerd.runtime.log import get_log
from hostlerd.runtime.relay import Limits, Peer, Relay
from hostlerd.runtime.sockets import ListenerKind, SocketsUnusable, networks

AUTHORITY = pki.Authority()
ADMIN = AUTHORITY.user("admin")
CREDENTIALS = grpc.ssl_channel_credentials(AUTHORITY.certificate, ADMIN.key, ADMIN.certificate)
CHANNEL = [("grpc.ssl_target_name_override", pki.HOST), ("grpc.use_local_subchannel_pool", 1)]
RETRIES_OFF = ("grpc.enable_retries", 0)
NOBODY = 65534
CLONE_NEWNET = 0x40000000
# Source: ip(7); Python's socket module has no name for it.
IP_FREEBIND = 15


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose local socket other users can reach, as /run/hostler is."""
    place = Path(tempfile.mkdtemp(prefix="hostler-relay-"))
    place.chmod(0o711)
    pki.install(place / "pki", AUTHORITY.host(), AUTHORITY.certificate)
    yield place
    shutil.rmtree(place)


def network(address: str) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(address, CREDENTIALS, options=[*CHANNEL, RETRIES_OFF])


def local(path: str) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), RETRIES_OFF]
    return grpc.aio.insecure_channel(f"unix:{path}", options=options)


async def who(channel: grpc.aio.Channel) -> dict[str, object]:
    answer: dict[str, object] = json.loads(await door.invoke(channel, door.WHO))
    return answer


async def until(true: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


def silent(port: int, source: str = "127.0.0.1") -> socket.socket:
    """Connect and say nothing; all of 127/8 is ours, so a peer can have any address of it."""
    sock = socket.socket()
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


@pytest.fixture
def addresses6() -> Iterator[None]:
    """Two /64 on the loopback of a network namespace of this test's own, which its thread joins."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace takes root")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNET) == 0
    try:
        subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True, timeout=5)
        for prefix in ("fd5e:c0:1::/64", "fd5e:c0:1:1::/64"):
            words = ["route", "add", "local", prefix, "dev", "lo"]
            subprocess.run(["/usr/sbin/ip", "-6", *words], check=True, timeout=5)
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)


def silent6(port: int, source: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    sock.bind((source, 0))
    sock.connect(("::1", port))
    sock.setblocking(False)
    return sock


async def ended(sock: socket.socket, within_s: float = 3.0) -> bool:
    """Say whether the other end closes the connection in time; what it sends first is read."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within_s):
            while await loop.sock_recv(sock, 65536):
                pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


# Who is calling.


@door.on_uvloop
async def test_network_callers(folder: Path) -> None:
    async with door.opened(folder) as here:
        for address, plain in (("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")):
            async with network(f"{address}:{here.tcp[1]}") as channel:
                said = await who(channel)
            assert said["identity"] == pki.user("admin")
            assert said["listener"] == "tcp"
            assert said["address"] == plain
            assert str(said["peer"]).startswith(f"{address}:")
            assert said["uid"] is None


@door.on_uvloop
async def test_local_caller(folder: Path) -> None:
    async with door.opened(folder) as here, local(here.local) as channel:
        said = await who(channel)
        uid, gid, pid = os.geteuid(), os.getegid(), os.getpid()
        assert (said["uid"], said["gid"]) == (uid, gid)
        assert said["peer"] == f"uid={uid} pid={pid}"
        assert said["identity"] == f"local/uid/{uid}"
        assert said["address"] is None


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@door.on_uvloop
async def test_local_caller_of_another_user(folder: Path) -> None:
    code = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
    )
    async with door.opened(folder) as here:
        argv = ["/usr/bin/python3", "-c", code, here.local]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, user=NOBODY, group=7, extra_groups=[])
        await until(lambda: bool(here.relay.statistics.open))
        (peer,) = (connection.peer for connection in here.relay._connections)
        assert peer == Peer(ListenerKind.LOCAL, uid=NOBODY, gid=7, pid=child.pid)
        child.communicate(timeout=10)


@door.on_uvloop
async def test_server_reached_past_the_relay_knows_nobody(folder: Path) -> None:
    async with door.opened(folder) as here:
        async with local(str(here.run / "local.sock")) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await who(channel)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert here.relay.statistics.accepted == 0


@door.on_uvloop
async def test_tokens_are_unknown_before_and_after_their_connection(folder: Path) -> None:
    async with door.opened(folder) as here:
        async with local(here.local) as channel:
            await who(channel)
            (connection,) = here.relay._connections
            name = f"unix-abstract:hostler-{connection.token}"
            assert here.relay.lookup(name) is connection
            for other in (name[:-1], name + "0", f"unix:{connection.token}", "", "unix:"):
                assert here.relay.lookup(other) is None
        await until(lambda: not here.relay.statistics.open)
        assert here.relay.lookup(name) is None


def test_relay_wants_private_targets(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    targets = dict.fromkeys(ListenerKind, str(tmp_path / "s"))
    with pytest.raises(SocketsUnusable):
        Relay([], targets, Limits(), get_log("test"))


def test_peers_in_words() -> None:
    assert str(Peer(ListenerKind.TCP, address="10.0.0.1", port=4711)) == "10.0.0.1:4711"
    assert str(Peer(ListenerKind.TCP, address="fd00::1", port=4711)) == "[fd00::1]:4711"
    assert str(Peer(ListenerKind.LOCAL, uid=0, gid=0, pid=12)) == "uid=0 pid=12"


# Limits.


@door.on_uvloop
async def test_cap_of_one_peer(folder: Path) -> None:
    async with door.opened(folder, Limits(per_peer=8)) as here:
        kept = [silent(here.tcp[1]) for _ in range(8)]
        await until(lambda: here.relay.statistics.open == 8)
        assert await ended(silent(here.tcp[1]))
        assert here.relay.statistics.refused == 1
        # Another address and a local caller are not held back by it.
        kept.append(silent(here.tcp[1], "127.0.0.2"))
        async with local(here.local) as channel:
            await who(channel)
        kept.pop(0).close()
        await until(lambda: here.relay.statistics.open == 8)
        async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
            await who(channel)
        for sock in kept:
            sock.close()
        await until(lambda: here.relay.statistics.open == 0)


@door.on_uvloop
async def test_callers_of_one_ipv6_64_are_counted_together(folder: Path, addresses6: None) -> None:
    async with door.opened(folder, Limits(per_peer=4)) as here:
        kept = [silent6(here.tcp[1], f"fd5e:c0:1::{n}") for n in range(1, 5)]
        await until(lambda: here.relay.statistics.open == 4)
        assert await ended(silent6(here.tcp[1], "fd5e:c0:1::5"))
        assert here.relay.statistics.refused == 1
        # Its neighbour, and IPv4 mapped into IPv6, are others.
        kept.append(silent6(here.tcp[1], "fd5e:c0:1:1::1"))
        kept.append(silent(here.tcp[1]))
        await until(lambda: here.relay.statistics.open == 6)
        for sock in kept:
            sock.close()


@door.on_uvloop
async def test_callers_are_let_in_at_the_management_addresses_alone(folder: Path) -> None:
    listed = networks(["127.0.0.1", "127.1.0.0/16", "fd00::/8"])
    async with door.opened(folder, Limits(addresses=listed)) as here:
        for address in ("127.0.0.1", "127.1.2.3"):
            async with network(f"{address}:{here.tcp[1]}") as channel:
                await who(channel)
        for address in ("127.0.0.2", "127.2.0.1", "::1"):
            sock = socket.create_connection((address, here.tcp[1]))
            sock.setblocking(False)
            assert await ended(sock)
        assert here.relay.statistics.refused == 3
        async with local(here.local) as channel:
            await who(channel)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64%eth0"),
    ],
)
def test_whom_a_connection_counts_for(address: str, key: str) -> None:
    assert Peer(ListenerKind.TCP, address=address, port=1).key == key


@door.on_uvloop
async def test_cap_of_one_user(folder: Path) -> None:
    async with door.opened(folder, Limits(per_peer=4)) as here:
        kept = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for sock in kept:
            sock.connect(here.local)
        await until(lambda: here.relay.statistics.open == 4)
        async with local(here.local) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await who(channel)
        for sock in kept:
            sock.close()


@door.on_uvloop
async def test_silent_connections_are_ended(folder: Path) -> None:
    async with door.opened(folder, Limits(first_call_s=0.5)) as here:
        async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
            await who(channel)
            # One says nothing, one begins TLS and goes no further.
            quiet, slow = silent(here.tcp[1]), silent(here.tcp[1])
            slow.send(b"\x16\x03\x01")
            begun = time.monotonic()
            assert await ended(quiet) and await ended(slow)
            assert 0.3 < time.monotonic() - begun < 2
            counts = here.relay.statistics
            assert (counts.expired, counts.silent, counts.open) == (2, 0, 1)
            await who(channel)
            assert here.relay.statistics.accepted == 3


@door.on_uvloop
async def test_reserved_connections_are_for_the_authenticated(folder: Path) -> None:
    limits = Limits(connections=10, reserved=2, per_peer=20)
    async with door.opened(folder, limits) as here:
        async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
            await who(channel)
        await until(lambda: here.relay.statistics.open == 0)
        flood = [silent(here.tcp[1], f"127.0.1.{n}") for n in range(1, 9)]
        await until(lambda: here.relay.statistics.open == 8)
        assert await ended(silent(here.tcp[1], "127.0.2.1"))
        async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
            assert (await who(channel))["identity"] == pki.user("admin")
        assert here.relay.statistics.refused == 1
        for sock in flood:
            sock.close()


@door.on_uvloop
async def test_reservation_ends(folder: Path) -> None:
    limits = Limits(connections=3, reserved=2, trusted_s=0.3)
    async with door.opened(folder, limits) as here:
        async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
            await who(channel)
        await until(lambda: here.relay.statistics.open == 0)
        flood = silent(here.tcp[1], "127.0.1.1")
        await asyncio.sleep(0.4)
        assert await ended(silent(here.tcp[1]))
        flood.close()


@door.on_uvloop
async def test_full_relay_lets_callers_wait_in_the_kernel(folder: Path) -> None:
    async with door.opened(folder, Limits(connections=3, reserved=0)) as here:
        kept = [silent(here.tcp[1]) for _ in range(3)]
        await until(lambda: here.relay.statistics.open == 3)
        async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
            waiting = asyncio.create_task(who(channel))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            assert here.relay.statistics.accepted == 3
            kept.pop().close()
            assert (await waiting)["identity"] == pki.user("admin")
        for sock in kept:
            sock.close()


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) - 1


@door.on_uvloop
async def test_no_descriptors_left_backs_off_and_goes_on(folder: Path) -> None:
    async with door.opened(folder) as here:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        caller = socket.socket()
        fill = [os.dup(caller.fileno()) for _ in range(4)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fill) + 1, hard))
        try:
            while True:
                fill.append(os.dup(caller.fileno()))
        except OSError:
            pass
        try:
            caller.connect(("127.0.0.1", here.tcp[1]))
            begun = time.process_time()
            await asyncio.sleep(0.5)
            # It asks again now and then, but does not spin.
            assert time.process_time() - begun < 0.25
            counts = here.relay.statistics
            assert 1 <= counts.failed <= 8
            assert counts.accepted == 0
        finally:
            for fd in fill:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: here.relay.statistics.open == 1)
        caller.close()
        async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
            await who(channel)


# Bytes.

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[object, object, None]]


@asynccontextmanager
async def before(
    handler: Handler | None,
    folder: Path,
    limits: Limits | None = None,
    draw_token: Callable[[], str] = lambda: secrets.token_hex(16),
) -> AsyncIterator[tuple[Relay, int]]:
    """Put a relay before a byte server; yield it and its TCP port."""
    run = folder / "run"
    run.mkdir(mode=0o700)
    target = run / "bytes.sock"
    listener = door.listen_tcp()
    relay = Relay(
        [listener],
        {ListenerKind.TCP: str(target)},
        limits or Limits(),
        get_log("test.relay"),
        draw_token=draw_token,
    )
    server = await asyncio.start_unix_server(handler, target) if handler else None
    relay.start()
    try:
        yield relay, listener.socket.getsockname()[1]
    finally:
        relay.stop()
        if server:
            server.close()
        for connection in tuple(relay._connections):
            connection.abort()
        await until(lambda: not relay.statistics.open)
        listener.socket.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@door.on_uvloop
async def test_bytes_arrive_whole_both_ways(folder: Path) -> None:
    payload = secrets.token_bytes(16 << 20)
    async with before(echo, folder) as (_, port):

        async def one() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.readexactly(5) == b"hello"
            writer.write(payload)
            back = await reader.readexactly(len(payload))
            assert hashlib.sha256(back).digest() == hashlib.sha256(payload).digest()
            writer.close()

        await asyncio.gather(*(one() for _ in range(4)))


@door.on_uvloop
async def test_server_that_speaks_first_is_always_heard(folder: Path) -> None:
    async with before(echo, folder, Limits(connections=1000, per_peer=1000)) as (_, port):

        async def one() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
            writer.close()

        await asyncio.gather(*(one() for _ in range(400)))


@door.on_uvloop
async def test_last_words_of_the_server_are_delivered(folder: Path) -> None:
    words = secrets.token_bytes(3 << 20)

    async def speak_and_leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        writer.close()

    async with before(speak_and_leave, folder) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.2)
        assert await reader.read(-1) == words
        writer.close()


@door.on_uvloop
async def test_end_of_the_caller_reaches_the_server(folder: Path) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.put_nowait(await reader.read(-1))
        writer.close()

    async with before(listen, folder) as (_, port):
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"bye")
        writer.close()
        assert await asyncio.wait_for(heard.get(), 3) == b"bye"


@door.on_uvloop
async def test_slow_reader_holds_the_server_back_and_is_ended(folder: Path) -> None:
    written = 0
    over = asyncio.Event()

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        try:
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
                written += 1 << 16
        except ConnectionError:
            over.set()

    async with before(flood, folder, Limits(stall_s=0.7)) as (relay, port):
        # A receive buffer as small as the kernel allows.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        await asyncio.sleep(0.4)
        held = written
        assert held < 16 << 20
        await asyncio.sleep(0.1)
        assert written == held
        await asyncio.wait_for(over.wait(), 3)
        assert relay.statistics.stalled == 1
        sock.close()


@door.on_uvloop
async def test_bytes_nobody_takes_do_not_hold_a_closing_connection(folder: Path) -> None:
    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()

    async with before(flood, folder, Limits(linger_s=0.5)) as (relay, port):
        sock = silent(port)
        await asyncio.sleep(0.3)
        (connection,) = relay._connections
        connection.close()
        await asyncio.sleep(0.2)
        assert relay.statistics.open == 1
        await until(lambda: not relay.statistics.open, 2)
        sock.close()


# What fails ends one connection.


@door.on_uvloop
async def test_taken_names_are_not_used(folder: Path) -> None:
    names = [secrets.token_hex(16) for _ in range(12)]
    squatters = []
    for name in (*names[0:2], *names[4:8]):
        squatters.append(socket.socket(socket.AF_UNIX))
        squatters[-1].bind(f"\0hostler-{name}")
    drawn = iter(names)
    async with before(echo, folder, draw_token=lambda: next(drawn)) as (relay, port):
        for place in (2, 3):
            reader, _writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.readexactly(5) == b"hello"
            assert relay.lookup(f"unix-abstract:hostler-{names[place]}")
        for name in names[:2]:
            assert relay.lookup(f"unix-abstract:hostler-{name}") is None
        # Four names in a row are taken: this connection is given up, the next is not.
        assert await ended(silent(port))
        assert relay.statistics.failed == 1
        reader, _writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.readexactly(5) == b"hello"
    for sock in squatters:
        sock.close()


@door.on_uvloop
async def test_server_that_is_not_there(folder: Path) -> None:
    async with before(None, folder) as (relay, port):
        for _ in range(3):
            assert await ended(silent(port))
        assert relay.statistics.failed == 3
        assert relay.statistics.open == 0
        assert not relay._by_peer and not relay._by_name


@door.on_uvloop
async def test_callers_that_leave_at_once_leave_nothing(folder: Path) -> None:
    async with before(echo, folder, Limits(connections=50, per_peer=50)) as (relay, port):
        fds = open_fds()
        pipes: list[tuple[int, int]] = []
        for n in range(500):
            sock = socket.socket()
            if n % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *bytes(7)]))
            sock.connect(("127.0.0.1", port))
            sock.close()
            if n % 10 == 0:
                await asyncio.sleep(0)
                pipes.append(os.pipe())
        await until(lambda: relay.statistics.accepted == 500 and not relay.statistics.open)
        gc.collect()
        # A descriptor that was closed twice would be one of these, or one of a later test.
        for read, write in pipes:
            os.write(write, b"x")
            assert os.read(read, 1) == b"x"
            os.close(read)
            os.close(write)
        await until(lambda: open_fds() <= fds)
        assert not relay._by_peer and not relay._by_name and not relay._joining


# The end. A caller that comes back waits in the kernel, for the next daemon.

GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@door.on_uvloop
async def test_drain_lets_calls_end_and_accepts_no_more(folder: Path) -> None:
    async with door.opened(folder) as here:
        async with (
            network(f"127.0.0.1:{here.tcp[1]}") as working,
            network(f"127.0.0.1:{here.tcp[1]}") as resting,
        ):
            await who(resting)
            answer = asyncio.create_task(door.invoke(working, door.SLEEP, b"0.6"))
            await until(lambda: here.relay.statistics.open == 2)
            await until(lambda: any(c.active for c in here.relay._connections))
            begun = time.monotonic()
            drained = asyncio.create_task(here.relay.drain(5.0))
            await until(lambda: here.relay.statistics.open == 1, 0.5)
            late = silent(here.tcp[1])
            assert await answer == b"slept"
            await drained
            assert 0.4 < time.monotonic() - begun < 2
            assert here.relay.statistics.accepted == 2
            late.close()


@door.on_uvloop
async def test_drain_ends_with_its_grace(folder: Path) -> None:
    async with (
        door.opened(folder) as here,
        network(f"127.0.0.1:{here.tcp[1]}") as channel,
    ):
        call = asyncio.create_task(door.invoke(channel, door.SLEEP, b"9"))
        await until(lambda: any(c.active for c in here.relay._connections))
        begun = time.monotonic()
        await here.relay.drain(0.5)
        assert 0.4 < time.monotonic() - begun < 1.5
        assert here.relay.statistics.open == 1
        call.cancel()


@door.on_uvloop
async def test_drain_under_load_hardly_cuts_an_answer_off(folder: Path) -> None:
    async with door.opened(folder) as here:
        answered = refused = 0

        async def caller() -> None:
            nonlocal answered, refused
            async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
                while True:
                    try:
                        await door.invoke(channel, door.SLEEP, b"0", timeout_s=4)
                    except grpc.aio.AioRpcError as error:
                        assert error.code() in GONE
                        refused += 1
                        return
                    answered += 1

        callers = [asyncio.create_task(caller()) for _ in range(48)]
        await until(lambda: answered > 500)
        await here.relay.drain(2.0)
        assert here.relay.statistics.open == 0
        await asyncio.gather(*callers)
        assert refused == 48
        # These callers never pause at all, and still hardly an answer is cut off.
        assert here.calls - answered <= 2


@door.on_uvloop
async def test_drain_of_callers_that_pause_cuts_no_answer_off(folder: Path) -> None:
    async with door.opened(folder) as here:
        answered = 0

        async def caller() -> None:
            nonlocal answered
            async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    while True:
                        await door.invoke(channel, door.SLEEP, b"0.02", timeout_s=4)
                        answered += 1
                        await asyncio.sleep(0.1)

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        await until(lambda: answered > 20)
        await here.relay.drain(4.0)
        assert here.relay.statistics.open == 0
        await asyncio.gather(*callers)
        assert here.calls == answered


@door.on_uvloop
async def test_stop_and_start_lose_nobody(folder: Path) -> None:
    async with door.opened(folder) as here:
        here.relay.stop()
        async with network(f"127.0.0.1:{here.tcp[1]}") as channel:
            waiting = asyncio.create_task(who(channel))
            await asyncio.sleep(0.2)
            assert here.relay.statistics.accepted == 0
            here.relay.start()
            assert (await waiting)["identity"] == pki.user("admin")


@door.on_uvloop
async def test_idle_seconds(folder: Path) -> None:
    async with door.opened(folder) as here:
        await asyncio.sleep(0.2)
        assert here.relay.idle_seconds() > 0.15
        async with local(here.local) as channel:
            await who(channel)
            assert here.relay.idle_seconds() == 0
        await until(lambda: here.relay.idle_seconds() > 0)
        assert here.relay.idle_seconds() < 0.2
