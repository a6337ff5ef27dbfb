"""What is to be done to a host so that it is of the fleet: pure, from what was seen of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hostler.core.certificates import Certificate, CertificateUnreadable
from hostler.core.trust import fingerprints
from hostler.enrolment.errors import EnrolmentError
from hostler.enrolment.seen import Seen
from hostler.fleet import PORTS
from hostler.packages import ARCHITECTURE, Package

# A certificate is good from five minutes before it is issued on.
MOST_SKEW_S = 240.0
# Unpacked, the packages take about four times what their files do.
UNPACKED = 4
SPARE_KIB = 64 * 1024
_SUPPORTED = ("debian", "12")


@dataclass(frozen=True, slots=True)
class Copy:
    """Bring the packages to the host."""

    packages: tuple[Package, ...]

    def describe(self) -> str:
        """What it does, for people."""
        size = sum(package.size_bytes for package in self.packages) / 1e6
        return f"copy {len(self.packages)} packages, {size:.0f} MB"


@dataclass(frozen=True, slots=True)
class Install:
    """Have the host install what was brought."""

    packages: tuple[Package, ...]

    def describe(self) -> str:
        """What it does, for people."""
        return "install " + ", ".join(f"{one.name} {one.version}" for one in self.packages)


@dataclass(frozen=True, slots=True)
class Certify:
    """Have the host make a key, and sign a certificate for it.

    `replaces` says that another certificate of the name may lose its place to it.
    """

    name: str
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    replaces: bool = False

    def describe(self) -> str:
        """What it does, for people."""
        names = ", ".join((self.name, *self.dns_names, *self.ip_addresses))
        return f"have a key made on the host, and sign its certificate for {names}"


@dataclass(frozen=True, slots=True)
class OpenDoors:
    """Enable and start the sockets of these domains."""

    domains: tuple[str, ...]

    def describe(self) -> str:
        """What it does, for people."""
        return f"open the doors of {', '.join(self.domains)}"


@dataclass(frozen=True, slots=True)
class AddToFleet:
    """Write the host into the fleet file. `domains` are its doors, none if it has all."""

    name: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    domains: tuple[str, ...] = ()

    def describe(self) -> str:
        """What it does, for people."""
        return f"add {self.name} at {self.address} to the fleet"


@dataclass(frozen=True, slots=True)
class TellDoors:
    """Have the fleet file say which doors the host has; none means all."""

    name: str
    domains: tuple[str, ...]

    def describe(self) -> str:
        """What it does, for people."""
        return f"tell the fleet that {self.name} has {_words(self.domains)}"


def _words(domains: Sequence[str]) -> str:
    return f"the doors of {', '.join(domains)}" if domains else "all doors"


Step = Copy | Install | Certify | OpenDoors | AddToFleet | TellDoors


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a host is to become. With `replace`, whatever it or its name has been before."""

    name: str
    address: str
    packages: tuple[Package, ...]
    domains: tuple[str, ...]
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What is known here: the CA, the certificate that the name has, and who is in the fleet.

    `current` is None where the name has no certificate, or one that is revoked or has ended.
    `fleet` maps names to addresses. `domains` are the doors that the fleet says the host has, none
    if it says nothing or does not know it.
    """

    ca: Certificate
    current: Certificate | None = None
    fleet: Mapping[str, str] = field(default_factory=dict)
    domains: tuple[str, ...] = ()


def steps(wanted: Wanted, seen: Seen, known: Known, now: datetime) -> tuple[Step, ...]:
    """What is missing, in order; nothing for a host that is enrolled.

    `now` is this machine's time when the host was asked for its own. Raises EnrolmentError where
    the host is none that can be enrolled, or is somebody else.
    """
    _refuse_fleet(wanted, known)
    _refuse_machine(wanted, seen)
    _refuse_clock(wanted, seen, now)
    _refuse_identity(wanted, seen, known)
    found: list[Step] = []
    missing = tuple(one for one in wanted.packages if not _is_installed(one, seen))
    if missing:
        if any(seen.staged.get(one.path.name) != one.sha256 for one in missing):
            _refuse_room(wanted, seen, missing)
            found.append(Copy(missing))
        found.append(Install(missing))
    if not is_certified(wanted, seen, known, now):
        mine = seen.certificate is not None and seen.certificate == known.current
        names = wanted.dns_names, wanted.ip_addresses
        found.append(Certify(wanted.name, *names, replaces=wanted.replace or mine))
        found.append(OpenDoors(wanted.domains))
    elif shut := tuple(domain for domain in wanted.domains if domain not in seen.open):
        found.append(OpenDoors(shut))
    doors = _doors(seen.open | set(wanted.domains))
    if wanted.name not in known.fleet:
        found.append(AddToFleet(wanted.name, wanted.address, wanted.labels, doors))
    elif doors != known.domains:
        found.append(TellDoors(wanted.name, doors))
    return tuple(found)


def _doors(domains: Set[str]) -> tuple[str, ...]:
    """Which doors a host has, as the fleet file says it: none if it has all."""
    return () if domains >= set(PORTS) else tuple(one for one in PORTS if one in domains)


def is_certified(wanted: Wanted, seen: Seen, known: Known, now: datetime) -> bool:
    """Whether the host has the certificate of its name, and not in its last third."""
    held, current = seen.certificate, known.current
    if held is None or current is None or held.fingerprint != current.fingerprint:
        return False
    if not set(wanted.ip_addresses) <= set(held.ip_addresses):
        return False
    if not set(wanted.dns_names) <= set(held.dns_names):
        return False
    return now < held.renew_time


def _refuse_fleet(wanted: Wanted, known: Known) -> None:
    there = known.fleet.get(wanted.name)
    if there is not None and there != wanted.address:
        raise EnrolmentError(
            "NAME_TAKEN",
            f"{wanted.name} is in the fleet, at {there} and not at {wanted.address}",
            "give this host another name, or retire the one that has it",
        )
    for name, address in known.fleet.items():
        if address == wanted.address and name != wanted.name:
            raise EnrolmentError(
                "ADDRESS_TAKEN",
                f"{wanted.address} is in the fleet as {name}",
                f"a host has one name: retire {name}, or leave it as it is",
            )


def _refuse_machine(wanted: Wanted, seen: Seen) -> None:
    if (seen.os_id, seen.os_version) != _SUPPORTED:
        raise EnrolmentError(
            "NOT_DEBIAN_12",
            f"{wanted.name} runs {seen.os_name or seen.os_id or 'what has no /etc/os-release'}",
            "Hostler's packages are for Debian 12",
        )
    if seen.architecture != ARCHITECTURE:
        raise EnrolmentError(
            "OTHER_ARCHITECTURE",
            f"{wanted.name} is {seen.architecture or 'of an unknown architecture'}",
            f"Hostler's packages are for {ARCHITECTURE}",
        )
    if not seen.systemd:
        words = f"{wanted.name} was not booted by systemd"
        raise EnrolmentError("NO_SYSTEMD", words, "the doors are systemd's sockets: boot with it")
    if seen.uid != 0:
        words = f"on {wanted.name} ssh leads to the user with the uid {seen.uid}, not to root"
        raise EnrolmentError("NOT_ROOT", words, "log in as root, or give --sudo")


def _refuse_clock(wanted: Wanted, seen: Seen, now: datetime) -> None:
    off = seen.clock_s - now.timestamp()
    if abs(off) > MOST_SKEW_S:
        words = f"the clock of {wanted.name} is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}"
        advice = "set it, or this machine's (timedatectl set-ntp true): no certificate would hold"
        raise EnrolmentError("CLOCK_OFF", words, advice)


def _refuse_identity(wanted: Wanted, seen: Seen, known: Known) -> None:
    if wanted.replace:
        return
    held = seen.certificate
    advice = "retire it where it is enrolled, or give --replace if it is to belong here"
    if seen.has_pair and (seen.ca is None or not _trusts(seen, known.ca)):
        whose = seen.ca.identity if seen.ca else "a CA that cannot be read"
        words = f"{wanted.name} is enrolled already, by {whose} and not by the CA of this context"
        raise EnrolmentError("OTHER_CA", words, advice)
    if held is not None and held.name != wanted.name:
        words = f"this host is enrolled already, as {held.name}"
        raise EnrolmentError("OTHER_NAME", words, "a host has one name: use it, or give --replace")
    # Of an enrolment that was cut the key tells, once the host has shown it.
    if known.current is not None and held != known.current and not seen.joining:
        raise name_has_certificate(known.current)


def _trusts(seen: Seen, ca: Certificate) -> bool:
    """Whether a CA is one of those that the host trusts: there are two while one is replaced."""
    told = seen.ca.fingerprint if seen.ca else ""
    try:
        return ca.fingerprint in (told, *fingerprints(seen.ca_pem))
    except CertificateUnreadable:
        return ca.fingerprint == told


def name_has_certificate(current: Certificate) -> EnrolmentError:
    """A name that another host has, or had: it is taken from it on purpose alone."""
    return EnrolmentError(
        "NAME_HAS_CERTIFICATE",
        f"{current.name} has a certificate, until {current.not_after:%Y-%m-%d}, which is not of "
        "this host: another host has the name, or this one was made anew",
        "give this host another name, or --replace if it takes the place of the other",
    )


def _refuse_room(wanted: Wanted, seen: Seen, packages: tuple[Package, ...]) -> None:
    size_kib = sum(package.size_bytes for package in packages) // 1024
    for place, needed in (("/var", size_kib), ("/opt", size_kib * (UNPACKED + 1))):
        there = seen.room_kib.get(place, 0)
        if there < needed + SPARE_KIB:
            raise EnrolmentError(
                "NO_ROOM",
                f"{wanted.name} has {there // 1024} MiB free on the filesystem of {place}, and "
                f"{(needed + SPARE_KIB) // 1024} MiB are needed",
                "make room there, then give the same command again",
            )


def _is_installed(package: Package, seen: Seen) -> bool:
    return seen.packages.get(package.name) == (package.version, "installed")


def live(certificate: Certificate, *, revoked: bool) -> Certificate | None:
    """The certificate that a name has here, if it counts still."""
    ended = certificate.not_after <= datetime.now(UTC)
    return None if revoked or ended else certificate
