"""What a CA must be for what is below it. Source: RFC 5280, 4.2 and 6.1.4; CA/B BR 7.1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hostler.core.ssl import constraints
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.constraints import Malformed, Name
from hostler.core.ssl.extension_rules import (
    Finding,
    authority_key_faults,
    extended_usage_faults,
    unknown_critical,
)
from hostler.core.ssl.facts import usages_of
from hostler.core.ssl.profile import Usage
from hostler.core.ssl.verdict import Code
from hostler.core.ssl.writing import unsafe_writing, untidy_writing


@dataclass(frozen=True, slots=True)
class Below:
    """What a CA has below it in a path.

    `intermediates` counts those that are not self-issued; `names` are all that constraints apply
    to: those of the leaf and of each intermediate that is not self-issued.
    """

    intermediates: int
    names: tuple[tuple[str, tuple[Name, ...]], ...]
    unreadable: str = ""

    @classmethod
    def leaf(cls, certificate: Certificate) -> Below:
        """What the leaf's issuer has below it."""
        return cls(0, ()).with_names(certificate)

    def above(self, issuer: Certificate) -> Below:
        """What the issuer of this issuer has below it."""
        if issuer.self_issued:
            return self
        return Below(self.intermediates + 1, self.names, self.unreadable).with_names(issuer)

    def with_names(self, certificate: Certificate) -> Below:
        """Add the names of a certificate."""
        try:
            names = constraints.names_of(certificate)
        except Malformed as error:
            return Below(self.intermediates, self.names, f"{certificate.label}: {error}")
        return Below(self.intermediates, (*self.names, (certificate.label, names)), self.unreadable)


def refused_issuer(
    certificate: Certificate, below: Below, usage: Usage, *, anchor: bool
) -> Iterator[Finding]:
    """What no CA may be or have, whose ever it is."""
    from cryptography import x509

    old_anchor = anchor and certificate.layout.version == 1
    yield from unsafe_writing(certificate)
    if certificate.extensions_fault:
        return
    yield from unknown_critical(certificate)
    basic = certificate.extension(x509.BasicConstraints)
    if (basic is None or not basic.ca) and not old_anchor:
        yield Code.NOT_A_CA, "it is not marked as a CA"
    elif basic is not None and basic.path_length is not None:
        if below.intermediates > basic.path_length:
            yield (
                Code.PATH_LENGTH_EXCEEDED,
                f"{below.intermediates} CAs are below it, where {basic.path_length} may be",
            )
    usages = usages_of(certificate)
    if usages is not None and "key_cert_sign" not in usages:
        yield Code.KEY_USAGE_FORBIDS, "its key usage does not allow to sign certificates"
    if certificate.layout.subject == b"\x30\x00":
        yield Code.ISSUER_MALFORMED, "a CA without a name"
    yield from extended_usage_faults(certificate, usage)
    yield from _broken_constraints(certificate, below)


def untidy_issuer(certificate: Certificate, *, anchor: bool) -> Iterator[Finding]:
    """What RFC 5280 or the CA/B rules forbid in a CA, and a private CA may get away with."""
    from cryptography import x509

    yield from untidy_writing(certificate, anchor=anchor)
    if certificate.extensions_fault:
        return
    yield from authority_key_faults(certificate, anchor=anchor)
    if certificate.layout.version == 1:
        yield Code.VERSION_MALFORMED, "a CA of version 1"
        return
    if certificate.extension(x509.SubjectKeyIdentifier) is None:
        yield Code.EXTENSION_MISSING, "a CA without subjectKeyIdentifier"
    basic = certificate.extension_with_criticality(x509.BasicConstraints)
    if basic is not None and not basic[1]:
        yield Code.EXTENSION_MISUSED, "its basicConstraints is not critical"
    if anchor and certificate.extension(x509.ExtendedKeyUsage) is not None:
        yield Code.EXTENSION_MISUSED, "a root with extended key usage"


def loose_issuer(certificate: Certificate, *, anchor: bool) -> Iterator[Finding]:
    """What is forbidden and clients accept all the same: warnings under any rules."""
    if certificate.extensions_fault:
        return
    if usages_of(certificate) is None and certificate.layout.version != 1:
        yield Code.EXTENSION_MISSING, "a CA without key usage"
    if anchor and not any(certificate.layout.serial):
        yield Code.SERIAL_MALFORMED, "the serial number is zero"


def _broken_constraints(certificate: Certificate, below: Below) -> Iterator[Finding]:
    try:
        limits = constraints.constraints_of(certificate)
    except Malformed as error:
        yield Code.NAME_CONSTRAINT_MALFORMED, str(error)
        return
    if limits is None:
        return
    if below.unreadable:
        yield Code.NAME_MALFORMED, below.unreadable
    for label, names in below.names:
        for code, message in constraints.broken(limits, names):
            yield code, f"{message} by it, in {label}"
