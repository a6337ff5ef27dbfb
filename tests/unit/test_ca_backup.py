"""A CA that was lost and restored goes on as the same; and no other file is taken for a backup."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from hostler import ca_backup
from hostler.ca_backup import VERSIONS_AHEAD, back_up, check_passphrase, restore
from hostler.core.bundle import check_newer
from hostler.core.certificates import load_certificates, make_ca, make_key
from hostler.issued import PkiDamaged, PkiError, PkiExists
from hostler.pki import Authority

PASSPHRASE = b"correct horse battery"
MADE = make_ca("lab")
PAIR = {"ca.pem": MADE.pem, "ca.key": MADE.key_pem}


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    made = Authority.create(tmp_path / "pki", "lab")
    made.issue_user("alice")
    made.grant("alice", "admins")
    made.sign_host("web1", make_key().public_key(), (), ("192.0.2.1",))
    made.issue_host("old1")
    (made.folder / "policies" / "own.cedar").write_text(
        '@id("own") forbid (principal, action in Action::"class/DESTROY", resource);\n'
    )
    made.revoke("host/old1")
    return made


@pytest.fixture
def backup(ca: Authority, tmp_path: Path) -> Path:
    back_up(ca, tmp_path / "ca.backup", PASSPHRASE)
    return tmp_path / "ca.backup"


def test_the_same_ca_goes_on_issuing_and_its_bundle_is_newer_than_any(
    ca: Authority, backup: Path, tmp_path: Path
) -> None:
    for _ in range(5):
        ca.write_bundle()
    in_force = ca.read_bundle()
    restored = restore(backup, tmp_path / "new", PASSPHRASE).authority
    assert restored.ca.fingerprint == ca.ca.fingerprint
    new = restored.read_bundle()
    assert in_force is not None and new is not None
    check_newer(new, in_force)
    assert new.version > VERSIONS_AHEAD
    assert (new.members, new.revoked) == (in_force.members, in_force.revoked)
    assert {p.id for p in new.policies} == {p.id for p in in_force.policies}
    assert restored.show("host/old1").state == "revoked"
    assert restored.show("host/web1").state == "current"
    entry = restored.sign_host("web2", make_key().public_key())
    assert entry.path is not None
    leaf, root = load_certificates(entry.path.read_bytes()), load_certificates(ca.ca_pem)
    leaf[0].verify_directly_issued_by(root[0])
    assert {"web1", "old1"} <= {e.certificate.name for e in restored.list()}


def test_it_shows_nothing_and_has_no_key_of_anybody_else(ca: Authority, backup: Path) -> None:
    data = backup.read_bytes()
    assert backup.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in data and b"alice" not in data and b"web1" not in data
    head, _, token = data.partition(b"\n")
    told = json.loads(head)
    key = ca_backup._key(PASSPHRASE, bytes.fromhex(told["salt"]), told["n"], told["r"], told["p"])
    with tarfile.open(fileobj=io.BytesIO(Fernet(key).decrypt(token))) as tar:
        names = set(tar.getnames())
    assert names == {
        *("ca.pem", "ca.key", "issued.jsonl", "policy.toml", "bundle.json"),
        *("hosts/web1.pem", "hosts/old1.pem", "policies/own.cedar"),
    }
    keys = [p for p in ca.folder.rglob("*.key") if p.name != "ca.key"]
    assert keys


def test_nothing_is_overwritten(ca: Authority, backup: Path) -> None:
    before = backup.read_bytes()
    with pytest.raises(FileExistsError):
        back_up(ca, backup, PASSPHRASE)
    assert backup.read_bytes() == before
    key = (ca.folder / "ca.key").read_bytes()
    with pytest.raises(PkiExists):
        restore(backup, ca.folder, PASSPHRASE)
    assert (ca.folder / "ca.key").read_bytes() == key


def flip(data: bytes) -> bytes:
    at = len(data) * 2 // 3
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "passphrase"),
    [
        (lambda data: data, b"another passphrase"),
        (flip, PASSPHRASE),
        (lambda data: data[:-100], PASSPHRASE),
        (lambda data: b"", PASSPHRASE),
        (lambda data: b"{}\nx", PASSPHRASE),
        (lambda data: data.replace(b'"n": 131072', b'"n": 1073741824'), PASSPHRASE),
        (lambda data: data.replace(b'"n": 131072', b'"n": 131071'), PASSPHRASE),
        (lambda data: data.replace(b'"salt": "', b'"salt": "zz'), PASSPHRASE),
    ],
)
def test_another_passphrase_or_file_restores_nothing(
    backup: Path, tmp_path: Path, damage: Callable[[bytes], bytes], passphrase: bytes
) -> None:
    backup.write_bytes(damage(backup.read_bytes()))
    with pytest.raises(PkiError):
        restore(backup, tmp_path / "new", passphrase)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"ca.pem": b"x"},
        {"ca.pem": b"x", "ca.key": b"y"},
        {**PAIR, "../evil": b"z"},
        {**PAIR, "hosts/web1.key": b"z"},
        {**PAIR, "policies/../../evil.cedar": b"z"},
        {"ca.pem": make_ca("a").pem, "ca.key": make_ca("a").key_pem},
    ],
)
def test_what_is_in_it_is_checked_before_a_file_is_written(
    tmp_path: Path, content: dict[str, bytes]
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    n, salt = 2**14, b"s" * 16
    head = {"hostler-ca-backup": 1, "kdf": "scrypt", "n": n, "r": 8, "p": 1, "salt": salt.hex()}
    token = Fernet(ca_backup._key(PASSPHRASE, salt, n, 8, 1)).encrypt(packed.getvalue())
    file = tmp_path / "made.backup"
    file.write_bytes(json.dumps(head).encode() + b"\n" + token)
    with pytest.raises(PkiDamaged):
        restore(file, tmp_path / "new", PASSPHRASE)
    assert not (tmp_path / "new").exists() and not (tmp_path / "evil").exists()


def test_a_restore_that_was_cut_is_begun_again(backup: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "ca.key").write_text("half")
    (folder / "issued.jsonl").write_text("half")
    restored = restore(backup, folder, PASSPHRASE).authority
    assert restored.show("host/web1").state == "current"


def test_short_passphrases_are_refused() -> None:
    assert check_passphrase(b"twelve bytes\n") == b"twelve bytes"
    for short in (b"", b"\n", b"eleven byte\n"):
        with pytest.raises(PkiError):
            check_passphrase(short)
