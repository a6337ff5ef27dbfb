"""Plans of the authority's changes: one step, or none if it is as wanted already."""

from __future__ import annotations

from hostlerd.runtime.steps import Notice, Plan
from hostlerd.ssl.model.authority import (
    CompleteAuthority,
    IssueCertificate,
    IssueIdentity,
    MakeAuthority,
    RevokeCertificate,
)


def make(want: MakeAuthority, *, ready: bool, waiting: bool, identities: bool) -> Plan:
    """Make what is not there: `ready`, it issues; `waiting`, its request waits to be signed."""
    done = ready or (want.external and waiting)
    if done and (identities or not want.trust_domain):
        return Plan()
    return Plan((want,))


def complete(want: CompleteAuthority, *, same: bool) -> Plan:
    """Take a certificate, unless it is the one that is there."""
    return Plan() if same else Plan((want,))


def issue(want: IssueCertificate | IssueIdentity) -> Plan:
    """Issue: each is a new one."""
    return Plan((want,))


def revoke(want: RevokeCertificate, *, revoked: bool, identity: bool) -> Plan:
    """Revoke, unless it is revoked already; then the first time and reason stay."""
    notices: tuple[Notice, ...] = ()
    if identity:
        notices = (
            Notice(
                "IDENTITY_STILL_ACCEPTED",
                "daemons of Hostler go by the revocations in the bundle: revoke it there, too",
                want.serial,
            ),
        )
    return Plan(() if revoked else (want,), notices=notices)
