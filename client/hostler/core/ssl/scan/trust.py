"""What a client would think of a chain as it was served: who vouches, for which names, how long.

The judge is that of chains, hostler.core.ssl.judge; here its reasons get the names that grades go
by. A chain is judged as it came, nothing is fetched: one that needs more is incomplete. A private
CA is another matter: its chain may be whole, only nobody outside has been told to trust its root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hostler.core.ssl.certificate import Certificate
    from hostler.core.ssl.judge import Judged
    from hostler.core.ssl.verdict import Reason

# The judge and what it needs are imported where there is a chain to judge: not every scan has one.

Verdict = Literal["trusted", "incomplete", "private_ca", "self_signed", "invalid", "unreadable"]
# RSA bits that a curve is worth. Source: NIST SP 800-57 part 1, table 2.
_WORTH = ((512, 15360), (384, 7680), (256, 3072), (224, 2048), (160, 1024))
_KINDS = {"rsa": "RSA", "ec": "EC", "dsa": "DSA", "ed25519": "Ed25519", "ed448": "Ed448"}
_JUDGED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Leaf:
    """The server's own certificate. `strength_bits` is what its key is worth as RSA."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key: str
    key_bits: int
    strength_bits: int
    signature_hash: str
    serial: str
    must_staple: bool


@dataclass(frozen=True, slots=True)
class Trust:
    """What is thought of a chain. `faults` name what else is wrong with it.

    `is_ordered` is whether each certificate is vouched for by the next, `has_root` whether a root
    is sent along, which is of no use to anybody. `reasons` are the judge's own, none of them left
    out; empty if it is trusted.
    """

    verdict: Verdict
    why: str = ""
    leaf: Leaf | None = None
    matches_name: bool | None = None
    is_ordered: bool = True
    has_root: bool = False
    faults: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Roots:
    """Who is trusted: a store of public CAs, and CAs of somebody's own, which go by other rules."""

    store: Path | None = None
    private: tuple[Certificate, ...] = ()


def load_roots(private: Sequence[Path] = ()) -> Roots:
    """The machine's store, if it has one, and the roots of files. Raises ValueError, OSError."""
    from hostler.core.ssl.stores import read_store, system_store

    own = [root for path in private for root in read_store(path)]
    return Roots(system_store(), tuple(dict.fromkeys(own)))


def judge(chain: Sequence[bytes], name: str, roots: Roots, now: datetime | None = None) -> Trust:
    """Judge a chain of DER by the roots that are trusted. `name` "" asks for no name."""
    from hostler.core.ssl.certificate import Certificate, CertificateUnreadable

    now = now or datetime.now(UTC)
    try:
        certificates = [Certificate.read(der, f"served {nth}") for nth, der in enumerate(chain, 1)]
    except CertificateUnreadable as error:
        return Trust("unreadable", str(error))
    if not certificates:
        return Trust("unreadable", "no certificate")
    leaf = _leaf(certificates[0])
    judged = _judged(certificates, roots, now)
    verdict, why = _verdict(certificates[0], judged)
    return Trust(
        verdict,
        why,
        leaf,
        _matches(certificates[0], name) if name else None,
        all(lower.issuer_key == upper.subject_key for lower, upper in pairwise(certificates)),
        any(each.self_issued for each in certificates[1:]),
        tuple(_faults(leaf, now)),
        judged.verdict.reasons,
    )


def _judged(chain: Sequence[Certificate], roots: Roots, now: datetime) -> Judged:
    """The judgement by the rules of public CAs; else by those of a private one, if any is known."""
    from hostler.core.ssl import judge as judging
    from hostler.core.ssl.profile import Profile
    from hostler.core.ssl.stores import read_named

    def by(known: Sequence[Certificate], profile: Profile) -> Judged:
        return judging.judge(
            chain[0], chain[1:], known, moment=now, profile=profile, within_s=_JUDGED_WITHIN_S
        )

    issuers = {certificate.issuer_key for certificate in chain}
    public = by(read_named(roots.store, issuers) if roots.store else (), Profile.WEB)
    if public.verdict.ok or not roots.private:
        return public
    private = by(roots.private, Profile.PRIVATE)
    return private if private.verdict.ok or _is_nearer(private, public) else public


def _is_nearer(one: Judged, other: Judged) -> bool:
    """Whether one has led to an anchor and the other has not."""
    ends = [any(path.anchored for path in each.rejected) for each in (one, other)]
    return ends[0] and not ends[1]


def _verdict(leaf: Certificate, judged: Judged) -> tuple[Verdict, str]:
    """What the judge's reasons come to. The last one of a way is why it ended where it did."""
    from hostler.core.ssl.verdict import Code

    if judged.verdict.ok:
        return "trusted", ""
    why = "; ".join(str(reason) for reason in judged.verdict.reasons)
    nearest = judged.rejected[0] if judged.rejected else None
    if nearest is None or nearest.anchored:
        return "invalid", why
    last, end = nearest.certificates[-1], nearest.reasons[-1].code
    if end is Code.ROOT_NOT_TRUSTED:
        if last == leaf:
            return "self_signed", "nobody but itself vouches for it"
        return "private_ca", f"its root is not among the trusted: {last.label}"
    if end is not Code.ISSUER_NOT_FOUND:
        return "invalid", why
    issuer = last.issuer.rfc4514_string()[:200]
    if last.facts.ca_issuers:
        return "incomplete", f"the certificate of {issuer} is missing"
    return "private_ca", f"nobody knows {issuer}"


def _matches(leaf: Certificate, name: str) -> bool:
    """Whether a certificate holds for a name."""
    from hostler.core.ssl.host_name import NameUnusable, WantedName, name_faults

    try:
        return not any(name_faults(leaf, WantedName.parse(name)))
    except NameUnusable:
        return False


def _leaf(certificate: Certificate) -> Leaf:
    from cryptography import x509

    facts, bits = certificate.facts, certificate.key_facts.size_bits
    strength = bits
    if facts.key.kind not in ("rsa", "dsa"):
        strength = next((worth for size, worth in _WORTH if bits >= size), 512)
    return Leaf(
        facts.subject,
        facts.issuer,
        tuple(name.value for name in facts.names if name.kind in ("dns", "ip")),
        facts.not_before,
        facts.not_after,
        _KINDS.get(facts.key.kind, facts.key.kind),
        bits,
        strength,
        _digest(certificate),
        facts.serial,
        certificate.extension(x509.TLSFeature) is not None,
    )


def _digest(certificate: Certificate) -> str:
    """The digest that it is signed with; empty if it is of no kind that is known, or none."""
    from hostler.core.ssl.certificate import parse_errors

    try:
        digest = certificate.parsed.signature_hash_algorithm
    except parse_errors():
        return ""
    return digest.name if digest else ""


def _faults(leaf: Leaf, now: datetime) -> list[str]:
    found: list[str] = []
    if now > leaf.not_after:
        found.append("expired")
    if now < leaf.not_before:
        found.append("not_yet_valid")
    if leaf.signature_hash in ("md5", "md2"):
        found.append("md5_signature")
    if leaf.signature_hash == "sha1":
        found.append("sha1_signature")
    return found
