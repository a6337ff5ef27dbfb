"""The authority's keys on disk: files of its own user alone, encrypted if there is a passphrase."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hostler.core import files
from hostler.core.certificates import key_to_pem
from hostlerd.privileged.refused import Refused

_MAX_BYTES = 64 * 1024
_CREDENTIAL = "authority-passphrase"


def passphrase() -> bytes:
    """The passphrase that systemd hands over; empty if there is none. systemd.exec(5)."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return b""
    try:
        return files.read_bounded(Path(folder) / _CREDENTIAL, 4096).strip(b"\r\n")
    except FileNotFoundError:
        return b""


def make(path: Path, secret: bytes) -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key with its file. Raises FileExistsError, OSError."""
    key = ec.generate_private_key(ec.SECP256R1())
    files.write_new(path, key_to_pem(key, secret), mode=0o600)
    return key


def load(path: Path, secret: bytes) -> ec.EllipticCurvePrivateKey:
    """Load a key. One that is not encrypted yet is, if there is a passphrase. Raises Refused."""
    data = files.read_bounded(path, _MAX_BYTES)
    try:
        key = serialization.load_pem_private_key(data, password=secret or None)
    except TypeError as e:
        if not secret:
            raise Refused("LOCKED", "the authority's key is encrypted: no passphrase") from e
        key = serialization.load_pem_private_key(data, password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            files.replace(path, key_to_pem(key, secret), mode=0o600)
    except ValueError as e:
        raise Refused(
            "LOCKED", "the authority's key cannot be read, or not with this phrase"
        ) from e
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refused("DAMAGED", f"{path.name} is not a key of this authority")
    return key
