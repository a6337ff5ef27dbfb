"""What is wrong with certificates, keys, sites and endpoints, and what a selection picks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.ssl.model.cgroup import container_of, unit_of
from hostlerd.ssl.model.inventory import Certificate, Facts, Key, Place, Served, Severity, Use
from hostlerd.ssl.model.library import has_code, has_tls_code, version_in, without_deleted
from hostlerd.ssl.model.place import Fault, FileFound, KeyFound, Listener
from hostlerd.ssl.model.site import Parsed, Reference, Role, Site
from hostlerd.ssl.plan import findings
from hostlerd.ssl.plan.endpoints import endpoints, judge, port_of
from hostlerd.ssl.plan.inventory import Wanted, build, select

NOW = datetime(2026, 11, 27, tzinfo=UTC)
DAY = timedelta(days=1)
ROOT = Place("/x/a.pem", 0, "pem", "root", "root", 0o600, 0)
USE = Use("nginx", "/n", 1, "ssl_certificate", (), ())


def facts(name: str = "a", **more: object) -> Facts:
    usual: dict[str, object] = {
        "fingerprint": name * 8,
        "subject": f"CN={name}",
        "issuer": "CN=ca",
        "subject_key": name.encode(),
        "issuer_key": b"ca",
        "serial": "1",
        "not_before": NOW - 60 * DAY,
        "not_after": NOW + 300 * DAY,
        "names": (("dns", f"{name}.test"), ("ip", "192.0.2.1")),
        "key": KeyFound("ec", 256, "secp256r1", name * 4, encrypted=False),
        "signature_algorithm": "ecdsa-with-SHA256",
        "weak_signature": "",
        "authority": False,
        "self_signed": False,
        "faults": (),
        "der": name.encode(),
    }
    return Facts(**{**usual, **more})  # type: ignore[arg-type]


def codes(one: Facts, *, trusted: bool = False, used: bool = False, mode: int = 0o644) -> set[str]:
    place = replace(ROOT, mode=mode)
    made = Certificate(one, trusted, [place], [USE] if used else [])
    return {each.code for each in findings.of_certificate(made, NOW)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"not_after": NOW - DAY}, {"EXPIRED"}),
        ({"not_before": NOW + DAY}, {"NOT_YET_VALID"}),
        ({"not_after": NOW + 20 * DAY}, {"EXPIRES_SOON"}),
        # A life of six days is renewed at two days before its end, not 30.
        ({"not_before": NOW - DAY, "not_after": NOW + 5 * DAY}, set()),
        ({"not_before": NOW - 5 * DAY, "not_after": NOW + DAY}, {"EXPIRES_SOON"}),
        ({"weak_signature": "sha1"}, {"WEAK_SIGNATURE"}),
        ({"weak_signature": "sha1", "self_signed": True}, set()),
        ({"faults": ("odd",)}, {"MALFORMED"}),
        ({"key": KeyFound("rsa", 1024, "", "k", False, ("small",))}, {"WEAK_KEY"}),
    ],
)
def test_certificates(changes: dict[str, object], expected: set[str]) -> None:
    assert codes(facts(**changes)) == expected


def test_certificates_that_are_used_or_open() -> None:
    assert codes(facts(self_signed=True), used=True) == {"SELF_SIGNED"}
    assert codes(facts(), mode=0o666) == {"FILE_WORLD_WRITABLE"}
    gone = Certificate(facts(not_after=NOW - DAY), True, [ROOT])
    assert [f.severity for f in findings.of_certificate(gone, NOW)] == [Severity.NOTE]


@pytest.mark.parametrize(
    ("mode", "owner", "expected"),
    [
        (0o600, "root", set()),
        (0o640, "root", set()),
        (0o644, "root", {"KEY_WORLD_READABLE"}),
        (0o660, "root", {"KEY_GROUP_WRITABLE"}),
        (0o602, "root", {"FILE_WORLD_WRITABLE"}),
        (0o600, "alice", {"KEY_OWNER"}),
    ],
)
def test_keys(mode: int, owner: str, expected: set[str]) -> None:
    key = Key(KeyFound("ec", 256, "secp256r1", "k", False), [replace(ROOT, mode=mode, owner=owner)])
    assert {each.code for each in findings.of_key(key, ["CN=a"])} == expected


def test_weak_and_shared_keys() -> None:
    key = Key(KeyFound("rsa", 1024, "", "k", False, ("small",)), [ROOT, ROOT])
    assert [each.code for each in findings.of_key(key, ["CN=a", "CN=b"])] == [
        "WEAK_KEY",
        "KEY_SHARED",
    ]
    assert Key(KeyFound("unknown", 0, "", "", True), [ROOT]).order == "~/x/a.pem"


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("a.test", "A.test.", True),
        ("*.a.test", "x.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "x.y.a.test", False),
        ("*.a.test", "*.a.test", True),
        ("*.test", "*.a.test", False),
        ("a.test", "*.test", False),
        ("a.test", ".a.test", True),
    ],
)
def test_names(pattern: str, name: str, covered: bool) -> None:
    assert findings.covers(pattern, name) is covered


def file(
    path: str, *ders: bytes, keys: tuple[KeyFound, ...] = (), trusted: bool = False
) -> FileFound:
    return FileFound((path,), "pem", "root", "root", 0o600, 0, trusted, ders, keys)


def site(*references: tuple[Role, str], names: tuple[str, ...] = (), **more: object) -> Site:
    made = tuple(Reference(role, name, role.value, "/n", 1) for role, name in references)
    return Site("nginx", names, ("*:443",), made, **more)  # type: ignore[arg-type]


A, B, CA = facts("a"), facts("b"), facts("ca", subject_key=b"ca", authority=True)
KNOWN = {each.der: each for each in (A, B, CA)}
KEY_A = KeyFound("ec", 256, "secp256r1", "aaaa", encrypted=False)


def test_a_site_is_put_together_from_its_files() -> None:
    files = [file("/a", A.der, CA.der), file("/k", keys=(KEY_A,)), file("/odd", b"odd")]
    one = site((Role.CERTIFICATE, "/a"), (Role.KEY, "/k"), names=("a.test",), default=True)
    made = build(files, [one], KNOWN, NOW)
    ((_, order, wrong),) = made.sites
    assert (order, wrong) == ([A.fingerprint, CA.fingerprint], [])
    assert made.certificates[A.fingerprint].uses[0].server == "nginx"
    assert made.certificates[A.fingerprint].key_places[0].path == "/k"
    assert made.keys["aaaa"].certificates == [A.fingerprint]
    assert [(each.path, each.reason) for each in made.unreadable] == [
        ("/odd", "CERTIFICATE_MALFORMED")
    ]


def test_what_does_not_fit_is_told() -> None:
    files = [file("/b", B.der), file("/k", keys=(KEY_A,)), file("/c", CA.der)]
    wrong_key = site(
        (Role.CERTIFICATE, "/b"),
        (Role.KEY, "/k"),
        (Role.PASSPHRASE, "/p"),
        names=("b.test", "z.test", "~x"),
    )
    gone = site((Role.BOTH, "/gone"), (Role.AUTHORITY, "/c"))
    made = build(files, [wrong_key, gone], KNOWN, NOW)
    told = [{each.code for each in wrong} for _, _, wrong in made.sites]
    assert told == [{"KEY_MISMATCH", "NAME_NOT_COVERED", "CHAIN_INCOMPLETE"}, {"FILE_MISSING"}]
    assert "KEY_MISMATCH" in {f.code for f in made.certificates[B.fingerprint].findings}
    locked = file("/k", keys=(KeyFound("unknown", 0, "", "", encrypted=True),))
    made = build([files[0], locked], [wrong_key], KNOWN, NOW)
    assert "KEY_MISMATCH" not in {each.code for each in made.sites[0][2]}


def test_a_chain_file_and_a_root_of_the_host_complete_a_chain() -> None:
    root = facts("ca", subject_key=b"ca", self_signed=True, authority=True)
    known = {**KNOWN, root.der: root}
    leaf = site((Role.CERTIFICATE, "/a"))
    made = build(
        [file("/a", A.der), file("/usr/share/ca", root.der, trusted=True)], [leaf], known, NOW
    )
    assert made.sites[0][2] == []
    with_chain = site((Role.CERTIFICATE, "/a"), (Role.CHAIN, "/c"))
    made = build([file("/a", A.der), file("/c", CA.der)], [with_chain], known, NOW)
    assert made.sites[0][2] == []
    assert made.sites[0][1] == [A.fingerprint, CA.fingerprint]


def test_a_selection_picks_what_is_asked_for() -> None:
    soon = facts("s", not_after=NOW + 5 * DAY)
    known = {**KNOWN, soon.der: soon}
    files = [file("/a", A.der), file("/s", soon.der), file("/t", CA.der, trusted=True)]
    broken = FileFound(("/f",), "", "root", "root", 0o600, 0, False, faults=(Fault("X", "y"),))
    made = build([*files, broken], [site((Role.CERTIFICATE, "/a"))], known, NOW)

    def picked(**wanted: object) -> list[str]:
        return [c.facts.subject for c in select(made, Wanted(**wanted), NOW)]  # type: ignore[arg-type]

    assert picked() == ["CN=s", "CN=a"]
    assert picked(trust_stores=True) == ["CN=s", "CN=a", "CN=ca"]
    assert picked(expires_within=30 * DAY) == ["CN=s"]
    assert picked(name="a.test") == ["CN=a"]
    assert picked(spki_sha256="AAAA") == ["CN=a"]
    assert picked(severity=2) == ["CN=s", "CN=a"]
    assert picked(severity=3) == []
    assert picked(in_use=True) == ["CN=a"]
    assert [each.path for each in made.unreadable] == ["/f"]


def test_endpoints_are_names_at_sockets() -> None:
    one = site((Role.BOTH, "/a"), names=("a.test",), default=True)
    other = site((Role.BOTH, "/b"), by_certificate=True)
    made = build([file("/a", A.der), file("/b", B.der)], [one, other], KNOWN, NOW)
    listening = [
        Listener("[::]:443", 7, "nginx", "nginx.service", "nginx"),
        Listener("*:25", 8, "x", "", ""),
    ]
    found = {(each.listener, each.name): each for each in endpoints(made, listening)}
    assert found.keys() == {("*:443", ""), ("*:443", "a.test"), ("*:443", "b.test"), ("*:25", "")}
    assert found["*:443", "a.test"].unit == "nginx.service"
    assert found["*:443", "b.test"].leaves == (B.fingerprint,)
    assert (found["*:25", ""].starttls, found["*:25", ""].uses) == ("smtp", ())
    nobody = {e.name: e for e in endpoints(made, [])}["a.test"]
    assert (nobody.listens, nobody.findings[-1].code) == (False, "NOT_LISTENING")
    endpoint = found["*:443", "a.test"]
    before = len(endpoint.findings)
    judge(endpoint, Served(negotiated="x"), [A.fingerprint])
    assert len(endpoint.findings) == before
    judge(endpoint, Served(negotiated="x"), [B.fingerprint])
    assert endpoint.findings[-1].code == "NOT_THE_FILE"
    judge(endpoint, Served(problem="gone"), [])
    assert endpoint.findings[-1].code == "HANDSHAKE_FAILED"
    judge(found["*:25", ""], Served(problem="gone"), [])
    assert found["*:25", ""].findings[-1].code == "NO_TLS"
    assert (port_of("*:99"), port_of("x:y"), port_of("*:123456")) == (99, 0, 0)


def test_what_programs_say_of_themselves() -> None:
    assert version_in(b"..OpenSSL 3.0.17 1 Jul 2025\0") == ("openssl", "3.0.17")
    assert version_in(b"..OpenSSL 1.0.2k-fips  26 Jan 2017\0") == ("openssl", "1.0.2k")
    assert version_in(b"GnuTLS 3.7.9\0") == ("gnutls", "3.7.9")
    assert version_in(b"uses OpenSSL for this, OpenSSL 3 and BoringSSL") == ("boringssl", "")
    assert version_in(b"nothing") == ("", "")
    assert (has_code(b"crypto/evp/x.c"), has_code(b"x")) == (True, False)
    assert (has_tls_code(b"ssl/statem/x.c"), has_tls_code(b"x")) == (True, False)
    assert without_deleted("/a (deleted)") == ("/a", True)
    assert without_deleted("/a") == ("/a", False)


@given(st.binary())
def test_a_version_is_found_in_any_bytes_or_none(data: bytes) -> None:
    assert version_in(data + b"\0OpenSSL 3.5.1 1 Jul 2025") in {
        ("openssl", "3.5.1"),
        version_in(data),
    }


def test_control_groups() -> None:
    identity = "0123456789ab" + "c" * 52
    assert unit_of("/system.slice/nginx.service") == "nginx.service"
    assert unit_of("/") == ""
    assert container_of(f"/system.slice/docker-{identity}.scope") == "0123456789ab"
    assert container_of("/machine.slice/systemd-nspawn@web.service/payload") == "web"
    assert container_of("/user.slice") == ""


def test_notes_are_bounded() -> None:
    parsed = Parsed()
    for number in range(200):
        parsed.note("X", "y", str(number))
    assert len(parsed.unseen) == 100
