import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from hostler.core import files
from hostler.core.certificates import Validity, load_certificates, load_key
from hostler.core.names import InvalidDnsName, InvalidIdentity, InvalidName, InvalidTrustDomain
from hostler.issued import PkiDamaged, PkiError, PkiExists, PkiNotFound
from hostler.pki import Authority
from hostler.policy import PolicyError


@pytest.fixture
def authority(tmp_path):
    return Authority.create(tmp_path / "pki", "lab.hostler")


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def openssl_verifies(authority, path):
    answer = subprocess.run(
        ["/usr/bin/openssl", "verify", "-x509_strict", "-CAfile", authority.ca_path, path],
        capture_output=True,
        timeout=30,
        check=False,
    )
    return answer.returncode == 0


def pair_matches(path):
    key = load_key(path.with_suffix(".key").read_bytes())
    return load_certificates(path.read_bytes())[0].public_key() == key.public_key()


def test_create_makes_private_files(authority):
    modes = {
        str(path.relative_to(authority.folder)): path.stat().st_mode & 0o7777
        for path in authority.folder.rglob("*")
    }
    assert authority.folder.stat().st_mode & 0o7777 == 0o700
    assert modes.pop("ca.key") == 0o600
    assert modes.pop("ca.pem") == 0o644
    assert set(modes.values()) == {0o700}


def test_open_finds_the_trust_domain_again(authority):
    again = Authority.open(authority.folder)
    assert again.trust_domain == "lab.hostler"
    assert again.ca == authority.ca


def test_create_never_overwrites(authority):
    before = tree(authority.folder)
    with pytest.raises(PkiExists):
        Authority.create(authority.folder, "other")
    assert tree(authority.folder) == before


def test_create_takes_up_the_key_of_an_interrupted_create(authority):
    key = (authority.folder / "ca.key").read_bytes()
    authority.ca_path.unlink()
    again = Authority.create(authority.folder, "lab.hostler")
    assert (authority.folder / "ca.key").read_bytes() == key
    entry = again.issue_user("alice")
    assert openssl_verifies(again, entry.path)


def test_a_bad_trust_domain_makes_nothing(tmp_path):
    with pytest.raises(InvalidTrustDomain):
        Authority.create(tmp_path / "pki", "Not A Domain")
    assert not (tmp_path / "pki").exists()


def test_open_refuses_what_is_no_ca(tmp_path, authority):
    with pytest.raises(PkiNotFound, match="pki init"):
        Authority.open(tmp_path)
    alice = authority.issue_user("alice")
    authority.ca_path.write_bytes(alice.path.read_bytes())
    with pytest.raises(PkiDamaged):
        Authority.open(authority.folder)
    authority.ca_path.write_bytes(b"junk")
    with pytest.raises(PkiDamaged):
        Authority.open(authority.folder)


def test_what_others_can_read_is_refused(authority):
    (authority.folder / "ca.key").chmod(0o640)
    with pytest.raises(PkiError, match="chmod 600"):
        authority.issue_user("alice")
    (authority.folder / "ca.key").chmod(0o600)
    authority.folder.chmod(0o755)
    with pytest.raises(PkiError, match="chmod 700"):
        Authority.open(authority.folder)
    assert not authority.certificate_path("user", "alice").exists()


def test_issue_writes_a_pair_that_openssl_verifies(authority):
    host = authority.issue_host("h1", ["h1.example"], ["10.0.0.1"])
    user = authority.issue_user("alice")
    assert host.path == authority.folder / "hosts/h1.pem"
    assert user.path == authority.folder / "users/alice.pem"
    for entry in (host, user):
        assert entry.path.with_suffix(".key").stat().st_mode & 0o7777 == 0o600
        assert openssl_verifies(authority, entry.path)
        assert pair_matches(entry.path)
    assert [e.state for e in authority.list()] == ["current", "current"]


def test_issue_again_is_refused_and_changes_nothing(authority):
    authority.issue_user("alice")
    before = tree(authority.folder)
    with pytest.raises(PkiExists, match="--renew"):
        authority.issue_user("alice")
    assert tree(authority.folder) == before


def test_a_host_and_a_user_may_share_a_name(authority):
    authority.issue_user("web")
    authority.issue_host("web")
    assert authority.show("user/web").certificate.kind == "user"
    assert authority.show("spiffe://lab.hostler/host/web").certificate.kind == "host"
    with pytest.raises(PkiError, match="say host/web or user/web"):
        authority.show("web")


def test_renew_archives_the_old_pair_and_keeps_names(authority):
    old = authority.issue_host("h1", ["h1.example"], ["10.0.0.1"])
    old_pem, old_key = old.path.read_bytes(), old.path.with_suffix(".key").read_bytes()
    new = authority.issue_host("h1", renew=True)
    assert new.certificate.dns_names == ("h1", "h1.example")
    assert new.certificate.ip_addresses == ("10.0.0.1",)
    archived = authority.folder / f"archive/hosts/h1-{old.certificate.serial}.pem"
    assert archived.read_bytes() == old_pem
    assert archived.with_suffix(".key").read_bytes() == old_key
    assert new.path.with_suffix(".key").read_bytes() != old_key
    assert pair_matches(new.path) and openssl_verifies(authority, new.path)
    assert [e.state for e in authority.list()] == ["replaced", "current"]
    assert authority.show("h1") == authority.list()[1]
    assert authority.show(old.certificate.serial.upper()).path == archived
    changed = authority.issue_host("h1", ["other.example"], renew=True)
    assert changed.certificate.dns_names == ("h1", "other.example")
    assert changed.certificate.ip_addresses == ()


def test_renew_of_a_new_name_is_an_issue(authority):
    assert authority.issue_user("alice", renew=True).state == "current"


def test_a_lone_key_is_taken_up(authority):
    entry = authority.issue_user("alice")
    key = entry.path.with_suffix(".key").read_bytes()
    entry.path.unlink()
    assert authority.show("alice").state == "absent"
    again = authority.issue_user("alice")
    assert again.path.with_suffix(".key").read_bytes() == key
    assert pair_matches(again.path)
    assert [e.state for e in authority.list()] == ["replaced", "current"]


@pytest.mark.parametrize("renew", [False, True])
def test_bad_names_write_nothing(authority, renew):
    before = tree(authority.folder)
    for name in ("", "../ca", "A", "a b", "x" * 64):
        with pytest.raises(InvalidName):
            authority.issue_user(name, renew=renew)
        with pytest.raises(InvalidName):
            authority.issue_host(name, renew=renew)
    with pytest.raises(InvalidDnsName):
        authority.issue_host("h1", ["*.example"], renew=renew)
    assert tree(authority.folder) == before


def test_expired_is_told(authority):
    now = datetime.now(UTC)
    ended = Validity(not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    authority.issue_user("alice", validity=ended)
    assert authority.show("alice").state == "expired"


def test_a_damaged_index_is_told_and_a_torn_one_mended(authority):
    authority.issue_user("alice")
    index = authority.folder / "issued.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole + whole[:50])
    assert len(authority.list()) == 1
    authority.issue_user("bob")
    assert [e.certificate.name for e in authority.list()] == ["alice", "bob"]
    for bad in (b"junk\n", b"[]\n", b"{}\n", whole.replace(b"/user/alice", b"/user/bob")):
        index.write_bytes(bad)
        with pytest.raises(PkiDamaged, match=r"issued\.jsonl:1"):
            authority.list()


def test_bundle_versions_only_grow(authority):
    assert authority.read_bundle() is None
    assert authority.write_bundle().version == 1
    granted = authority.grant("alice", "admins")
    assert granted.version == 2
    assert granted.groups_of("spiffe://lab.hostler/user/alice") == ("admins",)
    assert authority.grant("user/alice", "admins") is None
    assert authority.read_bundle() == granted
    (authority.folder / "policy.toml").unlink()
    assert authority.write_bundle().version == 3
    authority.bundle_path.unlink()
    assert authority.write_bundle().version == 4


def test_ungrant_takes_off_the_group(authority):
    authority.grant("alice", "admins")
    authority.grant("alice", "viewers")
    left = authority.ungrant("alice", "admins")
    assert left.members == {"spiffe://lab.hostler/user/alice": ("viewers",)}
    assert authority.ungrant("alice", "admins") is None
    assert authority.ungrant("alice", "viewers").members == {}


def test_revoke_by_name_takes_all_that_have_not_ended(authority):
    now = datetime.now(UTC)
    ended = Validity(not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    authority.issue_user("alice", validity=ended)
    first = authority.issue_user("alice", renew=True).certificate.serial
    second = authority.issue_user("alice", renew=True).certificate.serial
    authority.issue_user("bob")
    assert authority.revoke("alice").revoked == {first, second}
    assert authority.revoke("alice") is None
    assert [e.state for e in authority.list()] == ["expired", "revoked", "revoked", "current"]


def test_revoke_takes_a_serial_in_the_index_or_not(authority):
    authority.write_bundle()
    assert authority.revoke("0A:BC").revoked == {"abc"}
    serial = authority.issue_user("alice").certificate.serial
    assert authority.revoke(serial.upper()).revoked == {"abc", serial}
    with pytest.raises(PkiNotFound):
        authority.revoke("nobody")


@pytest.mark.parametrize("user", ["spiffe://other/user/a", "A", "user/", "local/root"])
def test_grant_refuses_bad_identities_and_signs_nothing(authority, user):
    with pytest.raises(InvalidIdentity):
        authority.grant(user, "admins")
    with pytest.raises(InvalidName):
        authority.grant("alice", "Admins!")
    assert not authority.bundle_path.exists()


def test_own_policies_go_into_the_bundle(authority):
    own = authority.folder / "policies/own.cedar"
    own.write_text('@id("no-web") forbid (principal, action, resource == Resource::"netns/web");')
    assert authority.write_bundle().policies[-1].id == "no-web"
    own.write_text('@id("viewers-read") permit (principal, action, resource);')
    with pytest.raises(PolicyError, match="twice"):
        authority.write_bundle()
    assert authority.read_bundle().version == 1


def test_a_machine_without_the_ca_key_can_read_and_not_sign(authority):
    authority.grant("alice", "admins")
    (authority.folder / "ca.key").unlink()
    assert Authority.open(authority.folder).read_bundle().version == 1
    with pytest.raises(PkiNotFound, match="cannot sign"):
        authority.write_bundle()
    with pytest.raises(PkiNotFound, match="cannot sign"):
        authority.issue_user("bob")


ISSUER = """
import sys
from pathlib import Path
from hostler.pki import Authority
authority = Authority.open(Path(sys.argv[1]))
for n in range(int(sys.argv[3])):
    authority.issue_user(f"{sys.argv[2]}{n}")
    authority.grant(f"{sys.argv[2]}{n}", "viewers")
"""


def test_processes_that_issue_at_once_lose_nothing(authority):
    issuers = [
        subprocess.Popen([sys.executable, "-c", ISSUER, str(authority.folder), name, "10"])
        for name in "abcd"
    ]
    assert [issuer.wait(60) for issuer in issuers] == [0, 0, 0, 0]
    entries = authority.list()
    assert sorted(e.certificate.name for e in entries) == sorted(
        f"{name}{n}" for name in "abcd" for n in range(10)
    )
    assert {e.state for e in entries} == {"current"}
    bundle = authority.read_bundle()
    assert bundle.version == 40 and len(bundle.members) == 40


def test_of_those_who_issue_one_name_at_once_one_wins(authority):
    def issue(_):
        try:
            return authority.issue_user("alice")
        except PkiExists:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [entry for entry in pool.map(issue, range(8)) if entry]
    assert len(won) == 1 == len(authority.list())
    assert authority.show("alice").certificate == won[0].certificate
    assert pair_matches(won[0].path)


def test_of_those_who_create_at_once_one_wins(tmp_path):
    def create(n):
        try:
            return Authority.create(tmp_path / "pki", f"lab{n}")
        except PkiExists:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [made for made in pool.map(create, range(8)) if made]
    assert len(won) == 1
    assert Authority.open(tmp_path / "pki").trust_domain == won[0].trust_domain
    assert openssl_verifies(won[0], won[0].issue_user("alice").path)


CHURN = """
import sys
from itertools import count
from pathlib import Path
from hostler.pki import Authority
authority = Authority.open(Path(sys.argv[1]))
print("ready", flush=True)
for n in count():
    authority.issue_user("alice", renew=True)
    authority.revoke("alice") if n % 2 else authority.grant(f"user{n % 10}", "viewers")
"""


def test_a_kill_at_any_moment_leaves_a_ca_that_goes_on(authority):
    version, seen = 0, set()
    for kill in range(10):
        churn = subprocess.Popen(
            [sys.executable, "-c", CHURN, str(authority.folder)], stdout=subprocess.PIPE
        )
        assert churn.stdout.readline() == b"ready\n"
        time.sleep(0.002 + 0.0071 * kill)
        churn.send_signal(signal.SIGKILL)
        churn.wait(10)
        churn.stdout.close()
        pem = authority.certificate_path("user", "alice")
        if pem.exists():
            assert pair_matches(pem)
            assert authority.show("alice").certificate.serial
        bundle = authority.read_bundle()
        if bundle:
            assert bundle.version >= version
            version = bundle.version
        serials = {e.certificate.serial for e in authority.list()}
        assert serials >= seen
        seen = serials
        for path in authority.folder.rglob("*.key"):
            assert path.stat().st_mode & 0o7777 == 0o600
            load_key(path.read_bytes())
    entry = authority.issue_user("alice", renew=True)
    assert pair_matches(entry.path) and openssl_verifies(authority, entry.path)
    assert authority.write_bundle().version > version
    assert not list(authority.folder.rglob(".*.tmp"))


def test_a_lock_held_too_long_is_told(authority, monkeypatch):
    monkeypatch.setattr(files.locked.__wrapped__, "__defaults__", (0.05,))
    with files.locked(authority.folder), pytest.raises(TimeoutError):
        authority.issue_user("alice")
    assert not (authority.folder / "issued.jsonl").exists()


def test_the_index_holds_no_key(authority):
    authority.issue_user("alice")
    line = json.loads((authority.folder / "issued.jsonl").read_text())
    assert "PRIVATE" not in str(line) and set(line) >= {"serial", "identity", "not_after"}
    assert (authority.folder / "issued.jsonl").stat().st_mode & 0o7777 == 0o600
