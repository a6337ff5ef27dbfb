"""Every path from a leaf to an anchor: depth first, fetched lazily, within a budget.

From each certificate the search goes to the issuers at hand (see `Candidates.at_hand` for their
order); only where none of them has led to a good path so far are those of its AIA fetched. A name
and key that are in a path already are not entered again, which ends every loop and loses no path:
whatever is good with both is good without what lies between them. Constraints are checked as the
path grows, since each is about what is below the CA that makes it.

Source: RFC 4158 for the search, RFC 5280, 6.1 for what is checked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from hostler.core.ssl.candidates import Candidates, authority_key, subject_key
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.extension_rules import Finding
from hostler.core.ssl.host_name import WantedName
from hostler.core.ssl.issuer_rules import Below, loose_issuer, refused_issuer, untidy_issuer
from hostler.core.ssl.leaf_rules import loose_leaf, refused_leaf, untidy_leaf
from hostler.core.ssl.policies import policy_faults
from hostler.core.ssl.profile import Profile, Usage
from hostler.core.ssl.signatures import is_signed_by
from hostler.core.ssl.strength import strength_faults
from hostler.core.ssl.verdict import Code, Reason

DEFAULT_DEPTH = 10
MOST_IN_A_PATH = 40
MOST_PATHS = 16
MOST_NODES = 4_000
_MOST_NODES_TO_EXPLAIN = 400
# Errors and warnings.
_Judgement = tuple[tuple[Reason, ...], tuple[Reason, ...]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a path is judged by. `max_depth` counts CAs between leaf and anchor, self-issued aside.

    `moment` has a time zone; a `name` of None is not compared.
    """

    moment: datetime
    usage: Usage = Usage.SERVER
    name: WantedName | None = None
    profile: Profile = Profile.STRICT
    max_depth: int = DEFAULT_DEPTH


@dataclass(frozen=True, slots=True)
class Path:
    """A path from the leaf on; `anchored` if it ends at an anchor. Good without reasons."""

    certificates: tuple[Certificate, ...]
    anchored: bool
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it ends at an anchor and nothing is wrong."""
        return self.anchored and not self.reasons


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: good paths, others with their reasons, and whether it was cut short."""

    good: tuple[Path, ...]
    rejected: tuple[Path, ...]
    spent: str = ""


@dataclass(frozen=True, slots=True)
class _Way:
    """A path that grows, with what is below its end and what was found so far."""

    certificates: tuple[Certificate, ...]
    keys: frozenset[tuple[bytes, str]]
    below: Below
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]


@dataclass
class _Search:
    candidates: Candidates
    rules: Rules
    nodes: int
    explaining: bool = False
    good: list[Path] = field(default_factory=list)
    rejected: list[Path] = field(default_factory=list)
    spent: str = ""
    signatures: dict[tuple[str, str], bool] = field(default_factory=dict)
    judgements: dict[tuple[str, ...], _Judgement] = field(default_factory=dict)

    def start(self, leaf: Certificate) -> None:
        errors, warnings = judged_leaf(leaf, self.rules)
        # Name and key of the leaf are not among them: its CA may have both, see RFC 5280, 3.2.
        way = _Way((leaf,), frozenset(), Below.leaf(leaf), errors, warnings)
        if leaf in self.candidates.anchors:
            self._end(way)
        if self.explaining or not errors:
            self._extend(way)

    def _extend(self, way: _Way) -> None:
        child, led_on = way.certificates[-1], False
        for issuer in self._issuers(child):
            if self._is_over():
                return
            self.nodes -= 1
            led_on = self._try(way, issuer) or led_on
        if not led_on and self.explaining:
            self._dead_end(way, child)

    def _issuers(self, child: Certificate) -> Iterator[Certificate]:
        yield from self.candidates.at_hand(child)
        if not self.good and not self.explaining:
            yield from self.candidates.from_afar(child)

    def _try(self, way: _Way, issuer: Certificate) -> bool:
        """Go on to one issuer; answers whether it was one."""
        key = (issuer.subject_key, issuer.spki_sha256)
        child = way.certificates[-1]
        if key in way.keys or issuer in way.certificates:
            return False
        if not self._signed(child, issuer):
            if self.explaining:
                message = f"not signed by the key of {issuer.label}"
                self._reject(way, Reason(Code.SIGNATURE_INVALID, child.label, message, child.place))
            return False
        anchor = issuer in self.candidates.anchors
        errors, warnings = self._judged(way, issuer, anchor=anchor)
        warnings += _identified(child, issuer)
        if not anchor and not issuer.self_issued:
            errors += self._depth(issuer, way.below)
        if errors and not self.explaining:
            return True
        longer = _Way(
            (*way.certificates, issuer),
            way.keys | {key},
            way.below.above(issuer),
            way.reasons + errors,
            way.warnings + warnings,
        )
        if anchor:
            self._end(longer)
        if not anchor or self.explaining:
            self._grow(longer)
        elif not issuer.self_issued:
            # An anchor that another one has signed is an end and a way on.
            self._grow(longer)
        return True

    def _judged(self, way: _Way, issuer: Certificate, *, anchor: bool) -> _Judgement:
        key = (*(c.fingerprint_sha256 for c in way.certificates), issuer.fingerprint_sha256)
        if key not in self.judgements:
            self.judgements[key] = judged_issuer(issuer, way.below, self.rules, anchor=anchor)
        return self.judgements[key]

    def _grow(self, way: _Way) -> None:
        if len(way.certificates) < MOST_IN_A_PATH:
            self._extend(way)
        else:
            self.spent = f"a path of more than {MOST_IN_A_PATH} certificates"

    def _depth(self, issuer: Certificate, below: Below) -> tuple[Reason, ...]:
        if below.intermediates < self.rules.max_depth:
            return ()
        message = f"more than {self.rules.max_depth} CAs between leaf and anchor"
        return (Reason(Code.CHAIN_TOO_DEEP, issuer.label, message, issuer.place),)

    def _end(self, way: _Way) -> None:
        leaf = way.certificates[0]
        policies = tuple(
            Reason(code, leaf.label, message[:300], leaf.place)
            for code, message in policy_faults(way.certificates)
        )
        path = Path(way.certificates, True, way.reasons + policies, way.warnings)
        if path.ok:
            self.good.append(path)
        elif self.explaining:
            self.rejected.append(path)

    def _dead_end(self, way: _Way, child: Certificate) -> None:
        if child in self.candidates.anchors:
            return
        if child.self_issued and self._signed(child, child):
            code, message = Code.ROOT_NOT_TRUSTED, "signed by itself, and no anchor"
        elif any(c.subject_key == child.issuer_key for c in self.candidates.at_hand(child)):
            code, message = Code.LOOP, "its issuers are all below it already, or did not sign it"
        else:
            code = Code.ISSUER_NOT_FOUND
            message = f"its issuer {child.issuer.rfc4514_string()[:200]!r} is nowhere"
        self._reject(way, Reason(code, child.label, message, child.place))

    def _reject(self, way: _Way, reason: Reason) -> None:
        self.rejected.append(Path(way.certificates, False, (*way.reasons, reason), way.warnings))

    def _signed(self, child: Certificate, issuer: Certificate) -> bool:
        key = (child.fingerprint_sha256, issuer.spki_sha256)
        if key not in self.signatures:
            self.signatures[key] = is_signed_by(child, issuer)
        return self.signatures[key]

    def _is_over(self) -> bool:
        if self.nodes <= 0:
            self.spent = "too many ways to try"
        elif time.monotonic() > self.candidates.ends_at:
            self.spent = "no time is left"
        elif len(self.good) >= MOST_PATHS or len(self.rejected) >= 4 * MOST_PATHS:
            return True
        return bool(self.spent)


def search(leaf: Certificate, candidates: Candidates, rules: Rules) -> Found:
    """Find the good paths, and what is wrong with the others. Ends by `candidates.ends_at`.

    At most MOST_PATHS of each are answered, the others' nearest to an anchor first.
    """
    first = _Search(candidates, rules, MOST_NODES)
    first.start(leaf)
    second = _Search(
        candidates, rules, _MOST_NODES_TO_EXPLAIN, True,
        signatures=first.signatures, judgements=first.judgements,
    )  # fmt: skip
    second.start(leaf)
    rejected = sorted(second.rejected, key=lambda p: (not p.anchored, len(p.reasons)))
    good = sorted(first.good, key=_worth)
    return Found(tuple(good), tuple(rejected[:MOST_PATHS]), first.spent)


def _worth(path: Path) -> tuple[int, int, float, tuple[str, ...]]:
    """The order of good paths: the fewest certificates, the fewest warnings, the last to end.

    What is still equal is ordered by fingerprints, so that it is the same one every time.
    """
    end = min(c.not_after for c in path.certificates).timestamp()
    prints = tuple(c.fingerprint_sha256 for c in path.certificates)
    return (len(path.certificates), len(path.warnings), -end, prints)


def judged_leaf(leaf: Certificate, rules: Rules) -> tuple[tuple[Reason, ...], tuple[Reason, ...]]:
    """What refuses a leaf and what is but to be warned of."""
    web = rules.profile.public
    refused = [
        *_dates(leaf, rules.moment),
        *strength_faults(leaf, rules.profile, anchor=False),
        *refused_leaf(leaf, rules.usage, rules.name),
    ]
    untidy = list(untidy_leaf(leaf, rules.usage))
    loose = loose_leaf(leaf, rules.usage) if web else ()
    return _sorted(leaf, refused, untidy, list(loose), web=web)


def judged_issuer(
    issuer: Certificate, below: Below, rules: Rules, *, anchor: bool
) -> tuple[tuple[Reason, ...], tuple[Reason, ...]]:
    """What refuses a CA above what is below it, and what is but to be warned of."""
    web = rules.profile is Profile.STRICT or (rules.profile.public and not anchor)
    refused = [
        *_dates(issuer, rules.moment),
        *strength_faults(issuer, rules.profile, anchor=anchor),
        *refused_issuer(issuer, below, rules.usage, anchor=anchor),
    ]
    untidy = list(untidy_issuer(issuer, anchor=anchor))
    return _sorted(issuer, refused, untidy, list(loose_issuer(issuer, anchor=anchor)), web=web)


def _sorted(
    certificate: Certificate,
    refused: list[Finding],
    untidy: list[Finding],
    loose: list[Finding],
    *,
    web: bool,
) -> tuple[tuple[Reason, ...], tuple[Reason, ...]]:
    def reasons(findings: list[Finding]) -> tuple[Reason, ...]:
        unique = dict.fromkeys(findings)
        return tuple(
            Reason(code, certificate.label, message[:300], certificate.place)
            for code, message in unique
        )

    if web:
        return reasons(refused + untidy), reasons(loose)
    return reasons(refused), reasons(untidy + loose)


def _identified(child: Certificate, issuer: Certificate) -> tuple[Reason, ...]:
    """A warning where the child names another key: 6.1 does not ask, and many clients do."""
    wanted, own = authority_key(child), subject_key(issuer)
    if wanted is None or own is None or wanted == own:
        return ()
    message = f"it names another key than that of {issuer.label}: OpenSSL and GnuTLS refuse that"
    return (Reason(Code.EXTENSION_MISUSED, child.label, message, child.place),)


def _dates(certificate: Certificate, moment: datetime) -> Iterator[Finding]:
    # The last second is good to its end. RFC 5280, 4.1.2.5.
    if moment.replace(microsecond=0) > certificate.not_after:
        yield Code.EXPIRED, f"ended {certificate.not_after:%Y-%m-%d %H:%M:%SZ}"
    if moment < certificate.not_before:
        yield Code.NOT_YET_VALID, f"begins {certificate.not_before:%Y-%m-%d %H:%M:%SZ}"
