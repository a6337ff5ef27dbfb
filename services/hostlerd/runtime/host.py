"""What a daemon knows of its host: release, boot, and capabilities found by probing."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from hostlerd.pending.place import boot_id


@dataclass(frozen=True, slots=True)
class Capability:
    """Something a domain needs from the host. `reason` tells why it is not there."""

    name: str
    available: bool
    reason: str = ""


Probe = Callable[[], Capability]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Something else that manages what the domain manages. The fields are those of the API."""

    code: str
    name: str
    message: str
    advice: str
    conflict: bool = False


Neighbourhood = Callable[[], Iterable[Neighbour]]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What does not change while the host is up."""

    hostname: str
    kernel_release: str
    os_name: str
    boot_id: str


def facts() -> HostFacts:
    """Read the host's facts. Sources: uname(2), os-release(5), random(4)."""
    uname = os.uname()
    return HostFacts(uname.nodename, uname.release, _os_name(), boot_id())


def probe(probes: Sequence[Probe]) -> tuple[Capability, ...]:
    """Run the probes, in order. A probe that cannot be run is a missing capability."""
    found = []
    for run in probes:
        try:
            found.append(run())
        except OSError as e:
            name = run.__name__.removeprefix("probe_")
            found.append(Capability(name, False, e.strerror or str(e)))
    return tuple(found)


def daemon_version() -> str:
    """Answer the version of the installed package."""
    try:
        return version("hostler")
    except PackageNotFoundError:
        return "unknown"


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""
