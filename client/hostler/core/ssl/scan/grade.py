"""A grade by SSL Labs' published rules, each reason with a code.

Source: Qualys SSL Labs, SSL Server Rating Guide, version 2009r: scores of three categories, then
rules that cap the grade. What the guide asks of sites on the Internet alone, such as a public CA,
shows in the grade; `ignoring_trust` leaves that out, which is the one to go by for a private CA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.ciphers import CipherSuite, suite
from hostler.core.ssl.scan.clients import clients, simulate

if TYPE_CHECKING:
    from hostler.core.ssl.scan.report import Report
    from hostler.core.ssl.scan.trust import Trust

Letter = Literal["A+", "A", "A-", "B", "C", "D", "E", "F", "T", "M"]
_ORDER: tuple[Letter, ...] = ("A+", "A", "A-", "B", "C", "D", "E", "F")
_LETTERS: tuple[tuple[int, Letter], ...] = ((80, "A"), (65, "B"), (50, "C"), (35, "D"), (20, "E"))
_PROTOCOLS = {
    words.SSL2: 0,
    words.SSL3: 80,
    words.TLS10: 90,
    words.TLS11: 95,
    words.TLS12: 100,
    words.TLS13: 100,
}
# Least bits of a key or a field, and what that scores.
_EXCHANGES = ((4096, 100), (2048, 90), (1024, 80), (512, 40), (1, 20))
_STRENGTHS = ((256, 100), (128, 80), (1, 20))
_CURVE_BITS = ((512, 15360), (384, 7680), (250, 3072), (224, 2048), (160, 1024), (1, 512))
LONG_HSTS_S = 180 * 86400


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a grade is no better than `cap`. T and M say that trust, or the name, is wanting."""

    code: str
    cap: Letter
    message: str


@dataclass(frozen=True, slots=True)
class Grade:
    """The grade, what it would be if everybody trusted the certificate, and why.

    Scores are from 0 to 100, `score` is their weighted mean.
    """

    letter: Letter
    ignoring_trust: Letter
    score: int
    protocol: int
    key_exchange: int
    cipher: int
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "letter": self.letter,
            "ignoring_trust": self.ignoring_trust,
            "score": self.score,
            "protocol": self.protocol,
            "key_exchange": self.key_exchange,
            "cipher": self.cipher,
            "reasons": [
                {"code": each.code, "cap": each.cap, "message": each.message}
                for each in self.reasons
            ],
        }


def grade(report: Report) -> Grade:
    """Grade what was found; what was not checked caps nothing."""
    protocol, exchange, cipher = _protocol(report), _exchange(report), _cipher(report)
    score = 0
    if min(protocol, exchange, cipher) > 0:
        score = round(0.3 * protocol + 0.3 * exchange + 0.4 * cipher)
    reasons = list({each.code: each for each in (*_faults(report), *_certificate(report))}.values())
    letter: Letter = next((letter for least, letter in _LETTERS if score >= least), "F")
    for reason in reasons:
        if reason.cap in _ORDER:
            letter = _ORDER[max(_ORDER.index(letter), _ORDER.index(reason.cap))]
    if letter == "A" and _is_exceptional(report):
        letter = "A+"
    caps = {reason.cap for reason in reasons}
    told: Letter = "M" if "M" in caps else "T" if "T" in caps else letter
    return Grade(told, letter, score, protocol, exchange, cipher, tuple(reasons))


def _protocol(report: Report) -> int:
    scores = [_PROTOCOLS[version] for version in report.supported()]
    if report.ssl2 is not None and report.ssl2.is_supported:
        scores.append(_PROTOCOLS[words.SSL2])
    return (max(scores) + min(scores)) // 2 if scores else 0


def _exchange(report: Report) -> int:
    if any(found.is_anonymous for found in report.suites().values()):
        return 0
    bits = [trust.leaf.strength_bits for trust in report.trust or () if trust.leaf]
    if report.groups is not None:
        if report.groups.dh_bits is not None:
            bits.append(report.groups.dh_bits)
        best = (report.groups.tls13[:1], report.groups.ecdhe[:1])
        bits += [_worth(words.group_bits(number)) for found in best for number in found]
    if any(found.is_export for found in report.suites().values()):
        bits.append(512)
    if not bits:
        return 90
    return next((score for least, score in _EXCHANGES if min(bits) >= least), 0)


def _worth(bits: int) -> int:
    """What a curve is worth as RSA; prime fields and hybrids are taken as they are."""
    if bits >= 2048:
        return bits
    return next((worth for least, worth in _CURVE_BITS if bits >= least), 0)


def _cipher(report: Report) -> int:
    found = [
        next((score for least, score in _STRENGTHS if each.bits >= least), 0)
        for each in report.suites().values()
    ]
    return (max(found) + min(found)) // 2 if found else 0


def _faults(report: Report) -> Iterator[Reason]:
    yield from _of_versions(report)
    yield from _of_suites(report)
    yield from _of_attacks(report)
    yield from _of_keys(report)


def _of_versions(report: Report) -> Iterator[Reason]:
    supported = report.supported()
    if report.ssl2 is not None and report.ssl2.is_supported:
        yield Reason("SSLV2", "F", "SSL 2 is spoken")
    if words.SSL3 in supported:
        chained = any(suite(number).is_cbc for number in supported[words.SSL3].suites)
        what = "SSL 3 is spoken, with suites in CBC (POODLE)" if chained else "SSL 3 is spoken"
        yield Reason("SSLV3", "C" if chained else "B", what)
    for version, code in ((words.TLS10, "TLS10"), (words.TLS11, "TLS11")):
        if version in supported:
            yield Reason(code, "B", f"{words.version_name(version)} is spoken")
    if not {words.TLS12, words.TLS13} & set(supported):
        yield Reason("NO_TLS12", "C", "TLS 1.2 is not spoken")
    elif words.TLS13 not in supported:
        yield Reason("NO_TLS13", "A-", "TLS 1.3 is not spoken")


def _of_suites(report: Report) -> Iterator[Reason]:
    suites = report.suites().values()
    for code, word, what in (
        ("NULL_CIPHER", "null", "nothing is encrypted with some cipher suites"),
        ("ANONYMOUS", "anon", "nobody vouches for the server with some cipher suites"),
        ("EXPORT", "export", "cipher suites weakened for export are accepted"),
        ("WEAK_CIPHER", "weak", "cipher suites of less than 112 bits are accepted"),
    ):
        if any(word in each.flaws for each in suites):
            yield Reason(code, "F", what)
    if any(each.is_rc4 for each in suites):
        modern = any(
            each.is_rc4
            for version in report.supported()
            if version >= words.TLS11
            for each in _of(report, version)
        )
        yield Reason("RC4", "C" if modern else "B", "RC4 is accepted")
    if any(_prefers_small_blocks(report, v) for v in report.supported() if v >= words.TLS11):
        yield Reason("SMALL_BLOCKS", "C", "blocks of 64 bits are used where others could be")
    if suites and not any(each.is_aead for each in suites):
        yield Reason("NO_AEAD", "B", "no cipher suite with AEAD is accepted")
    lacking = [
        client.name for client in clients() if client.is_modern and not _is_forward(report, client)
    ]
    if lacking:
        yield Reason("NO_FORWARD_SECRECY", "B", f"no forward secrecy with {', '.join(lacking)}")


def _of(report: Report, version: int) -> list[CipherSuite]:
    return [suite(number) for number in report.supported()[version].suites]


def _prefers_small_blocks(report: Report, version: int) -> bool:
    """Whether a client that would do without gets them."""
    found = [each.has_small_blocks for each in _of(report, version)]
    if all(found):
        return True
    in_order = report.supported()[version].order == "server"
    return in_order and any(here and not all(found[at:]) for at, here in enumerate(found))


def _is_forward(report: Report, client: Any) -> bool:
    got = simulate(client, report)
    return bool(got.refusal) or suite(got.suite).is_forward_secret


def _of_attacks(report: Report) -> Iterator[Reason]:
    if report.heartbleed:
        yield Reason("HEARTBLEED", "F", "memory is given away (CVE-2014-0160)")
    if report.ccs_injection:
        yield Reason("CCS_INJECTION", "F", "keys of nothing are taken (CVE-2014-0224)")
    if report.robot is not None and report.robot.verdict in ("weak_oracle", "strong_oracle"):
        yield Reason("ROBOT", "F", "what was encrypted by RSA can be found out (ROBOT)")
    if report.compression:
        yield Reason("COMPRESSION", "C", f"{report.compression} inside TLS (CVE-2012-4929)")
    if report.features is not None and not report.features.secure_renegotiation:
        if report.renegotiation:
            yield Reason("INSECURE_RENEGOTIATION", "F", "insecure renegotiation (CVE-2009-3555)")
        else:
            yield Reason("NO_SECURE_RENEGOTIATION", "A-", "no secure renegotiation (RFC 5746)")


def _of_keys(report: Report) -> Iterator[Reason]:
    for trust in report.trust or ():
        if trust.leaf is None:
            continue
        if trust.leaf.strength_bits < 1024:
            yield Reason("KEY_UNDER_1024", "F", f"a key of {trust.leaf.key_bits} bits")
        elif trust.leaf.strength_bits < 2048:
            yield Reason("KEY_UNDER_2048", "B", f"a key of {trust.leaf.key_bits} bits")
    bits = report.groups.dh_bits if report.groups is not None else None
    if bits is not None and bits < 1024:
        yield Reason("DH_UNDER_1024", "F", f"a prime field of {bits} bits")
    elif bits is not None and bits < 2048:
        yield Reason("DH_UNDER_2048", "B", f"a prime field of {bits} bits")


def _certificate(report: Report) -> Iterator[Reason]:
    for trust in report.trust or ():
        if "md5_signature" in trust.faults:
            yield Reason("MD5_SIGNATURE", "F", "the certificate is signed with MD5")
        for fault in ("expired", "not_yet_valid", "sha1_signature"):
            if fault in trust.faults:
                yield Reason(fault.upper(), "T", f"the certificate: {fault.replace('_', ' ')}")
        if trust.matches_name is False:
            yield Reason("NAME_MISMATCH", "M", "the certificate is for other names")
        if trust.verdict == "incomplete":
            yield Reason("INCOMPLETE_CHAIN", "B", trust.why)
        elif trust.verdict != "trusted" and not _is_weak_alone(trust):
            yield Reason(trust.verdict.upper(), "T", trust.why)


def _is_weak_alone(trust: Trust) -> bool:
    """Whether a weak key is all that is wrong, which has grades of its own."""
    codes = {reason.code for reason in trust.reasons}
    return trust.verdict == "invalid" and codes == {"WEAK_KEY"}


def _is_exceptional(report: Report) -> bool:
    http = report.http
    if http is None or http.max_age_s is None or http.max_age_s < LONG_HSTS_S:
        return False
    return report.fallback is not False
