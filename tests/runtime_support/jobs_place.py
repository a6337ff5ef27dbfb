"""A place where the vault's daemon lives: its folders, its authority, its callers.

The daemon is a real process that is started again whenever somebody knocks, as under systemd; job
processes are started by the test, as the path unit would.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import grpc_tools
import jobs_vault
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc

from hostler.api.common.v1 import approval_pb2_grpc, change_pb2, job_pb2, job_pb2_grpc
from hostler.pki import Authority
from hostlerd.runtime.audit import records

HERE = Path(__file__).parent
PROTOS = Path(__file__).resolve().parents[2] / "protos"
GROUPS = {
    **{"alice": "admins", "bob": "admins", "carol": "admins"},
    **{"olga": "operators", "vera": "viewers"},
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call was refused."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]


@dataclass
class Place:
    """A daemon with all that belongs to it."""

    root: Path
    authority: Authority
    activator: subprocess.Popen[str] | None = None
    port: int = 0
    jobs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def vault(self) -> Path:
        """The folder of boxes."""
        return self.root / "vault"

    @property
    def boxes(self) -> set[str]:
        """The names of the boxes that there are."""
        return set(os.listdir(self.vault))  # noqa: PTH208 - names are what is asked for

    @property
    def queue(self) -> list[str]:
        """What lies in the queue of jobs."""
        return [place.name for place in (self.root / "state/jobs").glob("queue/*")]

    @property
    def environment(self) -> dict[str, str]:
        """What systemd would say, and where the stubs are."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.root / "stubs"),
            "CONFIGURATION_DIRECTORY": str(self.root / "etc"),
            "STATE_DIRECTORY": str(self.root / "state"),
            "RUNTIME_DIRECTORY": str(self.root / "run"),
            "LOGS_DIRECTORY": str(self.root / "log"),
            "VAULT": str(self.vault),
        }

    def audit(self, kind: str = "", **wanted: str) -> list[dict[str, Any]]:
        """The records of the audit log."""
        return [
            record
            for record in records(self.root / "log/audit.jsonl")
            if (not kind or record["kind"] == kind)
            and all(record.get(key) == value for key, value in wanted.items())
        ]

    def start(self) -> None:
        """Open the sockets; the daemon starts when somebody knocks."""
        (self.root / "netns.sock").unlink(missing_ok=True)
        argv = [sys.executable, str(HERE / "activator.py"), str(self.root / "netns.sock")]
        argv += [sys.executable, str(HERE / "jobs_vault.py")]
        with (self.root / "stderr").open("ab") as stderr:
            self.activator = subprocess.Popen(
                argv, env=self.environment, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        assert self.activator.stdout is not None
        self.port = int(self.activator.stdout.readline())

    def stop(self) -> None:
        """End daemon and sockets."""
        if self.activator is not None:
            self.activator.terminate()
            self.activator.wait(20)
            assert self.activator.stdout is not None
            self.activator.stdout.close()
            self.activator = None

    def restart(self) -> None:
        """End the daemon, and open the sockets again."""
        self.stop()
        self.start()

    def start_job(self, dies: str = "") -> subprocess.Popen[bytes]:
        """Start the job process, as the path unit does while the queue is not empty.

        `dies`: it kills itself at that place; see jobs_vault.
        """
        argv = [sys.executable, str(HERE / "jobs_vault.py"), "job"]
        environment = {**self.environment, "VAULT_DIES": dies}
        with (self.root / "stderr").open("ab") as stderr:
            job = subprocess.Popen(argv, env=environment, stderr=stderr)
        self.jobs.append(job)
        return job

    def run_job(self) -> None:
        """Do one job to its end."""
        assert self.start_job().wait(60) == 0

    def channel(self, user: str, certificate: str = "") -> grpc.Channel:
        """A channel of a user; `certificate` is the folder of another certificate of hers."""
        users = self.authority.folder / "users" if not certificate else self.root / certificate
        credentials = grpc.ssl_channel_credentials(
            self.authority.ca_pem,
            (users / f"{user}.key").read_bytes(),
            (users / f"{user}.pem").read_bytes(),
        )
        options = [
            ("grpc.ssl_target_name_override", "h1"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        return grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options)

    def local(self) -> grpc.Channel:
        """A channel of local root."""
        return grpc.insecure_channel(f"unix:{self.root}/netns.sock")

    def use_policies(self, *cedar: str) -> None:
        """Add policies to the default ones and put them in force."""
        folder = self.authority.folder / "policies"
        folder.mkdir(exist_ok=True)
        (folder / "own.cedar").write_text("\n".join(cedar))
        self.authority.write_bundle()
        self.install_bundle()

    def install_bundle(self) -> None:
        """Put the bundle last signed where enrolment puts it; daemons notice within a second."""
        target = self.root / "etc/bundle.json"
        new = target.with_suffix(".new")
        shutil.copy(self.authority.folder / "bundle.json", new)
        new.rename(target)


def stubs() -> Any:
    """The messages and stubs of the vault; compiled by `running`."""
    return import_module("hostler_vault.vault_pb2"), import_module("hostler_vault.vault_pb2_grpc")


def _compile(folder: Path) -> None:
    """Compile the vault's proto. The stubs are a package of their own, beside Hostler's."""
    source = folder / "source"
    (source / "hostler_vault").mkdir(parents=True)
    (source / "hostler_vault/vault.proto").write_text(jobs_vault.PROTO)
    target = folder / "stubs"
    target.mkdir()
    google = Path(grpc_tools.__file__).parent / "_proto"
    argv = ["protoc", f"-I{source}", f"-I{PROTOS}", f"-I{google}", f"--python_out={target}"]
    argv += [f"--grpc_python_out={target}", "hostler_vault/vault.proto"]
    assert protoc.main(argv) == 0


@contextmanager
def running(root: Path, config: str = "idle_s = 30\n") -> Iterator[Place]:
    """Make a place with people of all groups, and the daemon's sockets open."""
    authority = Authority.create(root / "pki", "test.hostler")
    authority.issue_host("h1", dns_names=["h1"], ip_addresses=["127.0.0.1"])
    for user, group in GROUPS.items():
        authority.issue_user(user)
        authority.grant(user, group)
    for folder in ("etc/pki", "state", "log", "vault"):
        (root / folder).mkdir(parents=True)
    (root / "run").mkdir(mode=0o700)
    shutil.copy(root / "pki/ca.pem", root / "etc/pki")
    shutil.copy(root / "pki/hosts/h1.pem", root / "etc/pki/host.pem")
    shutil.copy(root / "pki/hosts/h1.key", root / "etc/pki/host.key")
    (root / "etc/hostler.toml").write_text(config)
    _compile(root)
    sys.path.insert(0, str(root / "stubs"))
    place = Place(root, authority)
    place.install_bundle()
    place.start()
    try:
        yield place
    finally:
        for job in place.jobs:
            if job.poll() is None:
                job.kill()
                job.wait(10)
        place.stop()
        sys.path.remove(str(root / "stubs"))


def fill(
    channel: grpc.Channel,
    *names: str,
    wait_ms: int = 0,
    secret: str = "",
    sacks: int = 0,
    **options: Any,
) -> Any:
    """Call FillVault; answers its Change."""
    pb, grpc_pb = stubs()
    request = pb.FillVaultRequest(
        names=names,
        wait_ms=wait_ms,
        secret=secret,
        sacks=sacks,
        change=change_pb2.ChangeOptions(**options),
    )
    return grpc_pb.VaultServiceStub(channel).FillVault(request, timeout=20).change


def wipe(channel: grpc.Channel, name: str, seals: int = 0, **options: Any) -> Any:
    """Call WipeVault; answers its Change."""
    pb, grpc_pb = stubs()
    request = pb.WipeVaultRequest(
        name=name, seals=seals, change=change_pb2.ChangeOptions(**options)
    )
    return grpc_pb.VaultServiceStub(channel).WipeVault(request, timeout=20).change


def get_job(channel: grpc.Channel, name: str) -> Any:
    """Call GetJob."""
    request = job_pb2.GetJobRequest(name=name)
    return job_pb2_grpc.JobServiceStub(channel).GetJob(request, timeout=10).job


def approvals(channel: grpc.Channel) -> Any:
    """The stub of ApprovalService."""
    return approval_pb2_grpc.ApprovalServiceStub(channel)


def refusal(call: Callable[[], Any]) -> Refusal:
    """Make a call that must fail, and answer how it did."""
    try:
        answer = call()
    except grpc.RpcError as e:
        error: Any = e
    else:
        raise AssertionError(f"it was answered: {answer}")
    status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return Refusal(error.code().name, info.reason, error.details(), dict(info.metadata))


def answered(call: Callable[[], Any]) -> Any:
    """Answer what a call answers, None if it fails: for a daemon that is on its way."""
    try:
        return call()
    except grpc.RpcError:
        return None


def until(condition: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """Wait until it is so, and answer what it is."""
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)
    return found


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process at once."""
    process.send_signal(signal.SIGKILL)
    process.wait(10)
