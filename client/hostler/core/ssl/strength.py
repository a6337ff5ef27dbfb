"""Keys and digests that are too weak to believe. Source: CA/B BR 6.1.5, 6.1.6 and 7.1.3.2."""

from __future__ import annotations

from collections.abc import Iterator

from hostler.core.ssl.certificate import Certificate, parse_errors
from hostler.core.ssl.key import allowed_on_the_web
from hostler.core.ssl.profile import Profile
from hostler.core.ssl.verdict import Code

_WEAK_DIGESTS = ("md2", "md4", "md5", "sha1")
_WEB_DIGESTS = ("sha256", "sha384", "sha512")


def digest_of(certificate: Certificate) -> str | None:
    """The digest of the signature: sha256 and the like; "" if it needs none, None if unknown."""
    try:
        found = certificate.parsed.signature_hash_algorithm
    except parse_errors():
        return None
    return found.name if found else ""


def weak_digest(certificate: Certificate) -> str:
    """Why the digest of the signature is weak; empty if it is not."""
    digest = digest_of(certificate)
    if digest in _WEAK_DIGESTS:
        return f"signed with {digest}: collisions can be made"
    return ""


def strength_faults(
    certificate: Certificate, profile: Profile, *, anchor: bool
) -> Iterator[tuple[Code, str]]:
    """What is weak about a certificate. An anchor's own signature does not matter."""
    facts = certificate.key_facts
    for weakness in facts.weaknesses:
        yield Code.WEAK_KEY, weakness
    if certificate.public_key is None:
        yield Code.ALGORITHM_UNSUPPORTED, "a public key that is malformed or of no known kind"
    elif profile.public and not facts.weaknesses and (why := allowed_on_the_web(facts)):
        yield Code.WEAK_KEY, why
    if anchor:
        return
    digest = digest_of(certificate)
    if weak := weak_digest(certificate):
        yield Code.WEAK_DIGEST, weak
    elif digest is None:
        yield Code.ALGORITHM_UNSUPPORTED, "a signature of no known algorithm"
    elif profile.public and digest not in _WEB_DIGESTS:
        yield Code.ALGORITHM_UNSUPPORTED, f"a signature with {digest or 'no digest of its own'}"
