"""What a scan thinks of a chain as it was served: the judge's reasons under names of its own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from ssl_pki import Pair, ec_key, make, rsa_key

from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.scan.checks.certificates import Served
from hostler.core.ssl.scan.connect import Endpoint
from hostler.core.ssl.scan.grade import grade
from hostler.core.ssl.scan.report import Report, as_dict
from hostler.core.ssl.scan.trust import Roots, judge

NAME = "www.example.test"


@dataclass(frozen=True)
class Case:
    """What is served, who is trusted, and what is to be said; `why` is part of the words."""

    served: tuple[Pair, ...]
    roots: tuple[Pair, ...]
    verdict: str
    codes: frozenset[str] = frozenset()
    why: str = ""


def _cases() -> dict[str, Case]:
    root = make("Root", ec_key(), is_ca=True)
    ca = make("Issuing", ec_key(), root, is_ca=True)
    leaf = make("leaf", ec_key(), ca, names=(NAME,))
    pointing = make("leaf", ec_key(), ca, names=(NAME,), aia="http://ca.example.test/ca.crt")
    expired = make("leaf", ec_key(), ca, names=(NAME,), days=(-90, -1))
    early = make("leaf", ec_key(), ca, names=(NAME,), days=(2, 90))
    weak = make("leaf", rsa_key(1024), ca, names=(NAME,))
    alone = make("leaf", ec_key(), names=(NAME,))
    # Another CA of the same name: what it is asked about, it has not signed.
    twin = make("Issuing", ec_key(), root, is_ca=True)
    return {
        "trusted": Case((leaf, ca), (root,), "trusted"),
        "trusted, with its root": Case((leaf, ca, root), (root,), "trusted"),
        "trusted, out of order": Case((leaf, root, ca), (root,), "trusted"),
        "incomplete": Case(
            (pointing,), (root,), "incomplete", frozenset({"ISSUER_NOT_FOUND"}), "CN=Issuing"
        ),
        "nobody knows the issuer": Case(
            (leaf,), (root,), "private_ca", frozenset({"ISSUER_NOT_FOUND"}), "CN=Issuing"
        ),
        "private": Case(
            (leaf, ca, root), (), "private_ca", frozenset({"ROOT_NOT_TRUSTED"}), "CN=Root"
        ),
        "self-signed": Case((alone,), (root,), "self_signed", frozenset({"ROOT_NOT_TRUSTED"})),
        "self-signed and trusted": Case((alone,), (alone,), "trusted"),
        "expired": Case((expired, ca), (root,), "invalid", frozenset({"EXPIRED"}), "ended"),
        "not yet": Case((early, ca), (root,), "invalid", frozenset({"NOT_YET_VALID"}), "begins"),
        "weak": Case((weak, ca), (root,), "invalid", frozenset({"WEAK_KEY"}), "1024"),
        "expired and private": Case(
            (expired, ca, root), (), "private_ca", frozenset({"EXPIRED", "ROOT_NOT_TRUSTED"})
        ),
        "not signed by it": Case(
            (leaf, twin), (root,), "invalid", frozenset({"SIGNATURE_INVALID"}), "not signed"
        ),
    }


CASES = _cases()
# OpenSSL takes weak keys at the level that is its own default.
_OPENSSL_TAKES = {"weak"}


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_of_a_chain(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    roots = Roots(private=tuple(Certificate.read(each.der) for each in case.roots))
    found = judge([each.der for each in case.served], NAME, roots)
    assert found.verdict == case.verdict, found
    assert {reason.code for reason in found.reasons} == case.codes
    assert case.why in found.why and bool(found.why) is (case.verdict != "trusted")
    assert found.matches_name is True
    assert _openssl_takes(case, tmp_path) is (case.verdict == "trusted" or name in _OPENSSL_TAKES)


def _openssl_takes(case: Case, place: Path) -> bool:
    """What the witness says: to the leaf, with all that is served and nothing else."""
    for name, pairs in (
        ("leaf.pem", case.served[:1]),
        ("served.pem", case.served),
        ("roots.pem", case.roots),
    ):
        (place / name).write_bytes(b"".join(each.pem for each in pairs))
    trusted = ("-CAfile", place / "roots.pem") if case.roots else ()
    done = subprocess.run(
        [
            *("/usr/bin/openssl", "verify", "-no-CAfile", "-no-CApath", "-purpose", "sslserver"),
            *("-partial_chain", *trusted, "-untrusted", place / "served.pem", place / "leaf.pem"),
        ],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_order_root_and_names_are_told_apart_from_trust() -> None:
    served = [each.der for each in CASES["trusted, out of order"].served]
    roots = Roots(private=tuple(Certificate.read(e.der) for e in CASES["trusted"].roots))
    found = judge(served, "other.example.test", roots)
    assert (found.verdict, found.matches_name) == ("trusted", False)
    assert (found.is_ordered, found.has_root) == (False, True)
    assert judge(served, "", roots).matches_name is None
    assert judge(served, "no name", roots).matches_name is False


def test_what_cannot_be_read_is_named() -> None:
    leaf = CASES["trusted"].served[0].der
    assert judge([], NAME, Roots()).verdict == "unreadable"
    found = judge([leaf, b"garbage"], NAME, Roots())
    assert found.verdict == "unreadable" and found.why


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("trusted", set()),
        ("incomplete", {"INCOMPLETE_CHAIN"}),
        ("private", {"PRIVATE_CA"}),
        ("expired", {"EXPIRED", "INVALID"}),
        # A weak key is graded as that: trust is not marked down for it as well.
        ("weak", {"KEY_UNDER_2048"}),
    ],
)
def test_the_grade_goes_by_it(name: str, codes: set[str]) -> None:
    case = CASES[name]
    chain = tuple(each.der for each in case.served)
    roots = Roots(private=tuple(Certificate.read(each.der) for each in case.roots))
    report = Report(Endpoint("192.0.2.1", 443, NAME))
    report.certificates = (Served("ECDSA", 0x0304, chain),)
    report.trust = (judge(chain, NAME, roots),)
    other = {"NO_TLS12"}
    assert {each.code for each in grade(report).reasons} - other == codes
    (told,) = as_dict(report)["certificates"]
    assert {each["code"] for each in told["trust"]["reasons"]} == case.codes
