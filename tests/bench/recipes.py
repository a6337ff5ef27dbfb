"""The peers of the namespaces benchmark: what an administrator would do without Hostler.

Each makes the same thing: a namespace, a veth pair, an IPv4 address on both ends, an IPv6 address
inside, all links up, a default route through the host.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

IP = "/usr/sbin/ip"
PREFIX = "hq"
TIMEOUT_S = 120
GROUP = 4242
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

# In the manner of the recipe that most texts on namespaces give, NAT and forward included.
RECIPE = """\
set -e
name=$1; veth=$2; peer=$3; host=$4; inside=$5; inside6=$6; port=$7
ip netns add $name
ip link add $veth type veth peer name $peer
ip link set $peer netns $name
ip addr add $host/30 dev $veth
ip link set $veth up
ip netns exec $name ip link set lo up
ip netns exec $name ip link set $peer name eth0
ip netns exec $name ip addr add $inside/30 dev eth0
ip netns exec $name ip addr add $inside6/64 dev eth0
ip netns exec $name ip link set eth0 up
ip netns exec $name ip route add default via $host
iptables -t nat -A POSTROUTING -s $inside/32 -o ext0 -j MASQUERADE
iptables -t nat -A PREROUTING -i ext0 -p tcp --dport $port -j DNAT --to $inside:80
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Namespace number `index` (0 to 4095): its names, and its addresses without prefix length."""

    index: int

    @property
    def name(self) -> str:
        """The namespace's name."""
        return f"{PREFIX}{self.index}"

    @property
    def veth(self) -> str:
        """The name of the host's end."""
        return f"hv{self.index}"

    @property
    def host(self) -> str:
        """The IPv4 address of the host's end, of a /30."""
        return self._ipv4(1)

    @property
    def inside(self) -> str:
        """The IPv4 address inside, of the same /30."""
        return self._ipv4(2)

    @property
    def inside6(self) -> str:
        """The IPv6 address inside, of a /64."""
        return f"fd00:{self.index + 1:x}::2"

    def _ipv4(self, last: int) -> str:
        return f"10.200.{self.index >> 6}.{(self.index & 63) * 4 + last}"


def wanted(count: int) -> list[Wanted]:
    """Answer the first so many namespaces."""
    return [Wanted(index) for index in range(count)]


def host_commands(want: Wanted) -> list[str]:
    """Answer the arguments of ip(8) for the host's side."""
    return [
        f"netns add {want.name}",
        f"link add {want.veth} type veth peer name eth0 netns {want.name}",
        f"addr add {want.host}/30 dev {want.veth}",
        f"link set {want.veth} up",
    ]


def inside_commands(want: Wanted) -> list[str]:
    """Answer the arguments of ip(8) for the inside."""
    return [
        "link set lo up",
        f"addr add {want.inside}/30 dev eth0",
        f"addr add {want.inside6}/64 dev eth0",
        "link set eth0 up",
        f"route add default via {want.host}",
    ]


def with_batch(wants: Sequence[Wanted]) -> None:
    """Make them with one `ip -batch` for the host and one for each inside."""
    tool([IP, "-batch", "-"], [line for want in wants for line in host_commands(want)])
    for want in wants:
        tool([IP, "-n", want.name, "-batch", "-"], inside_commands(want))


def with_commands(wants: Sequence[Wanted]) -> None:
    """Make them with one `ip` command for each thing."""
    for want in wants:
        for command in host_commands(want):
            tool([IP, *command.split()])
        for command in inside_commands(want):
            tool([IP, "-n", want.name, *command.split()])


def with_script(wants: Sequence[Wanted]) -> None:
    """Make them with a shell script, run for each."""
    for want in wants:
        names = [want.name, want.veth, f"hp{want.index}", want.host, want.inside, want.inside6]
        tool(["/usr/bin/bash", "-c", RECIPE, "recipe", *names, str(10_000 + want.index)])


PEERS: dict[str, Callable[[Sequence[Wanted]], None]] = {
    "ip -batch": with_batch,
    "ip commands": with_commands,
    "shell script with iptables": with_script,
}


def remove(wants: Sequence[Wanted]) -> None:
    """Remove what a peer has made. Links in one group go at once; each alone takes 30 ms."""
    lines = [f"link set {want.veth} group {GROUP}" for want in wants]
    lines += [f"link del group {GROUP}", *(f"netns del {want.name}" for want in wants)]
    tool([IP, "-batch", "-"], lines)
    tool(["/usr/sbin/iptables", "-t", "nat", "-F"])


def tool(argv: list[str], lines: Sequence[str] = ()) -> str:
    """Run a tool, with lines for its standard input; answers its output. Raises if it fails."""
    done = subprocess.run(
        argv,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv[:4])}: status {done.returncode}: {done.stderr[-500:]}")
    return done.stdout
