"""What the signer has published, as the responder reads it: only when a file has changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hostler.core import files
from hostler.core.ssl.authority.revocation import REASONS, Responder, Revoked
from hostlerd.authority.issuer_names import ISSUERS
from hostlerd.authority.publishing import MAX_CRL_BYTES

_MAX_STATUS_BYTES = 256 << 20
_READ_BYTES = 1 << 20

_Stamp = tuple[int, int, int]


@dataclass(slots=True)
class _Status:
    """The status of all certificates of one issuer, kept up with its file."""

    path: Path
    known: dict[int, Revoked | None] = field(default_factory=dict)
    _inode: int = 0
    _offset: int = 0

    def look_up(self, serial: int) -> tuple[bool, Revoked | None]:
        """Whether it was issued, and its revocation."""
        return serial in self.known, self.known.get(serial)

    def catch_up(self) -> None:
        """Read what has been added, or all of it if it was written anew. Raises OSError."""
        with self.path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            if found.st_ino != self._inode or found.st_size < self._offset:
                self.known, self._inode, self._offset = {}, found.st_ino, 0
            stream.seek(self._offset)
            while self._offset < min(found.st_size, _MAX_STATUS_BYTES):
                part = stream.read(_READ_BYTES)
                whole = part.rfind(b"\n") + 1
                if not whole:
                    return
                for line in part[:whole].decode("ascii", "replace").splitlines():
                    self._read(line)
                self._offset += whole
                stream.seek(self._offset)

    def _read(self, line: str) -> None:
        serial, _, revoked = line.partition(" ")
        time, _, reason = revoked.partition(" ")
        try:
            number = int(serial, 16)
            since = datetime.fromtimestamp(int(time), UTC) if time else None
        except (ValueError, OverflowError, OSError):
            return
        word = reason if reason in REASONS else "unspecified"
        self.known[number] = Revoked(number, since, word) if since else None


class Published:
    """The folder of all that is published. Files that cannot be read are as good as not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tuple[_Stamp, bytes]] = {}
        self._responders: dict[str, tuple[_Stamp, Responder]] = {}
        self._status = {name: _Status(folder / f"{name}.status") for name in ISSUERS}

    def file(self, name: str) -> bytes | None:
        """The bytes of a file; None if there is none. Raises OSError."""
        path = self._folder / name
        try:
            stamp = _stamp(path)
            kept = self._files.get(name)
            if kept is None or kept[0] != stamp:
                kept = self._files[name] = (stamp, files.read_bounded(path, MAX_CRL_BYTES))
        except FileNotFoundError:
            return None
        except ValueError as e:
            raise OSError(str(e)) from e
        return kept[1]

    def responders(self) -> list[Responder]:
        """Who answers, for each issuer. Raises OSError."""
        return [found for name in ISSUERS if (found := self._responder(name)) is not None]

    def _responder(self, name: str) -> Responder | None:
        path = self._folder / f"{name}.ocsp"
        try:
            stamp = _stamp(path)
            kept = self._responders.get(name)
            if kept is None or kept[0] != stamp:
                kept = self._responders[name] = (stamp, self._load(name, path))
            self._status[name].catch_up()
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as e:
            raise OSError(f"{path}: {e}") from e
        return kept[1]

    def _load(self, name: str, path: Path) -> Responder:
        pem = files.read_bounded(path, 1 << 16)
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("no key of a responder")
        issuer = x509.load_der_x509_certificate(self.file(f"{name}.cer") or b"")
        certificate = x509.load_pem_x509_certificate(pem)
        return Responder(issuer, certificate, key, self._status[name].look_up)


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
