"""The one question of this package: is this leaf good, for this name, at this time, and why not.

judged = judge(leaf, intermediates, roots, moment=..., name="www.example.com")
judged.verdict.ok, judged.verdict.reasons, judged.best
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hostler.core.ssl.candidates import Candidates, Fetch, Fetched
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.host_name import NameUnusable, WantedName
from hostler.core.ssl.paths import DEFAULT_DEPTH, Found, Path, Rules, search
from hostler.core.ssl.profile import Profile, Usage
from hostler.core.ssl.verdict import Code, Reason, Verdict
from hostler.core.ssl.verifier import second_refusal

if TYPE_CHECKING:
    from hostler.core.ssl.revocation import Revocation

DEFAULT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict, the good paths (the best first), the others, and what was fetched.

    `added` are the certificates of the best path that were fetched: nobody had given them.
    """

    verdict: Verdict
    good: tuple[Path, ...]
    rejected: tuple[Path, ...]
    fetches: tuple[Fetched, ...] = ()
    added: tuple[Certificate, ...] = ()

    @property
    def best(self) -> Path | None:
        """The path to serve; None if there is no good one."""
        return self.good[0] if self.good else None


def judge(
    leaf: Certificate,
    intermediates: Sequence[Certificate],
    roots: Sequence[Certificate],
    *,
    moment: datetime | None = None,
    name: str | None = None,
    usage: Usage = Usage.SERVER,
    max_depth: int = DEFAULT_DEPTH,
    profile: Profile = Profile.STRICT,
    revocation: Revocation | None = None,
    fetch: Fetch | None = None,
    within_s: float = DEFAULT_SECONDS,
) -> Judged:
    """Build all paths from a leaf to a root and judge them. Answers within `within_s`.

    `moment` is now by default; without `name` none is compared; `max_depth` counts the CAs between
    leaf and root, those that are self-issued aside. With `fetch`, AIA is followed where what was
    given leads nowhere. A path is good if our own rules and cryptography's verifier find nothing.
    Of good ones the best has the fewest certificates, then the fewest warnings, then ends last.
    """
    ends_at = time.monotonic() + within_s
    moment = (moment or datetime.now(UTC)).astimezone(UTC)
    try:
        wanted = WantedName.parse(name) if name is not None else None
    except NameUnusable as error:
        reason = Reason(Code.NAME_MALFORMED, leaf.label, str(error), leaf.place)
        return Judged(Verdict(False, (reason,)), (), ())
    candidates = Candidates(frozenset(roots), fetch, ends_at)
    candidates.add((*roots, *intermediates))
    rules = Rules(moment, usage, wanted, profile, max_depth)
    found = _judged_again(search(leaf, candidates, rules), rules, revocation, ends_at)
    best = found.good[0].certificates if found.good else ()
    return Judged(
        _verdict(leaf, found),
        found.good,
        found.rejected,
        tuple(candidates.fetches),
        tuple(c for c in best if candidates.was_fetched(c)),
    )


def judge_bytes(
    leaf: bytes,
    intermediates: Sequence[bytes],
    roots: Sequence[bytes],
    **options: Any,
) -> Judged:
    """Judge certificates in whatever form they are, PEM or DER; `options` are those of `judge`.

    A leaf that cannot be read is a verdict too; what else cannot be read is passed over.
    """
    from hostler.core.ssl.reading import read_contents

    contents = read_contents(leaf, "leaf")
    if not contents.certificates:
        message = str(contents.faults[0]) if contents.faults else "no certificate is in it"
        return Judged(Verdict(False, (Reason(Code.UNREADABLE, "leaf", message, "leaf"),)), (), ())

    def read(every: Sequence[bytes], what: str) -> list[Certificate]:
        found = [read_contents(data, f"{what} {n}") for n, data in enumerate(every, 1)]
        return [certificate for contents in found for certificate in contents.certificates]

    return judge(
        contents.certificates[0],
        [*contents.certificates[1:], *read(intermediates, "intermediate")],
        read(roots, "root"),
        **options,
    )


def _judged_again(
    found: Found, rules: Rules, revocation: Revocation | None, ends_at: float
) -> Found:
    """Have revocation and the other judge look at each good path."""
    good: list[Path] = []
    fallen: list[Path] = []
    for path in found.good:
        reasons: list[Reason] = []
        if revocation is not None:
            reasons.extend(_revoked(path, revocation, rules, ends_at))
        if refusal := second_refusal(path.certificates, rules):
            leaf = path.certificates[0]
            reasons.append(Reason(Code.VERIFIER_REFUSES, leaf.label, refusal, leaf.place))
        if reasons:
            fallen.append(replace(path, reasons=tuple(reasons)))
        else:
            good.append(path)
    return Found(tuple(good), (*fallen, *found.rejected), found.spent)


def _revoked(path: Path, revocation: Revocation, rules: Rules, ends_at: float) -> Iterator[Reason]:
    from hostler.core.ssl.revocation import revoked

    return revoked(path.certificates, revocation, rules.moment, rules.profile, ends_at)


def _verdict(leaf: Certificate, found: Found) -> Verdict:
    if found.good:
        return Verdict(True, (), found.good[0].warnings)
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()
    if found.rejected:
        nearest = found.rejected[0]
        reasons, warnings = nearest.reasons, nearest.warnings
    if found.spent:
        reasons += (Reason(Code.BUDGET_SPENT, leaf.label, found.spent, leaf.place),)
    if not reasons:
        message = "no path to a root was found"
        reasons = (Reason(Code.ISSUER_NOT_FOUND, leaf.label, message, leaf.place),)
    return Verdict(False, reasons, warnings)
