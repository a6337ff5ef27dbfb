"""The second judge of a path: cryptography's verifier, on exactly the certificates of it.

It was written by others from the same rules, in another language: what it refuses is not answered
as good. It knows no constraints but of DNS names and addresses and two usages, counts self-issued
CAs where RFC 5280 does not, and more of that kind: paths with such are left to our own rules.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC
from itertools import pairwise
from typing import TYPE_CHECKING

from hostler.core.ssl.certificate import Certificate, parse_errors
from hostler.core.ssl.extension_rules import POLICY_EXTENSIONS
from hostler.core.ssl.facts import alternative_names, usages_of
from hostler.core.ssl.host_name import NameUnusable, WantedName
from hostler.core.ssl.paths import Rules
from hostler.core.ssl.profile import Profile, Usage
from hostler.core.ssl.verdict import Code
from hostler.core.ssl.writing import untidy_writing

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.x509.verification import PolicyBuilder


def second_refusal(path: Sequence[Certificate], rules: Rules) -> str:
    """Why the other judge refuses a path; empty if it does not, or cannot say."""
    from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

    if len(path) < 2 or not _is_in_its_domain(path):
        return ""
    builder = (
        PolicyBuilder()
        .store(Store([path[-1].parsed]))
        .time(rules.moment.astimezone(UTC).replace(tzinfo=None, microsecond=0))
        .max_chain_depth(len(path))
    )
    refusals: tuple[type[Exception], ...] = (VerificationError, *parse_errors())
    between = [certificate.parsed for certificate in path[1:-1]]
    try:
        if rules.profile is not Profile.STRICT:
            builder = _with_free_extensions(builder, rules)
        if rules.usage is Usage.CLIENT:
            builder.build_client_verifier().verify(path[0].parsed, between)
        elif rules.usage is Usage.SERVER and (subject := _subject(path[0], rules.name)):
            builder.build_server_verifier(subject).verify(path[0].parsed, between)
    except refusals as error:
        return " ".join(str(error).split())[:300]
    return ""


def _with_free_extensions(builder: PolicyBuilder, rules: Rules) -> PolicyBuilder:
    """Leave how extensions are written to our own rules: of roots too, which it cannot tell apart.

    What they mean is still its matter: constraints, path lengths, names, usages.
    """
    from cryptography import x509
    from cryptography.x509.verification import Criticality, ExtensionPolicy

    free = ExtensionPolicy.permit_all()
    cas = free.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    if rules.profile is Profile.WEB:
        free = ExtensionPolicy.webpki_defaults_ee()
    elif rules.usage is Usage.SERVER:
        free = free.require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    return builder.extension_policies(ca_policy=cas, ee_policy=free)


def _is_in_its_domain(path: Sequence[Certificate]) -> bool:
    """Whether the other judge goes by RFC 5280 in all that this path has."""
    cas = path[1:]
    return (
        not any(ca.self_issued for ca in path[1:-1])
        and all(ca.is_ca and usages_of(ca) is not None for ca in cas)
        and all(_has_plain_constraints(ca) for ca in cas)
        # It knows no critical policies, no EdDSA, and no serial that is not positive.
        and not any(_has_critical_policies(certificate) for certificate in path)
        and not any(c.key_facts.kind in ("ed25519", "ed448") or c.serial_number <= 0 for c in path)
        # It reads the times of roots as strictly as those of others.
        and not any(c is Code.VALIDITY_MALFORMED for c, _ in untidy_writing(path[-1], anchor=True))
        # It compares names byte by byte, where RFC 5280, 7.1 folds case and space.
        and all(a.layout.issuer == b.layout.subject for a, b in pairwise(path))
    )


def _has_critical_policies(certificate: Certificate) -> bool:
    return any(e.critical and e.oid in POLICY_EXTENSIONS for e in certificate.layout.extensions)


def _has_plain_constraints(certificate: Certificate) -> bool:
    """Whether its constraints are none, or of DNS names that are not empty and of addresses."""
    from cryptography import x509

    found = certificate.extension(x509.NameConstraints)
    if found is None:
        return True
    return all(
        isinstance(name, x509.IPAddress) or (isinstance(name, x509.DNSName) and name.value != "")
        for name in (*(found.permitted_subtrees or ()), *(found.excluded_subtrees or ()))
    )


def _subject(leaf: Certificate, wanted: WantedName | None) -> x509.DNSName | x509.IPAddress | None:
    from cryptography import x509

    if wanted is None:
        names = [name for name in alternative_names(leaf) if name.kind in ("dns", "ip")]
        if not names:
            return None
        try:
            wanted = WantedName.parse(names[0].value.replace("*", "any"))
        except NameUnusable:
            return None
    if wanted.kind == "ip":
        return x509.IPAddress(ipaddress.ip_address(wanted.value))
    return x509.DNSName(wanted.value) if wanted.kind == "dns" else None
