"""The bridge that joins the hosts of a lab, and the addresses on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hostler.lab import tool

LABS = 200


@dataclass(frozen=True, slots=True)
class Bridge:
    """The bridge of lab number `number`; each lab on a machine has networks of its own.

    The machine has the first address of each and forwards nothing: hosts reach it and each other.
    """

    number: int

    @property
    def ifname(self) -> str:
        """The link's name."""
        return f"hostlerlab{self.number}"

    def ipv4(self, index: int) -> str:
        """The IPv4 address number `index` of the network, without prefix length."""
        return f"10.77.{self.number}.{index}"

    def ipv6(self, index: int) -> str:
        """The IPv6 address whose last group reads like `index` in decimal."""
        subnet = f"0:{self.number:x}:" if self.number else ""
        return f"fd77:1ab:{subnet}:{index}"

    def exists(self) -> bool:
        """Whether the link is there."""
        return Path("/sys/class/net", self.ifname).exists()

    def create(self) -> None:
        """Make and address the bridge unless it is there."""
        if self.exists():
            return
        commands = (
            f"link add {self.ifname} type bridge stp_state 0 forward_delay 0",
            f"addr add {self.ipv4(1)}/24 dev {self.ifname}",
            f"addr add {self.ipv6(1)}/64 dev {self.ifname} nodad",
            f"link set {self.ifname} up",
        )
        tool.run(["/usr/sbin/ip", "-batch", "-"], stdin="\n".join(commands) + "\n")

    def delete(self) -> None:
        """Remove the bridge if it is there."""
        if self.exists():
            tool.run(["/usr/sbin/ip", "link", "delete", self.ifname])


def first_free() -> int:
    """The lowest lab number whose bridge does not exist on this machine."""
    return next(n for n in range(LABS) if not Bridge(n).exists())
