"""A copy of the authority for the day its host is lost: keys, certificates and record, encrypted.

By root on the host itself, never over the network: nobody who asks a daemon can have it made.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sqlite3
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from hostler.core import files
from hostlerd.authority.issuer_names import ISSUERS
from hostlerd.privileged.refused import Refused

MAX_BYTES = 4 << 30
SHORTEST_PASSPHRASE = 12
_MAGIC = b"hostler-authority-1\n"
_SALT_BYTES, _NONCE_BYTES = 16, 12
_RECORD = "record.db"
_NAMES = (*(f"{name}.{kind}" for name in ISSUERS for kind in ("key", "pem", "csr")), _RECORD)
# Ahead of whatever was published after the backup was made: a CRL's number only grows.
_CRL_NUMBERS = "UPDATE crl_numbers SET number = number + 1000000"


def read_passphrase(path: Path) -> bytes:
    """Read a passphrase from a file. Raises Refused, OSError."""
    secret = files.read_bounded(path, 4096).strip(b"\r\n")
    if len(secret) < SHORTEST_PASSPHRASE:
        raise Refused("INVALID", f"the passphrase is shorter than {SHORTEST_PASSPHRASE} bytes")
    return secret


def backup(folder: Path, out: Path, secret: bytes) -> int:
    """Write the authority into a file, encrypted; answers its bytes. Raises Refused, OSError.

    Keys that are encrypted at rest stay so in it: their own passphrase is needed as well.
    """
    held: dict[str, str] = {}
    with files.locked(folder):
        for name in _NAMES:
            path = folder / name
            if path.exists():
                data = _record(path) if name == _RECORD else path.read_bytes()
                held[name] = base64.b64encode(data).decode()
    if not any(name.endswith(".key") for name in held):
        raise Refused("NOT_FOUND", f"{folder} holds no authority")
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
    text = json.dumps(held).encode()
    sealed = AESGCM(_key(secret, salt)).encrypt(nonce, text, _MAGIC)
    files.write_new(out, _MAGIC + salt + nonce + sealed, mode=0o600)
    return out.stat().st_size


def restore(folder: Path, source: Path, secret: bytes) -> tuple[str, ...]:
    """Put an authority back where there is none; answers the files. Raises Refused, OSError."""
    held = _open(files.read_bounded(source, MAX_BYTES), secret)
    owner = folder.stat()
    with files.locked(folder):
        present = [name for name in _NAMES if name != _RECORD and (folder / name).exists()]
        if present:
            raise Refused("EXISTS", f"{folder} holds an authority already: {present[0]}")
        # The record that an asked signer has made, of nothing.
        (folder / _RECORD).unlink(missing_ok=True)
        # The certificates last: without them it issues nothing.
        for name in sorted(held, key=lambda n: n.endswith(".pem")):
            files.write_new(folder / name, held[name], mode=0o600)
            os.chown(folder / name, owner.st_uid, owner.st_gid)
            if name == _RECORD:
                _go_ahead(folder / name)
    return tuple(sorted(held))


def _record(path: Path) -> bytes:
    """The record as one whole, whatever is being read from it."""
    db = sqlite3.connect(path)
    try:
        return db.serialize()
    finally:
        db.close()


def _go_ahead(path: Path) -> None:
    db = sqlite3.connect(path)
    try:
        with db:
            db.execute(_CRL_NUMBERS)
    finally:
        db.close()


def _open(data: bytes, secret: bytes) -> dict[str, bytes]:
    head = len(_MAGIC) + _SALT_BYTES + _NONCE_BYTES
    if not data.startswith(_MAGIC) or len(data) <= head:
        raise Refused("INVALID", "this is no backup of an authority")
    salt, nonce = data[len(_MAGIC) : head - _NONCE_BYTES], data[head - _NONCE_BYTES : head]
    try:
        text = AESGCM(_key(secret, salt)).decrypt(nonce, data[head:], _MAGIC)
    except InvalidTag as e:
        raise Refused("INVALID", "the passphrase is another, or the backup is damaged") from e
    held = {name: base64.b64decode(value) for name, value in json.loads(text).items()}
    if odd := sorted(held.keys() - set(_NAMES)):
        raise Refused("INVALID", f"the backup has a file that is none of an authority: {odd[0]}")
    return held


def _key(secret: bytes, salt: bytes) -> bytes:
    """Derive the key: 64 MiB of memory for each guess. RFC 7914."""
    return Scrypt(salt=salt, length=32, n=1 << 16, r=8, p=1).derive(secret)
