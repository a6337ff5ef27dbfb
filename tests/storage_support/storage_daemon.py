"""The storage daemon as a process, with a worker of its own, and how people call it."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from journal_rows import refusal
from storage_devices import worker_process
from stream_daemon import Daemon, running

from hostler.cli.main import cli

PROGRAM = """
from pathlib import Path
from hostlerd.runtime.server import main
from hostlerd.storage.__main__ import build
from hostlerd.storage.kernel.mount_units import MountUnits
from hostlerd.storage.kernel.worker_client import Worker

Worker.__init__.__defaults__ = (Path({socket!r}),)
MountUnits.__init__.__defaults__ = (Path({root!r}),)
main("storage", build)
"""
CONFIG = """
current = "here"
[contexts.here]
trust_domain = "test.hostler"
ca = "ca.pem"
certificate = "none.pem"
key = "none.key"
fleet = "fleet.toml"
"""


@dataclass
class World:
    """A daemon, and the worker that it asks."""

    place: Path
    daemon: Daemon
    worker: subprocess.Popen[bytes]

    def call(self, noun: str, method: str, user: str = "alice", **fields: Any) -> Any:
        """Call a method of `NounService` as a user. Raises grpc.RpcError."""
        pb = importlib.import_module(f"hostler.api.storage.v1.{noun}_pb2")
        stubs = importlib.import_module(f"hostler.api.storage.v1.{noun}_pb2_grpc")
        request = getattr(pb, f"{method}Request")(**fields)
        with self.daemon.channel(user) as channel:
            stub = getattr(stubs, f"{noun.title().replace('_', '')}ServiceStub")(channel)
            return getattr(stub, method)(request, timeout=90, wait_for_ready=True)

    def destroy(self, noun: str, method: str, **fields: Any) -> Any:
        """Call a method that destroys: ask for its plan, then have exactly that plan done."""
        planned = self.call(noun, method, change={"validate_only": True}, **fields).change
        options = {"plan_hash": planned.plan.hash, "destroy_token": planned.destroy_token}
        return self.call(noun, method, change=options, **fields)

    def refusal(self, call: Callable[[], Any]) -> str:
        """Make a call that must fail; answer its reason."""
        return refusal(call)["reason"]

    def hostler(self, *words: str, status: int = 0) -> str:
        """Run a command, as root of this machine; answer what it says, in both its ways."""
        return self.command("-H", "local", *words, status=status)

    def command(self, *words: str, status: int = 0) -> str:
        """Run a command that says itself which host it means."""
        config = {"HOSTLER_CONFIG": str(self.place / "config.toml")}
        done = CliRunner().invoke(cli, words, env=config)
        assert done.exit_code == status, (words, done.output)
        return done.output


@contextmanager
def world(place: Path) -> Iterator[World]:
    """A daemon with a worker, until the block ends."""
    program = PROGRAM.format(socket=str(place / "worker.sock"), root=str(place / "root"))
    with worker_process(place) as worker, running(place / "daemon", program) as daemon:
        (place / "storage.sock").symlink_to(place / "daemon/netns.sock")
        (place / "fleet.toml").write_text(f'[hosts.local]\naddress = "unix:{place}"\n')
        (place / "config.toml").write_text(CONFIG)
        yield World(place, daemon, worker)
