"""The steps about the links of namespaces: made, addressed, routed, and taken away.

`where` is the namespace a link is in; empty means the host. As in `steps`, `lack` is how drift is
put into words.
"""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.netns.model.namespace import Address, MacvlanMode, Route
from hostlerd.netns.model.steps import Remake
from hostlerd.runtime.steps import Step


def _at(ifname: str, where: str) -> str:
    return f"{ifname} of {where}" if where else ifname


@dataclass(frozen=True, slots=True)
class CreateVeth:
    """Make a veth pair: `host_ifname` on the host, `ifname` in the namespace."""

    where: str
    ifname: str
    host_ifname: str
    mtu_bytes: int

    def describe(self) -> str:
        """Say what it does."""
        pair = f"{self.host_ifname} and {_at(self.ifname, self.where)}"
        return f"make the veth pair {pair}, MTU {self.mtu_bytes}"

    def inverse(self) -> Step:
        """Remove the pair."""
        return RemoveLink("", self.host_ifname)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"{self.ifname} is missing"


@dataclass(frozen=True, slots=True)
class CreateMacvlan:
    """Make a macvlan link on `parent` of the host, inside the namespace."""

    where: str
    ifname: str
    parent: str
    mode: MacvlanMode
    mtu_bytes: int

    def describe(self) -> str:
        """Say what it does."""
        what = f"macvlan {_at(self.ifname, self.where)} on {self.parent}"
        return f"make the {what}, mode {self.mode.name.lower()}, MTU {self.mtu_bytes}"

    def inverse(self) -> Step:
        """Remove the link."""
        return RemoveLink(self.where, self.ifname)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"{self.ifname} is missing"


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """Remove a link, and with a veth its other end; `remake` holds the steps that make it again."""

    where: str
    ifname: str
    remake: tuple[Step, ...] = ()

    def describe(self) -> str:
        """Say what it does."""
        return f"remove {_at(self.ifname, self.where)}"

    def inverse(self) -> Step | None:
        """Make it again."""
        return Remake(self.ifname, self.remake) if self.remake else None

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"{_at(self.ifname, self.where)} is of another make"


@dataclass(frozen=True, slots=True)
class RemoveHostLinks:
    """Remove links of the host at once, with the other end of each veth: all of them or none.

    Each alone keeps the kernel waiting for tens of milliseconds. `remake` holds the steps that make
    them again.
    """

    ifnames: tuple[str, ...]
    remake: tuple[Step, ...] = ()

    def describe(self) -> str:
        """Say what it does."""
        return "remove " + ", ".join(self.ifnames)

    def inverse(self) -> Step | None:
        """Make them again."""
        return Remake(", ".join(self.ifnames), self.remake) if self.remake else None


@dataclass(frozen=True, slots=True)
class JoinBridge:
    """Put a link of the host into a bridge, or with an empty `bridge` out of any."""

    ifname: str
    bridge: str
    before: str = ""

    def describe(self) -> str:
        """Say what it does."""
        if not self.bridge:
            return f"take {self.ifname} out of its bridge"
        return f"put {self.ifname} into bridge {self.bridge}"

    def inverse(self) -> Step:
        """Put it where it was."""
        return JoinBridge(self.ifname, self.before, self.bridge)

    def lack(self) -> str:
        """Say how what needs this differs."""
        if not self.bridge:
            return f"{self.ifname} is in a bridge"
        return f"{self.ifname} is not in bridge {self.bridge}"


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Add an address to a link, usable at once (no duplicate address detection)."""

    where: str
    ifname: str
    address: Address

    def describe(self) -> str:
        """Say what it does."""
        return f"add {self.address} to {_at(self.ifname, self.where)}"

    def inverse(self) -> Step:
        """Remove it."""
        return RemoveAddress(self.where, self.ifname, self.address)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"{self.ifname} lacks {self.address}"


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Remove an address from a link."""

    where: str
    ifname: str
    address: Address

    def describe(self) -> str:
        """Say what it does."""
        return f"remove {self.address} from {_at(self.ifname, self.where)}"

    def inverse(self) -> Step:
        """Add it again."""
        return AddAddress(self.where, self.ifname, self.address)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"{self.ifname} has {self.address}, which was not asked for"


@dataclass(frozen=True, slots=True)
class SetLinkUp:
    """Set a link up or down."""

    where: str
    ifname: str
    up: bool = True

    def describe(self) -> str:
        """Say what it does."""
        return f"set {_at(self.ifname, self.where)} {'up' if self.up else 'down'}"

    def inverse(self) -> Step:
        """Set it back."""
        return SetLinkUp(self.where, self.ifname, not self.up)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"{self.ifname} is {'down' if self.up else 'up'}"


@dataclass(frozen=True, slots=True)
class SetMtu:
    """Set a link's MTU, L2 header left out."""

    where: str
    ifname: str
    mtu_bytes: int
    before_bytes: int

    def describe(self) -> str:
        """Say what it does."""
        return f"set the MTU of {_at(self.ifname, self.where)} to {self.mtu_bytes}"

    def inverse(self) -> Step:
        """Set it back."""
        return SetMtu(self.where, self.ifname, self.before_bytes, self.mtu_bytes)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"{self.ifname} has MTU {self.before_bytes} instead of {self.mtu_bytes}"


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add a route to a namespace, in place of one with the same destination and metric."""

    where: str
    route: Route

    def describe(self) -> str:
        """Say what it does."""
        return f"add route {self.route} to {self.where}"

    def inverse(self) -> Step:
        """Remove it."""
        return RemoveRoute(self.where, self.route)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"route {self.route} is missing"


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Remove a route from a namespace."""

    where: str
    route: Route

    def describe(self) -> str:
        """Say what it does."""
        return f"remove route {self.route} from {self.where}"

    def inverse(self) -> Step:
        """Add it again."""
        return AddRoute(self.where, self.route)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"route {self.route} was not asked for"


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Set a sysctl of a namespace; `key` is its path below /proc/sys."""

    where: str
    key: str
    value: str
    before: str

    def describe(self) -> str:
        """Say what it does."""
        return f"set {self.key} of {self.where} to {self.value}"

    def inverse(self) -> Step:
        """Set it back."""
        return SetSysctl(self.where, self.key, self.before, self.value)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return f"{self.key} is {self.before} instead of {self.value}"
