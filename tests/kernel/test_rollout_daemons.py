"""Rollouts over twenty real daemons, each a process with an authority's certificate, journal, retry
keys and audit log of its own: the log says what was asked of whom, in which run, and how often."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from client_doors import World

from hostlerd.runtime.audit import records

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

HOSTS = 20
BAD = ("h5", "h8", "h12")
PUSH = "/hostler.api.common.v1.BundleService/PushBundle"
DAEMON = """
from hostlerd.runtime.domain import Domain
from hostlerd.runtime.server import main
main("netns", lambda runtime: Domain(services=()))
"""
MAIN = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"


@dataclass
class Endpoint:
    """One daemon and its folders."""

    name: str
    root: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def make(self, world: World) -> None:
        pki = self.root / "etc/pki"
        for folder in (pki, self.root / "state", self.root / "log"):
            folder.mkdir(parents=True)
        (self.root / "run").mkdir(mode=0o700)
        world.credentials(self.name)
        issued = world.authority.certificate_path("host", self.name)
        shutil.copy(world.authority.folder / "ca.pem", pki)
        shutil.copy(issued, pki / "host.pem")
        shutil.copy(issued.with_suffix(".key"), pki / "host.key")
        shutil.copy(world.authority.folder / "bundle.json", self.root / "etc")
        (self.root / "etc/hostler.toml").write_text("idle_s = 300\n")

    def start(self) -> None:
        env = {
            "PATH": os.environ["PATH"],
            "CONFIGURATION_DIRECTORY": str(self.root / "etc"),
            "STATE_DIRECTORY": str(self.root / "state"),
            "RUNTIME_DIRECTORY": str(self.root / "run"),
            "LOGS_DIRECTORY": str(self.root / "log"),
        }
        keep = [f"--setenv={key}={value}" for key, value in env.items()]
        argv = ["/usr/bin/systemd-socket-activate", *keep, "-l", f"127.0.0.1:{self.port}"]
        argv += ["-l", f"{self.root}/netns.sock", sys.executable, "-c", DAEMON]
        with (self.root / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(argv, stderr=stderr)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def log(self) -> list[dict[str, Any]]:
        """What the daemon has recorded, whatever it is."""
        path = self.root / "log/audit.jsonl"
        return [record for record in records(path)] if path.exists() else []

    def pushes(self) -> list[dict[str, Any]]:
        """The outcomes of the changes that were carried out."""
        return [r for r in self.log() if r.get("outcome") == "OUTCOME_APPLIED" and r["steps"]]

    def has(self, bundle: bytes) -> bool:
        path = self.root / "state/bundle.json"
        return path.is_file() and path.read_bytes() == bundle


@dataclass
class Daemons:
    """All of them, the client's side, and the bundle that goes out."""

    world: World
    endpoints: dict[str, Endpoint]
    bundle: bytes = b""

    def sign(self) -> None:
        """Sign a newer bundle, which nobody has yet."""
        name = f"u{time.monotonic_ns()}"
        self.world.authority.issue_user(name)
        self.world.authority.grant(name, "viewers")
        self.bundle = (self.world.authority.folder / "bundle.json").read_bytes()

    def with_it(self) -> list[str]:
        return [name for name, each in self.endpoints.items() if each.has(self.bundle)]

    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOSTLER_CONFIG": str(self.world.config),
            "HOSTLER_RUNS_URL": f"sqlite:///{self.world.folder}/state/runs.sqlite",
        }

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, "--timeout", "90s", *args], env=self.env(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, *args: str) -> tuple[int, str, str]:
        process = self.start(*args)
        out, err = process.communicate(timeout=200)
        return process.returncode, out, err

    def wake(self) -> None:
        """Have every daemon started, by knocking; twenty at once take their time here."""
        for _ in range(5):
            status, _, err = self.run("-H", "all", "--parallel", "2", "host", "get", "--domain",
                                      "netns")  # fmt: skip
            if status == 0:
                return
        raise AssertionError(err)

    def outcomes(self) -> dict[str, str]:
        _, out, err = self.run("-o", "json", "runs", "show", "last")
        assert out, err
        hosts = json.loads(out)["hosts"]
        return {host["host"]: host["outcome"] or host["state"] for host in hosts}

    def logs(self, names: Sequence[str]) -> dict[str, int]:
        return {name: len(self.endpoints[name].log()) for name in names}

    def check_once(self) -> None:
        """Each host has the bundle, by one change of the one run there was."""
        _, out, _ = self.run("-o", "json", "runs", "list")
        run = json.loads(out)[0]["id"]
        assert self.with_it() == list(self.endpoints)
        for endpoint in self.endpoints.values():
            done = [(r["method"], r["run"]) for r in endpoint.pushes() if r["run"] == run]
            assert done == [(PUSH, run)], endpoint.name


@contextmanager
def running(root: Path) -> Iterator[Daemons]:
    world = World(root)
    world.authority.grant("admin", "admins")
    endpoints: dict[str, Endpoint] = {}
    try:
        for number in range(1, HOSTS + 1):
            name = f"h{number}"
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            endpoint = Endpoint(name, root / name, port)
            endpoint.make(world)
            endpoint.start()
            endpoints[name] = endpoint
            world.enter(name, {"netns": port})
        daemons = Daemons(world, endpoints)
        daemons.wake()
        yield daemons
    finally:
        for endpoint in endpoints.values():
            endpoint.stop()


@pytest.fixture(scope="module")
def running_daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    with running(tmp_path_factory.mktemp("rollout")) as made:
        yield made


@pytest.fixture
def daemons(running_daemons: Daemons) -> Daemons:
    """Twenty daemons, none of which has the bundle that goes out."""
    running_daemons.sign()
    return running_daemons


def test_it_stops_at_the_limit_and_resumes_what_is_missing(daemons: Daemons) -> None:
    # Nothing can be put where a folder with something in it is. It is made once all have planned.
    folders = [daemons.endpoints[name].root / "state/bundle.json/x" for name in BAD]
    status, _, err = daemons.run(
        "-H", "all", "--yes", "--batch", "1,25%,50%,60%,100%", "--max-failures", "2",
        "--gate", f"mkdir -p {' '.join(map(str, folders))}",
        "policy", "push", "--domain", "netns",
    )  # fmt: skip
    assert status == 1
    assert "Stopped in wave 4 of 5: 3 failed, 2 may; failed: h5, h8, h12" in err
    good = [f"h{n}" for n in range(1, 13) if f"h{n}" not in BAD]
    spared = [f"h{n}" for n in range(13, 21)]
    assert daemons.outcomes() == (
        dict.fromkeys(good, "applied")
        | dict.fromkeys(BAD, "failed")
        | dict.fromkeys(spared, "not_started")
    )
    assert daemons.with_it() == good
    for folder in folders:
        shutil.rmtree(folder.parent)
    before = daemons.logs(good)
    status, _, err = daemons.run("--yes", "--gate", "true", "runs", "resume", "last")
    assert status == 0, err
    # Not even asked for a plan, or a version.
    assert daemons.logs(good) == before
    assert set(daemons.outcomes().values()) == {"applied"}
    daemons.check_once()


@pytest.mark.parametrize("with_it", [1, 4, 11])
def test_a_client_that_is_killed_is_resumed_from_its_record(daemons: Daemons, with_it: int) -> None:
    client = daemons.start(
        "-H", "all", "--yes", "--parallel", "2", "policy", "push", "--domain", "netns"
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(daemons.with_it()) < with_it:
        assert client.poll() is None, client.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    client.send_signal(signal.SIGKILL)
    client.communicate(timeout=30)
    time.sleep(1)  # What was asked goes on without the client, and is done by now.
    states = daemons.outcomes()
    had_it = [name for name, word in states.items() if word == "applied"]
    sent = [name for name, word in states.items() if word == "sent"]
    found = daemons.with_it()
    print(f"killed with {len(found)} of 20 changed, {len(had_it)} of them known to be")
    assert set(had_it) <= set(found) <= {*had_it, *sent}
    assert len(found) < HOSTS
    before = daemons.logs(had_it)
    status, _, err = daemons.run("--yes", "runs", "resume", "last")
    assert status == 0, err
    assert daemons.logs(had_it) == before
    assert set(daemons.outcomes().values()) <= {"applied", "unchanged"}
    daemons.check_once()
