"""What local users and dead peers can do to the relay: the kernel says."""

from __future__ import annotations

import asyncio
import ctypes
import json
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
import runtime_door as door
import runtime_pki as pki

from hostlerd.runtime.relay import Limits
from hostlerd.runtime.sockets import Listener

pytestmark = pytest.mark.kernel

INTRUDER = Path(__file__).parents[1] / "runtime_support" / "intruder.py"
INTRUDERS = (65534, 1, 2)
CLONE_NEWNET = 0x40000000
CALLS = 1000
USERS = 16
AUTHORITY = pki.Authority()
CHANNEL = [
    ("grpc.ssl_target_name_override", pki.HOST),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="hostler-relay-"))
    place.chmod(0o711)
    pki.install(place / "pki", AUTHORITY.host(), AUTHORITY.certificate)
    yield place
    shutil.rmtree(place)


async def intruder(uid: int, here: door.Door) -> Process:
    drop = ("--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--bounding-set=-all")
    # The source goes in as an argument: the user may not be able to read the file.
    code = INTRUDER.read_text(encoding="utf-8")
    argv = (*drop, "/usr/bin/python3", "-I", "-c", code, here.local, str(here.run))
    return await asyncio.create_subprocess_exec("/usr/bin/setpriv", *argv, stdout=PIPE)


@asynccontextmanager
async def intruders(here: door.Door) -> AsyncIterator[list[dict[str, object]]]:
    """Have other users try everything meanwhile; what they got is in the list at the end."""
    processes = [await intruder(uid, here) for uid in INTRUDERS]
    got: list[dict[str, object]] = []
    try:
        for process in processes:
            assert process.stdout
            assert await process.stdout.readline() == b"ready\n"
        yield got
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            text, _ = await asyncio.wait_for(process.communicate(), 20)
            got.append(json.loads(text))


async def ask(channel: grpc.aio.Channel, identity: str) -> str:
    said = json.loads(await door.invoke(channel, door.WHO, timeout_s=60))
    assert said["identity"] == identity
    return str(said["peer"])


def channel_of(name: str, here: door.Door) -> grpc.aio.Channel:
    pair = AUTHORITY.user(name)
    credentials = grpc.ssl_channel_credentials(AUTHORITY.certificate, pair.key, pair.certificate)
    return grpc.aio.secure_channel(f"127.0.0.1:{here.tcp[1]}", credentials, options=CHANNEL)


async def honest_calls(here: door.Door) -> set[str]:
    """Make all calls at once, of many users and of root; each must be answered with its caller."""
    callers = [(channel_of(f"u{n}", here), pki.user(f"u{n}")) for n in range(USERS - 1)]
    root = grpc.aio.insecure_channel(f"unix:{here.local}", options=CHANNEL)
    callers.append((root, "local/uid/0"))
    calls = [ask(*callers[n % USERS]) for n in range(CALLS)]
    try:
        return set(await asyncio.gather(*calls))
    finally:
        for channel, _ in callers:
            await channel.close(None)


@door.on_uvloop
async def test_nobody_gains_an_identity_while_honest_calls_go_on(folder: Path) -> None:
    async with door.opened(folder) as here:
        async with intruders(here) as got:
            peers = await honest_calls(here)
            assert len(peers) == USERS
            # Connections that come and go: their names come free while others want them.
            for _ in range(5):
                assert len(await honest_calls(here)) == USERS
        for found, uid in zip(got, INTRUDERS, strict=True):
            assert found["uid"] == uid
            assert found["private_connected"] == 0
            assert found["live_connected"] == 0
            for tried in ("private_refused", "prebound", "live_seen"):
                assert int(str(found[tried])) > 0
            answers = found["answers"]
            assert isinstance(answers, list) and answers
            assert {json.loads(a)["identity"] for a in answers} == {f"local/uid/{uid}"}


@door.on_uvloop
async def test_the_intruder_would_get_in_through_an_open_folder(folder: Path) -> None:
    """Shows that the test above can fail: with the folder open, only the lookup is left."""
    async with door.opened(folder) as here:
        here.run.chmod(0o711)
        for private in here.run.iterdir():
            private.chmod(0o666)
        async with intruders(here) as got:
            await honest_calls(here)
        for found in got:
            assert int(str(found["private_connected"])) > 0
            answers = found["answers"]
            assert isinstance(answers, list)
            refused = [a for a in answers if a.startswith("refused")]
            assert len(refused) > 0
            said = [json.loads(a)["identity"] for a in answers if not a.startswith("refused")]
            assert set(said) <= {f"local/uid/{found['uid']}"}


def ip(*words: str) -> None:
    subprocess.run(["/usr/sbin/ip", *words], check=True, timeout=10, capture_output=True)


@dataclass(frozen=True)
class Link:
    """Two namespaces joined by a veth pair; nothing of it is in the host's own."""

    near: str
    far: str
    near_address: str = "198.51.100.1"
    far_address: str = "198.51.100.2"


@pytest.fixture
def link() -> Iterator[Link]:
    name = secrets.token_hex(4)
    made = Link(f"hostler-near-{name}", f"hostler-far-{name}")
    try:
        for place in (made.near, made.far):
            ip("netns", "add", place)
        words = ("type", "veth", "peer", "name", "veth0", "netns", made.far)
        ip("-n", made.near, "link", "add", "veth0", *words)
        for place, address in ((made.near, made.near_address), (made.far, made.far_address)):
            ip("-n", place, "address", "add", f"{address}/30", "dev", "veth0")
            ip("-n", place, "link", "set", "veth0", "up")
        yield made
    finally:
        for place in (made.near, made.far):
            subprocess.run(["/usr/sbin/ip", "netns", "delete", place], timeout=10)


def listen_inside(namespace: str) -> Listener:
    """Make the TCP listener in a namespace: a socket stays in the one it was made in."""
    libc = ctypes.CDLL(None, use_errno=True)

    def make() -> Listener:
        with Path(f"/run/netns/{namespace}").open("rb") as handle:
            if libc.setns(handle.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return door.listen_tcp()

    # A thread of its own, which ends there: nothing else must ever run on it.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


CALLER = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("speaking", [False, True], ids=["keepalive", "user-timeout"])
@door.on_uvloop
async def test_dead_peer_is_found(folder: Path, link: Link, speaking: bool) -> None:
    limits = Limits(
        keepalive_idle_s=60 if speaking else 1,
        keepalive_interval_s=1,
        keepalive_probes=2,
        tcp_user_timeout_ms=2500,
        first_call_s=60,
        stall_s=60,
    )
    async with door.opened(folder, limits, listen_inside(link.near)) as here:
        argv = ("netns", "exec", link.far, "/usr/bin/python3", "-c", CALLER, link.near_address)
        caller = await asyncio.create_subprocess_exec(
            "/usr/sbin/ip", *argv, str(here.tcp[1]), stdout=PIPE
        )
        assert caller.stdout
        try:
            assert await asyncio.wait_for(caller.stdout.readline(), 10) == b"up\n"
            while not here.relay.statistics.open:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            (connection,) = here.relay._connections
            assert connection.peer.address == link.far_address
            ip("-n", link.far, "link", "set", "veth0", "down")
            if speaking:
                connection.client.other.data_received(b"words that nobody will acknowledge")
            cut = time.monotonic()
            while here.relay.statistics.open:
                assert time.monotonic() - cut < 15
                await asyncio.sleep(0.05)
            assert time.monotonic() - cut > 0.5
        finally:
            if caller.returncode is None:
                caller.kill()
            await caller.wait()
