"""The steps that changes of deployments are made of. None of them holds a key."""

from __future__ import annotations

from dataclasses import dataclass, field

from hostlerd.runtime.steps import Step
from hostlerd.ssl.model.deployment import Deployment

#: Why a certificate may be revoked, with the numbers of RFC 5280, 5.3.1.
REASONS = {
    "": 0,
    "keyCompromise": 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}


@dataclass(frozen=True, slots=True)
class SaveDeployment:
    """Record a deployment, over the one of that name if there is one."""

    deployment: Deployment
    before: Deployment | None = None
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        one = self.deployment
        files = ", ".join(file.path for file in one.files.values())
        word = "change" if self.before else "declare"
        return f"{word} deployment {one.name} of {', '.join(one.subject_names)} in {files}"

    def inverse(self) -> Step:
        """Put the old one back."""
        if self.before:
            return SaveDeployment(self.before, self.deployment)
        return ForgetDeployment(self.deployment)


@dataclass(frozen=True, slots=True)
class ForgetDeployment:
    """Drop the record of a deployment; its files stay."""

    before: Deployment
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        return f"forget deployment {self.before.name}; its files stay, and are served on"

    def inverse(self) -> Step:
        """Record it again."""
        return SaveDeployment(self.before)


@dataclass(frozen=True, slots=True)
class DropKey:
    """Drop the key that waits for a certificate, and what waits for a window."""

    name: str
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        return f"drop the key of {self.name} that waits for a certificate"

    def inverse(self) -> Step | None:
        """A key that is gone is gone."""
        return None


@dataclass(frozen=True, slots=True)
class MakeKey:
    """Make a key that waits for its certificate, in the place of the one that waits."""

    deployment: Deployment
    survives_boot = True

    @property
    def hashed(self) -> tuple[str, str, tuple[str, ...]]:
        """What a plan's hash is made of."""
        return self.deployment.name, self.deployment.key_kind, self.deployment.subject_names

    def describe(self) -> str:
        """Say what it does."""
        one = self.deployment
        names = ", ".join(one.subject_names)
        return f"make a key ({one.key_kind}) for {one.name}, and a request for {names}"

    def inverse(self) -> Step:
        """Drop it; one that waited before is gone."""
        return DropKey(self.deployment.name)


@dataclass(frozen=True, slots=True)
class ObtainCertificate:
    """Get a certificate from the ACME server, for the key that waits or the one in use."""

    deployment: Deployment
    waiting_key: bool
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        acme = self.deployment.acme
        url = acme.directory_url if acme else ""
        return f"get a certificate for {', '.join(self.deployment.subject_names)} from {url}"

    def inverse(self) -> Step | None:
        """An order cannot be taken back; the certificate is kept beside, and not installed."""
        return None


@dataclass(frozen=True, slots=True)
class InstallCertificate:
    """Put a certificate in place and have it served, or leave all as it is.

    An empty `pem` means the one that ObtainCertificate brought.
    """

    deployment: Deployment
    pem: str = field(default="", repr=False)
    fingerprint_sha256: str = ""
    survives_boot = True

    @property
    def hashed(self) -> tuple[str, str, str]:
        """What a plan's hash is made of."""
        return self.deployment.name, self.fingerprint_sha256, self.pem

    def describe(self) -> str:
        """Say what it does."""
        one = self.deployment
        which = f" {self.fingerprint_sha256[:16]}" if self.fingerprint_sha256 else ""
        units = ", ".join(dict.fromkeys(s.unit for s in one.servers)) or "nothing"
        return f"install certificate{which} of {one.name}; reload {units}, and see it served"

    def inverse(self) -> Step | None:
        """It has its own way back."""
        return None


@dataclass(frozen=True, slots=True)
class InstallTogether:
    """Put certificates of several deployments in place in one run, or leave all as it is."""

    installs: tuple[InstallCertificate, ...]
    survives_boot = True

    @property
    def hashed(self) -> tuple[tuple[str, str, str], ...]:
        """What a plan's hash is made of."""
        return tuple(each.hashed for each in self.installs)

    def describe(self) -> str:
        """Say what it does."""
        names = ", ".join(each.deployment.name for each in self.installs)
        units = dict.fromkeys(s.unit for each in self.installs for s in each.deployment.servers)
        told = ", ".join(units) or "nothing"
        return f"install certificates of {names}; reload {told}, once each, and see them served"

    def inverse(self) -> Step | None:
        """It has its own way back."""
        return None


@dataclass(frozen=True, slots=True)
class RevokeCertificate:
    """Have the ACME server revoke a certificate that it issued."""

    deployment: Deployment
    fingerprint_sha256: str
    reason: str
    survives_boot = True

    def describe(self) -> str:
        """Say what it does."""
        which, why = self.fingerprint_sha256[:16], f", {self.reason}" if self.reason else ""
        return f"revoke certificate {which} of {self.deployment.name}{why}"

    def inverse(self) -> Step | None:
        """What is revoked stays revoked."""
        return None
