"""Local users of a real host: who they are at the unix socket, and that they cannot be others."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import security_lab as support
import security_people
from hosts_witness import code_tree

from hostler.api.common.v1 import host_pb2, host_pb2_grpc
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.pki import Authority

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

INTRUDER = Path(support.__file__).with_name("security_intruder.py").read_text()
# Each with the daemons whose files it may open because it is their user.
INTRUDERS = {
    "nobody": (),
    "hostler-netns": ("netns",),
    "hostler-firewall": ("firewall",),
    "hostler-tracing": ("tracing",),
    "hostler-ssl": ("ssl",),
    "hostler-storage": ("storage",),
}
CALLS = 1000
USERS = 4
TRIED = {"prebound", "live name", "front door", "private socket", "foreign file"}


@dataclass
class Intruder:
    """A user of a host at work; `found` is what it tells at the end."""

    user: str
    process: subprocess.Popen[str]
    found: dict[str, Any]

    def end(self) -> None:
        out, err = self.process.communicate("\n", timeout=30)
        assert self.process.returncode == 0, err
        self.found = json.loads(out)


@contextmanager
def intruders(hosts: tuple[Host, ...]) -> Iterator[list[Intruder]]:
    """Have every user try everything on every host meanwhile."""
    made = []
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        for host in hosts:
            for user, mine in INTRUDERS.items():
                argv = ["runuser", "-u", user, "--", "python3", "-I", "-c", INTRUDER, *mine]
                made.append(Intruder(user, host.popen(argv, **pipes), {}))
        for one in made:
            assert one.process.stdout
            assert one.process.stdout.readline() == "ready\n", one.process.stderr.read()  # type: ignore[union-attr]
        yield made
        for one in made:
            one.end()
    finally:
        for one in made:
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait()


@pytest.fixture(scope="module")
def users(lab: Lab) -> list[str]:
    """People of no group: they may ask the host how it is, and learn who they are to it."""
    authority = Authority.open(lab.pki)
    names = [f"{security_people.PREFIX}-honest{n}" for n in range(USERS)]
    for name in names:
        security_people.issue(authority, name)
    return names


def channels(lab: Lab, users: list[str]) -> list[tuple[str, grpc.aio.Channel]]:
    """A channel of every user to every door."""
    made = []
    for host in lab.hosts:
        for port in support.PORTS.values():
            for user in users:
                pair = support.Pair.of(lab.pki, user)
                credentials = grpc.ssl_channel_credentials(
                    (lab.pki / "ca.pem").read_bytes(),
                    pair.key.read_bytes(),
                    pair.certificate.read_bytes(),
                )
                options = [
                    ("grpc.ssl_target_name_override", host.name),
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.enable_retries", 0),
                ]
                target = f"{host.ipv4}:{port}"
                channel = grpc.aio.secure_channel(target, credentials, options=options)
                made.append((f"spiffe://lab.hostler/user/{user}", channel))
    return made


async def honest_calls(lab: Lab, users: list[str]) -> None:
    """Make all calls at once; each must be answered with its own caller."""
    callers = channels(lab, users)

    async def one(identity: str, channel: grpc.aio.Channel) -> None:
        stub = host_pb2_grpc.HostServiceStub(channel)
        answer = await stub.GetHost(host_pb2.GetHostRequest(), timeout=60)
        assert answer.host.caller == identity

    try:
        await asyncio.gather(*(one(*callers[n % len(callers)]) for n in range(CALLS)))
    finally:
        await asyncio.gather(*(channel.close(None) for _, channel in callers))


async def test_nobody_gains_an_identity_while_honest_calls_go_on(
    lab: Lab, hosts: tuple[Host, ...], users: list[str]
) -> None:
    rounds = 0
    with intruders(hosts) as made:
        # The first round makes new connections under the intruders' eyes, so does each later one.
        end = time.monotonic() + 5
        while time.monotonic() < end or not rounds:
            await honest_calls(lab, users)
            rounds += 1
    tried: dict[str, int] = {}
    for one in made:
        assert one.found["gained"] == [], one.user
        assert TRIED <= set(one.found["tried"]), one.user
        for what, count in one.found["tried"].items():
            tried[what] = tried.get(what, 0) + count
        if INTRUDERS[one.user]:
            assert one.found["tried"]["own private socket"] > 0
        if one.user != "hostler-netns":
            assert one.found["tried"]["launcher"] > 0
    print(f"\n{rounds * CALLS} honest calls, none lost; tried meanwhile: {tried}")


def test_the_intruder_tells_an_open_door(lab: Lab, h1: Host, users: list[str]) -> None:
    """Shows that the test above can fail: with a front door open to all, it gets in."""
    door = "/run/hostler/firewall.sock"
    h1.run(["chmod", "0666", door])
    try:
        with intruders((h1,)) as made:
            pass
    finally:
        h1.run(["chmod", "0660", door])
    for one in made:
        assert f"front door: {door}: connected" in one.found["gained"], one.user


def test_local_root_is_the_break_glass_identity(h1: Host) -> None:
    """The command on the host itself, at the unix sockets."""
    for domain in support.DOMAINS:
        assert whoami(h1, domain, ["env"]) == "local/root"


def test_a_user_of_the_group_is_who_the_kernel_says(h1: Host) -> None:
    group = h1.run(["getent", "group", "hostler"]).stdout.split(":")[2]
    become = ["setpriv", "--reuid=47111", "--regid=47111", f"--groups={group}"]
    for domain in support.DOMAINS:
        assert whoami(h1, domain, become) == "local/uid/47111"


def whoami(host: Host, domain: str, become: list[str]) -> str:
    """Ask a daemon, on the host, who we are to it."""
    program = (
        f"import sys; sys.path.insert(0, {code_tree(host)!r})\n"
        "import grpc; from hostler.api.common.v1 import host_pb2, host_pb2_grpc\n"
        f"with grpc.insecure_channel('unix:/run/hostler/{domain}.sock') as channel:\n"
        "    stub = host_pb2_grpc.HostServiceStub(channel)\n"
        "    print(stub.GetHost(host_pb2.GetHostRequest(), timeout=20).host.caller)\n"
    )
    return host.run([*become, "python3", "-IS", "-c", program]).stdout.strip()
