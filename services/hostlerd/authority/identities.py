"""Identities of Hostler itself: which may be issued, and their certificates."""

from __future__ import annotations

from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hostler.core import certificates
from hostler.core.names import InvalidName, check_alternative_names, check_name
from hostler.core.ssl.authority import request as requests
from hostler.core.ssl.authority.issue import Signer
from hostler.core.ssl.authority.profile import Names
from hostler.core.ssl.authority.request import RequestInvalid
from hostlerd.authority.settings import Settings
from hostlerd.privileged.refused import Fault, Refused


def allowed(
    current: Settings, identity: str, csr: bytes, names: list[str]
) -> tuple[ec.EllipticCurvePublicKey, Names]:
    """Answer key and names of an identity that may be issued. Of the request only its key counts.

    Raises Refused, RequestInvalid, InvalidField.
    """
    kind, _, name = identity.partition("/")
    if kind == "user":
        check_name("user", name)
        if names:
            raise Refused("INVALID", "a user has no names", [("names", "a user has none")])
    elif kind == "host":
        check_name("host", name)
    else:
        raise InvalidName("identity", "must be user/NAME or host/NAME")
    if not current.may_be(identity):
        raise Refused(
            "NOT_ALLOWED",
            f"the host's configuration does not let {identity} be issued",
            [("identity", "is not among authority.identities.allowed")],
        )
    key = requests.read_key(csr)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise RequestInvalid("has a key that is not of P-256, as identities have")
    checked = _names(names)
    if kind == "host":
        _check_names(current, name, checked)
    return key, checked


def _names(names: list[str]) -> Names:
    dns: list[str] = []
    addresses: list[str] = []
    for name in names:
        try:
            addresses.append(str(ip_address(name)))
        except ValueError:
            dns.append(name)
    return Names(*check_alternative_names(dns, addresses))


def _check_names(current: Settings, own: str, names: Names) -> None:
    """Refuse names that are neither the host's own nor those that the configuration allows."""
    profile = current.identity_names
    faults: list[Fault] = []
    for word in names.dns:
        if word != own:
            faults += profile.faults(Names(dns=(word,)), profile.max_validity)
    for address in names.addresses:
        faults += profile.faults(Names(addresses=(address,)), profile.max_validity)
    if faults:
        words = "; ".join(f"{subject} {reason}" for subject, reason in faults[:5])
        raise Refused("NOT_ALLOWED", f"identities: {words}", faults)


def sign(
    signer: Signer, identity: str, key: ec.EllipticCurvePublicKey, names: Names
) -> x509.Certificate:
    """Sign the certificate of an identity. Raises InvalidField."""
    trust_domain = certificates.describe(signer.certificate).name
    issuer = certificates.Issuer(trust_domain, signer.certificate, signer.key)
    kind, _, name = identity.partition("/")
    if kind == "user":
        return certificates.sign_user(issuer, name, key)
    return certificates.sign_host(issuer, name, key, names.dns, [str(a) for a in names.addresses])
