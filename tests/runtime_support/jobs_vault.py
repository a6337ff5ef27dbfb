"""A small domain of real files, for jobs, approvals and destroy tokens: a vault with boxes.

As a program it is the domain's daemon, or with the word `job` its job process; the folder of the
stubs that `jobs_place` compiled is in PYTHONPATH. A box is a file; it is filled, or wiped for good.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostlerd.runtime.call import PROGRESS
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Domain, Runtime, Service
from hostlerd.runtime.edge import Recoverable
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.jobs import JobStore
from hostlerd.runtime.journal import Journal
from hostlerd.runtime.record import Recorder
from hostlerd.runtime.server import main
from hostlerd.runtime.steps import Plan, Step, fingerprint

PROTO = """
syntax = "proto3";
package hostler.api.vault.v1;
import "hostler/api/common/v1/access.proto";
import "hostler/api/common/v1/change.proto";
service VaultService {
  rpc FillVault(FillVaultRequest) returns (FillVaultResponse) {
    option (hostler.api.common.v1.access) =
      {class: ACCESS_CLASS_CHANGE resource_fields: "names"};
  }
  rpc WipeVault(WipeVaultRequest) returns (WipeVaultResponse) {
    option (hostler.api.common.v1.access) =
      {class: ACCESS_CLASS_DESTROY resource_fields: "name"};
  }
  rpc OpenVault(OpenVaultRequest) returns (stream OpenVaultResponse) {
    option (hostler.api.common.v1.access) =
      {class: ACCESS_CLASS_ROOT_EQUIVALENT resource_fields: "name"};
  }
}
message FillVaultRequest {
  repeated string names = 1;
  int32 wait_ms = 2;
  string secret = 3 [debug_redact = true];
  hostler.api.common.v1.ChangeOptions change = 4;
  int32 sacks = 5;
}
message FillVaultResponse {
  hostler.api.common.v1.Change change = 1;
}
message WipeVaultRequest {
  string name = 1;
  int32 seals = 2;
  hostler.api.common.v1.ChangeOptions change = 3;
}
message WipeVaultResponse {
  hostler.api.common.v1.Change change = 1;
}
message OpenVaultRequest {
  string name = 1;
  string secret = 2 [debug_redact = true];
}
message OpenVaultResponse {
  bytes content = 1;
}
"""


class BoxNotFound(DomainError):
    """There is no such box."""

    code, reason = Code.NOT_FOUND, "BOX_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class MakeBox:
    """Make a box, which takes a while."""

    name: str
    wait_ms: int

    @property
    def survives_boot(self) -> bool:
        """It is a file."""
        return True

    def describe(self) -> str:
        """Say what it does."""
        return f"make box {self.name}"

    def inverse(self) -> Step:
        """Drop it again."""
        return DropBox(self.name)


@dataclass(frozen=True, slots=True)
class DropBox:
    """Take an empty box away."""

    name: str

    def describe(self) -> str:
        """Say what it does."""
        return f"drop box {self.name}"

    def inverse(self) -> Step:
        """Make it again."""
        return MakeBox(self.name, 0)


@dataclass(frozen=True, slots=True)
class WipeBox:
    """Lose what is in a box."""

    name: str
    size_bytes: int

    def describe(self) -> str:
        """Say what it does."""
        return f"wipe {self.size_bytes} bytes of box {self.name}"

    def inverse(self) -> None:
        """There is no way back."""
        return


class Vault(Recoverable):
    """The folder of boxes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def kinds(self) -> Collection[type]:
        """All steps."""
        return (MakeBox, DropBox, WipeBox)

    @contextmanager
    def applying(self) -> Iterator[Callable[[Any], None]]:
        """Yield what carries out a step."""
        yield self._apply

    @contextmanager
    def recovering(self) -> Iterator[Callable[[Any], None]]:
        """Yield what carries out a step that may be done already."""
        yield lambda step: self._apply(step, again=True)

    def _apply(self, step: MakeBox | DropBox | WipeBox, *, again: bool = False) -> None:
        box = self.folder / step.name
        if isinstance(step, DropBox):
            box.unlink(missing_ok=again)
            return
        if isinstance(step, WipeBox):
            box.write_bytes(b"")
            return
        time.sleep(step.wait_ms / 1000)
        if step.name.startswith("bad"):
            raise OSError(5, "the box is bad", str(box))
        else:
            box.touch(exist_ok=again)


def follow(folder: Path, sacks: int) -> None:
    """As a job, watch sacks being carried in, which goes on without it until `enough` is there."""
    progress = PROGRESS.get()
    if progress is None or not sacks:
        return
    progress.follow("sacks", "sacks are carried in without it", "sacks are carried in")
    while not (folder / "enough").exists():
        progress.step(1, sacks, "carrying sacks in")
        time.sleep(0.05)


def service(runtime: Runtime, vault: Vault, changes: Changes) -> Any:
    """Make the servicer; the stubs are there only in the program."""
    from hostler_vault import vault_pb2 as pb
    from hostler_vault import vault_pb2_grpc

    class VaultService(vault_pb2_grpc.VaultServiceServicer):  # type: ignore[misc]
        """Serves the vault."""

        async def FillVault(self, request: Any, context: Any) -> Any:
            """Make the boxes that are missing."""

            def make_plan() -> Plan:
                missing = [n for n in request.names if not (vault.folder / n).exists()]
                return Plan(tuple(MakeBox(n, request.wait_ms) for n in missing))

            done = await changes.carry_out(request.change, make_plan)
            await runtime.blocking(follow, vault.folder, request.sacks)
            return pb.FillVaultResponse(change=done.change)

        async def WipeVault(self, request: Any, context: Any) -> Any:
            """Wipe a box, unless it is empty already, and put seals beside it."""

            def make_plan() -> Plan:
                try:
                    stat = (vault.folder / request.name).stat()
                except FileNotFoundError as e:
                    raise BoxNotFound(f"there is no box {request.name}") from e
                seals = (MakeBox(f"{request.name}.{n}", 100) for n in range(request.seals))
                steps = (WipeBox(request.name, stat.st_size), *seals)
                etag = fingerprint([stat.st_ino, stat.st_size])
                return Plan(
                    steps if stat.st_size else (), etag, etag, bindings={"inode": stat.st_ino}
                )

            done = await changes.carry_out(request.change, make_plan)
            return pb.WipeVaultResponse(change=done.change)

        async def OpenVault(self, request: Any, context: Any) -> AsyncIterator[Any]:
            """Show what is in a box."""
            yield pb.OpenVaultResponse(content=(vault.folder / request.name).read_bytes())

    return VaultService()


def build(runtime: Runtime) -> Domain:
    """Put the domain together."""
    from hostler_vault import vault_pb2, vault_pb2_grpc

    vault = Vault(Path(os.environ["VAULT"]))
    changes = runtime.changes(vault)
    made = Service(
        vault_pb2.DESCRIPTOR.services_by_name["VaultService"],
        vault_pb2_grpc.add_VaultServiceServicer_to_server,
        service(runtime, vault, changes),
    )
    return Domain(services=(made,))


def die_at(place: str) -> None:
    """Have this process killed before or after a call: "before CLASS.METHOD", "after …"."""
    when, _, what = place.partition(" ")
    owner, _, name = what.partition(".")
    kind = {"JobStore": JobStore, "Journal": Journal, "Recorder": Recorder, "Vault": Vault}[owner]
    whole: Any = getattr(kind, name)

    def cut(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            whole(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(kind, name, cut)


if __name__ == "__main__":
    if os.environ.get("VAULT_DIES"):
        die_at(os.environ["VAULT_DIES"])
    main("netns", build)
