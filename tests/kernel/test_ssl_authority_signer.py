"""The signer of the internal CA as a process: profiles, record, revocation, kills."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_place import Place, b64, csr, openssl, pem, running

from hostlerd.authority import wire

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
NOBODY = 65534


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with running(tmp_path) as one:
        one.init("example.test")
        yield one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One signer for all that nothing is issued by."""
    with running(tmp_path_factory.mktemp("shared")) as one:
        one.init("example.test")
        yield one


def root_of(place: Place) -> Path:
    openssl(
        *("x509", "-inform", "DER", "-in", place.publish / "service.cer"),
        *("-out", place.root / "root.pem"),
    )
    return place.root / "root.pem"


def test_a_certificate_is_issued_by_the_profile_and_openssl_accepts_it(place: Place) -> None:
    asked = csr(place.root, "DNS:www.example.net", "IP:192.0.2.1")
    answer = place.issue(asked)
    path = pem(answer, place.root / "leaf.pem")
    verify = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", root_of(place))
    openssl(*verify, "-verify_hostname", "www.example.net", path)
    text = openssl("x509", "-in", path, "-noout", "-text")
    assert "OCSP - URI:http://127.0.0.1:7480/ocsp" in text
    assert "URI:http://127.0.0.1:7480/service.crl" in text
    assert answer["chain"] == []
    with pytest.raises(AssertionError):
        openssl("verify", "-CAfile", place.root / "key.pem", path)


@pytest.mark.parametrize(
    ("profile", "names", "validity_s", "reason", "told"),
    [
        ("server", ["DNS:www.example.org"], 0, "NOT_ALLOWED", "www.example.org is not a name"),
        ("server", ["DNS:*.example.net"], 0, "NOT_ALLOWED", "wildcard"),
        ("server", ["IP:10.0.0.1"], 0, "NOT_ALLOWED", "10.0.0.1 is in no network"),
        ("server", ["DNS:a.example.net"], 31 * 86400, "NOT_ALLOWED", "longer than 30 days"),
        ("client", ["DNS:a.example.net"], 7200, "NOT_ALLOWED", "longer than 60 minutes"),
        ("other", ["DNS:a.example.net"], 0, "PROFILE_NOT_FOUND", "no profile 'other'"),
        ("server", ["URI:spiffe://example.test/user/root"], 0, "CSR_INVALID", "kind Uniform"),
        ("server", ["email:a@example.net"], 0, "CSR_INVALID", "kind RFC822Name"),
    ],
)
def test_what_the_profile_does_not_allow_is_refused_whoever_asks(
    shared: Place, profile: str, names: list[str], validity_s: int, reason: str, told: str
) -> None:
    answer = shared.issue(csr(shared.root, *names), profile, validity_s=validity_s)
    assert (answer["ok"], answer["reason"]) == (False, reason)
    assert told in answer["message"]
    assert shared.ask("state")["issued"] == 0
    checked = shared.ask(
        "check", profile=profile, csr=b64(csr(shared.root, *names)), validity_s=validity_s
    )
    assert checked["reason"] == reason


def test_no_identity_comes_out_of_a_profile_and_no_profile_has_the_issuer_of_identities(
    place: Place,
) -> None:
    issuers = place.ask("state")["issuers"]
    assert issuers["service"][0] != issuers["identity"][0]
    path = pem(place.issue(csr(place.root, "DNS:a.example.net")), place.root / "leaf.pem")
    assert "URI:spiffe" not in openssl("x509", "-in", path, "-noout", "-ext", "subjectAltName")
    identity = place.root / "identity.pem"
    openssl("x509", "-inform", "DER", "-in", place.publish / "identity.cer", "-out", identity)
    openssl("verify", "-CAfile", identity, path, fails=True)


def test_identities_are_those_of_the_configuration(place: Place) -> None:
    asked = {"csr": b64(csr(place.root)), "requester": "user/admin"}

    def ask(identity: str, *names: str) -> dict:
        return place.ask(
            "identity", id=secrets.token_hex(8), identity=identity, names=names, **asked
        )

    path = pem(ask("host/web1", "web1.example.net"), place.root / "leaf.pem")
    san = openssl("x509", "-in", path, "-noout", "-ext", "subjectAltName")
    assert "DNS:web1, DNS:web1.example.net, URI:spiffe://example.test/host/web1" in san
    ann = pem(ask("user/ann"), place.root / "ann.pem")
    assert "spiffe://example.test/user/ann" in openssl("x509", "-in", ann, "-noout", "-text")
    assert ask("user/bob")["reason"] == "NOT_ALLOWED"
    assert ask("user/annabel")["reason"] == "NOT_ALLOWED"
    assert ask("host/web1", "web1.example.org")["reason"] == "NOT_ALLOWED"
    assert ask("host/web1", "192.0.2.1")["reason"] == "NOT_ALLOWED"
    named = ask("user/ann", "a.example.net")
    assert named["reason"] == "INVALID"
    assert [subject for subject, _ in named["faults"]] == ["names"]
    for wrong in ("root", "host/../x", "host/", "user/ann/x", "HOST/web1"):
        assert ask(wrong)["reason"] in ("INVALID", "NOT_ALLOWED"), wrong


def test_a_retry_answers_the_same_certificate(place: Place) -> None:
    asked, one = csr(place.root, "DNS:a.example.net"), secrets.token_hex(16)
    first, again = place.issue(asked, id=one), place.issue(asked, id=one)
    assert first["issued"]["der"] == again["issued"]["der"]
    assert place.ask("state")["issued"] == 1
    other = place.issue(csr(place.root, "DNS:b.example.net"), id=one)
    assert other["reason"] == "ID_REUSED"


def test_what_is_revoked_is_on_the_crl_and_openssl_refuses_it(place: Place) -> None:
    good = pem(place.issue(csr(place.root, "DNS:a.example.net")), place.root / "good.pem")
    answer = place.issue(csr(place.root, "DNS:b.example.net"))
    bad, serial = pem(answer, place.root / "bad.pem"), answer["issued"]["serial"]
    revoked = place.ask("revoke", serial=serial, reason="key_compromise")
    assert revoked["issued"]["reason"] == "key_compromise"
    again = place.ask("revoke", serial=serial.upper(), reason="superseded")
    assert again["issued"] == revoked["issued"]
    crl = place.root / "crl.der"
    crl.write_bytes(base64.b64decode(place.ask("crl", issuer="service")["crl"]))
    assert crl.read_bytes() == (place.publish / "service.crl").read_bytes()
    openssl("crl", "-inform", "DER", "-in", crl, "-out", place.root / "crl.pem")
    checked = ("verify", "-CAfile", root_of(place), "-crl_check", "-CRLfile")
    openssl(*checked, place.root / "crl.pem", good)
    told = openssl(*checked, place.root / "crl.pem", bad, fails=True)
    assert "certificate revoked" in told
    text = openssl("crl", "-in", place.root / "crl.pem", "-noout", "-text")
    assert "Key Compromise" in text
    assert place.ask("revoke", serial="abc", reason="superseded")["reason"] == (
        "CERTIFICATE_NOT_FOUND"
    )
    assert place.ask("revoke", serial=serial, reason="why")["reason"] == "MALFORMED"
    assert [r["serial"] for r in place.ask("list", **listed(revoked=True))["issued"]] == [serial]
    assert (place.ask("state")["issued"], place.ask("state")["revoked"]) == (2, 1)


def listed(**fields: object) -> dict[str, object]:
    return {"before": 0, "most": 0, "spki": "", "name": "", "revoked": False, **fields}


def test_lists_come_in_pages_and_by_key_and_name(place: Place) -> None:
    serials = [
        place.issue(csr(place.root, f"DNS:n{i}.example.net", new_key=i == 0))["issued"]["serial"]
        for i in range(5)
    ]
    found, before = [], 0
    while True:
        page = place.ask("list", **listed(most=2, before=before))
        found += [row["serial"] for row in page["issued"]]
        before = page["next"]
        if not before:
            break
    assert found == serials[::-1]
    named = place.ask("list", **listed(name="N3.example.net"))["issued"]
    assert [row["serial"] for row in named] == [serials[3]]
    key = place.ask(
        "check",
        profile="server",
        csr=b64(csr(place.root, "DNS:x.example.net", new_key=False)),
        validity_s=0,
    )
    assert len(place.ask("list", **listed(spki=key["spki"]))["issued"]) == 5


def test_keys_are_of_the_signer_alone_and_the_record_too(place: Place) -> None:
    for name in ("service.key", "identity.key", "service.pem", "record.db"):
        assert stat.S_IMODE((place.folder / name).stat().st_mode) == 0o600, name
    answers = json.dumps([place.ask("state"), place.issue(csr(place.root, "DNS:a.example.net"))])
    for key in ("service.key", "identity.key"):
        middle = (place.folder / key).read_text().splitlines()[1]
        assert middle not in answers
    assert "PRIVATE" not in answers
    assert "PRIVATE" not in "".join(
        p.read_text(errors="replace") for p in place.publish.iterdir() if p.suffix != ".ocsp"
    )
    assert place.process is not None
    limits = Path(f"/proc/{place.process.pid}/limits").read_text()
    assert "Max core file size        0                    0" in limits


def test_another_user_is_cut_off(place: Place) -> None:
    place.root.chmod(0o711)
    for folder in place.root.parents:
        if str(folder).startswith("/tmp/pytest"):
            folder.chmod(folder.stat().st_mode | 0o011)
    place.socket.chmod(0o666)
    code = (
        "import socket,sys;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);"
        's.sendall(b\'\\0\\0\\0\\x0e{"op":"state"}\');print(s.recv(10))'
    )
    argv = ["/usr/bin/python3", "-I", "-c", code, str(place.socket)]
    own = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert own.stdout.startswith("b'\\x00"), own
    other = subprocess.run(argv, user=NOBODY, capture_output=True, text=True, timeout=30)
    # Closed before it was read, or after.
    refused = ("BrokenPipeError", "ConnectionResetError")
    assert other.stdout.strip() in ("", "b''")
    assert other.stdout or any(word in other.stderr for word in refused)


def test_a_passphrase_encrypts_the_key_at_rest(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    place = Place(tmp_path)
    try:
        place.start()
        place.init()
        asked = csr(tmp_path, "DNS:a.example.net")
        assert place.issue(asked)["ok"]
        assert b"ENCRYPTED" not in (place.folder / "service.key").read_bytes()
        place.kill()
        (tmp_path / "credentials" / "authority-passphrase").write_text("correct horse\n")
        credentials = {**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
        place.start(environment=credentials)
        assert place.issue(asked)["ok"]
        assert b"ENCRYPTED" in (place.folder / "service.key").read_bytes()
        place.kill()
        place.start(environment=credentials)
        assert place.issue(asked)["ok"]
        place.kill()
        place.start()
        assert place.issue(asked)["reason"] == "LOCKED"
    finally:
        place.kill()
    openssl(
        *("pkey", "-in", place.folder / "service.key", "-passin", "pass:correct horse"),
        *("-noout", "-text"),
    )


def test_what_is_no_request_of_ours_is_refused_or_cut_off(shared: Place) -> None:
    for message, reason in (
        ({"op": "nothing"}, "MALFORMED"),
        ({"op": ["state"]}, "MALFORMED"),
        ({"op": "state", "more": 1}, "MALFORMED"),
        ({"op": "issue"}, "MALFORMED"),
        ({"op": "get", "serial": 7}, "MALFORMED"),
        ({"op": "crl", "issuer": "../x"}, "MALFORMED"),
        ({"op": "list", **listed(before=-1)}, "MALFORMED"),
        ({"op": "list", **listed(most=True)}, "MALFORMED"),
        ({"op": "check", "profile": "server", "csr": "%", "validity_s": 0}, "MALFORMED"),
        ({"op": "check", "profile": "server", "csr": "", "validity_s": 0}, "CSR_INVALID"),
    ):
        assert shared.ask(**message)["reason"] == reason, message
    for data in (b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x03{}}", b"\0\0\0\x09{"):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(30)
            peer.connect(str(shared.socket))
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(100) == b""
    assert shared.ask("state")["ok"]


def test_without_configuration_nothing_is_issued(tmp_path: Path) -> None:
    with running(tmp_path, "") as place:
        asked = csr(tmp_path, "DNS:a.example.net")
        assert place.issue(asked)["reason"] == "NOT_FOUND"
        place.init("example.test")
        assert place.issue(asked)["reason"] == "PROFILE_NOT_FOUND"
        identity = place.ask(
            *("identity",), id="0" * 16, identity="host/a", csr=b64(asked), names=[], requester=""
        )
        assert identity["reason"] == "NOT_ALLOWED"
        place.configuration.write_text("[authority.profiles.server]\ndns_names = 7\n")
        answer = place.issue(asked)
        assert answer["reason"] == "CONFIGURATION"
        assert "authority.profiles.server.dns_names: must be a list" in answer["message"]


def test_an_intermediate_is_signed_elsewhere(tmp_path: Path) -> None:
    with running(tmp_path) as place:
        state = place.ask("init", name="Below", trust_domain="", external=True)
        waiting = base64.b64decode(state["waiting"])
        assert place.ask("init", name="Below", trust_domain="", external=True)["waiting"]
        assert place.issue(csr(tmp_path, "DNS:a.example.net"))["reason"] == "NOT_FOUND"
        (tmp_path / "below.csr").write_bytes(waiting)
        root, root_key = tmp_path / "root.pem", tmp_path / "root.key"
        openssl("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", root_key)
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-days", "30")
        openssl("req", "-x509", "-key", root_key, "-subj", "/CN=Root", *usage, "-out", root)
        (tmp_path / "ext").write_text(
            "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        openssl(
            *("x509", "-req", "-in", tmp_path / "below.csr", "-inform", "DER", "-CA", root),
            *("-CAkey", root_key, "-days", "20", "-extfile", tmp_path / "ext"),
            *("-out", tmp_path / "below.pem"),
        )
        wrong = place.ask("complete", chain=b64(root.read_bytes()))
        assert wrong["reason"] == "INVALID"
        both = (tmp_path / "below.pem").read_bytes() + root.read_bytes()
        assert place.ask("complete", chain=b64(both))["ok"]
        assert place.ask("complete", chain=b64(both))["ok"]
        answer = place.issue(csr(tmp_path, "DNS:a.example.net"))
        # What the holder has to send: the intermediate, and not the root.
        assert len(answer["chain"]) == 1
        leaf = pem(answer, tmp_path / "leaf.pem")
        untrusted = ("-untrusted", tmp_path / "below.pem")
        openssl("verify", "-x509_strict", "-CAfile", root, *untrusted, leaf)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_signer_that_is_killed_forgets_nothing_that_it_answered(place: Place) -> None:
    """The long form kills it 200 times."""
    rounds = 200 if os.environ.get("HOSTLER_SOAK") else 4
    asked = csr(place.root, "DNS:a.example.net")
    answered: dict[str, str] = {}
    for _ in range(rounds):
        ids = [secrets.token_hex(16) for _ in range(50)]

        def work(ids: list[str] = ids) -> None:
            for one in ids:
                try:
                    answered[one] = place.issue(asked, id=one)["issued"]["der"]
                except (OSError, AssertionError, wire.WireBroken):
                    return

        thread = threading.Thread(target=work)
        before = len(answered)
        thread.start()
        while len(answered) < before + secrets.randbelow(20) + 1 and thread.is_alive():
            time.sleep(0.001)
        place.kill()
        thread.join(60)
        place.start()
        # The one that was cut off is done or not; asked for again, there is one of it.
        again = [place.issue(asked, id=one)["issued"]["der"] for one in ids]
        assert [der for one, der in zip(ids, again, strict=True) if one in answered] == [
            answered[one] for one in ids if one in answered
        ]
    assert place.ask("state")["issued"] == rounds * 50
    with sqlite3.connect(place.folder / "record.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(DISTINCT serial) FROM issued").fetchone() == (rounds * 50,)
    lines = (place.publish / "service.status").read_text().split()
    assert len(set(lines)) == rounds * 50


def test_a_backup_brings_the_authority_back_with_its_record(place: Place, tmp_path: Path) -> None:
    answer = place.issue(csr(place.root, "DNS:a.example.net"))
    place.ask("revoke", serial=answer["issued"]["serial"], reason="superseded")
    before = crl_number(place)
    kept, secret = tmp_path / "kept", tmp_path / "secret"
    secret.write_text("a long enough phrase\n")

    def copy(part: str, *words: str | Path, of: Place = place) -> subprocess.CompletedProcess[str]:
        argv = [*of.argv(part), "--file", kept, "--passphrase-file", secret, *words]
        return subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=120)

    # While the signer runs.
    assert copy("backup").returncode == 0
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert b"PRIVATE" not in kept.read_bytes()
    assert "File exists" in copy("backup").stderr
    assert "holds an authority already" in copy("restore").stderr
    (tmp_path / "elsewhere").mkdir()
    other = Place(tmp_path / "elsewhere")
    whole = kept.read_bytes()
    for damaged, word in (
        (whole[:-1] + bytes([whole[-1] ^ 1]), "is damaged"),
        (whole[:60], "is damaged"),
        (b"something else", "no backup"),
    ):
        kept.write_bytes(damaged)
        assert word in copy("restore", of=other).stderr
    kept.write_bytes(whole)
    secret.write_text("another long phrase")
    assert "the passphrase is another" in copy("restore", of=other).stderr
    secret.write_text("short")
    assert "shorter than" in copy("restore", of=other).stderr
    assert list(other.folder.iterdir()) == []
    secret.write_text("a long enough phrase")
    try:
        # Under a signer that runs and has a record of its own, of nothing.
        other.start()
        assert other.ask("state")["issuers"]["service"] == []
        assert copy("restore", of=other).returncode == 0
        again = pem(other.issue(csr(other.root, "DNS:b.example.net")), other.root / "b.pem")
        openssl("verify", "-CAfile", root_of(place), again)
        (revoked,) = other.ask("list", **listed(revoked=True))["issued"]
        assert revoked["der"] == answer["issued"]["der"]
        other.ask("crl", issuer="service")
        assert crl_number(other) > before
        other.kill()
        other.start()
        assert (other.ask("state")["issued"], other.ask("state")["revoked"]) == (2, 1)
    finally:
        other.kill()


def crl_number(place: Place) -> int:
    told = openssl(
        *("crl", "-inform", "DER", "-in", place.publish / "service.crl", "-noout", "-crlnumber")
    )
    return int(told.strip().removeprefix("crlNumber=0x"), 16)
