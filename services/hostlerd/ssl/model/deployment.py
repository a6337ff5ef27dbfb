"""Deployments: which certificate is put where, who serves it, and where new ones come from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hostlerd.runtime.errors import InvalidRequest, Violation

DEPLOYMENTS_MOST = 500
PEM_MOST_BYTES = 1 << 20
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
#: The unit that a server of a kind usually has.
UNITS: Mapping[str, str] = {
    "nginx": "nginx.service",
    "apache": "apache2.service",
    "lighttpd": "lighttpd.service",
    "haproxy": "haproxy.service",
    "postfix": "postfix.service",
    "dovecot": "dovecot.service",
    "postgresql": "postgresql.service",
}
FILES = ("key", "certificate", "chain", "full_chain", "bundle")
_SECRET = ("key", "bundle")
_URL = re.compile(r"https://[A-Za-z0-9.\[\]:-]{1,255}(/[A-Za-z0-9._~/-]{0,255})?")
_EMAIL = re.compile(r"[^\s@,?]{1,64}@[A-Za-z0-9.-]{1,190}")
_HOOK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class DeployedFile:
    """A file that is put in place."""

    path: str
    owner: str
    group: str
    mode: int


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the day in which a server may reload: HH:MM, seconds, and the time zone."""

    start: str
    duration_s: int
    time_zone: str


@dataclass(frozen=True, slots=True)
class DeployedServer:
    """A server that uses the files, and where it has to serve them."""

    kind: str
    unit: str
    listeners: tuple[str, ...]
    starttls: str = ""
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class AcmeSource:
    """An ACME server, and how it is shown that the names are ours."""

    directory_url: str
    email: str = ""
    webroot: str = ""
    dns_hook: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment, defaults filled in. With `reuse_key` renewals keep the key that is in place."""

    name: str
    subject_names: tuple[str, ...]
    key: DeployedFile | None = None
    certificate: DeployedFile | None = None
    chain: DeployedFile | None = None
    full_chain: DeployedFile | None = None
    bundle: DeployedFile | None = None
    servers: tuple[DeployedServer, ...] = ()
    key_kind: str = "ec256"
    acme: AcmeSource | None = None
    reuse_key: bool = False

    @property
    def files(self) -> dict[str, DeployedFile]:
        """The files by what they hold."""
        found = {name: getattr(self, name) for name in FILES}
        return {name: file for name, file in found.items() if file is not None}

    @property
    def asked(self) -> dict[str, Any]:
        """What the installer is told of it."""
        told: dict[str, Any] = {
            "name": self.name,
            "subject_names": list(self.subject_names),
            "servers": [_server(each) for each in self.servers],
            "key_kind": self.key_kind,
        }
        for name, file in self.files.items():
            told[name] = {
                "path": file.path,
                "owner": file.owner,
                "group": file.group,
                "mode": file.mode,
            }
        return told


@dataclass(frozen=True, slots=True)
class Attempt:
    """How getting certificates goes; all times in seconds since 1970, 0 for never.

    `not_before` is until when the ACME server does not want to be asked, `advised` when it advises
    to renew the certificate of fingerprint `advised_for`.
    """

    attempt_time: int = 0
    success_time: int = 0
    problem: str = ""
    not_before: int = 0
    advised: int = 0
    advised_for: str = ""
    asked_time: int = 0


@dataclass(frozen=True, slots=True)
class Brought:
    """A certificate of a file: fingerprint, the hash of its key, validity, DNS names, addresses."""

    fingerprint_sha256: str
    spki_sha256: str
    not_before: datetime
    not_after: datetime
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Listener:
    """What a listener serves; `reload_time` is when its server may reload, 0 if it need not."""

    listener: str
    fingerprint_sha256: str = ""
    current: bool = False
    problem: str = ""
    reload_time: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """What is in place of a deployment: certificates in PEM, leaf first, and the keys' hashes."""

    certificates: tuple[str, ...] = ()
    brought: tuple[Brought, ...] = ()
    spki_sha256: str = ""
    waiting_spki_sha256: str = ""
    reload_time: int = 0
    served: tuple[Listener, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """A deployment with all that is known of it.

    It is `revocable` if its ACME server issued, for it, what is in place.
    """

    deployment: Deployment
    placed: Placed = field(default_factory=Placed)
    attempt: Attempt = field(default_factory=Attempt)
    revocable: bool = False


def _server(one: DeployedServer) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kind": one.kind,
        "unit": one.unit,
        "listeners": list(one.listeners),
        "starttls": one.starttls,
    }
    if one.window:
        told["window"] = {
            "start": one.window.start,
            "duration_s": one.window.duration_s,
            "time_zone": one.window.time_zone,
        }
    return told


def file(what: str, path: str, owner: str, group: str, mode: int) -> DeployedFile:
    """Make a file of a deployment, with the defaults of what it holds."""
    usual = 0o600 if what in _SECRET else 0o644
    return DeployedFile(path, owner or "root", group or "root", mode or usual)


def check_name(name: str, path: str = "name") -> None:
    """Raise InvalidRequest for what is no name of a deployment."""
    if not NAME.fullmatch(name):
        words = "must be 1 to 63 of a-z, 0-9, '.', '_' and '-', and not begin with a sign"
        raise InvalidRequest.of([Violation(path, words)])


def check(deployment: Deployment, path: str = "deployment") -> None:
    """Raise InvalidRequest for what can be seen of the deployment alone, all faults together.

    What goes where on this host, the installer judges.
    """
    faults: list[Violation] = []
    if not NAME.fullmatch(deployment.name):
        faults.append(Violation(f"{path}.name", "must be of a-z, 0-9, '.', '_' and '-'"))
    if not deployment.subject_names:
        faults.append(Violation(f"{path}.subject_names", "must be at least one"))
    for at, server in enumerate(deployment.servers):
        if server.kind not in UNITS:
            words = f"must be one of {', '.join(UNITS)}"
            faults.append(Violation(f"{path}.servers[{at}].kind", words))
    if deployment.acme:
        faults += _check_acme(deployment.acme, deployment.subject_names, f"{path}.acme")
    if faults:
        raise InvalidRequest.of(faults)


def _check_acme(acme: AcmeSource, names: Sequence[str], path: str) -> list[Violation]:
    faults = []
    if not _URL.fullmatch(acme.directory_url):
        faults.append(Violation(f"{path}.directory_url", "must be an https URL without a query"))
    if acme.email and not _EMAIL.fullmatch(acme.email):
        faults.append(Violation(f"{path}.email", "must be an address of electronic mail"))
    if acme.dns_hook and not _HOOK.fullmatch(acme.dns_hook):
        faults.append(Violation(f"{path}.dns_hook", "must be the name of a program"))
    if acme.dns_hook and acme.webroot:
        faults.append(Violation(f"{path}.webroot", "must be empty where dns_hook is given"))
    if not acme.dns_hook and any(name.startswith("*.") for name in names):
        faults.append(Violation(f"{path}.dns_hook", "a wildcard is given out by dns-01 alone"))
    return faults
