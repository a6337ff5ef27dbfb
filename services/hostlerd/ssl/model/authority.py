"""The steps of the authority: what a change of it does, as values."""

from __future__ import annotations

from dataclasses import dataclass

_SHOWN = 20


class _Stays:
    """What all of them have in common: on record at the signer, and never taken back."""

    __slots__ = ()
    survives_boot = True

    def inverse(self) -> None:
        """Nothing takes it back: what was issued can be revoked, and is not unsaid by that."""
        return


@dataclass(frozen=True, slots=True)
class MakeAuthority(_Stays):
    """Make the authority, or with `external` its key and a request."""

    name: str
    trust_domain: str
    external: bool

    def describe(self) -> str:
        """Say which."""
        what = "a key and a request to be signed elsewhere" if self.external else "an authority"
        also = f", and an issuer of identities of {self.trust_domain}" if self.trust_domain else ""
        return f"make {what}: {self.name}{also}"


@dataclass(frozen=True, slots=True)
class CompleteAuthority(_Stays):
    """Take the certificate that was signed elsewhere; `chain` is PEM."""

    chain: bytes

    def describe(self) -> str:
        """Say so."""
        return "take the authority's certificate that was signed elsewhere"


@dataclass(frozen=True, slots=True)
class IssueCertificate(_Stays):
    """Issue a certificate. Done again with the same `id`, it is the same certificate.

    `names` are the request's, for people; `validity_s` of 0 is as long as the profile allows.
    """

    id: str
    profile: str
    csr: bytes
    validity_s: int
    requester: str
    names: tuple[str, ...]

    @property
    def hashed(self) -> tuple[str, bytes, int]:
        """What of it makes a plan the same: who asks, and under which id, does not."""
        return self.profile, self.csr, self.validity_s

    def describe(self) -> str:
        """Say for what, and how long."""
        life = f", good for {self.validity_s} s" if self.validity_s else ""
        return f"issue a certificate of profile {self.profile} for {_words(self.names)}{life}"


@dataclass(frozen=True, slots=True)
class IssueIdentity(_Stays):
    """Issue an identity of Hostler, "user/NAME" or "host/NAME"; otherwise as a certificate."""

    id: str
    identity: str
    csr: bytes
    asked_names: tuple[str, ...]
    requester: str

    @property
    def hashed(self) -> tuple[str, bytes, tuple[str, ...]]:
        """What of it makes a plan the same."""
        return self.identity, self.csr, self.asked_names

    def describe(self) -> str:
        """Say whose."""
        also = f" with the names {_words(self.asked_names)}" if self.asked_names else ""
        return f"issue the identity {self.identity}{also}"


@dataclass(frozen=True, slots=True)
class RevokeCertificate(_Stays):
    """Revoke a certificate; `subject` is for people."""

    serial: str
    reason: str
    subject: str

    def describe(self) -> str:
        """Say which, and why."""
        return f"revoke {self.serial} ({self.subject}): {self.reason.replace('_', ' ')}"


def _words(names: tuple[str, ...]) -> str:
    shown = list(names[:_SHOWN])
    if len(names) > _SHOWN:
        shown.append(f"{len(names) - _SHOWN} more")
    return ", ".join(shown)
