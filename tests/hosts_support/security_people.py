"""Callers of every sort: whom a host lets in, and those whom it must not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from security_lab import Pair, push

from hostler.core.certificates import Validity
from hostler.lab.lab import Lab
from hostler.pki import Authority

PREFIX = "proof"


@dataclass(frozen=True)
class People:
    """Certificates by what is special about them; `none` has none."""

    pairs: dict[str, Pair | None]

    def __getitem__(self, who: str) -> Pair | None:
        return self.pairs[who]


def issue(authority: Authority, user: str, validity: Validity | None = None) -> Pair:
    """Issue a certificate, a new one if a run before left one."""
    renew = authority.certificate_path("user", user).exists()
    authority.issue_user(user, renew=renew, validity=validity or Validity())
    return Pair.of(authority.folder, user)


def gather(lab: Lab, scratch: Path) -> People:
    """Issue all certificates and have every host know groups and revocations."""
    authority = Authority.open(lab.pki)
    other = Authority.create(scratch / "other-ca", authority.trust_domain)
    past = datetime.now(UTC) - timedelta(days=30)
    ended = Validity(past, past + timedelta(days=7))
    pairs: dict[str, Pair | None] = {
        "none": None,
        # A name that the hosts' own CA has put into the group admins.
        "other-ca": issue(other, "admin"),
        "expired": issue(authority, f"{PREFIX}-expired", ended),
        "revoked": issue(authority, f"{PREFIX}-revoked"),
        "stranger": issue(authority, f"{PREFIX}-stranger"),
    }
    hosts = authority.folder / "hosts"
    pairs["host"] = Pair(hosts / "h2.pem", hosts / "h2.key")
    for user in ("viewer", "operator", "admin"):
        pairs[user] = Pair.of(lab.pki, user)
    for who in ("expired", "revoked"):
        authority.grant(f"{PREFIX}-{who}", "admins")
    authority.revoke(f"user/{PREFIX}-revoked")
    push(lab)
    return People(pairs)
