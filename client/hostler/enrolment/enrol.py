"""Enrols a host: looks, plans, carries out, and asks it at its doors who it is.

Nothing is remembered between two tries: each looks at the host and at what is here, and does what
is missing. What is cut off at any point is gone on with by the same command.
"""

from __future__ import annotations

import asyncio
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hostler.config import Context
from hostler.core import files
from hostler.core.bundle import MAX_BUNDLE_BYTES
from hostler.core.certificates import MAX_PEM_BYTES, Certificate, load_certificates
from hostler.core.joining import draw_token
from hostler.core.trust import issuer_of
from hostler.doctor.finding import Finding
from hostler.enrolment import scripts
from hostler.enrolment.doors import check_doors
from hostler.enrolment.errors import EnrolmentError
from hostler.enrolment.plan import (
    AddToFleet,
    Certify,
    Copy,
    Install,
    Known,
    OpenDoors,
    Step,
    TellDoors,
    Wanted,
    live,
    name_has_certificate,
    steps,
)
from hostler.enrolment.seen import Seen
from hostler.enrolment.ssh import Answer, Ssh
from hostler.enrolment.there import AGAIN, There, key_of
from hostler.fleet import Host, load_fleet
from hostler.fleet_file import add_host, set_domains
from hostler.issued import read_file
from hostler.packages import Package
from hostler.pki import Authority

if TYPE_CHECKING:
    from hostler.aio import Client

COPY_S, INSTALL_S = 1800.0, 900.0
_CHUNK_BYTES = 1 << 18
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """What there is to do, and what was seen for it."""

    steps: tuple[Step, ...]
    seen: Seen


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A host of the fleet: its certificate, how long it took, and what else its doors told."""

    certificate: Certificate
    changed: bool
    seconds: float
    findings: Sequence[Finding] = field(default_factory=tuple)


class Enrolment:
    """The enrolment of one host, from the machine that has the CA."""

    def __init__(
        self, wanted: Wanted, ssh: Ssh, authority: Authority, context: Context, say: Say
    ) -> None:
        self._wanted, self._ssh, self._authority = wanted, ssh, authority
        self._context, self._say = context, say
        self._there = There(wanted.name, ssh)

    async def plan(self) -> Planned:
        """Look at the host and at what is here. Changes nothing. Raises EnrolmentError."""
        before = time.time()
        seen = await self._there.look()
        # The host told its time some moment between the two.
        now = datetime.fromtimestamp((before + time.time()) / 2, UTC)
        known = await asyncio.to_thread(self._known)
        return Planned(steps(self._wanted, seen, known, now), seen)

    async def carry_out(self, planned: Planned, client: Client) -> Enrolled:
        """Do what was planned, then ask each door who it is. Raises EnrolmentError, HostlerError.

        The host is in the fleet once it has answered, not before.
        """
        started = time.monotonic()
        last: list[AddToFleet | TellDoors] = []
        for step in planned.steps:
            if isinstance(step, AddToFleet | TellDoors):
                last.append(step)
                continue
            self._say(step.describe())
            await self._do(step)
        self._say(f"ask at the doors of {', '.join(self._wanted.domains)} who it is")
        path = self._authority.certificate_path("host", self._wanted.name)
        certificate = read_file(path)
        bundle = self._authority.read_bundle()
        host = Host(self._wanted.name, self._wanted.address)
        findings = await check_doors(
            *(client, self._context, host, self._wanted.domains, certificate),
            bundle.version if bundle else 0,
        )
        for step in last:
            self._say(step.describe())
            self._tell_fleet(step)
        taken = time.monotonic() - started
        return Enrolled(certificate, bool(planned.steps), taken, findings)

    def _tell_fleet(self, step: AddToFleet | TellDoors) -> None:
        path = self._context.fleet
        if isinstance(step, TellDoors):
            set_domains(path, step.name, step.domains)
        else:
            host = Host(step.name, step.address, step.labels, domains=step.domains)
            add_host(path, host)

    async def _do(self, step: Step) -> None:
        match step:
            case Copy(packages):
                await self._copy(packages)
            case Install():
                answer = await self._ssh.run(
                    scripts.SHELL, scripts.INSTALL.encode(), timeout_s=INSTALL_S
                )
                if answer.status != 0:
                    raise _apt_failed(self._wanted.name, answer)
            case Certify():
                await self._certify(step)
            case OpenDoors(domains):
                await self._there.join({"do": "open", "domains": list(domains)})

    async def _copy(self, packages: tuple[Package, ...]) -> None:
        answer = await self._ssh.run(scripts.COPY, _tar(packages), timeout_s=COPY_S)
        if answer.status != 0:
            words = answer.err or f"tar ended with status {answer.status}"
            if "No space left" in words:
                advice = "make room below /var there, then give the same command again"
                raise EnrolmentError("NO_ROOM", f"{self._wanted.name}: {words}", advice)
            raise EnrolmentError("COPY_FAILED", f"{self._wanted.name}: {words}", AGAIN)

    async def _certify(self, step: Certify) -> None:
        """Bring a certificate for a key that is made there, and never seen here."""
        token = draw_token()
        told = await self._there.join({"do": "request", "name": step.name, "token": token})
        key = key_of(told, step.name, token)
        path = await asyncio.to_thread(self._sign, step, key)
        bundle = files.read_bounded(self._authority.bundle_path, MAX_BUNDLE_BYTES)
        await self._there.join(
            {
                "do": "install",
                "token": token,
                "certificate": path.read_text(),
                "ca": self._authority.ca_pem.decode(),
                "bundle": bundle.decode(),
            }
        )

    def _sign(self, step: Certify, key: Any) -> Any:
        """The path of a certificate for this key: the one there is, where an earlier try was cut.

        Raises EnrolmentError, PkiError, OSError.
        """
        path = self._authority.certificate_path("host", step.name)
        current = self._known().current
        if current is not None:
            pem = files.read_bounded(path, MAX_PEM_BYTES)
            (leaf, *_) = load_certificates(pem)
            same = leaf.public_key() == key
            if same and set(step.ip_addresses) <= set(current.ip_addresses):
                return path
            if not same and not step.replaces:
                raise name_has_certificate(current)
        entry = self._authority.sign_host(
            *(step.name, key, step.dns_names, step.ip_addresses), renew=path.exists()
        )
        return entry.path

    def _known(self) -> Known:
        entries = self._authority.list()
        signed = [e for e in entries if e.certificate.identity == self._identity]
        revoked = {e.certificate.serial for e in signed if e.state == "revoked"}
        try:
            path = self._authority.certificate_path("host", self._wanted.name)
            held = read_file(path)
            current = live(held, revoked=held.serial in revoked)
            # Of a CA that was replaced, it counts as little as one that has ended.
            (leaf, *_) = load_certificates(files.read_bounded(path, MAX_PEM_BYTES))
            if not issuer_of(leaf, self._authority.ca_pem):
                current = None
        except FileNotFoundError:
            current = None
        fleet = load_fleet(self._context.fleet) if self._context.fleet.exists() else None
        hosts = {host.name: host for host in fleet.hosts} if fleet else {}
        addresses = {name: host.address for name, host in hosts.items()}
        mine = hosts.get(self._wanted.name)
        return Known(self._authority.ca, current, addresses, mine.domains if mine else ())

    @property
    def _identity(self) -> str:
        return f"spiffe://{self._authority.trust_domain}/host/{self._wanted.name}"


def _apt_failed(name: str, answer: Answer) -> EnrolmentError:
    """What apt and dpkg said at the end, and what to do about it."""
    words = answer.err[-1200:]
    if "No space left" in words:
        advice = "make room on that host, then give the same command again"
        return EnrolmentError("NO_ROOM", f"{name}: {words}", advice)
    advice = "put right on the host what apt says, then give the same command again"
    return EnrolmentError("INSTALL_FAILED", f"{name}: {words}", advice)


async def _tar(packages: Sequence[Package]) -> AsyncIterator[bytes]:
    """A tar of the packages' files, part by part. Source: tar(5), ustar."""
    for package in packages:
        entry = tarfile.TarInfo(package.path.name)
        entry.size, entry.mode = package.size_bytes, 0o644
        yield entry.tobuf(tarfile.USTAR_FORMAT)
        sent = 0
        with package.path.open("rb") as file:
            while part := file.read(_CHUNK_BYTES):
                sent += len(part)
                yield part
        if sent != package.size_bytes:
            words = f"{package.path} changed while it was copied"
            raise EnrolmentError("PACKAGE_CHANGED", words, AGAIN)
        yield b"\0" * (-sent % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
