"""Calls at all doors of a fleet by the SDK, while something is done to it; and who serves what."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from enroll_lab import DOMAINS

from hostler.aio import connect
from hostler.api.common.v1 import host_pb2
from hostler.channel import rpc
from hostler.fleet import PORTS
from hostler.lab.host import Host
from hostler.results import CallFailed
from hostler.session import Session

GET_HOST = rpc(host_pb2, "HostService", "GetHost")
_PAUSE_S = 0.2


@dataclass
class Load:
    """What the calls came to: how many were answered by each door, and the failures."""

    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    over: bool = False


async def _knock(session: Session, domain: str, load: Load) -> None:
    try:
        said = await session.call(GET_HOST.at(domain), host_pb2.GetHostRequest())
    except CallFailed as failed:
        load.failures.append(f"{session.host.name} {domain}: {failed.error}")
    else:
        assert said.host.domain == domain
        load.answered[session.host.name, domain] += 1
    await asyncio.sleep(_PAUSE_S)


async def _call(config: Path, load: Load) -> None:
    """One client for all, from before to after; each door by a session that stays, and by new."""
    async with connect(config=config, record=False) as client:

        async def kept(name: str, domain: str) -> None:
            (host,) = client.select(name)
            async with client.session(host) as session:
                while not load.over:
                    await _knock(session, domain, load)

        async def fresh(name: str, domain: str) -> None:
            (host,) = client.select(name)
            while not load.over:
                async with client.session(host) as session:
                    await _knock(session, domain, load)

        names = [host.name for host in client.fleet.hosts]
        places = [(name, domain) for name in names for domain in DOMAINS]
        await asyncio.gather(*(way(*place) for place in places for way in (kept, fresh)))


@contextmanager
def calling(config: Path) -> Iterator[Load]:
    """Call at all doors of all hosts while the block goes on."""
    load = Load()
    thread = threading.Thread(target=lambda: asyncio.run(_call(config, load)))
    thread.start()
    try:
        yield load
    finally:
        load.over = True
        thread.join()


def served(host: Host, domain: str, folder: Path) -> Path:
    """The certificate that a door shows to openssl(1)."""
    argv = ["openssl", "s_client", "-connect", f"{host.ipv4}:{PORTS[domain]}", "-alpn", "h2"]
    done = subprocess.run(argv, input="", capture_output=True, text=True, timeout=60)
    begin = done.stdout.index("-----BEGIN CERTIFICATE-----")
    end = done.stdout.index("-----END CERTIFICATE-----", begin)
    path = folder / f"{host.name}-{domain}.pem"
    path.write_text(done.stdout[begin:end] + "-----END CERTIFICATE-----\n")
    return path


def is_of(certificate: Path, ca: Path) -> bool:
    """Whether openssl(1) takes a certificate for one of that CA."""
    argv = ["openssl", "verify", "-CAfile", str(ca), str(certificate)]
    return subprocess.run(argv, capture_output=True, timeout=60).returncode == 0
