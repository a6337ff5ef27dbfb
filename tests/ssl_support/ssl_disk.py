"""Certificates and keys on a disk, made by openssl, which knows nothing of Hostler."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

OPENSSL = "/usr/bin/openssl"


def openssl(*words: str | Path, stdin: bytes = b"") -> bytes:
    argv = [OPENSSL, *map(str, words)]
    return subprocess.run(argv, input=stdin, capture_output=True, check=True, timeout=60).stdout


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, self-signed."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        told = openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha256")
        return told.decode().partition("=")[2].strip().replace(":", "").lower()

    @property
    def spki(self) -> str:
        public = openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER")
        return openssl("dgst", "-sha256", "-r", stdin=public).decode().split()[0]


def pair(folder: Path, name: str, *names: str, days: int = 90, key: Path | None = None) -> Pair:
    """Make a certificate for names, with a new key unless one is given."""
    made = Pair(folder / f"{name}.crt", key or folder / f"{name}.key")
    sans = ",".join(f"DNS:{each}" for each in names or (f"{name}.test",))
    if key is None:
        openssl(
            "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", made.key
        )
        made.key.chmod(0o600)
    openssl(
        *(
            "req",
            "-x509",
            "-new",
            "-key",
            made.key,
            "-out",
            made.certificate,
            "-subj",
            f"/CN={name}",
        ),
        *("-days", str(days), "-addext", f"subjectAltName={sans}"),
        *("-addext", "basicConstraints=critical,CA:false"),
    )
    return made
