"""One question to ever larger fleets: what a host costs the client must not grow with their number.

Few daemons stand for all hosts. Each host has an address of its own (127.10.x.y), and the name of
its daemon, whose certificate is thus as small as that of a real host. Each fleet is asked by a
process of its own, over new connections with mTLS. What the client takes (CPU of user and system,
gRPC's threads included, and the peak of its memory) is read when all have answered, and drawn in
build/fleet_size.svg. The window (256 hosts at a time) bounds the memory. How long it took says
little: the daemons have the same CPUs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import daemon
import fanout
import rounds
from fleet_plot import Panel, plot
from report import Row

from hostler.aio import Host
from hostler.pki import Authority

SIZES, LONG_SIZES = (100, 300, 1_000), (100, 300, 1_000, 3_000, 10_000)
# Of this many 5 % are dead, in a further comparison.
WITH_DEAD = 1_000
DAEMONS = 4
ROUNDS, BUDGET_S = 3, 420.0
PATIENCE_S = 600.0
PLOT = Path(__file__).parents[2] / "build/fleet_size.svg"


@dataclass(frozen=True, slots=True)
class Told:
    """What a fleet took: seconds to the last live answer, to all results, of CPU; most memory."""

    live_s: float
    all_s: float
    cpu_s: float
    peak_mib: float


def rows() -> list[Row]:
    """Measure fleets of all sizes in turn, and one with dead hosts."""
    sizes = LONG_SIZES if rounds.LONG else SIZES
    with serving() as served, fanout.dead_ports() as dead:
        contestants = {
            f"{count:,} hosts": lambda count=count: asked(served, count) for count in sizes
        }
        found = rounds.in_turn(contestants, ROUNDS, BUDGET_S)
        with_dead = [asked(served, WITH_DEAD, dead)]
    PLOT.parent.mkdir(exist_ok=True)
    PLOT.write_text(drawn(dict(zip(sizes, found.values(), strict=True))))
    made = []
    for count, (what, told) in zip(sizes, found.items(), strict=True):
        made += [
            _row(f"ms of client CPU a host, {what}", [1000 * t.cpu_s / count for t in told]),
            _row(f"MiB at most, {what}", [t.peak_mib for t in told]),
            _row(f"s to all results, {what}", [t.all_s for t in told]),
        ]
    title = f"{WITH_DEAD:,} hosts, {fanout.DEAD_PERCENT} % of them dead"
    return [
        *made,
        _row(f"s to the last live answer, {title}", [t.live_s for t in with_dead]),
        _row(f"s to all results, {title}", [t.all_s for t in with_dead]),
    ]


def _row(metric: str, values: Sequence[float]) -> Row:
    return Row("fleet_size", metric, tuple(values))


def drawn(found: dict[int, list[Told]]) -> str:
    """Draw what fleets of these sizes took, as SVG."""
    return plot(
        "Asking a fleet: what it takes of the client",
        "hosts",
        [
            Panel("s of CPU", {n: [t.cpu_s for t in told] for n, told in found.items()}, True),
            Panel("MiB at most", {n: [t.peak_mib for t in told] for n, told in found.items()}),
        ],
    )


@contextmanager
def serving() -> Iterator[list[daemon.Daemon]]:
    """Run the daemons that stand for all hosts, awake."""
    with daemon.folder() as place, ExitStack() as stack:
        authority = daemon.make_authority(place)
        served = [daemon.prepare(place, authority, f"d{n}") for n in range(DAEMONS)]
        for each in served:
            stack.enter_context(daemon.listening(each))
        first = hosts_of([each.port for each in served], DAEMONS)
        fanout.measure(fanout.bare(authority, fanout.TIMEOUT_S), first, DAEMONS)
        yield served


def hosts_of(ports: Sequence[int], count: int) -> list[Host]:
    """Answer the first so many hosts, spread evenly over the daemons."""
    return [
        Host(
            f"d{i % len(ports)}",
            fanout.address(i),
            ports={"netns": ports[i % len(ports)]},
        )
        for i in range(count)
    ]


def asked(served: Sequence[daemon.Daemon], count: int, dead: tuple[int, ...] = ()) -> Told:
    """Ask so many hosts from a process of its own; with `dead` ports some of them are dead."""
    wanted = {
        "pki": str(served[0].authority.folder),
        "ports": [each.port for each in served],
        "count": count,
        "dead": dead,
    }
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(wanted)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=PATIENCE_S,
    )
    return Told(**json.loads(done.stdout))


def ask(pki: str, ports: list[int], count: int, dead: list[int]) -> Told:
    """Ask so many hosts from this process."""
    hosts = live = hosts_of(ports, count)
    if dead:
        hosts = fanout.with_dead(hosts, *dead)
        live = [host for host in hosts if host.ports["netns"] in ports]
    contestant = fanout.sdk(Authority.open(Path(pki)))
    took = fanout.measure(contestant, hosts, len(live))
    return Told(took.live_s, took.all_s, took.cpu_s, _peak_mib())


def _peak_mib() -> float:
    """Read the most memory that this process has had. Source: proc(5), status.

    VmHWM and not ru_maxrss, which is at least what the process had from which this one came.
    """
    text = Path("/proc/self/status").read_text()
    return int(re.findall(r"(?m)^VmHWM:\s+(\d+) kB$", text)[0]) / 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(ask(**json.loads(sys.argv[1])))))
    sys.stdout.flush()
    # The interpreter's own end is no part of it, nor what gRPC says there.
    os._exit(0)
