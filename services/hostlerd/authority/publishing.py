"""What the signer lays out for the responder: certificate, CRL, status and the delegated key.

The folder belongs to the signer; the responder's group reads it. `NAME.status` has a line for each
certificate that has not ended: its serial number in hex, and if it is revoked, the time (Unix) and
the reason. Lines are added, the last one of a serial number counts; each refresh writes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hostler.core import files
from hostler.core.certificates import key_to_pem
from hostler.core.ssl.authority.issue import RESPONDER_LIFETIME, Signer, responder

FOLDER = Path("/var/lib/hostler/ssl-responder")
MAX_CRL_BYTES = 16 << 20
_MODE = 0o640


def status_line(serial: str, revoke_time: int | None, reason: str | None) -> str:
    """One line of a status file."""
    return f"{serial}\n" if revoke_time is None else f"{serial} {revoke_time} {reason}\n"


class Publishing:
    """The files of one issuer."""

    def __init__(self, folder: Path, issuer: str) -> None:
        self._folder = folder
        self._issuer = issuer

    def certificate(self, certificate: x509.Certificate) -> None:
        """Publish the issuer's own certificate."""
        data = certificate.public_bytes(serialization.Encoding.DER)
        files.replace(self._path("cer"), data, mode=_MODE)

    def crl(self, der: bytes) -> None:
        """Publish a CRL."""
        files.replace(self._path("crl"), der, mode=_MODE)

    def read_crl(self) -> bytes | None:
        """The CRL that is published; None if there is none."""
        try:
            return files.read_bounded(self._path("crl"), MAX_CRL_BYTES)
        except FileNotFoundError:
            return None

    def status(self, lines: Iterable[str]) -> None:
        """Publish the status of all certificates."""
        files.replace(self._path("status"), "".join(lines).encode(), mode=_MODE)

    def add_status(self, line: str) -> None:
        """Add the status of one. What is lost with a power cut, the next refresh writes."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path("status"), flags, _MODE)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    def delegate(self, signer: Signer, now: datetime) -> None:
        """See that the responder has a key, and a certificate for it good for half its life."""
        path = self._path("ocsp")
        try:
            certificate = x509.load_pem_x509_certificate(files.read_bounded(path, 1 << 16))
            certificate.verify_directly_issued_by(signer.certificate)
            if certificate.not_valid_after_utc - now > RESPONDER_LIFETIME / 2:
                return
        except (FileNotFoundError, ValueError, TypeError, InvalidSignature):
            pass
        key = ec.generate_private_key(ec.SECP256R1())
        made = responder(signer, key.public_key(), now).public_bytes(serialization.Encoding.PEM)
        files.replace(path, key_to_pem(key) + made, mode=_MODE)

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._issuer}.{suffix}"
