"""A chain as it is served or filed, all there is to say of it, and what to put in its place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hostler.core.ssl.candidates import Fetch
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.clients import Outcome, outcomes
from hostler.core.ssl.judge import DEFAULT_SECONDS, Judged, judge
from hostler.core.ssl.paths import Rules
from hostler.core.ssl.revocation import Revocation
from hostler.core.ssl.served import ServedFault, served_faults


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What was served, the verdict with every path, faults of the serving, and what clients say.

    `to_serve` is the chain that is to be served: the best path without its root; empty without one.
    """

    leaf: Certificate
    served: tuple[Certificate, ...]
    judged: Judged
    faults: tuple[ServedFault, ...]
    clients: tuple[Outcome, ...]
    to_serve: tuple[Certificate, ...]

    @property
    def ok(self) -> bool:
        """Whether it is good, and every kind of client takes it as it is served."""
        return self.judged.verdict.ok and all(outcome.ok for outcome in self.clients)


def report(
    served: Sequence[Certificate],
    leaf: Certificate,
    roots: Sequence[Certificate],
    rules: Rules,
    *,
    fetch: Fetch | None = None,
    revocation: Revocation | None = None,
    known: Sequence[Certificate] = (),
    within_s: float = DEFAULT_SECONDS,
) -> ChainReport:
    """Judge a chain as it is served, `leaf` being one of it. Answers within about `within_s`.

    `known` are intermediates that are at hand and not served, which clients know nothing of.
    """
    ends_at = time.monotonic() + within_s
    others = [certificate for certificate in served if certificate != leaf]
    judged = judge(
        leaf, [*others, *known], roots, moment=rules.moment, usage=rules.usage,
        profile=rules.profile, name=rules.name.value if rules.name else None,
        max_depth=rules.max_depth,
        revocation=revocation, fetch=fetch, within_s=within_s,
    )  # fmt: skip
    best = judged.best.certificates if judged.best else ()
    # The leaf goes first whatever the file's order: no client takes another one for it.
    sent = served if served and served[0] == leaf else (leaf, *others)
    anchors = frozenset(roots)
    return ChainReport(
        leaf=leaf,
        served=tuple(served),
        judged=judged,
        faults=tuple(served_faults(served, leaf, best, anchors, rules.moment)),
        clients=outcomes(sent, roots, rules, judged, max(1.0, ends_at - time.monotonic())),
        to_serve=best[:-1] if len(best) > 1 else best,
    )
