"""A hundred namespaces by one ApplyNamespaces, beside what an administrator would type.

Ours is one call over mTLS to the real daemon, from the request's first byte to the answer, with
authorization, both audit records, the plan, the record of each namespace and its resolver files on
disk, and reading back what the kernel has; handles are mounted by the launcher, as on a host. The
peers (see recipes.py) make the same links, addresses and routes and nothing else. The channel is
open before and the daemon is awake: cold starts are another benchmark's.

All of it happens in a network and a mount namespace of its own, with an own /run: the machine's
links, rules and handles are neither touched nor in the way, and all is gone with the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import daemon
import recipes
from recipes import IP, Wanted, tool
from report import Row
from rounds import in_turn, wait_until

from hostler.api.netns.v1 import namespace_pb2, namespace_pb2_grpc

COUNT = 100
# Peers that are measured in the same rounds, and how many rounds.
ROUNDS = {("ip -batch",): 9, ("ip commands", "shell script with iptables"): 3}
BUDGET_S, APART_S = 120.0, 240.0
CALL_TIMEOUT_S = 120.0
SETTLE_S = 0.5
OURS = "ApplyNamespaces"
TARGETS = {"ip -batch": 1.5, "ip commands": 1.0, "shell script with iptables": 1.0}
UNSHARE = ("/usr/bin/unshare", "--net", "--mount", "--propagation", "private")
LAUNCHER = Path(__file__).parents[2] / "services/hostlerd/netns/launcher/__main__.py"
# In memory, as on a host; state and audit log are on disk.
RUN = Path("/run/hostler-netns")
LAUNCHER_SOCKET = Path("/run/hostler/launcher.sock")


def rows() -> list[Row]:
    """Measure in a process of its own, inside its own namespaces."""
    with daemon.folder() as place:
        found = run_apart(place)
    metric = f"ms per namespace, {COUNT} made"
    made = []
    for peer, target in TARGETS.items():
        ours, theirs = (tuple(figures) for figures in found[peer])
        made.append(Row("namespaces", metric, ours, theirs, peer, target))
    return made


def run_apart(place: Path) -> Any:
    """Run `measure` in new namespaces; nothing of it is left, however it ends."""
    # All files are in the caller's folder, which goes even if the process is killed.
    answer, errors = place / "found.json", place / "errors"
    argv = [*UNSHARE, sys.executable, __file__, str(answer)]
    with (
        errors.open("w") as stderr,
        subprocess.Popen(argv, stdout=stderr, stderr=stderr, start_new_session=True) as child,
    ):
        try:
            status = child.wait(APART_S)
        finally:
            # Daemon and launcher too: with the last of them the namespaces go.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if status != 0:
        raise RuntimeError(f"status {status}: {errors.read_text()[-4000:]}")
    return json.loads(answer.read_text())


def make_stage() -> None:
    """Cover /run and /sys with those of this process's namespaces; bring up its lo."""
    for kind, where in (("tmpfs", "/run"), ("sysfs", "/sys")):
        tool(["/usr/bin/mount", "-t", kind, kind, where])
    tool([IP, "link", "set", "lo", "up"])


@contextmanager
def launcher() -> Iterator[None]:
    """Hold the launcher's socket as its unit does; the daemon's first request starts it."""
    LAUNCHER_SOCKET.parent.mkdir(parents=True)
    argv = [daemon.ACTIVATE, "--seqpacket", "-l", str(LAUNCHER_SOCKET)]
    with subprocess.Popen([*argv, "/usr/bin/python3", "-I", "-S", str(LAUNCHER)]) as process:
        wait_until(LAUNCHER_SOCKET.exists, 10, "the launcher's socket")
        try:
            yield
        finally:
            process.terminate()


def request(wants: list[Wanted]) -> namespace_pb2.ApplyNamespacesRequest:
    """Answer the request that asks for the namespaces; without any it removes all."""
    return namespace_pb2.ApplyNamespacesRequest(
        namespaces=[
            namespace_pb2.Namespace(
                name=want.name,
                interfaces=[
                    namespace_pb2.Interface(
                        veth=namespace_pb2.Veth(
                            host_ifname=want.veth, host_addresses=[f"{want.host}/30"]
                        ),
                        addresses=[f"{want.inside}/30", f"{want.inside6}/64"],
                    )
                ],
                # Not `default_route`, which would bring one of IPv6 as well.
                routes=[namespace_pb2.Route(destination="default", gateway=want.host)],
            )
            for want in wants
        ],
        delete_unlisted=not wants,
    )


async def apply(served: daemon.Daemon, wants: list[Wanted]) -> float:
    """Apply once on an open channel; answers how many seconds that took."""
    async with served.channel() as channel:
        stub = namespace_pb2_grpc.NamespaceServiceStub(channel)
        listed = namespace_pb2.ListNamespacesRequest(managed_only=True)
        await stub.ListNamespaces(listed, timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        message = request(wants)
        start = time.perf_counter()
        answer = await stub.ApplyNamespaces(message, timeout=CALL_TIMEOUT_S)
        elapsed_s = time.perf_counter() - start
    if len(answer.namespaces) != len(wants) or not answer.change.changed:
        raise AssertionError(f"asked for {len(wants)} namespaces: {str(answer.change)[:500]}")
    return elapsed_s


def witness(wants: list[Wanted]) -> None:
    """Ask ip(8) whether all are there as wanted. Raises AssertionError."""
    names = {each["name"] for each in json.loads(tool([IP, "-json", "netns", "list"]) or "[]")}
    ends = {each["ifname"]: each for each in json.loads(tool([IP, "-json", "link"]))}
    for want in wants:
        if want.name not in names or "UP" not in ends[want.veth]["flags"]:
            raise AssertionError(f"{want.name} is not there, or {want.veth} is not up")
    for want in (wants[0], wants[-1]):
        seen = json.loads(tool([IP, "-json", "-n", want.name, "addr", "show", "dev", "eth0"]))[0]
        addresses = {f"{each['local']}/{each['prefixlen']}" for each in seen["addr_info"]}
        routes = json.loads(tool([IP, "-json", "-n", want.name, "route"]))
        gateways = [each["gateway"] for each in routes if each["dst"] == "default"]
        expected = {f"{want.inside}/30", f"{want.inside6}/64"}
        if not expected <= addresses or gateways != [want.host] or "UP" not in seen["flags"]:
            raise AssertionError(f"{want.name}: {addresses}, default by {gateways}")


def round_of(make: Callable[[], float], remove: Callable[[], object], wants: list[Wanted]) -> float:
    """Make all, ask the witness, remove all; answers the milliseconds per namespace."""
    try:
        elapsed_s = make()
        witness(wants)
    finally:
        remove()
    # The kernel takes namespaces down later, under the lock that making them needs.
    wait_until(lambda: "veth" not in tool([IP, "-d", "link"]), 60, "links of the round before")
    time.sleep(SETTLE_S)
    return elapsed_s * 1e3 / len(wants)


def timed(make: Callable[[list[Wanted]], None], wants: list[Wanted]) -> float:
    """Answer how many seconds a peer takes."""
    start = time.perf_counter()
    make(wants)
    return time.perf_counter() - start


def measure(place: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Let the daemon and its peers make the namespaces in turn.

    Answers for each peer the milliseconds of ours and of the peer's, round by round. The quick peer
    has more rounds, and rounds of its own: beside it the machine's noise counts most.
    """
    wants = recipes.wanted(COUNT)
    with launcher():
        served = daemon.prepare(place, daemon.make_authority(place), run=RUN)
        with daemon.listening(served):
            ours = partial(
                round_of,
                lambda: asyncio.run(apply(served, wants)),
                lambda: asyncio.run(apply(served, [])),
                wants,
            )
            ours()  # Loads what only changes need.
            found: dict[str, tuple[list[float], list[float]]] = {}
            for peers, rounds in ROUNDS.items():
                contestants: dict[str, Callable[[], float]] = {
                    OURS: ours,
                    **{peer: peer_of(peer, wants) for peer in peers},
                }
                times = in_turn(contestants, rounds, BUDGET_S / len(ROUNDS))
                found |= {peer: (times[OURS], times[peer]) for peer in peers}
            return found


def peer_of(name: str, wants: list[Wanted]) -> Callable[[], float]:
    """Answer a round of a peer."""
    return partial(
        round_of, partial(timed, recipes.PEERS[name], wants), partial(recipes.remove, wants), wants
    )


if __name__ == "__main__":
    make_stage()
    found = Path(sys.argv[1])
    found.write_text(json.dumps(measure(found.parent)))
