"""Certificates that were taken back: CRLs and OCSP answers, given and fetched, beside openssl's."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest
from certificates import DAY, NOW, Spec, ca, der, key, leaf, made, pem
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from http_files import serving

from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.fetch import HttpFetcher
from hostler.core.ssl.judge import Judged, judge
from hostler.core.ssl.profile import Profile
from hostler.core.ssl.revocation import Revocation
from hostler.core.ssl.verdict import Code

ROOT = ca("Revocation Root")
INNER = ca("Revocation Inner", ROOT)
OTHER = ca("Revocation Other", ROOT)
NO_CRLS = ca("Revocation Inner", ROOT, uses=("key_cert_sign",))
LEAF = leaf(INNER, serial=4711)
GOOD, REVOKED, UNKNOWN = (
    ocsp.OCSPCertStatus.GOOD,
    ocsp.OCSPCertStatus.REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN,
)
USELESS = Code.REVOCATION_LIST_UNUSABLE


def crl(
    *serials: int, issuer: Spec = INNER, signer: str = "", starts: timedelta = -DAY,
    ends: timedelta = DAY, number: bool = True, more: tuple[x509.ExtensionType, ...] = (),
) -> bytes:  # fmt: skip
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(made(issuer).subject)
        .last_update(NOW + starts)
        .next_update(NOW + ends)
    )
    if number:
        builder = builder.add_extension(x509.CRLNumber(7), critical=False)
    for extension in more:
        builder = builder.add_extension(extension, critical=True)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY)
        reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
        builder = builder.add_revoked_certificate(entry.add_extension(reason, False).build())
    signed = builder.sign(key(signer or issuer.key_name), hashes.SHA256())  # type: ignore[arg-type]
    return signed.public_bytes(serialization.Encoding.DER)


ONLY_USERS = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
CRLS: dict[str, tuple[bytes, Code | None]] = {
    "not on it": (crl(1, 2), None),
    "on it": (crl(1, 4711), Code.REVOKED),
    "of another CA": (crl(4711, issuer=OTHER), None),
    "out of date": (crl(starts=-2 * DAY, ends=-DAY), USELESS),
    "of the future": (crl(starts=DAY, ends=2 * DAY), USELESS),
    "forged": (crl(signer="a forger"), USELESS),
    "on it and forged": (crl(4711, signer="a forger"), USELESS),
    "without a number": (crl(number=False), USELESS),
    "for some certificates alone": (crl(more=(ONLY_USERS,)), USELESS),
}


def asked(revocation: Revocation, wanted: Spec = LEAF, inner: Spec = INNER) -> Judged:
    leaf_, inner_, root = (Certificate.read(der(spec)) for spec in (wanted, inner, ROOT))
    return judge(leaf_, [inner_], [root], revocation=revocation, moment=NOW)


@pytest.mark.parametrize("case", CRLS)
def test_lists(case: str) -> None:
    data, code = CRLS[case]
    assert asked(Revocation(crls=(data,))).verdict.codes == ({code} if code else set())


@pytest.mark.parametrize("case", CRLS)
def test_lists_as_openssl_sees_them(case: str, tmp_path: Path) -> None:
    data, code = CRLS[case]
    files = {"root": pem(ROOT), "inner": pem(INNER), "leaf": pem(LEAF), "crl": _pem_crl(data)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    taken = subprocess.run(
        ["openssl", "verify", "-no-CApath", "-no-CAstore", "-CAfile", tmp_path / "root",
         "-untrusted", tmp_path / "inner", "-CRLfile", tmp_path / "crl", "-crl_check",
         tmp_path / "leaf"], capture_output=True, timeout=60,
    ).returncode == 0  # fmt: skip
    # With -crl_check a list that is not there refuses as well; and it takes lists without a
    # number, and those for users alone, since it is one.
    lenient = case in ("without a number", "for some certificates alone")
    assert taken is (lenient or (code is None and case != "of another CA"))


def _pem_crl(data: bytes) -> bytes:
    return x509.load_der_x509_crl(data).public_bytes(serialization.Encoding.PEM)


def test_what_nothing_is_known_of_is_refused_where_that_is_asked_for() -> None:
    assert asked(Revocation()).verdict.ok
    judged = asked(Revocation(required=True))
    assert judged.verdict.codes == {Code.REVOCATION_UNKNOWN}
    both = Revocation(crls=(crl(), crl(issuer=ROOT)), required=True)
    assert asked(both).verdict.ok


def test_an_inner_ca_that_was_revoked_refuses_all_below() -> None:
    data = crl(made(INNER).serial_number, issuer=ROOT)
    judged = asked(Revocation(crls=(data,)))
    assert [(r.code, r.subject) for r in judged.verdict.reasons] == [
        (Code.REVOKED, "CN=Revocation Inner")
    ]
    assert "keyCompromise" in judged.verdict.reasons[0].message


def test_a_ca_that_may_not_sign_lists_has_none() -> None:
    wanted = leaf(NO_CRLS)
    judged = asked(Revocation(crls=(crl(issuer=NO_CRLS),)), wanted, NO_CRLS)
    assert judged.verdict.codes == {USELESS}


def test_a_list_of_ones_own_ca_needs_no_number() -> None:
    leaf_, inner, root = (Certificate.read(der(spec)) for spec in (LEAF, INNER, ROOT))
    for serial, codes in ((1, set()), (4711, {Code.REVOKED})):
        given = Revocation(crls=(crl(serial, number=False),))
        judged = judge(leaf_, [inner], [root], revocation=given, profile=Profile.PRIVATE)
        assert judged.verdict.codes == codes


def test_garbage_is_no_list() -> None:
    assert asked(Revocation(crls=(b"\x30\x03abc",), ocsp=())).verdict.ok
    assert asked(Revocation(ocsp=(b"\x30\x03abc",))).verdict.codes == {USELESS}


# OCSP

DELEGATE = Spec("Responder", issuer=INNER, uses=("digital_signature",),
                ekus=(ExtendedKeyUsageOID.OCSP_SIGNING,))  # fmt: skip
NO_DELEGATE = Spec("No responder", issuer=INNER, uses=("digital_signature",))
STRANGER = Spec("Responder of another", issuer=OTHER, uses=("digital_signature",),
                ekus=(ExtendedKeyUsageOID.OCSP_SIGNING,))  # fmt: skip
OLD_DELEGATE = Spec("Old responder", issuer=INNER, uses=("digital_signature",), ends=-DAY / 2,
                    ekus=(ExtendedKeyUsageOID.OCSP_SIGNING,))  # fmt: skip


def answer(
    status: ocsp.OCSPCertStatus = GOOD, *, about: Spec = LEAF, issuer: Spec = INNER,
    signer: Spec = INNER, starts: timedelta = -DAY / 24,
    ends: timedelta = DAY, digest: Callable[[], hashes.HashAlgorithm] = hashes.SHA1,
) -> bytes:  # fmt: skip
    when: datetime | None = NOW - DAY if status is REVOKED else None
    why = x509.ReasonFlags.superseded if status is REVOKED else None
    builder = ocsp.OCSPResponseBuilder().add_response(
        made(about), made(issuer), digest(), status, NOW + starts, NOW + ends, when, why
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, made(signer))
    if signer is not issuer:
        builder = builder.certificates([made(signer)])
    signed = builder.sign(key(signer.key_name), hashes.SHA256())  # type: ignore[arg-type]
    return signed.public_bytes(serialization.Encoding.DER)


def forged(data: bytes) -> bytes:
    """The last byte of the signature is another."""
    return data[:-1] + bytes((data[-1] ^ 1,))


ANSWERS: dict[str, tuple[bytes, Code | None]] = {
    "good": (answer(), None),
    "good, named by SHA-256": (answer(digest=hashes.SHA256), None),
    "revoked": (answer(REVOKED), Code.REVOKED),
    "unknown": (answer(UNKNOWN), Code.REVOCATION_UNKNOWN),
    "of a responder": (answer(signer=DELEGATE), None),
    "revoked, of a responder": (answer(REVOKED, signer=DELEGATE), Code.REVOKED),
    "of one that is no responder": (answer(signer=NO_DELEGATE), USELESS),
    "of a responder of another CA": (answer(signer=STRANGER), USELESS),
    "of a responder that ended": (answer(signer=OLD_DELEGATE), USELESS),
    "forged": (forged(answer()), USELESS),
    "out of date": (answer(starts=-2 * DAY, ends=-DAY), USELESS),
    "of the future": (answer(starts=DAY, ends=2 * DAY), USELESS),
    "try later": (
        ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
        .public_bytes(serialization.Encoding.DER), USELESS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERS)
def test_answers(case: str) -> None:
    data, code = ANSWERS[case]
    assert asked(Revocation(ocsp=(data,))).verdict.codes == ({code} if code else set())


@pytest.mark.parametrize("case", [case for case in ANSWERS if case != "try later"])
def test_answers_as_openssl_sees_them(case: str, tmp_path: Path) -> None:
    data, code = ANSWERS[case]
    files = {"root": pem(ROOT), "inner": pem(INNER), "leaf": pem(LEAF), "answer": data}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    digest = ["-sha256"] if "SHA-256" in case else []
    done = subprocess.run(
        ["openssl", "ocsp", "-CAfile", tmp_path / "root", "-verify_other", tmp_path / "inner",
         "-issuer", tmp_path / "inner", *digest, "-cert", tmp_path / "leaf", "-respin",
         tmp_path / "answer"], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    said = done.stdout + done.stderr
    verified = "Response verify OK" in said and "WARNING: Status times invalid" not in said
    status = {None: ": good", Code.REVOKED: ": revoked", Code.REVOCATION_UNKNOWN: ": unknown"}
    assert verified is (code is not USELESS), said
    assert code is USELESS or status[code] in said


def test_an_answer_about_another_says_nothing() -> None:
    other = answer(about=leaf(INNER, serial=4712))
    assert asked(Revocation(ocsp=(other,), required=True)).verdict.codes == {
        Code.REVOCATION_UNKNOWN
    }


# Fetched


def test_what_certificates_point_to_is_asked_for() -> None:
    with serving() as server:
        responder = x509.UniformResourceIdentifier(server.uri("/ocsp"))
        method = AuthorityInformationAccessOID.OCSP
        access = x509.AuthorityInformationAccess([x509.AccessDescription(method, responder)])
        place = x509.UniformResourceIdentifier(server.uri("/inner.crl"))
        points = x509.CRLDistributionPoints([x509.DistributionPoint([place], None, None, None)])
        by_list = leaf(INNER, serial=4711, more=[(points, False)])
        by_both = leaf(INNER, serial=4711, more=[(points, False), (access, False)])
        server.file("/inner.crl", crl(4711))
        fetching = Revocation(fetch=HttpFetcher())
        assert asked(fetching, by_list).verdict.codes == {Code.REVOKED}
        # The responder has nothing to say, so the list is asked.
        assert asked(fetching, by_both).verdict.codes == {Code.REVOKED}
        request = next(r for r in server.requests if r.startswith(b"GET /ocsp/"))
        asked_for = request.split(b" ")[1].removeprefix(b"/ocsp/").decode()
        server.file(f"/ocsp/{asked_for}", answer(about=by_both))
        assert asked(fetching, by_both).verdict.ok
        sent = ocsp.load_der_ocsp_request(base64.b64decode(unquote(asked_for)))
        assert sent.serial_number == 4711
