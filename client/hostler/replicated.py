"""A replicated volume as values: legs of several hosts, mirrored, and striped if need be. Pure.

    h1:A  h2:B  h3:C   →  raid1 of three legs
    h1:D  h2:E  h3:F   →  raid1 of three legs   →  raid0 of both

Each mirror has a leg of every host, each leg a whole copy: with three hosts any two may be lost.
Of raid10 the same would need three copies of everything (n3, o3), and each leg would hold all data
too; but raid1 alone reads the own leg and the others at need (write-mostly), so that no read waits
for a host that is lost, and what it has on a leg is the filesystem as it is.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from hostler.config import HostlerError

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,17}[a-z0-9])?")
TYPES = ("ext4", "xfs", "btrfs")
_NAMESPACE = uuid.UUID("6f1d7c1e-5b7c-4f0a-9b1e-0d1f4c7a2e55")
_HOSTS_MOST, _MIRRORS_MOST = 8, 16


class VolumeInvalid(HostlerError):
    """A volume that cannot be made as it is asked for."""


@dataclass(frozen=True, slots=True)
class Leg:
    """A device of a host that is to hold a copy. `mirror` and `number` count from 1."""

    host: str
    device: str
    mirror: int = 0
    number: int = 0

    @classmethod
    def parse(cls, words: str) -> Self:
        """Read HOST:DEVICE. Raises ValueError."""
        host, colon, device = words.partition(":")
        if not (host and colon and device):
            raise ValueError(f"{words!r} is no HOST:DEVICE")
        return cls(host, device)


@dataclass(frozen=True, slots=True)
class Volume:
    """A replicated volume: `on` is the host that has it, `portals` where the others' legs are."""

    name: str
    legs: tuple[Leg, ...]
    on: str
    mount: str
    portals: Mapping[str, str] = field(default_factory=dict, hash=False)
    type: str = "ext4"

    @classmethod
    def of(
        cls,
        name: str,
        legs: tuple[Leg, ...],
        on: str,
        mount: str,
        portals: Mapping[str, str],
        type: str = "ext4",
    ) -> Volume:
        """Make one, with its legs in their mirrors. Raises VolumeInvalid."""
        faults = tuple(_faults(name, legs, on, portals, type))
        if faults:
            raise VolumeInvalid("; ".join(faults))
        hosts = _hosts(legs)
        count: dict[str, int] = {}
        placed = []
        for leg in legs:
            count[leg.host] = count.get(leg.host, 0) + 1
            placed.append(Leg(leg.host, leg.device, count[leg.host], hosts.index(leg.host) + 1))
        return cls(name, tuple(sorted(placed, key=_place)), on, mount, dict(portals), type)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts of its legs, in the order in which they were named."""
        numbered = {leg.number: leg.host for leg in self.legs}
        return tuple(numbered[at] for at in sorted(numbered))

    @property
    def mirrors(self) -> tuple[tuple[Leg, ...], ...]:
        """The legs of each mirror."""
        last = max(leg.mirror for leg in self.legs)
        return tuple(
            tuple(leg for leg in self.legs if leg.mirror == at) for at in range(1, last + 1)
        )

    @property
    def remote(self) -> tuple[Leg, ...]:
        """The legs of other hosts."""
        return tuple(leg for leg in self.legs if leg.host != self.on)

    def leg_name(self, leg: Leg) -> str:
        """What the export and the attachment of a leg are called."""
        return f"{self.name}-{leg.mirror}-{leg.number}"

    def array_name(self, mirror: int) -> str:
        """What the array of a mirror is called: as the volume, if it is the only one."""
        return self.name if len(self.mirrors) == 1 else f"{self.name}-m{mirror}"

    def filesystem_uuid(self, array_uuid: str) -> str:
        """The UUID of the filesystem on an array: always the same, so that none is made twice."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.name} {self.type} {array_uuid}"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be known before it is made."""
        if len(self.hosts) > 2:
            return ()
        return (f"TWO_HOSTS: {self.name} is lost with {' and '.join(self.hosts)} together",)

    def to_record(self) -> dict[str, Any]:
        """What `from_record` takes."""
        return {
            "name": self.name,
            "legs": [[leg.host, leg.device] for leg in self.legs],
            "on": self.on,
            "mount": self.mount,
            "portals": dict(self.portals),
            "type": self.type,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Volume:
        """Make it again. Raises TypeError, KeyError or VolumeInvalid for another version's."""
        legs = tuple(Leg(host, device) for host, device in record["legs"])
        return cls.of(**{**record, "legs": legs})


def _place(leg: Leg) -> tuple[int, int]:
    return leg.mirror, leg.number


def _hosts(legs: tuple[Leg, ...]) -> list[str]:
    return list(dict.fromkeys(leg.host for leg in legs))


def _faults(
    name: str, legs: tuple[Leg, ...], on: str, portals: Mapping[str, str], type: str
) -> Iterator[str]:
    if not NAME.fullmatch(name):
        yield f"{name!r}: a volume's name has 1 to 19 of a-z, 0-9 and -, and no - at its ends"
    if type not in TYPES:
        yield f"{type!r}: the filesystem is one of {', '.join(TYPES)}"
    yield from _leg_faults(legs)
    hosts = _hosts(legs)
    for host in hosts:
        if host != on and not portals.get(host):
            yield f"{host} has no portal: say --portal {host}=ADDRESS:PORT"
    for host in portals:
        if host not in hosts or host == on:
            yield f"{host} has a portal and no leg that is exported"


def _leg_faults(legs: tuple[Leg, ...]) -> Iterator[str]:
    hosts = _hosts(legs)
    counts = {host: sum(leg.host == host for leg in legs) for host in hosts}
    if not 2 <= len(hosts) <= _HOSTS_MOST:
        yield f"a volume has legs from 2 to {_HOSTS_MOST} hosts, and not from {len(hosts)}"
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {host}" for host, count in counts.items())
        yield f"each mirror has a leg of every host: there are {told}"
    elif any(count > _MIRRORS_MOST for count in counts.values()):
        yield f"there are at most {_MIRRORS_MOST} mirrors"
    if len(set(legs)) < len(legs):
        yield "one device is named twice"


def mirror_of(volume: str, attachment: str) -> int:
    """The mirror that an attachment is a leg of; 0 if it is none of this volume's."""
    found = re.fullmatch(rf"{re.escape(volume)}-([1-9][0-9]?)-[1-9]", attachment)
    return int(found[1]) if found is not None else 0
