"""The edge of deployments to the system: what is known of them, and how steps are carried out."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hostlerd.runtime.edge import Recoverable
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.log import get_log
from hostlerd.runtime.steps import Step
from hostlerd.ssl.errors import (
    AcmeRateLimited,
    CertificateNotIssued,
    DeploymentNotFound,
    NoAcmeSource,
)
from hostlerd.ssl.kernel import acme, pem, solvers
from hostlerd.ssl.kernel.installer_client import Installer, listener
from hostlerd.ssl.kernel.records import Records
from hostlerd.ssl.model.chain import WriteChainFile
from hostlerd.ssl.model.deployment import AcmeSource, Attempt, Deployment, Known, Listener, Placed
from hostlerd.ssl.model.deployment_steps import (
    REASONS,
    DropKey,
    ForgetDeployment,
    InstallCertificate,
    InstallTogether,
    MakeKey,
    ObtainCertificate,
    RevokeCertificate,
    SaveDeployment,
)

log = get_log("ssl.deployments")


@dataclass(frozen=True, slots=True)
class Settings:
    """What hostler.toml says: where hooks lie, whom an ACME server is verified with.

    `overdue_s` is after how long without success a renewal that is due is warned of.
    """

    hooks: Path = Path("/etc/hostler/hooks")
    roots: Path | None = None
    responder: Path = solvers.RESPONDER
    overdue_s: float = 2 * 24 * 3600.0

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Settings:
        """Read the domain's table. Raises ValueError, naming the key."""
        known = cls()
        roots = _path(table, "acme_ca_file", None)
        overdue = table.get("renewal_overdue_s", known.overdue_s)
        if isinstance(overdue, bool) or not isinstance(overdue, (int, float)) or overdue <= 0:
            raise ValueError("renewal_overdue_s must be a number above 0")
        return cls(
            _path(table, "hook_directory", known.hooks) or known.hooks,
            roots,
            _path(table, "responder_directory", known.responder) or known.responder,
            float(overdue),
        )


def _path(table: Mapping[str, Any], key: str, default: Path | None) -> Path | None:
    value = table.get(key)
    if value is None:
        return default
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"{key} must be an absolute path")
    return Path(value)


class Deployments(Recoverable):
    """The deployments of the host."""

    def __init__(self, state: Path, installer: Installer, settings: Settings) -> None:
        self._accounts = state / "acme"
        self.records = Records(state)
        self.installer = installer
        self.settings = settings
        # By deployment: of two calls for one, the later has taken the place of the earlier.
        self._requests: dict[str, str] = {}
        self._served: dict[tuple[str, ...], tuple[Listener, ...]] = {}

    def known(self, name: str, *, handshake: bool = False) -> Known:
        """Answer all that is known of a deployment. Raises DeploymentNotFound."""
        deployment = self.records.load().get(name)
        if deployment is None:
            raise DeploymentNotFound("there is no deployment of that name", deployment=name)
        return self.look(deployment, handshake=handshake)

    def look(self, deployment: Deployment, *, handshake: bool = False) -> Known:
        """Answer what is in place of a deployment, and what is served if that is asked for."""
        told = self.installer.status(deployment, handshake=handshake)
        placed = Placed(
            tuple(told["certificates"]),
            pem.read_placed(told["certificates"]),
            told["spki_sha256"],
            told["waiting_spki_sha256"],
            told["due_unix_s"],
            tuple(map(listener, told.get("served", ()))),
        )
        leaf = placed.brought[0].fingerprint_sha256 if placed.brought else ""
        return Known(
            deployment,
            placed,
            self.records.attempt(deployment.name),
            revocable=bool(deployment.acme) and self.records.has_issued(deployment.name, leaf),
        )

    @property
    def kinds(self) -> Collection[type]:
        """The steps that it carries out."""
        return tuple(self._ways)

    @property
    def one_way(self) -> Collection[type]:
        """A key that may be gone is gone."""
        return (DropKey,)

    @property
    def unrepeatable(self) -> Collection[type]:
        """The installer finishes or undoes an installation by itself; others need the network.

        What is in place and served then, ListDeployments tells.
        """
        return (
            *(InstallCertificate, InstallTogether, ObtainCertificate, RevokeCertificate),
            WriteChainFile,
        )

    @property
    def _ways(self) -> Mapping[type, Callable[[Any], None]]:
        return {
            SaveDeployment: lambda step: self.records.save(step.deployment),
            ForgetDeployment: lambda step: self.records.forget(step.before.name),
            DropKey: lambda step: self.installer.forget(step.name),
            MakeKey: self._make_key,
            ObtainCertificate: self._obtain,
            InstallCertificate: lambda step: self._install((step,)),
            InstallTogether: lambda step: self._install(step.installs),
            RevokeCertificate: self._revoke,
            WriteChainFile: lambda step: self.installer.write_chain(step.path, step.pem),
        }

    @contextmanager
    def applying(self) -> Iterator[Callable[[Step], None]]:
        """Open the session of one change."""
        ways = self._ways
        yield lambda step: ways[type(step)](step)

    def last_request(self, name: str) -> str:
        """The request for the key of a deployment that was made last; empty for none."""
        return self._requests.get(name, "")

    def last_served(self, *names: str) -> tuple[Listener, ...]:
        """What was served when certificates of these deployments were installed together last."""
        return self._served.get(names, ())

    def _make_key(self, step: MakeKey) -> None:
        name = step.deployment.name
        self._requests[name] = self.installer.make_key(step.deployment)

    def _install(self, steps: Sequence[InstallCertificate]) -> None:
        names = tuple(step.deployment.name for step in steps)
        self._served[names] = self.installer.install(
            [(s.deployment, s.pem or self.records.obtained(s.deployment.name)) for s in steps]
        )
        for step in steps:
            if not step.pem:
                self.note_success(step.deployment.name)

    def _obtain(self, step: ObtainCertificate) -> None:
        self.obtain(step.deployment, waiting_key=step.waiting_key)

    def obtain(self, deployment: Deployment, *, waiting_key: bool) -> str:
        """Get a certificate and keep it; answer it, PEM. What goes wrong is noted, and raised."""
        name = deployment.name
        try:
            csr = self.installer.request(deployment, waiting=waiting_key)
            source = _source(deployment)
            solver = solvers.choose(
                source, self.installer, self.settings.hooks, self.settings.responder
            )
            with self._account(source).client() as made:
                text = acme.obtain(made, csr, solver)
        except DomainError as e:
            self.note_failure(name, e)
            raise
        attempt = self.records.attempt(name)
        self.records.note(
            name, replace(attempt, attempt_time=int(time.time()), problem="", not_before=0)
        )
        self.records.keep(name, pem.read(text)[0].fingerprint_sha256, text)
        return text

    def note_success(self, name: str) -> None:
        """Note that a certificate was installed. Raises OSError."""
        attempt = self.records.attempt(name)
        self.records.note(name, replace(attempt, success_time=int(time.time()), problem=""))

    def note_failure(self, name: str, error: DomainError) -> None:
        """Note why there is no new certificate, and until when not to ask. Raises OSError."""
        limited = isinstance(error, AcmeRateLimited)
        until = int(error.metadata.get("retry_time", "0")) if limited else 0
        attempt = self.records.attempt(name)
        now = int(time.time())
        self.records.note(
            name, replace(attempt, attempt_time=now, problem=error.message, not_before=until)
        )

    def note_problem(self, name: str, problem: str) -> None:
        """Note what went wrong. Raises OSError."""
        self.records.note(name, replace(self.records.attempt(name), problem=problem))

    def advise(self, known: Known) -> Attempt:
        """Ask the ACME server when it advises to renew, and note it. Raises OSError."""
        name, leaf = known.deployment.name, known.placed.brought[0].fingerprint_sha256
        attempt = replace(known.attempt, asked_time=int(time.time()), advised_for=leaf)
        try:
            with self._account(_source(known.deployment)).client() as made:
                advised = acme.renewal_time(made, known.placed.certificates[0])
        except DomainError as e:
            log.warning("no advice when to renew", deployment=name, problem=e.message)
            advised = known.attempt.advised if known.attempt.advised_for == leaf else 0
        attempt = replace(attempt, advised=advised)
        self.records.note(name, attempt)
        return attempt

    def obtained(self, name: str) -> str:
        """Answer what was issued for a deployment last, PEM. Raises CertificateNotIssued."""
        try:
            return self.records.obtained(name)
        except FileNotFoundError:
            words = "no ACME server has issued a certificate for it"
            raise CertificateNotIssued(words, deployment=name) from None

    def issued(self, deployment: Deployment, fingerprint_sha256: str) -> str:
        """Answer a certificate that was issued for a deployment. Raises CertificateNotIssued."""
        try:
            return self.records.issued(deployment.name, fingerprint_sha256)
        except FileNotFoundError:
            raise CertificateNotIssued(
                "its ACME server has issued no certificate of that fingerprint for it",
                deployment=deployment.name,
                fingerprint_sha256=fingerprint_sha256,
            ) from None

    def _revoke(self, step: RevokeCertificate) -> None:
        text = self.issued(step.deployment, step.fingerprint_sha256)
        with self._account(_source(step.deployment)).client() as made:
            acme.revoke(made, text, REASONS[step.reason])

    def _account(self, source: AcmeSource) -> acme.Account:
        return acme.Account(self._accounts, source, self.settings.roots)


def _source(deployment: Deployment) -> AcmeSource:
    if deployment.acme is None:
        raise NoAcmeSource("the deployment names no ACME server", deployment=deployment.name)
    return deployment.acme
