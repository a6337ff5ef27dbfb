"""A lab host for the benchmarks that need real units: the installed packages under real systemd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import daemon
import grpc.aio

from hostler.aio import Client, connect
from hostler.api.common.v1 import host_pb2, host_pb2_grpc
from hostler.lab.host import Host
from hostler.lab.lab import Lab

SYSTEMCTL = "/usr/bin/systemctl"
INSTALLED = "/opt/hostler/"
ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class LabHost:
    """One host of a lab of its own, and a client for it."""

    host: Host
    client: Client

    def channel(self, domain: str) -> grpc.aio.Channel:
        """Open a channel of the SDK's to a door."""
        return self.client.session(self.client.select(self.host.name)[0]).channel(domain)

    async def wake(self, domain: str) -> None:
        """Let a door's daemon answer one call."""
        async with self.channel(domain) as channel:
            stub = host_pb2_grpc.HostServiceStub(channel)
            await stub.GetHost(host_pb2.GetHostRequest(), timeout=ANSWER_S)

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl(1) in the host; answers its output."""
        return self.host.run([SYSTEMCTL, *arguments]).stdout

    def daemons(self) -> dict[int, str]:
        """List Hostler's processes in the host: PIDs of this machine, and their command lines."""
        found = {}
        for pid in self.host.processes():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            line = b" ".join(words).decode(errors="replace")
            if INSTALLED in line:
                found[pid] = line
        return found


@contextmanager
def lab_host() -> Iterator[LabHost]:
    """Boot one host with the packages of this checkout, built if need be; it is gone afterwards."""
    with daemon.folder() as place:
        lab = Lab(place / "lab")
        try:
            (host,) = lab.up(1)
            client = connect(config=lab.config)
            yield LabHost(host, client)
        finally:
            lab.down()
