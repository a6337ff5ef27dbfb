"""Cases of certificate policies: where one has to be there, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from certificates import Spec, ca, leaf, parts, tlv
from cryptography import x509
from verdict_case import Case, raw

from hostler.core.ssl.profile import Profile
from hostler.core.ssl.verdict import Code

A, B, ANY = "1.2.3.1", "1.2.3.2", "2.5.29.32.0"
NO = Code.POLICY_NOT_ALLOWED
Extension = tuple[x509.ExtensionType, bool]
TREE = "RFC 5280, 6.1.3 (d) to (f)"


def has(*oids: str) -> Extension:
    policies = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in oids]
    return x509.CertificatePolicies(policies), False


def wants(explicit: int | None = None, mapping: int | None = None) -> Extension:
    return x509.PolicyConstraints(explicit, mapping), True


def no_any(after: int) -> Extension:
    return x509.InhibitAnyPolicy(after), True


def maps(source: str, to: str) -> Extension:
    pair = b"".join(_oid(oid) for oid in (source, to))
    return raw("2.5.29.33", tlv(0x30, tlv(0x30, pair))), True


def _oid(dotted: str) -> bytes:
    """By way of an extension that cryptography writes."""
    usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier(dotted)]).public_bytes()
    return parts(usage)[0]


# What, extensions of upper and lower CA and leaf, verdict, rule.
ROWS: Sequence[tuple[str, list[Extension], list[Extension], list[Extension], Code | None, str]] = [
    ("none at all", [], [], [], None, "RFC 5280, 6.1.1 (e): none is asked for"),
    ("of the leaf alone", [], [], [has(A)], None, TREE),
    ("different ones", [has(A)], [has(B)], [has(A)], None, TREE),
    ("wanted, and none", [wants(0)], [], [], NO, TREE),
    ("wanted, and the same", [wants(0), has(A)], [has(A)], [has(A)], None, TREE),
    ("wanted, and any", [wants(0), has(ANY)], [has(ANY)], [has(A)], None, TREE),
    ("wanted, and different ones", [wants(0), has(A)], [has(A)], [has(B)], NO, TREE),
    ("wanted, and none in the middle", [wants(0), has(A)], [], [has(A)], NO, TREE),
    ("wanted, and one of several", [wants(0), has(A, B)], [has(B)], [has(A, B)], None, TREE),
    ("wanted after one, and none in the leaf", [wants(1), has(A)], [has(A)], [], NO, TREE),
    ("wanted after two, and none", [wants(2)], [], [], NO, "RFC 5280, 6.1.5 (a)"),
    ("wanted after three, and none", [wants(3)], [], [], None, "RFC 5280, 6.1.5 (a)"),
    ("wanted by the leaf, and none", [], [], [wants(0)], NO, "RFC 5280, 6.1.5 (b)"),
    ("any is inhibited, and none wanted", [no_any(0)], [], [], None, "RFC 5280, 6.1.4 (j)"),
    ("any is inhibited, and used", [wants(0), no_any(0), has(ANY)], [has(ANY)], [has(A)], NO,
     "RFC 5280, 6.1.3 (d)(2)"),
    ("any is inhibited after one", [wants(0), no_any(1), has(ANY)], [has(ANY)], [has(A)], None,
     "RFC 5280, 6.1.3 (d)(2)"),
    ("mapped to another", [wants(0), has(A), maps(A, B)], [has(B)], [has(B)], None,
     "RFC 5280, 6.1.4 (b)(1)"),
    ("mapped to another, and the old one used", [wants(0), has(A), maps(A, B)], [has(A)], [has(A)],
     NO, "RFC 5280, 6.1.4 (b)(1)"),
    ("mapped where that is inhibited", [wants(0, 0), has(A)], [has(A), maps(A, B)], [has(B)], NO,
     "RFC 5280, 6.1.4 (b)(2)"),
    ("any is mapped", [has(ANY), maps(ANY, A)], [has(A)], [has(A)], Code.EXTENSION_MALFORMED,
     "RFC 5280, 6.1.4 (a)"),
]  # fmt: skip


def cases() -> Iterator[Case]:
    for what, upper, lower, end, code, rule in ROWS:
        id_ = f"policy/{what}"
        root = ca(f"{id_} Root")
        first: Spec = ca(f"{id_} Upper", root, more=upper)
        second = ca(f"{id_} Lower", first, more=lower)
        bottom = leaf(second, more=end)
        yield Case(id_, rule, code, bottom, [second, first], [root], profile=Profile.PRIVATE)
