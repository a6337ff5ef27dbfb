"""Which kinds of clients take a chain as it is served, and what each of them sees.

The certificates are the same for all; clients differ in where they look for issuers and in whether
they try again. Each is carried out here on what is served, and its path and reasons are evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.issuer_rules import Below
from hostler.core.ssl.judge import Judged, judge
from hostler.core.ssl.paths import MOST_IN_A_PATH, Rules, judged_issuer, judged_leaf
from hostler.core.ssl.signatures import is_signed_by
from hostler.core.ssl.verdict import Code, Reason


class Client(StrEnum):
    """A kind of client.

    FETCHING looks for issuers by AIA too (browsers on Windows and macOS, Chrome, Android's system);
    STORE_ONLY takes what is served and its store, and tries every way (Firefox without its cache,
    Go, rustls, Java); NON_BACKTRACKING takes the first issuer that fits (OpenSSL, and what is built
    on it: curl, Python, nginx, PostgreSQL); IN_ORDER wants each certificate after the one that it
    signed (RFC 5246, 7.4.2, and older clients).
    """

    FETCHING = "fetching"
    STORE_ONLY = "store-only"
    NON_BACKTRACKING = "non-backtracking"
    IN_ORDER = "in-order"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one kind of client says: whether it takes the chain, by which path, or why not."""

    client: Client
    ok: bool
    path: tuple[Certificate, ...]
    reasons: tuple[Reason, ...]


def outcomes(
    served: Sequence[Certificate],
    roots: Sequence[Certificate],
    rules: Rules,
    fetching: Judged,
    within_s: float,
) -> tuple[Outcome, ...]:
    """What each kind of client says to a served chain, the leaf first. `fetching` was fetched for.

    Nothing is fetched here.
    """
    name = rules.name.value if rules.name else None
    alone = judge(
        served[0], served[1:], roots, moment=rules.moment, name=name, usage=rules.usage,
        max_depth=rules.max_depth, profile=rules.profile,
        within_s=within_s,
    )  # fmt: skip
    return (
        _of(Client.FETCHING, fetching),
        _of(Client.STORE_ONLY, alone),
        first_fit(served[0], served[1:], roots, rules),
        in_order(served, roots, rules),
    )


def _of(client: Client, judged: Judged) -> Outcome:
    path = judged.good[0] if judged.good else (judged.rejected[0] if judged.rejected else None)
    certificates = path.certificates if path else ()
    return Outcome(client, judged.verdict.ok, certificates, judged.verdict.reasons)


def first_fit(
    leaf: Certificate,
    others: Sequence[Certificate],
    roots: Sequence[Certificate],
    rules: Rules,
) -> Outcome:
    """Build the one path that OpenSSL builds: the store first, then what was served, never back.

    Of several that fit by name and key identifier it takes the first that is valid now, else the
    one that ends last. Source: build_chain() and get1_best_issuer of crypto/x509/x509_vfy.c, 3.0.
    """
    path, left, anchored = [leaf], list(others), leaf in roots
    while len(path) < MOST_IN_A_PATH and not (anchored and _signs_itself(path[-1])):
        if len(path) == 1 and _signs_itself(leaf):
            # Of a leaf that seems to, the store must have this very certificate.
            break
        issuer = _best(path[-1], roots, rules)
        if issuer is not None and issuer is not path[-1] and issuer not in path:
            anchored = True
        elif anchored or _signs_itself(path[-1]):
            break
        else:
            issuer = _best(path[-1], left, rules)
            if issuer is None:
                break
            left.remove(issuer)
        path.append(issuer)
    complete = anchored and _signs_itself(path[-1])
    return _judged(Client.NON_BACKTRACKING, path, complete, rules)


def in_order(served: Sequence[Certificate], roots: Sequence[Certificate], rules: Rules) -> Outcome:
    """Take the path as it is served, each after the one that it signed, up to a root."""
    path = list(served[:MOST_IN_A_PATH])
    for at, (child, issuer) in enumerate(pairwise(path), 1):
        if child.issuer_key != issuer.subject_key:
            message = f"the next one is {issuer.label}, which is not its issuer"
            reason = Reason(Code.ISSUER_NOT_FOUND, child.label, message, child.place)
            return Outcome(Client.IN_ORDER, False, tuple(path[:at]), (reason,))
    if path[-1] not in roots:
        root = _best(path[-1], roots, rules)
        if root is not None:
            path.append(root)
    return _judged(Client.IN_ORDER, path, path[-1] in roots, rules)


def _best(
    child: Certificate, candidates: Iterable[Certificate], rules: Rules
) -> Certificate | None:
    fitting = [c for c in candidates if _fits(child, c)]
    now = [c for c in fitting if c.not_before <= rules.moment <= c.not_after]
    return now[0] if now else max(fitting, key=lambda c: c.not_after, default=None)


def _fits(child: Certificate, issuer: Certificate) -> bool:
    from cryptography import x509

    if child.issuer_key != issuer.subject_key:
        return False
    authority = child.extension(x509.AuthorityKeyIdentifier)
    own = issuer.extension(x509.SubjectKeyIdentifier)
    wanted = authority.key_identifier if authority else None
    return wanted is None or own is None or own.digest == wanted


def _signs_itself(certificate: Certificate) -> bool:
    return certificate.self_issued and _fits(certificate, certificate)


def _judged(client: Client, path: list[Certificate], complete: bool, rules: Rules) -> Outcome:
    """Judge the one path that a client has."""
    reasons = list(judged_leaf(path[0], rules)[0])
    below = Below.leaf(path[0])
    for at, issuer in enumerate(path[1:], 1):
        anchor = complete and at == len(path) - 1
        reasons += judged_issuer(issuer, below, rules, anchor=anchor)[0]
        below = below.above(issuer)
        child = path[at - 1]
        if not is_signed_by(child, issuer):
            message = f"not signed by the key of {issuer.label}"
            reasons.append(Reason(Code.SIGNATURE_INVALID, child.label, message, child.place))
    if not complete:
        last = path[-1]
        if _signs_itself(last):
            code, message = Code.ROOT_NOT_TRUSTED, "signed by itself, and no anchor"
        else:
            wanted = last.issuer.rfc4514_string()[:200]
            code, message = Code.ISSUER_NOT_FOUND, f"no {wanted!r} that fits"
        reasons.append(Reason(code, last.label, message, last.place))
    return Outcome(client, not reasons, tuple(path), tuple(reasons))
