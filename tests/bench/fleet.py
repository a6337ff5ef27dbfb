"""The same 20 hosts, one of them dead, asked and changed by Hostler, Ansible and pyinfra.

The hosts are the lab's, with real systemd, sshd and Hostler's packages; of the last one the power
is cut, and nothing answers at its address. All are asked for their kernel's release, and get the
same 50 rules of nftables, first where there are none and then once more. The peers do what is usual
with them: the file is copied, and loaded by nft(8) where it has changed; nothing is planned,
checked or taken back. All wait equally long for a host that cannot be reached, and each run begins
without a connection. `ours` is a program of the SDK's, which tells each answer when it comes; our
own command, beside it like a peer, looks at all plans first, changes one host before the rest, and
prints in the end. Asleep are hosts whose firewall daemon is not running, so that the call has to
start it; rules are cold on such hosts.

Clients and hosts have the same CPUs, so that times tell what both sides take together. Memory is
that of all processes of the client.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import fleet_lab
import fleet_peers
import rounds
import tomlkit
from client_cost import Command, Cost, run
from fleet_lab import RULES, FleetLab
from report import Row

HOSTS = 20
ROUNDS, LONG_ROUNDS, BUDGET_S = 1, 3, 600.0
OURS = "ours"
PROGRAM = Path(__file__).with_name("fleet_ours.py")
HOSTLER = Path(sys.executable).with_name("hostler")
ASLEEP, AWAKE = "kernel release, daemons asleep", "kernel release, daemons awake"
COLD, SAME = f"{RULES} rules, cold", f"{RULES} rules, unchanged"
TITLES = {
    "first_s": "s to the first answer",
    "last_s": "s to the last healthy answer",
    "cpu_s": "s of client CPU",
    "peak_mib": "MiB of client memory",
}
_ANSWER = re.compile(r'^\{"host": "(h\d+)".*?"ok": true')
Round = dict[str, Cost]


def rows() -> list[Row]:
    """Measure all in turn."""
    with fleet_lab.running(HOSTS) as made:
        fleet_peers.write(made)
        (made.folder / "rules.toml").write_text(tomlkit.dumps(fleet_lab.document()))
        number = LONG_ROUNDS if rounds.LONG else ROUNDS
        found = rounds.in_turn(contestants(made), number, BUDGET_S)
    mine = found.pop(OURS)
    return [
        Row(
            "fleet",
            f"{HOSTS} hosts, one dead, {what}, {title}",
            tuple(getattr(each[what], field) for each in mine),
            tuple(getattr(each[what], field) for each in theirs),
            peer,
        )
        for what in (ASLEEP, AWAKE, COLD, SAME)
        for field, title in TITLES.items()
        for peer, theirs in found.items()
    ]


def contestants(made: FleetLab) -> dict[str, Callable[[], Round]]:
    """Everybody, each as what a round of it does."""
    return {
        OURS: lambda: with_hostler(made, program),
        "hostler, the command": lambda: with_hostler(made, command),
        "ansible -f 5": lambda: with_peer(
            made, fleet_peers.ansible(made, 5, read=True), fleet_peers.ansible(made, 5, read=False)
        ),
        f"ansible -f {HOSTS}": lambda: with_peer(
            made,
            fleet_peers.ansible(made, HOSTS, read=True),
            fleet_peers.ansible(made, HOSTS, read=False),
        ),
        "pyinfra": lambda: with_peer(
            made, fleet_peers.pyinfra(made, read=True), fleet_peers.pyinfra(made, read=False)
        ),
    }


def with_hostler(made: FleetLab, how: Callable[[FleetLab, str], Command]) -> Round:
    """A round of ours: both with daemons asleep, and once more with them awake."""
    made.sleep()
    asleep = run(how(made, "read"), made.names)
    awake = run(how(made, "read"), made.names)
    made.sleep()
    cold = run(how(made, "write"), made.names)
    made.check(RULES)
    same = run(how(made, "write"), made.names)
    run(program(made, "delete"), made.names)
    made.check(0)
    return {ASLEEP: asleep, AWAKE: awake, COLD: cold, SAME: same}


def with_peer(made: FleetLab, read: Command, write: Command) -> Round:
    """A round of a peer's; it has no daemon that sleeps, so one reading serves for both."""
    asked = run(read, made.names)
    cold = run(write, made.names)
    made.check(RULES)
    same = run(write, made.names)
    made.check(RULES)
    made.forget()
    made.check(0)
    return {ASLEEP: asked, AWAKE: asked, COLD: cold, SAME: same}


def program(made: FleetLab, what: str) -> Command:
    """The SDK's program."""
    argv = [
        sys.executable,
        str(PROGRAM),
        str(made.lab.config),
        what,
        str(made.folder / "rules.toml"),
    ]
    return Command(argv, _ANSWER, fleet_peers.environment(made.folder), made.folder)


def command(made: FleetLab, what: str) -> Command:
    """Our own command line; the dead host may fail."""
    words = ["fleet", "check", "--domain", "firewall"]
    if what == "write":
        words = ["firewall", "apply", "-f", "rules.toml"]
    argv = [str(HOSTLER), "-H", "all", "-o", "ndjson", "--yes", "--max-failures", "1", *words]
    environment = fleet_peers.environment(made.folder)
    environment["HOSTLER_CONFIG"] = str(made.lab.config)
    return Command(argv, _ANSWER, environment, made.folder)
