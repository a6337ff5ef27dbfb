"""Chains as they are served: what is wrong, which clients fail, and what is written instead."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import verdict_graphs
from certificates import DAY, NOW, Spec, ca, der, key, leaf, name_of, pem
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from http_files import Server, serving
from verdict_witnesses import openssl_accepts

from hostler.cli.main import cli
from hostler.core.ssl import chain, chain_file
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.clients import Client, first_fit
from hostler.core.ssl.handshake import HandshakeFailed, served_chain
from hostler.core.ssl.host_name import WantedName
from hostler.core.ssl.paths import Rules
from hostler.core.ssl.profile import Profile
from hostler.core.ssl.reading import read_contents
from hostler.core.ssl.served import ServedCode, leaf_of
from hostler.core.ssl.verdict import Code

ROOT = ca("Chain Root")
UPPER = ca("Chain Upper", ROOT)
LOWER = ca("Chain Lower", UPPER)
LEAF = leaf(LOWER)
OLD = ca("Chain Old", ends=-DAY / 2)
CROSS = ca("Chain Root", OLD)
RULES = Rules(NOW, name=WantedName.parse("www.example.com"))
# OpenSSL has another limit of depth, and takes SHA-1 at the level of this version.
_OTHER_RULES = re.compile(r"graph/11 inner CAs|graph/branch signed with sha1")


def read(*specs: Spec) -> list[Certificate]:
    return [Certificate.read(der(spec), f"served {n}") for n, spec in enumerate(specs, 1)]


def reported(*specs: Spec, roots: Sequence[Spec] = (ROOT,)) -> chain.ChainReport:
    served = read(*specs)
    return chain.report(served, leaf_of(served), read(*roots), RULES)


def faults(report: chain.ChainReport) -> list[tuple[ServedCode, bytes]]:
    return [(fault.code, fault.certificate.data) for fault in report.faults]


def failing(report: chain.ChainReport) -> set[Client]:
    return {outcome.client for outcome in report.clients if not outcome.ok}


def test_a_chain_as_it_should_be() -> None:
    report = reported(LEAF, LOWER, UPPER)
    assert report.ok
    assert (report.faults, failing(report)) == ((), set())
    assert [c.data for c in report.to_serve] == [der(LEAF), der(LOWER), der(UPPER)]


@pytest.mark.parametrize(
    ("served", "want", "fail"),
    [
        ((LEAF, LOWER, UPPER, ROOT), [(ServedCode.ROOT_SERVED, ROOT)], set()),
        ((LEAF, UPPER, LOWER), [(ServedCode.OUT_OF_ORDER, LOWER)], {Client.IN_ORDER}),
        ((LEAF, LEAF, LOWER, UPPER), [(ServedCode.LEAF_DUPLICATED, LEAF)], {Client.IN_ORDER}),
        ((LEAF, LOWER, LOWER, UPPER), [(ServedCode.DUPLICATED, LOWER)], {Client.IN_ORDER}),
        ((LOWER, UPPER, LEAF), [(ServedCode.LEAF_NOT_FIRST, LEAF),
                                (ServedCode.OUT_OF_ORDER, LEAF)], set()),
        ((LEAF, LOWER, UPPER, CROSS), [(ServedCode.SUPERFLUOUS, CROSS)], {Client.IN_ORDER}),
        ((LEAF, LOWER, UPPER, OLD), [(ServedCode.EXPIRED, OLD), (ServedCode.SUPERFLUOUS, OLD)],
         {Client.IN_ORDER}),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_serving_is_named(
    served: Sequence[Spec], want: list[tuple[ServedCode, Spec]], fail: set[Client]
) -> None:
    report = reported(*served)
    assert report.judged.verdict.ok
    assert faults(report) == [(code, der(spec)) for code, spec in want]
    assert failing(report) == fail
    assert [c.data for c in report.to_serve] == [der(LEAF), der(LOWER), der(UPPER)]


def test_the_leaf_of_a_file_is_the_one_of_its_key() -> None:
    other = leaf(LOWER, key="another leaf")
    served = read(other, LEAF, LOWER)
    assert leaf_of(served).data == der(other)
    assert leaf_of(served, frozenset({served[1].spki_sha256})).data == der(LEAF)


GRAPHS = [case for case in verdict_graphs.cases() if not _OTHER_RULES.match(case.id)]


def test_the_client_that_does_not_backtrack_is_openssl(tmp_path: Path) -> None:
    """What is said of such clients is what openssl verify really does, on every graph."""
    wrong, failed = [], 0
    for case in GRAPHS:
        rules = Rules(NOW, case.usage, None, Profile.PRIVATE, case.max_depth)
        said = first_fit(*read(case.leaf), read(*case.given), read(*case.roots), rules)
        if said.ok is not openssl_accepts(case, tmp_path):
            wrong.append((case.id, said.ok, [str(reason) for reason in said.reasons]))
        failed += case.code is None and not said.ok
        assert said.ok or said.reasons
    assert wrong == []
    # Chains that are good and on which such a client fails: the evidence is not vacuous.
    assert failed > 10


# Writing


def test_a_chain_is_put_in_place_of_a_file_that_keeps_its_owner_and_mode(tmp_path: Path) -> None:
    path, link = tmp_path / "chain.pem", tmp_path / "link.pem"
    path.write_text("old")
    path.chmod(0o640)
    os.chown(path, 12, 34)
    link.symlink_to(path.name)
    chain_file.write_chain(link, read(LEAF, LOWER))
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (12, 34, 0o640)
    assert link.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chain.pem", "link.pem"]
    printed = subprocess.run(
        ["openssl", "crl2pkcs7", "-nocrl", "-certfile", path],
        capture_output=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert [c.data for c in read_contents(printed, "f").certificates] == [der(LEAF), der(LOWER)]


def test_a_chain_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "chain.pem"
    path.write_text("old")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from hostler.core.ssl import chain_file\n"
        "from hostler.core.ssl.reading import read_contents\n"
        "found = read_contents(Path(sys.argv[2]).read_bytes(), 'f').certificates\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: chain_file.write_chain(Path(sys.argv[1]), found)\n"
        "except chain_file.ChainNotWritten as error: print(error)\n"
    )
    given = tmp_path / "given.pem"
    given.write_bytes(pem(LEAF, LOWER))
    said = subprocess.run(
        [sys.executable, "-c", code, path, given], capture_output=True, text=True, timeout=60
    )
    assert "File too large" in said.stdout, said.stderr
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chain.pem", "given.pem"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(chain_file.ChainNotWritten, match="is no file"):
        chain_file.write_chain(tmp_path / "folder", read(LEAF))


def test_a_subject_cannot_break_out_of_its_line() -> None:
    hostile = ca("x\n-----BEGIN CERTIFICATE-----\ny")
    text = chain_file.chain_text(read(hostile))
    assert text.count(b"-----BEGIN") == 1
    assert [c.data for c in read_contents(text, "f").certificates] == [der(hostile)]


# The command, against real servers


@pytest.fixture
def web() -> Iterator[Server]:
    with serving() as server:
        yield server


@contextmanager
def s_server(tmp_path: Path, certificate: bytes, chain_pem: bytes = b"") -> Iterator[int]:
    """A real server of OpenSSL on loopback; answers its port."""
    files = {"cert": certificate, "chain": chain_pem, "key": key("leaf").private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())}  # fmt: skip
    for name, data in files.items():
        (tmp_path / f"server.{name}").write_bytes(data)
    more = ["-cert_chain", str(tmp_path / "server.chain")] if chain_pem else []
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", tmp_path / "server.cert", "-key",
         tmp_path / "server.key", "-www", *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = next(line for line in server.stdout if line.startswith("ACCEPT"))
        yield int(line.rsplit(":", 1)[1])
    finally:
        server.kill()
        server.wait(30)


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_an_incomplete_chain_is_found_completed_and_accepted(tmp_path: Path, web: Server) -> None:
    web.file("/lower.der", der(LOWER))
    web.file("/upper.der", der(UPPER))
    lower = ca("Chain Lower", UPPER, aia=[web.uri("/upper.der")])
    web.file("/lower.der", der(lower))
    bottom = leaf(lower, aia=[web.uri("/lower.der")])
    roots, out = tmp_path / "roots.pem", tmp_path / "out.pem"
    roots.write_bytes(pem(ROOT))
    with s_server(tmp_path, pem(bottom)) as port:
        target = f"127.0.0.1:{port}"
        args = ("ssl", "chain", target, "--roots", roots, "--name", "www.example.com")
        found = run("-o", "json", *args)
        assert found.exit_code == 1
        told = json.loads(found.stdout)
        assert told["verdict"] == {"ok": True, "reasons": [], "warnings": []}
        assert [f["code"] for f in told["served_faults"]] == ["MISSING", "MISSING"]
        clients = {c["client"]: c["ok"] for c in told["clients"]}
        assert clients == {"fetching": True, "store-only": False, "non-backtracking": False,
                           "in-order": False}  # fmt: skip
        alone = run("-o", "json", *args, "--no-fetch")
        codes = {r["code"] for r in json.loads(alone.stdout)["verdict"]["reasons"]}
        assert (alone.exit_code, codes) == (1, {Code.ISSUER_NOT_FOUND})
        assert not s_client(target, roots)
        written = run(*args, "--write", out)
        assert written.exit_code == 0, written.output
    assert [c.data for c in read_contents(out.read_bytes(), "f").certificates] == [
        der(bottom), der(lower), der(UPPER)
    ]  # fmt: skip
    with s_server(tmp_path, pem(bottom), out.read_bytes()) as port:
        assert s_client(f"127.0.0.1:{port}", roots)


def s_client(target: str, roots: Path) -> bool:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", target, "-CAfile", roots, "-no-CApath", "-no-CAstore",
         "-verify_return_error", "-verify_hostname", "www.example.com", "-servername", "x"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    return done.returncode == 0


def test_the_table_names_what_is_wrong(tmp_path: Path) -> None:
    roots, path = tmp_path / "roots.pem", tmp_path / "chain.pem"
    roots.write_bytes(pem(ROOT))
    path.write_bytes(pem(LEAF, UPPER, LOWER, OLD))
    found = run("ssl", "chain", path, "--roots", roots, "--name", "www.example.com")
    assert found.exit_code == 1
    assert found.stdout.startswith("good\n")
    assert re.search(rf"OUT_OF_ORDER: CN=Chain Lower \[{path}:\d+\]", found.stdout)
    assert re.search(r"EXPIRED: CN=Chain Old .*: it ended ", found.stdout)
    assert re.search(r"^in-order +fails +ISSUER_NOT_FOUND", found.stdout, re.MULTILINE)
    wrong = run("ssl", "chain", path, "--roots", roots, "--name", "example.org")
    assert wrong.exit_code == 1
    assert "NAME_MISMATCH: CN=leaf" in wrong.stdout
    assert "not for 'example.org'" in wrong.stdout


def test_what_was_revoked_is_refused_by_a_list_that_is_given_or_fetched(
    tmp_path: Path, web: Server
) -> None:
    place = x509.UniformResourceIdentifier(web.uri("/lower.crl"))
    points = x509.CRLDistributionPoints([x509.DistributionPoint([place], None, None, None)])
    bottom = leaf(LOWER, serial=99, more=[(points, False)])
    entry = x509.RevokedCertificateBuilder().serial_number(99).revocation_date(NOW).build()
    listed = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name_of("Chain Lower"))
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
        .add_revoked_certificate(entry)
        .sign(key("Chain Lower"), hashes.SHA256())  # type: ignore[arg-type]
    )
    web.file("/lower.crl", listed.public_bytes(Encoding.DER))
    files = {"roots": pem(ROOT), "chain": pem(bottom, LOWER, UPPER),
             "crl": listed.public_bytes(Encoding.PEM)}  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    args = ("-o", "json", "ssl", "chain", tmp_path / "chain", "--roots", tmp_path / "roots")
    assert run(*args).exit_code == 0
    for more in (["--crl", tmp_path / "crl", "--no-fetch"], ["--revocation", "ask"]):
        found = run(*args, *more)
        codes = [r["code"] for r in json.loads(found.stdout)["verdict"]["reasons"]]
        assert (found.exit_code, codes) == (1, ["REVOKED"])
    insisting = run(*args, "--revocation", "require", "--no-fetch")
    codes = {r["code"] for r in json.loads(insisting.stdout)["verdict"]["reasons"]}
    assert codes == {"REVOCATION_UNKNOWN"}


def test_intermediates_that_are_at_hand_are_not_known_to_clients(tmp_path: Path) -> None:
    for name, data in {"roots": pem(ROOT), "leaf": pem(LEAF), "more": pem(UPPER, LOWER)}.items():
        (tmp_path / name).write_bytes(data)
    args = ("-o", "json", "ssl", "chain", tmp_path / "leaf", "--roots", tmp_path / "roots")
    found = run(*args, "--intermediates", tmp_path / "more")
    told = json.loads(found.stdout)
    assert (found.exit_code, told["verdict"]["ok"]) == (1, True)
    assert [f["code"] for f in told["served_faults"]] == ["MISSING", "MISSING"]
    assert {c["client"] for c in told["clients"] if not c["ok"]} == {
        "store-only", "non-backtracking", "in-order"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-H", "all", "ssl", "chain", "www.example.com:443"), "with --send"),
        (("-H", "all", "ssl", "chain", "web", "--revocation", "ask"), "without -H"),
        (("-H", "all", "ssl", "chain", "leaf.pem", "--send", "--write"), "give the FILE there"),
        (("ssl", "chain", "leaf.pem", "--send"), "give -H"),
        (("ssl", "chain", "127.0.0.1:1", "--write"), ""),
    ],
)
def test_what_is_of_hosts_and_what_is_not(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("leaf.pem").write_bytes(pem(LEAF))
    found = run(*words)
    assert found.exit_code == (2 if told else 1)
    assert told in found.output


def test_a_chain_is_written_where_it_came_from_and_over_no_key(tmp_path: Path) -> None:
    roots, path = tmp_path / "roots.pem", tmp_path / "served.pem"
    roots.write_bytes(pem(ROOT))
    path.write_bytes(pem(LOWER, UPPER, LEAF))
    asked = ("--yes", "ssl", "chain", path, "--roots", roots, "--write")
    assert run(*asked).exit_code == 0
    assert [c.label for c in read_contents(path.read_bytes(), "").certificates] == [
        c.label for c in read_contents(pem(LEAF, LOWER, UPPER), "").certificates
    ]
    private = key("leaf").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem(LEAF, UPPER, LOWER) + private)
    refused = run(*asked)
    assert refused.exit_code == 1 and "holds a private key" in refused.output
    assert path.read_bytes() == pem(LEAF, UPPER, LOWER) + private


def test_a_key_of_no_certificate_is_named(tmp_path: Path) -> None:
    roots, path = tmp_path / "roots.pem", tmp_path / "both.pem"
    roots.write_bytes(pem(ROOT))
    for name, words in (("leaf", ""), ("another", "is that of no certificate here")):
        private = key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(pem(LOWER, UPPER, LEAF) + private)
        found = run("-o", "json", "ssl", "chain", path, "--roots", roots)
        assert words in found.stderr
        assert json.loads(found.stdout)["good_paths"][0]["certificates"][0]["subject"] == "CN=leaf"
        assert private.decode().splitlines()[1] not in found.output


def test_a_file_is_replaced_only_when_told_to(tmp_path: Path) -> None:
    roots, path, out = (tmp_path / name for name in ("roots.pem", "chain.pem", "out.pem"))
    roots.write_bytes(pem(ROOT))
    path.write_bytes(pem(LEAF, UPPER, LOWER))
    out.write_text("something else")
    args = ("ssl", "chain", path, "--roots", roots, "--write", out)
    assert run("--plan", *args).exit_code == 1
    assert out.read_text() == "something else"
    refused = CliRunner().invoke(cli, [str(arg) for arg in args], input="n\n")
    assert (refused.exit_code, out.read_text()) == (1, "something else")
    assert run("--yes", *args).exit_code == 0
    first = out.stat().st_ino
    again = run("--yes", *args)
    assert (again.exit_code, out.stat().st_ino) == (0, first)
    assert "already" in again.output
    path.write_bytes(pem(LEAF))
    none = run("--yes", *args)
    assert none.exit_code == 1
    assert "there is no good path" in none.output
    assert out.stat().st_ino == first


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "nothing is in it"),
        (b"\x30\x82\xff", "neither PEM nor DER"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB", "truncated"),
        (b"A" * (10 << 20), "more than 4194304"),
    ],
)
def test_files_that_hold_no_certificate_are_named(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "x.pem"
    path.write_bytes(content)
    found = run("ssl", "chain", path)
    assert found.exit_code == 1
    assert str(path) in found.output
    assert words in found.output


def test_what_is_no_file_and_no_endpoint_is_named(tmp_path: Path) -> None:
    found = run("ssl", "chain", tmp_path / "absent.pem")
    assert found.exit_code == 1
    assert "absent.pem: No such file" in found.output


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"SSH-2.0-OpenSSH\r\n", "WRONG_VERSION_NUMBER"), (b"", "ends the connection"),
     (b"\x16\x03\x03\x40\x00", "did not answer"), (None, "did not answer")],
)  # fmt: skip
def test_endpoints_that_are_no_tls_servers_are_named_in_time(
    answer: bytes | None, words: str
) -> None:
    """One that speaks another protocol, hangs up, announces and drips, or says nothing."""
    done = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            if answer:
                connection.sendall(answer)
            while answer != b"" and not done.wait(0.05):
                if answer is not None and answer.startswith(b"\x16"):
                    connection.sendall(b"\0")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        try:
            with pytest.raises(HandshakeFailed, match=words):
                served_chain("127.0.0.1", port, "x.example", 0.7)
        finally:
            done.set()
        thread.join(30)
        assert not thread.is_alive()


def test_an_endpoint_whose_name_is_never_found_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [hang.wait(60)][:0])
    with pytest.raises(HandshakeFailed, match="not found in time"):
        served_chain("www.example", 443, "www.example", 0.2)
    hang.set()


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = run("ssl", "chain", f"127.0.0.1:{port}")
    assert found.exit_code == 1
    assert "Connection refused" in found.output


def test_help_of_the_command_imports_no_certificate_library() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom hostler.cli.main import cli\n"
        "assert CliRunner().invoke(cli, ['ssl', 'chain', '--help']).exit_code == 0\n"
        "print([m for m in ('cryptography', 'grpc', 'rich') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == "[]", said.stderr
