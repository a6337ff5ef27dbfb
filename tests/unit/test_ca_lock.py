"""The CA's key under a passphrase: nothing is signed without it, and all else goes on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hostler.ca_backup import back_up, restore
from hostler.core.certificates import (
    CertificateUnreadable,
    KeyEncrypted,
    key_to_pem,
    load_certificates,
    load_key,
    make_key,
)
from hostler.issued import PkiDamaged, PkiLocked
from hostler.pki import Authority

PHRASE, OTHER = b"correct horse battery", b"another one altogether"


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    made = Authority.create(tmp_path / "pki", "lab")
    made.issue_user("alice")
    made.encrypt_key(PHRASE)
    return made


def test_a_key_is_read_with_its_passphrase_alone() -> None:
    key = make_key()
    locked, clear = key_to_pem(key, PHRASE), key_to_pem(key)
    assert load_key(locked, PHRASE).private_numbers() == key.private_numbers()
    # One that is given and not needed does no harm.
    assert load_key(clear, PHRASE).private_numbers() == key.private_numbers()
    for phrase in (b"", OTHER):
        with pytest.raises(KeyEncrypted):
            load_key(locked, phrase)
    for pem in (b"", clear[:-40], locked[:-60]):
        with pytest.raises(CertificateUnreadable):
            load_key(pem, PHRASE)


def test_what_signs_needs_it_and_what_reads_does_not(ca: Authority, tmp_path: Path) -> None:
    path = ca.folder / "ca.key"
    assert b"ENCRYPTED" in path.read_bytes() and PHRASE not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    without = Authority.open(ca.folder)
    assert [entry.certificate.name for entry in without.list()] == ["alice"]
    for sign in (lambda: without.issue_user("bob"), without.write_bundle):
        with pytest.raises(PkiLocked, match="no passphrase was given"):
            sign()
    with pytest.raises(PkiLocked, match="with this passphrase"):
        Authority.open(ca.folder, lambda: OTHER).issue_user("bob")
    assert not (ca.folder / "users" / "bob.pem").exists()
    entry = Authority.open(ca.folder, lambda: PHRASE).issue_user("bob")
    assert entry.path is not None
    leaf, root = load_certificates(entry.path.read_bytes()), load_certificates(ca.ca_pem)
    leaf[0].verify_directly_issued_by(root[0])


def test_it_is_asked_for_only_if_the_key_is_encrypted(tmp_path: Path) -> None:
    made = Authority.create(tmp_path / "pki", "lab")

    def never() -> bytes:
        raise AssertionError("asked")

    opened = Authority.open(made.folder, never)
    opened.issue_user("alice")
    opened.encrypt_key(PHRASE)
    with pytest.raises(AssertionError, match="asked"):
        opened.issue_user("bob")
    with_it = Authority.open(made.folder, lambda: PHRASE)
    with_it.encrypt_key(OTHER)
    with pytest.raises(PkiLocked):
        with_it.issue_user("bob")
    Authority.open(made.folder, lambda: OTHER).encrypt_key(b"")
    opened.issue_user("bob")
    (made.folder / "ca.key").write_bytes(key_to_pem(make_key(), PHRASE))
    with pytest.raises(PkiDamaged, match="no CA certificate belongs"):
        Authority.open(made.folder, lambda: PHRASE).issue_user("carol")


def test_a_backup_of_a_locked_key_is_locked(ca: Authority, tmp_path: Path) -> None:
    back_up(ca, tmp_path / "b", b"that of the backup")
    for ask in (None, lambda: OTHER):
        with pytest.raises(PkiLocked):
            restore(tmp_path / "b", tmp_path / "new", b"that of the backup", ask)
        assert not (tmp_path / "new").exists()
    restored = restore(tmp_path / "b", tmp_path / "new", b"that of the backup", lambda: PHRASE)
    restored.authority.issue_user("bob")
    with pytest.raises(PkiLocked):
        Authority.open(tmp_path / "new").issue_user("carol")


def test_commands(tmp_path: Path) -> None:
    (tmp_path / "phrase").write_bytes(PHRASE + b"\n")
    (tmp_path / "other").write_bytes(OTHER)
    (tmp_path / "short").write_bytes(b"short\n")
    made = Authority.create(tmp_path / "pki", "lab")

    def run(*words: str, phrase: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "HOME": str(tmp_path), "HOSTLER_CONFIG": str(tmp_path / "none.toml")}
        env.pop("HOSTLER_CA_PASSPHRASE_FILE", None)
        if phrase:
            env["HOSTLER_CA_PASSPHRASE_FILE"] = str(tmp_path / phrase)
        return subprocess.run(
            [str(Path(sys.executable).parent / "hostler"), *words, "--dir", str(made.folder)],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    short = run("ca", "lock", "--passphrase-file", str(tmp_path / "short"))
    assert (short.returncode, "12 bytes" in short.stderr) == (1, True)
    assert run("ca", "lock", "--passphrase-file", str(tmp_path / "phrase")).returncode == 0
    for phrase in ("", "other"):
        refused = run("pki", "issue", "user", "bob", phrase=phrase)
        assert refused.returncode != 0
        assert not (made.folder / "users" / "bob.pem").exists()
    assert "with this passphrase" in refused.stderr
    assert run("pki", "issue", "user", "bob", phrase="phrase").returncode == 0
    assert run("pki", "list").returncode == 0
    assert run("ca", "unlock", phrase="phrase").returncode == 0
    assert run("pki", "issue", "user", "carol").returncode == 0
