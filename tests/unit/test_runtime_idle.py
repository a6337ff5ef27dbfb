from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
import runtime_door as door
import runtime_pki as pki

from hostlerd.runtime.idle import until_idle

SUPPORT = Path(__file__).parents[1] / "runtime_support"
IDLE_S = 0.25
AGE_S = IDLE_S / 2
AUTHORITY = pki.Authority()
ADMIN = AUTHORITY.user("admin")
CREDENTIALS = grpc.ssl_channel_credentials(AUTHORITY.certificate, ADMIN.key, ADMIN.certificate)
CHANNEL = [
    ("grpc.ssl_target_name_override", pki.HOST),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="hostler-idle-"))
    pki.install(place / "pki", AUTHORITY.host(), AUTHORITY.certificate)
    yield place
    shutil.rmtree(place)


@dataclass
class Activated:
    port: int
    local: str
    folder: Path

    def ends(self) -> list[str]:
        file = self.folder / "ends"
        return file.read_text().splitlines() if file.exists() else []

    def network(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", CREDENTIALS, options=CHANNEL)

    def here(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"unix:{self.local}", options=CHANNEL)


@asynccontextmanager
async def activated(folder: Path) -> AsyncIterator[Activated]:
    """Hold sockets as systemd does, with the daemon started on demand."""
    local = str(folder / "local.sock")
    daemon = [
        sys.executable,
        str(SUPPORT / "runtime_door.py"),
        str(folder),
        str(IDLE_S),
        str(AGE_S),
    ]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SUPPORT / "activator.py"),
            local,
            *daemon,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout
    try:
        yield Activated(int(await process.stdout.readline()), local, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        said = (await process.communicate())[0].decode()
    assert "failed" not in said, said + (folder / "log").read_text()


async def daemon_of(channel: grpc.aio.Channel) -> int:
    return int(json.loads(await door.invoke(channel, door.WHO))["daemon"])


async def calls(where: Activated, number: int, *, fresh: bool) -> tuple[list[str], set[int]]:
    """Call at random gaps around the idle time, without any retry; answer failures and pids."""
    chance = random.Random(number + fresh)  # noqa: S311 - gaps, not keys
    failures, daemons = [], set()
    # A kept channel adds its greatest age to the idle time.
    around_s = IDLE_S if fresh else IDLE_S + AGE_S
    kept = where.network()
    for n in range(number):
        channel = (where.here() if n % 2 else where.network()) if fresh else kept
        try:
            daemons.add(await daemon_of(channel))
        except grpc.aio.AioRpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")
        if fresh:
            await channel.close(None)
        await asyncio.sleep(around_s * chance.uniform(0.2, 2.2))
    await kept.close(None)
    return failures, daemons


async def rounds(folder: Path, *, fresh: bool) -> None:
    pki.install(folder / "pki", AUTHORITY.host(), AUTHORITY.certificate)
    async with activated(folder) as where:
        failures, daemons = await calls(where, 100, fresh=fresh)
    ends = [line.split() for line in where.ends()]
    assert failures == []
    assert len(daemons) >= 20
    assert {why for _, why, _ in ends[:-1]} == {"idle"}
    assert {int(pid) for pid, _, _ in ends} >= daemons


@pytest.mark.timeout(300)
def test_no_call_is_lost_to_an_idle_exit(folder: Path) -> None:
    async def run() -> None:
        kept, fresh = folder / "kept", folder / "fresh"
        kept.mkdir()
        fresh.mkdir()
        await asyncio.gather(rounds(kept, fresh=False), rounds(fresh, fresh=True))

    asyncio.run(run())


def test_sigterm_lets_a_running_call_end(folder: Path) -> None:
    async def run() -> None:
        async with activated(folder) as where, where.network() as channel:
            pid = await daemon_of(channel)
            running = asyncio.create_task(door.invoke(channel, door.SLEEP, b"1"))
            await asyncio.sleep(0.2)
            os.kill(pid, signal.SIGTERM)
            assert await running == b"slept"
            async with where.network() as other:
                assert await daemon_of(other) != pid
            assert where.ends()[0].split()[:2] == [str(pid), "terminated"]

    asyncio.run(run())


def test_running_change_keeps_the_daemon(folder: Path) -> None:
    async def run() -> None:
        async with activated(folder) as where:
            async with where.network() as channel:
                pid = await daemon_of(channel)
                begun = time.monotonic()
                await door.invoke(channel, door.BUSY, b"1.5")
            while not where.ends():
                await asyncio.sleep(0.02)
            assert 1.5 <= time.monotonic() - begun < 5
            assert where.ends() == [f"{pid} idle 1"]

    asyncio.run(run())


def test_open_connection_keeps_the_daemon(folder: Path) -> None:
    async def run() -> None:
        async with activated(folder) as where:
            reader, writer = await asyncio.open_unix_connection(where.local)
            assert await reader.read(1)
            await asyncio.sleep(IDLE_S * 4)
            assert where.ends() == []
            writer.close()
            async with asyncio.timeout(5):
                while not where.ends():
                    await asyncio.sleep(0.02)

    asyncio.run(run())


@door.on_uvloop
async def test_terminate_wins_over_idle(folder: Path) -> None:
    async with door.opened(folder) as here:
        terminate = asyncio.Event()
        waiting = asyncio.create_task(until_idle(here.relay, 60, terminate))
        await asyncio.sleep(0.05)
        terminate.set()
        assert await asyncio.wait_for(waiting, 1) == "terminated"


@door.on_uvloop
async def test_idle_relay_is_stopped(folder: Path) -> None:
    async with door.opened(folder) as here:
        begun = time.monotonic()
        assert await until_idle(here.relay, 0.2, asyncio.Event()) == "idle"
        assert 0.15 < time.monotonic() - begun < 1
        reader, writer = await asyncio.open_unix_connection(here.local)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        assert here.relay.statistics.accepted == 0
        writer.close()
