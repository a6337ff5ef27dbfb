"""Certificates, keys and endpoints of a host, put together from what was read. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from hostlerd.ssl.model.place import KeyFound
from hostlerd.ssl.model.site import Setting, Site


class Severity(IntEnum):
    """How bad a finding is; the numbers are those of the API."""

    NOTE = 1
    WARNING = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with something, or worth knowing: a stable word, words, what it is about."""

    code: str
    message: str
    severity: Severity
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says. Times are UTC, hashes lower-case hex."""

    fingerprint: str
    subject: str
    issuer: str
    subject_key: bytes
    issuer_key: bytes
    serial: str
    not_before: datetime
    not_after: datetime
    names: tuple[tuple[str, str], ...]
    key: KeyFound
    signature_algorithm: str
    weak_signature: str
    authority: bool
    self_signed: bool
    faults: tuple[str, ...]
    der: bytes = field(repr=False)

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The host names that it is for, as they stand there."""
        return tuple(value for kind, value in self.names if kind == "dns")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something lies; `entry` counts the things of its kind in the file."""

    path: str
    entry: int
    format: str
    owner: str
    group: str
    mode: int
    modify_ns: int
    container: str = ""

    @property
    def label(self) -> str:
        """The path, behind the container that has it."""
        return f"{self.container}:{self.path}" if self.container else self.path


@dataclass(frozen=True, slots=True)
class Use:
    """A setting that names a file of a certificate or a key."""

    server: str
    path: str
    line: int
    setting: str
    names: tuple[str, ...]
    listeners: tuple[str, ...]


@dataclass(slots=True)
class Certificate:
    """A certificate with every place where it lies. `trusted`: only trust stores have it."""

    facts: Facts
    trusted: bool = True
    places: list[Place] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    key_places: list[Place] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Key:
    """A private key with every place where it lies."""

    facts: KeyFound
    places: list[Place] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def order(self) -> str:
        """By the hash of the public half; those whose passphrase is not known last, by place."""
        return self.facts.spki_sha256 or f"~{self.places[0].path}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that looks like a certificate or a key and could not be read."""

    path: str
    reason: str
    message: str


@dataclass(slots=True)
class Inventory:
    """All of a host. `sites` has the findings of each site beside it."""

    certificates: dict[str, Certificate] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    sites: list[tuple[Site, list[str], list[Finding]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Served:
    """What a handshake showed: DER of the chain, or why there was none."""

    chain: tuple[bytes, ...] = ()
    negotiated: str = ""
    problem: str = ""


@dataclass(slots=True)
class Endpoint:
    """A name at a listening socket."""

    listener: str
    name: str
    starttls: str = ""
    server: str = ""
    pid: int = 0
    comm: str = ""
    unit: str = ""
    listens: bool = True
    uses: tuple[Use, ...] = ()
    configured: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    served: tuple[str, ...] = ()
    negotiated: str = ""
    handshake_ns: int = 0

    @property
    def order(self) -> str:
        """By listener and name."""
        return f"{self.listener}\0{self.name}"
