"""50,000 tracked connections listed, counted and searched, beside conntrack(8).

Ours is the reader of the firewall daemon, in this process: the call around it costs what every call
costs, which is another benchmark's. conntrack(8) prints to /dev/null what it has read, and that
includes starting it. All of it happens in a network namespace of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from report import Row
from rounds import in_turn

COUNT = 50_000
ROUNDS, BUDGET_S, APART_S = 7, 60.0, 120.0
CONNTRACK = "/usr/sbin/conntrack"
UNSHARE = ("/usr/bin/unshare", "--net")
# What is asked of both, by its name in the report.
LIST, SEARCH, SUM = "ms to list", "ms to find none of", "ms to count by state"


def rows() -> list[Row]:
    """Measure in a process of its own, inside its own namespace."""
    argv = [*UNSHARE, sys.executable, __file__]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=APART_S)
    found = json.loads(done.stdout)
    return [
        Row("connections", f"{what} {COUNT:,}", tuple(ours), tuple(peer), f"conntrack {words}")
        for what, (words, ours, peer) in found.items()
    ]


def ms(work: Callable[[], object]) -> float:
    """Answer how long something took, in milliseconds."""
    start = time.monotonic()
    work()
    return (time.monotonic() - start) * 1000


def track() -> None:
    """Have the kernel track so many connections, as if they were."""
    with tempfile.NamedTemporaryFile("w", suffix=".conntrack") as file:
        for n in range(COUNT):
            ends = f"-s 10.9.0.1 -d 10.{n // 62_500 + 1}.{n // 250 % 250}.{n % 250}"
            ports = "--sport 1000 --dport 80 --state ESTABLISHED -t 9000"
            file.write(f"-I -p tcp {ends} {ports}\n")
        file.flush()
        subprocess.run([CONNTRACK, "-R", file.name], check=True, stderr=subprocess.DEVNULL)


def measure() -> dict[str, tuple[str, list[float], list[float]]]:
    """Answer by metric the peer's words, our figures and the peer's."""
    from hostlerd.firewall.kernel import conntrack
    from hostlerd.firewall.model.connection import ConnectionFilter
    from hostlerd.firewall.model.ruleset import PortRange

    every = ConnectionFilter()
    none = ConnectionFilter(destination_ports=(PortRange(443, 443),))
    contests: dict[str, tuple[tuple[str, ...], Callable[[], object]]] = {
        LIST: (("-L",), lambda: conntrack.listed(every, 10_000)),
        SEARCH: (("-L", "-p", "tcp", "--dport", "443"), lambda: conntrack.listed(none, 10_000)),
        SUM: (("-L", "-o", "extended"), lambda: conntrack.counts(every)),
    }
    found = {}
    for what, (words, ours) in contests.items():

        def peer(words: tuple[str, ...] = words) -> object:
            quiet = subprocess.DEVNULL
            return subprocess.run([CONNTRACK, *words], check=True, stdout=quiet, stderr=quiet)

        turns = {"ours": lambda ours=ours: ms(ours), "peer": lambda peer=peer: ms(peer)}
        figures = in_turn(turns, ROUNDS, BUDGET_S / len(contests))
        found[what] = (" ".join(words), figures["ours"], figures["peer"])
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    track()
    json.dump(measure(), sys.stdout)
