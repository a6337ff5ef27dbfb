"""What makes a host itself: names, addresses, machine id, enabled units."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from hostler.lab import tool
from hostler.lab.host import Host
from hostler.lab.identity import RESTORES, SOCKETS


def network(host: Host) -> str:
    """The host's own commands for ip(8): addresses, and the machine as the way out."""
    bridge = host.bridge
    commands = (
        f"addr add {host.ipv4}/24 dev host0",
        # Without nodad a server that starts early cannot bind the address.
        f"addr add {host.ipv6}/64 dev host0 nodad",
        "link set lo up",
        "link set host0 up",
        f"route add default via {bridge.ipv4(1)}",
        f"route add default via {bridge.ipv6(1)}",
    )
    return "\n".join(commands) + "\n"


def names(hosts: Sequence[Host]) -> str:
    """An /etc/hosts with every host of the lab, and the machine as `lab`."""
    bridge = hosts[0].bridge
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    lines += [f"{bridge.ipv4(1)} lab", f"{bridge.ipv6(1)} lab"]
    lines += [f"{address} {host.name}" for host in hosts for address in (host.ipv4, host.ipv6)]
    return "\n".join(lines) + "\n"


def seed(host: Host, hosts: Sequence[Host]) -> None:
    """Write the files of a new host into its mounted root."""
    etc = host.root / "etc"
    (etc / "hostname").write_text(host.name + "\n")
    (etc / "hosts").write_text(names(hosts))
    (etc / "machine-id").write_text(uuid.uuid4().hex + "\n")
    (etc / "lab.network").write_text(network(host))
    resolved = etc / "systemd" / "resolved.conf.d"
    resolved.mkdir(exist_ok=True)
    # The machine serves no names: a query that goes there is a query one can see on the bridge.
    (resolved / "lab.conf").write_text(
        f"[Resolve]\nDNS={host.bridge.ipv4(1)}\nLLMNR=no\nMulticastDNS=no\n"
    )


def enable(host: Host) -> None:
    """Enable Hostler's units in the mounted root of a host that has its packages."""
    tool.run(["/usr/bin/systemctl", "--quiet", f"--root={host.root}", "enable", *SOCKETS])
    tool.run(["/usr/bin/systemctl", "--quiet", f"--root={host.root}", "enable", *RESTORES])


def make_host_keys(host: Host) -> None:
    """Make the keys of a new host's sshd; those in the root are the same for all hosts."""
    ssh = host.root / "etc" / "ssh"
    for old in ssh.glob("ssh_host_*_key*"):
        old.unlink()
    tool.run(["/usr/bin/ssh-keygen", "-A", "-f", str(host.root)])
