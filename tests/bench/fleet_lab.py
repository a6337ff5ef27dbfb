"""Hosts of the lab with Hostler's packages and sshd, the last of them without power."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import daemon
import recipes
from rounds import wait_until

from hostler.lab import rootfs
from hostler.lab.host import Host
from hostler.lab.lab import Lab

AT_ONCE = 5
RULES = 50
NAME = "bench"
# Both the peers' file and their table; ours are in Hostler's own table.
FILE = "/etc/nftables-bench.nft"
RULE = re.compile(r"udp dport \d+ .*drop")


@dataclass(frozen=True, slots=True)
class FleetLab:
    """The lab, its hosts that run, and the operator's ssh: a key, and the hosts' keys."""

    lab: Lab
    healthy: Sequence[Host]
    folder: Path

    @property
    def names(self) -> list[str]:
        """The names of the hosts that run."""
        return [host.name for host in self.healthy]

    @property
    def hosts(self) -> Sequence[Host]:
        """All hosts, the dead one included."""
        return self.lab.hosts

    @property
    def key(self) -> Path:
        """The private key that all hosts take."""
        return self.folder / "ssh_key"

    @property
    def known(self) -> Path:
        """What the hosts' own keys are."""
        return self.folder / "known_hosts"

    def on_all(self, *argv: str, check: bool = True) -> list[str]:
        """Run a command on all hosts that run; answers its outputs."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(
                pool.map(
                    lambda host: host.run(argv, check=check, timeout_s=120).stdout, self.healthy
                )
            )

    def sleep(self) -> None:
        """Stop all daemons; the next caller starts them."""
        self.on_all("/usr/bin/systemctl", "stop", "hostler-firewall.service")

    def forget(self) -> None:
        """Remove what peers have written; ours is removed by ours."""
        self.on_all("/usr/sbin/nft", "delete", "table", "inet", NAME, check=False)
        self.on_all("/usr/bin/rm", "-f", FILE)

    def check(self, rules: int) -> None:
        """Raise AssertionError unless each host has so many of the rules."""
        found = [
            len(RULE.findall(text)) for text in self.on_all("/usr/sbin/nft", "list", "ruleset")
        ]
        if set(found) != {rules}:
            raise AssertionError(f"hosts have {found} rules, not {rules}")


@contextmanager
def running(count: int) -> Iterator[FleetLab]:
    """Boot so many hosts, a few at a time, and cut the last one's power."""
    bare = partial(rootfs.base, debian=rootfs.BARE)
    with daemon.folder() as place, patch.object(rootfs, "base", bare):
        lab = Lab(place / "lab")
        try:
            for upto in (*range(AT_ONCE, count, AT_ONCE), count):
                hosts = lab.up(upto)
            made = FleetLab(lab, hosts[:-1], place)
            _meet(made)
            lab.kill(hosts[-1].name)
            yield made
        finally:
            lab.down()


def _meet(made: FleetLab) -> None:
    """Let root of all hosts take a new key, and know the hosts by what they say themselves."""
    recipes.tool(["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made.key)])
    known = []
    for host in made.hosts:
        host.run(["/usr/bin/install", "-d", "-m700", "/root/.ssh"])
        host.put("/root/.ssh/authorized_keys", made.key.with_suffix(".pub").read_text(), 0o600)
        shown = host.run(["/usr/bin/cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.split()
        known.append(f"{host.ipv4} {shown[0]} {shown[1]}\n")
        wait_until(partial(_takes_ssh, host), 60, f"sshd of {host.name}")
    made.known.write_text("".join(known))


def _takes_ssh(host: Host) -> bool:
    argv = ["/usr/bin/systemctl", "is-active", "ssh.service"]
    return host.run(argv, check=False).stdout == "active\n"


def document() -> dict[str, object]:
    """The ruleset as ours: ports of UDP that are not forwarded from certain networks."""
    return {"name": NAME, "rules": [_rule(n) for n in range(RULES)]}


def _rule(n: int) -> dict[str, object]:
    return {
        "id": f"r{n}",
        "hook": "forward",
        "action": "drop",
        "protocol": "udp",
        "sources": [f"10.9.{n}.0/24"],
        "destination_ports": [{"first": 2_000 + n}],
    }


def text() -> str:
    """The same as text for nft(8), in a table of its own, in the place of what is there."""
    rules = "\n".join(
        f"    ip saddr 10.9.{n}.0/24 udp dport {2_000 + n} drop" for n in range(RULES)
    )
    chain = f"  chain forward {{\n    type filter hook forward priority filter\n{rules}\n  }}"
    return f"table inet {NAME}\ndelete table inet {NAME}\ntable inet {NAME} {{\n{chain}\n}}\n"
