"""What a leaf must be and must not be. Source: RFC 5280, 4.2 and 6.1.5; CA/B BR 7.1.2.7."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.extension_rules import (
    Finding,
    authority_key_faults,
    extended_usage_faults,
    unknown_critical,
)
from hostler.core.ssl.facts import alternative_names, usages_of
from hostler.core.ssl.host_name import WantedName, name_faults, pattern_fault
from hostler.core.ssl.profile import Usage
from hostler.core.ssl.verdict import Code
from hostler.core.ssl.writing import too_long, unsafe_writing, untidy_writing

_HEX_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{1,8}")
_LONG_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_SIGNS = ("digital_signature", "content_commitment")
_NEEDED = {
    Usage.SERVER: ("digital_signature", "key_encipherment", "key_agreement"),
    Usage.CLIENT: ("digital_signature", "key_agreement"),
    Usage.EMAIL: (*_SIGNS, "key_encipherment", "key_agreement"),
    Usage.CODE: _SIGNS,
    Usage.TIMESTAMP: _SIGNS,
    Usage.OCSP: _SIGNS,
}


def refused_leaf(
    certificate: Certificate, usage: Usage, wanted: WantedName | None
) -> Iterator[Finding]:
    """What no leaf may have, whoever issued it."""
    from cryptography import x509

    yield from unsafe_writing(certificate)
    if certificate.extensions_fault:
        return
    yield from unknown_critical(certificate)
    usages = usages_of(certificate)
    needed = _NEEDED.get(usage, ())
    if usages is not None and needed and not set(needed) & set(usages):
        yield Code.KEY_USAGE_FORBIDS, f"its key usage allows none of {', '.join(needed)}"
    yield from extended_usage_faults(certificate, usage)
    if certificate.extension(x509.NameConstraints) is not None and not certificate.is_ca:
        yield Code.EXTENSION_MISUSED, "it constrains names and is no CA"
    if wanted is not None:
        yield from name_faults(certificate, wanted)


def untidy_leaf(certificate: Certificate, usage: Usage) -> Iterator[Finding]:
    """What RFC 5280 or the CA/B rules forbid in a leaf, and a private CA may get away with."""
    yield from untidy_writing(certificate)
    if certificate.extensions_fault:
        return
    yield from authority_key_faults(certificate)
    if certificate.is_ca:
        yield Code.CA_AS_LEAF, "it is a CA itself"
    elif "key_cert_sign" in (usages_of(certificate) or ()):
        yield Code.KEY_USAGE_FORBIDS, "it may sign certificates and is no CA"
    yield from _alternative_names(certificate)
    if usage in (Usage.SERVER, Usage.CLIENT):
        yield from _web_usages(certificate)
    if usage is Usage.SERVER:
        yield from _misspelt_common_name(certificate)


def loose_leaf(certificate: Certificate, usage: Usage) -> Iterator[Finding]:
    """What the CA/B rules forbid and clients accept all the same: warnings under any rules."""
    from cryptography import x509

    if usage is Usage.SERVER and not certificate.extensions_fault:
        if certificate.extension(x509.ExtendedKeyUsage) is None:
            yield Code.EXTENSION_MISSING, "it has no extended key usage"
        if why := too_long(certificate):
            yield Code.VALIDITY_TOO_LONG, why
        yield from _foreign_common_name(certificate)


def _alternative_names(certificate: Certificate) -> Iterator[Finding]:
    from cryptography import x509

    found = certificate.extension_with_criticality(x509.SubjectAlternativeName)
    empty = not certificate.subject.rdns
    if found is None:
        if empty:
            yield Code.NO_ALTERNATIVE_NAMES, "it has neither a subject nor alternative names"
        return
    if empty and not found[1]:
        yield Code.EXTENSION_MISUSED, "alternative names must be critical without a subject"
    if not empty and found[1]:
        yield Code.EXTENSION_MISUSED, "alternative names are critical beside a subject"
    for name in alternative_names(certificate):
        if name.kind == "dns" and (fault := pattern_fault(name.value.lower())):
            yield Code.NAME_MALFORMED, fault


def _web_usages(certificate: Certificate) -> Iterator[Finding]:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    found = certificate.extension_with_criticality(x509.ExtendedKeyUsage)
    if found is None:
        return
    if found[1]:
        yield Code.EXTENSION_MISUSED, "its extended key usage is critical"
    if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in found[0]:
        yield Code.EXTENDED_KEY_USAGE_FORBIDS, "its extended key usage is any"


def _misspelt_common_name(certificate: Certificate) -> Iterator[Finding]:
    """A common name that is an alternative name spelt otherwise. Source: CA/B BR 7.1.4.3."""
    names = _host_names(certificate)
    for name in _common_names(certificate):
        if name not in names and {_plain(name)} & {_plain(known) for known in names}:
            yield Code.NAME_MALFORMED, f"common name {name!r} is no exact copy of a name"


def _foreign_common_name(certificate: Certificate) -> Iterator[Finding]:
    """A common name that is no alternative name: forbidden by 7.1.4.3, and refused by nobody."""
    known = {_plain(name) for name in _host_names(certificate)}
    for name in _common_names(certificate):
        if _plain(name) not in known and "." in name and " " not in name:
            yield Code.NAME_MISMATCH, f"common name {name!r} is no alternative name"


def _host_names(certificate: Certificate) -> set[str]:
    return {n.value for n in alternative_names(certificate) if n.kind in ("dns", "ip")}


def _common_names(certificate: Certificate) -> list[str]:
    from cryptography.x509.oid import NameOID

    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [str(attribute.value) for attribute in found]


def _plain(name: str) -> str:
    """One spelling for all those that a host name or address may have."""
    try:
        if _HEX_ADDRESS.fullmatch(name):
            return str(ipaddress.IPv4Address(int(name, 16)))
        if _LONG_ADDRESS.fullmatch(name):
            return str(ipaddress.ip_address(".".join(str(int(part)) for part in name.split("."))))
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return name.lower() if name.isascii() else name.lower().encode("idna").decode("ascii")
    except UnicodeError:
        return name.lower()
