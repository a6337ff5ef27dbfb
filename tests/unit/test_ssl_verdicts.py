"""Chains by category, each with the verdict of the rules, of OpenSSL and of GnuTLS beside it."""

from __future__ import annotations

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import verdict_graphs
import verdict_names
import verdict_policies
import verdict_rules
from certificates import NOW, der
from verdict_case import Case
from verdict_disagreements import explained
from verdict_witnesses import gnutls_accepts, openssl_accepts

from hostler.core.ssl.issuer_rules import Below
from hostler.core.ssl.judge import judge_bytes
from hostler.core.ssl.paths import Rules, judged_issuer
from hostler.core.ssl.profile import Profile
from hostler.core.ssl.reading import read_contents
from hostler.core.ssl.verdict import Code

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
CASES = {
    case.id: case
    for module in (verdict_graphs, verdict_names, verdict_policies, verdict_rules)
    for case in module.cases()
}
CATEGORIES = {
    "graph": 40, "loop": 8, "self-issued": 10, "names": 80, "host": 20, "length": 15, "basic": 8,
    "usage": 15, "extended": 15, "validity": 15, "critical": 8, "policy": 20, "strength": 25,
    "serial": 10,
    "encoding": 10, "identifier": 8,
}  # fmt: skip
WITNESSES = {"openssl": openssl_accepts, "gnutls": gnutls_accepts}


def test_every_category_has_its_cases() -> None:
    counted = Counter(case.category for case in CASES.values())
    assert set(counted) == set(CATEGORIES)
    assert {name for name, least in CATEGORIES.items() if counted[name] < least} == set()
    assert all(case.rule for case in CASES.values())


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.id)
def test_verdict_is_that_of_the_rules(case: Case) -> None:
    judged = case.judged()
    said = "\n".join(map(str, judged.verdict.reasons))
    assert judged.verdict.ok is (case.code is None), said
    assert judged.verdict.ok is (judged.best is not None)
    assert judged.verdict.ok is (not judged.verdict.reasons)
    if case.code is not None:
        assert case.code in judged.verdict.codes, said
        # What the other judge alone refuses would be a rule that is missing here.
        assert Code.VERIFIER_REFUSES not in judged.verdict.codes, said


def test_roots_of_a_public_store_are_refused_for_nothing_but_their_end() -> None:
    """Debian's ca-certificates, which a dozen of are not written as the rules have it."""
    data = Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
    contents = read_contents(data, "store")
    assert contents.faults == ()
    assert len(contents.certificates) > 100
    codes: dict[Profile, set[Code]] = {}
    for profile in (Profile.WEB, Profile.STRICT):
        rules = Rules(NOW, profile=profile)
        found = [judged_issuer(root, Below(0, ()), rules, anchor=True)[0]
                 for root in contents.certificates]  # fmt: skip
        codes[profile] = {reason.code for reasons in found for reason in reasons}
    assert codes[Profile.WEB] <= {Code.EXPIRED}
    assert Code.EXTENSION_MISUSED in codes[Profile.STRICT]


def test_a_key_identifier_that_is_not_the_issuers_is_warned_of() -> None:
    verdict = CASES["identifier/of another key"].judged().verdict
    assert verdict.ok
    assert [(r.code, r.subject) for r in verdict.warnings] == [(Code.EXTENSION_MISUSED, "CN=leaf")]
    assert "OpenSSL and GnuTLS refuse" in verdict.warnings[0].message


@pytest.mark.soak
@pytest.mark.timeout(1800 if SOAK else 120)
def test_certificates_that_are_changed_at_random_are_judged_and_never_crash_the_judge() -> None:
    chance = random.Random(None if SOAK else 7)  # noqa: S311 # the same choices every time
    cases = [case for case in CASES.values() if case.category in ("names", "encoding", "extended")]
    judged = 0
    for _ in range(30_000 if SOAK else 600):
        case = chance.choice(cases)
        changed = [_changed(der(spec), chance) for spec in (case.leaf, *case.given)]
        roots = [der(spec) for spec in case.roots]
        for leaf, given in ((changed[0], changed[1:]), (der(case.leaf), changed[1:])):
            answer = judge_bytes(leaf, given, [*roots, *given], name="www.example.com")
            assert answer.verdict.ok or answer.verdict.reasons
            judged += bool(answer.rejected)
    # Most could be read and were judged as paths.
    assert judged > 300


def _changed(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("tool", WITNESSES)
def test_every_disagreement_with_others_is_explained(tool: str, tmp_path: Path) -> None:
    accepts = WITNESSES[tool]
    with ThreadPoolExecutor(2) as pool:
        said = dict(
            zip(CASES, pool.map(lambda c: accepts(c, tmp_path), CASES.values()), strict=True)
        )
    disagree = {id_ for id_, case in CASES.items() if said[id_] is not (case.code is None)}
    why = dict(explained(tool))
    assert sorted(disagree - set(why)) == [], "disagreements without an explanation"
    assert sorted(set(why) - disagree) == [], "explanations of what they agree on"
    # Two thirds and more are as the rules say: these are witnesses of something.
    assert len(disagree) * 3 < len(CASES)
