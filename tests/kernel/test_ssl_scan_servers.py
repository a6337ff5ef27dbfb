"""Real servers of a dozen makes, scanned: what they were told to do is what is found.

Beside it stands what sslscan, sslyze and testssl.sh say of the same servers; where they say
otherwise the table below names it, with the reason. The long form asks all of them for all servers;
the short one asks sslyze for a dozen, and testssl.sh for the versions of one.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import scan_peers
from scan_servers import OPENSSL, Place, Server, every

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.clients import clients, replay
from hostler.core.ssl.scan.connect import Dialer, Endpoint, Limits
from hostler.core.ssl.scan.report import Report, as_dict, fingerprint
from hostler.core.ssl.scan.scan import Wanted, scan_all

SOAK = bool(os.environ.get("HOSTLER_SOAK"))
PATIENT = Limits(conversation_s=60.0, connect_s=60.0, scan_s=600.0)
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.soak,
    pytest.mark.timeout(3 * 3600 if SOAK else 600),
]

T10, T11, T12, T13 = "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"
# Label: versions, whose order decides in the newest, the grade, what it would be for everybody who
# trusts the CA, and the codes of the reasons apart from PRIVATE_CA.
EXPECTED: dict[str, tuple[str, str, str, str, str]] = {
    "nginx-good": (f"{T12} {T13}", "client", "T", "A+", ""),
    "nginx-modern": (T13, "client", "T", "A+", ""),
    "nginx-old": (
        *(f"{T10} {T11} {T12}", "server", "T", "F"),
        "TLS10 TLS11 NO_TLS13 NULL_CIPHER ANONYMOUS DH_UNDER_2048 SELF_SIGNED",
    ),
    "nginx-leaf": (
        *(T12, "", "B", "B"),
        "NO_TLS13 NO_AEAD NO_FORWARD_SECRECY INCOMPLETE_CHAIN",
    ),
    "apache-good": (f"{T12} {T13}", "server", "T", "A", ""),
    "apache-old": (
        *(f"{T10} {T11} {T12} {T13}", "client", "T", "B"),
        "TLS10 TLS11 KEY_UNDER_2048 DH_UNDER_2048",
    ),
    "lighttpd": (f"{T12} {T13}", "client", "T", "A", ""),
    "haproxy-good": (f"{T12} {T13}", "client", "T", "A+", ""),
    "haproxy-old": (
        *(f"{T10} {T11}", "server", "T", "F"),
        "TLS10 TLS11 NO_TLS12 ANONYMOUS NO_AEAD EXPIRED",
    ),
    "openssl-renegotiating": (T12, "server", "T", "A-", "NO_TLS13"),
    "openssl-client": (f"{T12} {T13}", "client", "T", "A", ""),
    "gnutls": (f"{T10} {T12} {T13}", "client", "T", "C", "TLS10 RC4"),
    "tlslite-ssl3": ("SSLv3", "server", "T", "C", "SSLV3 NO_TLS12 RC4 NO_AEAD"),
    "tlslite-rc4": (
        *(f"{T10} {T11} {T12}", "server", "T", "C"),
        "TLS10 TLS11 NO_TLS13 RC4 SMALL_BLOCKS",
    ),
    "slapd": (f"{T10} {T11} {T12} {T13}", "client", "T", "B", "TLS10 TLS11"),
    "vsftpd": (f"{T12} {T13}", "client", "T", "A", ""),
    "postgresql": (f"{T10} {T11} {T12} {T13}", "server", "T", "F", "TLS10 TLS11 ANONYMOUS"),
    "dovecot-imap": (f"{T12} {T13}", "server", "T", "A", ""),
    "dovecot-pop3": (f"{T12} {T13}", "server", "T", "A", ""),
    "dovecot-imaps": (f"{T12} {T13}", "server", "T", "A", ""),
    "postfix": (f"{T10} {T11} {T12} {T13}", "client", "T", "F", "TLS10 TLS11 ANONYMOUS"),
    "prosody": (f"{T12} {T13}", "client", "T", "A", ""),
}

# What takes a peer long without being another implementation; the soak has them all.
LONG = ("tlslite-rc4", "dovecot-pop3", "dovecot-imaps", "openssl-client")
# Those that sslyze and testssl.sh are asked for, which take seconds and minutes for each.
SSLYZES = tuple(
    label
    for label in EXPECTED
    if SOAK
    or label.startswith(("nginx", "apache", "lighttpd", "haproxy", "openssl-r", "gnutls"))
    or label in ("tlslite-ssl3", "slapd")
)
TESTSSLS = tuple(EXPECTED) if SOAK else ("nginx-good",)
COMPARED = "test_testssl_says_the_same"
# Peer, labels, a difference, why. Patterns are those of fnmatch.
EXPLAINED: tuple[tuple[str, str, str, str], ...] = (
    ("sslscan", "*", "secure_renegotiation: ours True, theirs False",
     "it asks by a hello of TLS 1.0 alone, and says no where that is refused; openssl says yes"),
    ("sslscan", "tlslite-ssl3", "SSLv3 only ours: *",
     "Debian's build has no SSL 3, and tells no suite of it; sslyze has them all"),
    ("sslscan", "slapd", "*only ours: *",
     "it sends StartTLS in a form that OpenLDAP does not take, and ends"),
    ("sslscan", "prosody", "*only ours: *",
     "it sends a stream without what RFC 6120 wants, and ends"),
    ("sslscan", "dovecot-*", "TLSv1.2 only ours: TLS_ECDHE_RSA_WITH_*",
     "Dovecot chooses DHE, has no field for it and breaks off; more would follow"),
    ("sslyze", "*", "group only ours: ffdhe*", "it does not ask for prime fields of TLS 1.3"),
    ("sslyze", "*", "TLSv1.2 only ours: TLS_DH_anon_WITH_CAMELLIA_*_CBC_SHA256",
     "its table has no anonymous suites of RFC 5932; sslscan has them"),
    ("sslyze", "slapd", "TLSv1.* only ours: TLS_DHE_RSA_WITH_*",
     "GnuTLS without parameters does DHE in fields that a client names, and it names none"),
    ("sslyze", "slapd", "group only ours: ffdhe*", "the same"),
    ("sslyze", "slapd", "renegotiation: ours True, theirs False",
     "it wants ten in a row, and slapd ends some connections before; one is enough to begin anew"),
    ("testssl", "haproxy-old", "secure_renegotiation: ours True, theirs False",
     "Debian's openssl, which it asks with, refuses TLS 1.1 and before; sslscan says yes"),
    ("testssl", "tlslite-ssl3", "secure_renegotiation: ours True, theirs False",
     "the same of SSL 3, which that openssl does not have; sslyze says yes"),
    ("testssl", "dovecot-*", "TLSv1.2 only ours: TLS_ECDHE_RSA_WITH_*",
     "Dovecot chooses DHE, has no field for it and breaks off; more would follow"),
    ("testssl", "slapd", "*only ours: *",
     "it has no StartTLS of LDAP of its own, says so and ends"),
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Place, dict[str, Server]]]:
    with every() as found:
        yield found


@pytest.fixture(scope="module")
def reports(world: tuple[Place, dict[str, Server]]) -> dict[str, Report]:
    """All servers, scanned at once: what one of them does must not disturb the others."""
    _place, servers = world

    async def scan() -> dict[str, Report]:
        labels = {endpoint(each): label for label, each in servers.items()}
        found: dict[str, Report] = {}
        wanted = Wanted(limits=PATIENT, names=("another.test",))
        async for report in scan_all(labels, wanted):
            found[labels[report.endpoint]] = report
        return found

    return asyncio.run(scan())


def endpoint(server: Server) -> Endpoint:
    return Endpoint("127.0.0.1", server.port, server.name, server.starttls)


def test_every_server_was_scanned(reports: dict[str, Report]) -> None:
    assert set(reports) == set(EXPECTED)
    assert len(EXPECTED) >= 12
    for label, report in reports.items():
        assert report.failure is None and report.problems == (), (label, report)
        assert as_dict(report)["grade"]["letter"] in ("T", "B")


@pytest.mark.parametrize("label", EXPECTED)
def test_what_was_configured_is_found(label: str, reports: dict[str, Report]) -> None:
    versions, order, letter, ignoring_trust, codes = EXPECTED[label]
    report = reports[label]
    supported = report.supported()
    assert sorted(words.version_name(each) for each in supported) == versions.split()
    assert supported[max(supported)].order == order
    assert report.grade is not None
    assert (report.grade.letter, report.grade.ignoring_trust) == (letter, ignoring_trust)
    found = [each.code for each in report.grade.reasons if each.code != "PRIVATE_CA"]
    assert found == codes.split()
    assert report.heartbleed in (False, None) and report.ccs_injection in (False, None)
    assert report.robot is None or report.robot.verdict == "sound"
    assert not report.compression


@pytest.mark.parametrize("label", EXPECTED)
def test_the_chain_is_handed_on_as_it_is_served(
    label: str, world: tuple[Place, dict[str, Server]], reports: dict[str, Report]
) -> None:
    at, _servers = world
    files = {
        "nginx-modern": ["ec"], "nginx-good": ["rsa", "ec"], "nginx-old": ["lone"],
        "nginx-leaf": ["rsa.leaf"], "apache-good": ["ec"], "apache-old": ["weak"],
        "haproxy-good": ["ec"], "haproxy-old": ["old"], "openssl-client": ["ec"],
    }.get(label, ["rsa"])  # fmt: skip
    wanted = {
        tuple(
            ssl.PEM_cert_to_DER_cert(f"{each.strip()}\n-----END CERTIFICATE-----\n")
            for each in Path(at.pki[f"{name}.pem"]).read_text().split("-----END CERTIFICATE-----")
            if each.strip()
        )
        for name in files
    }
    served = reports[label].certificates
    assert served is not None
    assert {each.chain for each in served} == wanted


def test_names_get_the_certificates_of_their_hosts(reports: dict[str, Report]) -> None:
    names = {each.name: each for each in reports["nginx-good"].names or ()}
    assert set(names) == {"", "localhost", "another.test"}
    assert names["another.test"].chain[0] != names["localhost"].chain[0]
    assert names[""].chain == names["localhost"].chain
    assert fingerprint(names[""].chain[0]) != fingerprint(names["another.test"].chain[0])


def test_protocols_inside_and_headers(reports: dict[str, Report]) -> None:
    good, haproxy = reports["nginx-good"], reports["haproxy-good"]
    assert good.alpn is not None and good.alpn.protocols[:2] == ("h2", "http/1.1")
    assert haproxy.alpn is not None and haproxy.alpn.protocols == ("h2", "http/1.1")
    assert reports["openssl-client"].alpn is not None
    assert reports["openssl-client"].alpn.protocols == ()
    assert good.http is not None and good.http.server.startswith("nginx/")
    assert good.http.max_age_s == 31536000 and good.http.include_subdomains
    assert haproxy.http is not None and haproxy.http.preload
    assert reports["apache-good"].http is not None
    assert reports["apache-good"].http.max_age_s == 100
    assert reports["nginx-leaf"].http is not None
    assert reports["nginx-leaf"].http.max_age_s is None
    # An IMAP server greets, and a mail server behind STARTTLS is not asked.
    assert reports["dovecot-imaps"].http is None and reports["postfix"].http is None


def test_sessions_and_renegotiation(reports: dict[str, Report]) -> None:
    for label, by_id, by_ticket, by_tls13 in (
        ("nginx-good", True, True, True),
        ("nginx-modern", None, None, False),
        ("haproxy-good", True, False, True),
        ("openssl-client", True, True, True),
    ):
        found = reports[label].resumption
        assert found is not None
        assert (found.by_id, found.by_ticket, found.by_tls13) == (by_id, by_ticket, by_tls13), label
    renegotiating = {label for label, each in reports.items() if each.renegotiation}
    # GnuTLS leaves it to programs whether they begin anew, and these do.
    assert renegotiating == {"openssl-renegotiating", "gnutls", "slapd"}


def test_groups_and_fields(reports: dict[str, Report]) -> None:
    for label, bits in (("nginx-old", 1024), ("apache-old", 1024), ("nginx-good", None)):
        groups = reports[label].groups
        assert groups is not None and groups.dh_bits == bits, label
    groups = reports["nginx-good"].groups
    assert groups is not None and set(groups.ecdhe) == {23, 24, 25, 29, 30}


def test_who_wants_a_certificate(reports: dict[str, Report]) -> None:
    wanting = {
        label
        for label, report in reports.items()
        if any(each.wants_certificate for each in report.certificates or ())
    }
    assert wanting == {"nginx-modern", "gnutls", "vsftpd"}


@pytest.mark.parametrize(
    "label", ["nginx-good", "nginx-old", "apache-old", "haproxy-old", "lighttpd", "postfix"]
)
async def test_what_clients_would_get_is_what_they_get(
    label: str, world: tuple[Place, dict[str, Server]], reports: dict[str, Report]
) -> None:
    """What was told from the scan, beside the clients' own hellos said to the server."""
    dialer = Dialer(endpoint(world[1][label]), PATIENT)
    told = {each.client: each for each in reports[label].clients or ()}
    assert len(told) == len(clients()) >= 10
    for client in clients():
        got = await replay(dialer, client)
        mine = told[client.name]
        assert bool(mine.refusal) == bool(got.refusal), (client.name, mine, got)
        if not got.refusal:
            assert (mine.version, mine.suite) == (got.version, got.suite), client.name


@pytest.mark.parametrize("label", [each for each in EXPECTED if SOAK or each not in LONG])
def test_sslscan_says_the_same(
    label: str, world: tuple[Place, dict[str, Server]], reports: dict[str, Report]
) -> None:
    compare("sslscan", label, scan_peers.sslscan(world[1][label]), reports[label])


@pytest.fixture(scope="module")
def by_sslyze(world: tuple[Place, dict[str, Server]]) -> dict[str, scan_peers.Found]:
    """What sslyze says, of all servers of a protocol in one run."""
    runs: dict[tuple[str, bool], list[Server]] = {}
    for label, server in world[1].items():
        if label in SSLYZES:
            # openssl's server has one connection at a time: what comes beside it times out, and
            # sslyze takes that for an answer.
            runs.setdefault((server.starttls, label.startswith("openssl")), []).append(server)
    told: dict[str, scan_peers.Found] = {}
    for (_, takes_one), servers in runs.items():
        told |= scan_peers.sslyze(servers, slowly=takes_one)
    return told


@pytest.mark.parametrize("label", SSLYZES)
def test_sslyze_says_the_same(
    label: str,
    world: tuple[Place, dict[str, Server]],
    reports: dict[str, Report],
    by_sslyze: dict[str, scan_peers.Found],
) -> None:
    told, report = by_sslyze[label], reports[label]
    for _ in range(2):
        if not unexplained("sslyze", label, told, report):
            break
        # It takes a time-out for an answer, and on a busy machine there are some: what it says of
        # the server alone, again and again, is what counts.
        told = scan_peers.sslyze([world[1][label]], slowly=True)[label]
    compare("sslyze", label, told, report)


@pytest.fixture(scope="module")
def by_testssl(
    world: tuple[Place, dict[str, Server]], request: pytest.FixtureRequest
) -> dict[str, scan_peers.Found]:
    """What testssl.sh says, of as many servers at once as there are cores: it is slow by itself.

    Of those alone that this run compares: all of them take it the better part of an hour.
    """
    checks = scan_peers.TESTSSL_CHECKS if SOAK else ("-p",)
    wanted = {
        item.callspec.params["label"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == COMPARED
    }
    labels = [label for label in TESTSSLS if label in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        told = pool.map(lambda label: scan_peers.testssl(world[1][label], checks), labels)
        return dict(zip(labels, told, strict=True))


@pytest.mark.parametrize("label", TESTSSLS)
def test_testssl_says_the_same(
    label: str, reports: dict[str, Report], by_testssl: dict[str, scan_peers.Found]
) -> None:
    theirs = by_testssl[label]
    if SOAK:
        compare("testssl", label, theirs, reports[label])
    else:
        assert theirs.versions == {words.version_name(each) for each in reports[label].supported()}


def explained_for(peer: str, label: str) -> list[str]:
    """The patterns of what a peer is known to say otherwise of a server, each with its reason."""
    return [row[2] for row in EXPLAINED if row[0] == peer and fnmatchcase(label, row[1])]


def unexplained(peer: str, label: str, theirs: scan_peers.Found, report: Report) -> set[str]:
    known = explained_for(peer, label)
    found = scan_peers.differences(scan_peers.of_report(report), theirs)
    return {each for each in found if not any(fnmatchcase(each, one) for one in known)}


def compare(peer: str, label: str, theirs: scan_peers.Found, report: Report) -> None:
    assert unexplained(peer, label, theirs, report) == set(), f"{peer} says otherwise of {label}"
    if not any("only ours: *" in one for one in explained_for(peer, label)):
        assert set(theirs.suites) == {words.version_name(each) for each in report.supported()}


def test_openssl_settles_what_sslscan_denies(world: tuple[Place, dict[str, Server]]) -> None:
    for label in ("nginx-good", "nginx-leaf", "haproxy-good"):
        argv = [OPENSSL, "s_client", "-connect", f"127.0.0.1:{world[1][label].port}", "-tls1_2"]
        said = subprocess.run(
            argv, input="", capture_output=True, text=True, timeout=120, check=False
        )
        assert re.search(r"Secure Renegotiation IS supported", said.stdout), label
